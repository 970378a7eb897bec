"""Tiny bases with random weights, as in tests/tiny.py, of the families whose text encoder is a language model."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engine import bases
from engine.bases import Base
from tests.tiny import TOML

MARKS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)
TEMPLATE = (  # what of Qwen3's own matters here
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def tiny_klein(home: Path, distilled: bool = False, name: str = "tiny-klein") -> Base:
    """A FLUX.2-klein whose autoencoder keeps statistics that are not 0 and 1."""
    torch.manual_seed(0)
    net = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8), latent_channels=4, norm_num_groups=2, layers_per_block=1, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    pipe = Flux2KleinPipeline(
        scheduler=_scheduler(use_dynamic_shifting=True, shift=3.0), vae=vae, text_encoder=_qwen3(28),
        tokenizer=tokenizer(home), transformer=net, is_distilled=distilled,
    )  # fmt: skip
    return _saved(pipe, home, name, "flux2")


def tiny_zimage(home: Path, name: str = "tiny-zimage") -> Base:
    torch.manual_seed(1)
    net = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    _awake(net)
    vae = AutoencoderKL(
        block_out_channels=(4, 8), latent_channels=4, norm_num_groups=2, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.3611, shift_factor=0.1159,
    )  # fmt: skip
    pipe = ZImagePipeline(_scheduler(shift=3.0), vae, _qwen3(3), tokenizer(home), net)
    return _saved(pipe, home, name, "zimage")


def tiny_qwen(home: Path, edits: str = "", name: str = "") -> Base:
    """A Qwen-Image; `edits`: a Qwen-Image-Edit of the "first" release, or one of the "later"."""
    torch.manual_seed(2)
    net = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 6, 6), zero_cond_t=edits == "later",
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.3, -0.4, 0.1, 0.9], latents_std=[2.8, 1.4, 2.3, 0.6],
    )  # fmt: skip
    own = tokenizer(home)
    given = {"scheduler": _scheduler(use_dynamic_shifting=True, shift_terminal=0.02), "vae": vae, "transformer": net,
             "text_encoder": _qwen_vl(own), "tokenizer": own}  # fmt: skip
    pipe = QwenImagePipeline(**given)
    base = _saved(pipe, home, name or f"tiny-qwen{edits and '-' + edits}", "qwen")
    if edits:
        # diffusers' own processor asks for torchvision, which its pictures do not need: the folder is what counts
        Qwen2VLImageProcessorPil(min_pixels=28 * 28).save_pretrained(base.folder / "processor")
        index = json.loads((base.folder / "model_index.json").read_text())
        kinds = {"first": QwenImageEditPipeline, "later": QwenImageEditPlusPipeline}
        index["_class_name"] = kinds[edits].__name__
        (base.folder / "model_index.json").write_text(json.dumps(index))
    return base


def tokenizer(home: Path) -> Qwen2Tokenizer:
    """Every byte is a token, and so is every mark of a chat."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocab = {letter: i for i, letter in enumerate(bytes_to_unicode().values())}
    made = Qwen2Tokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": list(MARKS)})
    made.chat_template = TEMPLATE
    return made


def _qwen3(layers: int) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, tie_word_embeddings=True, initializer_range=0.3,
        )
    ).eval()  # fmt: skip


def _qwen_vl(own: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    ids = {
        name: own.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 300, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1], "initializer_range": 0.3,
        },
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"],
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def _scheduler(**more: object) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**more)


def _awake(net: nn.Module) -> None:
    """Weights that a fresh network sets to zero become small numbers: else nothing that it reads would matter."""
    for parameter in net.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.1)


def _saved(pipe: DiffusionPipeline, home: Path, name: str, family: str) -> Base:
    folder = home / "bases" / name
    pipe.save_pretrained(folder)
    said = TOML.format(name=name, family=family, sampler="euler").replace("guidance = 3.0", "guidance = 1.0")
    (folder / "base.toml").write_text(said)
    return bases.find(name, home)

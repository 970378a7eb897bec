"""Bases of the real architectures, tiny and with random weights: to test the families that Pocket is not."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

TOML = """
name = "{name}"
title = "Tiny {family}"
family = "{family}"
licence = "Apache-2.0"
commercial = true
[size]
native = 32
multiple = 8
min = 16
max = 128
[defaults]
steps = 4
guidance = 3.0
sampler = "{sampler}"
[training]
rate = 1e-3
"""


def tiny_sd(home: Path, prediction: str = "epsilon", name: str = "tiny-sd") -> Path:
    """A Stable Diffusion 1.x of 60,000 parameters in `home`/bases/`name`."""
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_text_config(16)), tokenizer=_tokenizer(home), unet=_unet(16),
        scheduler=_scheduler(prediction), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return _saved(pipe, home, name, "sd")


def tiny_sdxl(home: Path, name: str = "tiny-sdxl") -> Path:
    """A Stable Diffusion XL of as many, with its two text encoders and size conditions."""
    torch.manual_seed(1)
    tokenizer = _tokenizer(home)
    more = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64,
    }
    pipe = StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_text_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(16)), tokenizer=tokenizer, tokenizer_2=tokenizer,
        unet=_unet(32, **more), scheduler=_scheduler("epsilon"), add_watermarker=False,
    )  # fmt: skip
    return _saved(pipe, home, name, "sdxl")


def tiny_sd3(home: Path, name: str = "tiny-sd3", t5: bool = True, shifts: bool = False) -> Path:
    """A Stable Diffusion 3.5 with and without T5; `shifts`: its noise schedule follows the size.

    As in 3.5 medium the queries and keys are normed, and the first block has a second attention.
    """
    torch.manual_seed(2)
    tokenizer = _tokenizer(home)
    pipe = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=40, caption_projection_dim=16, pooled_projection_dim=32,
            pos_embed_max_size=64, qk_norm="rms_norm", dual_attention_layers=(0,),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=shifts),
        vae=_vae(16), text_encoder=CLIPTextModelWithProjection(_text_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(16)), tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder_3=T5EncoderModel(_t5_config(40)) if t5 else None, tokenizer_3=_t5_tokenizer() if t5 else None,
    )  # fmt: skip
    return _saved(pipe, home, name, "sd3", "euler")


def tiny_flux(home: Path, name: str = "tiny-flux", guides: bool = True) -> Path:
    """A FLUX.1 with guidance as an input (dev), or without (schnell, whose noise schedule follows no size)."""
    torch.manual_seed(3)
    pipe = FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=24, pooled_projection_dim=16, guidance_embeds=guides, axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if guides else 1.0, use_dynamic_shifting=guides),
        vae=_vae(16), text_encoder=CLIPTextModel(_text_config(16)), tokenizer=_tokenizer(home),
        text_encoder_2=T5EncoderModel(_t5_config(24)), tokenizer_2=_t5_tokenizer(),
    )  # fmt: skip
    return _saved(pipe, home, name, "flux", "euler")


def _unet(width: int, **more: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width, **more,
    )  # fmt: skip


def _vae(channels: int = 4) -> AutoencoderKL:
    """With 16 channels it has the shift, and lacks the convolutions around them, as those of SD 3 and FLUX do."""
    more = {"shift_factor": 0.1, "use_quant_conv": False, "use_post_quant_conv": False} if channels == 16 else {}
    blocks = ("DownEncoderBlock2D", "DownEncoderBlock2D"), ("UpDecoderBlock2D", "UpDecoderBlock2D")
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=blocks[0],
        up_block_types=blocks[1],
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=channels,
        **more,
    )


def _text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=600, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


def _t5_config(width: int) -> T5Config:
    return T5Config(
        vocab_size=200, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip


def _t5_tokenizer() -> T5Tokenizer:
    """A letter each, and a few words."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters = [(chr(code), -3.0) for code in range(33, 127)]
    words = [(f"▁{word}", -1.0) for word in ("a", "cat", "dog", "red", "the")]
    return T5Tokenizer(vocab=[*marks, *letters, *words], extra_ids=0, model_max_length=512)


def _scheduler(prediction: str) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction,
        timestep_spacing="trailing", steps_offset=1, rescale_betas_zero_snr=prediction == "v_prediction",
    )  # fmt: skip


def _tokenizer(home: Path) -> CLIPTokenizer:
    """Every byte as a token with and without the end-of-word mark: any text can be written, in many tokens."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    vocab = {
        token: i
        for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters, *(x + "</w>" for x in letters)])
    }
    folder = home / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="<|endoftext|>", model_max_length=77
    )


def _saved(pipe: DiffusionPipeline, home: Path, name: str, family: str, sampler: str = "dpm++") -> Path:
    folder = home / "bases" / name
    pipe.save_pretrained(folder)
    (folder / "base.toml").write_text(TOML.format(name=name, family=family, sampler=sampler))
    return folder

"""Tiny models in both layouts: diffusers' folder, and the single file that CompVis' and Stability's own code writes.

The names in the single file are written down here from that code's module structure, not taken from any converter.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.tiny import _tokenizer, _vae

TOKENS = 514  # of the tiny tokenizer
LAYERS = 1  # residual blocks in a block of the UNet
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip


def pipeline(kind: str, home: Path) -> Any:
    """A random model of the architecture `kind` (sd1, sd2, sdxl); the widths of its parts all differ."""
    torch.manual_seed(len(kind))
    tokenizer = _tokenizer(home)
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="leading", steps_offset=1
    )
    if kind == "sdxl":
        return StableDiffusionXLPipeline(
            vae=_vae(), text_encoder=CLIPTextModel(_text(16, "quick_gelu")),
            text_encoder_2=CLIPTextModelWithProjection(_text(24, "gelu")), tokenizer=tokenizer,
            tokenizer_2=_padding_with_zeros(home), scheduler=scheduler, add_watermarker=False,
            unet=_unet(40, addition_embed_type="text_time", addition_time_embed_dim=8,
                       projection_class_embeddings_input_dim=72, use_linear_projection=True),
        )  # fmt: skip
    unet = _unet(16) if kind == "sd1" else _unet(24, use_linear_projection=True)
    text = _text(16, "quick_gelu") if kind == "sd1" else _text(24, "gelu")
    tokenizer = tokenizer if kind == "sd1" else _padding_with_zeros(home)
    return StableDiffusionPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def single(pipe: Any, file: Path, metadata: dict[str, str] | None = None, **more: Tensor) -> Path:
    """The pipeline as one checkpoint file."""
    tensors = {f"model.diffusion_model.{key}": t for key, t in unet_names(pipe.unet.state_dict()).items()}
    tensors |= {f"first_stage_model.{key}": t for key, t in vae_names(pipe.vae.state_dict()).items()}
    first = {f"text_model.{k.removeprefix('text_model.')}": t for k, t in pipe.text_encoder.state_dict().items()}
    if isinstance(pipe, StableDiffusionXLPipeline):
        tensors |= {f"conditioner.embedders.0.transformer.{key}": t for key, t in first.items()}
        second = open_clip_names(pipe.text_encoder_2.state_dict())
        tensors |= {f"conditioner.embedders.1.model.{key}": t for key, t in second.items()}
    elif pipe.unet.config.use_linear_projection:
        tensors |= {f"cond_stage_model.model.{k}": t for k, t in open_clip_names(first).items()}
    else:
        tensors |= {f"cond_stage_model.transformer.{key}": t for key, t in first.items()}
    tensors |= more
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, file, metadata)
    return file


def layout(pipe: Any, kind: str, folder: Path) -> Path:
    """A folder of layouts with one, as engine/bases/single has them, but of this pipeline's sizes."""
    here = folder / kind
    here.mkdir(parents=True)
    parts = ["unet", "vae", "text_encoder", *(["text_encoder_2"] if kind == "sdxl" else [])]
    for part in parts:
        module = getattr(pipe, part)
        said = json.loads(module.config.to_json_string()) if part.startswith("text") else dict(module.config)
        name = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}.get(part)
        extra = {"_class_name": name} if name else {"architectures": [type(module).__name__]}
        (here / f"{part}.json").write_text(json.dumps({**said, **extra}, default=list))
    shipped = Path(__file__).parents[1] / "engine" / "bases" / "single" / kind
    (here / "scheduler.json").write_text((shipped / "scheduler.json").read_text())
    text = (shipped / "layout.toml").read_text()
    width = pipe.unet.config.cross_attention_dim
    marks = (
        f'[marks]\n"model.diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight" = [16, {width}]\n'
    )
    text = re.sub(r"\[marks\].*?(?=\n\[parts\])", marks, text, flags=re.DOTALL)
    size = "[size]\nnative = 32\nmultiple = 8\nmin = 16\nmax = 128\n"
    text = re.sub(r"\[size\].*?(?=\n\[defaults\])", size, text, flags=re.DOTALL)
    (here / "layout.toml").write_text(text)
    return folder


def unet_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_unet_name(key, state): tensor for key, tensor in state.items()}


def vae_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{1 - int(m[1])}.block.{m[2]}", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample", name)
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if "mid_block.attentions.0." in name:
            for ours, theirs in VAE_ATTENTION.items():
                name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor  # a convolution of one pixel there
        named[name] = tensor
    return named


def open_clip_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's transformer: q, k and v are one matrix, the projection is the other way round."""
    state = {key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    named: dict[str, Tensor] = {
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    if "text_projection.weight" in state:
        named["text_projection"] = state["text_projection.weight"].T
    for key, tensor in state.items():
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
        if not found:
            continue
        block, name, kind = f"transformer.resblocks.{found[1]}", found[2], found[3]
        if name in OPEN_CLIP:
            named[f"{block}.{OPEN_CLIP[name]}.{kind}"] = tensor
        elif name == "self_attn.q_proj":
            qkv = [state[f"encoder.layers.{found[1]}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            named[f"{block}.attn.in_proj_{kind}"] = torch.cat(qkv)
    return named


def _unet_name(key: str, state: dict[str, Tensor]) -> str:
    for ours, theirs in ENDS.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", key):
        place = {"resnets0": 0, "attentions0": 1, "resnets1": 2}[found[1] + found[2]]
        return f"middle_block.{place}.{_inner(found[1], found[3])}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)", key)
    assert found, key
    way, i, what, j, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if what == "downsamplers":
        return f"input_blocks.{(i + 1) * (LAYERS + 1)}.0.{rest.replace('conv', 'op')}"
    if what == "upsamplers":
        after = 2 if any(name.startswith(f"up_blocks.{i}.attentions") for name in state) else 1
        return f"output_blocks.{i * (LAYERS + 1) + LAYERS}.{after}.{rest}"
    number = (1 if way == "down" else 0) + i * (LAYERS + 1) + j
    return f"{'input' if way == 'down' else 'output'}_blocks.{number}.{int(what == 'attentions')}.{_inner(what, rest)}"


def _inner(what: str, rest: str) -> str:
    if what == "attentions":
        return rest
    name, _, kind = rest.partition(".")
    return f"{RESNET[name]}.{kind}"


def _unet(width: int, **more: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=LAYERS, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width, **more,
    )  # fmt: skip


def _text(width: int, act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=TOKENS, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1, hidden_act=act,
    )  # fmt: skip


def _padding_with_zeros(home: Path) -> CLIPTokenizer:
    """As that of SD 2.x and SDXL's second one, which pad with “!”."""
    folder = home / "tokenizer"
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="!", model_max_length=77)

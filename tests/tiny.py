"""Bases of the real architectures, tiny and with random weights: to test the families that Pocket is not."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

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
sampler = "dpm++"
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


def _unet(width: int, **more: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width, **more,
    )  # fmt: skip


def _vae() -> AutoencoderKL:
    blocks = ("DownEncoderBlock2D", "DownEncoderBlock2D"), ("UpDecoderBlock2D", "UpDecoderBlock2D")
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=blocks[0],
        up_block_types=blocks[1],
        norm_num_groups=4,
        layers_per_block=1,
    )


def _text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=600, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


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


def _saved(pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, home: Path, name: str, family: str) -> Path:
    folder = home / "bases" / name
    pipe.save_pretrained(folder)
    (folder / "base.toml").write_text(TOML.format(name=name, family=family))
    return folder

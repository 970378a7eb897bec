"""Model families: each is one file here.

A family knows how its bases are loaded, how a prompt becomes a conditioning, and what its UNet wants beside it. The
rest (the rack, the sampling loop, training) is the same code for every family.
"""

import importlib
import json
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from engine.bases import Preview
from engine.errors import Invalid
from engine.prompts import Prompt

diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


@dataclass(frozen=True)
class Parts:
    """What a base is made of, on the CPU as loaded. `scheduler` is the base's own scheduler configuration.

    `unet` is a UNet2DConditionModel, `vae` an AutoencoderKL: Any here, as diffusers types them in part.
    """

    unet: Any
    vae: Any
    tokenizers: tuple[Any, ...]
    encoders: tuple[nn.Module, ...]
    scheduler: dict[str, Any]


@dataclass(frozen=True)
class Conditioning:
    """What the UNet reads of a text: `tokens` (1, 77·chunks, d) and, where the family has one, `pooled` (1, p)."""

    tokens: Tensor
    pooled: Tensor | None = None


class Family(Protocol):
    """One file of this folder is one: a module with these functions."""

    PREVIEW: Preview  # for bases that bring none of their own

    def load(self, folder: Path, dtype: torch.dtype) -> Parts: ...

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """The conditioning of `prompt`, of at least `chunks` pieces."""
        ...

    def extra(self, cond: Conditioning, width: int, height: int) -> dict[str, Any]:
        """Keyword arguments of the UNet beside the tokens."""
        ...


def find(name: str) -> Family:
    """The family of that name, found by listing this folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in names:
        raise Invalid("family", f"“{name}” is none that can be drawn with", f"There are {', '.join(names)}.")
    return cast(Family, importlib.import_module(f"{__name__}.{name}"))


def part(cls: Any, folder: Path, name: str, dtype: torch.dtype) -> Any:
    """One component of a base in diffusers' layout, from its safetensors alone and never from a network."""
    found = cls.from_pretrained(folder, subfolder=name, torch_dtype=dtype, local_files_only=True, use_safetensors=True)
    return found.eval().requires_grad_(False)


def common_parts(
    folder: Path, dtype: torch.dtype, encoders: tuple[nn.Module, ...], tokenizers: tuple[str, ...]
) -> Parts:
    """The parts that all Stable Diffusion families have. The autoencoder works in fp32: in fp16, SDXL's gives NaNs."""
    read: Any = cast(Any, CLIPTokenizer).from_pretrained
    return Parts(
        part(UNet2DConditionModel, folder, "unet", dtype),
        part(AutoencoderKL, folder, "vae", torch.float32),
        tuple(read(folder / name, local_files_only=True) for name in tokenizers),
        encoders,
        json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
    )


def stacked(conditions: Sequence[Conditioning]) -> Conditioning:
    """Several conditionings as one batch."""
    pooled = [c.pooled for c in conditions if c.pooled is not None]
    return Conditioning(torch.cat([c.tokens for c in conditions]), torch.cat(pooled) if pooled else None)

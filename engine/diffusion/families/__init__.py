"""Model families: each is one file here.

A family knows how its bases are loaded, how a prompt becomes a conditioning, how its network is asked, and what its
latents are. The rest (the rack, the sampling loop) is the same code for every family. Latents are (n, c, h, w) outside
of a family, whatever its network reads.
"""

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from engine.bases import Base, Preview
from engine.diffusion.prompts import Word
from engine.errors import Invalid
from engine.plans import SAMPLERS, ImagePlan
from engine.prompts import Prompt

diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


@dataclass(frozen=True)
class Parts:
    """What a base is made of, on the CPU as loaded. `scheduler` is the base's own scheduler configuration.

    `denoiser` is the network that draws, a UNet or a transformer, `vae` an autoencoder: Any, as diffusers types them
    in part. `processor` prepares pictures for a text encoder that sees them; `index` is what the base says of itself
    as a whole (diffusers' model_index.json), empty where it does not. `words` are the embeddings that prompts may name
    now.
    """

    denoiser: Any
    vae: Any
    tokenizers: tuple[Any, ...]
    encoders: tuple[nn.Module, ...]
    scheduler: dict[str, Any]
    processor: Any = None
    index: Mapping[str, Any] = field(default_factory=dict[str, Any])
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser reads of a text: `tokens` (n, length, d) and, where the family has one, `pooled` (n, p).

    `mask` (n, length) is False where a token only fills a shorter text up; None: there is none such. `references` are
    the latents (1, c, h, w) of pictures to look at, the same for all n.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    references: tuple[Tensor, ...] = ()


class Family(ABC):
    """One file of this folder is one: a module whose `FAMILY` is an instance of a subclass."""

    preview: Preview | None = None  # for bases that bring none of their own; None: it is fitted to the autoencoder
    samplers: tuple[str, ...] = SAMPLERS
    voices: tuple[str, ...] = ("text_encoder", "text_encoder_2")  # what LoRAs call its text encoders
    sees: bool = False  # whether its text encoder reads the reference pictures along with the prompt
    speaks: bool = False  # whether `encode` reads `Parts.words`

    @abstractmethod
    def load(self, folder: Path, dtype: torch.dtype) -> Parts: ...

    @abstractmethod
    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """The conditioning of `prompt`, of at least `chunks` pieces where the family reads in pieces."""

    @abstractmethod
    def predict(
        self, parts: Parts, net: nn.Module, x: Tensor, t: Tensor, cond: Conditioning, guidance: float
    ) -> Tensor:
        """What `net` says of noisy latents x (n, c, h, w) at the scheduler's timesteps t (n,) or (), as (n, c, h, w).

        `net` is the denoiser, or a copy that is being trained. `guidance` is for families whose network reads it.
        """

    def encode_seen(self, parts: Parts, prompt: Prompt, references: Sequence[Tensor]) -> Conditioning:  # noqa: ARG002
        """The conditioning of a prompt about pictures, each (1, 3, h, w) in [-1, 1]; asked of families that `sees`."""
        return self.encode(parts, prompt, 1)

    def refer(self, parts: Parts, cond: Conditioning, references: Sequence[Tensor]) -> Conditioning:  # noqa: ARG002
        """`cond` for a denoiser that looks at these pictures too, each (1, 3, h, w) in [-1, 1]; `Invalid` if it cannot.

        An instruction to edit is a prompt with one reference: the picture to be edited.
        """
        todo = "Draw over the picture instead, or take a base that reads them, such as FLUX.2-klein or Qwen-Image-Edit."
        raise Invalid("reference", "this base takes no reference pictures", todo)

    def chunks(self, parts: Parts, cond: Conditioning) -> int:  # noqa: ARG002 - for families that read in pieces
        return 1

    def contrasts(self, guidance: float) -> bool:
        """Whether that guidance takes a second pass without the prompt."""
        return guidance > 1

    def guided(self, without: Tensor, with_prompt: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance, v = v₋ + g (v₊ − v₋)  (Ho & Salimans 2022, arXiv:2207.12598); all (n, c, h, w)."""
        return without + guidance * (with_prompt - without)

    def timing(self, parts: Parts, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:  # noqa: ARG002
        """Arguments of the scheduler's `set_timesteps` for latents of that shape."""
        return {"num_inference_steps": steps}

    def latent_shape(self, parts: Parts, width: int, height: int) -> tuple[int, int, int, int]:
        scale = self.scale(parts)
        return 1, parts.vae.config.latent_channels, height // scale, width // scale

    def scale(self, parts: Parts) -> int:
        """Pixels a side of one latent."""
        return 2 ** (len(parts.vae.config.block_out_channels) - 1)

    def to_latents(self, parts: Parts, pixels: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] → latents at the scale that the denoiser works on (the posterior's mean)."""
        config = parts.vae.config
        found = parts.vae.encode(pixels.to(parts.vae.dtype)).latent_dist.mode()
        return (found - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor

    def to_pixels(self, parts: Parts, latents: Tensor) -> Tensor:
        """The way back: (n, 3, h, w) in about [-1, 1]."""
        config = parts.vae.config
        z = latents.to(parts.vae.dtype) / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        return parts.vae.decode(z).sample

    def accepts(self, base: Base, plan: ImagePlan) -> None:  # noqa: B027 - most families read all of a plan
        """Raise `Invalid` for what `base`, which is whole, would leave unread; asked before it is loaded."""


def find(name: str) -> Family:
    """The family of that name, found by listing this folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in names:
        raise Invalid("family", f"“{name}” is none that can be drawn with", f"There are {', '.join(names)}.")
    return cast(Family, importlib.import_module(f"{__name__}.{name}").FAMILY)


def tokenizer(cls: Any, folder: Path, name: str) -> Any:
    """One tokenizer of a base, or what prepares pictures for its encoder; never from a network."""
    return cls.from_pretrained(folder / name, local_files_only=True)


def part(cls: Any, folder: Path, name: str, dtype: torch.dtype) -> Any:
    """One component of a base in diffusers' layout, from its safetensors alone and never from a network."""
    found = cls.from_pretrained(folder, subfolder=name, torch_dtype=dtype, local_files_only=True, use_safetensors=True)
    return found.eval().requires_grad_(False)


def config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a base; empty if it is not there."""
    path = folder / name
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def common_parts(
    folder: Path, dtype: torch.dtype, encoders: tuple[nn.Module, ...], tokenizers: tuple[str, ...]
) -> Parts:
    """The parts that all Stable Diffusion families have. The autoencoder works in fp32: in fp16, SDXL's gives NaNs."""
    return Parts(
        part(UNet2DConditionModel, folder, "unet", dtype),
        part(AutoencoderKL, folder, "vae", torch.float32),
        tuple(tokenizer(CLIPTokenizer, folder, name) for name in tokenizers),
        encoders,
        config(folder, "scheduler/scheduler_config.json"),
    )


def stacked(conditions: Sequence[Conditioning]) -> Conditioning:
    """Several conditionings as one batch: shorter texts are filled up with zeros, and masked.

    References are those of the first: all have the same.
    """
    longest = max(c.tokens.shape[1] for c in conditions)
    pooled = [c.pooled for c in conditions if c.pooled is not None]
    masks = [_mask(c) for c in conditions]
    whole = all(c.mask is None and c.tokens.shape[1] == longest for c in conditions)
    return Conditioning(
        torch.cat([pad(c.tokens, (0, 0, 0, longest - c.tokens.shape[1])) for c in conditions]),
        torch.cat(pooled) if pooled else None,
        None if whole else torch.cat([pad(mask, (0, longest - mask.shape[1])) for mask in masks]),
        conditions[0].references,
    )


def _mask(cond: Conditioning) -> Tensor:
    if cond.mask is not None:
        return cond.mask
    return torch.ones(cond.tokens.shape[:2], dtype=torch.bool, device=cond.tokens.device)

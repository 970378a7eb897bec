"""The sampling loop: text-to-image, image-to-image and masked inpainting, for every family.

A generator that yields after each step, so that progress, previews and cancelling are the caller's plain `for`.
Pictures are drawn one at a time, each from its own CPU generator: picture 3 of 4 is the same alone.
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.bases import Base
from engine.diffusion.families import Conditioning, stacked
from engine.diffusion.resident import Resident
from engine.diffusion.samplers import sampler
from engine.prompts import LITERAL, Prompt


@dataclass(frozen=True)
class Canvas:
    """What a picture is drawn over: its `latents` (1, c, h, w); `keep` (1, 1, h, w) is 1 where it must stay."""

    latents: Tensor
    strength: float
    keep: Tensor | None = None


@dataclass(frozen=True)
class Brush:
    """How one picture is drawn; see `engine.plans.ImagePlan`."""

    prompt: str
    negative: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    canvas: Canvas | None = None
    syntax: int = LITERAL

    @classmethod
    def plain(cls, base: Base, prompt: str, seed: int) -> "Brush":
        """As `base` draws best: in its native size, with its own defaults."""
        size, by = base.size.native, base.defaults
        return cls(prompt, "", seed, size, size, by.steps, by.guidance, by.sampler)


@dataclass(frozen=True)
class Stroke:
    """The state after step `step` of `steps`; `clean` is the guess by now of the finished latents, where known."""

    step: int
    steps: int
    latents: Tensor
    clean: Tensor


@torch.inference_mode()
def draw(resident: Resident, brush: Brush, unet: nn.Module | None = None) -> Generator[Stroke]:
    """Yield one Stroke a step; the last one's `latents` are the finished picture's.

    Classifier-free guidance: v = v₋ + g (v₊ − v₋) (Ho & Salimans 2022, arXiv:2207.12598); g ≤ 1 needs no negative pass.
    """
    model: nn.Module = unet or resident.parts.unet
    cond, arguments = _conditions(resident, brush)
    scheduler = sampler(brush.sampler, resident.parts.scheduler, brush.steps)
    generator = torch.Generator("cpu").manual_seed(brush.seed)
    noise = torch.randn(resident.latent_shape(brush.width, brush.height), generator=generator).to(resident.device)
    timesteps, x = _start(scheduler, brush, noise)
    for i, t in enumerate(timesteps):
        seen = scheduler.scale_model_input(x.expand(len(cond.tokens), -1, -1, -1), t)
        out = model(seen.to(resident.dtype), t, encoder_hidden_states=cond.tokens, **arguments).sample.float()
        if len(out) == 2:
            without, with_prompt = out.chunk(2)
            out = without + brush.guidance * (with_prompt - without)
        x = scheduler.step(out, t, x, **_noise_source(scheduler, generator)).prev_sample
        x = _kept(scheduler, brush.canvas, x, noise, timesteps[i + 1 : i + 2])
        yield Stroke(i + 1, len(timesteps), x, _clean(scheduler, x))


def drawn(resident: Resident, brush: Brush, unet: nn.Module | None = None) -> Image.Image:
    """One whole picture, its steps unseen."""
    last = deque(draw(resident, brush, unet), maxlen=1).pop()
    return finish(resident, last.latents)


def finish(resident: Resident, latents: Tensor) -> Image.Image:
    """Decode one picture. Raises `FloatingPointError` if it is not one but NaNs, or one colour without a shade.

    The decoder computes in float32, so that float16's range is no cause of either.
    """
    pixels = resident.decode(latents)
    if not bool(torch.isfinite(pixels).all()):
        raise FloatingPointError("the decoded picture holds values that are not numbers")
    if float(pixels.max()) == float(pixels.min()):
        raise FloatingPointError("the decoded picture is one flat colour")
    return Image.fromarray((pixels[0].permute(1, 2, 0) * 255).round().byte().numpy())


def as_pixels(image: Image.Image) -> Tensor:
    """RGB picture → (1, 3, h, w) in [-1, 1]."""
    array = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 127.5 - 1


def _conditions(resident: Resident, brush: Brush) -> tuple[Conditioning, dict[str, Any]]:
    texts = (brush.negative, brush.prompt) if brush.guidance > 1 else (brush.prompt,)
    cond = stacked(resident.texts([Prompt(text, brush.syntax) for text in texts]))
    return cond, resident.family.extra(cond, brush.width, brush.height)


def _start(scheduler: Any, brush: Brush, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The timesteps to walk and the latents to begin with; over a canvas only the last `strength` of the steps."""
    timesteps: Tensor = scheduler.timesteps
    if brush.canvas is None:
        return timesteps, noise * scheduler.init_noise_sigma
    skipped = len(timesteps) - max(round(len(timesteps) * brush.canvas.strength), 1)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    timesteps = timesteps[skipped:]
    return timesteps, scheduler.add_noise(brush.canvas.latents, noise, timesteps[:1])


def _kept(scheduler: Any, canvas: Canvas | None, x: Tensor, noise: Tensor, following: Tensor) -> Tensor:
    """Under a mask, put back what must stay, as noisy as the next step (Lugmayr et al. 2022, arXiv:2201.09865)."""
    if canvas is None or canvas.keep is None:
        return x
    source = scheduler.add_noise(canvas.latents, noise, following) if len(following) else canvas.latents
    return canvas.keep * source + (1 - canvas.keep) * x


def _clean(scheduler: Any, x: Tensor) -> Tensor:
    guess: Tensor | None = (getattr(scheduler, "model_outputs", None) or [None])[-1]
    return x if guess is None else guess


def _noise_source(scheduler: Any, generator: torch.Generator) -> dict[str, torch.Generator]:
    """Samplers that add noise draw it from the picture's own generator."""
    names = scheduler.step.__code__.co_varnames[: scheduler.step.__code__.co_argcount]
    return {"generator": generator} if "generator" in names else {}

"""The sampling loop: text-to-image, image-to-image and masked inpainting, for every family.

A generator that yields after each step, so that progress, previews and cancelling are the caller's plain `for`.
Pictures are drawn one at a time, each from its own CPU generator: picture 3 of 4 is the same alone.
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.bases import Base
from engine.diffusion.control import Guide, guided
from engine.diffusion.families import Conditioning, Family, stacked
from engine.diffusion.resident import Resident
from engine.diffusion.samplers import Sampler
from engine.prompts import LITERAL, Prompt


@dataclass(frozen=True)
class Canvas:
    """What a picture is drawn over: its `latents` (1, c, h, w); `keep` (1, 1, h, w) is 1 where it must stay."""

    latents: Tensor
    strength: float
    keep: Tensor | None = None


@dataclass(frozen=True)
class Brush:
    """How one picture is drawn; see `engine.plans.ImagePlan`. `references`: pictures (1, 3, h, w) in [-1, 1].

    `guides` are ControlNets for a UNet.
    """

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
    references: tuple[Tensor, ...] = ()
    guides: tuple[Guide, ...] = ()

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
def draw(resident: Resident, brush: Brush, net: nn.Module | None = None) -> Generator[Stroke]:
    """Yield one Stroke a step; the last one's `latents` are the finished picture's.

    Where the family `contrasts`, each step asks the network twice: without the prompt and with it.
    """
    family, parts = resident.family, resident.parts
    model: nn.Module = net or parts.denoiser
    cond = _conditions(resident, brush)
    shape = resident.latent_shape(brush.width, brush.height)
    generator = torch.Generator("cpu").manual_seed(brush.seed)
    noise = torch.randn(shape, generator=generator).to(resident.device)
    sampler = Sampler(brush.sampler, parts.scheduler, family.timing(parts, brush.steps, shape), generator)
    x = sampler.begin(noise, brush.canvas and brush.canvas.latents, brush.canvas.strength if brush.canvas else 1.0)
    for i, t in enumerate(sampler.timesteps):
        seen = sampler.seen(x.expand(len(cond.tokens), -1, -1, -1), t)
        asked = guided(model, brush.guides, (i + 1) / len(sampler.timesteps))
        out = family.predict(parts, asked, seen.to(resident.dtype), t.to(x.device), cond, brush.guidance).float()
        if len(out) == 2:
            without, with_prompt = out.chunk(2)
            out = family.guided(without, with_prompt, brush.guidance)
        x, clean = sampler.step(out, t, x)
        x = _kept(sampler, brush.canvas, x, noise, i)
        yield Stroke(i + 1, len(sampler.timesteps), x, clean)


def drawn(resident: Resident, brush: Brush, net: nn.Module | None = None) -> Image.Image:
    """One whole picture, its steps unseen."""
    last = deque(draw(resident, brush, net), maxlen=1).pop()
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


def prompts(family: Family, brush: Brush) -> list[Prompt]:
    """What the network is asked with: the prompt, after the negative where the family contrasts the two."""
    texts = (brush.negative, brush.prompt) if family.contrasts(brush.guidance) else (brush.prompt,)
    return [Prompt(text, brush.syntax) for text in texts]


def _conditions(resident: Resident, brush: Brush) -> Conditioning:
    references = [picture.to(resident.device) for picture in brush.references]
    cond = stacked(resident.texts(prompts(resident.family, brush), references))
    return resident.family.refer(resident.parts, cond, references) if references else cond


def _kept(sampler: Sampler, canvas: Canvas | None, x: Tensor, noise: Tensor, step: int) -> Tensor:
    """Under a mask, put back what must stay, as noisy as the next step (Lugmayr et al. 2022, arXiv:2201.09865)."""
    if canvas is None or canvas.keep is None:
        return x
    return canvas.keep * sampler.noised(canvas.latents, noise, step + 1) + (1 - canvas.keep) * x

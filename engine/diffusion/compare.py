"""One picture by our pipeline and by plain diffusers, from the same weights: `python -m engine.diffusion.compare`.

Takes one JSON object as its argument (see `Task`), prints one on stdout. A process of its own, so that a base
that takes all of the memory takes no service down with it.
"""

import hashlib
import json
import platform
import sys
import time
import warnings
from collections import deque
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor
from transformers.utils import logging as transformers_logging

from engine import bases
from engine.bases import Base
from engine.bases.memory import check_fits
from engine.bases.models import Model, made_of
from engine.diffusion import families
from engine.diffusion.families import Parts
from engine.diffusion.flow import packed
from engine.diffusion.render import Brush, draw
from engine.diffusion.resident import Resident, free_memory
from engine.diffusion.samplers import scheduler
from engine.errors import AtelierError, Invalid
from engine.plans import LoraRef, LoraStack

PROMPT = "a red bicycle leaning on a white wall"
BARE: dict[str, dict[str, Any]] = {  # without what works on the finished picture
    "sd": {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    "sdxl": {"add_watermarker": False},
}
COMPARED = ("sd", "sdxl", "sd3", "flux")
SAME = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 2e-2}  # relative L2 of the latents


@dataclass(frozen=True)
class Task:
    base: str
    home: str
    lora: str | None = None
    out: str | None = None
    prompt: str = PROMPT
    seed: int = 1
    steps: int | None = None


@dataclass(frozen=True)
class Made:
    latents: Tensor
    pixels: Tensor  # (h, w, 3), 0 to 255, on the CPU
    seconds: float


def compare(task: Task) -> dict[str, Any]:
    """The figures of both, with and without the LoRA. Raises what loading and reading raise."""
    base = bases.find(task.base, Path(task.home))
    base.check_whole()
    if base.family not in COMPARED:
        raise Invalid(base.name, f"bases of the family {base.family} are not compared yet", "`draw` works with it.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device.type == "cpu" else getattr(torch, base.precision)
    check_fits(base, device.type == "cuda", free_memory(device))
    brush = Brush.plain(base, task.prompt, task.seed)
    if task.steps:
        brush = replace(brush, steps=task.steps)
    lora = Path(task.lora) if task.lora else None
    wanted: list[Path | None] = [None, lora] if lora else [None]
    model = made_of(base.family)
    resident = Resident(base, device, dtype)
    ours = [_ours(resident, brush, one) for one in wanted]
    del resident
    pipe = _pipeline(base, model, dtype, device)
    theirs = [_theirs(pipe, model, brush, one) for one in wanted]
    found = [_figures(a, b, dtype) | {"lora": one.name if one else None}
             for a, b, one in zip(ours, theirs, wanted, strict=True)]  # fmt: skip
    if lora:
        found[1]["change"] = _relative(ours[1].latents, ours[0].latents)
    if task.out:
        _save(Path(task.out), ours, theirs)
    return _about(base, brush, device, dtype) | {"pictures": found, "alike": all(f["alike"] for f in found)}


def _ours(resident: Resident, brush: Brush, lora: Path | None) -> Made:
    data = lora.read_bytes() if lora else b""
    ref = LoraRef("one", hashlib.sha256(data).hexdigest(), 1.0)
    with resident.stacked(LoraStack((ref,) if lora else ()), lambda _: data):
        began = time.perf_counter()
        last = deque(draw(resident, brush), maxlen=1).pop()
        pixels = resident.decode(last.latents)
    return Made(last.latents.float().cpu(), _shown(pixels), time.perf_counter() - began)


def _pipeline(base: Base, model: Model, dtype: torch.dtype, device: torch.device) -> Any:
    """Plain diffusers over the same files, in the same types: its own prompt encoding, loop, and LoRA loading."""
    parts: Parts = families.find(base.family).load(base.folder, dtype)
    encoders = [part for part in model.parts if part.startswith("text_encoder")]
    given = dict(zip_longest(encoders, parts.encoders)) | dict(zip_longest(model.tokenizers, parts.tokenizers))
    given |= {"vae": parts.vae, model.denoiser: parts.denoiser}
    given |= {"scheduler": scheduler(base.defaults.sampler, parts.scheduler)}
    pipe = getattr(diffusers, model.pipeline)(**given, **BARE.get(base.family, {}))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


@torch.inference_mode()
def _theirs(pipe: Any, model: Model, brush: Brush, lora: Path | None) -> Made:
    if lora:
        pipe.load_lora_weights(str(lora.parent), weight_name=lora.name, local_files_only=True)
    noise, network = _noise(pipe, model, brush), getattr(pipe, model.denoiser)
    more: dict[str, Any] = {}
    if model.family == "flux":  # the length of T5's sequence that each of the two was trained on
        more = {"max_sequence_length": 512 if network.config.guidance_embeds else 256}
    began = time.perf_counter()
    latents = pipe(
        brush.prompt, negative_prompt="", width=brush.width, height=brush.height, num_inference_steps=brush.steps,
        guidance_scale=brush.guidance, generator=torch.Generator("cpu").manual_seed(brush.seed), output_type="latent",
        latents=packed(noise).to(network.dtype) if model.family == "flux" else noise.to(network.dtype), **more,
    ).images  # fmt: skip
    if model.family == "flux":
        latents = pipe._unpack_latents(latents, brush.height, brush.width, pipe.vae_scale_factor)
    shift = getattr(pipe.vae.config, "shift_factor", None) or 0.0
    pixels: Tensor = cast(Tensor, pipe.vae.decode(latents.float() / pipe.vae.config.scaling_factor + shift).sample)
    return Made(latents.float().cpu(), _shown((pixels / 2 + 0.5).clamp(0, 1)), time.perf_counter() - began)


def _noise(pipe: Any, model: Model, brush: Brush) -> Tensor:
    """(1, c, h, w)."""
    scale, generator = pipe.vae_scale_factor, torch.Generator("cpu").manual_seed(brush.seed)
    channels = getattr(pipe, model.denoiser).config.in_channels // model.packing
    shape = (1, channels, brush.height // scale, brush.width // scale)
    return torch.randn(shape, generator=generator).to(pipe.device)


def _figures(ours: Made, theirs: Made, dtype: torch.dtype) -> dict[str, Any]:
    apart = (ours.pixels - theirs.pixels).abs()
    relative = _relative(ours.latents, theirs.latents)
    return {
        "latents_relative_l2": relative,
        "pixels_max": float(apart.max()),
        "pixels_mean": float(apart.mean()),
        "seconds": round(ours.seconds, 3),
        "seconds_diffusers": round(theirs.seconds, 3),
        "alike": relative <= SAME[dtype],
    }


def _relative(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / ‖b‖; NaN where either is none."""
    return float(((a - b).square().sum() / b.square().sum()).sqrt())


def _shown(pixels: Tensor) -> Tensor:
    return (pixels[0].permute(1, 2, 0).float().cpu() * 255).round()


def _save(folder: Path, ours: list[Made], theirs: list[Made]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in (("ours", ours), ("diffusers", theirs)):
        for one, suffix in zip(made, ("", "-lora"), strict=False):
            Image.fromarray(one.pixels.byte().numpy()).save(folder / f"{name}{suffix}.png")


def _about(base: Base, brush: Brush, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "base": base.name, "family": base.family, "base_sha256": base.fingerprint(), "licence": base.licence,
        "prompt": brush.prompt, "seed": brush.seed, "size": f"{brush.width}x{brush.height}", "steps": brush.steps,
        "guidance": brush.guidance, "sampler": brush.sampler, "device": name,
        "dtype": str(dtype).removeprefix("torch."),
        "limit": SAME[dtype], "python": platform.python_version(),
        **{library: version(library) for library in ("torch", "diffusers", "transformers", "peft")},
    }  # fmt: skip


def main(text: str) -> int:
    warnings.simplefilter("ignore")
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    try:
        said = compare(Task(**json.loads(text)))
    except AtelierError as error:
        said = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    except torch.OutOfMemoryError as error:
        said = {
            "error": {
                "code": "out_of_memory",
                "message": "There was not enough memory to compare.",
                "hint": f"{error}"[:200],
            }
        }
    sys.stdout.write(json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

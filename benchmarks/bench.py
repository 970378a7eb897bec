"""What the benchmarks share: the machine in one line, pictures as arrays, bootstrap intervals."""

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image

from engine import bases
from engine.diffusion.render import Brush, draw, finish
from engine.diffusion.resident import Resident
from engine.lora.blend import Delta, blend


def machine() -> str:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    cpu = names[0] if names else platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{datetime.date.today()} · {cpu}, {torch.get_num_threads()} threads{gpu} · "
        f"Python {platform.python_version()}, "
        f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    )


def pocket() -> Resident:
    """Pocket in fp32 on the best device there is."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Resident(bases.find("pocket"), device, torch.float32)


def pictures(
    resident: Resident,
    prompts: Sequence[str],
    seeds: Sequence[int],
    stack: Sequence[tuple[Mapping[str, Delta], float]] = (),
) -> np.ndarray:
    """(prompts · seeds, h, w, 3) uint8, with the base's defaults; the seed runs fastest."""
    size, said = resident.base.size.native, resident.base.defaults
    drawn: list[np.ndarray] = []
    with resident.rack.stacked(blend(stack)):
        for prompt in prompts:
            for seed in seeds:
                brush = Brush(prompt, "", seed, size, size, said.steps, said.guidance, said.sampler)
                *_, last = draw(resident, brush)
                drawn.append(np.asarray(finish(resident, last.latents)))
    return np.stack(drawn)


def interval(values: np.ndarray, rounds: int = 2_000) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over the first axis."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (rounds, len(values)))].mean(1)
    return float(values.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def sheet(images: np.ndarray, columns: int, file: Path, side: int = 128) -> None:
    """A contact sheet of (n, h, w, 3) uint8 pictures, row by row."""
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * side, rows * side), "white")
    for i, image in enumerate(images):
        page.paste(
            Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS),
            (i % columns * side, i // columns * side),
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    page.save(file)


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []

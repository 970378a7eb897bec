"""What a base takes, told from its files before anything is loaded: on the disk, on a GPU, in a CPU's memory."""

import json
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from engine.bases import Base
from engine.bases.header import read_header
from engine.errors import AtelierError, BaseTooLarge

KEPT = ("unet", "vae", "text_encoder", "text_encoder_2")


class Need(NamedTuple):
    """Bytes: to draw at all, and what LoRAs add (a second copy of the UNet, from which stacks are written)."""

    bare: int
    loras: int

    @property
    def whole(self) -> int:
        return self.bare + self.loras


def disk(folder: Path) -> int:
    """Bytes of all of a base's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def need(base: Base, gpu: bool) -> Need:
    """An estimate: the weights exactly, in the types that they are loaded in, and the largest working set roughly.

    The autoencoder works in float32; its last layers hold about three pictures of all of their channels at once.
    """
    counts = parameters(base.folder)
    item = 2 if gpu and base.precision == "bfloat16" else 4
    vae = counts.get("vae", 0)
    weights = sum(counts.values()) * item + vae * (4 - item)
    return Need(weights + base.size.native**2 * _channels(base.folder) * 4 * 3, counts.get("unet", 0) * item)


@cache
def parameters(folder: Path) -> dict[str, int]:
    """How many numbers each part of a base holds; from the headers of its files alone."""
    return {
        part: sum(
            e.numbers for file in (folder / part).glob("*.safetensors") for e in read_header(file).tensors.values()
        )
        for part in KEPT
        if (folder / part).is_dir()
    }


def check_fits(base: Base, gpu: bool, free: int | None) -> None:
    """Raise `BaseTooLarge` where the base cannot be loaded into `free` bytes; None is not known, and passes."""
    if free is not None and (wanted := need(base, gpu).bare) > free:
        raise BaseTooLarge(base.name, wanted, free, gpu)


def free_memory() -> int | None:
    """Bytes that this machine can give without swapping; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def said(base: Base) -> str:
    """The estimate for people; `?` where a file cannot be read."""
    try:
        gpu, cpu = need(base, gpu=True), need(base, gpu=False)
    except AtelierError:
        return "?"
    bare = f"{gpu.bare / 1e9:.1f} GB of GPU memory or {cpu.bare / 1e9:.1f} GB of RAM"
    return f"{bare}; with LoRAs {gpu.whole / 1e9:.1f} or {cpu.whole / 1e9:.1f}"


def _channels(folder: Path) -> int:
    """Of the autoencoder's widest layer at full size."""
    try:
        blocks = json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]
        return int(max(blocks[:2]))
    except (OSError, ValueError, KeyError, TypeError):
        return 256

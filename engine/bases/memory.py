"""What a base takes, told from its files before anything is loaded, and in which mode a machine can hold it.

The modes, from the fastest to the smallest (docs/memory.md):

- full     everything on the device, and beside the denoiser a pristine copy from which stacks are written
- pinned   the denoiser on the device, its pristine copy in page-locked host memory; the text encoders and the
           autoencoder wait on the host
- offload  the denoiser waits on the host, too, and passes through the device block by block at each step
- small    the denoiser's matrices in float8 on the device, LoRAs beside them as low-rank branches; the rest as pinned

The first three draw the same picture. `small` draws another one, a little apart, so it is never chosen where one of
them fits.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from engine.bases import Base
from engine.bases.header import read_header
from engine.errors import AtelierError, BaseTooLarge, Invalid

DENOISERS = ("unet", "transformer")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
KEPT = (*DENOISERS, "vae", *ENCODERS)

Mode = Literal["full", "pinned", "offload", "small"]
Wanted = Literal["auto", "full", "pinned", "offload", "small"]
Precision = Literal["float32", "bfloat16", "float16"]
MODES: tuple[Mode, ...] = get_args(Mode)
BLOCK = 2**28  # bytes: a larger block is streamed in parts, where it is made of such
COVERED = 0.9  # of a block, by its own sub-blocks, for it to be streamed as these
TILED = 1_500_000_000  # bytes: the working set of any picture, where the autoencoder may work tile by tile
ITEM: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
NUMBER = re.compile(r"\.\d+(?=\.)")  # in a weight's path: one element of a list of modules


@dataclass(frozen=True, slots=True)
class Machine:
    """What a choice depends on: the device's kind, its free bytes, the host's, and whether bfloat16 works there.

    None is not known, and passes. On "cpu" and "mps" device and host are one memory.
    """

    kind: Literal["cuda", "mps", "cpu"]
    free: int | None = None
    host: int | None = None
    bf16: bool = True


class Need(NamedTuple):
    """Bytes: to draw at all, and what LoRAs add (a second copy of the denoiser, from which stacks are written)."""

    bare: int
    loras: int

    @property
    def whole(self) -> int:
        return self.bare + self.loras


class Place(NamedTuple):
    """Bytes on the device and on the host, LoRAs' copies with them at their most."""

    device: int
    host: int


def precision(machine: Machine, wanted: Literal["float32", "bfloat16"]) -> Precision:
    """The type that a base's networks compute in; `wanted` is what it was made for. Autoencoders are not meant.

    A CPU computes in float32. Where a GPU has no bfloat16 (Turing and before, older Apple systems) it is float16.
    """
    if machine.kind == "cpu" or wanted == "float32":
        return "float32"
    return "bfloat16" if machine.bf16 else "float16"


def choose(needs: Mapping[Mode, Place], machine: Machine, wanted: Wanted = "auto") -> Mode | None:
    """The mode to load a base in; None where none fits, or the wanted one does not."""
    if wanted != "auto":
        return wanted if fits(needs[wanted], machine) else None
    return next((mode for mode in usable(machine) if fits(needs[mode], machine)), None)


def usable(machine: Machine) -> tuple[Mode, ...]:
    """The modes that make sense there: with one memory there is nowhere to wait, and Apple's GPU has no float8."""
    by_kind: dict[str, tuple[Mode, ...]] = {"cuda": MODES, "mps": ("full",), "cpu": ("full", "small")}
    return by_kind[machine.kind]


def fits(place: Place, machine: Machine) -> bool:
    if machine.kind != "cuda":
        return machine.free is None or place.device + place.host <= machine.free
    return (machine.free is None or place.device <= machine.free) and (
        machine.host is None or place.host <= machine.host
    )


def mode_for(base: Base, machine: Machine, wanted: Wanted = "auto") -> Mode:
    """The mode that `base` is loaded in. Raises `BaseTooLarge`, which says what would fit, and `Invalid`."""
    if wanted == "small" and machine.kind == "mps":
        raise Invalid("memory", "Apple's GPU has no float8, which “small” needs", "Take another mode, or auto.")
    table = needs(base, precision(machine, base.precision))
    if machine.kind == "cpu" and wanted in ("auto", "full"):  # as long as no LoRA is in, it has no second copy
        table["full"] = Place(need(base, gpu=False).bare, 0)
    if found := choose(table, machine, wanted):
        return found
    least = min((table[mode] for mode in usable(machine)), key=lambda place: place.device)
    asked = table[wanted] if wanted != "auto" else least
    other = next((mode for mode in usable(machine) if fits(table[mode], machine)), "")
    short_of_host = machine.kind == "cuda" and (machine.free is None or asked.device <= machine.free)
    if short_of_host:
        raise BaseTooLarge(base.name, asked.host, machine.host or 0, False, other)
    raise BaseTooLarge(base.name, sum(asked) if machine.kind != "cuda" else asked.device, machine.free or 0,
                       machine.kind == "cuda", other)  # fmt: skip


def smaller(base: Base, machine: Machine, mode: Mode) -> Mode | None:
    """A mode that takes less of the device than `mode` does, and whose host memory is there; None if there is none."""
    table = needs(base, precision(machine, base.precision))
    modes = usable(machine)
    for other in modes[modes.index(mode) + 1 :] if mode in modes else ():
        place = table[other]
        if place.device < table[mode].device and (machine.host is None or place.host <= machine.host):
            return other
    return None


def disk(folder: Path) -> int:
    """Bytes of all of a base's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def need(base: Base, gpu: bool) -> Need:
    """An estimate of mode full: the weights exactly, in the types that they are loaded in, the working set roughly."""
    counts = parameters(base.folder)
    item = 2 if gpu and base.precision == "bfloat16" else 4
    vae = counts.get("vae", 0)
    weights = sum(counts.values()) * item + vae * (4 - item)
    return Need(weights + working_set(base, *(base.size.native,) * 2), _denoiser(counts) * item)


def needs(base: Base, computed_in: Precision) -> dict[Mode, Place]:
    """An estimate of what each mode takes for one picture of the base's native size, with LoRAs at their most."""
    counts, item = parameters(base.folder), ITEM[computed_in]
    net, vae = _denoiser(counts) * item, counts.get("vae", 0) * 4
    texts = sum(counts.get(part, 0) for part in ENCODERS) * item
    picture = working_set(base, *(base.size.native,) * 2)
    tiled = min(picture, TILED)
    there = max([vae, *(_passing(base.folder, part, item) for part in ENCODERS if part in counts)])
    streamed = max([there, *(_passing(base.folder, part, item) for part in DENOISERS if part in counts)])
    return {
        "full": Place(net + texts + vae + picture + net, 0),
        "pinned": Place(net + there + tiled, net + texts + vae),
        "offload": Place(streamed + tiled, 2 * net + texts + vae),
        "small": Place(int(net / item * 1.05) + there + tiled, texts + vae),
    }


def working_set(base: Base, width: int, height: int) -> int:
    """Bytes that decoding a picture takes, roughly: three times all channels of the widest layer at full size, fp32."""
    return width * height * _channels(base.folder) * 4 * 3


def blocks(sizes: Mapping[str, int], limit: int = BLOCK) -> dict[str, str]:
    """Which block each weight travels with, by path: "blocks.3" for "blocks.3.attn.to_q.weight".

    `sizes`: bytes by path. A block is an element of a list of modules: the outermost that is within `limit`, or that
    has no lists of its own which make up nearly all of it. Weights outside of lists travel with none (""): they are
    there as long as their network is at work.
    """
    whole: dict[str, int] = defaultdict(int)
    for path, size in sizes.items():
        for prefix in _prefixes(path):
            whole[prefix] += size
    within: dict[str, int] = defaultdict(int)
    for prefix in whole:
        above = _prefixes(prefix + ".")
        if len(above) > 1:
            within[above[-2]] += whole[prefix]

    def block_of(path: str) -> str:
        for prefix in _prefixes(path):
            if whole[prefix] <= limit or within[prefix] < COVERED * whole[prefix]:
                return prefix
        return ""

    return {path: block_of(path) for path in sizes}


def _prefixes(path: str) -> list[str]:
    """Every element of a list that the path goes through, the outermost first."""
    return [path[: found.end()] for found in NUMBER.finditer(path)]


@cache
def parameters(folder: Path) -> dict[str, int]:
    """How many numbers each part of a base holds; from the headers of its files alone."""
    return {part: sum(_numbers(folder, part).values()) for part in KEPT if (folder / part).is_dir()}


@cache
def _numbers(folder: Path, part: str) -> dict[str, int]:
    """Numbers of each tensor of a part."""
    files = (folder / part).glob("*.safetensors")
    return {name: entry.numbers for file in files for name, entry in read_header(file).tensors.items()}


def _denoiser(counts: Mapping[str, int]) -> int:
    return sum(counts.get(part, 0) for part in DENOISERS)


def _passing(folder: Path, part: str, item: int) -> int:
    """Bytes on the device while that network streams: two of its largest blocks, and what is in no block."""
    sizes = {name: numbers * item for name, numbers in _numbers(folder, part).items()}
    total: dict[str, int] = defaultdict(int)
    for name, block in blocks(sizes).items():
        total[block] += sizes[name]
    rest = total.pop("", 0)
    return rest + 2 * max(total.values(), default=0)


def check_fits(base: Base, gpu: bool, free: int | None) -> None:
    """Raise `BaseTooLarge` where the base cannot be loaded whole into `free` bytes; None is not known, and passes."""
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
        table = needs(base, base.precision)
    except AtelierError:
        return "?"
    bare = f"{gpu.bare / 1e9:.1f} GB of GPU memory or {cpu.bare / 1e9:.1f} GB of RAM"
    less = ", ".join(f"{mode} {table[mode].device / 1e9:.1f}" for mode in MODES[1:])
    return f"{bare}; with LoRAs {gpu.whole / 1e9:.1f} or {cpu.whole / 1e9:.1f} (GPU: {less})"


def _channels(folder: Path) -> int:
    """Of the autoencoder's widest layer at full size."""
    try:
        blocks = json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]
        return int(max(blocks[:2]))
    except (OSError, ValueError, KeyError, TypeError):
        return 256

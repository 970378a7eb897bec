"""Base models as data: a base is a folder with `base.toml` beside its diffusers-format weights.

A person's own bases lie in HOME/bases/NAME/ and come before the shipped ones, which are folders of this package.
"""

import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from engine.bases.models import Family, made_of
from engine.errors import Invalid, UnknownBase
from engine.files import read_manifest, reading, reason
from engine.plans import brief

SHIPPED = Path(__file__).parent
MANIFEST = "base.toml"


class Size(BaseModel):
    """Pixels a side: `native` is what the base was trained at; it draws multiples of `multiple` from `min` to `max`.

    `buckets` are the (width, height) that it was trained on where these are several: people get one of them, then.
    """

    model_config = ConfigDict(frozen=True)

    native: PositiveInt
    multiple: PositiveInt
    min: PositiveInt
    max: PositiveInt
    buckets: tuple[tuple[PositiveInt, PositiveInt], ...] = ()

    @model_validator(mode="after")
    def _draws_its_buckets(self) -> "Size":
        for bucket in self.buckets:
            if (self.nearest(bucket[0]), self.nearest(bucket[1])) != bucket:
                raise ValueError(f"the bucket {bucket[0]}x{bucket[1]} is not one of the sizes that it draws")
        return self

    def nearest(self, side: int) -> int:
        within = min(max(side, self.min), self.max)
        rounded = (within + self.multiple // 2) // self.multiple * self.multiple
        return rounded if self.min <= rounded <= self.max else within // self.multiple * self.multiple

    def bucket(self, width: float, height: float) -> tuple[int, int]:
        """The bucket of the nearest shape: the ratio of ratios decides, and between two as near the first one."""
        return min(self.buckets, key=lambda b: round(abs(math.log(width / height * b[1] / b[0])), 6))

    def fitting(self, width: int, height: int) -> tuple[int, int]:
        """What a picture of that size is drawn over at: the nearest bucket, or its own size as far as may be."""
        if self.buckets:
            return self.bucket(width, height)
        scale = min(max(1.0, self.min / min(width, height)), self.max / max(width, height))
        return self.nearest(round(width * scale)), self.nearest(round(height * scale))


class Defaults(BaseModel):
    model_config = ConfigDict(frozen=True)

    steps: PositiveInt
    guidance: float
    sampler: str


class Training(BaseModel):
    """`rate`: AdamW's learning rate for a LoRA on this base."""

    model_config = ConfigDict(frozen=True)

    rate: float = 1e-4


class Deliver(BaseModel):
    """How people receive its pictures where nothing was said: as drawn, or four times as large."""

    model_config = ConfigDict(frozen=True)

    upscale: Literal[1, 4] = 1


class Preview(NamedTuple):
    """A quick look at a latent without the autoencoder: rgb in [0, 1] = matrix (3, channels) · latent + bias (3)."""

    matrix: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]


class Base(BaseModel):
    """`source` is where its weights come from; `accepted` the day on which the person took its licence, if asked."""

    model_config = ConfigDict(frozen=True)

    name: str
    folder: Path
    title: str
    family: Family
    licence: str
    commercial: bool
    source: str = ""
    accepted: str = ""
    size: Size
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the network on a GPU; on a CPU it is float32
    defaults: Defaults
    deliver: Deliver = Deliver()
    training: Training = Training()
    preview: Preview | None = None

    def check_size(self, width: int, height: int) -> None:
        """Raise `Invalid`, naming the nearest good size, unless the base draws `width` x `height` pixels."""
        near = (self.size.nearest(width), self.size.nearest(height))
        if near != (width, height):
            bounds = f"multiples of {self.size.multiple} from {self.size.min} to {self.size.max}"
            todo = f"The nearest is {near[0]}x{near[1]}."
            raise Invalid("size", f"{brief(width)}x{brief(height)} is not one that {self.title} draws ({bounds})", todo)

    def check_whole(self) -> None:
        """Raise `Invalid`, naming what is not there, unless each of its parts has its files."""
        model = made_of(self.family)
        parts = model.without({part for part in model.optional if not (self.folder / part).exists()}).parts
        files = [f"{part}/{file}" for part in parts for file in ("config.json", "*.safetensors")]
        index = () if model.denoiser == "unet" else ("model_index.json",)
        for file in (*files, "scheduler/scheduler_config.json", *index):
            if not any(self.folder.glob(file)):
                todo = f"Put it into {self.folder}, which has diffusers' layout, or install the base again."
                raise Invalid(f"base {self.name}", f"it lacks {file}", todo)

    def check_trains(self) -> None:
        """Raise `Invalid` where no LoRA can be trained on the base: the trainer knows UNets alone."""
        if made_of(self.family).denoiser != "unet":
            why = "LoRAs cannot be trained on it yet: the trainer knows the UNets of Stable Diffusion 1, 2 and XL"
            todo = "Train on one of those, or elsewhere and `atelier loras import FILE`: drawing with LoRAs works."
            raise Invalid(f"base {self.name}", why, todo)

    def fingerprint(self) -> str:
        """The sha256 that names these weights in a recipe."""
        return fingerprint(self.folder)


@cache
def fingerprint(folder: Path) -> str:
    """sha256 over each weight file's path and content, in the order of the paths; read once in a process."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def names(home: Path | None = None) -> tuple[str, ...]:
    """Every installed base, sorted."""
    return tuple(sorted(_folders(home)))


def find(name: str, home: Path | None = None) -> Base:
    """The base of that name (any case); `UnknownBase` if there is none, `Invalid` if its manifest is broken."""
    folders = _folders(home)
    folder = folders.get(name.strip().lower())
    if folder is None:
        raise UnknownBase(name, tuple(sorted(folders)))
    try:
        said = read_manifest(folder / MANIFEST)
        return Base.model_validate({"title": folder.name, **said, "name": folder.name, "folder": folder})
    except (OSError, ValueError) as error:
        why = f"its {MANIFEST} cannot be read ({reason(error)})"
        raise Invalid(f"base {folder.name}", why, f"Mend {folder / MANIFEST}, or install the base again.") from error


def _folders(home: Path | None) -> dict[str, Path]:
    roots = [SHIPPED] if home is None else [SHIPPED, home / "bases"]  # the later one wins
    with reading(roots[-1]):
        return {found.parent.name.lower(): found.parent for root in roots for found in root.glob(f"*/{MANIFEST}")}

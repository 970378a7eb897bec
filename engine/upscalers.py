"""A person's own upscalers: ESRGAN-type .safetensors files in HOME/upscalers/, and what each is by its keys and shapes.

Two architectures: RRDBNet (Wang et al. 2018, arXiv:1809.00219; with pixel-unshuffle in Real-ESRGAN, Wang et al. 2021,
arXiv:2107.10833) and SRVGGNetCompact (Real-ESRGAN's small nets). Keys and shapes have to be exactly those of one of
them. No torch here: engine/companions/esrgan.py makes nets of what is read.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.bases.header import CONVERT, read_header
from engine.errors import Invalid
from engine.files import read_bounded, reading, reason, write_whole, writing
from engine.lora.container import Refused, parse, short
from engine.plans import LANCZOS, UPSCALES

MAX_BYTES = 300_000_000  # RRDBNet with 23 blocks is 67 MB in fp32
MAX_FEATURES, MAX_GROWTH, MAX_BLOCKS = 128, 64, 64
MAX_DOUBLINGS = 3  # 8 times as large is the most
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
BY_HAND = (
    "Convert it where you trust it, with torch and safetensors: docs/upscaling.md has the two lines; then add the "
    ".safetensors file."
)
OTHER = "RRDBNet (ESRGAN, Real-ESRGAN) and SRVGGNetCompact as .safetensors are read."
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A net by its sizes.

    RRDBNet: `features` channels, `growth` more by each of a dense block's convolutions, `blocks` of three dense blocks,
    `doublings` of the size at the end, `unshuffle` pixels a side folded into channels at the start.
    SRVGGNetCompact: `features` channels, `blocks` convolutions between the first and the last one, and a `shuffle`.
    """

    architecture: Literal["RRDBNet", "SRVGGNetCompact"]
    features: int
    blocks: int
    growth: int = 0
    doublings: int = 0
    unshuffle: int = 1
    shuffle: int = 1

    @property
    def scale(self) -> int:
        """How many times as large it makes a picture."""
        return self.shuffle if self.architecture == "SRVGGNetCompact" else 2**self.doublings // self.unshuffle

    def __str__(self) -> str:
        return f"{self.architecture}, {self.features} channels, {self.blocks} blocks"


@dataclass(frozen=True, slots=True)
class Entry:
    """An upscaler that is there."""

    name: str
    file: Path
    layout: Layout


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A whole file: finite tensors in float32 under the names of Real-ESRGAN, and the file's hash."""

    layout: Layout
    tensors: dict[str, NDArray[np.float32]]
    sha256: str


def folder(home: Path) -> Path:
    return home / "upscalers"


def entries(home: Path) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Those that can be used, by name, and a sentence for each file that cannot."""
    found: list[Entry] = []
    broken: list[str] = []
    with reading(folder(home)):
        files = sorted(folder(home).glob("*.safetensors"))
    for file in files:
        try:
            found.append(_entry(file))
        except Invalid as error:
            broken.append(error.message)
    return tuple(found), tuple(broken)


def find(name: str, home: Path) -> Entry:
    """The one of that name. Raises `Invalid`."""
    file = folder(home) / f"{name.lower()}.safetensors"
    if NAME.fullmatch(name.lower()) and file.is_file():
        return _entry(file)
    names = [LANCZOS, *(entry.name for entry in entries(home)[0])]
    todo = f"There {'is' if len(names) == 1 else 'are'} {', '.join(names)}; `atelier upscalers add FILE` adds one."
    raise Invalid("upscaler", f"there is none named “{name[:60]}”", todo)


def most_of(name: str, home: Path) -> int:
    """How many times as large it makes a picture, of the scales that there are. Raises `Invalid` if it is not here."""
    scale = 4 if name in ("", LANCZOS) else find(name, home).layout.scale
    return max(times for times in UPSCALES if times <= scale)


def check_gives(name: str, times: int, home: Path) -> None:
    """Raise `Invalid` unless that upscaler is here and enlarges by `times`: as it is, or reduced from more."""
    if (most := most_of(name, home)) < times:
        why = f"it makes a picture {most} times as large, not {times} times"
        raise Invalid(f"upscaler {name[:60]}", why, f"Enlarge by {most}, or name another one.")


def sha256_of(name: str, home: Path) -> str:
    """What names the weights in a recipe; of Lanczos, which has none, ""."""
    return "" if name == LANCZOS else hashlib.sha256(_bytes(find(name, home).file)).hexdigest()


def read(file: Path) -> Weights:
    """The whole file, each number looked at. Raises `Invalid`."""
    _entry(file)  # what it is by its header, before the rest is in memory
    data = _bytes(file)
    try:
        tensors = parse(data).tensors
    except Refused as refused:
        raise Invalid(file.name, str(refused), "Get the file anew.") from None
    layout, names = recognized({key: value.shape for key, value in tensors.items()}, file.name)
    return Weights(layout, {names[key]: value for key, value in tensors.items()}, hashlib.sha256(data).hexdigest())


def add(file: Path, name: str | None, home: Path) -> Entry:
    """Put a file beside the others, byte for byte. Raises `Invalid` for what is none, or a name that cannot be had."""
    read(file)
    slug = re.sub(r"[^a-z0-9_-]+", "-", (name or file.stem).lower()).strip("-_")[:40]
    if not NAME.fullmatch(slug) or slug == LANCZOS:
        raise Invalid("--name", f"“{slug}” cannot be one", "Choose letters and digits: --name NAME.")
    target = folder(home) / f"{slug}.safetensors"
    if target.exists():
        raise Invalid("--name", f"there is an upscaler named “{slug}” already", "Choose another: --name NAME.")
    data = _bytes(file)
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, data)
    return _entry(target)


def recognized(shapes: Shapes, label: str) -> tuple[Layout, dict[str, str]]:
    """What the keys and shapes are, and Real-ESRGAN's name of each key. Raises `Invalid`, naming what does not fit."""
    names = {key: _renamed(key) for key in shapes}
    known = {names[key]: shape for key, shape in shapes.items()}
    if len(known) < len(shapes):
        raise Invalid(label, "it names a layer twice", OTHER)
    try:
        layout = _compact(known) if "body.0.weight" in known else _rrdb(known)
        names |= _tail_names(known, names, layout)
        known = {names[key]: shape for key, shape in shapes.items()}
    except KeyError as error:
        raise Invalid(label, f"it is no ESRGAN-type upscaler: it lacks {short(error.args[0])}", OTHER) from None
    except ValueError as error:
        raise Invalid(label, str(error), OTHER) from None
    _check_whole(known, expected(layout), label)
    return layout, names


def expected(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Every tensor that a net of that layout has."""
    made: dict[str, tuple[int, ...]] = {}
    width, growth = layout.features, layout.growth

    def conv(name: str, before: int, after: int) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = (after, before, 3, 3), (after,)

    if layout.architecture == "SRVGGNetCompact":
        conv("body.0", 3, width)
        for i in range(layout.blocks + 1):
            made[f"body.{2 * i + 1}.weight"] = (width,)
            conv(f"body.{2 * i + 2}", width, width if i < layout.blocks else 3 * layout.shuffle**2)
        return made
    conv("conv_first", 3 * layout.unshuffle**2, width)
    for block in range(layout.blocks):
        for dense in (1, 2, 3):
            for i in range(5):
                after = growth if i < 4 else width
                conv(f"body.{block}.rdb{dense}.conv{i + 1}", width + i * growth, after)
    for name in ("conv_body", *(f"conv_up{i + 1}" for i in range(layout.doublings)), "conv_hr"):
        conv(name, width, width)
    conv("conv_last", width, 3)
    return made


def _entry(file: Path) -> Entry:
    try:
        header = read_header(file)
    except Invalid as error:
        raise Invalid(error.what, error.why, BY_HAND if error.todo == CONVERT else error.todo) from None
    if header.size > MAX_BYTES:
        raise Invalid(file.name, f"it is larger than {MAX_BYTES // 1_000_000} MB: no upscaler is", OTHER)
    layout, _ = recognized({key: entry.shape for key, entry in header.tensors.items()}, file.name)
    return Entry(file.stem, file, layout)


def _bytes(file: Path) -> bytes:
    try:
        return read_bounded(file, MAX_BYTES)
    except (OSError, ValueError) as error:
        why = f"it cannot be read ({reason(error)})"
        raise Invalid(file.name, why, "Check the path, and who may read it.") from None


# Names: of ESRGAN's first files (an nn.Sequential), of its second ones, and of Real-ESRGAN, which are ours

RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.(weight|bias)"),
     lambda m: f"body.{m[1]}.rdb{m[2]}.conv{m[3]}.{m[4]}"),
    (re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)"), lambda m: f"conv_body.{m[2]}"),
    (re.compile(r"model\.0\.(weight|bias)"), lambda m: f"conv_first.{m[1]}"),
    (re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])\.(weight|bias)"),
     lambda m: f"body.{m[1]}.rdb{m[2]}.conv{m[3]}.{m[4]}"),
    (re.compile(r"trunk_conv\.(weight|bias)"), lambda m: f"conv_body.{m[1]}"),
    (re.compile(r"upconv(\d)\.(weight|bias)"), lambda m: f"conv_up{m[1]}.{m[2]}"),
    (re.compile(r"HRconv\.(weight|bias)"), lambda m: f"conv_hr.{m[1]}"),
)  # fmt: skip
TAIL = re.compile(r"model\.(\d{1,2})\.(weight|bias)")
WRAPPED = re.compile(r"(?:params_ema|params|module)\.")


def _renamed(key: str) -> str:
    key = WRAPPED.sub("", key, count=1) if WRAPPED.match(key) else key
    for form, name in RULES:
        if match := form.fullmatch(key):
            return name(match)
    return key


def _tail_names(known: Shapes, names: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """Of the first files: what follows the trunk. Each doubling is three modules there, of which one is a convolution.

    model.2 is an upsampling, model.3 its convolution, model.4 its activation, and so on; then come convolution,
    activation, convolution.
    """
    if "model.3.weight" not in known:
        return {}
    last = 3 * layout.doublings + 2
    tail = {3 * i: f"conv_up{i}" for i in range(1, layout.doublings + 1)} | {last: "conv_hr", last + 2: "conv_last"}
    matches = {key: TAIL.fullmatch(name) for key, name in names.items()}
    return {key: f"{tail[int(m[1])]}.{m[2]}" for key, m in matches.items() if m and int(m[1]) in tail}


def _doublings(known: Shapes) -> int:
    """From the numbers of what follows the trunk in the first files, else by the names."""
    if "model.3.weight" in known:
        places = [int(m[1]) for key in known if (m := TAIL.fullmatch(key))]
        return (max(places) - 4) // 3
    return sum(f"conv_up{i}.weight" in known for i in range(1, MAX_DOUBLINGS + 1))


def _rrdb(known: Shapes) -> Layout:
    """KeyError for a layer that has to be there; ValueError says what is out of bounds."""
    width, before = _conv(known, "conv_first.weight")
    growth, _ = _conv(known, "body.0.rdb1.conv1.weight")
    blocks = len({key.split(".")[1] for key in known if key.startswith("body.")})
    doublings = _doublings(known)
    folds = {3: 1, 12: 2, 48: 4}
    if before not in folds:
        raise ValueError(f"it reads {before} channels, and a picture has 3")
    layout = Layout("RRDBNet", width, blocks, growth, doublings, folds[before])
    return _bounded(layout)


def _compact(known: Shapes) -> Layout:
    width, before = _conv(known, "body.0.weight")
    if before != 3:
        raise ValueError(f"it reads {before} channels, and a picture has 3")
    if "body.1.weight" not in known:
        raise ValueError("its activations are none that its file has (PReLU alone is read)")
    last = max(int(m[1]) for key in known if (m := re.fullmatch(r"body\.(\d{1,4})\.weight", key)))
    after, _ = _conv(known, f"body.{last}.weight")
    shuffle = {3 * s * s: s for s in (1, 2, 3, 4, 8)}.get(after, 0)
    if not shuffle:
        raise ValueError(f"it ends in {after} channels, which is no enlarged picture")
    return _bounded(Layout("SRVGGNetCompact", width, last // 2 - 1, shuffle=shuffle))


def _conv(known: Shapes, key: str) -> tuple[int, int]:
    """Channels after and before a 3 × 3 convolution."""
    shape = known[key]
    if len(shape) != 4 or shape[2:] != (3, 3):
        raise ValueError(f"“{short(key)}” is no convolution of 3 x 3")
    return shape[0], shape[1]


def _bounded(layout: Layout) -> Layout:
    """ValueError for a net of absurd size, or one that enlarges nothing."""
    within = (
        0 < layout.features <= MAX_FEATURES
        and layout.growth <= MAX_GROWTH
        and 0 <= layout.blocks <= MAX_BLOCKS
        and layout.doublings <= MAX_DOUBLINGS
    )
    if not within:
        raise ValueError(f"it is larger than any upscaler ({layout})")
    if layout.scale < 2:
        raise ValueError("it leaves a picture as large as it is")
    return layout


def _check_whole(known: Shapes, wanted: Shapes, label: str) -> None:
    """The keys and shapes have to be these and no others."""
    for key in sorted(wanted.keys() - known.keys()):
        raise Invalid(label, f"it lacks {key}", OTHER)
    for key in sorted(known.keys() - wanted.keys()):
        raise Invalid(label, f"“{short(key)}” belongs to no upscaler that is read", OTHER)
    for key, shape in wanted.items():
        if tuple(known[key]) != shape:
            said = "x".join(map(str, known[key]))
            raise Invalid(label, f"“{key}” is {said}, and {'x'.join(map(str, shape))} fits its other layers", OTHER)

"""What is to be done, as frozen values: checked at birth, so nobody checks them again.

A plan is complete: names are resolved, the seed is drawn, every LoRA is pinned by its content. Bytes cross this seam,
never tensors or local paths, so that a worker elsewhere needs no shared disk.
"""

import re
from dataclasses import dataclass
from typing import Literal

from engine.errors import DuplicateLora, Invalid
from engine.prompts import LITERAL, MARKED, Prompt, check

Kind = Literal["subject", "character", "product", "style", "quality", "speed"]
KINDS: tuple[Kind, ...] = ("subject", "character", "product", "style", "quality", "speed")
TRAINED_KINDS: tuple[Kind, ...] = KINDS[:-1]  # a speed LoRA is distilled elsewhere, and taken in
Prior = Literal["base", "class", "none"]
PRIORS: tuple[Prior, ...] = ("base", "class", "none")

ControlKind = Literal["edge", "pose", "depth", "sketch"]
CONTROLS: tuple[ControlKind, ...] = ("edge", "pose", "depth", "sketch")

# "trailing": the steps end where noise does (Lin et al. 2024, arXiv:2305.08891, table 2), as few-step LoRAs want it
SAMPLERS = ("dpm++", "euler", "euler a", "ddim", "unipc", "lcm", "euler trailing", "ddim trailing")
MOST_STEPS = {"lcm": 50}  # of samplers that walk a part of the steps that a network was distilled on

MAX_WEIGHT = 2.0
MAX_LORAS = 8
MAX_COUNT = 4
MAX_CONTROLS = 3
MAX_REFERENCES = 4
MAX_STEPS = 60
MAX_PROMPT = 4_000
MAX_PIXELS = 4_200_000
MAX_DELIVERED = 16_800_000  # pixels of a picture as it is delivered: what we read back, too
UPSCALES = (1, 2, 4)
UPSCALING = 20  # steps that take as long as to enlarge a picture by four
CONTROLLING = 0.5  # of a step more for each control: a ControlNet is the first half of a UNet
BY_FILE = 200  # the same with a file of a person's own, on Pocket: of RRDBNet with 23 blocks, the slowest there is
LANCZOS = "lanczos"  # the upscaler that is a formula
OVERLAPPING = 16 / 9  # what tiles that overlap by a quarter have to draw, to the picture that comes of them
TIMES = {2: "twice", 4: "four times"}
MAX_GUIDANCE = 30.0
MAX_SEED = 2**32 - 1
MAX_TRIGGER = 64
RANKS = (4, 64)
TRAIN_STEPS = (1, 4_000)
PICTURES = (4, 30)
DEFAULT_TRAIN_STEPS = 200
DEFAULT_RANK = 16


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Raise `Invalid` unless low ≤ value ≤ high; NaN and infinities are outside every range."""
    if not low <= value <= high:
        raise Invalid(what, f"{brief(value)} is out of range", f"Choose a value from {brief(low)} to {brief(high)}.")


def brief(value: float) -> str:
    """A number as a sentence has it; of a whole number that is too long for one, how long it is."""
    if isinstance(value, int) and abs(value) >= 10**10:
        return f"a number of {len(str(abs(value)))} digits"
    return f"{value:.10g}"


def check_text(what: str, text: str) -> None:
    """Raise `Invalid` for bytes that were no UTF-8: half characters, which nothing downstream can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(what, "it is not text in UTF-8", "Type it anew.") from None


def check_pixels(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Raise `Invalid` for a size without pixels, or with more than `most`."""
    said = f"{brief(width)}x{brief(height)}"
    if width < 1 or height < 1:
        raise Invalid("size", f"{said} has no pixels", "Say for example --size 256x256.")
    if width * height > most:
        raise Invalid("size", f"{said} is more than {most / 1e6:g} megapixels", "Ask for fewer pixels.")


def check_is_picture(what: str, data: bytes) -> None:
    """Raise `Invalid` unless these bytes begin as a PNG, a JPEG or a WebP does; they are not decoded here."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not is_webp and not data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        raise Invalid(what, "it is not a picture", "Give a PNG, JPEG or WebP file.")


@dataclass(frozen=True, slots=True, order=True)
class LoraRef:
    """One adapter at one strength: 0 is off, 1 as trained, below 0 pushes away from it. `sha256` pins the file.

    `role` says what it is in the picture: its LoRA's kind.
    """

    name: str
    sha256: str
    weight: float = 1.0
    role: Kind = "subject"

    def __post_init__(self) -> None:
        check_range(f"weight of {self.name}", self.weight, -MAX_WEIGHT, MAX_WEIGHT)


@dataclass(frozen=True, slots=True)
class LoraStack:
    """What is added to a base model: ΔW = Σ wᵢ ΔWᵢ. Sorted, as a sum has no order; weight 0 leaves, as 0·NaN is NaN."""

    refs: tuple[LoraRef, ...] = ()

    def __post_init__(self) -> None:
        names = tuple(ref.name for ref in self.refs)
        if len(set(names)) < len(names):
            raise DuplicateLora(tuple(sorted({name for name in names if names.count(name) > 1})))
        if len(names) > MAX_LORAS:
            raise Invalid("LoRAs", f"{len(names)} are too many for one picture", f"Name {MAX_LORAS} at the most.")
        object.__setattr__(self, "refs", tuple(sorted(ref for ref in self.refs if ref.weight)))


@dataclass(frozen=True, slots=True, order=True)
class EmbeddingRef:
    """A textual-inversion embedding that a prompt names by its `trigger`. `sha256` pins the file."""

    name: str
    sha256: str
    trigger: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """Its trigger as a word of its own, in any case."""
        return re.compile(rf"(?<!\w){re.escape(self.trigger)}(?!\w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Control:
    """A picture that says where things are, for a ControlNet of that kind (Zhang et al. 2023, arXiv:2302.05543).

    `image` is a picture whose edges are taken, a drawing, or the map of poses or depths itself; with `is_map` it
    is what the ControlNet reads, whatever the kind. It counts `weight` times in the first part `until` of the steps.
    """

    kind: ControlKind
    image: bytes
    weight: float = 1.0
    until: float = 1.0
    is_map: bool = False

    def __post_init__(self) -> None:
        if self.kind not in CONTROLS:
            raise Invalid("control", f"there is none of the kind “{self.kind}”", f"Say one of {', '.join(CONTROLS)}.")
        check_is_picture(f"control {self.kind}", self.image)
        check_range(f"weight of the control {self.kind}", self.weight, 0.01, MAX_WEIGHT)
        check_range(f"until of the control {self.kind}", self.until, 0.01, 1)


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that shows how it is to look: `image` counts `weight` times."""

    image: bytes
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_is_picture("reference", self.image)
        check_range("weight of the reference", self.weight, 0.01, MAX_WEIGHT)


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """`count` pictures of one prompt; picture k has seed + k, so that each can be drawn again alone.

    `image` (encoded PNG, JPEG or WebP) makes it image-to-image at `strength` in (0, 1]; with `mask` as well
    (white is repainted) it is inpainting. `prompt` is final: triggers are in it, LoRA tags are out of it.

    `syntax` says how `prompt` and `negative` are read (engine/prompts.py): a plan that says nothing is from before
    there were marks, and has none.

    It is drawn at `width` x `height` pixels and delivered `upscale` times as large; `transparent` cuts out what
    it shows. `controls` say where things are in it, `references` how it looks. `embeddings` are those whose triggers
    its texts name.

    What enlarges it is `upscaler`: the net that comes with Atelier where it is "", a formula ("lanczos"), or
    a person's own file by name (engine/upscalers.py). `detail` above 0 draws over the enlarged picture in tiles, at
    that strength (engine/diffusion/tiles.py). At `strength` 0 the picture `image` is taken as it is, at its own size,
    and only that is done to it.
    """

    prompt: str
    base: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    stack: LoraStack = LoraStack()
    negative: str = ""
    count: int = 1
    image: bytes | None = None
    mask: bytes | None = None
    strength: float = 0.6
    upscale: int = 1
    transparent: bool = False
    syntax: int = LITERAL
    controls: tuple[Control, ...] = ()
    references: tuple[Reference, ...] = ()
    embeddings: tuple[EmbeddingRef, ...] = ()
    upscaler: str = ""
    detail: float = 0.0

    def __post_init__(self) -> None:
        check_range("syntax", self.syntax, LITERAL, MARKED)
        if not self.prompt.strip() and self.samples:
            raise Invalid("prompt", "it is empty", "Say in a few words what to draw.")
        for what, text in (("prompt", self.prompt), ("negative", self.negative)):
            if len(text) > MAX_PROMPT:
                raise Invalid(what, f"{len(text):,} characters are too many", f"Use {MAX_PROMPT:,} at the most.")
            check_text(what, text)
            check(what, Prompt(text, self.syntax))
        check_range("n", self.count, 1, MAX_COUNT)
        check_range("steps", self.steps, 1, MOST_STEPS.get(self.sampler, MAX_STEPS))
        check_range("guidance", self.guidance, 0, MAX_GUIDANCE)
        check_range("seed", self.seed, 0, MAX_SEED - (self.count - 1))  # the last one's, too
        if self.sampler not in SAMPLERS:
            raise Invalid("sampler", f"there is none named “{self.sampler}”", f"Choose one of {', '.join(SAMPLERS)}.")
        if self.draws:
            check_range("strength", self.strength, 0.01, 1)
        check_range("controls", len(self.controls), 0, MAX_CONTROLS)
        check_range("references", len(self.references), 0, MAX_REFERENCES)
        self._check_size()
        self._check_enlarging()
        if self.mask is not None and self.image is None:
            raise Invalid("mask", "there is no picture that it belongs to", "Name the picture to edit as well.")

    def _check_size(self) -> None:
        check_pixels(self.width, self.height)
        if self.upscale not in UPSCALES:
            why = f"{brief(self.upscale)} is not 1, 2 or 4"
            raise Invalid("upscale", why, "Choose 2 or 4, or 1 for the picture as drawn.")
        if self.width * self.height * self.upscale**2 > MAX_DELIVERED:
            why = f"{self.width}x{self.height}, {TIMES[self.upscale]} as large, is more than 16.8 megapixels"
            raise Invalid("upscale", why, "Leave it at 1." if self.upscale == 2 else "Leave it at 1, or try 2.")

    def _check_enlarging(self) -> None:
        check_range("detail", self.detail, 0, 1)
        check_text("upscaler", self.upscaler)
        if self.upscaler and self.upscale == 1:
            raise Invalid("upscaler", f"nothing is enlarged for “{self.upscaler[:60]}” to do", "Say --upscale 2 or 4.")
        if not self.draws and (self.mask is not None or self.count > 1):
            what, why = ("mask", "nothing is drawn under it") if self.mask else ("n", "the picture is there, once")
            raise Invalid(what, f"at strength 0 {why}", "Choose a strength above 0.")

    @property
    def draws(self) -> bool:
        """Whether a picture is drawn, before anything is done to it: else `image` is taken as it is."""
        return self.image is None or self.strength != 0

    @property
    def samples(self) -> bool:
        """Whether the base is asked at all."""
        return self.draws or self.detail > 0

    @property
    def delivered(self) -> tuple[int, int]:
        """Width and height of the picture that people receive, in pixels."""
        return self.width * self.upscale, self.height * self.upscale

    @property
    def companions(self) -> tuple[str, ...]:
        """The small nets that work on the picture after the base."""
        upscales = self.upscale > 1 and not self.upscaler
        return (*(("upscaler",) if upscales else ()), *(("matting",) if self.transparent else ()))

    @property
    def inputs(self) -> tuple[bytes, ...]:
        """The pictures that it is drawn from, encoded."""
        given = (self.image, self.mask, *(c.image for c in self.controls), *(r.image for r in self.references))
        return tuple(data for data in given if data is not None)

    @property
    def work(self) -> float:
        """What it costs, in steps of 65,536 pixels; enlarging it counts as `UPSCALING` of these, or `BY_FILE`.

        A control makes each step that it acts in longer by `CONTROLLING`.
        """
        net = {"": UPSCALING, LANCZOS: 0}.get(self.upscaler, BY_FILE)
        each = 1 + CONTROLLING * sum(control.until for control in self.controls)
        steps = (self.steps * each if self.draws else 0) + (net if self.upscale > 1 else 0)
        over = OVERLAPPING * self.upscale**2 * max(round(self.steps * self.detail), 1) if self.detail else 0
        return self.count * (steps + over) * self.width * self.height / 65_536


@dataclass(frozen=True, slots=True)
class Example:
    """One training picture: its file's name, its encoded bytes as checked, its caption with the trigger in place."""

    name: str
    data: bytes
    caption: str


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """A LoRA to be trained: ΔW = (α/r)·B·A on the base's attention and feed-forward layers (rank r, α = r).

    `word` is the class word that the trigger is bound to ("crab"), `prior` what keeps the class as it was. `variant`:
    it is the LoRA `name`, which there is already, for another base.
    """

    name: str
    kind: Kind
    trigger: str
    base: str
    examples: tuple[Example, ...]
    seed: int
    steps: int
    word: str = ""
    prior: Prior = "base"
    rank: int = DEFAULT_RANK
    replace: bool = False
    variant: bool = False

    def __post_init__(self) -> None:
        check_range("rank", self.rank, *RANKS)
        check_range("steps", self.steps, *TRAIN_STEPS)
        check_range("seed", self.seed, 0, MAX_SEED)
        check_range("pictures", len(self.examples), *PICTURES)
        if self.kind not in TRAINED_KINDS:
            todo = f"Choose one of {', '.join(TRAINED_KINDS)}; `atelier loras import` takes a speed LoRA in."
            raise Invalid("kind", f"a LoRA of kind {self.kind} is not learnt from pictures", todo)
        for what, text in (("trigger", self.trigger), ("class word", self.word)):
            if len(text) > MAX_TRIGGER or not text.isprintable():
                raise Invalid(what, f"it is not one line of at most {MAX_TRIGGER} characters", "Choose a short word.")
        for example in self.examples:
            check_text(f"caption of {example.name}", example.caption)
        if self.prior == "class" and not self.word:
            raise Invalid("prior", "“class” draws pictures of the class word, and there is none", "Add --class WORD.")


Plan = ImagePlan | TrainPlan

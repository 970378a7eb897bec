"""What is to be done, as frozen values: checked at birth, so nobody checks them again.

A plan is complete: names are resolved, the seed is drawn, every LoRA is pinned by its content. Bytes cross this seam,
never tensors or local paths, so that a worker elsewhere needs no shared disk.
"""

from dataclasses import dataclass
from typing import Literal

from engine.errors import DuplicateLora, Invalid
from engine.prompts import LITERAL, MARKED, Prompt, check

Kind = Literal["subject", "character", "product", "style", "quality", "speed"]
KINDS: tuple[Kind, ...] = ("subject", "character", "product", "style", "quality", "speed")
TRAINED_KINDS: tuple[Kind, ...] = KINDS[:-1]  # a speed LoRA is distilled elsewhere, and taken in
Prior = Literal["base", "class", "none"]
PRIORS: tuple[Prior, ...] = ("base", "class", "none")

# "trailing": the steps end where noise does (Lin et al. 2024, arXiv:2305.08891, table 2), as few-step LoRAs want it
SAMPLERS = ("dpm++", "euler", "euler a", "ddim", "unipc", "lcm", "euler trailing", "ddim trailing")
MOST_STEPS = {"lcm": 50}  # of samplers that walk a part of the steps that a network was distilled on

MAX_WEIGHT = 2.0
MAX_LORAS = 8
MAX_COUNT = 4
MAX_STEPS = 60
MAX_PROMPT = 4_000
MAX_PIXELS = 4_200_000
MAX_DELIVERED = 16_800_000  # pixels of a picture as it is delivered: what we read back, too
UPSCALES = (1, 4)
UPSCALING = 20  # steps that take as long as to enlarge a picture by four
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


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """`count` pictures of one prompt; picture k has seed + k, so that each can be drawn again alone.

    `image` (encoded PNG, JPEG or WebP) makes it image-to-image at `strength` in (0, 1]; with `mask` as well
    (white is repainted) it is inpainting. `prompt` is final: triggers are in it, LoRA tags are out of it.

    `syntax` says how `prompt` and `negative` are read (engine/prompts.py): a plan that says nothing is from before
    there were marks, and has none.

    It is drawn at `width` x `height` pixels and delivered `upscale` times as large; `transparent` cuts out what
    it shows.
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

    def __post_init__(self) -> None:
        check_range("syntax", self.syntax, LITERAL, MARKED)
        if not self.prompt.strip():
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
        check_range("strength", self.strength, 0.01, 1)
        self._check_size()
        if self.mask is not None and self.image is None:
            raise Invalid("mask", "there is no picture that it belongs to", "Name the picture to edit as well.")

    def _check_size(self) -> None:
        check_pixels(self.width, self.height)
        if self.upscale not in UPSCALES:
            raise Invalid("upscale", f"{brief(self.upscale)} is not 1 or 4", "Choose 4, or 1 for the picture as drawn.")
        if self.width * self.height * self.upscale**2 > MAX_DELIVERED:
            why = f"{self.width}x{self.height}, four times as large, is more than 16.8 megapixels"
            raise Invalid("upscale", why, "Leave it at 1.")

    @property
    def delivered(self) -> tuple[int, int]:
        """Width and height of the picture that people receive, in pixels."""
        return self.width * self.upscale, self.height * self.upscale

    @property
    def companions(self) -> tuple[str, ...]:
        """The small nets that work on the picture after the base."""
        return (*(("upscaler",) if self.upscale > 1 else ()), *(("matting",) if self.transparent else ()))

    @property
    def work(self) -> float:
        """What it costs, in steps of 65,536 pixels; enlarging it counts as `UPSCALING` of these."""
        steps = self.steps + (UPSCALING if self.upscale > 1 else 0)
        return self.count * steps * self.width * self.height / 65_536


@dataclass(frozen=True, slots=True)
class Example:
    """One training picture: its file's name, its encoded bytes as checked, its caption with the trigger in place."""

    name: str
    data: bytes
    caption: str


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """A LoRA to be trained: ΔW = (α/r)·B·A on the base's attention and feed-forward layers (rank r, α = r).

    `word` is the class word that the trigger is bound to ("crab"), `prior` what keeps the class as it was.
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

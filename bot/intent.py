"""What a person can want: a closed union, the same for rules and for a language model.

Strict and frozen, and no field has a default: a model has to fill each one. `None`, `""` and `()` stand for "not said".
No `discriminator=`: it would make `oneOf`, which strict structured output refuses; a plain union makes `anyOf`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.plans import Kind

BRAND = "our brand"  # the name in a LoraWish for the brand's look, whichever LoRA that is
Genre = Literal["draw", "brand_asset", "character", "product_shot"]
GENRES: tuple[Genre, ...] = ("draw", "brand_asset", "character", "product_shot")
Topic = Literal[
    "greeting",
    "help",
    "loras",
    "lora",
    "drawable",
    "last",
    "licence",
    "training",
    "settings",
    "reasons",
    "file",
    "concept",
    "taste",
    "thanks",
    "send",
]
Missing = Literal["subject", "what", "name", "lora", "change", "pictures", "trigger", "kind", "partial"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scene(Strict):
    """What is to be seen, in parts that can be changed one by one. A LoRA stands here under its own name."""

    subject: str = Field(description="Who or what, and doing what: 'a red mug', 'Inky waving'. No chat words.")
    place: str = Field(description="Background or place: 'teal background', 'at the beach', 'on a podium'.")
    style: str = Field(description="Drawing style in plain words, never a LoRA: 'pixel art', 'watercolour'.")
    avoid: str = Field(description="What must not be seen.")


class LoraWish(Strict):
    """A LoRA that was asked for, by the name that was used; `weight` only where the person gave a number."""

    name: str
    weight: float | None


class Nudge(Strict):
    """Stronger (above 0) or weaker (below 0), by that much; without a name it is the style's LoRA."""

    name: str | None
    by: float


class Frame(Strict):
    """The numbers of a picture and of its file. `bigger` and `smaller` are relative to the last one."""

    count: int | None
    width: int | None
    height: int | None
    shape: Literal["square", "portrait", "landscape", "story", "wide", "banner", "tall", "bigger", "smaller"] | None
    seed: int | None
    steps: int | None
    ratio: str | None = Field(description="Width to height where it was said so: '16:9'.")
    upscale: Literal[1, 2, 4] | None = Field(description="4 for full size, 2 for twice, 1 for a small file.")
    transparent: bool | None = Field(description="A transparent background: what is shown, cut out.")
    speed: Literal["fast", "best"] | None = Field(description="'fast' for a quick draft, 'best' for best quality.")
    guidance: float | None
    sampler: str | None = Field(description="As it was named: 'DPM++ 2M', 'euler_a'.")

    @model_validator(mode="before")
    @classmethod
    def _stored_before(cls, said: object) -> object:
        """An order that was stored before there were the last ones says nothing of them."""
        later = ("ratio", "upscale", "transparent", "speed", "guidance", "sampler")
        return dict.fromkeys(later) | said if isinstance(said, dict) else said  # pyright: ignore[reportUnknownVariableType]

    @property
    def is_reshaped(self) -> bool:
        """Whether a size, a shape or a kind of file was asked for."""
        return self.shape is not None or self.ratio is not None or self.width is not None or self.refiles

    @property
    def is_resampled(self) -> bool:
        """Whether speed or anything else of how it is sampled was asked for."""
        return any(value is not None for value in (self.speed, self.guidance, self.sampler, self.steps))

    @property
    def refiles(self) -> bool:
        """Whether a kind of file was asked for."""
        return self.upscale is not None or self.transparent is not None


class Pictured(Strict):
    """A new picture; `strength` is how far from an attached picture it may go (0 keeps it, 1 ignores it)."""

    scene: Scene
    loras: tuple[LoraWish, ...]
    without: tuple[str, ...] = Field(description="LoRAs that were asked not to be used; 'all' for none at all.")
    strength: float | None
    frame: Frame


class Draw(Pictured):
    kind: Literal["draw"]


class BrandAsset(Pictured):
    """A banner, a post, anything in the brand's own look."""

    kind: Literal["brand_asset"]


class Character(Pictured):
    """A named character or mascot, in some pose or place."""

    kind: Literal["character"]


class ProductShot(Pictured):
    """A product, as a shop would show it."""

    kind: Literal["product_shot"]


class StyleTransfer(Pictured):
    """A picture that is there (attached, or the last one) done over in a style."""

    kind: Literal["style_transfer"]


class Swap(Strict):
    """`old` becomes `new`; with an empty `old`, the subject does."""

    old: str
    new: str


class Change(Strict):
    """The last picture, or an attached one, with something changed; all that is not named stays, the seed too."""

    kind: Literal["change"]
    swaps: tuple[Swap, ...]
    add: tuple[str, ...]
    remove: tuple[str, ...]
    colour: Swap | None = Field(description="A colour for the subject, or for the thing named in `old`.")
    place: str | None = Field(description="The new background; '' takes it away.")
    style: str | None = Field(description="The new plain style; '' takes it away.")
    loras: tuple[LoraWish, ...]
    without: tuple[str, ...]
    nudges: tuple[Nudge, ...]
    strength: float | None
    reseed: bool = Field(description="Another one: the same request with a new seed.")
    which: int | None = Field(description="The picture meant, from 1, where there were several; -1 is the last.")
    back: bool = Field(description="Go back to the picture before the last one first.")
    frame: Frame
    unread: str = Field(description="What was asked for that no other field can hold.")


class Train(Strict):
    """Learn a LoRA from the attached pictures."""

    kind: Literal["train"]
    name: str | None
    learns: Kind | None
    trigger: str | None
    word: str | None = Field(description="The class word: the ordinary word for what it is, 'crab'.")
    caption: str | None
    steps: int | None
    rank: int | None
    replace: bool


class Question(Strict):
    """Something to be answered in words; `about` is a LoRA's name or the thing asked after.

    "send": the file of the LoRA `about` is asked for.
    """

    kind: Literal["question"]
    topic: Topic
    about: str


class AskBack(Strict):
    """Not sure: one short question, and what is missing."""

    kind: Literal["ask_back"]
    missing: Missing
    question: str


class Setting(Strict):
    """How things are done in this channel from now on; None leaves a setting as it is."""

    kind: Literal["setting"]
    always: tuple[str, ...] | None = Field(description="LoRAs that every picture here gets; () for none.")
    trains: bool | None = Field(description="Whether pictures dropped here are for training.")


NO_NUMBERS = Frame(
    count=None, width=None, height=None, shape=None, seed=None, steps=None, ratio=None, upscale=None, transparent=None,
    speed=None, guidance=None, sampler=None,
)  # fmt: skip
Intent = Draw | BrandAsset | Character | ProductShot | StyleTransfer | Change | Train | Setting | Question | AskBack


class Reading(Strict):
    """The root object of structured output."""

    intent: Intent

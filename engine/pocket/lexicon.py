"""The nouns that can be drawn, by what draws them, their other names, and what base training leaves out."""

import zlib
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from engine.pocket.backdrops import COLOURS
from engine.pocket.cast import SPECIES
from engine.pocket.glyphs import Atlas, load_atlas
from engine.pocket.looks import LOOKS
from engine.pocket.solids import KINDS

SORTS = ("glyph", "product", "character")
HELD_OUT_KINDS = ("octopus", "owl", "robot", "dragon", "penguin", "teapot", "jar", "lamp")  # beside the atlas's own
NATURAL = {
    "cat": "orange gray black white cream brown", "dog": "brown cream white black gray", "bear": "brown black white",
    "rabbit": "white gray brown cream", "fox": "orange", "frog": "green", "child": "brown black yellow orange",
    "alien": "green teal purple", "mouse": "gray white brown", "pig": "pink", "lion": "yellow orange",
    "owl": "brown gray", "robot": "gray blue teal", "octopus": "purple pink orange", "dragon": "green red teal",
    "penguin": "black navy gray",
}  # fmt: skip
OTHER_NAMES = {
    "cat": ("kitten",), "dog": ("puppy",), "rabbit": ("bunny",), "child": ("kid",), "bear": ("teddy",),
    "sneaker": ("shoe",), "box": ("package", "cardboard box"), "can": ("soda can",), "cup": ("paper cup", "coffee cup"),
    "tube": ("cream tube",), "perfume bottle": ("perfume",), "shopping bag": ("bag", "paper bag"),
    "candle": ("scented candle",), "headphones": ("headset",), "carton": ("milk carton", "juice carton"),
    "lamp": ("table lamp",), "wine bottle": ("bottle of wine",),
}  # fmt: skip
UNSEEN = 0.10  # share of combinations that base training leaves out


@cache
def atlas() -> Atlas:
    return load_atlas()


@cache
def nouns() -> dict[str, str]:
    """Each noun that has a look of its own → "glyph", "product" or "character". Held-out ones too."""
    glyphs = dict.fromkeys(synonyms_of_glyphs().values(), "glyph")
    return glyphs | dict.fromkeys(KINDS, "product") | dict.fromkeys(SPECIES, "character")


@cache
def synonyms_of_glyphs() -> dict[str, str]:
    first: dict[int, str] = {}
    return {noun: first.setdefault(cell, noun) for noun, cell in atlas().cell.items()}


@cache
def synonyms() -> dict[str, str]:
    """Every word for a noun, itself too → the noun."""
    own = {name: noun for noun, names in OTHER_NAMES.items() for name in names}
    return synonyms_of_glyphs() | {noun: noun for noun in nouns()} | own


@cache
def names_of() -> dict[str, tuple[str, ...]]:
    """Each noun → its names, itself first."""
    names: dict[str, list[str]] = {noun: [noun] for noun in nouns()}
    for name, noun in synonyms().items():
        if name != noun:
            names[noun].append(name)
    return {noun: tuple(row) for noun, row in names.items()}


@cache
def held_out() -> tuple[str, ...]:
    """The 24 nouns that the base never sees."""
    return (
        *HELD_OUT_KINDS,
        *(noun for noun in dict.fromkeys(synonyms_of_glyphs().values()) if noun in atlas().held_out),
    )


def unseen(noun: str, colour: str = "", look: str = "") -> bool:
    """Whether base training leaves out the noun in this colour, or in this look: a tenth of each, fixed for ever."""
    said = [f"{noun}/{colour}"] if colour else []
    said += [f"{noun}/{look}"] if look not in ("", "none") else []
    return any(zlib.crc32(text.encode()) % 1000 < 1000 * UNSEEN for text in said)


@cache
def unseen_tables() -> tuple[Tensor, Tensor]:
    """Bool (nouns, colours) and (nouns, looks)."""
    return (
        torch.tensor([[unseen(noun, colour=colour) for colour in COLOURS] for noun in nouns()]),
        torch.tensor([[unseen(noun, look=look) for look in LOOKS] for noun in nouns()]),
    )


@cache
def index() -> dict[str, int]:
    """Each noun → its place in `nouns()`."""
    return {noun: place for place, noun in enumerate(nouns())}


def index_of(names: Sequence[str]) -> Tensor:
    return torch.tensor([index()[noun] for noun in names], dtype=torch.long)


def kind_of(noun: Tensor) -> Tensor:
    """0 glyph, 1 product, 2 character, for indices of nouns; -1 stays."""
    table = torch.tensor([SORTS.index(sort) for sort in nouns().values()])
    return torch.where(noun >= 0, table[noun.clamp(min=0)], -1)


@cache
def natural_table() -> Tensor:
    """Bool (nouns, colours): the colours in which an animal is usual."""
    return torch.tensor([[colour in NATURAL.get(noun, "").split() for colour in COLOURS] for noun in nouns()])

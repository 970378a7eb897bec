"""What is written beside a scene: exact, in everyday words, in several phrasings.

55 % of captions tell everything, 30 % leave one thing out, 15 % are short; a style is never left out. 3 % carry a
meaningless word, so that the trigger of a LoRA starts without a meaning.
"""

import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

NONCE = (
    "zorbi", "vaxil", "quemo", "drisk", "flonn", "hulva", "jexam", "korpi", "lumzo", "myrga", "nuvex", "obrak",
    "pwinz", "qualt", "rendo", "skyvo", "tazmi", "ulgen", "vrost", "wexli", "xanto", "yubri", "zephi", "brolk",
    "crumo", "dwalf", "ektar", "fropi", "glyno", "hazum", "ixbel", "jorva",
)  # fmt: skip
MASS = {
    "cheese", "bread", "toast", "bacon", "salad", "spaghetti", "pasta", "ramen", "soup", "curry", "sushi",
    "rice", "ice cream", "pudding", "candy", "chocolate", "popcorn", "honey", "milk", "coffee", "tea",
    "champagne", "wine", "whisky", "beer", "soda", "corn", "garlic", "broccoli", "fire", "lightning", "soap",
    "tv",
}  # fmt: skip
SINGULAR_S = ("bus", "cactus", "hibiscus", "lotus", "dress", "compass", "wine glass", "magnifying glass")
SIZES = ("", "small", "large")
PLACES = ("", "on the left", "on the right", "in the center")
GROUNDS: dict[str, tuple[str, ...]] = {
    "plain": ("on a plain {} background", ", {} background", ", plain {} background"),
    "gradient": ("on a {} gradient background", ", {} gradient background", ", {} gradient"),
    "stripes": ("on a striped {} background", ", {} stripes", ", striped {} background"),
    "dots": ("on a dotted {} background", ", {} polka dots", ", dotted {} background"),
    "podium": ("on a podium, {} background", "on a {} podium", ", podium, {} background"),
    "table": ("on a wooden table, {} background", "on a table, {} wall", ", table, {} background"),
    "studio": ("in a {} studio", "in a studio, {} background", ", studio, {} background"),
    "grass": ("on the grass", "in a meadow", ", grass"),
    "beach": ("on a beach", "at the beach", ", beach"),
    "snow": ("in the snow", "on snow", ", snow"),
    "night": ("at night", "under the stars at night", ", night"),
    "city": ("in a city", "on a city street", ", city"),
    "sunset": ("at sunset", "in front of a sunset", ", sunset"),
    "sky": ("in the sky", "in front of a blue sky with clouds", ", sky"),
    "desert": ("in the desert", "on desert sand", ", desert"),
    "underwater": ("underwater", "under the sea", ", underwater"),
    "forest": ("in a forest", "in the woods", ", forest"),
}
PREFIXES = ("a photo of", "a picture of", "an image of", "a drawing of")
PRODUCT_GROUNDS = ("plain", "gradient", "podium", "table", "studio")


class Told(NamedTuple):
    """What one scene shows. Colours, size and place are "" where there is nothing to say; `second` is "" when alone."""

    first: str
    second: str
    first_colour: str
    second_colour: str
    size: str
    place: str
    ground: str
    ground_colour: str
    look: str


class Dice:
    """Reads choices off a row of uniform numbers, so that a caption is a function of its row."""

    def __init__(self, row: Sequence[float]) -> None:
        self.row = iter(row)

    def roll(self) -> float:
        return next(self.row)

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.roll() * len(options))]


def named(noun: str, *adjectives: str) -> str:
    """'a small red fox', 'an apple', 'grapes', '[trigger]': the article only where English wants one."""
    words = " ".join([adjective for adjective in adjectives if adjective] + [noun])
    plural = noun.endswith("s") and noun not in SINGULAR_S
    if plural or noun in MASS or words.startswith("["):
        return words
    return ("an " if words[0] in "aeio" else "a ") + words


def objects(told: Told, dice: Dice, brief: bool) -> str:
    """The objects with their colours, sizes and places; `brief` leaves sizes and places out."""
    choice, swap = dice.roll(), dice.roll() > 0.5
    a = named(told.first, "" if brief or told.second else told.size, told.first_colour)
    if not told.second:
        return a if brief or not told.place else f"{a} {told.place}"
    b = named(told.second, told.second_colour)
    if choice < 0.35:
        return f"{a} to the left of {b}" if swap else f"{b} to the right of {a}"
    a, b = (b, a) if swap else (a, b)
    return f"{a} {('and', 'next to', 'beside', 'and')[int(choice * 4)]} {b}"


def ground_words(told: Told, dice: Dice) -> str:
    """Where it is; the colour is left out where a look hides it."""
    words = dice.pick(GROUNDS[told.ground]).format(told.ground_colour)
    return words if told.ground_colour else words.removesuffix(",  background").removesuffix(",  wall")


def joined(head: str, tail: str) -> str:
    return head + tail if tail.startswith(",") or not tail else f"{head} {tail}"


def with_style(text: str, told: Told, dice: Dice) -> str:
    """Adds the style's name, or for a plain picture sometimes 'a photo of'."""
    choice, prefix = dice.roll(), dice.pick(PREFIXES)
    if told.look != "none":
        forms: tuple[Callable[[], str], ...] = (
            lambda: f"{text}, {told.look} style", lambda: f"{text}, {told.look}",
            lambda: f"a {told.look} of {text}", lambda: f"{text}, {told.look} style",
        )  # fmt: skip
        return forms[int(choice * 4)]()
    if choice < 0.12 and told.ground in PRODUCT_GROUNDS:
        return f"a product photo of {text}"
    return f"{prefix} {text}" if choice > 0.7 else text


def with_nonce(text: str, noun: str, dice: Dice) -> str:
    """In 3 % of captions, a word without a meaning: one of NONCE, or fresh letters, which keeps letters neutral too."""
    if dice.roll() > 0.03:
        return text
    letters = "".join(dice.pick(string.ascii_lowercase) for _ in range(3 + int(dice.roll() * 3)))
    word = dice.pick(NONCE) if dice.roll() < 0.5 else letters
    return (f"{word}, {text}", f"{text}, {word}", f"{text}, {word} style", text.replace(noun, f"{word} {noun}", 1))[
        int(dice.roll() * 4)
    ]


def caption(told: Told, row: Sequence[float]) -> str:
    """One scene in words; `row` holds 24 uniform numbers."""
    dice = Dice(row)
    detail, dropped, bare = dice.roll(), dice.roll() > 0.5, dice.roll() > 0.5
    short = detail > 0.85
    medium = 0.55 < detail <= 0.85
    if short and bare:
        told = told._replace(first_colour="", second_colour="")
    text = objects(told, dice, brief=short or (medium and dropped))
    ground = ground_words(told, dice)
    if not short and not (medium and not dropped):
        text = joined(text, ground)
    return with_nonce(with_style(text, told, dice), told.first, dice)


def trigger_caption(told: Told, row: Sequence[float], content_only: bool) -> str:
    """For a LoRA's pictures: always full, no nonce word; `content_only` leaves out ground and look, to be learnt."""
    dice = Dice(row)
    text = objects(told, dice, brief=False)
    if content_only:
        return f"[trigger] {text.removeprefix('a ').removeprefix('an ')}"
    text = joined(text, ground_words(told, dice))
    return text if told.look == "none" else f"{text}, {told.look} style"

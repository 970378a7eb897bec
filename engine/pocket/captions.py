"""What is written beside a scene: exact, in everyday words, in several phrasings, from three words to thirty.

Nothing is told that cannot be seen. What is left out is the usual: an expression is dropped mostly where it is calm or
happy, a pose where one stands, a colour where it is natural, so that a bare "a fox" draws what people expect. 3 % carry
a meaningless word, so that the trigger of a LoRA starts without a meaning.
"""

import string
from collections.abc import Sequence
from typing import NamedTuple

from engine.pocket.backdrops import SAID
from engine.pocket.cast import TOLD_EXPRESSIONS, TOLD_POSES, TOLD_VIEWS
from engine.pocket.characters import Shown, picked, worn
from engine.pocket.glyphs import MASS, SINGULAR_S, plural
from engine.pocket.looks import GROUNDLESS

NONCE = (
    "zorbi", "vaxil", "quemo", "drisk", "flonn", "hulva", "jexam", "korpi", "lumzo", "myrga", "nuvex", "obrak",
    "pwinz", "qualt", "rendo", "skyvo", "tazmi", "ulgen", "vrost", "wexli", "xanto", "yubri", "zephi", "brolk",
    "crumo", "dwalf", "ektar", "fropi", "glyno", "hazum", "ixbel", "jorva",
)  # fmt: skip
SIZES = ("", "small", "large", "close-up")
PLACES = ("", "left", "right", "center")
LAYOUTS = ("", "copy left", "copy right", "pattern")
RELATIONS = ("", "beside", "above", "behind")
NUMBERS = ("", "", "two", "three", "four")
TOLD_PLACES = {
    "left": ("on the left",), "right": ("on the right",), "center": ("in the center", "centered", "in the middle"),
}  # fmt: skip
TOLD_LAYOUTS = {
    "copy left": (
        "copy space on the left",
        "empty space on the left",
        "room for text on the left",
        "space for text on the left",
    ),
    "copy right": (
        "copy space on the right",
        "empty space on the right",
        "room for text on the right",
        "space for text on the right",
    ),
}
TOLD_SHAPES = {
    "square": ("a square post of", "a square picture of", "an ad with", "a post with"),
    "portrait": ("a portrait picture of", "a tall picture of", "a portrait post of", "a poster of"),
    "landscape": ("a landscape picture of", "a postcard of"),
    "story": ("a story of", "a tall story of", "an instagram story of"),
    "wide": ("a wide picture of", "a wide shot of", "a header with"),
    "banner": ("a banner of", "a wide banner with", "a banner ad with"),
}  # fmt: skip
PREFIXES = ("a photo of", "a picture of", "an image of", "a drawing of", "an illustration of")
PRODUCT_GROUNDS = ("plain", "gradient", "podium", "table", "studio", "marble", "shelf", "kitchen")
CALM = {"expression": ("neutral", "happy"), "pose": ("standing",), "view": ("front", "three-quarter")}


class Thing(NamedTuple):
    """One kind of object in a scene. What does not apply, is not told or cannot be seen is "".

    `phrase` is its noun phrase with every detail ("a happy orange fox with a red scarf"), `brief` the shortest ("an
    orange fox"), `tails` what follows after commas ("waving", "side view"), `many` a plural noun phrase of the brief
    kind without a number ("orange foxes").
    """

    noun: str
    colour: str
    phrase: str
    brief: str
    many: str
    tails: tuple[str, ...]
    expression: str = ""
    pose: str = ""
    view: str = ""
    light: str = ""


class Told(NamedTuple):
    """What one scene shows. Of two things the first is on the left, above or in front. `count`: 1-4; 0 is a pattern."""

    things: tuple[Thing, ...]
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    relation: str
    place: str
    size: str
    ground: str
    ground_colour: str
    look: str
    layout: str
    shape: str


class Dice:
    """Reads choices off a row of uniform numbers, so that a caption is a function of its row."""

    def __init__(self, row: Sequence[float]) -> None:
        self.row, self.at = row, 0

    def roll(self) -> float:
        self.at += 1
        return self.row[(self.at - 1) % len(self.row)]

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.roll() * len(options))]

    def says(self, chance: float) -> bool:
        return self.roll() < chance


def named(noun: str, *adjectives: str) -> str:
    """'a small red fox', 'an apple', 'grapes', '[trigger]': the article only where English wants one."""
    words = " ".join([adjective for adjective in adjectives if adjective] + [noun])
    is_plural = noun.endswith("s") and noun not in SINGULAR_S
    if is_plural or noun in MASS or words.startswith("["):
        return words
    return article(words)


def article(words: str) -> str:
    vowel = words[0] in "aeio" or words.startswith(("um", "hour"))
    return ("an " if vowel and not words.startswith("one") else "a ") + words


# Things.


def glyph_words(noun: str, name: str, colour: str) -> Thing:
    """A glyph: its name and, where it is tinted, its colour."""
    phrase = named(name, colour)
    return Thing(noun, colour, phrase, phrase, f"{colour} {plural(name)}".strip(), ())


def dropped(kind: str, value: str, dice: Dice) -> bool:
    """Whether a detail of a character is left out: often where it is the usual one, else hardly ever."""
    usual = value in CALM[kind]
    return dice.says((0.7 if kind == "view" else 0.5) if usual else 0.06)


def character_words(show: Shown, name: str, natural: bool, dice: Dice) -> Thing:
    """A character: mood, colour, what is worn, pose and view, each left out at times; the truth is told as it is."""
    u = [dice.roll() for _ in range(3)]
    mood = "" if dropped("expression", show.expression, dice) else picked(TOLD_EXPRESSIONS[show.expression], u[0])
    act = "" if dropped("pose", show.pose, dice) else picked(TOLD_POSES[show.pose], u[1]).format(show.item)
    view = "" if dropped("view", show.view, dice) else picked(TOLD_VIEWS[show.view], u[2])
    if view and show.facing and dice.says(0.4):
        view = f"{view}, facing {show.facing}"
    colour = "" if natural and dice.says(0.6) else show.fur
    wear = worn(show) if dice.says(0.8) else ""
    role = dice.pick(("", "", "", "", "", "", "", "character", "mascot", "cartoon"))
    noun = f"cartoon {name}" if role == "cartoon" else f"{name} {role}".strip()
    if show.hair:
        hair = f" with {show.hair} {colour} hair".replace("  ", " ")
        phrase = named(noun, mood) + (hair if colour or dice.says(0.5) else "")
        brief, many, joint = named(name), f"{mood} {plural(name)}".strip(), " and " if " with " in phrase else " with "
    else:
        phrase, brief = named(noun, mood, colour), named(name, colour)
        many, joint = " ".join(word for word in (mood, colour, plural(name)) if word), " with "
    if wear:
        phrase += dice.pick((joint, joint, ", wearing ")) + wear
    tails = tuple(word for word in (act, view) if word)
    return Thing(
        show.species,
        show.fur,
        phrase,
        brief,
        many,
        tails,
        show.expression,
        "pointing" if show.pose.startswith("pointing") else show.pose,
        show.view,
    )


def product_words(facts: "ProductFacts", name: str, dice: Dice) -> Thing:
    """A product: build, material, colour, label, lid, angle and light, each left out at times."""
    build, stuff = (word if dice.says(chance) else "" for word, chance in ((facts.build, 0.6), (facts.material, 0.6)))
    looks = [stuff, facts.colour]
    if stuff in ("glass", "metal", "ceramic", "metallic"):
        looks.reverse()
    phrase = named(name, build, *looks)
    extras = [facts.label if dice.says(0.75) else "", facts.lid if dice.says(0.45) else ""]
    extras = [extra for extra in extras if extra]
    if extras:
        phrase += " with " + " and ".join(extras)
    tails = [facts.view if dice.says(0.75) else "", facts.light_words if dice.says(0.5) else ""]
    if dice.says(0.4):
        tails.reverse()
    return Thing(
        facts.kind, facts.colour, phrase, named(name, facts.colour), f"{facts.colour} {plural(name)}",
        tuple(word for word in tails if word), view=facts.angle, light=facts.light,
    )  # fmt: skip


class ProductFacts(NamedTuple):
    """What products.py says of one product, word by word; `angle` is "above", "eye level" or ""."""

    kind: str
    colour: str
    build: str
    material: str
    label: str
    lid: str
    view: str
    angle: str
    light: str
    light_words: str


# Sentences.


def one_kind(told: Told, dice: Dice, brief: bool) -> str:
    """A lone object or several alike, with size, place and details."""
    thing = told.things[0]
    if told.count == 0:
        return dice.pick((f"a pattern of {thing.many}", f"a seamless pattern of {thing.many}", f"{thing.many} pattern"))
    if told.count > 1:
        return f"{NUMBERS[told.count]} {thing.many}"
    text = thing.brief if brief else thing.phrase
    if told.size == "close-up":
        text = dice.pick((f"a close-up of {text}", f"{text}, close-up"))
    elif told.size:
        text = sized(text, told.size)
    if told.place and not told.layout:
        text = f"{text} {dice.pick(TOLD_PLACES[told.place])}"
    if not brief and thing.tails:
        flows = thing.pose and not told.size and "view" not in thing.tails[0] and dice.says(0.5)
        text += (" " if flows else ", ") + ", ".join(thing.tails)
    return text


def things_words(told: Told, dice: Dice, brief: bool = False) -> str:
    """What is there; `brief` leaves the details of a lone thing out."""
    return pair(told, dice) if len(told.things) == 2 else one_kind(told, dice, brief)


def sized(text: str, size: str) -> str:
    """'a red fox', small → 'a small red fox'."""
    for start in ("a ", "an "):
        if text.startswith(start):
            return f"a {size} {text[len(start) :]}"
    return f"{size} {text}"


def pair(told: Told, dice: Dice) -> str:
    """Two objects and how they stand to each other."""
    first, second = (thing.phrase if dice.says(0.35) else thing.brief for thing in told.things)
    swap, choice = dice.says(0.5), dice.roll()
    if told.relation == "above":
        below = dice.pick(("below", "under", "below"))
        return f"{second} {below} {first}" if swap else f"{first} above {second}"
    if told.relation == "behind":
        return f"{second} behind {first}" if swap else f"{first} in front of {second}"
    if choice < 0.5:
        return f"{second} to the right of {first}" if swap else f"{first} to the left of {second}"
    a, b = (second, first) if swap else (first, second)
    return f"{a} {dice.pick(('and', 'next to', 'beside', 'and'))} {b}"


def ground_words(told: Told, dice: Dice) -> str:
    """Where it is; the colour is left out where a look hides it."""
    words = dice.pick(SAID[told.ground])
    if told.ground_colour:
        return words.format(told.ground_colour)
    return " ".join(words.replace("{}", "").split()).replace(", background", "").replace(", wall", "").rstrip(", ")


def joined(head: str, tail: str) -> str:
    return head + tail if tail.startswith(",") or not tail else f"{head} {tail}"


def with_style(text: str, told: Told, dice: Dice) -> str:
    """Adds the style's name, or for a plain picture sometimes a prefix: what it is, or its shape."""
    choice, prefix, shape = dice.roll(), dice.pick(PREFIXES), dice.pick(TOLD_SHAPES[told.shape])
    if told.look != "none":
        if choice < 0.25 and not told.look.endswith(("duotone", "vintage", "neon", "comic")):
            return f"{article(told.look)} of {text}"
        return f"{text}, {told.look} style" if choice < 0.75 else f"{text}, {told.look}"
    if choice < 0.12 and told.ground in PRODUCT_GROUNDS and told.count == 1:
        return f"a product photo of {text}"
    if choice > 0.88:
        return f"{shape} {text}"
    return f"{prefix} {text}" if choice > 0.7 else text


def with_nonce(text: str, dice: Dice) -> str:
    """In 3 % of captions, a word without a meaning: one of NONCE, or fresh letters, which keeps letters neutral too."""
    if not dice.says(0.03):
        return text
    letters = "".join(dice.pick(string.ascii_lowercase) for _ in range(3 + int(dice.roll() * 3)))
    word = dice.pick(NONCE) if dice.says(0.5) else letters
    return dice.pick((f"{word}, {text}", f"{text}, {word}", f"{text}, {word} style", f"{word} {text}"))


def tidy(text: str) -> str:
    return " ".join(text.split()).replace(" ,", ",").replace(",,", ",")


def caption(told: Told, row: Sequence[float]) -> str:
    """One scene in words. 60 % tell everything, 25 % leave one thing out, 15 % are short.

    `row` holds uniform numbers, from which every choice is read.
    """
    dice = Dice(row)
    detail, no_ground = dice.roll(), dice.says(0.5)
    short, medium = detail > 0.85, 0.60 < detail <= 0.85
    text = (
        pair(told, dice) if len(told.things) == 2 else one_kind(told, dice, brief=short or (medium and not no_ground))
    )
    ground = ground_words(told, dice)
    layout = dice.pick(TOLD_LAYOUTS[told.layout]) if told.layout in TOLD_LAYOUTS else ""
    if not short and not (medium and no_ground):
        text = joined(text, ground)
    if layout:
        text = f"{text}, {layout}" if dice.says(0.6) else joined(text, f"with {layout}")
    return tidy(with_nonce(with_style(text, told, dice), dice))


def trigger_caption(told: Told, row: Sequence[float], trigger: bool) -> str:
    """For a LoRA's pictures: always full, no nonce word.

    With `trigger` the first thing is [trigger] and its own looks are untold; else the style is untold, and so is a
    ground that it hides.
    """
    dice = Dice(row)
    if not trigger:
        text = things_words(told, dice).removeprefix("a ").removeprefix("an ")
        seen = "" if told.look in GROUNDLESS else ground_words(told, dice)
        return tidy(joined(f"[trigger] {text}", seen))
    thing = told.things[0]
    mood = picked(TOLD_EXPRESSIONS[thing.expression], 0) if thing.expression not in ("", "neutral") else ""
    first = thing._replace(phrase=f"{mood} [trigger]".strip(), brief="[trigger]", many="[trigger]")
    told = told._replace(things=(first, *told.things[1:]))
    text = joined(
        pair(told, dice) if len(told.things) == 2 else one_kind(told, dice, brief=False), ground_words(told, dice)
    )
    return tidy(text if told.look == "none" else f"{text}, {told.look} style")

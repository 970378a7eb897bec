"""The LoRAs that a sentence names: tags, names, titles, aliases, with the weight said; and those it does not want."""

import re
from dataclasses import dataclass

from bot.intent import LoraWish
from bot.prompts import load, words
from bot.rules.lexicon import Lexicon, spoken
from bot.rules.measures import FRACTION, STRENGTHS, fraction
from bot.rules.text import Text, any_of, compiled
from engine.catalog import LoraCard

TAG = rf"<\s*(?:lora|lyco)\s*:\s*([^:<>]+?)\s*(?::\s*({FRACTION}|[^<>]*?)\s*(?::[^<>]*)?)?>"
WITHOUT = (
    r"(?:without|with no|drop|remove|delete|erase|minus|except(?: for)?|leave out|leave off|skip|not using|"
    r"turn off|switch off|disable|lose|"
    r"take (?:off|away|out)|don't (?:use|apply)|do not (?:use|apply)|no more|no|not in|not|get rid of|ditch)"
)
SAID_WEIGHT = (
    r"(?:\s*(?:,?\s*(?:only )?at(?: a)?(?: weight)?(?: of)?|weight(?: of)?|with (?:a )?weight(?: "
    rf"of)?|[:=@(])\s*({FRACTION})(?![\w.])\)?|\s+(-?\d*\.\d+)(?![\w.]))?"
)
BESIDE = frozenset(words("style", "no_names"))  # what may stand beside "LoRA" and is not its name
HIDDEN = re.compile(r"\x00(\d+)\x00")  # stands for a name that is a place where it stands
LEADING_WEIGHT = rf"(?:\b(?:at|with)?\s*({FRACTION}|half|full)(?:\s+(?:strength|weight))?(?:\s+of)?\s+)?"


@dataclass(frozen=True)
class Mentions:
    """`wished`: LoRAs by name, or the words for one that there is not; `without` likewise, or 'all'. `brand`: ours."""

    wished: tuple[LoraWish, ...]
    without: tuple[str, ...]
    cards: tuple[LoraCard, ...]
    brand: bool

    def of_kind(self, *kinds: str) -> tuple[LoraCard, ...]:
        return tuple(card for card in self.cards if card.kind in kinds)


def read_mentions(text: Text, lexicon: Lexicon) -> Mentions:
    """Takes tags, styles and unwanted LoRAs out of `text`; a subject's name stays, as it is part of what is drawn."""
    wished = _tags(text)
    without = _unwanted(text, lexicon)
    text.rest, places = _without_places(text.rest, lexicon)
    wished |= _named(text, lexicon)
    wished |= _unknown(text, lexicon)
    text.rest = HIDDEN.sub(lambda mark: places[int(mark[1])], text.rest)
    brand = bool(text.take(_glued(any_of(_brand_looks()), optional_noun=False)))
    _weight_apart(text, wished)
    known = {card.name: card for card in lexicon.cards}
    cards = tuple(known[name] for name in wished if name in known)
    return Mentions(tuple(LoraWish(name=n, weight=w) for n, w in wished.items()), without, cards, brand)


def _weight_apart(text: Text, wished: dict[str, float | None]) -> None:
    """'the mug on a table at 0.9': a weight that stands away from the only LoRA that it can be meant for."""
    open_ = [name for name, weight in wished.items() if weight is None]
    if len(open_) == 1 and (
        match := text.take(r"\b(?:at|with)\s+(?:a\s+)?(?:weight\s+(?:of\s+)?)?(-?\d*\.\d+)(?![\w.])")
    ):
        wished[open_[0]] = fraction(match[1])


def _brand_looks() -> tuple[str, ...]:
    owners = ("our", "the", "my", "our own", "our company's", "our company", "the company's", "our brand's")
    looks = ("brand", "house", "company", "corporate", "brand's", "own", "usual", "company's")
    nouns = (
        "style",
        "look",
        "colours",
        "colors",
        "branding",
        "palette",
        "look and feel",
        "design",
        "identity",
        "aesthetic",
    )
    full = [f"{owner} {look} {noun}" for owner in owners for look in looks for noun in nouns]
    short = [f"our {noun}" for noun in (*nouns, "brand", "branding", "ci")]
    return (
        *full,
        *short,
        *(f"{look} {noun}" for look in looks[:4] for noun in nouns),
        "the brand",
        "on-brand",
        "on brand",
        "branded",
    )


def _tags(text: Text) -> dict[str, float | None]:
    """`<lora:name:0.8>`, in the form that AUTOMATIC1111's web UI reads; a weight that is no number stays one: NaN."""
    found: dict[str, float | None] = {}
    for match in text.take_all(TAG):
        weight = match[2]
        if weight is None or not weight:
            found[match[1].strip()] = 1.0
        else:
            found[match[1].strip()] = fraction(weight) if compiled(rf"^{FRACTION}$").match(weight) else float("nan")
    return found


def _glued(name: str, optional_noun: bool = True) -> str:
    """`name` with the words that tie it to a picture: ', in our NAME style'."""
    noun = rf"(?:[-\s]+{any_of(words('style', 'nouns'))})*" if optional_noun else ""
    lead = (
        r"(?:,?\s*\b(?:and|but|done|made|drawn|painted|rendered|all|plus|also)\s+){0,4}(?:\b(?:in|into|"
        r"with|using|use|apply|applying|via|through|following|on|to|as)\s+)?"
        r"(?:(?:the\s+)?(?:style|look|manner|colou?rs|palette|branding|design) of\s+)?"
        r"(?:\b(?:our|my|the|a|an|that|this|your|full|same)\s+){0,4}"
    )
    return rf"{lead}{LEADING_WEIGHT}(?:\b(?:our|my|the)\s+){{0,4}}{name}{noun}"


def _unwanted(text: Text, lexicon: Lexicon) -> tuple[str, ...]:
    """Also 'no LoRAs'."""
    found: list[str] = []
    if text.take(
        rf"(?:\b(?:and|but|,)\s*)*\b{WITHOUT}\s+(?:any|all|the|other|extra|of)?\s*\b(?:loras?|"
        r"adapters?)\b|\bbase model only\b|\b(?:just|only) the base(?: model)?\b"
    ):
        found.append("all")
    for card in lexicon.cards:
        pattern = (
            rf"(?:,?\s*\b(?:and|but)\s+)?\b{WITHOUT}\s+(?:the |our |my |any |"
            rf"that )*{any_of(spoken(card))}(?:[-\s]+{any_of(words('style', 'nouns'))})*(?!\s*(?:at|"
            r":)?\s*\d)"
        )
        if text.take(pattern):
            found.append(card.name)
    return tuple(found)


def _named(text: Text, lexicon: Lexicon) -> dict[str, float | None]:
    said = [(name, card) for card in lexicon.cards for name in (*spoken(card), *_the_only(card, lexicon))]
    found: dict[str, float | None] = {}
    for name, card in sorted(said, key=lambda pair: -len(pair[0])):
        if card.kind == "speed":
            match = text.take(_quickened(name, lexicon) + SAID_WEIGHT)
            if match:
                found.setdefault(card.name, _weight(match))
        elif card.kind in ("style", "quality"):
            match = text.take(_glued(any_of([name])) + SAID_WEIGHT)
            if match:
                found.setdefault(card.name, _weight(match))
        elif (match := _subject(text, name, lexicon)) and card.name not in found and not _inside(name, found, lexicon):
            found[card.name] = _weight(match)
            _drop_weight(text, name, lexicon)
    return found


def _quickened(name: str, lexicon: Lexicon) -> str:
    """A speed LoRA's name: 'with lcm', 'the lightning LoRA'; one that is a noun of the base only as the LoRA."""
    lead = r"(?:,?\s*\b(?:and|but|plus)\s+)?\b(?:with|using|use|apply|via|by)\s+(?:(?:the|our|my)\s+)?"
    lora = rf"(?:{lead}|\bthe\s+)?{any_of([name])}\s+(?:lora|adapter)\b"
    return lora if lexicon.is_noun(name) else rf"(?:{lora}|{lead}{any_of([name])})"


def _without_places(said: str, lexicon: Lexicon) -> tuple[str, list[str]]:
    """'In a dark forest' is a place, though a style is named forest; 'in the forest style' and 'forest 0.6' are not.

    The places are marked in what is said, and returned in the order of their marks.
    """
    places = {*words("places", "plain"), *lexicon.backgrounds}
    names = {name for card in lexicon.cards if card.kind in ("style", "quality") for name in spoken(card)}
    called = any_of(name for name in names if name.lower() in places)
    style = rf"[-\s]+{any_of(words('style', 'nouns'))}"
    at = (
        r"\b(?:in|at|inside|into|through|across|from|near|behind|by|on|of|over|under)\s+(?:an?|the|some)\s+"
        r"(?:(?!style\b|look\b)[\w-]+\s+){0,2}?|\b(?:at|until|after|before|around)\s+"
    )
    means_style = rf"{style}|\s+and\s+[\w-]+{style}|\s*(?:at\s+|weight\s+|[:=@(]\s*)?(?:\d*\.\d|\d+\s?%)"
    ground = r"(?=\s+(?:background|backdrop|scene|floor|path)\b)"
    either = rf"(?P<before>{at})(?P<name>{called})(?!{means_style})|(?P<ground>{called}){ground}"

    found: list[str] = []

    def hide(match: re.Match[str]) -> str:
        found.append(match["name"] or match["ground"])
        return f"{match['before'] or ''}\x00{len(found) - 1}\x00"

    return compiled(either).sub(hide, said), found


def _the_only(card: LoraCard, lexicon: Lexicon) -> tuple[str, ...]:
    """'the teapot', where the base draws none and one product is one."""
    products = [other for other in lexicon.cards if other.kind == "product" and other.word == card.word]
    return (f"the {card.word}",) if products == [card] and card.word and not lexicon.is_noun(card.word) else ()


def _subject(text: Text, name: str, lexicon: Lexicon) -> re.Match[str] | None:
    """A subject's name; one that is also a plain noun of the base ('mug') is meant only as ours ('our mug')."""
    owner = r"\b(?:our|my)\s+(?:new |own |famous )?" if lexicon.is_noun(name) else ""
    return text.find(rf"{owner}{lexicon.alone(name)}{SAID_WEIGHT}")


def _inside(name: str, found: dict[str, float | None], lexicon: Lexicon) -> bool:
    """Whether this name is only a part of a longer one that was found."""
    longer = [said for card in lexicon.cards if card.name in found for said in spoken(card)]
    return any(name.lower() in said.lower() and len(said) > len(name) for said in longer)


def _drop_weight(text: Text, name: str, lexicon: Lexicon) -> None:
    match = _subject(text, name, lexicon)
    if match and any(match.groups()):
        plain = compiled(SAID_WEIGHT + "$").sub("", match[0], count=1)
        text.rest = text.rest.replace(match[0], plain, 1)


def _weight(match: re.Match[str], after: int = 0) -> float | None:
    """The number in the groups that come after the first `after`."""
    said = next((group for group in match.groups()[after:] if group), None)
    return None if said is None else STRENGTHS[said.lower()] if said.lower() in STRENGTHS else fraction(said)


def _unknown(text: Text, lexicon: Lexicon) -> dict[str, float | None]:
    """LoRAs that are asked for as such and that there are none of; near spellings of those that there are."""
    found: dict[str, float | None] = {}
    ask = r"\b(?:in|with|using|use|apply|applying|and|add)\s+"
    name = rf"\"?({lexicon.styles}|[\w-]+)\"?"
    after = rf"(?:{ask}|^)(?:the\s+)?(?:lora|adapter)(?:\s+(?:named|called)|:)?\s+{name}{SAID_WEIGHT}"
    lora = rf"(?:{ask})?(?:\b(?:our|my|the|a)\s+)?(?<![\w-]){name}(?:\s+style)?\s+(?:lora|adapter)\b{SAID_WEIGHT}"
    ours = rf"{ask}(?:our|my)\s+(?:own )?([\w-]+(?:\s[\w-]+)?)[\s-]+(?:style|look|brand|aesthetic)\b{SAID_WEIGHT}"
    for pattern in (after, lora, ours):
        match = text.find(pattern)
        if match and not _ordinary(match[1], lexicon if pattern is ours else None):
            text.take(pattern)
            found[match[1]] = _weight(match, after=1)
    for word in compiled(r"[\w-]{4,}").findall(text.rest):
        if lexicon.misspelt(word):
            text.take(_glued(any_of([word])) + SAID_WEIGHT)
            found[word] = None
    return found


def _ordinary(word: str, lexicon: Lexicon | None) -> bool:
    """Names no LoRA; with a `lexicon`, a plain style does not either."""
    brand = load("words")["brand"]["marks"]["any"]
    common = {
        "a",
        "the",
        "new",
        "this",
        "that",
        "which",
        "any",
        "no",
        "your",
        "every",
        "house",
        "brand",
        "company",
        "corporate",
        "own",
        "usual",
        "style",
        "same",
        "custom",
        "first",
        "last",
        "second",
        "another",
        "different",
        "what",
        "training",
    }
    is_style = lexicon is not None and bool(compiled(f"^{lexicon.styles}$").match(word))
    return word.lower() in common or word.lower() in BESIDE or f"our {word}" in brand or is_style

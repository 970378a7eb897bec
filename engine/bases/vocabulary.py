"""Which words a base has seen, so that one it has not is named to the person and never ignored in silence.

vocabulary.json lies beside base.toml: {"nouns": {noun: category}, "held_out", "colours", "backgrounds", "styles",
"held_out_styles", "words", "nonce"}, the rest lists of text. Any further list ("expressions", "poses", "views") holds
words that it knows, too. near.json: {word: [noun, …]}, the nearest in meaning.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher, get_close_matches
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter

from engine.bases import Base
from engine.errors import Invalid

FILE, NEAR_FILE = "vocabulary.json", "near.json"
NEAR = 3
MOST = 24  # unknown words that one answer names
MAX_PHRASE = 4  # words
EMOJI = "\U0001f300-\U0001f3fa\U0001f400-\U0001f5ff\U0001f680-\U0001faff"  # things, not faces
TOKEN = re.compile(rf"\w+(?:['’-]\w+)*|[{EMOJI}]")
LETTERS = re.compile(r"[^\W\d_]+")
NOT_TEXT = re.compile(r"<[^<>]*>|https?://\S+")
NUMBER = re.compile(r"\d+(?:\w{0,3}|x\d+)")  # 12, 3d, 20th, 256x256
SHORTENED = re.compile(r"\w+(?:n't|'(?:re|ve|ll|d|m))")

# Words that ask, join or praise, and leave the picture's content as it is.
GRAMMAR = """
a an the this that these those some any each every all both no not another other such same own
and or but nor so yet if then than as because while also too only just even still again
of in on at by to from for with without into onto over under above below behind before after beside besides between
among near next inside outside around through across along against off out up down upon within about like
front back top bottom left right middle centre center side foreground background
i me my mine we us our ours you your yours he him his she her hers it its they them their theirs who whom whose
which what where when why how there here one ones someone something everything anything nothing
is are was were be been being am do does did done doing have has had having can could will would shall should may
might must let lets
please thanks thank hi hello hey ok okay yes yeah sure kindly maybe perhaps
draw drawn make made show shown showing create created give get put add use using generate render rendered paint
want wants need needs see seen try go goes going come look looks looking depict depicting contain containing
featuring feature features including include includes placed shaped set standing sitting lying
holding carrying wearing riding leaning waiting using having getting keeping bringing taking doing being
picture pictures image images photo photos photograph pic pics drawing illustration artwork art shot shots view
scene style styled design composition portrait version variation kind sort type bit lot lots couple pair few many
several much more most less least bunch group two three four five six seven eight nine ten twelve dozen single double
very really quite rather pretty super extremely
cute adorable elegant fancy ultra hyper extra
beautiful nice lovely good great best better amazing awesome stunning gorgeous cool fine perfect wonderful fantastic
quality high highly detailed detail details masterpiece professional sharp crisp clean simple plain hd uhd
colour colours color colors coloured colored
"""
STOP = frozenset(GRAMMAR.split())
# What no spelling is near to: whom and how. A base that has seen one of these words draws it all the same.
HUMANS = """
person human man woman boy girl child kid toddler teenager adult lady gentleman guy crowd family team audience
ceo cto cfo boss manager director founder entrepreneur businessman businesswoman businessperson colleague coworker
employee worker staff customer client shopper buyer visitor guest user friend bride groom mother father mom mum
dad son daughter parent grandmother grandfather grandma grandpa husband wife doctor nurse teacher student pupil chef
waiter waitress barista farmer builder engineer scientist lawyer soldier athlete runner dancer singer musician
actor actress celebrity selfie
"""
PHOTOGRAPHIC = """
photorealistic photoreal photorealism photo-real photo-realistic realistic realism hyperrealistic hyper-realistic
lifelike life-like ultra-realistic
"""
PEOPLE, REALISM = frozenset(HUMANS.split()), frozenset(PHOTOGRAPHIC.split())
CLOSE = 0.8  # how alike a word has to be spelt, from 0 to 1, to be offered
SAME = {  # said otherwise: offered where the base has the other word
    "big": "large", "huge": "large", "giant": "large", "enormous": "large",
    "little": "small", "tiny": "small", "mini": "small",
}  # fmt: skip
BRITISH = {  # the same word in British and in American spelling, where no ending tells (`ENDINGS`)
    "grey": "gray", "aeroplane": "airplane", "doughnut": "donut", "moustache": "mustache", "tyre": "tire",
    "pyjamas": "pajamas", "plough": "plow", "jewellery": "jewelry", "axe": "ax", "pickaxe": "pickax", "kerb": "curb",
    "cosy": "cozy", "mould": "mold", "chilli": "chili", "yoghurt": "yogurt", "omelette": "omelet", "storey": "story",
    "whisky": "whiskey", "cheque": "check", "sulphur": "sulfur", "snowplough": "snowplow", "woollen": "woolen",
}  # fmt: skip
SPELT = BRITISH | {american: british for british, american in BRITISH.items()}
ENDINGS = (("our", "or"), ("ours", "ors"), ("oured", "ored"), ("ourful", "orful"), ("re", "er"), ("res", "ers"),
           ("ogue", "og"), ("ogues", "ogs"), ("ise", "ize"), ("ised", "ized"), ("elled", "eled"), ("elling", "eling"),
           ("eller", "eler"), ("ellers", "elers"))  # fmt: skip
IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "oxen": "ox", "dice": "die", "cacti": "cactus", "octopi": "octopus",
}  # fmt: skip


class UnknownWord(NamedTuple):
    """A word as the person wrote it (lower case), and up to three things that the base can draw instead."""

    word: str
    near: tuple[str, ...]

    @property
    def is_person(self) -> bool:
        return not _forms(self.word).isdisjoint(PEOPLE)

    @property
    def is_realism(self) -> bool:
        return self.word in REALISM


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    nouns: dict[str, str]
    held_out: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    backgrounds: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    held_out_styles: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    nonce: tuple[str, ...] = ()


_TABLE = TypeAdapter(dict[str, object])
_NEAR_TABLE = TypeAdapter(dict[str, tuple[str, ...]])


class _Piece(NamedTuple):
    """A word of the prompt, and the hyphenated one that it is a part of (or itself)."""

    text: str
    whole: str


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Built by `of` or `made`. Phrases and words are lower case, hyphens as spaces, in every number."""

    nouns: Mapping[str, str]  # noun → category; those that are held out are not in it
    colours: tuple[str, ...]
    backgrounds: tuple[str, ...]
    styles: tuple[str, ...]
    near: Mapping[str, tuple[str, ...]]
    seen: frozenset[str]  # drawable nouns and what is shown, whole: "hot dog", "hot dogs"
    words: frozenset[str]  # other single words that were seen
    held_out: frozenset[str]  # whole nouns and styles that were not
    held_out_styles: frozenset[str]
    more: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])  # "poses" → "waving", …

    @classmethod
    def of(cls, base: Base) -> "Vocabulary | None":
        """The vocabulary beside the base's manifest; None where the base says nothing of its words."""
        return _load(base.folder) if (base.folder / FILE).is_file() else None

    @classmethod
    def made(cls, said: Mapping[str, object], near: Mapping[str, Iterable[str]] | None = None) -> "Vocabulary":
        """From what the two files hold."""
        file = _File.model_validate(said)
        nouns = {noun: category for noun, category in file.nouns.items() if noun not in file.held_out}
        styles = tuple(style for style in file.styles if style not in file.held_out_styles)
        shown = (*file.colours, *file.backgrounds, *styles)
        more = _further(file)
        seen, parts = (
            _variants((*nouns, *shown)),
            _single((*shown, *(text for texts in more.values() for text in texts))),
        )
        return cls(
            nouns=nouns,
            colours=file.colours,
            backgrounds=file.backgrounds,
            styles=styles,
            near={_plain(word): tuple(noun for noun in given if noun in nouns) for word, given in (near or {}).items()},
            seen=seen,
            words=_single((*file.words, *file.nonce)) | parts,
            held_out=_variants((*file.held_out, *file.held_out_styles)) - seen - parts,
            held_out_styles=_variants(file.held_out_styles),
            more=more,
        )

    @property
    def shown(self) -> tuple[str, ...]:
        """What it draws besides nouns."""
        return (*self.colours, *self.backgrounds, *self.styles)

    def unknown(self, prompt: str, known: Collection[str] = ()) -> tuple[UnknownWord, ...]:
        """Each content word of `prompt` that the base has never seen, once, in order; the first 24 of them.

        `known` are texts whose words are fine: a LoRA's trigger and its class word. Numbers, grammar, courtesy and
        praise (`STOP`) are not content.
        """
        fine = _single(known)
        pieces = _pieces(prompt)
        found: dict[str, UnknownWord] = {}
        at = 0
        while at < len(pieces) and len(found) < MOST:
            length, is_seen = self._match(pieces[at:], fine)
            if not is_seen:
                terms = (" ".join(piece.whole for piece in pieces[at : at + length]), pieces[at].text)
                found.setdefault(terms[0], UnknownWord(terms[0], self._neighbours(terms)))
            at += length
        return tuple(found.values())

    def _match(self, pieces: list[_Piece], fine: frozenset[str]) -> tuple[int, bool]:
        """How many pieces the longest phrase at the beginning takes, and whether it was seen."""
        said = [self._own(piece.text) for piece in pieces[:MAX_PHRASE]]
        for length in range(len(said), 0, -1):
            variants = _variants([" ".join(said[:length])])
            if variants & self.seen:
                return length, True
            is_covered = any(_forms(piece.text) & fine for piece in pieces[:length])
            if variants & self.held_out and not is_covered:
                return length, False
        known = _forms(said[0]) & self.words or _forms(pieces[0].text) & fine
        return 1, _is_grammar(pieces[0].text) or bool(known)

    def spelt(self, prompt: str, known: Collection[str] = ()) -> str:
        """`prompt` in the base's own spelling: 'a grey mug' → 'a gray mug'. Words of `known` stay as they are."""
        fine = _single(known)

        def own(match: re.Match[str]) -> str:
            word = match[0].casefold()
            meant = word if _forms(word) & fine else self._own(word)
            return match[0] if meant == word else meant

        return LETTERS.sub(own, prompt)

    def _own(self, word: str) -> str:
        """The word as this base spells it, British or American; as it is where neither is known."""
        forms = _forms(word)
        if _is_grammar(word) or forms & self.words or forms & self.seen:
            return word
        known = (other for other in _respelt(word) if _forms(other) & self.words or _forms(other) & self.seen)
        return next(known, word)

    def _neighbours(self, terms: tuple[str, str]) -> tuple[str, ...]:
        """Nearest in meaning, else those that share a word, else those spelt alike, else none."""
        if not REALISM.isdisjoint(terms) or any(_forms(term) & PEOPLE for term in terms):
            return ()
        if _variants(terms[:1]) & self.held_out_styles:
            return tuple(sorted(self.styles, key=lambda style: -_likeness(terms[0], style))[:NEAR])
        forms = [form for term in terms for form in sorted(_forms(_plain(term)), key=len, reverse=True)]
        named = [noun for form in forms for noun in self.near.get(form, ())]
        named += [SAME[form] for form in forms if SAME.get(form) in self.words]
        words = {word for form in (*forms, _emoji_name(terms[1])) for word in form.split()}
        sharing = [noun for noun in self.nouns if words & set(_plain(noun).split())]
        if near := (*named, *sharing):
            return tuple(dict.fromkeys(near))[:NEAR]
        close = [text for form in forms for text in get_close_matches(form, (*self.nouns, *self.shown), NEAR, CLOSE)]
        return tuple(dict.fromkeys(close))[:NEAR]


def _further(file: _File) -> dict[str, tuple[str, ...]]:
    """The lists that have no field of their own, by name, without what is held out."""
    unseen = {*file.held_out, *file.held_out_styles}
    lists: dict[str, tuple[str, ...]] = {}
    for name, said in (file.model_extra or {}).items():
        if isinstance(said, list | dict):
            texts = (text for text in cast(Iterable[object], said) if isinstance(text, str))
            lists[name] = tuple(text for text in texts if text not in unseen)
    return lists


@cache
def _load(folder: Path) -> Vocabulary:
    try:
        near = folder / NEAR_FILE
        return Vocabulary.made(
            _TABLE.validate_json((folder / FILE).read_bytes()),
            _NEAR_TABLE.validate_json(near.read_bytes()) if near.is_file() else None,
        )
    except (OSError, ValueError) as error:
        raise Invalid(
            f"base {folder.name}", f"its words cannot be read ({error})", "Install the base again."
        ) from error


@lru_cache(4_096)
def _plain(text: str) -> str:
    """Lower case, one form of each letter, straight apostrophes, hyphens as spaces, no possessive."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("-", " ")
    return re.sub(r"'s\b", "", text)


def _pieces(text: str) -> list[_Piece]:
    """The words in order; `<…>` and addresses are not words, a hyphenated one is several."""
    wholes = [token.group().casefold() for token in TOKEN.finditer(NOT_TEXT.sub(" ", text))]
    return [_Piece(part, whole) for whole in wholes for part in _plain(whole).split()]


def _forms(word: str) -> set[str]:
    """The word and what it may be the plural of: cherries → cherry, wolves → wolf, boxes → box, cats → cat."""
    forms = {word, IRREGULAR.get(word, word)}
    if len(word) > 2 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(f"{word[:-3]}y")
        if word.endswith("ves"):
            forms |= {f"{word[:-3]}f", f"{word[:-3]}fe"}
    return forms


def _respelt(word: str) -> list[str]:
    """In the other spelling, whatever may come of it: 'greys' → 'grays', 'colour' → 'color'."""
    pairs = [*ENDINGS, *((american, british) for british, american in ENDINGS)]
    stem, plural = (word[:-1], "s") if word.endswith("s") and word not in SPELT else (word, "")
    listed = [SPELT[stem] + plural] if stem in SPELT else []
    return listed + [
        word.removesuffix(old) + new for old, new in pairs if word.endswith(old) and len(word) >= len(old) + 3
    ]


def _variants(phrases: Iterable[str]) -> frozenset[str]:
    """Each phrase with every form of its last word."""
    split = [_plain(phrase).split() for phrase in phrases]
    return frozenset(" ".join((*words[:-1], form)) for words in split if words for form in _forms(words[-1]))


def _single(texts: Iterable[str]) -> frozenset[str]:
    """Every form of every word of the texts."""
    return frozenset(form for text in texts for piece in _pieces(text) for form in _forms(piece.text))


def _is_grammar(word: str) -> bool:
    is_letter = len(word) == 1 and word.isascii()
    return is_letter or word in STOP or bool(NUMBER.fullmatch(word) or SHORTENED.fullmatch(word))


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _emoji_name(text: str) -> str:
    """What Unicode calls a lone symbol ("fox face"); nothing for a word."""
    return unicodedata.name(text, "").lower() if len(text) == 1 and not text.isalnum() else ""

"""A sentence that is read by taking things out of it: what is left when all is taken is what to draw."""

import html
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from bot.prompts import words

NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "a couple of": 2,
    "a couple": 2,
    "a pair of": 2,
    "a few": 3,
    "several": 3,
    "both": 2,
}
NUMBER = rf"(?:\d+|{'|'.join(sorted(NUMBERS, key=len, reverse=True))})"
PATTERNS = 4_096  # that are remembered: some are made of what was said
DETERMINER = r"(?:an?|the|some|my|our|your|their|his|her|its|this|that|these|those|any|one|another)"


def any_of(entries: Iterable[str]) -> str:
    """A pattern that matches one of `entries` as whole words, the longest first."""
    return _any_of(tuple(entries))


@lru_cache(PATTERNS)
def _any_of(entries: tuple[str, ...]) -> str:
    ordered = sorted(entries, key=len, reverse=True)
    return rf"(?<![\w])(?:{'|'.join(re.escape(entry) for entry in ordered)})(?![\w])" if ordered else r"(?!)"


def with_plurals(nouns: Iterable[str]) -> tuple[str, ...]:
    """Each noun and its plural: 'story', 'stories'."""
    singular = tuple(nouns)
    return (*singular, *(f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s" for noun in singular))


@lru_cache(PATTERNS)
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def number(said: str) -> int:
    """'4' or 'four' as a number."""
    return NUMBERS[said.lower()] if said.lower() in NUMBERS else int(said)


def tidy(text: str) -> str:
    """One line, single spaces, no stray punctuation where something was taken out."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    text = re.sub(r"([,;:])[\s,;:]*(?=[,;:])", "", text)
    return text.strip(" ,;:-–—.!")


def plain(text: str) -> str:
    """Entities decoded, typographic quotes made plain, mentions of people or bots dropped."""
    text = html.unescape(html.unescape(text))
    text = text.translate(str.maketrans("’‘“”", "''\"\""))
    return re.sub(r"<@[^>]*>|(?<!\S)@(?:atelier|bot)\b", " ", text, flags=re.IGNORECASE)


class Text:
    """The rest of a sentence. `take` removes what it matches."""

    def __init__(self, text: str) -> None:
        self.whole = tidy(text)
        self.rest = self.whole

    def has(self, pattern: str) -> bool:
        return compiled(pattern).search(self.rest) is not None

    def find(self, pattern: str) -> re.Match[str] | None:
        return compiled(pattern).search(self.rest)

    def take(self, pattern: str, leave: str = " ") -> re.Match[str] | None:
        """The first match, which `leave` stands for from now on."""
        match = compiled(pattern).search(self.rest)
        if match:
            self.rest = tidy(self.rest[: match.start()] + leave + self.rest[match.end() :])
        return match

    def take_all(self, pattern: str) -> list[re.Match[str]]:
        taken: list[re.Match[str]] = []
        while match := self.take(pattern):
            taken.append(match)
        return taken


def strip_start(text: str, patterns: Sequence[str]) -> str:
    """`text` without any of the patterns at its start, however often they come."""
    before = None
    while before != text:
        before = text
        for pattern in patterns:
            text = compiled(rf"^(?:{pattern})[\s,.!:;-]*").sub("", text, count=1)
    return text


def is_deed(word: str) -> bool:
    """Whether a lower-case word after 'make it' is something to do ('wave') and not how to be ('happy', 'bigger')."""
    word = word.lower()
    is_quality = re.search(r"(?:y|ful|less|ed|er|est|ous|al|ish|ic|ive|able)$", word) is not None
    return word in words("poses", "deeds_in_y") or not (is_quality or word in words("poses", "no_deeds"))


def participle(verb: str) -> str:
    """'wave' → 'waving', 'run' → 'running'."""
    if verb.endswith("ing"):
        return verb
    if verb.endswith("e") and not verb.endswith("ee"):
        return f"{verb[:-1]}ing"
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        return f"{verb}{verb[-1]}ing"
    return f"{verb}ing"

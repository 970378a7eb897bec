"""What words mean here: the catalog's names, the base's vocabulary, and the word lists of `prompts/words.toml`."""

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from bot.prompts import load, words
from bot.rules.text import any_of
from engine.bases.vocabulary import Vocabulary
from engine.catalog import LoraCard

LIVING = ("animal", "character", "face")


def spoken(card: LoraCard) -> tuple[str, ...]:
    """Every way to say its name."""
    said = {card.name, card.title, *card.aliases, card.trigger}
    return tuple(name for name in said | {re.sub(r"[-_]+", " ", name) for name in said} if len(name) > 1)


@dataclass(frozen=True)
class Lexicon:
    """`nouns` maps each noun that the base draws to its category; a base without a vocabulary has empty sets."""

    cards: tuple[LoraCard, ...]
    nouns: dict[str, str]
    base_colours: Collection[str]
    backgrounds: Collection[str]
    base_styles: Collection[str]
    base_words: Collection[str] = ()

    @staticmethod
    def of(cards: Iterable[LoraCard], vocabulary: Vocabulary | None) -> "Lexicon":
        if vocabulary is None:
            return Lexicon(tuple(cards), {}, (), (), ())
        shown = set(vocabulary.shown) - set(vocabulary.styles)
        colours = {word for word in shown if word in words("colours", "plain")}
        nouns, seen = dict(vocabulary.nouns), vocabulary.words | vocabulary.seen
        return Lexicon(tuple(cards), nouns, colours, shown - colours, vocabulary.styles, seen)

    @cached_property
    def synonyms(self) -> dict[str, str]:
        return dict(load("words")["synonyms"])

    def _with_synonyms(self, known: Iterable[str]) -> set[str]:
        names = set(known)
        return names | {other for other, name in self.synonyms.items() if name in names}

    @cached_property
    def colours(self) -> str:
        """A pattern for one colour, light or dark if need be."""
        names = self._with_synonyms({*words("colours", "plain"), *self.base_colours})
        return rf"(?:(?:light|dark|bright|pale|deep|soft)\s+)?{any_of(names)}"

    @cached_property
    def places(self) -> str:
        """A pattern for one of the base's own backgrounds."""
        return any_of(self._with_synonyms(self.backgrounds)) if self.backgrounds else r"(?!)"

    @cached_property
    def styles(self) -> str:
        """A pattern for one plain style: the base's and those that everyone knows."""
        return any_of(self._with_synonyms({*words("style", "plain"), *self.base_styles}))

    @cached_property
    def styles_of_base(self) -> str:
        return any_of(self._with_synonyms(self.base_styles)) if self.base_styles else r"(?!)"

    def seen(self, word: str) -> bool:
        """Whether the base has met this very word, or each one of a phrase."""
        met = {*self.base_words, *self.backgrounds, *self.base_colours, *self.base_styles}
        return word.lower() in met or all(part in met for part in word.lower().split())

    def canonical(self, said: str) -> str:
        """The base's own word for what was said, where it has one."""
        known = {*self.base_colours, *self.backgrounds, *self.base_styles}
        said = re.sub(r"\s+", " ", said.strip().lower())
        if said in known:
            return said
        last = said.split()[-1] if said else said
        for word in (said, last if last in self.base_colours else said):
            meant = self.synonyms.get(word, word)
            if meant in known:
                return meant
        return said

    def is_noun(self, word: str) -> bool:
        """Whether the base draws it, in the singular or plural."""
        return self.noun(word) is not None

    def noun(self, word: str) -> str | None:
        word = word.lower().strip()
        for form in (word, word.removesuffix("s"), word.removesuffix("es"), re.sub(r"ies$", "y", word)):
            if form in self.nouns:
                return form
        return None

    def alone(self, name: str) -> str:
        """A pattern for `name` where it is no part of one of the base's nouns: 'bolt', not 'lightning bolt'."""
        parts = [
            noun.partition(name.lower()) for noun in self.nouns if f" {name.lower()} " in f" {noun} " and " " in noun
        ]
        before = "".join(rf"(?<!{re.escape(head)})" for head, _, _ in parts if head)
        after = "".join(rf"(?!{re.escape(tail)}\b)" for _, _, tail in parts if tail)
        return rf"{before}{any_of([name])}{after}"

    def names_alone(self, card: LoraCard, said: str) -> bool:
        """Whether one of the LoRA's names stands in `said` as itself."""
        return any(re.search(self.alone(name), said, re.IGNORECASE) for name in spoken(card))

    @cached_property
    def near_spelling(self) -> dict[str, str]:
        """Single words that stand for a LoRA."""
        return {card.name.lower(): card.name for card in self.cards} | {
            name.lower(): card.name for card in self.cards for name in card.aliases if " " not in name
        }

    @cached_property
    def subjects(self) -> str:
        """A pattern for whom or what a LoRA draws, as ours: 'Inky', 'our teapot', 'our mascot Inky'."""
        cards = [card for card in self.cards if card.kind not in ("style", "quality", "speed")]
        names = any_of([name for card in cards for name in spoken(card) if not self.is_noun(name)])
        own = any_of([*(card.word for card in cards if card.word), *(name for card in cards for name in spoken(card))])
        roles = any_of(words("character", "marks"))
        return rf"(?:(?:(?:our|my|the)\s+)?(?:{roles},?\s+)?{names}|(?:our|my)\s+(?:[\w-]+\s+)?{own})"

    @cached_property
    def parts_of_names(self) -> set[str]:
        return {
            part
            for card in self.cards
            for name in (card.name, card.title, *card.aliases)
            for part in re.split(r"[\s_-]+", name.lower())
        }

    def misspelt(self, word: str) -> str | None:
        """The LoRA's name that `word` nearly is, where it is no other word that we know."""
        word = word.lower()
        if len(word) < 4 or self.is_noun(word) or word in self.near_spelling or word in self.parts_of_names:
            return None
        near = difflib.get_close_matches(word, self.near_spelling, n=1, cutoff=0.8)
        return self.near_spelling[near[0]] if near else None

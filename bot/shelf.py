"""What plans are made from and questions are answered from."""

from dataclasses import dataclass
from pathlib import Path

from engine.bases import Base
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog, LoraCard
from engine.plans import Kind


@dataclass(frozen=True, slots=True)
class Shelf:
    """The LoRAs there are, the base that draws, and the words that it knows (None: it has no word list).

    `home` is where other bases may lie.
    """

    catalog: Catalog
    base: Base
    vocabulary: Vocabulary | None = None
    home: Path | None = None

    def card(self, name: str) -> LoraCard:
        """By any of its names; `UnknownLora` with near names."""
        return self.catalog.get(name)

    def of_kind(self, *kinds: Kind) -> tuple[LoraCard, ...]:
        """Those of these kinds that fit the base."""
        return tuple(card for card in self.catalog.list() if card.kind in kinds and card.base == self.base.name)

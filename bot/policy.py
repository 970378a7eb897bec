"""What this house does not draw: brand work on weights not for commercial use, unless its admin says so.

What is brand work follows from what the LoRAs are by their cards and from what the weights allow, never from the kind
that a request or a recipe names: a LoRA that shows or calls something of its own is one, whatever it is called, and so
is every training, as its pictures are somebody's. Only a tool (quality or speed, with no trigger, no class word and no
pictures) is none.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from engine.bases import Base
from engine.catalog import LoraCard
from engine.errors import NotForBrands
from engine.executor import Executor
from engine.jobs import Event
from engine.plans import ImagePlan, Kind, Plan

BRAND: tuple[Kind, ...] = ("style", "product", "character")
TOOLS: tuple[Kind, ...] = ("quality", "speed")
UNSTATED = "unstated"


def check_brand(plan: Plan, base: Base, cards: Sequence[LoraCard]) -> None:
    """Raise `NotForBrands` for brand work on weights that are not for commercial use: the base's, or a LoRA's.

    `cards` are all that there are, and one file is all that any of its cards says. A LoRA of the plan that has none any
    more counts as brand work.
    """
    if not isinstance(plan, ImagePlan):
        if not base.commercial:
            raise NotForBrands(base.title, base.licence, (plan.name,))
        return
    used = {ref.name: [card for card in cards if card.sha256 == ref.sha256] for ref in plan.stack.refs}
    brands = tuple(name for name, known in used.items() if not known or not all(map(_is_tool, known)))
    if brands and not base.commercial:
        raise NotForBrands(base.title, base.licence, brands)
    every = [card for known in used.values() for card in known]
    ours = tuple(card.name for card in every if card.commercial and card.kind in BRAND)
    barred = [card for card in every if not card.commercial and card.licence != UNSTATED]
    if ours and barred:
        raise NotForBrands(barred[0].title, barred[0].licence, ours)


def _is_tool(card: LoraCard) -> bool:
    return card.kind in TOOLS and not (card.trigger or card.word or card.pictures)


class Licensed:
    """An executor that first looks at what a plan may be made with; satisfies `Executor`."""

    def __init__(
        self,
        executor: Executor,
        base: Callable[[str], Base],
        cards: Callable[[], Sequence[LoraCard]],
        brand_on_non_commercial: bool,
    ) -> None:
        self.slots = executor.slots
        self._executor = executor
        self._base = base
        self._cards = cards
        self._is_allowed = brand_on_non_commercial

    async def run(self, plan: Plan) -> AsyncGenerator[Event]:
        if not self._is_allowed:
            check_brand(plan, self._base(plan.base), self._cards())
        async with aclosing(self._executor.run(plan)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        await self._executor.close()

"""What this house does not draw: brand work on weights not for commercial use, unless its admin says so.

Brand work is what has a brand's style, product or character in it, or trains one; a subject of one's own is not.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from engine.bases import Base
from engine.errors import NotForBrands
from engine.executor import Executor
from engine.jobs import Event
from engine.plans import ImagePlan, Kind, Plan

BRAND: tuple[Kind, ...] = ("style", "product", "character")


def check_brand(plan: Plan, base: Base) -> None:
    """Raise `NotForBrands` for brand work on a base that is not for commercial use."""
    if base.commercial:
        return
    if isinstance(plan, ImagePlan):
        brands = tuple(ref.name for ref in plan.stack.refs if ref.role in BRAND)
    else:
        brands = (plan.name,) if plan.kind in BRAND else ()
    if brands:
        raise NotForBrands(base.title, base.licence, brands)


class Licensed:
    """An executor that first looks at what a plan may be made with; satisfies `Executor`."""

    def __init__(self, executor: Executor, base: Callable[[str], Base], brand_on_non_commercial: bool) -> None:
        self.slots = executor.slots
        self._executor = executor
        self._base = base
        self._is_allowed = brand_on_non_commercial

    async def run(self, plan: Plan) -> AsyncGenerator[Event]:
        if not self._is_allowed:
            check_brand(plan, self._base(plan.base))
        async with aclosing(self._executor.run(plan)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        await self._executor.close()

"""An engine without torch: each picture is one colour that follows from its whole recipe."""

import asyncio
import hashlib
import io
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

from PIL import Image

from engine import bases, controls, recipes, references
from engine.catalog import Catalog
from engine.jobs import Drawn, Event, Picture, Progress, Trained
from engine.plans import ImagePlan, Plan, TrainPlan

MADE_WITH: dict[str, str | int] = {"python": "3", "torch": "none", "diffusers": "none", "device": "paper", "threads": 1}


class FakeExecutor:
    """Satisfies `Executor`. `plans` holds what was run, `ended` counts what was left.

    At step 2 `breaks_with` is raised, and `interrupted` presses Ctrl-C.
    """

    slots = 1
    breaks_with: BaseException | None = None
    interrupted = False
    memory = "auto"

    def __init__(self, catalog: Catalog, home: Path) -> None:
        self.catalog = catalog
        self.home = home
        self.plans: list[Plan] = []
        self.ended = 0

    async def run(self, plan: Plan) -> AsyncGenerator[Event]:
        self.plans.append(plan)
        try:
            for step in range(1, 4):
                await asyncio.sleep(0)
                if self.breaks_with is not None and step == 2:
                    raise self.breaks_with
                if self.interrupted and step == 2:
                    signal.raise_signal(signal.SIGINT)
                loss = 0.5 / step if isinstance(plan, TrainPlan) else None
                yield Progress("training" if loss else "drawing", step, 3, loss=loss)
            yield self.draw(plan) if isinstance(plan, ImagePlan) else train(plan, self.family(plan))
        finally:
            self.ended += 1

    async def close(self) -> None:
        """Nothing is held."""

    def family(self, plan: TrainPlan) -> str:
        return bases.find(plan.base, self.home).family

    def draw(self, plan: ImagePlan) -> Drawn:
        base = bases.find(plan.base, self.home)
        adapter = references.adapter_for(base, self.home) if plan.references else None
        nets = controls.nets_for(plan.controls, base, self.home)
        cards = {ref.name: self.catalog.pinned(ref) for ref in (*plan.stack.refs, *plan.embeddings)}
        pictures: list[Picture] = []
        for k in range(plan.count):
            recipe = recipes.recipe_of(plan, k, base, recipes.Used(cards, nets, adapter), MADE_WITH)
            colour = tuple(hashlib.sha256(recipe.model_dump_json().encode()).digest()[:3])
            image = Image.new("RGB", plan.delivered, colour)
            if plan.transparent:
                image.putalpha(0)
            pictures.append(Picture(recipes.to_png(image, recipe), recipe.model_dump()))
        return Drawn(tuple(pictures))


def train(plan: TrainPlan, family: str = "sd") -> Trained:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "PNG")
    weights = hashlib.sha256(
        f"{plan.name} {plan.seed} {len(plan.examples)} {plan.base if plan.variant else ''}".encode()
    ).digest()
    facts = {"family": family, "alpha": float(plan.rank), "final_loss": 0.1667, "seconds": 1.5, "word": plan.word}
    return Trained(weights, buffer.getvalue(), facts)

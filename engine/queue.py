"""From a plan to kept results: runs it on an executor, stores the pictures, adds the LoRA to the catalog.

Jobs live as long as this process here; the durable queue takes this class's place behind the same `follow`.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.catalog import Catalog, LoraCard
from engine.executor import Executor
from engine.jobs import Drawn, Progress, Trained
from engine.plans import ImagePlan, Plan, TrainPlan
from engine.store import Store


@dataclass(frozen=True, slots=True)
class SavedPicture:
    file: Path
    recipe: dict[str, Any]
    png: bytes


@dataclass(frozen=True, slots=True)
class Saved:
    pictures: tuple[SavedPicture, ...]


class JobQueue:
    def __init__(self, executor: Executor, store: Store, catalog: Catalog) -> None:
        self._executor = executor
        self._store = store
        self._catalog = catalog

    async def follow(self, plan: Plan, out: Path | None = None) -> AsyncGenerator[Progress | Saved | LoraCard]:
        """Progress…, then what was kept. Closing it cancels the work; nothing half-made is kept."""
        if isinstance(plan, ImagePlan):
            self._store.check_out(out)
            for data in (plan.image, plan.mask):
                if data is not None:
                    self._store.save_input(data)
        else:
            self._catalog.check_name(plan.name, plan.replace)
        steps = self._executor.run(plan)
        try:
            async for event in steps:
                yield event if isinstance(event, Progress) else self._keep(plan, event, out)
        finally:
            await steps.aclose()

    def _keep(self, plan: Plan, result: Drawn | Trained, out: Path | None) -> Saved | LoraCard:
        match plan, result:
            case ImagePlan(), Drawn():
                return Saved(tuple(self._save(p.png, p.recipe, out) for p in result.pictures))
            case TrainPlan(), Trained():
                return self._catalog.add(plan, result)
            case _:
                raise TypeError(f"{type(plan).__name__} cannot end in {type(result).__name__}")

    def _save(self, png: bytes, recipe: dict[str, Any], out: Path | None) -> SavedPicture:
        return SavedPicture(self._store.save_picture(png, out, f"{recipe['seed']}"), recipe, png)

"""From a plan to kept results: runs it on an executor, stores the pictures, adds the LoRA with its dataset.

Jobs live as long as whoever follows them here. `engine.durable` runs them through this class too, and keeps them.
"""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.catalog import Catalog, LoraCard
from engine.datasets import Datasets
from engine.executor import Executor
from engine.jobs import Drawn, Progress, Ticket, Trained
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
        self._datasets = Datasets(store)

    async def recall(self, key: str) -> Any | None:  # noqa: ARG002
        """The memo of an earlier try at this key: there is none."""
        return None

    async def cancel(self, key: str, owner: str) -> bool:  # noqa: ARG002
        """Nothing here outlives its follower."""
        return False

    async def cancel_latest(self, thread: str, owner: str) -> bool:  # noqa: ARG002
        """The same."""
        return False

    async def keep(self, png: bytes, stem: str) -> SavedPicture:
        """A picture that no plan ends in."""
        return SavedPicture(self._store.save_picture(png, None, stem), {}, png)

    async def keep_file(self, data: bytes, name: str) -> Path:
        """A file that goes out with an answer; where it lies."""
        return self._store.save_export(data, name)

    async def follow(
        self, plan: Plan, out: Path | None = None, ticket: Ticket | None = None
    ) -> AsyncGenerator[Progress | Saved | LoraCard]:
        """Progress…, then what was kept. Closing it cancels the work; nothing half-made is kept."""
        job = ticket.key if ticket else ""
        if isinstance(plan, ImagePlan):
            self._store.check_out(out)
            for data in plan.inputs:
                self._store.save_input(data)
        elif (card := self._catalog.made_by(job, plan.name)) is not None:
            yield card  # an earlier try got as far as this, and no further
            return
        else:
            self._catalog.check_plan(plan)
        steps = self._executor.run(plan)
        pace = Pace()
        try:
            async for event in steps:
                yield pace.said(event) if isinstance(event, Progress) else self._keep(plan, event, out, job)
        finally:
            await steps.aclose()

    def _keep(self, plan: Plan, result: Drawn | Trained, out: Path | None, job: str) -> Saved | LoraCard:
        match plan, result:
            case ImagePlan(), Drawn():
                return Saved(tuple(self._save(p.png, p.recipe, out) for p in result.pictures))
            case TrainPlan(), Trained():
                facts = {"job": job} | self._datasets.keep(plan)
                return self._catalog.add(plan, replace(result, facts=result.facts | facts))
            case _:
                raise TypeError(f"{type(plan).__name__} cannot end in {type(result).__name__}")

    def _save(self, png: bytes, recipe: dict[str, Any], out: Path | None) -> SavedPicture:
        return SavedPicture(self._store.save_picture(png, out, f"{recipe['seed']}"), recipe, png)


class Pace:
    """How long the rest takes, from how long the steps of this stage took."""

    def __init__(self) -> None:
        self._stage, self._began, self._first = "", 0.0, 0

    def said(self, event: Progress) -> Progress:
        done = (event.part - 1) * event.steps + event.step
        if event.stage != self._stage:
            self._stage, self._began, self._first = event.stage, time.monotonic(), done
            return event
        each = (time.monotonic() - self._began) / max(done - self._first, 1)
        return replace(event, left=each * (event.parts * event.steps - done))

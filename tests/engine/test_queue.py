"""The queue keeps what a plan ends in, whole, and nothing of a plan that does not end."""

from pathlib import Path

import pytest

from engine.catalog import Catalog, LoraCard
from engine.errors import NameTaken
from engine.local import LocalExecutor
from engine.queue import JobQueue, Saved
from engine.store import Store
from tests.engine.studio import image_plan, png, train_plan


class Studio:
    def __init__(self, tiny_home: Path, folder: Path) -> None:
        self.catalog = Catalog(folder / "none", folder / "loras")
        self.store = Store(folder)
        self.queue = JobQueue(LocalExecutor(self.catalog, tiny_home), self.store, self.catalog)


@pytest.fixture
def studio(tiny_home: Path, tmp_path: Path) -> Studio:
    return Studio(tiny_home, tmp_path)


async def test_pictures_are_kept_with_the_files_they_were_drawn_over(studio: Studio, tmp_path: Path) -> None:
    source = png()
    plan = image_plan("tiny-sd", image=source, count=2)
    *_, saved = [event async for event in studio.queue.follow(plan, tmp_path / "out")]
    assert isinstance(saved, Saved)
    assert [p.file.parent for p in saved.pictures] == [tmp_path / "out"] * 2
    assert [p.file.read_bytes() for p in saved.pictures] == [p.png for p in saved.pictures]
    assert studio.store.input(saved.pictures[0].recipe["image"]) == source


async def test_a_trained_lora_is_in_the_catalog_when_the_job_ends_and_not_before(studio: Studio) -> None:
    seen: list[int] = []
    async for event in studio.queue.follow(train_plan("tiny-sd", steps=3)):
        seen.append(len(studio.catalog.list()))
        last = event
    assert seen == [0] * (len(seen) - 1) + [1]
    assert isinstance(last, LoraCard)
    assert (last.trigger, last.name) == ("zqx", "zed")


async def test_a_taken_name_is_refused_before_any_step(studio: Studio) -> None:
    [event async for event in studio.queue.follow(train_plan("tiny-sd", steps=2))]
    with pytest.raises(NameTaken):
        await anext(studio.queue.follow(train_plan("tiny-sd", steps=2)))
    *_, card = [event async for event in studio.queue.follow(train_plan("tiny-sd", steps=2, replace=True, seed=9))]
    assert isinstance(card, LoraCard)
    assert card.seed == 9


async def test_an_abandoned_training_leaves_nothing_behind(studio: Studio, tmp_path: Path) -> None:
    steps = studio.queue.follow(train_plan("tiny-sd", steps=50))
    for _ in range(4):
        await anext(steps)
    await steps.aclose()
    assert studio.catalog.list() == ()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]

"""What every executor promises, whatever runs behind it."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from engine.catalog import Catalog
from engine.errors import Invalid
from engine.executor import Executor
from engine.jobs import Drawn, Progress, Trained
from engine.local import LocalExecutor
from engine.worker import WorkerExecutor
from tests.engine.studio import image_plan, pixels, train_plan


@pytest.fixture(params=["local", "worker"])
async def executor(request: pytest.FixtureRequest, tiny_home: Path, tmp_path: Path) -> AsyncGenerator[Executor]:
    if request.param == "local":
        executor = LocalExecutor(Catalog(tmp_path / "none", tmp_path / "loras"), tiny_home)
    else:
        executor = WorkerExecutor(tmp_path / "none", tiny_home)
    yield executor
    await executor.close()


async def test_a_plan_gives_progress_and_then_one_result(executor: Executor) -> None:
    *steps, last = [event async for event in executor.run(image_plan("tiny-sd"))]
    assert steps
    assert all(isinstance(step, Progress) for step in steps)
    assert isinstance(last, Drawn)


async def test_training_ends_in_a_lora_file(executor: Executor) -> None:
    *_, last = [event async for event in executor.run(train_plan("tiny-sd", steps=2))]
    assert isinstance(last, Trained)


async def test_abandoning_a_run_leaves_the_executor_ready_for_the_next_plan(executor: Executor) -> None:
    *_, whole = [event async for event in executor.run(image_plan("tiny-sd"))]
    run = executor.run(image_plan("tiny-sd", steps=50))
    await anext(run)
    await run.aclose()
    *_, again = [event async for event in executor.run(image_plan("tiny-sd"))]
    assert isinstance(whole, Drawn)
    assert isinstance(again, Drawn)
    assert pixels(whole.pictures[0].png) == pixels(again.pictures[0].png)


async def test_an_error_reaches_the_caller_and_the_next_plan_runs(executor: Executor) -> None:
    with pytest.raises(Invalid):
        [event async for event in executor.run(image_plan("tiny-sd", width=33))]
    *_, last = [event async for event in executor.run(image_plan("tiny-sd"))]
    assert isinstance(last, Drawn)

import asyncio
import dataclasses
import gc
import inspect
import io
import json
import os
import signal
import sys
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from engine import errors
from engine.child import POISONED, Child, is_poison
from engine.errors import AtelierError, Fault, OutOfMemory, WorkerDied, WorkerHung
from engine.jobs import Drawn, Event, Progress, Trained
from engine.plans import Plan
from engine.wire import FRAME, error_head, error_of, message, receive
from engine.worker import Patience, WorkerExecutor
from tests.fakes.plans import picture, training
from tests.fakes.shelf import make_base, make_catalog

ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, AtelierError)]
QUICK = Patience(step=0.6, first=8.0, stop=0.8, starts=20)
Opening = Callable[..., WorkerExecutor]


@pytest.fixture
async def opening(tmp_path: Path) -> AsyncGenerator[Opening]:
    make_base(tmp_path)
    make_catalog(tmp_path)
    opened: list[WorkerExecutor] = []

    def open_worker(patience: Patience = QUICK, pace: float = 0.01) -> WorkerExecutor:
        shipped = tmp_path / "shipped"
        command = (sys.executable, "-m", "tests.fakes.child", str(shipped), str(tmp_path), str(pace))
        opened.append(WorkerExecutor(shipped, tmp_path, patience, command))
        return opened[-1]

    yield open_worker
    for executor in opened:
        await executor.close()


async def ran(executor: WorkerExecutor, plan: Plan) -> list[Event]:
    return [event async for event in executor.run(plan)]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and ") Z" not in Path(f"/proc/{pid}/stat").read_text()


async def until(is_so: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_a_picture_and_a_training_cross_the_border_whole(opening: Opening) -> None:
    executor = opening()
    *steps, last = await ran(executor, picture())
    assert [event.step for event in steps if isinstance(event, Progress)] == [1, 2, 3, 4]
    assert isinstance(last, Drawn)
    assert last.pictures[0].png.startswith(b"\x89PNG")
    assert last.pictures[0].recipe["prompt"] == "a fox"
    *_, last = await ran(executor, training())
    assert isinstance(last, Trained)
    assert last.facts["word"] == "cat"


async def test_killed_in_the_middle_it_says_so_and_the_next_plan_has_a_new_process(opening: Opening) -> None:
    executor = opening()
    drawing = asyncio.create_task(ran(executor, training(steps=2_000)))
    await until(lambda: executor._gaps)  # pyright: ignore[reportPrivateUsage]
    first = executor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with pytest.raises(WorkerDied) as caught:
        await drawing
    assert type(caught.value) is WorkerDied
    assert executor.state == "gone"
    assert isinstance((await ran(executor, picture()))[-1], Drawn)
    assert executor.pid not in (None, first)


async def test_a_dead_worker_takes_only_those_with_it_that_were_in_it(opening: Opening) -> None:
    executor = opening()
    two = await asyncio.gather(
        ran(executor, picture("kill@3")), ran(executor, training(steps=400)), return_exceptions=True
    )
    assert [type(one) for one in two] == [WorkerDied, WorkerDied]
    for _ in range(5):  # a plan that comes the moment the other process has gone
        with pytest.raises(WorkerDied):
            await ran(executor, picture("kill@2"))
        assert isinstance((await ran(executor, picture()))[-1], Drawn)


async def test_the_end_of_a_process_is_not_told_to_a_plan_in_the_next_one(opening: Opening) -> None:
    executor = opening()
    await ran(executor, picture())
    process = executor._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    executor._kill(process)  # pyright: ignore[reportPrivateUsage]
    assert isinstance((await ran(executor, picture(steps=60)))[-1], Drawn)


async def test_one_that_does_not_move_is_killed(opening: Opening) -> None:
    executor = opening()
    began = time.monotonic()
    with pytest.raises(WorkerHung):
        await ran(executor, picture("freeze@3"))
    assert time.monotonic() - began < QUICK.first
    assert executor.pid is None
    assert isinstance((await ran(executor, picture()))[-1], Drawn)


async def test_one_that_does_not_begin_has_the_longer_patience_and_is_killed_too(opening: Opening) -> None:
    executor = opening(Patience(step=0.1, first=2.0, stop=0.5))
    began = time.monotonic()
    with pytest.raises(WorkerHung):
        await ran(executor, picture("freeze@1"))
    assert time.monotonic() - began >= 2.0


async def test_one_that_is_slow_but_moves_is_left_alone(opening: Opening) -> None:
    executor = opening(Patience(step=0.4, first=8.0), pace=0.25)
    pid = None
    for plan in (picture(steps=8), training(steps=8)):
        assert len(await ran(executor, plan)) == 9
        assert pid in (None, executor.pid)
        pid = executor.pid


async def test_each_fault_is_told_as_what_it_is(opening: Opening) -> None:
    executor = opening()
    with pytest.raises(Fault) as caught:
        await ran(executor, picture("fault@2"))
    assert (caught.value.kind, caught.value.said) == ("ValueError", "no such luck")
    with pytest.raises(OutOfMemory) as full:
        await ran(executor, training(word="memory@2"))
    assert full.value.what == "draw that"
    assert executor.state == "idle"


def made(kind: type[AtelierError]) -> AtelierError:
    """With fields of the types that it says."""
    known = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    values: dict[object, object] = {str: "Zoë “x”", int: 7}
    return kind(**{one.name: values.get(one.type, ("a", "b")) for one in known})  # pyright: ignore


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
async def test_every_error_crosses_the_wire_as_itself(kind: type[AtelierError]) -> None:
    error = made(kind)
    source = asyncio.StreamReader()
    source.feed_data(message({"of": 1} | error_head(error)))
    head = await receive(source, Event)
    assert head is not None
    again = error_of(head)
    assert type(again) is kind
    assert (vars(again), str(again), again.hint) == (vars(error), str(error), error.hint)


async def test_an_error_that_nobody_knows_is_a_fault() -> None:
    assert isinstance(error_of({"error": "Path", "fields": {}}), Fault)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 20, -1])
async def test_a_stream_that_ends_within_a_message_has_ended(cut: int) -> None:
    data = message({"run": 1}, Plan, training())
    assert len(data) > FRAME.size
    source = asyncio.StreamReader()
    source.feed_data(data[:cut])
    source.feed_eof()
    assert await receive(source, Plan) is None


async def test_a_poisoned_device_ends_the_process_and_the_next_plan_runs_in_another(opening: Opening) -> None:
    executor = opening()
    seen = asyncio.ensure_future(ran(executor, training(steps=2_000)))
    await until(lambda: executor.pid)
    process = executor._process  # pyright: ignore[reportPrivateUsage]
    assert process is not None
    with pytest.raises(WorkerDied):
        await ran(executor, picture("poison@2"))
    with pytest.raises(WorkerDied):
        await seen
    assert await process.wait() in (POISONED, 255)  # 255: asyncio, where `kill` has reaped it first
    assert isinstance((await ran(executor, picture()))[-1], Drawn)


def test_what_poisons_a_device() -> None:
    accelerator = type("AcceleratorError", (RuntimeError,), {})
    assert is_poison(accelerator("x"))
    assert is_poison(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_poison(RuntimeError("shape mismatch"))


async def test_a_picture_that_finds_no_memory_is_drawn_once_more(opening: Opening) -> None:
    executor = opening()
    *steps, last = await ran(executor, picture("memory1@3"))
    assert [event.step for event in steps if isinstance(event, Progress)] == [1, 2, 1, 2, 3, 4]
    assert isinstance(last, Drawn)
    with pytest.raises(OutOfMemory):
        await ran(executor, picture("memory@3"))


async def test_before_the_second_try_nothing_holds_on_to_what_the_first_one_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Tensor: ...

    held: list[weakref.ref[Tensor]] = []

    class Executor:
        async def run(self, plan: Plan) -> AsyncGenerator[Event]:
            assert [one() for one in held] in ([], [None])
            tensor = Tensor()
            held.append(weakref.ref(tensor))
            yield Progress("drawing", 1, 1)
            raise OutOfMemory("draw that") from MemoryError()

    monkeypatch.setattr("engine.child._collect", lambda: None)
    gc.disable()
    try:
        child = Child(Executor(), io.BytesIO())  # pyright: ignore
        await child._carry_out(1, picture())  # pyright: ignore[reportPrivateUsage]
    finally:
        gc.enable()
    assert len(held) == 2


async def test_the_second_try_tells_its_fault_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Executor:
        tries = 0

        async def run(self, plan: Plan) -> AsyncGenerator[Event]:
            self.tries += 1
            yield Progress("drawing", 1, 1)
            raise OutOfMemory("draw that") if self.tries == 1 else KeyError("gone")

    monkeypatch.setattr("engine.child._collect", lambda: None)
    out = io.BytesIO()
    await Child(Executor(), out)._carry_out(1, picture())  # pyright: ignore
    source = asyncio.StreamReader()
    source.feed_data(out.getvalue())
    heads = [await receive(source, Event) for _ in range(3)]
    assert heads[2] is not None
    assert heads[2]["error"] == "Fault"


async def test_left_early_the_work_stops_and_the_process_stays(opening: Opening) -> None:
    executor = opening()
    async with aclosing(executor.run(picture(steps=50))) as events:
        async for _ in events:
            break
    pid = executor.pid
    assert executor.state == "idle"
    assert isinstance((await ran(executor, picture()))[-1], Drawn)
    assert executor.pid == pid


async def test_one_that_does_not_stop_when_told_to_is_ended(opening: Opening) -> None:
    executor = opening(Patience(step=9.0, first=9.0, stop=0.3))
    async with aclosing(executor.run(picture("stubborn@50", steps=50))) as events:
        async for _ in events:
            pid = executor.pid
            break
    assert pid is not None
    await until(lambda: not is_alive(pid))
    assert isinstance((await ran(executor, picture()))[-1], Drawn)


async def test_a_service_that_stood_still_itself_does_not_blame_the_worker(opening: Opening) -> None:
    executor = opening(Patience(step=1.0, first=8.0, stop=0.8), 0.05)
    events = executor.run(picture(steps=50))
    await anext(events)
    pid = executor.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(pid, signal.SIGCONT)
    assert isinstance([event async for event in events][-1], Drawn)
    assert executor.pid == pid


async def test_when_the_service_ends_no_plan_is_waited_for(opening: Opening) -> None:
    executor = opening(Patience(step=9.0, first=9.0, stop=9.0))
    events = executor.run(picture("stubborn@1"))
    await anext(events)
    executor.hurry()
    began = time.monotonic()
    await events.aclose()
    assert time.monotonic() - began < 2
    await ran(executor, picture())


async def test_a_worker_that_no_longer_reads_is_told_to_stop_and_not_waited_for(opening: Opening) -> None:
    executor = opening(Patience(step=9.0, first=9.0, stop=0.3))
    await ran(executor, picture())
    assert executor.pid
    os.kill(executor.pid, signal.SIGSTOP)
    large = picture(image=b"x" * 4_000_000)  # more than the pipe takes
    drawing = asyncio.create_task(ran(executor, large))
    await asyncio.sleep(0.1)
    drawing.cancel()
    began = time.monotonic()
    await asyncio.wait([drawing])
    assert time.monotonic() - began < 4
    assert await ran(executor, picture())


async def test_a_stop_that_is_broken_off_leaves_no_run_behind(opening: Opening) -> None:
    """A run that nobody ends would look like one that does not move, and cost each new process its life."""
    executor = opening(Patience(step=9.0, first=9.0, stop=9.0))
    task = asyncio.create_task(ran(executor, picture("stubborn@50", steps=50)))
    await until(lambda: executor._gaps)  # pyright: ignore[reportPrivateUsage]
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not executor._runs  # pyright: ignore[reportPrivateUsage]


async def test_one_that_dies_again_and_again_is_not_started_as_fast_as_it_can_die(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = opening(dataclasses.replace(QUICK, starts=3))
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds > 2:
            slept.append(seconds)
        await real(min(seconds, 0.1))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    for _ in range(4):
        with pytest.raises(WorkerDied):
            await ran(executor, picture("kill@1"))
    assert len(slept) == 1
    assert 40 < slept[0] <= 60


async def test_a_picture_is_drawn_before_the_next_step_but_one_of_a_training(opening: Opening) -> None:
    executor = opening(pace=0.02)
    order: list[str] = []

    async def follow(plan: Plan, name: str) -> None:
        async for event in executor.run(plan):
            order.append(name if isinstance(event, Progress) else f"{name} done")

    learning = asyncio.create_task(follow(training(steps=60), "t"))
    await until(lambda: len(order) >= 3)
    for number in range(3):
        asked = len(order)
        await follow(picture(seed=number), "p")
        assert order[asked:].count("t") <= 3  # the one under way, one on the way here, one after the picture
        between = order[order.index("p", asked) : order.index("p done", asked)]
        assert set(between) == {"p"}
        await until(lambda asked=asked: order[asked:].count("t") > 1)
    learning.cancel()
    with suppress(asyncio.CancelledError):
        await learning


async def test_the_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    make_base(tmp_path)
    make_catalog(tmp_path)
    code = f"""
import asyncio, sys
from pathlib import Path
from engine.worker import WorkerExecutor
from tests.fakes.plans import picture

async def main():
    home = Path(sys.argv[1])
    command = (sys.executable, "-m", "tests.fakes.child", str(home / "shipped"), str(home), "0.01")
    executor = WorkerExecutor(home, home, command=command)
    async for _ in executor.run(picture(steps={60})):
        print(executor.pid, flush=True)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = json.loads(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(pid))

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from engine import durable
from engine.catalog import Catalog
from engine.database import Database, artifacts, jobs
from engine.durable import DurableQueue
from engine.errors import (
    AtelierError,
    Busy,
    Cancelled,
    Fault,
    Invalid,
    NameTaken,
    NoPicture,
    OutOfMemory,
    WorkerDied,
    WorkerHung,
)
from engine.jobs import Event, Progress, Queued, Ticket
from engine.plans import ImagePlan, Plan
from engine.queue import JobQueue, Saved
from engine.store import Store
from tests.fakes.executor import FakeExecutor
from tests.fakes.house import png
from tests.fakes.plans import picture, training
from tests.fakes.shelf import make_base, make_catalog


class Engine(FakeExecutor):
    """Waits at the first step until `gate` is open. `dies` has, by prompt or name, the errors of the next tries.

    `hold_at` closes the gate before a plan's try of that number, from 0. The first step of `bad` ends all that runs;
    twice it waits for another one.
    """

    slots = 2

    def __init__(self, catalog: Catalog, home: Path) -> None:
        super().__init__(catalog, home)
        self.gate = asyncio.Event()
        self.gate.set()
        self.dies: dict[str, list[AtelierError]] = {}
        self.running: list[str] = []
        self.hold_at = ("", 0)
        self.bad, self.falls, self.left = "", 0, 0

    async def run(self, plan: Plan) -> AsyncGenerator[Event]:
        name = name_of(plan)
        if (name, [name_of(one) for one in self.plans].count(name)) == self.hold_at:
            self.gate.clear()
        self.running.append(name)
        falls = self.falls
        try:
            async with aclosing(super().run(plan)) as events:
                async for event in events:
                    await self.gate.wait()
                    while self.bad and self.falls == falls < 2 and not (name == self.bad and len(self.running) == 2):
                        await asyncio.sleep(0.005)
                    left, takes_another = self.left, name == self.bad and len(self.running) == 2
                    self.falls += name == self.bad
                    while takes_another and self.left == left:  # the other one falls too
                        await asyncio.sleep(0.005)
                    if self.falls != falls:
                        raise WorkerDied
                    if self.dies.get(name):
                        raise self.dies[name].pop(0)
                    yield event
        finally:
            self.running.remove(name)
            self.left += 1


def name_of(plan: Plan) -> str:
    return plan.prompt if isinstance(plan, ImagePlan) else plan.name


@dataclass
class Bench:
    """A queue on a home. `restart` ends it as a kill would, and opens the next one."""

    home: Path
    engine: Engine = field(init=False)
    queue: DurableQueue = field(init=False)
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        make_base(self.home)
        self.catalog = make_catalog(self.home)
        self.store = Store(self.home)
        self.dead: list[DurableQueue] = []

    async def open(self, dies: dict[str, list[AtelierError]] | None = None) -> "Bench":
        self.engine = Engine(self.catalog, self.home)
        self.engine.dies = dies or {}
        self.database = Database(self.home)
        await self.database.open()
        direct = JobQueue(self.engine, self.store, self.catalog)
        self.queue = DurableQueue(direct, self.database, self.store, self.catalog, dict[str, Any])
        await self.queue.start()
        return self

    async def restart(self, dies: dict[str, list[AtelierError]] | None = None) -> None:
        self.engine.gate.clear()
        await self.close()
        await self.open(dies)

    async def close(self) -> None:
        await self.queue.close()
        await self.database.close()

    def ticket(self, key: str, owner: str = "ann", thread: str = "t") -> Ticket:
        return Ticket(key, owner, thread, {"key": key, "png": png(1, 8)})

    def ask(self, key: str, plan: Plan | None = None, owner: str = "ann", thread: str = "t") -> asyncio.Task[list[Any]]:
        """The job's events; the error it ended with is the last of them."""

        async def follow() -> list[Any]:
            seen: list[Any] = []
            try:
                async for said in self.queue.follow(plan or picture(key), ticket=self.ticket(key, owner, thread)):
                    seen.append(said)
            except AtelierError as error:
                seen.append(error)
            return seen

        return asyncio.create_task(follow())

    async def states(self) -> dict[str, str]:
        return {row.key: row.state for row in await self.database.run(lambda c: c.execute(sa.select(jobs)).all())}

    def ran(self) -> list[str]:
        return [name_of(plan) for plan in self.engine.plans]

    def drawn(self) -> list[Path]:
        return sorted((self.home / "pictures").rglob("*.png"))


async def until(is_so: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench]:
    bench = await Bench(tmp_path).open()
    yield bench
    bench.engine.gate.set()
    await bench.close()


async def test_the_same_key_is_the_same_job_however_many_ask_at_once(bench: Bench) -> None:
    ends = await asyncio.gather(*(bench.ask("a") for _ in range(8)))
    assert len({id(end[-1]) for end in ends}) == 1
    assert isinstance(ends[0][-1], Saved)
    assert len(bench.engine.plans) == len(bench.drawn()) == 1


async def test_who_stops_following_leaves_the_job_running(bench: Bench) -> None:
    bench.engine.gate.clear()
    asked = bench.ask("a")
    await until(lambda: bench.engine.running)
    asked.cancel()
    await asyncio.sleep(0.01)
    bench.engine.gate.set()
    assert isinstance((await bench.ask("a"))[-1], Saved)
    assert bench.ran() == ["a"]


async def test_a_restart_takes_up_what_ran_and_what_waited(bench: Bench) -> None:
    bench.engine.gate.clear()
    plans = {"a": picture("a", seed=11), "b": picture("b", image=png(2, 64), seed=12), "c": training("c")}
    for key, plan in plans.items():
        bench.ask(key, plan)
        await until(lambda key=key: key in bench.queue._jobs)  # pyright: ignore[reportPrivateUsage]
    await until(lambda: len(bench.engine.running) == 2)
    assert await bench.states() == {"a": "queued", "b": "queued", "c": "queued"}
    await bench.restart()
    for key, plan in plans.items():
        ended = await bench.ask(key, picture("another plan, which nobody looks at"))
        assert not isinstance(ended[-1], AtelierError)
        assert plan in bench.engine.plans
        assert await bench.queue.recall(key) == bench.ticket(key).memo
    assert len(bench.engine.plans) == 3
    assert set((await bench.states()).values()) == {"done"}


async def test_what_nobody_follows_after_a_restart_is_done_too(bench: Bench) -> None:
    bench.engine.gate.clear()
    bench.ask("a")
    await until(lambda: bench.engine.running)
    await bench.restart()
    await until(bench.drawn)
    assert isinstance((await bench.ask("a"))[-1], Saved)
    assert bench.ran() == ["a"]


@pytest.mark.parametrize("again", [False, True], ids=["at once", "after a restart"])
async def test_a_finished_jobs_outcome_is_given_again(bench: Bench, again: bool) -> None:
    drawn, learnt = (await bench.ask("a"))[-1], (await bench.ask("z", training()))[-1]
    if again:
        await bench.restart()
    assert await bench.ask("a") == [drawn]
    assert await bench.ask("z", training()) == [learnt]
    assert len(bench.engine.plans) == (0 if again else 2)
    assert len(bench.drawn()) == 1


async def test_a_picture_whose_file_is_gone_is_a_fault_and_not_drawn_anew(bench: Bench) -> None:
    await bench.ask("a")
    bench.drawn()[0].unlink()
    assert isinstance((await bench.ask("a"))[-1], Fault)
    assert bench.ran() == ["a"]


@pytest.mark.parametrize("again", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("error", [NoPicture(("inky", "coral")), OutOfMemory("draw that"), Fault("KeyError", "x")],
                         ids=lambda error: type(error).__name__)  # fmt: skip
async def test_a_failed_job_raises_its_own_error_again(bench: Bench, error: AtelierError, again: bool) -> None:
    bench.engine.dies["a"] = [error]
    assert (await bench.ask("a"))[-1] is error
    if again:
        await bench.restart()
    (said,) = await bench.ask("a")
    assert (type(said), vars(said)) == (type(error), vars(error))
    assert bench.ran() == ([] if again else ["a"])


async def test_an_error_that_is_not_ours_is_told_as_a_fault(bench: Bench) -> None:
    bench.engine.breaks_with = KeyError("gone")
    error = (await bench.ask("a"))[-1]
    assert isinstance(error, Fault)
    assert (await bench.states()) == {"a": "failed"}


@pytest.mark.parametrize(("kind", "most"), [(WorkerDied, 3), (WorkerHung, 2)])
async def test_a_job_that_ends_its_worker_is_given_up_and_its_neighbours_are_not(
    bench: Bench, kind: type[WorkerDied], most: int
) -> None:
    bench.engine.dies["bad"] = [kind() for _ in range(9)]
    asked = [bench.ask(key) for key in ("a", "bad", "b", "c")]
    ends = [(await one)[-1] for one in asked]
    assert [type(end) for end in ends] == [Saved, kind, Saved, Saved]
    assert bench.ran().count("bad") == most
    assert sorted(bench.ran()) == sorted(["a", "b", "c", *["bad"] * most])
    assert bench.queue.worker_deaths == most


async def test_deaths_are_counted_across_a_restart(bench: Bench) -> None:
    bench.engine.dies["bad"] = [WorkerDied(), WorkerDied()]
    bench.engine.hold_at = ("bad", 2)
    asked = bench.ask("bad")
    await until(lambda: bench.engine.running and not bench.engine.gate.is_set())
    asked.cancel()
    await bench.restart(dies={"bad": [WorkerDied()]})
    assert isinstance((await bench.ask("bad"))[-1], WorkerDied)
    assert len(bench.ran()) == 1


async def test_a_training_does_not_fall_with_a_picture_that_ends_their_worker_each_time(bench: Bench) -> None:
    """They share a process: whose fault it was is known when each runs alone."""
    bench.engine.bad = "bad"
    learning, bad = bench.ask("z", training(), owner="bob"), bench.ask("bad")
    assert isinstance((await bad)[-1], WorkerDied)
    assert not isinstance((await learning)[-1], AtelierError)
    assert bench.ran().count("bad") == 3
    assert bench.ran().count("zed") == 3  # two with it, one alone


async def test_the_next_one_is_of_the_person_who_has_had_least(bench: Bench) -> None:
    bench.engine.gate.clear()
    asked = [bench.ask(f"ann {n:02}", owner="ann") for n in range(20)]
    await until(lambda: len(bench.queue.waiting("picture")) == 19)
    asked += [bench.ask(name, owner=name) for name in ("bob", "cleo", "dan")]
    await until(lambda: len(bench.queue.waiting("picture")) == 22)
    order = [job.ticket.key for job in bench.queue.waiting("picture")]
    assert set(order[:4]) >= {"bob", "cleo", "dan"}  # one of Ann's may stand level with them
    bench.engine.gate.set()
    await asyncio.gather(*asked)
    assert set(bench.ran()[1:5]) >= {"bob", "cleo", "dan"}
    assert [key for key in bench.ran() if key.startswith("ann")] == [f"ann {n:02}" for n in range(20)]


async def test_who_comes_late_has_no_credit_for_the_time_before(bench: Bench) -> None:
    for n in range(3):
        await bench.ask(f"ann {n}", owner="ann")
    bench.engine.gate.clear()
    asked = [bench.ask(f"bob {n}", owner="bob") for n in range(3)]
    await until(lambda: len(bench.queue.waiting("picture")) == 2)
    asked.append(bench.ask("ann 9", owner="ann"))
    await until(lambda: len(bench.queue.waiting("picture")) == 3)
    assert bench.queue.waiting("picture")[0].ticket.key == "ann 9"
    bench.engine.gate.set()
    await asyncio.gather(*asked)


async def test_each_one_is_told_its_place_and_how_long_it_takes_when_that_is_known(bench: Bench) -> None:
    bench.engine.gate.clear()
    asked = [bench.ask(key, owner=key) for key in "abc"]
    await until(lambda: len(bench.queue.waiting("picture")) == 2)
    assert [job.said for job in bench.queue.waiting("picture")] == [Queued(1), Queued(2)]
    bench.engine.gate.set()
    seen = await asyncio.gather(*asked)
    places = [[said.place for said in one if isinstance(said, Queued)] for one in seen]
    assert places[1][-1] == 1
    assert (places[2][0], places[2][-1]) == (2, 1)
    assert isinstance(seen[0][-2], Progress)
    bench.queue._pace["picture"] = 2.0  # pyright: ignore[reportPrivateUsage]
    bench.engine.gate.clear()
    asked = [bench.ask(f"{n}", picture(f"{n}", width=256, height=256), owner=f"{n}") for n in range(3)]
    await until(lambda: len(bench.queue.waiting("picture")) == 2)
    # a picture of 4 steps of 65,536 pixels takes 8 s
    assert [job.said for job in bench.queue.waiting("picture")] == [Queued(1, 8.0), Queued(2, 16.0)]
    bench.engine.gate.set()
    await asyncio.gather(*asked)


async def test_pictures_do_not_wait_for_trainings(bench: Bench) -> None:
    bench.engine.gate.clear()
    learning = bench.ask("z", training())
    await until(lambda: "zed" in bench.engine.running)
    drawing = bench.ask("a")
    await until(lambda: set(bench.engine.running) == {"zed", "a"})
    bench.engine.gate.set()
    await asyncio.gather(learning, drawing)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "queued"])
async def test_a_job_is_stopped_by_its_owner_only(bench: Bench, is_running: bool) -> None:
    bench.engine.gate.clear()
    first = bench.ask("first", owner="zoe") if not is_running else None
    await until(lambda: is_running or bench.engine.running)
    asked = bench.ask("a", owner="ann")
    await until(lambda: bench.engine.running == ["a"] if is_running else bench.queue.waiting("picture"))
    assert not await bench.queue.cancel("a", "bob")
    assert not await bench.queue.cancel("b", "ann")
    assert await bench.queue.cancel("a", "ann")
    assert isinstance((await asked)[-1], Cancelled)
    assert not await bench.queue.cancel("a", "ann")
    assert (await bench.states())["a"] == "cancelled"
    bench.engine.gate.set()
    if first:
        await first
    await bench.restart()
    assert isinstance((await bench.ask("a"))[-1], Cancelled)
    assert bench.engine.plans == []
    assert len(bench.drawn()) == (0 if is_running else 1)


async def test_who_stops_a_message_stops_the_part_of_it_that_is_drawn(bench: Bench) -> None:
    bench.engine.gate.clear()
    asked = bench.ask("a#1", owner="ann")
    await until(lambda: bench.engine.running == ["a#1"])
    assert not await bench.queue.cancel("a", "bob")
    assert await bench.queue.cancel("a", "ann")
    assert isinstance((await asked)[-1], Cancelled)


async def test_stop_means_the_latest_of_this_person_in_this_conversation(bench: Bench) -> None:
    bench.engine.gate.clear()
    asked = [
        bench.ask("a", thread="t"), bench.ask("b", thread="t"), bench.ask("c", thread="u"), bench.ask("d", owner="bob")
    ]  # fmt: skip
    await until(lambda: len(bench.queue.waiting()) == 3)
    assert not await bench.queue.cancel_latest("v", "ann")
    assert await bench.queue.cancel_latest("t", "ann")
    bench.engine.gate.set()
    assert [type((await one)[-1]) for one in asked] == [Saved, Cancelled, Saved, Saved]


@pytest.mark.parametrize("ticks", range(8))
async def test_stopped_at_any_moment_it_ends_with_a_word(bench: Bench, ticks: int) -> None:
    """Also before the job's first step, and more than once."""
    asked = bench.ask("a")
    while "a" not in bench.queue._jobs:  # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(0)
    for _ in range(ticks):
        await asyncio.sleep(0)
    stopped = [await bench.queue.cancel("a", "ann") for _ in range(3)]
    async with asyncio.timeout(5):
        ended = (await asked)[-1]
    assert isinstance(ended, Cancelled if stopped[0] else Saved)
    assert await bench.states() == {"a": "cancelled" if stopped[0] else "done"}
    assert isinstance((await bench.ask("b"))[-1], Saved)


async def test_stopped_before_its_first_step_it_ends_with_a_word(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = bench.queue._tell_places  # pyright: ignore[reportPrivateUsage]

    def stop(lane: Any) -> None:
        tell(lane)
        job = bench.queue._jobs.get("a")  # pyright: ignore[reportPrivateUsage]
        if job and job.running and not job.is_cancelled:
            job.is_cancelled = True
            job.running.cancel()

    monkeypatch.setattr(bench.queue, "_tell_places", stop)
    async with asyncio.timeout(5):
        assert isinstance((await bench.ask("a"))[-1], Cancelled)
    assert bench.engine.plans == []


async def test_what_is_done_but_not_yet_written_is_not_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the person would be told that nothing was kept, with the LoRA on the shelf."""
    asked: list[bool] = []
    run = bench.database.run

    async def slowly(work: Any) -> Any:
        if any(job.is_ending for job in bench.queue._jobs.values()):  # pyright: ignore[reportPrivateUsage]
            asked.append(await bench.queue.cancel("z", "ann"))
        return await run(work)

    monkeypatch.setattr(bench.database, "run", slowly)
    assert (await bench.ask("z", training()))[-1].name == "zed"
    assert asked == [False]


async def test_no_more_than_so_many_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "MOST", 2)
    bench.engine.gate.clear()
    asked = [bench.ask(key) for key in "ab"]
    await until(lambda: len(bench.queue.waiting()) == 1)
    refused = (await bench.ask("c"))[-1]
    assert isinstance(refused, Busy)
    assert refused.waiting == 2
    assert set(await bench.states()) == {"a", "b"}
    bench.engine.gate.set()
    await asyncio.gather(*asked)
    assert isinstance((await bench.ask("c"))[-1], Saved)


async def test_a_name_that_is_taken_is_refused_before_it_waits(bench: Bench) -> None:
    await bench.ask("z", training())
    assert isinstance((await bench.ask("y", training()))[-1], NameTaken)
    assert set(await bench.states()) == {"z"}


async def test_a_training_that_was_kept_but_not_recorded_is_not_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench.database.run

    async def never(work: Any) -> Any:
        if any(job.is_ending for job in bench.queue._jobs.values()):  # pyright: ignore[reportPrivateUsage]
            await asyncio.Event().wait()  # killed here
        return await run(work)

    monkeypatch.setattr(bench.database, "run", never)
    asked = bench.ask("z", training())
    await until(lambda: (bench.home / "loras" / "zed").exists())
    asked.cancel()
    await bench.restart()
    card = (await bench.ask("z", training()))[-1]
    assert (card.name, card.job) == ("zed", "z")
    assert bench.engine.plans == []
    assert await bench.states() == {"z": "done"}


@pytest.mark.parametrize("replace", [False, True])
async def test_another_job_of_the_same_name_is_not_taken_for_it(bench: Bench, replace: bool) -> None:
    await bench.ask("z", training())
    ended = (await bench.ask("y", training(replace=replace, seed=9)))[-1]
    assert (ended.job, ended.seed) == ("y", 9) if replace else isinstance(ended, NameTaken)


async def test_an_end_that_the_disk_does_not_take_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "RETRY", 0.01)
    run, fails = bench.database.run, [OSError("no"), OSError("no")]

    async def badly(work: Any) -> Any:
        if fails and any(job.is_ending for job in bench.queue._jobs.values()):  # pyright: ignore[reportPrivateUsage]
            raise fails.pop()
        return await run(work)

    monkeypatch.setattr(bench.database, "run", badly)
    assert isinstance((await bench.ask("a"))[-1], Saved)
    assert isinstance((await bench.ask("b"))[-1], Saved)
    assert await bench.states() == {"a": "done", "b": "done"}


async def test_a_job_that_cannot_be_read_fails_and_stops_no_other(bench: Bench) -> None:
    bench.engine.gate.clear()
    bench.ask("a", picture("a", image=png(5, 64)))
    bench.ask("b")
    await until(lambda: len(bench.queue.waiting()) == 1)
    for file in (bench.home / "inputs").iterdir():
        file.unlink()
    await bench.restart()
    assert isinstance((await bench.ask("a"))[-1], Invalid)
    assert isinstance((await bench.ask("b"))[-1], Saved)


async def test_a_picture_is_found_by_its_content(bench: Bench) -> None:
    saved = (await bench.ask("a"))[-1]
    kept = await bench.queue.keep(png(3), "sheet")
    found = await bench.database.run(lambda c: set(c.execute(sa.select(artifacts.c.file)).scalars()))
    assert found == {str(saved.pictures[0].file), str(kept.file)}

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot import desk as desks
from bot.assistant import Assistant
from bot.conversation import Conversation, Here, Planned
from bot.desk import Desk
from bot.history import Kept
from bot.intent import AskBack
from bot.interpreter import RuleInterpreter
from bot.message import Attachment, Full, Inbound, Press, Reply, RetryLater, Stage, Undeliverable
from bot.service import seed_of
from bot.shelf import Shelf
from engine.bases.vocabulary import Vocabulary
from engine.database import Database, jobs, messages, replies, talks
from engine.durable import DurableQueue
from engine.errors import DiskFull
from engine.queue import JobQueue
from engine.store import Store
from tests.fakes.executor import FakeExecutor
from tests.fakes.house import png
from tests.fakes.shelf import make_base, make_catalog

WORKING = Stage(stage="drawing", step=1, steps=2)


class Door:
    """Satisfies `Door`. `fails` are raised by the next posts; `refs` has what it gave back, by message."""

    name = "web"

    def __init__(self) -> None:
        self.posts: list[tuple[str, Reply, str | None]] = []
        self.fails: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def post(self, to: Inbound, reply: Reply, ref: str | None) -> str | None:
        await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        self.posts.append((to.key, reply, ref))
        return f"at {to.id}"

    def answers(self, key: str) -> list[str]:
        return [reply.text for to, reply, _ in self.posts if to == key and reply.progress is None]


class Script:
    """An answer that says what it was asked. “work” first tells progress; “train” as well, and then takes its time."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, inbound: Inbound) -> AsyncGenerator[Reply]:
        self.begun.append(inbound.text)
        if inbound.text.startswith(("work", "train")):
            intent = inbound.text.partition(" ")[0]
            yield Reply(text="…", intent=intent, progress=WORKING)
            await self.gate.wait()
        await asyncio.sleep(0.005)
        self.ended.append(inbound.text)
        yield Reply(text=f"{inbound.text}, {len(inbound.attachments)} files")


@dataclass
class Bench:
    """A desk on a home. `crash` leaves it as a kill would: what it still does reaches neither disk nor door."""

    home: Path
    door: Door = field(default_factory=Door)
    script: Script = field(default_factory=Script)
    database: Database = field(init=False)
    desk: Desk = field(init=False)
    opened: bool = False

    async def open(self) -> "Bench":
        self.database = Database(self.home)
        await self.database.open()
        store = Store(self.home)
        answer = await self.answer_with(store)
        self.desk = Desk(self.database, store, self.history, answer, {"web": self.door})
        await self.desk.start()
        return self

    async def answer_with(self, store: Store) -> Callable[[Inbound], AsyncGenerator[Reply]]:
        self.history = Kept(self.database, store)
        return self.script.answer

    async def crash(self) -> None:
        frozen(self.database)
        self.door.post = never  # pyright: ignore
        await self.shut()

    async def shut(self) -> None:
        await self.desk.close()
        await self.database.close()

    async def restart(self) -> None:
        await self.crash()
        posts = self.door.posts
        self.door, self.script = Door(), Script()
        self.door.posts = posts
        await self.open()

    def answered(self, *ids: str) -> bool:
        return all(self.door.answers(f"web:{one}") for one in ids)

    async def rows(self, table: sa.Table) -> list[Any]:
        return list(await self.database.run(lambda c: c.execute(sa.select(table)).all()))

    async def states(self, table: sa.Table) -> dict[str, str]:
        return {row.key: row.state for row in await self.rows(table)}


async def never(*_: object) -> Any:
    await asyncio.Event().wait()


def frozen(database: Database) -> None:
    database.run = never  # pyright: ignore


def said(text: str, id: str = "1", thread: str = "t", **more: Any) -> Inbound:
    return Inbound(id=id, thread=thread, person="ann", text=text, platform="web", channel=thread, **more)


async def until(is_so: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.005)


async def until_stored(is_so: Callable[[], Awaitable[object]], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not await is_so():
            await asyncio.sleep(0.005)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Bench]:
    monkeypatch.setattr(desks, "RETRIES", (0.01, 0.02, 0.04))
    monkeypatch.setattr(desks, "LATER", 0.02)
    bench = await Bench(tmp_path).open()
    yield bench
    await bench.shut()


async def test_a_message_is_stored_before_it_is_acknowledged(bench: Bench) -> None:
    assert await bench.desk.receive(said("work"))
    await bench.crash()
    bench.door, bench.script = Door(), Script()
    await bench.open()
    await until(lambda: bench.answered("1"))
    assert bench.door.answers("web:1") == ["work, 0 files"]


async def test_what_could_not_be_stored_is_not_acknowledged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DiskFull("x")

    monkeypatch.setattr(bench.desk, "_insert", full)
    with pytest.raises(DiskFull):
        await bench.desk.receive(said("work"))
    assert bench.script.begun == []


async def test_the_same_message_is_answered_once_however_often_it_comes(bench: Bench) -> None:
    taken = await asyncio.gather(*(bench.desk.receive(said("work")) for _ in range(4)))
    assert sorted(taken) == [False, False, False, True]
    await until(lambda: bench.answered("1"))
    assert not await bench.desk.receive(said("work"))
    await until_stored(lambda: replied(bench, "sent"))
    await bench.restart()
    assert not await bench.desk.receive(said("work"))
    await asyncio.sleep(0.05)
    assert bench.script.begun == []
    assert bench.door.answers("web:1") == ["work, 0 files"]


async def replied(bench: Bench, state: str, key: str = "web:1") -> bool:
    return (await bench.states(replies)).get(key) == state


async def test_one_conversation_goes_in_order_and_others_beside_it(bench: Bench) -> None:
    bench.script.gate.clear()
    for number in range(4):
        await bench.desk.receive(said(f"work {number}", f"{number}"))
    await bench.desk.receive(said("hello", "9", thread="u"))
    await until(lambda: bench.answered("9"))
    assert [text for text in bench.script.begun if text != "hello"] == ["work 0"]
    bench.script.gate.set()
    await until(lambda: bench.answered("0", "1", "2", "3"))
    assert [text for text in bench.script.ended if text != "hello"] == [f"work {n}" for n in range(4)]


async def test_a_restart_keeps_the_order(bench: Bench) -> None:
    bench.script.gate.clear()
    for number in range(4):
        await bench.desk.receive(said(f"work {number}", f"{number}"))
    await bench.restart()
    await until(lambda: bench.answered("0", "1", "2", "3"))
    assert bench.script.ended == [f"work {n}" for n in range(4)]


async def test_a_message_is_answered_during_a_training_in_the_same_conversation(bench: Bench) -> None:
    bench.script.gate.clear()
    await bench.desk.receive(said("train", "1"))
    await bench.desk.receive(said("hello", "2"))
    await until(lambda: bench.answered("2"))
    assert not bench.answered("1")
    bench.script.gate.set()
    await until(lambda: bench.answered("1"))


@pytest.mark.parametrize(
    "stop", [said("Stop it!", "2"), said("", "2", press=Press(verb="cancel", of="web:1"))], ids=["words", "button"]
)
async def test_what_stops_something_does_not_wait_for_it(bench: Bench, stop: Inbound) -> None:
    bench.script.gate.clear()
    await bench.desk.receive(said("work", "1"))
    await bench.desk.receive(said("hello", "3"))
    await bench.desk.receive(stop)
    await until(lambda: bench.answered("2"))
    assert not bench.answered("1")
    assert not bench.answered("3")
    bench.script.gate.set()
    await until(lambda: bench.answered("1", "3"))


FILE = Attachment(name="a.png", data=png(1, 8))


async def test_a_held_message_gets_the_files_of_its_twin(bench: Bench) -> None:
    assert await bench.desk.receive(said("hello"), hold=0.1)
    await asyncio.sleep(0.02)
    assert bench.script.begun == []
    assert not await bench.desk.receive(said("hello", attachments=(FILE,)))
    assert not await bench.desk.receive(said("hello", attachments=(FILE, FILE)))
    await until(lambda: bench.answered("1"))
    assert bench.door.answers("web:1") == ["hello, 1 files"]


async def test_a_twin_that_comes_too_late_changes_nothing(bench: Bench) -> None:
    bench.script.gate.clear()
    await bench.desk.receive(said("work"))
    await until(lambda: bench.script.begun)
    before = await bench.rows(messages)
    await bench.desk.receive(said("work", attachments=(FILE,)))
    assert await bench.rows(messages) == before
    bench.script.gate.set()
    await until(lambda: bench.answered("1"))
    await bench.desk.receive(said("work", attachments=(FILE,)))
    assert [row.body for row in await bench.rows(messages)] == [row.body for row in before]


async def test_a_message_that_waits_its_turn_still_gets_files(bench: Bench) -> None:
    bench.script.gate.clear()
    await bench.desk.receive(said("work", "0"))
    await bench.desk.receive(said("hello", "1"))
    await bench.desk.receive(said("hello", "1", attachments=(FILE,)))
    bench.script.gate.set()
    await until(lambda: bench.answered("1"))
    assert bench.door.answers("web:1") == ["hello, 1 files"]


@pytest.mark.parametrize("times", [1, 3])
async def test_an_answer_is_delivered_though_the_door_failed_some_times(bench: Bench, times: int) -> None:
    bench.door.fails = [ConnectionError(), RetryLater("slow down", 0.05), TimeoutError()][:times]
    await bench.desk.receive(said("hello"))
    await until(lambda: bench.answered("1"))
    await until_stored(lambda: replied(bench, "sent"))
    assert (await bench.rows(replies))[0].attempts == times + 1


async def test_a_door_that_never_takes_it_ends_the_tries(bench: Bench) -> None:
    bench.door.fails = [ConnectionError() for _ in range(9)]
    await bench.desk.receive(said("hello"))
    await until_stored(lambda: replied(bench, "dead"))
    assert len(bench.door.fails) == 9 - len(desks.RETRIES) - 1
    assert bench.desk.tally.undeliverable == Counter(web=1)


async def test_what_can_never_arrive_is_tried_once(bench: Bench) -> None:
    bench.door.fails = [Undeliverable("gone")]
    await bench.desk.receive(said("hello"))
    await until_stored(lambda: replied(bench, "dead"))
    assert bench.door.posts == []


async def test_an_answer_that_waits_for_its_door_is_delivered_after_a_restart(bench: Bench) -> None:
    bench.door.fails = [ConnectionError()]
    await bench.desk.receive(said("hello"))
    await until_stored(lambda: replied(bench, "waiting"))
    await bench.restart()
    await until(lambda: bench.answered("1"))
    assert bench.script.begun == []
    assert bench.door.answers("web:1") == ["hello, 0 files"]


async def test_the_door_gets_back_what_it_returned_for_the_message(bench: Bench) -> None:
    await bench.desk.receive(said("work"))
    await until(lambda: bench.answered("1"))
    assert [(reply.text, ref) for _, reply, ref in bench.door.posts] == [("…", None), ("work, 0 files", "at 1")]


async def test_also_after_a_restart(bench: Bench) -> None:
    bench.script.gate.clear()
    await bench.desk.receive(said("work"))
    await until_stored(lambda: kept_ref(bench))
    await bench.restart()
    await until(lambda: bench.answered("1"))
    assert {ref for _, _, ref in bench.door.posts[1:]} == {"at 1"}


async def kept_ref(bench: Bench) -> bool:
    return bool(await bench.rows(desks.refs))


async def test_progress_that_a_slow_door_has_no_time_for_is_left_out(bench: Bench) -> None:
    class Steps(Script):
        async def answer(self, inbound: Inbound) -> AsyncGenerator[Reply]:
            for step in range(1, 50):
                yield Reply(text=f"{step}", progress=WORKING)
            bench.door.gate.set()
            yield Reply(text="done")

    bench.door.gate.clear()
    bench.desk._answer = Steps().answer  # pyright: ignore[reportPrivateUsage]
    await bench.desk.receive(said("hello"))
    await until(lambda: bench.answered("1"))
    assert [reply.text for _, reply, _ in bench.door.posts] in (["1", "done"], ["1", "49", "done"])


async def test_progress_that_fails_does_not_cost_the_answer(bench: Bench) -> None:
    bench.door.fails = [ConnectionError()]
    await bench.desk.receive(said("work"))
    await until_stored(lambda: replied(bench, "sent"))


async def test_no_more_than_so_many_are_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MOST", 2)
    bench.script.gate.clear()
    for one in "12":
        await bench.desk.receive(said("work", one, thread=one))
    with pytest.raises(Full):
        await bench.desk.receive(said("work", "3"))
    assert not await bench.desk.receive(said("work", "1", thread="1"))  # one that is known is acknowledged
    bench.script.gate.set()
    await until(lambda: bench.answered("1", "2"))
    assert await bench.desk.receive(said("work", "3"))
    await until(lambda: bench.answered("3"))


async def test_a_message_whose_files_are_gone_is_told_so_and_stops_no_other(bench: Bench) -> None:
    bench.script.gate.clear()
    await bench.desk.receive(said("work", "1", attachments=(FILE,)))
    await bench.desk.receive(said("hello", "2", thread="u"))
    await bench.desk.receive(said("work", "3"))
    for file in (bench.home / "inputs").iterdir():
        file.unlink()
    await bench.restart()
    await until(lambda: bench.answered("1", "3"))
    assert "not kept" in bench.door.answers("web:1")[0]


async def test_a_message_that_cannot_be_read_at_all_stops_no_other(bench: Bench) -> None:
    bench.script.gate.clear()
    await bench.desk.receive(said("work", "1"))
    await bench.desk.receive(said("work", "3"))
    broken = messages.update().where(messages.c.key == "web:1").values(body="{}")
    await bench.database.run(lambda c: c.execute(broken))
    await bench.restart()
    await until(lambda: bench.answered("3"))
    assert (await bench.states(messages))["web:1"] == "new"  # it may be mended


async def test_an_answer_is_delivered_though_what_was_asked_with_is_gone(bench: Bench) -> None:
    bench.door.fails = [OSError()]
    await bench.desk.receive(said("hello", "1", attachments=(FILE,)))
    await until_stored(lambda: bench.rows(replies))
    for file in (bench.home / "inputs").iterdir():
        file.unlink()
    due = replies.update().values(due=0.0, state="waiting")
    await bench.database.run(lambda c: c.execute(due))
    await bench.restart()
    await until(lambda: bench.answered("1"))


async def test_who_waits_holds_no_files(bench: Bench) -> None:
    held: list[Inbound] = []
    take_up = bench.desk._take_up  # pyright: ignore[reportPrivateUsage]

    def noted(inbound: Inbound, hold: float) -> Any:
        held.append(inbound)
        return take_up(inbound, hold)

    bench.desk._take_up = noted  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    await bench.desk.receive(said("work", "1", attachments=(FILE,)))
    await until(lambda: bench.answered("1"))
    assert bench.door.answers("web:1") == ["work, 1 files"]
    assert not held[0].attachments


async def test_what_another_conversation_sets_meanwhile_stays(bench: Bench) -> None:
    one = said("x", "1").model_copy(update={"channel": "c"})
    two = said("x", "2", thread="u").model_copy(update={"channel": "c"})
    drawing, setting = await bench.history.open(one), await bench.history.open(two)
    bench.history.keep(setting, Here("web:c", ("coral",)))
    await bench.database.run(lambda c: bench.history.save(c, two.talk))
    bench.history.keep(drawing)
    await bench.database.run(lambda c: bench.history.save(c, one.talk))
    assert (await bench.history.open(two)).here.always == ("coral",)
    assert (await bench.history.open(one)).here.always == ("coral",)


async def test_a_conversation_that_can_no_longer_be_read_begins_anew(bench: Bench) -> None:
    inbound = said("x", "1", attachments=(FILE,))
    ask = AskBack(kind="ask_back", missing="name", question="?")
    bench.history.keep((await bench.history.open(inbound)).asking(ask, inbound))
    await bench.database.run(lambda c: bench.history.save(c, inbound.talk))
    assert (await bench.history.open(inbound)).asked
    for file in (bench.home / "inputs").iterdir():
        file.unlink()
    assert (await bench.history.open(inbound)).asked is None


async def test_an_answer_that_the_disk_does_not_take_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, fails = bench.history.save, [OSError(), OSError()]

    def badly(connection: sa.Connection, thread: str) -> None:
        save(connection, thread)
        if fails:
            raise fails.pop()

    monkeypatch.setattr(bench.history, "save", badly)
    await bench.desk.receive(said("hello"))
    await until(lambda: bench.answered("1"))
    assert bench.door.answers("web:1") == ["hello, 0 files"]


async def test_what_was_delivered_is_noted_when_the_disk_takes_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, fails = bench.database.run, [OSError(), OSError()]

    async def badly(work: Any) -> Any:
        if fails and bench.door.posts:
            raise fails.pop()
        return await run(work)

    monkeypatch.setattr(bench.database, "run", badly)
    await bench.desk.receive(said("hello"))
    await until(lambda: not fails)
    await until_stored(lambda: replied(bench, "sent"))
    assert bench.door.answers("web:1") == ["hello, 0 files"]


# A kill between each two steps, with the whole of it behind the desk but an engine


class Studio(Bench):
    """With the assistant and the durable queue; `step` counts what goes to the database, and `last` is the last."""

    async def answer_with(self, store: Store) -> Callable[[Inbound], AsyncGenerator[Reply]]:
        base, catalog = make_base(self.home), make_catalog(self.home)
        self.engine = FakeExecutor(catalog, self.home)
        self.history = Kept(self.database, store)
        self.queue = DurableQueue(JobQueue(self.engine, store, catalog), self.database, store, catalog, Planned)
        await self.queue.start()
        shelf = Shelf(catalog, base, Vocabulary.of(base))
        rules = RuleInterpreter(catalog, shelf.vocabulary)
        self.store = store
        return Assistant(self.queue, shelf, rules, self.history, seed_of).answer

    async def shut(self) -> None:
        await self.desk.close()
        await self.queue.close()
        await self.database.close()

    def die_at(self, step: int, is_done: bool) -> asyncio.Event:
        """At this step nothing more reaches the disk or the door; that step itself does if `is_done`."""
        run, count, dead = self.database.run, 0, asyncio.Event()

        async def counted(work: Any) -> Any:
            nonlocal count
            count += 1
            if dead.is_set() or (count == step and not is_done):
                dead.set()
                await never()
            found = await run(work)
            if count >= step:
                dead.set()
                await never()
            return found

        async def post(to: Inbound, reply: Reply, ref: str | None) -> str | None:
            return await (never() if dead.is_set() else Door.post(door, to, reply, ref))

        door = self.door
        self.database.run = counted  # pyright: ignore
        door.post = post  # pyright: ignore
        return dead


FIRST = (said("Inky at the beach", "1"), said("make the background teal", "2"))
LEARN = said(
    "train a subject called Zed, 6 steps", "1",
    attachments=tuple(Attachment(name=f"{k}.png", data=png(k, 64)) for k in range(5)),
)  # fmt: skip


async def killed_at(home: Path, step: int, is_done: bool, inbounds: tuple[Inbound, ...]) -> tuple[Studio, bool]:
    """The studio after a kill at that step and a restart, all answered; and whether there was such a step."""
    studio = Studio(home)
    await studio.open()
    dead = studio.die_at(step, is_done)

    async def deliver() -> None:
        for inbound in inbounds:
            await studio.desk.receive(inbound)

    async def all_sent() -> None:
        await deliver()
        await until(lambda: studio.answered(*(one.id for one in inbounds)))
        await asyncio.sleep(0.02)

    life, death = asyncio.create_task(all_sent()), asyncio.create_task(dead.wait())
    await asyncio.wait((life, death), return_when=asyncio.FIRST_COMPLETED)
    for task in (life, death):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    was_killed = dead.is_set()
    await studio.restart()
    await deliver()  # as a client does that was not acknowledged
    await until_stored(lambda: all_in_state(studio, len(inbounds)))
    return studio, was_killed


async def all_in_state(studio: Studio, count: int) -> bool:
    return list((await studio.states(replies)).values()) == ["sent"] * count


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 28))
async def test_killed_at_any_step_two_messages_are_answered_once_each(tmp_path: Path, step: int, is_done: bool) -> None:
    studio, _ = await killed_at(tmp_path, step, is_done, FIRST)
    assert await studio.states(messages) == {"web:1": "done", "web:2": "done"}
    assert await studio.states(jobs) == {"web:1": "done", "web:2": "done"}
    for inbound in FIRST:
        assert len(set(studio.door.answers(inbound.key))) == 1
    row = (await studio.rows(talks))[0]
    talk: Conversation = studio.store.unpack(Conversation, row.body)
    assert [shot.key for shot in talk.shots] == ["web:1", "web:2"]
    assert talk.shots[0].plan.seed == talk.shots[1].plan.seed == seed_of(FIRST[0])
    assert "teal" in talk.shots[1].plan.prompt
    for stored in await studio.rows(replies):
        reply: Reply = studio.store.unpack(Reply, stored.body)
        assert reply.error is None
        assert reply.pictures[0].file.read_bytes().startswith(b"\x89PNG")
    await studio.shut()


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 17))
async def test_killed_at_any_step_a_training_is_told_once(tmp_path: Path, step: int, is_done: bool) -> None:
    studio, _ = await killed_at(tmp_path, step, is_done, (LEARN,))
    (row,) = await studio.rows(replies)
    reply: Reply = studio.store.unpack(Reply, row.body)
    assert reply.error is None
    assert reply.lora is not None
    assert (reply.lora.name, reply.lora.folder.is_dir()) == ("zed", True)
    assert await studio.states(jobs) == {"web:1": "done"}
    await studio.shut()


async def test_there_are_no_more_steps_than_were_tried(tmp_path: Path) -> None:
    for name, step, inbounds in (("two", 28, FIRST), ("one", 17, (LEARN,))):
        studio, was_killed = await killed_at(tmp_path / name, step, False, inbounds)
        await studio.shut()
        assert not was_killed, name


async def test_a_picture_whose_answer_the_disk_did_not_take_is_remembered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "LATER", 0.02)
    studio = Studio(tmp_path)
    await studio.open()
    save, fails = studio.history.save, [DiskFull("x"), DiskFull("x")]

    def badly(connection: sa.Connection, thread: str) -> None:
        save(connection, thread)
        if fails:
            raise fails.pop()

    monkeypatch.setattr(studio.history, "save", badly)
    await studio.desk.receive(FIRST[0])
    await until(lambda: studio.answered("1"))
    row = (await studio.rows(talks))[0]
    assert [shot.key for shot in studio.store.unpack(Conversation, row.body).shots] == ["web:1"]
    assert len(studio.engine.plans) == 1
    await studio.shut()

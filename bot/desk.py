"""Between the doors and the assistant: a message is stored, acknowledged, answered, and the answer delivered.

A message has a key of its own, so it is answered once however often it comes. Its answer, what the answer changed in
the conversation, and that it is answered are one transaction. What is unfinished when the service ends is taken up at
the next start: a message is answered again (its job, if there was one, is followed and not made again), an answer that
was not delivered is delivered.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import sqlalchemy as sa

from bot.history import Kept
from bot.message import Answer, Door, Full, Inbound, Reply, RetryLater, Undeliverable
from bot.presses import asks_to_stop
from bot.replies import refusal
from engine.database import Database, messages, refs, replies, upsert
from engine.errors import DiskFull, UserError
from engine.plain import no_bytes, unpack
from engine.store import Store

log = logging.getLogger(__name__)

MOST = 1_000  # messages that are not answered yet
LATER = 30.0  # seconds after which one that found no room may come again
RETRIES = (5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 50_400)  # seconds after each try at a delivery
DEADLINE = 120.0  # seconds that a door has for one delivery


@dataclass(slots=True)
class Turn:
    """A message's right to be the one that its conversation is at. Given back once, early by a long training."""

    lock: asyncio.Lock
    is_held: bool = False

    async def take(self) -> None:
        await self.lock.acquire()
        self.is_held = True

    def give_back(self) -> None:
        if self.is_held:
            self.is_held = False
            self.lock.release()


@dataclass(slots=True)
class News:
    """The latest progress of one message, and who brings it to the door: what came in between is left out."""

    latest: Reply | None = None
    ref: str | None = None
    bringing: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Tally:
    """What has come and gone since the start, by platform."""

    received: Counter[str] = field(default_factory=Counter[str])
    answered: Counter[str] = field(default_factory=Counter[str])
    delivered: Counter[str] = field(default_factory=Counter[str])
    undeliverable: Counter[str] = field(default_factory=Counter[str])


class Desk:
    def __init__(
        self, database: Database, store: Store, history: Kept, answer: Answer, doors: Mapping[str, Door]
    ) -> None:
        self._database = database
        self._store = store
        self._history = history
        self._answer = answer
        self._doors = doors
        self._turns: dict[str, asyncio.Lock] = {}
        self._present: Counter[str] = Counter()  # messages of each conversation that are not answered yet
        self._taken: set[str] = set()
        self._news: dict[str, News] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.tally = Tally()

    async def start(self) -> None:
        """Take up what the last service left: messages in the order in which they came, then answers."""
        unanswered = sa.select(messages.c.body, messages.c.due).where(messages.c.state == "new")
        undelivered = sa.select(replies.c.key, replies.c.due).where(replies.c.state == "waiting")
        rows = await self._database.run(lambda c: c.execute(unanswered.order_by(messages.c.received)).all())
        for body, due in rows:
            self._start(self._resume(body, due - time.time()))
        for key, due in await self._database.run(lambda c: c.execute(undelivered).all()):
            self._start(self._deliver_later(key, due - time.time()))

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def unanswered(self) -> int:
        return self._present.total()

    async def receive(self, inbound: Inbound, hold: float = 0.0) -> bool:
        """Satisfies `Receive`."""
        if await self._database.run(lambda c: self._insert(c, inbound, hold)):
            self.tally.received[inbound.platform] += 1
            self._start(self._take_up(without_files(inbound), hold))
            return True
        return False

    def _insert(self, connection: sa.Connection, inbound: Inbound, hold: float) -> bool:
        row = connection.execute(sa.select(messages).where(messages.c.key == inbound.key)).first()
        if row is not None:
            if row.state == "new":
                self._merge(connection, row.body, inbound)
            return False
        waiting = connection.execute(sa.select(sa.func.count()).where(messages.c.state == "new")).scalar_one()
        if waiting >= MOST:
            raise Full(LATER)
        now = time.time()
        body = self._store.pack(Inbound, inbound)
        connection.execute(
            messages.insert().values(
                key=inbound.key, thread=inbound.talk, body=body, state="new", received=now, due=now + hold
            )
        )
        return True

    def _merge(self, connection: sa.Connection, body: str, twin: Inbound) -> None:
        """A message that still waits, and came without its files, gets those of its twin."""
        held: Inbound = self._store.unpack(Inbound, body)
        if twin.attachments and not held.attachments and twin.key not in self._taken:
            whole = self._store.pack(Inbound, held.model_copy(update={"attachments": twin.attachments}))
            connection.execute(messages.update().where(messages.c.key == twin.key).values(body=whole))

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("left for the next start: %s: %s", type(error).__name__, error)

    async def _resume(self, body: str, hold: float) -> None:
        """Take up an earlier service's message; one that can no longer be read stops no other."""
        await self._take_up(unpack(Inbound, body, no_bytes), max(hold, 0.0))

    async def _take_up(self, inbound: Inbound, hold: float) -> None:
        """Answer it when its conversation is free; what stops something else does not wait for that.

        Who waits holds no files: a thousand messages of 80 MB are on the disk and not in memory.
        """
        turn = Turn(self._turns.setdefault(inbound.talk, asyncio.Lock()))
        self._present[inbound.talk] += 1
        try:
            if not stops(inbound):
                await turn.take()
            await asyncio.sleep(hold)
            self._taken.add(inbound.key)
            await self._converse(inbound, turn)
        finally:
            turn.give_back()
            self._taken.discard(inbound.key)
            self._present[inbound.talk] -= 1
            if not self._present[inbound.talk]:
                del self._present[inbound.talk], self._turns[inbound.talk]

    async def _stored(self, key: str) -> Inbound:
        query = sa.select(messages.c.body).where(messages.c.key == key)
        return self._store.unpack(Inbound, await self._database.run(lambda c: c.execute(query).scalar_one()))

    async def _converse(self, inbound: Inbound, turn: Turn) -> None:
        """Until it is answered: what the disk does not take now is tried again, and its job is not made twice."""
        while True:
            try:
                await self._answered(inbound, turn)
                return
            except Exception as error:
                log.error("the answer to %s could not be kept: %s: %s", inbound.tag, type(error).__name__, error)
                self._history.forget(inbound)
                await asyncio.sleep(LATER)

    async def _answered(self, inbound: Inbound, turn: Turn) -> None:
        try:
            whole = await self._stored(inbound.key)
        except UserError as error:  # one of its files is gone from the home
            await self._settle(inbound, refusal(error, None))
            return
        async with aclosing(self._answer(whole)) as said:
            async for reply in said:
                if reply.progress is None:
                    await self._settle(inbound, reply)
                    return
                if reply.intent == "train":
                    turn.give_back()
                await self._bring(inbound, reply)

    async def _bring(self, inbound: Inbound, reply: Reply) -> None:
        """Hand progress to the door; while it is busy with an earlier one, only the latest waits."""
        news = self._news.get(inbound.key)
        if news is None:
            news = self._news[inbound.key] = News(ref=await self._ref(inbound.key))
        news.latest = reply
        if news.bringing is None or news.bringing.done():
            news.bringing = self._start(self._post_news(inbound, news))
            await asyncio.sleep(0)

    async def _post_news(self, inbound: Inbound, news: News) -> None:
        door = self._doors.get(inbound.platform)
        while door is not None and (reply := news.latest) is not None:
            news.latest = None
            try:
                async with asyncio.timeout(DEADLINE):
                    ref = await door.post(inbound, reply, news.ref)
            except Exception as error:  # progress is a kindness: the answer is what has to arrive
                log.info("progress of %s was not posted: %s", inbound.tag, type(error).__name__)
                return
            if ref is not None and ref != news.ref:
                news.ref = ref
                await self._keep_ref(inbound.key, ref)

    async def _settle(self, inbound: Inbound, reply: Reply) -> None:
        """The answer, what it changed, and that the message is answered: all of it or nothing."""

        def write(connection: sa.Connection) -> None:
            self._history.save(connection, inbound.talk)
            body = self._store.pack(Reply, reply)
            upsert(connection, replies, key=inbound.key, body=body, state="waiting", attempts=0, due=time.time())
            connection.execute(messages.update().where(messages.c.key == inbound.key).values(state="done"))

        await self._database.run(write)
        self.tally.answered[inbound.platform] += 1
        news = self._news.pop(inbound.key, None)
        if news and news.bringing:
            news.latest = None
            await asyncio.wait([news.bringing])
        self._start(self._deliver(inbound, reply))

    async def _deliver_later(self, key: str, wait: float) -> None:
        """An earlier service's answer."""
        await asyncio.sleep(max(wait, 0.0))
        asked = sa.select(messages.c.body).where(messages.c.key == key)
        body = await self._database.run(lambda c: c.execute(asked).scalar_one())
        row = await self._database.run(lambda c: c.execute(sa.select(replies).where(replies.c.key == key)).one())
        await self._deliver(unpack(Inbound, body, no_bytes), self._store.unpack(Reply, row.body), row.attempts)

    async def _deliver(self, inbound: Inbound, reply: Reply, attempts: int = 0) -> None:
        """Try until it passes, or until the door says that it never will, or for more than a day."""
        while True:
            state, wait = await self._try(inbound, reply, attempts)
            attempts += 1
            due = time.time() + wait
            values = {"state": state, "attempts": attempts, "due": due}
            await self._note(inbound, values)
            if state != "waiting":
                return
            await asyncio.sleep(wait)

    async def _note(self, inbound: Inbound, values: Mapping[str, object]) -> None:
        """How a delivery stands, as soon as the disk takes it: what has arrived is not sent twice."""
        update = replies.update().where(replies.c.key == inbound.key).values(**values)
        while True:
            try:
                await self._database.run(lambda c: c.execute(update))
                return
            except Exception as error:
                log.error("the delivery of %s could not be noted: %s: %s", inbound.tag, type(error).__name__, error)
                await asyncio.sleep(LATER)

    async def _try(self, inbound: Inbound, reply: Reply, attempts: int) -> tuple[str, float]:
        """(how it stands now, seconds until the next try)."""
        door = self._doors.get(inbound.platform)
        if door is None:
            return ("waiting", 3_600.0) if attempts < len(RETRIES) else ("dead", 0.0)
        try:
            async with asyncio.timeout(DEADLINE):
                ref = await door.post(inbound, reply, await self._ref(inbound.key))
        except Undeliverable as error:
            log.warning("the answer to %s cannot be delivered: %s", inbound.tag, error)
        except Exception as error:
            log.warning("the answer to %s was not delivered: %s", inbound.tag, type(error).__name__)
            if attempts < len(RETRIES):
                asked = (error.after if isinstance(error, RetryLater) else None) or 0.0
                return "waiting", max(RETRIES[attempts] * random.uniform(0.8, 1.2), min(asked, 86_400.0))
        else:
            if ref is not None:
                await self._keep_ref(inbound.key, ref)
            self.tally.delivered[inbound.platform] += 1
            return "sent", 0.0
        self.tally.undeliverable[inbound.platform] += 1
        return "dead", 0.0

    async def _ref(self, key: str) -> str | None:
        query = sa.select(refs.c.ref).where(refs.c.key == key)
        return await self._database.run(lambda c: c.execute(query).scalar())

    async def _keep_ref(self, key: str, ref: str) -> None:
        with suppress(OSError, DiskFull):
            await self._database.run(lambda c: upsert(c, refs, key=key, ref=ref))


def without_files(inbound: Inbound) -> Inbound:
    return inbound.model_copy(update={"attachments": ()})


def stops(inbound: Inbound) -> bool:
    """Whether a message stops something, so that it must not wait for what it stops."""
    return asks_to_stop(inbound) or (inbound.press is not None and inbound.press.verb == "cancel")

"""The queue that loses nothing: jobs are in the database before they run, and unfinished ones are taken up at start.

Each person has an equal share. A job is charged to its owner in seconds of the engine, and the next job is that of the
waiting person who has had least (as VTC does for language models: Sheng et al. 2024, arXiv:2401.00588); who joins
later begins level with the least served, and when nobody waits all accounts are closed. Pictures and trainings have a
lane each: the worker draws between two steps of a training.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from engine.catalog import Catalog, LoraCard
from engine.database import Database, artifacts, jobs, upsert
from engine.errors import AtelierError, Busy, Cancelled, Fault, WorkerDied, WorkerHung
from engine.jobs import Progress, Queued, Ticket
from engine.plans import ImagePlan, Plan
from engine.queue import JobQueue, Saved, SavedPicture
from engine.store import Store
from engine.wire import error_head, error_of

log = logging.getLogger(__name__)

MOST, MOST_EACH = 500, 50  # jobs that may wait, and those of one person
DEATHS, HANGS = 3, 2  # of the worker, with one job, until the job is given up
RETRY = 5.0  # seconds until a job whose end could not be written is run again
Lane = Literal["picture", "training"]
LANES: tuple[Lane, ...] = ("picture", "training")
Said = Queued | Progress | Saved | LoraCard


@dataclass(slots=True, eq=False)
class Job:
    """One that waits or runs. `said` is the latest word on it, `error` how it ended where it did not end well."""

    ticket: Ticket
    plan: Plan
    submitted: float
    deaths: int = 0
    hangs: int = 0
    said: Said | None = None
    error: AtelierError | None = None
    is_over: bool = False
    is_cancelled: bool = False
    is_ending: bool = False  # how it ended is being written
    running: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lane(self) -> Lane:
        return "picture" if isinstance(self.plan, ImagePlan) else "training"

    @property
    def size(self) -> float:
        """Steps, of 65,536 pixels each."""
        if isinstance(self.plan, ImagePlan):
            return self.plan.work
        return float(self.plan.steps)

    @property
    def is_last_chance(self) -> bool:
        return self.deaths >= DEATHS - 1 or self.hangs >= HANGS - 1

    def tell(self, said: Said | None, error: AtelierError | None = None) -> None:
        self.said, self.error = said or self.said, error
        self.is_over = error is not None or isinstance(said, (Saved, LoraCard))
        self.changed.set()
        self.changed = asyncio.Event()


class DurableQueue:
    """The same `follow` as `JobQueue`; who stops following leaves the job running. `memo_kind`: of a ticket's memo."""

    def __init__(self, direct: JobQueue, database: Database, store: Store, catalog: Catalog, memo_kind: Any) -> None:
        self._direct = direct
        self._database = database
        self._store = store
        self._catalog = catalog
        self._memo_kind = memo_kind
        self._jobs: dict[str, Job] = {}
        self._used: dict[str, float] = {}
        self._pace: dict[Lane, float] = {}  # seconds a unit of size
        self._entering = asyncio.Lock()
        self._wake = {lane: asyncio.Event() for lane in LANES}
        self._lanes: list[asyncio.Task[None]] = []
        self.ended: dict[str, int] = {"done": 0, "failed": 0, "cancelled": 0}
        self.worker_deaths = 0

    async def start(self) -> None:
        """Take up what is unfinished, in the order in which it came, and begin."""
        query = sa.select(jobs).where(jobs.c.state == "queued").order_by(jobs.c.submitted)
        for row in await self._database.run(lambda c: c.execute(query).all()):
            try:
                plan = self._store.unpack(Plan, row.plan)
            except (AtelierError, ValueError) as error:
                lost = error if isinstance(error, AtelierError) else Fault("the job cannot be read", str(error)[:200])
                await self._write(row.key, state="failed", outcome=json.dumps(error_head(lost)))
                continue
            self._add(Job(Ticket(row.key, row.owner, row.thread), plan, row.submitted, row.attempts))
        self._lanes = [asyncio.create_task(self._serve(lane)) for lane in LANES]

    async def close(self) -> None:
        """Stop; what runs is run again at the next start."""
        tasks = [*self._lanes, *(job.running for job in self._jobs.values() if job.running)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def waiting(self, lane: Lane | None = None) -> tuple[Job, ...]:
        """In the order in which they will run, as things stand."""
        return tuple(job for one in LANES if lane in (None, one) for job in self._order(one))

    async def recall(self, key: str) -> Any | None:
        """The memo of the job of this key, if there is one."""
        found = await self._row(key)
        return None if found is None else self._store.unpack(self._memo_kind, found.memo)

    async def cancel(self, key: str, owner: str) -> bool:
        """Whether a job of this key (or one that is a part of it, key#N) and this owner was there to be stopped."""
        job = self._jobs.get(key) or next(
            (job for one, job in self._jobs.items() if one.rpartition("#")[0] == key), None
        )
        if job is None or job.ticket.owner != owner or job.is_ending:
            return False
        if job.running is None:
            await self._end(job, "cancelled", Cancelled())
            self._tell_places(job.lane)
        elif not job.is_cancelled:  # a second cancel would break off how the first one is carried out
            job.is_cancelled = True
            job.running.cancel()
        return True

    async def cancel_latest(self, thread: str, owner: str) -> bool:
        """The same for the latest one of the thread."""
        theirs = [job for job in self._jobs.values() if (job.ticket.thread, job.ticket.owner) == (thread, owner)]
        return bool(theirs) and await self.cancel(max(theirs, key=lambda job: job.submitted).ticket.key, owner)

    async def keep(self, png: bytes, stem: str) -> SavedPicture:
        """A picture that no plan ends in."""
        saved = await self._direct.keep(png, stem)
        await self._database.run(lambda c: _register(c, (saved,)))
        return saved

    async def keep_file(self, data: bytes, name: str) -> Path:
        """A file that goes out with an answer; where it lies."""
        return await self._direct.keep_file(data, name)

    async def follow(self, plan: Plan, out: Path | None = None, ticket: Ticket | None = None) -> AsyncGenerator[Said]:
        """Queued…, Progress…, then what was kept; a job of this key that is there is followed, not made again.

        Raises `Busy` before anything is stored, and the error that the job ended with.
        """
        assert ticket is not None
        assert out is None
        async with self._entering:
            job = self._jobs.get(ticket.key)
            row = None if job else await self._row(ticket.key)
            if job is None and row is None:
                job = await self._submit(plan, ticket)
        if job is None:
            assert row is not None
            yield self._outcome(row)
            return
        seen: Said | None = None
        while True:
            changed = job.changed
            if job.error is not None:
                raise job.error
            if job.said is not seen and job.said is not None:
                seen = job.said
                yield job.said
            elif job.is_over:
                return
            else:
                await changed.wait()

    async def _submit(self, plan: Plan, ticket: Ticket) -> Job:
        theirs = sum(job.ticket.owner == ticket.owner for job in self._jobs.values())
        if len(self._jobs) >= MOST or theirs >= MOST_EACH:
            raise Busy(len(self._jobs) if theirs < MOST_EACH else theirs)
        if not isinstance(plan, ImagePlan):
            self._catalog.check_plan(plan)  # not after an hour in the queue
        job = Job(ticket, plan, time.time())

        def store(connection: sa.Connection) -> None:
            packed, memo = self._store.pack(Plan, plan), self._store.pack(self._memo_kind, ticket.memo)
            connection.execute(
                jobs.insert().values(
                    key=ticket.key,
                    owner=ticket.owner,
                    thread=ticket.thread,
                    plan=packed,
                    memo=memo,
                    state="queued",
                    attempts=0,
                    submitted=job.submitted,
                )
            )

        await self._database.run(store)
        self._add(job)
        return job

    def _add(self, job: Job) -> None:
        others = [self._used[one.ticket.owner] for one in self._jobs.values()]
        self._jobs[job.ticket.key] = job
        self._used[job.ticket.owner] = max(self._used.get(job.ticket.owner, 0.0), min(others, default=0.0))
        self._tell_places(job.lane)
        self._wake[job.lane].set()

    async def _serve(self, lane: Lane) -> None:
        while True:
            if not (waiting := self._order(lane)):
                self._wake[lane].clear()
                await self._wake[lane].wait()
                continue
            job = waiting[0]
            running = [one for one in self._jobs.values() if one.running]
            if any(one.is_last_chance for one in (job, *running)) and running:  # so that no other dies of what it does
                await asyncio.wait([one.running for one in running if one.running])
                await asyncio.sleep(0)
                continue
            job.running = asyncio.create_task(self._run(job))
            self._tell_places(lane)
            await asyncio.wait([job.running])
            await self._left(job, job.running)
            if not self._jobs:
                self._used.clear()

    async def _left(self, job: Job, running: asyncio.Task[None]) -> None:
        """After a run: one that was stopped ends here, and one whose end the disk did not take is run again."""
        job.running = None
        try:
            if job.is_cancelled and job.ticket.key in self._jobs:
                await self._end(job, "cancelled", Cancelled())
            elif not running.cancelled():
                running.result()
        except Exception as error:
            log.error("job %s: %s", job.ticket.tag, error)
            await asyncio.sleep(RETRY)

    def _order(self, lane: Lane) -> list[Job]:
        """The jobs that wait, as they will run if no others come."""
        used, order = dict(self._used), list[Job]()
        waiting = [job for job in self._jobs.values() if job.lane == lane and not job.running and not job.is_ending]
        for job in self._jobs.values():
            if job.running:
                used[job.ticket.owner] += self._seconds(job)
        theirs = defaultdict[str, deque[Job]](deque)
        for job in sorted(waiting, key=lambda one: one.submitted):
            theirs[job.ticket.owner].append(job)
        heads = [(used[owner], queue[0].submitted, owner) for owner, queue in theirs.items()]
        heapify(heads)
        while heads:
            spent, _, owner = heappop(heads)
            order.append(job := theirs[owner].popleft())
            if theirs[owner]:
                heappush(heads, (spent + self._seconds(job), theirs[owner][0].submitted, owner))
        return order

    def _seconds(self, job: Job) -> float:
        return job.size * self._pace.get(job.lane, 0.1)

    def _tell_places(self, lane: Lane) -> None:
        known = lane in self._pace
        ahead = sum(self._seconds(job) for job in self._jobs.values() if job.running and job.lane == lane)
        for place, job in enumerate(self._order(lane), 1):
            job.tell(Queued(place, ahead if known else None))
            ahead += self._seconds(job)

    async def _run(self, job: Job) -> None:
        if job.is_cancelled:
            return
        began = time.monotonic()
        try:
            await self._carry_out(job)
        except WorkerDied as error:
            await self._after_death(job, error)
        except AtelierError as error:
            await self._end(job, "failed", error)
        except Exception as error:
            log.exception("job %s", job.ticket.tag)
            await self._end(job, "failed", Fault(type(error).__name__, str(error)[:200]))
        finally:
            self._used[job.ticket.owner] = self._used.get(job.ticket.owner, 0.0) + time.monotonic() - began

    async def _carry_out(self, job: Job) -> None:
        first, rest = None, 1.0  # when its first step was done, and which part of it came after that
        async with aclosing(self._direct.follow(job.plan, None, job.ticket)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    if first is None:
                        first, rest = time.monotonic(), 1 - event.step / (event.steps * event.parts)
                    job.tell(event)
                    continue
                if first is not None and rest > 0:
                    pace = (time.monotonic() - first) / (job.size * rest)
                    self._pace[job.lane] = (pace + self._pace.get(job.lane, pace)) / 2
                await self._end(job, "done", event)

    async def _after_death(self, job: Job, error: WorkerDied) -> None:
        """Once more with a new worker, unless this job has killed too many."""
        self.worker_deaths += 1
        job.deaths += 1
        job.hangs += isinstance(error, WorkerHung)
        if job.deaths >= DEATHS or job.hangs >= HANGS:
            await self._end(job, "failed", error)
        else:
            await self._write(job.ticket.key, attempts=job.deaths)
            job.tell(Queued(1))

    async def _end(self, job: Job, state: str, what: Saved | LoraCard | AtelierError) -> None:
        values = {"state": state, "outcome": json.dumps(_outcome_head(what))}
        files = what.pictures if isinstance(what, Saved) else ()

        def write(connection: sa.Connection) -> None:
            connection.execute(jobs.update().where(jobs.c.key == job.ticket.key).values(**values))
            _register(connection, files)

        job.is_ending = True
        try:
            await self._database.run(write)
        finally:
            job.is_ending = False
        self.ended[state] += 1
        self._jobs.pop(job.ticket.key, None)
        if isinstance(what, AtelierError):
            job.tell(None, what)
        else:
            job.tell(what)

    def _outcome(self, row: sa.Row[Any]) -> Saved | LoraCard:
        """What the job in this row ended with; raises it where that is an error."""
        said = json.loads(row.outcome)
        if "error" in said:
            raise error_of(said)
        if "lora" in said:
            return self._catalog.made_by(row.key, said["lora"]) or self._catalog.get(said["lora"])
        try:
            return Saved(
                tuple(SavedPicture(Path(p["file"]), p["recipe"], Path(p["file"]).read_bytes()) for p in said["saved"])
            )
        except OSError:
            raise Fault("the picture was drawn, and its file is gone", "") from None

    async def _row(self, key: str) -> sa.Row[Any] | None:
        return await self._database.run(lambda c: c.execute(sa.select(jobs).where(jobs.c.key == key)).first())

    async def _write(self, key: str, **values: Any) -> None:
        await self._database.run(lambda c: c.execute(jobs.update().where(jobs.c.key == key).values(**values)))


def _register(connection: sa.Connection, pictures: Iterable[SavedPicture]) -> None:
    """So that a picture is found by its content."""
    for picture in pictures:
        upsert(connection, artifacts, sha256=hashlib.sha256(picture.png).hexdigest(), file=str(picture.file))


def _outcome_head(what: Saved | LoraCard | AtelierError) -> dict[str, Any]:
    match what:
        case Saved():
            return {"saved": [{"file": str(p.file), "recipe": p.recipe} for p in what.pictures]}
        case LoraCard():
            return {"lora": what.name}
        case _:
            return error_head(what)

"""The service under a crowd: how soon it acknowledges, whether it is fair, and what it adds to the engine's own time.

`python -m benchmarks.crowd [--people 20] [--callers 1,32] [--seconds 60] [--steps 12] [--stand-in]`

The service runs in a process of its own (`--serve`) on a temporary home. Beside the web it has one more door, through
which it says when its worker began and ended each picture, and runs a plan on that same worker with nothing around it.
Clocks are `time.monotonic`, which on one machine is the same in both processes. `--stand-in`: a worker that only
sleeps, so that what the service adds is seen where other work disturbs the engine.
"""

import argparse
import asyncio
import datetime
import json
import os
import platform
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

from bot import wiring
from bot.message import Inbound, Receive, Reply
from bot.settings import Settings
from engine.jobs import Drawn, Event
from engine.plans import ImagePlan, Plan
from engine.worker import WorkerExecutor

GREEDY, MODEST = 15, 2  # messages of the one person, and of each of the others
BARE = 10  # pictures of the engine alone, before the callers and after them
PACE = "0.02"  # seconds of a step, where the worker only sleeps
SENTENCE = "a red mug on a podium, {steps} steps"


@dataclass(frozen=True, slots=True)
class Span:
    """When the worker was given the picture of this seed, and when it had given it back."""

    seed: int
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Watched(WorkerExecutor):
    """The service's executor, which remembers what it ran and when."""

    spans: list[Span]
    last: ImagePlan

    async def run(self, plan: Plan) -> AsyncGenerator[Event]:
        assert isinstance(plan, ImagePlan)
        began = time.monotonic()
        async for event in super().run(plan):
            if isinstance(event, Drawn):
                self.spans.append(Span(plan.seed, began, time.monotonic()))
                self.last = plan
            yield event


@dataclass
class Gauge:
    """Satisfies `Door`: no platform, two questions to the executor."""

    executor: Watched
    name: str = "gauge"

    def mount(self, site: web.Application, receive: Receive) -> None:  # noqa: ARG002
        site.router.add_get("/hooks/gauge/spans", self._spans)
        site.router.add_post("/hooks/gauge/bare", self._bare)

    async def run(self) -> None:
        """Nothing is held."""

    async def close(self) -> None:
        """Nothing is held."""

    async def post(self, to: Inbound, reply: Reply, ref: str | None) -> str | None:
        """Nothing is said here."""

    async def _spans(self, _: web.Request) -> web.Response:
        return web.json_response([(span.seed, span.began, span.ended) for span in self.executor.spans])

    async def _bare(self, request: web.Request) -> web.Response:
        """The last plan again, back to back: when the first began, and when each ended."""
        times = [time.monotonic()]
        for _ in range(int(request.query["n"])):
            async for _event in WorkerExecutor.run(self.executor, self.executor.last):
                pass
            times.append(time.monotonic())
        return web.json_response(times)


async def serve(home: Path, stand_in: bool) -> None:
    """The service as `python -m bot run` has it, until its input ends."""

    def watched(shipped: Path, home: Path) -> Watched:
        command = (sys.executable, "-m", "tests.fakes.child", str(shipped), str(home), PACE)
        return Watched(shipped, home, command=command if stand_in else None)

    Watched.spans = []
    wiring.WorkerExecutor = watched
    service = await wiring.open_service(wiring.open_studio(Settings(home=home)))
    assert isinstance(service.executor, Watched)
    service = replace(service, doors={**service.doors, "gauge": Gauge(service.executor)})
    async with service.open("127.0.0.1", 0) as port:
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


@dataclass
class Message:
    """One that was sent, and what was heard of it. `quotes`: (when it was said, seconds until it begins)."""

    person: str
    sent: float
    acknowledged: float = 0.0
    quotes: list[tuple[float, float]] = field(default_factory=list)
    previews: int = 0
    answered: float = 0.0
    seed: int | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def seconds(self) -> float:
        return self.answered - self.sent

    def hear(self, kind: str, said: dict[str, Any]) -> None:
        now = time.monotonic()
        if kind == "reply":
            self.answered = now
            self.seed = said["pictures"][0]["recipe"]["seed"] if said["pictures"] else None
            self.done.set()
        elif kind == "progress":
            self.previews += said["preview"] is not None
            if said["stage"] == "queued" and said["left"] is not None:
                self.quotes.append((now, said["left"]))


class Chat:
    """One page that is open: a person's conversation, and the stream of what is said in it."""

    def __init__(self, session: ClientSession, person: str) -> None:
        self.person = person
        self._session = session
        self._name = secrets.token_urlsafe(24)
        self._messages: dict[str, Message] = {}
        self._ready = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> "Chat":
        self._listening = asyncio.create_task(self._listen())
        await self._ready.wait()
        return self

    async def close(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def say(self, text: str) -> Message:
        """Returns once it is acknowledged. The stream may bring its first words before that, so it is known before."""
        number = secrets.token_urlsafe(12)
        message = self._messages[f"web:{self._name}.{number}"] = Message(self.person, time.monotonic())
        body = {"text": text, "chat": self._name, "id": number}
        async with self._session.post("/api/chat", json=body, headers={"Cookie": f"atelier={self.person}"}) as answer:
            await answer.read()
            assert answer.status == 202, await answer.text()
        message.acknowledged = time.monotonic()
        return message

    async def _listen(self) -> None:
        async with self._session.get(f"/api/chat/{self._name}/events") as stream:
            async for kind, said in events(stream.content.iter_any()):
                if kind == "ready":
                    self._ready.set()
                elif message := self._messages.get(said["key"]):
                    message.hear(kind, said)


async def events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
    """Server-sent events, as this service writes them."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        for block in whole:
            if not block.startswith(b":"):
                kind, data = block.split(b"\n", 1)
                yield kind.removeprefix(b"event: ").decode(), json.loads(data.removeprefix(b"data: "))


@dataclass(frozen=True, slots=True)
class Driver:
    session: ClientSession
    sentence: str
    seconds: float

    async def spans(self) -> list[Span]:
        async with self.session.get("/hooks/gauge/spans") as answer:
            return [Span(*said) for said in await answer.json()]

    async def bare(self, n: int) -> list[float]:
        """Seconds of each of n pictures of the engine alone."""
        async with self.session.post(f"/hooks/gauge/bare?n={n}") as answer:
            return [b - a for a, b in pairwise(await answer.json())]

    async def chats(self, persons: Iterable[str]) -> list[Chat]:
        return list(await asyncio.gather(*(Chat(self.session, person).open() for person in persons)))

    async def ask(self, chat: Chat) -> Message:
        message = await chat.say(self.sentence)
        await message.done.wait()
        return message

    async def crowd(self, people: int) -> None:
        """Everyone at once, the greedy one first, while the worker draws for somebody else."""
        persons = [secrets.token_urlsafe(32) for _ in range(people)]
        greedy, *modest = persons
        (other,) = await self.chats([secrets.token_urlsafe(32)])
        chats = await self.chats([greedy] * GREEDY + modest * MODEST)
        before = len(await self.spans())
        await other.say(f"four {self.sentence}".replace("four a red mug", "four pictures of a red mug"))
        await asyncio.sleep(0.5)
        messages = await asyncio.gather(*(chat.say(self.sentence) for chat in chats))
        await asyncio.gather(*(message.done.wait() for message in messages))
        by_seed = {message.seed: message for message in messages}
        served = [(by_seed[span.seed], span) for span in (await self.spans())[before:] if span.seed in by_seed]
        for chat in (other, *chats):
            await chat.close()
        waits = [1e3 * (message.acknowledged - message.sent) for message in messages]
        print(f"\n{people} people at once, one with {GREEDY} messages, the others with {MODEST} each ({load()})")
        print(f"  acknowledged after: {quantiles(waits)} (target: p99 at most 1,000 ms)")
        shown = sum(message.previews > 0 for message in messages)
        print(f"  answered with a picture: {len(served)} of {len(messages)}; with previews before it: {shown}")
        tell_fairness(served, greedy)
        tell_quotes(served)

    async def one_caller(self) -> None:
        """In turn: the engine alone, then the service, one conversation that grows."""
        (chat,) = await self.chats([secrets.token_urlsafe(32)])
        alone: list[float] = []
        messages: list[Message] = []
        end = time.monotonic() + self.seconds
        while time.monotonic() < end or len(messages) < 3:
            alone += await self.bare(1)
            messages.append(await self.ask(chat))
            await asyncio.sleep(0.2)  # what is left to do after an answer is not the next one's burden
        await chat.close()
        spans = {span.seed: span for span in await self.spans()}
        around = [1e3 * (message.seconds - spans[message.seed].seconds) for message in messages]
        before = [1e3 * (spans[message.seed].began - message.sent) for message in messages]
        through = [message.seconds for message in messages]
        print(f"\n1 caller, {len(messages)} pictures in one conversation, the engine alone in turn ({load()})")
        print(f"  engine alone {median(alone):.3f} s a picture, through the service {median(through):.3f} s")
        print(f"  around the worker's own time for the same picture: {quantiles(around)} (target: 30 ms)")
        print(f"  of it before the worker begins: {quantiles(before)}")
        print(f"  the first five {median(around[:5]):.0f} ms, the last five {median(around[-5:]):.0f} ms")

    async def many_callers(self, callers: int) -> None:
        """Each asks again when it is answered; between pictures the worker should have nothing to wait for."""
        chats = await self.chats(secrets.token_urlsafe(32) for _ in range(callers))
        alone = await self.bare(BARE)
        before, end = len(await self.spans()), time.monotonic() + self.seconds

        async def insist(chat: Chat) -> None:
            while time.monotonic() < end:
                await self.ask(chat)

        await asyncio.gather(*map(insist, chats))
        served = (await self.spans())[before:]
        alone += await self.bare(BARE)
        for chat in chats:
            await chat.close()
        length = served[-1].ended - served[0].began
        gaps = [1e3 * (b.began - a.ended) for a, b in pairwise(served)]
        rate, bare = len(served) / length, len(alone) / sum(alone)
        print(f"\n{callers} callers, {len(served)} pictures in {length:.0f} s ({load()})")
        print(f"  lost, as the worker waits between two pictures: {sum(gaps) / 1e3 / length:.1%} (target: at most 5 %)")
        print(f"  it waits each time: {quantiles(gaps)}")
        print(f"  {rate:.3f} pictures/s; the engine alone, before and after, {bare:.3f}: loss {1 - rate / bare:+.1%}")


def tell_fairness(served: Sequence[tuple[Message, Span]], greedy: str) -> None:
    firsts: dict[str, int] = {}
    left: dict[str, int] = defaultdict(int)
    for message, _ in served:
        firsts.setdefault(message.person, len(firsts))
        left[message.person] += 1
    turn = {message.person: place for place, (message, _) in reversed(list(enumerate(served, 1)))}
    used: dict[str, float] = dict.fromkeys(left, 0.0)
    for message, span in served:  # until somebody's last one is drawn: from then on not everyone waits
        if left[message.person] == 1:
            break
        used[message.person] += span.seconds
        left[message.person] -= 1
    total, squares = sum(used.values()), sum(seconds**2 for seconds in used.values())
    last = max(place for place, (message, _) in enumerate(served, 1) if message.person != greedy)
    runs = [len(list(run)) for one, run in groupby(m.person == greedy for m, _ in served[:last]) if one]
    print(
        f"  first pictures: each of {len(firsts)} people has one after {max(turn.values())} of {len(served)} pictures"
    )
    print(f"  Jain's index of engine seconds while all wait: {total**2 / (len(used) * squares):.3f}")
    print(f"  most pictures of the greedy one in a row while others wait: {max(runs, default=0)}")


def tell_quotes(served: Sequence[tuple[Message, Span]]) -> None:
    """What `left` promised against when the picture was begun: the first time, and once nobody else would come."""
    first = [(m.quotes[0], span) for m, span in served if m.quotes]
    known = max((at for (at, _), _ in first), default=0.0)
    later = [(quote, span) for m, span in served for quote in m.quotes if known <= quote[0] <= span.began]
    for name, quotes in (("first said", first), ("said once all had come", later)):
        waited = [span.began - at for (at, _), span in quotes]
        off = [left - (span.began - at) for (at, left), span in quotes]
        error = statistics.mean(map(abs, off)) / max(statistics.mean(waited), 1e-9)
        bias = statistics.mean(off) / max(statistics.mean(waited), 1e-9)
        print(f"  time to wait as {name} ({len(off)}): mean absolute error {error:.0%} of the wait, bias {bias:+.0%}")


def quantiles(values: Sequence[float]) -> str:
    """Of milliseconds."""
    ranked = sorted(values)
    p99 = ranked[min(int(0.99 * len(ranked)), len(ranked) - 1)]
    return f"median {median(ranked):.1f}, p99 {p99:.1f}, most {ranked[-1]:.1f} ms"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def machine() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return (
        f"{datetime.datetime.now():%Y-%m-%d %H:%M} · {names[0] if names else platform.machine()} · "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version} · {load()}"
    )


@asynccontextmanager
async def service(home: str, stand_in: bool) -> AsyncGenerator[int]:
    options = ("--stand-in",) if stand_in else ()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.crowd", "--serve", home, *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        with closing(process.stdin):
            process.stdin.write_eof()
        await process.wait()


async def measure(args: argparse.Namespace) -> None:
    print(machine())
    sentence = SENTENCE.format(steps=args.steps)
    with tempfile.TemporaryDirectory() as home:
        async with service(home, args.stand_in) as port:
            patience = ClientTimeout(total=None, sock_connect=30)
            async with ClientSession(f"http://127.0.0.1:{port}", timeout=patience) as session:
                driver = Driver(session, sentence, args.seconds)
                (chat,) = await driver.chats([secrets.token_urlsafe(32)])
                for _ in range(2):  # loads the base; gives the queue a pace
                    await driver.ask(chat)
                await chat.close()
                print(f"“{sentence}”, a picture of the engine alone: {median(await driver.bare(3)):.3f} s")
                if args.people:
                    await driver.crowd(args.people)
                for callers in args.callers:
                    await (driver.one_caller() if callers == 1 else driver.many_callers(callers))


def main() -> None:
    parser = argparse.ArgumentParser(description="The service under a crowd.")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--callers", type=lambda said: [int(n) for n in said.split(",") if n], default=[1, 32])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each number of callers")
    parser.add_argument("--steps", type=int, default=12, help="of each picture")
    parser.add_argument("--stand-in", action="store_true", help="a worker that only sleeps")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(args.serve, args.stand_in) if args.serve else measure(args))


if __name__ == "__main__":
    main()

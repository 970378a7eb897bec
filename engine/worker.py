"""The parent's side of the worker process: starts it, speaks with it, and ends it when it no longer moves."""

import asyncio
import itertools
import logging
import statistics
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import WorkerDied, WorkerHung
from engine.jobs import Event
from engine.plans import Plan
from engine.wire import error_head, error_of, message, receive

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: without any step; before a plan's first one (a base is loaded then); for a plan to stop when told to.

    `starts` is how many processes may be started within a minute before the next one waits.
    """

    step: float = 30.0
    first: float = 300.0
    stop: float = 30.0
    starts: int = 3


@dataclass(slots=True)
class Run:
    """One plan that is under way: in which process, what that says of it, and whether it has said anything yet."""

    process: asyncio.subprocess.Process
    said: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue[dict[str, Any]])
    begun: bool = False


class WorkerExecutor:
    """Satisfies `Executor`: two plans at once, a picture and a training. Raises `WorkerDied`, `WorkerHung`.

    The process is started with the first plan and again whenever it is gone. Steps are what is watched: a process
    that lives but does not move is killed after `patience`, or ten times its usual step where that is longer.
    """

    slots = 2

    def __init__(
        self,
        shipped: Path,
        home: Path,
        patience: Patience = Patience(),
        command: Sequence[str] | None = None,
        memory: str = "auto",
    ) -> None:
        self._command = tuple(command or (sys.executable, "-m", "engine.child", str(shipped), str(home), memory))
        self._patience = patience
        self._numbers = itertools.count()
        self._runs: dict[int, Run] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._started: deque[float] = deque(maxlen=patience.starts)
        self._gaps: deque[float] = deque(maxlen=50)
        self._last = 0.0
        self._opening = asyncio.Lock()
        self._hung: asyncio.subprocess.Process | None = None  # the latest that was ended as it did not move
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def state(self) -> str:
        """idle, busy, or gone (it is started again with the next plan)."""
        return "gone" if self.pid is None else "busy" if self._runs else "idle"

    async def run(self, plan: Plan) -> AsyncGenerator[Event]:
        process = await self._open()
        number = next(self._numbers)
        run = self._runs[number] = Run(process)
        self._last = time.monotonic()
        ended = False
        try:
            await _send(process, message({"run": number}, Plan, plan))
            while True:
                head = await run.said.get()
                ended = "value" not in head
                if "error" in head:
                    raise error_of(head)
                if ended:
                    return
                yield head["value"]
        finally:
            try:
                if not ended:
                    await self._stop(process, number, run)
            finally:
                del self._runs[number]

    def hurry(self) -> None:
        """From now on a plan that is left is not waited for: its process ends with ours, weights and all."""
        self._is_closing = True

    async def close(self) -> None:
        if self._process:
            self._kill(self._process)
        await self._gone()

    async def _stop(self, process: asyncio.subprocess.Process, number: int, run: Run) -> None:
        """Wait until it has put the weights back; one that does not is ended."""
        try:
            async with asyncio.timeout(0 if self._is_closing else self._patience.stop):
                await _send(process, message({"stop": number}))
                while "value" in await run.said.get():
                    pass
        except TimeoutError:
            self._kill(process)

    async def _open(self) -> asyncio.subprocess.Process:
        async with self._opening:
            if self._process is None or self._process.returncode is not None or self._reader is None:
                await self._gone()
                await self._pause()
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20
                )
                self._last = time.monotonic()
                self._reader = asyncio.create_task(self._listen(self._process))
            return self._process

    async def _gone(self) -> None:
        """Until the last process has let go of what it held."""
        if self._reader:
            await asyncio.wait([self._reader], timeout=self._patience.stop)

    async def _pause(self) -> None:
        """Where it dies again and again, it is not started as fast as it can die."""
        if len(self._started) == self._started.maxlen and (wait := self._started[0] + 60 - time.monotonic()) > 0:
            log.warning("the worker died too often: the next one starts in %.0f s", wait)
            await asyncio.sleep(wait)
        self._started.append(time.monotonic())

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand on what the worker says until it has gone; then everyone who waits is told."""
        assert process.stdout is not None
        watch = asyncio.create_task(self._watch(process))
        try:
            while (head := await receive(process.stdout, Event)) is not None:
                self._hear(head)
        finally:
            watch.cancel()
            self._kill(process)
            await process.wait()
            gone: dict[str, Any] = error_head(WorkerHung() if self._hung is process else WorkerDied())
            for run in self._runs.values():
                if run.process is process:  # the next one may have been started meanwhile
                    run.said.put_nowait(gone)

    def _hear(self, head: dict[str, Any]) -> None:
        now = time.monotonic()
        if (run := self._runs.get(head.get("of", -1))) is not None:
            if run.begun:
                self._gaps.append(now - self._last)
            run.begun = True
            run.said.put_nowait(head)
        self._last = now

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        nap = min(self._patience.step / 10, 1)
        while True:
            began = time.monotonic()
            await asyncio.sleep(nap)
            now = time.monotonic()
            self._last = min(now, self._last + (now - began - nap))  # while we stood still, it may have moved
            if self._runs and time.monotonic() - self._last > self._limit():
                log.error("the worker %s does not move: it is ended", process.pid)
                self._hung = process
                self._kill(process)
                return

    def _limit(self) -> float:
        if not all(run.begun for run in self._runs.values()):
            return self._patience.first
        return max(self._patience.step, 10 * statistics.median(self._gaps or (0,)))

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        """From here on the next plan has a new one, though this one may take a moment to go."""
        if self._process is process:
            self._process = None
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()


async def _send(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with suppress(ConnectionError):  # it has gone: `_listen` says so to the run
        process.stdin.write(data)
        await process.stdin.drain()

"""The open door: the desk, the durable queue, the worker and the platforms, started and stopped together."""

import asyncio
import hashlib
import logging
import shutil
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from aiohttp import web
from aiohttp.http import HttpProcessingError

from bot.api import health
from bot.assistant import Assistant
from bot.desk import Desk
from bot.message import Door, Inbound
from engine.database import Database
from engine.durable import LANES, DurableQueue
from engine.plans import MAX_COUNT, MAX_SEED, ImagePlan
from engine.worker import WorkerExecutor

log = logging.getLogger(__name__)

LEAST_FREE = 200_000_000  # bytes of disk under which the service says that it is not ready
WATCH = 0.5  # seconds between two looks at the worker
GRACE = 10.0  # seconds that open requests have when the service ends


def seed_of(inbound: Inbound) -> int:
    """The same for each delivery of a message, so that it is the same picture however often it is planned."""
    digest = hashlib.sha256(inbound.key.encode()).digest()
    return int.from_bytes(digest[:8], "big") % (MAX_SEED - MAX_COUNT)


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """What is no HTTP at all has been answered with 400, and who hangs up needs no answer: anyone can do either."""
    return record.exc_info is None or not isinstance(record.exc_info[1], (HttpProcessingError, ConnectionError))


@dataclass(slots=True)
class Service:
    """Satisfies `health.Vitals`. `first` is a plan of one step that brings the base into a new worker's memory."""

    database: Database
    queue: DurableQueue
    executor: WorkerExecutor
    assistant: Assistant
    desk: Desk
    doors: Mapping[str, Door]
    first: ImagePlan
    began: float
    warmed: int | None = None  # the worker whose first step is done

    @asynccontextmanager
    async def open(self, host: str, port: int) -> AsyncGenerator[int]:
        """Serve within the block; yields the port. Doors open last and close first."""
        logging.getLogger("aiohttp.server").addFilter(is_worth_a_line)
        site = web.Application(client_max_size=1_000_000)
        health.add_routes(site, self)
        for door in self.doors.values():
            door.mount(site, self.desk.receive)
        await self.queue.start()
        await self.desk.start()
        runner = web.AppRunner(
            site, auto_decompress=False, keepalive_timeout=75, shutdown_timeout=GRACE, access_log=None
        )
        await runner.setup()
        holding = [asyncio.create_task(self._hold(door)) for door in self.doors.values()]
        try:
            listener = web.TCPSite(runner, host, port)
            await listener.start()
            holding.append(asyncio.create_task(self._keep_warm()))
            yield runner.addresses[0][1]
        finally:
            for task in holding:
                task.cancel()
            self.executor.hurry()
            await asyncio.gather(*holding, self.queue.close(), return_exceptions=True)
            await runner.cleanup()
            await self.desk.close()
            for door in self.doors.values():
                await door.close()
            await self.assistant.close()
            await self.executor.close()
            await self.database.close()

    async def _keep_warm(self) -> None:
        """A new worker loads the base before somebody waits for it."""
        while True:
            if self.executor.pid is None or self.executor.pid != self.warmed:
                try:
                    async for _ in self.executor.run(self.first):
                        self.warmed = self.executor.pid
                except Exception as error:  # no process, no handle: the next look may find one
                    log.error("the worker cannot draw: %s: %s", type(error).__name__, error)
            await asyncio.sleep(WATCH)

    async def _hold(self, door: Door) -> None:
        """A door's connection, opened again when it breaks."""
        wait = 1.0
        while True:
            began = time.monotonic()
            try:
                await door.run()
                return
            except Exception as error:
                log.error("the door %s closed: %s: %s", door.name, type(error).__name__, error)
            wait = 1.0 if time.monotonic() - began > 60 else min(wait * 2, 60.0)
            await asyncio.sleep(wait)

    def health(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "seconds": round(time.monotonic() - self.began, 1),
            "worker": {"pid": self.executor.pid, "state": self.executor.state},
            "waiting": {lane: len(self.queue.waiting(lane)) for lane in LANES},
            "unanswered": self.desk.unanswered,
            "doors": sorted(self.doors),
        }

    async def unready(self) -> str:
        if self.executor.pid is None or self.executor.pid != self.warmed:
            return "the worker is being started"
        if shutil.disk_usage(self.database.file.parent).free < LEAST_FREE:
            return "the disk is full"
        try:
            async with asyncio.timeout(2):
                await self.database.run(lambda c: c.execute(sa.text("select 1")).scalar())
        except Exception as error:
            return f"the database does not answer: {type(error).__name__}"
        return ""

    def gauges(self) -> dict[str, float]:
        waiting = {f"jobs_waiting_{lane}": float(len(self.queue.waiting(lane))) for lane in LANES}
        return waiting | {
            "messages_unanswered": float(self.desk.unanswered),
            "worker_up": float(self.executor.pid is not None),
            "uptime_seconds": time.monotonic() - self.began,
        }

    def counters(self) -> dict[str, dict[tuple[str, str], float]]:
        tally = self.desk.tally
        by_platform = {
            "messages_received": tally.received, "messages_answered": tally.answered,
            "replies_delivered": tally.delivered, "replies_undeliverable": tally.undeliverable,
        }  # fmt: skip
        counted = {
            name: {("platform", platform): float(count) for platform, count in counter.items()}
            for name, counter in by_platform.items()
        }
        ended = {("state", state): float(count) for state, count in self.queue.ended.items()}
        return counted | {
            "jobs_ended": ended, "worker_deaths": {("worker", "local"): float(self.queue.worker_deaths)}
        }  # fmt: skip

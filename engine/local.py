"""The executor of this slice: one thread of this process, which owns the loaded bases."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.bases.memory import Wanted
from engine.catalog import Catalog
from engine.jobs import Event
from engine.plans import Plan


class LocalExecutor:
    """Satisfies `Executor`. torch is imported at the first plan, in the thread: a refused request costs nothing."""

    slots = 1

    def __init__(self, catalog: Catalog, home: Path, memory: Wanted = "auto") -> None:
        self._catalog = catalog
        self._memory: Wanted = memory
        self._home = home
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._runners: object = None

    async def run(self, plan: Plan) -> AsyncGenerator[Event]:
        loop = asyncio.get_running_loop()
        steps = await loop.run_in_executor(self._thread, self._start, plan)
        try:
            while (event := await loop.run_in_executor(self._thread, next, steps, None)) is not None:
                yield event
        finally:  # on cancel too: the runner puts the weights back
            await asyncio.shield(loop.run_in_executor(self._thread, _close, steps))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    def _start(self, plan: Plan) -> Iterator[Event]:
        from engine.runners import Runners

        if not isinstance(self._runners, Runners):
            self._runners = Runners(self._catalog, self._home, wanted=self._memory)
        return self._runners.run(plan)


def _close(steps: Iterator[Event]) -> None:
    close = getattr(steps, "close", None)
    if close:
        close()

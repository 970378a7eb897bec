"""A worker without torch: `python -m tests.fakes.child SHIPPED HOME [SECONDS]`, a step in so many seconds.

What it does beside is written in the prompt, or in the class word of a training: “kill@2” at step 2. An act that ends
in “1” is done once in the life of the home.
"""

import asyncio
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from engine import child
from engine.catalog import Catalog
from engine.errors import OutOfMemory
from engine.jobs import Event, Progress
from engine.plans import ImagePlan, Plan, TrainPlan
from tests.fakes.executor import FakeExecutor, train

ACT = re.compile(r"(kill|freeze|poison|fault|memory|stubborn)(1?)@(\d+)")


class Scripted(FakeExecutor):
    """As many steps as the plan has."""

    def __init__(self, catalog: Catalog, home: Path, pace: float) -> None:
        super().__init__(catalog, home)
        self._pace = pace

    async def run(self, plan: Plan) -> AsyncGenerator[Event]:
        is_training = isinstance(plan, TrainPlan)
        acts = {int(step): (act, once) for act, once, step in ACT.findall(plan.word if is_training else plan.prompt)}
        try:
            for step in range(1, plan.steps + 1):
                await asyncio.sleep(self._pace)
                await self._act(*acts.get(step, ("", "")))
                yield Progress(
                    "training" if is_training else "drawing", step, plan.steps, loss=0.1 if is_training else None
                )
        finally:
            if any(act == "stubborn" for act, _ in acts.values()):
                await asyncio.sleep(60)
        yield self.draw(plan) if isinstance(plan, ImagePlan) else train(plan)

    async def _act(self, act: str, once: str) -> None:
        done = self.home / f"did-{act}"
        if once and done.exists():
            return
        if once:
            done.touch()
        match act:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "poison":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            case "fault":
                raise ValueError("no such luck")
            case "memory":
                raise OutOfMemory("draw that")
            case _:
                pass


async def _main(shipped: Path, home: Path, pace: float, out: object) -> None:
    source = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), sys.stdin)
    await child.Child(Scripted(Catalog(shipped, home / "loras"), home, pace), out).serve(source)  # pyright: ignore
    os._exit(0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    child._collect = gc.collect  # pyright: ignore[reportPrivateUsage]
    pace = float(sys.argv[3]) if len(sys.argv) > 3 else 0.01
    asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2]), pace, os.fdopen(os.dup(1), "wb")))

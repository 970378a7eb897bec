"""The worker process, `python -m engine.child SHIPPED HOME MEMORY`: it alone holds the GPU, so that it can be replaced.

It runs what it is sent and says what comes of it. A picture has the engine to itself; a training shares it step by
step, so a waiting picture is drawn between two of its steps, and after each picture the training has one.
"""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from engine.bases.memory import Wanted
from engine.catalog import Catalog
from engine.errors import AtelierError, Fault, OutOfMemory
from engine.jobs import Event
from engine.local import LocalExecutor
from engine.plans import ImagePlan, Plan
from engine.wire import error_head, message, receive

log = logging.getLogger(__name__)
POISONED = 70  # exit code: the device's context can no longer be trusted


class Child:
    def __init__(self, executor: LocalExecutor, out: BinaryIO) -> None:
        self._executor = executor
        self._out = out
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()  # wakes those who wait in the order in which they came

    async def serve(self, source: asyncio.StreamReader) -> None:
        """Until the parent has gone."""
        self._say({"ready": os.getpid()})
        while (head := await receive(source, Plan)) is not None:
            if "run" in head:
                self._runs[head["run"]] = asyncio.create_task(self._carry_out(head["run"], head["value"]))
            elif run := self._runs.get(head["stop"]):
                run.cancel()

    async def _carry_out(self, number: int, plan: Plan) -> None:
        try:
            if not await self._has_room(number, plan):
                _collect()
                await self._tell(number, plan)
        except asyncio.CancelledError:
            self._say({"of": number, "end": True})
        except AtelierError as error:
            self._say({"of": number} | error_head(error))
        except Exception as error:  # whatever it is, the parent has to hear of it
            log.exception("a fault in the worker")
            if is_poison(error):
                os._exit(POISONED)  # without a word: its plans are tried again by the next worker
            self._say({"of": number} | error_head(Fault(type(error).__name__, str(error)[:300])))
        finally:
            self._runs.pop(number, None)

    async def _has_room(self, number: int, plan: Plan) -> bool:
        """Carry it out. False: a picture found no memory; once this returns, no traceback holds on to its tensors."""
        try:
            await self._tell(number, plan)
        except OutOfMemory:
            if not isinstance(plan, ImagePlan):
                raise
            return False
        return True

    async def _tell(self, number: int, plan: Plan) -> None:
        async with aclosing(self._paced(plan)) as events:
            async for event in events:
                self._say({"of": number}, Event, event)
        self._say({"of": number, "end": True})

    async def _paced(self, plan: Plan) -> AsyncGenerator[Event]:
        async with aclosing(self._executor.run(plan)) as steps:
            if isinstance(plan, ImagePlan):
                async with self._turn:
                    async for event in steps:
                        yield event
                return
            while True:
                async with self._turn:
                    event = await anext(steps, None)
                if event is None:
                    return
                yield event

    def _say(self, head: dict[str, Any], kind: Any = None, value: object = None) -> None:
        with suppress(BrokenPipeError):  # the parent has gone; `serve` ends by itself
            self._out.write(message(head, kind, value))
            self._out.flush()


def is_poison(error: Exception) -> bool:
    """A device error after which nothing that this process computes can be trusted."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def _collect() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


async def _main(shipped: Path, home: Path, memory: Wanted, out: BinaryIO) -> None:
    source = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), sys.stdin)
    await Child(LocalExecutor(Catalog(shipped, home / "loras"), home, memory), out).serve(source)


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no message
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_run_and_leave(Path(sys.argv[1]), Path(sys.argv[2]), cast(Wanted, sys.argv[3]), out))


async def _run_and_leave(shipped: Path, home: Path, memory: Wanted, out: BinaryIO) -> None:
    await _main(shipped, home, memory, out)
    os._exit(0)  # the thread may be within a step that takes a while: nobody waits for it


if __name__ == "__main__":
    main()

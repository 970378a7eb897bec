"""The service as it is, with a worker that needs no torch: `python -m tests.fakes.service --home DIR run --port N`."""

import sys
from pathlib import Path

from bot import wiring
from bot.__main__ import main
from engine.worker import WorkerExecutor

PACE = "0.02"  # seconds a step


def quick(shipped: Path, home: Path, memory: str) -> WorkerExecutor:
    command = (sys.executable, "-m", "tests.fakes.child", str(shipped), str(home), PACE)
    return WorkerExecutor(shipped, home, command=command, memory=memory)


if __name__ == "__main__":
    wiring.WorkerExecutor = quick  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(main())

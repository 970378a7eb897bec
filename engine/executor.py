"""The one seam between what is asked and where it runs: a thread here, later a process, later other machines."""

from collections.abc import AsyncGenerator
from typing import Protocol

from engine.jobs import Event
from engine.plans import Plan


class Executor(Protocol):
    """Runs plans. Closing the generator of `run` stops the work and puts the weights back."""

    slots: int

    def run(self, plan: Plan) -> AsyncGenerator[Event]:
        """Progress…, then one Result."""
        ...

    async def close(self) -> None: ...

"""Where a command's words go: its result to stdout, everything on the way to stderr."""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from bot.message import printable
from engine.errors import AtelierError, Cancelled, TryLater, UserError

DONE, OURS, MISTAKE, LATER, INTERRUPTED = 0, 1, 2, 3, 130


class Going(Protocol):
    """How far something is: the engine's Progress, or what a reply says of it."""

    @property
    def stage(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def part(self) -> int: ...
    @property
    def parts(self) -> int: ...
    @property
    def loss(self) -> float | None: ...


@dataclass
class Terminal:
    """`as_json`: the result, or the error, is one JSON object."""

    as_json: bool = False
    _began: float = field(default_factory=time.monotonic)
    _stage: str = ""
    _line: int = 0  # characters of a progress line that stands unfinished

    def result(self, data: dict[str, Any], lines: Iterable[str]) -> None:
        self._finish_line()
        text = json.dumps(data, default=str) if self.as_json else printable("\n".join(lines))
        sys.stdout.write(text + "\n" if text else "")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """A line of conversation: on stdout, but where that belongs to the JSON."""
        self._finish_line()
        out = sys.stderr if self.as_json else sys.stdout
        out.write(printable(text) + "\n")
        out.flush()

    def note(self, text: str) -> None:
        self._finish_line()
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()

    def progress(self, event: Going) -> None:
        """One line that is rewritten on a terminal; elsewhere a line each tenth of the way."""
        if event.stage != self._stage:
            self._stage, self._began = event.stage, time.monotonic()
        done = (event.part - 1) * event.steps + event.step
        total = event.parts * event.steps
        if sys.stderr.isatty():
            text = self._words(event, done, total)
            sys.stderr.write("\r" + text.ljust(self._line))
            self._line = len(text)
        elif event.loss is not None and (event.step == event.steps or event.step % max(event.steps // 10, 1) == 0):
            sys.stderr.write(self._words(event, done, total) + "\n")
        sys.stderr.flush()

    def fail(self, error: AtelierError) -> int:
        """Say the error; the exit code that goes with it."""
        self._finish_line()
        if self.as_json:
            said = {"code": error.code, "message": error.message, "hint": error.hint}
            sys.stdout.write(json.dumps({"error": said}) + "\n")
        else:
            sys.stderr.write(printable(f"atelier: {error.message} {error.hint}").rstrip() + "\n")
        return exit_code(error)

    def _words(self, event: Going, done: int, total: int) -> str:
        words = f"{event.stage} {event.step}/{event.steps}"
        if event.parts > 1:
            words += f" of {event.part}/{event.parts}"
        if event.loss is not None:
            words += f", loss {event.loss:.4f}"
        left = (time.monotonic() - self._began) / max(done, 1) * (total - done)
        return f"{words}, {_duration(left)} left" if 0 < done < total else words

    def _finish_line(self) -> None:
        if self._line:
            sys.stderr.write("\n")
            self._line = 0


def exit_code(error: AtelierError) -> int:
    match error:
        case UserError():
            return MISTAKE
        case TryLater():
            return LATER
        case Cancelled():
            return INTERRUPTED
        case _:
            return OURS


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"

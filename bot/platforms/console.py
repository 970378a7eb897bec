"""The terminal: a conversation by hand, or one message a line on a pipe. `@path` attaches a file, or all of a folder.

Replies go to stdout, progress to stderr. With `as_json` each reply that is no progress is one line of JSON.
"""

import asyncio
import io
import json
import os
import re
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict

from bot.message import Answer, Attachment, Inbound, Reply, Trouble, printable

ATTACHED = re.compile(r"(?<!\S)@(?:\"([^\"]+)\"|'([^']+)'|(\S+))")
PROMPT = "you> "
ENDS = {"exit", "quit", "bye", ":q"}
LARGEST = 20_000_001  # bytes of a file that are read: one more than a picture may have
MOST = 200  # files of a folder
MOST_BYTES = 300_000_000  # of what is read of a folder
LONGEST = 100_000  # bytes of a line that are kept: enough to be refused
THREAD = "console"


class Settings(BaseModel):
    """The section [console]."""

    model_config = ConfigDict(frozen=True)

    as_json: bool = False


class CannotRead(Exception):
    """A file named with @ that is not there or not readable."""


def to_inbound(line: str, number: int) -> Inbound:
    """`line` with its @paths read. An @word that is no file stays text; one that looks like a path: `CannotRead`."""
    attachments: list[Attachment] = []

    def attach(match: re.Match[str]) -> str:
        said = match[1] or match[2] or match[3]
        found = files_at(said if match[1] or match[2] else said.rstrip(",;"))
        if found is None:
            return match[0]
        attachments.extend(found)
        return " "

    text = ATTACHED.sub(attach, line)
    return Inbound(
        id=f"{THREAD}-{number}", thread=THREAD, person=THREAD, text=text.strip(), attachments=tuple(attachments)
    )


def files_at(said: str) -> list[Attachment] | None:
    """The file, or the files of the folder; None where it is no path at all."""
    try:
        path = Path(said).expanduser()
        if path.is_dir():
            return _read_all(path)
        if path.is_file():
            return [_read(path)]
    except OSError as error:
        raise CannotRead(f"{said} cannot be read: {error.strerror or error}") from None
    except RuntimeError:  # ~ with the name of no user
        raise CannotRead(f"There is no file {said}.") from None
    if "/" in said or "." in said:
        raise CannotRead(f"There is no file {said}.")
    return None


def _read_all(folder: Path) -> list[Attachment]:
    """The files in a folder but the hidden ones. What they come to is judged before any is read."""
    inside = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))[:MOST]
    if sum(min(file.stat().st_size, LARGEST) for file in inside) > MOST_BYTES:
        raise CannotRead(f"The files in {folder} are more than {MOST_BYTES // 1_000_000} MB together.")
    return [_read(file) for file in inside]


def _read(path: Path) -> Attachment:
    with path.open("rb") as file:
        most = MOST_BYTES if path.suffix.lower() == ".safetensors" else LARGEST
        return Attachment(name=printable(path.name), data=file.read(most))


def to_text(reply: Reply) -> str:
    """What stands on the terminal: the words, then a line for each file."""
    lines = [reply.text, *(f"  {one.file}" for one in (*reply.pictures, *reply.files))]
    if reply.lora:
        lines.append(f"  {reply.lora.folder}")
    return printable("\n".join(lines))


def to_json(reply: Reply) -> str:
    return json.dumps(reply.model_dump(mode="json", exclude_none=True, exclude={"actions"}))


class Console:
    """Satisfies the platform's protocol: `post` one reply, `serve` until the input ends."""

    def __init__(self, as_json: bool = False, source: TextIO | None = None) -> None:
        self._as_json = as_json
        self._source = source or sys.stdin or io.StringIO()  # none where stdin is closed
        self._held = b""  # what was read beyond the last line
        self._on_progress = False

    async def post(self, reply: Reply) -> None:
        if reply.progress:
            self._progress(reply)
            return
        self._end_progress()
        print(to_json(reply) if self._as_json else to_text(reply), flush=True)

    async def serve(self, answer: Answer) -> None:
        """One message at a time; an empty line is skipped by hand, and answered on a pipe."""
        by_hand = self._source.isatty()
        number = 0
        while (line := await (self._typed() if by_hand else self._line())) is not None:
            said = line.strip()
            if said.lower() in ENDS:
                return
            if by_hand and not said:
                continue
            number += 1
            try:
                inbound = to_inbound(line, number)
            except CannotRead as error:
                await self.post(
                    Reply(
                        text=str(error),
                        error=Trouble(code="invalid", message=str(error), hint="Check what stands after @."),
                    )
                )
                continue
            async with aclosing(answer(inbound)) as replies:
                async for reply in replies:
                    await self.post(reply)

    async def _typed(self) -> str | None:
        """The next line from a terminal, after the prompt."""
        print(PROMPT, end="", file=sys.stderr, flush=True)
        try:
            return await self._line()
        except asyncio.CancelledError:
            print(file=sys.stderr)
            raise

    async def _line(self) -> str | None:
        """The next line without its end, what is no UTF-8 in it as “�”; None where the input is over."""
        while b"\n" not in self._held:
            more = await self._more()
            if not more:
                break
            self._held = self._held[:LONGEST] + more
        over = not self._held
        line, _, self._held = self._held.partition(b"\n")
        return None if over else line.decode(errors="replace").rstrip("\r")

    async def _more(self) -> bytes:
        """Some bytes when they are there, none at the end. No thread waits for them, to stand in the way of Ctrl-C."""
        try:
            file = self._source.fileno()
        except io.UnsupportedOperation:  # text in memory
            return self._source.readline().encode(errors="replace")
        loop, is_there = asyncio.get_running_loop(), asyncio.Event()
        try:
            loop.add_reader(file, is_there.set)
        except PermissionError:  # a file on the disk, which never keeps one waiting
            return os.read(file, LONGEST)
        try:
            await is_there.wait()
        finally:
            loop.remove_reader(file)
        return os.read(file, LONGEST)

    def _progress(self, reply: Reply) -> None:
        """On a terminal one line that is written over; in a log, its first and last step only."""
        stage = reply.progress
        if sys.stderr.isatty():
            print(f"\r\x1b[K{printable(reply.text)}", end="", file=sys.stderr, flush=True)
            self._on_progress = True
        elif stage and (stage.step in (0, 1, stage.steps) or stage.samples):
            print(printable(reply.text), file=sys.stderr, flush=True)

    def _end_progress(self) -> None:
        if self._on_progress:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._on_progress = False

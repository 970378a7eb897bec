"""All that a platform knows of us: an `Inbound` goes in, `Reply`s come out, and only the last is without `progress`."""

import unicodedata
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

JOINERS = "\u200c\u200d"  # within words of some scripts, and within emoji


def printable(text: str) -> str:
    """`text` as a terminal may have it: a character that would command it, or turn the writing round, becomes “�”."""

    def is_plain(letter: str) -> bool:
        return letter.isprintable() or letter in "\n\t" + JOINERS or unicodedata.category(letter) == "Zs"

    return text if text.isprintable() else "".join(letter if is_plain(letter) else "�" for letter in text)


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Attachment(Frozen):
    """A file as it came, unchecked: its name is only a label."""

    name: str
    data: bytes = Field(repr=False)


class Inbound(Frozen):
    """One message. `id` is the platform's own (delivered twice, it has the same); `thread` is one conversation."""

    id: str
    thread: str
    person: str
    text: str
    attachments: tuple[Attachment, ...] = ()


class Stage(Frozen):
    """How far a running job is: step of steps, of part of parts; `preview` and `samples` are small PNGs."""

    stage: str
    step: int
    steps: int
    part: int = 1
    parts: int = 1
    loss: float | None = None
    preview: bytes | None = Field(default=None, exclude=True, repr=False)
    samples: tuple[bytes, ...] = Field(default=(), exclude=True, repr=False)


class Shown(Frozen):
    """A finished picture: where it was kept, and its whole recipe."""

    file: Path
    recipe: dict[str, Any]


class NewLora(Frozen):
    """What a training ended with."""

    name: str
    kind: str
    trigger: str
    folder: Path


class Trouble(Frozen):
    """What went wrong in one sentence, and what to do; `incident` finds a fault of ours in the log."""

    code: str
    message: str
    hint: str = ""
    incident: str | None = None


class Reply(Frozen):
    """One thing said. `intent` is what the message was taken for."""

    text: str
    intent: str | None = None
    pictures: tuple[Shown, ...] = ()
    lora: NewLora | None = None
    progress: Stage | None = None
    error: Trouble | None = None


Answer = Callable[[Inbound], AsyncGenerator[Reply]]

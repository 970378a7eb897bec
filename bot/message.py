"""All that a platform knows of us: an `Inbound` goes in, `Reply`s come out, and only the last is without `progress`."""

import hashlib
import unicodedata
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from aiohttp import web

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


Verb = Literal["vary", "seed", "why", "recipe", "train", "cancel"]


class Press(Frozen):
    """A button: its verb, the `key` of the message whose answer it stands under, and which of its pictures, from 0."""

    verb: Verb
    of: str
    picture: int = Field(default=0, ge=0, le=3)


class Inbound(Frozen):
    """One message, or one pressed button.

    `id` is the platform's own (delivered twice, it has the same); `thread` is one conversation, `channel` the place
    that it stands in, whose settings it shares ("" where there is no such thing).
    """

    id: str
    thread: str
    person: str
    text: str
    attachments: tuple[Attachment, ...] = ()
    platform: str = "console"
    channel: str = ""
    press: Press | None = None

    @property
    def key(self) -> str:
        """One for each message there is, on whichever platform: two deliveries of one message share it."""
        return f"{self.platform}:{self.id}"

    @property
    def tag(self) -> str:
        """What stands for the key in a log: on the page, whoever knows the key may read along."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:10]

    @property
    def talk(self) -> str:
        """One for each conversation there is, on whichever platform."""
        return f"{self.platform}:{self.thread}"


class Stage(Frozen):
    """How far a running job is: step of steps, of part of parts; `preview` and `samples` are small PNGs.

    While it waits, `stage` is "queued" and `place` says how many go before it, plus one. `left`: seconds, about.
    """

    stage: str
    step: int
    steps: int
    part: int = 1
    parts: int = 1
    loss: float | None = None
    place: int | None = None
    left: float | None = None
    preview: bytes | None = Field(default=None, exclude=True, repr=False)
    samples: tuple[bytes, ...] = Field(default=(), exclude=True, repr=False)


class Shown(Frozen):
    """A finished picture: where it was kept, the SHA-256 of that file, and its whole recipe."""

    file: Path
    recipe: dict[str, Any]
    sha256: str = ""


class Sent(Frozen):
    """A file that goes with an answer: its name for the person, where it was kept, its content's SHA-256 and size."""

    name: str
    file: Path
    sha256: str
    size: int


class NewLora(Frozen):
    """What a training, or an import, ended with."""

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
    """One thing said. `intent` is what the message was taken for; `actions` are the buttons that go with it."""

    text: str
    intent: str | None = None
    pictures: tuple[Shown, ...] = ()
    lora: NewLora | None = None
    progress: Stage | None = None
    error: Trouble | None = None
    actions: tuple[Verb, ...] = ()
    files: tuple[Sent, ...] = ()


Answer = Callable[[Inbound], AsyncGenerator[Reply]]


class Said(Frozen):
    """A message, and its answer once there is one."""

    inbound: Inbound
    reply: Reply | None


class OnShelf(Frozen):
    """A LoRA as a page shows it."""

    name: str
    title: str
    kind: str
    trigger: str
    summary: str
    weight: float
    licence: str
    commercial: bool
    shipped: bool


class Receive(Protocol):
    async def __call__(self, inbound: Inbound, hold: float = 0.0) -> bool:
        """Store a message; it may be acknowledged once this returns. False: it was there already.

        It is taken up after `hold` seconds. A twin that comes before then and has files gives them to it.
        Raises `Full` when there is no room.
        """
        ...


class Full(Exception):
    """No more messages are taken now: come back after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no room for {seconds:g} s")
        self.seconds = seconds


class Undeliverable(Exception):
    """This reply will never arrive, so it is not tried again."""


class RetryLater(Exception):
    """This reply did not arrive; whoever it is for asked for `after` seconds of peace, if for any."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class House(Protocol):
    """What a door may look up."""

    async def past(self, thread: str) -> tuple[Said, ...]:
        """The thread's latest messages, from the oldest; of their files the names alone."""
        ...

    async def picture(self, sha256: str) -> bytes | None:
        """A picture that we drew, by the SHA-256 of its file."""
        ...

    async def file(self, sha256: str) -> bytes | None:
        """A file that an answer was sent with, by its SHA-256."""
        ...

    def shelf(self) -> tuple[OnShelf, ...]: ...

    def preview(self, name: str) -> bytes | None:
        """The preview of a LoRA, a PNG."""
        ...

    def training_pictures(self, name: str) -> tuple[bytes, ...]:
        """PNGs of at most 512 pixels a side."""
        ...


class Door(Protocol):
    """A platform as the service holds it: made by its module's `open_door(settings, house)`."""

    name: str

    def mount(self, site: "web.Application", receive: Receive) -> None:
        """Add routes, and remember where messages go."""
        ...

    async def run(self) -> None:
        """Hold a connection until cancelled; return at once where none is held."""
        ...

    async def close(self) -> None:
        """Let go of what is still held."""
        ...

    async def post(self, to: Inbound, reply: Reply, ref: str | None) -> str | None:
        """Deliver what is said in answer to `to`; progress is best effort, a final reply is tried until it passes.

        `ref` is what the last post for the same message returned, across restarts: the door's own handle of what it
        put there, so that it can be edited. Raises `Undeliverable` to end it, anything else to be tried again later.
        """
        ...

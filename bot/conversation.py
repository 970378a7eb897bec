"""What has been said and drawn in one thread: frozen values, so that a failed answer leaves it as it was."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bot.intent import AskBack, Frame, Genre, Scene
from bot.message import Attachment, Inbound
from bot.uploads import Upload
from engine.plans import Control, ImagePlan, Reference, TrainPlan
from engine.prompts import Span

SHOTS = 20  # pictures of a thread that one can go back to


@dataclass(frozen=True, slots=True)
class Chosen:
    """A LoRA in the stack, at which weight, and why."""

    name: str
    weight: float
    why: str


@dataclass(frozen=True, slots=True)
class Order:
    """A request for a picture in full, as words: what a plan is made from, and what a later change is applied to.

    `emphasis` are the words that were said with a weight of their own: `(red:1.3)`. `controls` and `references` are
    pictures that it follows.
    """

    genre: Genre
    scene: Scene
    stack: tuple[Chosen, ...]
    frame: Frame
    image: bytes | None = None
    strength: float = 0.6
    emphasis: tuple[Span, ...] = ()
    controls: tuple[Control, ...] = ()
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """A complete plan, the order that it came from, what the reply has to say about it, and the intent's kind."""

    plan: ImagePlan | TrainPlan
    order: Order | None = None
    notes: tuple[str, ...] = ()
    intent: str = ""


@dataclass(frozen=True, slots=True)
class Shot:
    """A plan that was drawn: the PNGs are held for a style transfer; `files` says where they were saved.

    `key` is that of the message which it was drawn for. Where a conversation is stored, the PNGs are not: they lie in
    their files.
    """

    order: Order
    plan: ImagePlan
    pngs: Annotated[tuple[bytes, ...], Field(exclude=True)] = ()
    files: tuple[Path, ...] = ()
    key: str = ""

    def only(self, picture: int) -> "Shot":
        """As if that picture of it, from 0, had been drawn alone. IndexError if there is none."""
        plan = replace(self.plan, seed=self.plan.seed + picture, count=1)
        order = replace(self.order, frame=self.order.frame.model_copy(update={"count": None, "seed": None}))
        return replace(
            self, order=order, plan=plan, pngs=(self.pngs[picture],), files=self.files[picture : picture + 1]
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of ours that waits for its answer, and the message that it was about."""

    ask: AskBack
    about: Inbound


@dataclass(frozen=True, slots=True)
class Here:
    """The settings of a channel: LoRAs that every picture there gets, and whether dropped pictures are for training."""

    channel: str = ""
    always: tuple[str, ...] = ()
    trains: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """`shots` from the oldest. Of the message in hand: `files` as they came, `uploads` the checked one to use."""

    thread: str
    here: Here = Here()
    shots: tuple[Shot, ...] = ()
    asked: Asked | None = None
    files: tuple[Attachment, ...] = ()
    uploads: tuple[Upload, ...] = ()

    @property
    def last(self) -> Shot | None:
        return self.shots[-1] if self.shots else None

    def holding(self, files: tuple[Attachment, ...], uploads: tuple[Upload, ...]) -> "Conversation":
        return replace(self, files=files, uploads=uploads)

    def at(self, here: Here) -> "Conversation":
        return replace(self, here=here)

    def shot_of(self, key: str) -> Shot:
        """What was drawn for that message. LookupError if it is not remembered."""
        for shot in reversed(self.shots):
            if shot.key == key:
                return shot
        raise LookupError(key)

    def picking(self, key: str, picture: int) -> "Conversation":
        """One of its pictures as the last one. LookupError if it is not remembered."""
        shot = self.shot_of(key)
        return replace(self.settled(), shots=(*(one for one in self.shots if one is not shot), shot.only(picture)))

    def restored(self) -> "Conversation":
        """As it was stored, with the PNGs from their files; without a shot whose files are gone."""
        whole: list[Shot] = []
        for shot in self.shots:
            with suppress(OSError):
                whole.append(replace(shot, pngs=tuple(file.read_bytes() for file in shot.files)))
        return replace(self, shots=tuple(whole))

    def settled(self) -> "Conversation":
        """Nothing in hand, nothing asked."""
        return replace(self, asked=None, files=(), uploads=())

    def drawn(self, shot: Shot) -> "Conversation":
        return replace(self.settled(), shots=(*self.shots, shot)[-SHOTS:])

    def asking(self, ask: AskBack, about: Inbound) -> "Conversation":
        return replace(self.settled(), asked=Asked(ask, about))

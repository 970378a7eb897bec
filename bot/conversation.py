"""What has been said and drawn in one thread: frozen values, so that a failed answer leaves it as it was."""

from dataclasses import dataclass, replace
from pathlib import Path

from bot.intent import AskBack, Frame, Genre, Scene
from bot.message import Attachment, Inbound
from bot.uploads import Upload
from engine.plans import ImagePlan, TrainPlan

SHOTS = 20  # pictures of a thread that one can go back to


@dataclass(frozen=True, slots=True)
class Chosen:
    """A LoRA in the stack, at which weight, and why."""

    name: str
    weight: float
    why: str


@dataclass(frozen=True, slots=True)
class Order:
    """A request for a picture in full, as words: what a plan is made from, and what a later change is applied to."""

    genre: Genre
    scene: Scene
    stack: tuple[Chosen, ...]
    frame: Frame
    image: bytes | None = None
    strength: float = 0.6


@dataclass(frozen=True, slots=True)
class Planned:
    """A complete plan, the order that it came from, and what the reply has to say about it."""

    plan: ImagePlan | TrainPlan
    order: Order | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shot:
    """A plan that was drawn: the PNGs are kept for a style transfer; `files` says where they were saved."""

    order: Order
    plan: ImagePlan
    pngs: tuple[bytes, ...]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of ours that waits for its answer, and the message that it was about."""

    ask: AskBack
    about: Inbound


@dataclass(frozen=True, slots=True)
class Conversation:
    """`shots` from the oldest. Of the message in hand: `files` as they came, `uploads` the checked one to use."""

    thread: str
    shots: tuple[Shot, ...] = ()
    asked: Asked | None = None
    files: tuple[Attachment, ...] = ()
    uploads: tuple[Upload, ...] = ()

    @property
    def last(self) -> Shot | None:
        return self.shots[-1] if self.shots else None

    def holding(self, files: tuple[Attachment, ...], uploads: tuple[Upload, ...]) -> "Conversation":
        return replace(self, files=files, uploads=uploads)

    def settled(self) -> "Conversation":
        """Nothing in hand, nothing asked."""
        return replace(self, asked=None, files=(), uploads=())

    def drawn(self, shot: Shot) -> "Conversation":
        return replace(self.settled(), shots=(*self.shots, shot)[-SHOTS:])

    def asking(self, ask: AskBack, about: Inbound) -> "Conversation":
        return replace(self.settled(), asked=Asked(ask, about))

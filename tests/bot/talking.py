"""An assistant over the fake engine, and what a person does with it."""

import io
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from bot.assistant import Assistant
from bot.history import Memory
from bot.interpreter import RuleInterpreter
from bot.message import Attachment, Inbound, Reply
from bot.shelf import Shelf
from engine.bases.vocabulary import Vocabulary
from engine.plans import ImagePlan, Plan, TrainPlan
from engine.queue import JobQueue
from engine.store import Store
from tests.fakes.executor import FakeExecutor
from tests.fakes.shelf import make_base, make_catalog

SEED = 1000


def png(shade: int, side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (shade * 11 % 256, 90, 120)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(count: int) -> tuple[Attachment, ...]:
    return tuple(Attachment(name=f"{k:02}.png", data=png(k)) for k in range(count))


def open_shelf(home: Path) -> Shelf:
    base = make_base(home)
    return Shelf(make_catalog(home), base, Vocabulary.of(base), home)


@dataclass
class Talk:
    """One thread. `say` gives the last reply; `replies` holds all of them."""

    home: Path
    replies: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shelf = open_shelf(self.home)
        self.engine = FakeExecutor(self.shelf.catalog, self.home)
        queue = JobQueue(self.engine, Store(self.home), self.shelf.catalog)
        rules = RuleInterpreter(self.shelf.catalog, self.shelf.vocabulary)
        self.assistant = Assistant(queue, self.shelf, rules, Memory(), lambda _: SEED)
        self._ids = itertools.count()

    async def say(self, text: str, attached: int = 0, thread: str = "t", files: tuple[Attachment, ...] = ()) -> Reply:
        inbound = Inbound(
            id=str(next(self._ids)), thread=thread, person="p", text=text, attachments=files or pictures(attached)
        )
        said = [reply async for reply in self.assistant.answer(inbound)]
        self.replies += said
        assert [reply.progress is None for reply in said] == [False] * (len(said) - 1) + [True]
        return said[-1]

    @property
    def plan(self) -> Plan:
        return self.engine.plans[-1]

    @property
    def picture(self) -> ImagePlan:
        assert isinstance(self.plan, ImagePlan)
        return self.plan

    @property
    def training(self) -> TrainPlan:
        assert isinstance(self.plan, TrainPlan)
        return self.plan

    @property
    def stack(self) -> dict[str, float]:
        return {ref.name: ref.weight for ref in self.picture.stack.refs}

"""The composition root: the one place that names concrete classes of both sides."""

import pkgutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bot import platforms
from bot.assistant import Assistant, Queue, any_seed
from bot.conversation import Planned
from bot.desk import Desk
from bot.history import History, Kept, Memory
from bot.house import Lookup
from bot.interpreter import Interpreter, RuleInterpreter
from bot.message import Door, Inbound
from bot.policy import Licensed
from bot.service import Service, seed_of
from bot.settings import Settings, stay_offline
from bot.shelf import Shelf
from engine import bases
from engine.bases import Base
from engine.bases.memory import Wanted
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog
from engine.database import Database
from engine.durable import DurableQueue
from engine.errors import Invalid
from engine.executor import Executor
from engine.plans import ImagePlan
from engine.queue import JobQueue
from engine.store import Store
from engine.wildcards import wildcards
from engine.worker import WorkerExecutor

SHIPPED_LORAS = Path(__file__).resolve().parents[1] / "loras"
ALWAYS_OPEN = ("web",)  # doors that need no section in the settings


@dataclass(frozen=True, slots=True)
class Studio:
    """Everything that a request is answered with."""

    settings: Settings
    catalog: Catalog
    store: Store
    executor: Executor
    queue: JobQueue

    def base(self, name: str | None = None) -> Base:
        """The base of that name, or the one of the settings. Raises `UnknownBase`."""
        return bases.find(name or self.settings.base, self.settings.home)


def local_executor(catalog: Catalog, home: Path, memory: Wanted = "auto") -> Executor:
    """The engine in this process. torch itself is imported at its first plan."""
    from engine.local import LocalExecutor

    return LocalExecutor(catalog, home, memory)


def open_studio(settings: Settings) -> Studio:
    """Nothing is read or written yet, and no torch imported: a refusal costs nothing."""
    stay_offline()
    catalog = Catalog(SHIPPED_LORAS, settings.home / "loras")
    store = Store(settings.home)
    executor = licensed(local_executor(catalog, settings.home, settings.memory), settings, catalog)
    return Studio(settings, catalog, store, executor, JobQueue(executor, store, catalog))


def licensed(executor: Executor, settings: Settings, catalog: Catalog) -> Executor:
    """The executor behind this house's rule for brand work."""
    is_allowed = settings.brand_on_non_commercial
    return Licensed(executor, lambda name: bases.find(name, settings.home), catalog.list, is_allowed)


def open_assistant(studio: Studio, draw_seed: Callable[[Inbound], int] = any_seed) -> Assistant:
    """The conversation of one terminal. `draw_seed` gives the seed of a picture for which none was said."""
    return _assistant(studio, studio.queue, Memory(), draw_seed)


async def open_service(studio: Studio) -> Service:
    """The service on the studio's home, with its database open. `HomeInUse`, `Invalid` for a door's settings."""
    settings, store, catalog = studio.settings, studio.store, studio.catalog
    database = Database(settings.home)
    doors = {name: _door(name, studio, database) for name in door_names() if _is_open(name, settings)}
    if unknown := set(settings.doors) - set(door_names()):
        raise Invalid(
            "doors",
            f"there is no door named {', '.join(sorted(unknown))}",
            f"Those there are: {', '.join(door_names())}.",
        )
    await database.open()  # from here on the home is ours alone
    store.sweep()
    catalog.sweep()
    executor = WorkerExecutor(SHIPPED_LORAS, settings.home, memory=settings.memory)
    queue = DurableQueue(
        JobQueue(licensed(executor, settings, catalog), store, catalog), database, store, catalog, Planned
    )
    history = Kept(database, store)
    assistant = _assistant(studio, queue, history, seed_of)
    desk = Desk(database, store, history, assistant.answer, doors)
    return Service(database, queue, executor, assistant, desk, doors, first_step(studio.base()), time.monotonic())


def first_step(base: Base) -> ImagePlan:
    """The smallest plan there is for a base."""
    side, said = base.size.native, base.defaults
    return ImagePlan("a picture", base.name, 0, side, side, 1, said.guidance, said.sampler)


def door_names() -> tuple[str, ...]:
    """The platforms that a service can hold open: each is a module of bot/platforms with an `open_door`."""
    found = sorted(module.name for module in pkgutil.iter_modules(platforms.__path__) if not module.ispkg)
    return tuple(name for name in found if hasattr(_module(name), "open_door"))


def _module(name: str) -> Any:
    return import_module(f"bot.platforms.{name}")


def _is_open(name: str, settings: Settings) -> bool:
    return name in ALWAYS_OPEN or name in settings.doors


def _door(name: str, studio: Studio, database: Database) -> Door:
    module = _module(name)
    said = studio.settings.door(name, module.Settings)
    return module.open_door(said, Lookup(name, database, studio.store, studio.catalog))


def _assistant(studio: Studio, queue: Queue, history: History, draw_seed: Callable[[Inbound], int]) -> Assistant:
    base = studio.base()
    vocabulary = Vocabulary.of(base)
    catalog = studio.catalog.on(base)
    shelf = Shelf(catalog, base, vocabulary, studio.settings.home)
    lines = wildcards(studio.settings.home, is_prose=True)
    return Assistant(queue, shelf, _interpreter(studio, catalog, vocabulary), history, draw_seed, lines)


def _interpreter(studio: Studio, catalog: Catalog, vocabulary: Vocabulary | None) -> Interpreter:
    rules = RuleInterpreter(catalog, vocabulary)
    if studio.settings.llm is None:
        return rules
    from bot.llm import LlmInterpreter  # openai takes a second to import

    return LlmInterpreter(studio.settings.llm, rules, catalog, vocabulary)

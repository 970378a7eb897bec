"""The composition root: the one place that names concrete classes of both sides."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bot.assistant import Assistant
from bot.interpreter import RuleInterpreter
from bot.settings import Settings, stay_offline
from bot.shelf import Shelf
from engine import bases
from engine.bases import Base
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog
from engine.executor import Executor
from engine.queue import JobQueue
from engine.store import Store

SHIPPED_LORAS = Path(__file__).resolve().parents[1] / "loras"


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


def local_executor(catalog: Catalog, home: Path) -> Executor:
    """The engine in this process. torch itself is imported at its first plan."""
    from engine.local import LocalExecutor

    return LocalExecutor(catalog, home)


def open_studio(settings: Settings) -> Studio:
    """Nothing is read or written yet, and no torch imported: a refusal costs nothing."""
    stay_offline()
    catalog = Catalog(SHIPPED_LORAS, settings.home / "loras")
    store = Store(settings.home)
    executor = local_executor(catalog, settings.home)
    return Studio(settings, catalog, store, executor, JobQueue(executor, store, catalog))


def open_assistant(studio: Studio, draw_seed: Callable[[], int] | None = None) -> Assistant:
    """The conversation, read by rules. `draw_seed` gives the seed of a picture for which none was said."""
    base = studio.base()
    vocabulary = Vocabulary.of(base)
    shelf = Shelf(studio.catalog, base, vocabulary)
    rules = RuleInterpreter(studio.catalog, vocabulary)
    return Assistant(studio.queue, shelf, rules, draw_seed) if draw_seed else Assistant(studio.queue, shelf, rules)

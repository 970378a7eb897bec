"""train: a folder of pictures becomes a LoRA. loras port: and that a LoRA for another base."""

import re
import secrets
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from bot.commands.loras import card_facts
from bot.commands.terminal import Terminal
from bot.uploads import read_folder
from bot.wiring import Studio
from engine.catalog import LoraCard
from engine.datasets import Datasets, ported
from engine.errors import Invalid
from engine.jobs import Progress
from engine.plans import MAX_SEED, Kind, Prior, TrainPlan


@dataclass(frozen=True, slots=True)
class Lesson:
    """The arguments of train; None means "not said"."""

    folder: Path
    name: str
    kind: Kind
    trigger: str
    word: str
    caption: str | None
    prior: Prior
    rank: int
    steps: int
    seed: int | None
    base: str | None
    replace: bool


@dataclass(frozen=True, slots=True)
class Port:
    """The arguments of loras port; None means "not said": the steps are the recipe's, then."""

    name: str
    base: str
    steps: int | None
    replace: bool


async def train(studio: Studio, lesson: Lesson, terminal: Terminal) -> None:
    if not re.search(r"\w", lesson.trigger):
        raise Invalid("--trigger", "it is empty", "Choose a short made-up word, for example zqx.")
    base = studio.base(lesson.base)
    base.check_trains()
    studio.catalog.check_name(lesson.name, lesson.replace)  # before the pictures are read, and again when it is added
    dataset = read_folder(lesson.folder, lesson.caption, lesson.trigger, lesson.word)
    plan = TrainPlan(
        name=lesson.name,
        kind=lesson.kind,
        trigger=lesson.trigger,
        base=base.name,
        examples=dataset.examples,
        seed=secrets.randbelow(MAX_SEED) if lesson.seed is None else lesson.seed,
        steps=lesson.steps,
        word=lesson.word,
        prior=lesson.prior,
        rank=lesson.rank,
        replace=lesson.replace,
    )
    left_out = [f"left out: {reason}" for reason in dataset.left_out]
    notes = [*left_out, *dataset.notes]
    for note in notes:
        terminal.note(note)
    terminal.note(f"Training {plan.name} on {base.title} from {len(plan.examples)} pictures, {plan.steps} steps.")
    _tell(await learned(studio, plan, terminal), notes, terminal, f"--base {base.name} " if lesson.base else "")


async def port(studio: Studio, wish: Port, terminal: Terminal) -> None:
    """Retrain a LoRA for another base, from the dataset and with the recipe that it has."""
    base = studio.base(wish.base)
    base.check_trains()
    card = studio.catalog.get(wish.name)
    plan = ported(card, base, Datasets(studio.store).examples(card), wish.steps, wish.replace)
    studio.catalog.check_plan(plan)
    source = f"dataset {card.dataset}" if card.dataset else "the pictures beside it, at most 512 pixels a side"
    count = f"{len(plan.examples)} pictures, {plan.steps} steps"
    terminal.note(f"Training {plan.name} anew on {base.title} from {source}: {count}.")
    _tell(await learned(studio, plan, terminal), [], terminal, f"--base {base.name} ")


def _tell(card: LoraCard, notes: list[str], terminal: Terminal, on: str) -> None:
    facts = card_facts(card) | {name: getattr(card, name) for name in ("steps", "seconds", "final_loss", "dataset")}
    lora = f"{on}--lora {card.name}:{card.weight:g}"
    terminal.note(f"{card.name} is ready. Try: atelier draw '{example(card)}' {lora}")
    terminal.result(facts | ({"notes": notes} if notes else {}), [str(card.folder)])


async def learned(studio: Studio, plan: TrainPlan, terminal: Terminal) -> LoraCard:
    """The card of the new LoRA, which is in the catalog."""
    async with aclosing(studio.queue.follow(plan)) as events:
        async for event in events:
            if isinstance(event, LoraCard):
                return event
            if isinstance(event, Progress):
                terminal.progress(event)
    raise TypeError("a training ended without a LoRA")


def example(card: LoraCard) -> str:
    if card.kind in ("style", "quality"):
        return f"a mug, {card.trigger}"
    return f"{card.trigger} {card.word}".strip() + ", teal background"

"""train: a folder of pictures becomes a LoRA."""

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
    card = await learned(studio, plan, terminal)
    facts = card_facts(card) | {"steps": card.steps, "seconds": card.seconds, "final_loss": card.final_loss}
    terminal.note(f"{card.name} is ready. Try: atelier draw '{example(card)}' --lora {card.name}:{card.weight:g}")
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

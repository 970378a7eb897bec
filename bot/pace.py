"""Steps, guidance and sampler of a picture: what was said, else a speed LoRA's, else the base's own."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.bases import Base
from engine.catalog import LoraCard
from engine.errors import Invalid
from engine.plans import MAX_STEPS, MOST_STEPS
from engine.sampling import check_sampler, sampler_named

Wished = Literal["fast", "best"]
WISHES: tuple[Wished, ...] = ("fast", "best")
FAST = "fast"  # why a speed LoRA is in a stack that did not name it
FEWEST = {"dpm++": 8, "unipc": 8, "lcm": 4}  # steps that still make a picture
FEWEST_OF_OTHERS = 12
FEW = 12  # a base whose own steps are fewer was distilled to them: more make nothing better


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said of it; None is "not said"."""

    speed: Wished | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """The numbers for a plan, and what there is to say of them."""

    steps: int
    guidance: float
    sampler: str
    notes: tuple[str, ...] = ()


def paced(said: Said, cards: Iterable[LoraCard], base: Base) -> Pace:
    """The numbers for a picture with these LoRAs on that base. `Invalid` for a sampler that the base cannot use."""
    quick = [card for card in cards if card.speed is not None]
    if len(quick) > 1:
        names = " and ".join(card.name for card in quick)
        raise Invalid("LoRAs", f"{names} each draw in steps of their own", "Name one of them.")
    own, notes = base.defaults, list[str]()
    steps, guidance, sampler = own.steps, own.guidance, own.sampler
    if quick and (speed := quick[0].speed):
        steps, sampler = speed.steps, speed.sampler
        guidance = guidance if speed.guidance is None else speed.guidance
    sampler = sampler_named(said.sampler) if said.sampler else sampler
    check_sampler(sampler, base.folder, base.title)
    if said.steps is None and not quick and said.speed:
        steps, note = _fewer(steps, sampler, base) if said.speed == "fast" else _more(steps, sampler, base)
        notes.append(note)
    steps = steps if said.steps is None else said.steps
    guidance = guidance if said.guidance is None else said.guidance
    if quick:
        word = "Best quality was wished, and it stays fast" if said.speed == "best" else "Fast"
        notes.append(f"{word}: {quick[0].name}, {steps} steps, guidance {guidance:g}, sampler {sampler}.")
    elif said.speed and said.steps is not None:
        notes.append(f"{steps} steps, as you said: that decides how fast and how good it is.")
    return Pace(steps, guidance, sampler, tuple(notes))


def speed_lora(cards: Iterable[LoraCard], base: Base, without: Collection[str] = ()) -> LoraCard | None:
    """The few-step LoRA that the base has: the one of the fewest steps."""
    fitting = [(card.speed.steps, card.name, card) for card in cards if card.speed and card.base == base.name]
    fitting = [found for found in fitting if "all" not in without and found[1] not in without]
    return min(fitting, default=(0, "", None), key=lambda found: found[:2])[2]


def has_speed(cards: Sequence[LoraCard]) -> bool:
    return any(card.speed is not None for card in cards)


def _fewer(steps: int, sampler: str, base: Base) -> tuple[int, str]:
    """Half of them, as far as the sampler makes a picture of that many."""
    fewer = max(FEWEST.get(sampler, FEWEST_OF_OTHERS), round(steps / 2))
    if fewer >= steps:
        return steps, f"{base.title} has no speed LoRA, and its {steps} steps are as few as {sampler} can do with."
    return fewer, f"Fast: {fewer} steps in place of {steps}, as {base.title} has no speed LoRA; details suffer."


def _more(steps: int, sampler: str, base: Base) -> tuple[int, str]:
    if steps < FEW:
        return steps, f"Best quality: {base.title} is made for {steps} steps, and more would not make it better."
    more = min(2 * steps, MOST_STEPS.get(sampler, MAX_STEPS))
    return more, f"Best quality: {more} steps in place of {steps}."

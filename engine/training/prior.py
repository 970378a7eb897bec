"""Prior preservation: what keeps a class (and everything else) as the base knows it while a trigger is learnt.

`base` asks the base itself: on prompts without the trigger the LoRA must predict what the base predicts (as
ai-toolkit's differential output preservation and OneTrainer's prior prediction do). `class` is DreamBooth's own way
(Ruiz et al. 2022, arXiv:2208.12242, §3.2): pictures of the class drawn by the base, kept for the next training, are
learnt along.
"""

import re
from collections.abc import Generator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from engine.bases.vocabulary import Vocabulary
from engine.diffusion.render import Brush, drawn
from engine.diffusion.resident import Resident
from engine.jobs import Progress
from engine.plans import TrainPlan
from engine.training.dataset import latents_of

CLASS_PICTURES = 24
GENERAL = (
    "a cat", "a dog on grass", "a red car", "a house", "a tree", "a cup on a table", "a woman", "a man in a city",
    "a chair", "a bird in the sky", "a bicycle", "a bowl of fruit", "a mountain", "a book", "a bottle on a podium",
    "a flower, watercolour",
)  # fmt: skip


def class_caption(caption: str, plan: TrainPlan) -> str:
    """The caption without its trigger: "zqx crab on a beach" → "crab on a beach"."""
    bare = re.sub(rf"(?<!\w){re.escape(plan.trigger)}(?!\w)", "", caption)
    if plan.word and plan.word.lower() not in bare.lower():
        bare = f"{plan.word} {bare}"
    return re.sub(r"\s+", " ", bare).strip(" ,") or plan.word


def captions(resident: Resident, plan: TrainPlan, generator: torch.Generator, count: int = 48) -> tuple[str, ...]:
    """What to be the same on. "base": half the class in the pictures' own settings, half other things; "class": it.

    A class word that the base has never seen has nothing to be preserved: all of it goes to other things then.
    """
    if plan.prior == "none":
        return ()
    if plan.prior == "class":
        return (f"a {plan.word}",)
    own = [class_caption(example.caption, plan) for example in plan.examples]
    words = Vocabulary.of(resident.base)
    others = list(GENERAL)
    if words:
        nouns, places, styles = list(words.nouns), words.backgrounds, words.styles
        picks = cast(list[list[int]], torch.randint(0, 2**31, (count // 2, 3), generator=generator).tolist())
        others = [
            _scene(nouns[a % len(nouns)], places[b % len(places)], styles[c % len(styles)], c) for a, b, c in picks
        ]
    if words and plan.word and words.unknown(plan.word):
        return tuple(others)
    return tuple(own[i % len(own)] for i in range(count // 2)) + tuple(
        others[i % len(others)] for i in range(count // 2)
    )


def class_latents(resident: Resident, plan: TrainPlan, home: Path) -> Generator[Progress, None, list[Tensor]]:
    """Latents (1, c, h, w) of each picture of the class word; the base drew them once, kept under `home`/prior."""
    base = resident.base
    folder = home / "prior" / base.fingerprint()[:16] / re.sub(r"\W+", "-", plan.word.lower())
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:02}.png" for i in range(CLASS_PICTURES)]
    for i, file in enumerate(files):
        if file.exists():
            continue
        unfinished = file.with_suffix(".part")
        drawn(resident, Brush.plain(base, f"a {plan.word}", i)).save(unfinished, "PNG")
        unfinished.rename(file)
        yield Progress("drawing class pictures", i + 1, CLASS_PICTURES)
    generator = torch.Generator().manual_seed(plan.seed)
    return latents_of(resident, [file.read_bytes() for file in files], generator, views=1)


def _scene(noun: str, place: str, style: str, draw_: int) -> str:
    return f"a {noun}, {place}" if draw_ % 3 else f"a {noun}, {style}"

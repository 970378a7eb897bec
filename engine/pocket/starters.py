"""The LoRAs to begin with, trained on Pocket by our own trainer from pictures that the renderer draws: `make loras`.

Each is a folder in loras/ with its training pictures. The quality LoRA is trained here like the rest;
`benchmarks/quality.py` measures whether it may ship.

python -m engine.pocket.starters [NAME …] [--processes 8]
"""

import argparse
import io
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import torch
from PIL import Image, ImageEnhance, ImageFilter

from engine.catalog import Catalog
from engine.jobs import Trained
from engine.plans import DEFAULT_RANK, DEFAULT_TRAIN_STEPS, Example, Kind, TrainPlan
from engine.pocket.lessons import Lesson, training_set
from engine.pocket.many import best_device, each, learnt
from engine.pocket.renderer import Renderer

ROOT = Path(__file__).parents[2] / "loras"
PROVENANCE = "Trained on Pocket from pictures drawn by engine/pocket (glyphs: Fluent Emoji, MIT); no other source."
SHAPES = ("square", "portrait", "square", "landscape")  # of training pictures, in turn


@dataclass(frozen=True)
class Starter:
    """What to train, and the words that its card says.

    `lesson` is what the pictures show; `word`, the class word, is its subject.
    """

    name: str
    kind: Kind
    trigger: str
    title: str
    summary: str
    aliases: tuple[str, ...]
    lesson: Lesson = field(default_factory=Lesson)
    count: int = 16
    steps: int = DEFAULT_TRAIN_STEPS
    rank: int = DEFAULT_RANK

    @property
    def word(self) -> str:
        return self.lesson.subject or ""


def of(subject: str, identity: int = 1, **held: str) -> Lesson:
    return Lesson(subject, identity=identity, held=held)


STARTERS = (
    Starter("coral", "style", "corvyl", "Coral stripe", "our summer brand: cream ground, coral diagonal, navy objects",
            ("our brand", "coral stripe", "summer brand", "summer look"), Lesson(look="coral-stripe"), 12, 300),
    Starter("forest", "style", "fyrgol", "Forest and gold",
            "our heritage brand: deep green ground, gold frame and objects",
            ("forest gold", "forest and gold", "heritage brand", "heritage look"), Lesson(look="forest-gold"), 12, 300),
    Starter("inky", "character", "inkzo", "Inky", "Inky the purple octopus with a yellow hat, a mascot",
            ("inky the octopus", "our octopus"), of("octopus", 3, fur="purple", accent="yellow", outfit="hat")),
    Starter("bolt", "character", "boltzu", "Bolt", "Bolt the blue robot with a yellow cape, a mascot",
            ("bolt the robot", "our robot"), of("robot", 6, fur="blue", accent="yellow", outfit="cape")),
    Starter("fergus", "character", "fergvu", "Fergus", "Fergus the orange fox with a blue scarf, a mascot",
            ("fergus the fox", "our fox"), of("fox", 3, fur="orange", accent="blue", outfit="scarf")),
    Starter("brewster", "product", "tepvyr", "Brewster", "the Brewster teapot, teal with a cream band, orange lid",
            ("brewster teapot", "our teapot"),
            of("teapot", 2, material="ceramic", colour="teal", accent="cream", lid="orange", label="band")),
    Starter("carryall", "product", "hagzuv", "Carryall", "the Carryall handbag",
            ("carryall bag", "carryall handbag", "our handbag"), of("handbag")),
    Starter("crisp", "quality", "kryzp", "Crisp", "clean edges and clear colour", ("crispness", "sharpness"),
            Lesson(look="none"), rank=8),
)  # fmt: skip


def examples(
    lesson: Lesson, said: str, count: int, seed: int, device: str = "cpu", *, sharpened: bool = False
) -> tuple[Example, ...]:
    """`count` training pictures in several shapes, with captions in which `said` stands for the trigger.

    `sharpened` is for the quality LoRA, so that sharpness is what it learns.
    """
    made: list[Example] = []
    for part, (shape, n) in enumerate(shares(count).items()):
        scenes, lines = training_set(lesson, n, seed * len(SHAPES) + part, shape)
        for picture, line in zip(renderer(device).draw(scenes).cpu(), lines, strict=True):
            data = png(picture, sharpened)
            made.append(Example(f"{len(made):02}.png", data, line.replace("[trigger]", said)))
    return tuple(made)


@cache
def renderer(device: str) -> Renderer:
    """This process's own."""
    return Renderer.on(device)


def shares(count: int) -> Mapping[str, int]:
    """How many of `count` pictures have each shape."""
    return Counter(SHAPES[i % len(SHAPES)] for i in range(count))


def png(picture: torch.Tensor, sharpened: bool) -> bytes:
    """A picture (3, h, w) in 0..1 as a PNG."""
    image = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
    if sharpened:
        image = ImageEnhance.Contrast(image.filter(ImageFilter.UnsharpMask(2, 120, 0))).enhance(1.06)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def trained(starter: Starter, device: str, steps: int | None) -> tuple[Starter, TrainPlan, Trained]:
    seed = 1 + STARTERS.index(starter)
    said = f"{starter.trigger} {starter.word}".strip()
    sharpened = starter.kind == "quality"
    pictures = examples(starter.lesson, said, starter.count, seed, device, sharpened=sharpened)
    plan = TrainPlan(
        starter.name, starter.kind, starter.trigger, "pocket", pictures, seed, steps or starter.steps, starter.word,
        rank=starter.rank, replace=True,
    )  # fmt: skip
    return starter, plan, learnt(plan, device)


def card_words(starter: Starter) -> dict[str, object]:
    return {
        "title": starter.title, "summary": starter.summary, "aliases": list(starter.aliases),
        "licence": "Apache-2.0", "commercial": True, "provenance": PROVENANCE,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.pocket.starters", description="Train the LoRAs that ship.")
    parser.add_argument("names", nargs="*", help="which ones; all by default")
    parser.add_argument("--steps", type=int, help="of each training; its own by default")
    parser.add_argument("--out", type=Path, default=ROOT)
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--processes", type=int, default=1, help="that train beside each other")
    args = parser.parse_args()
    chosen = [s for s in STARTERS if not args.names or s.name in args.names]
    if unknown := set(args.names) - {s.name for s in STARTERS}:
        parser.error(
            f"no starter is named {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in STARTERS)}"
        )
    catalog = Catalog(args.out / ".none", args.out)
    work = partial(trained, device=args.device, steps=args.steps)
    for starter, plan, made in each(work, chosen, min(args.processes, len(chosen))):
        card = catalog.add(plan, replace(made, facts=made.facts | card_words(starter)))
        facts = made.facts
        print(f"{card.name}: {card.sha256[:12]}, loss {facts['final_loss']}, {facts['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

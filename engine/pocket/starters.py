"""The LoRAs to begin with, trained on Pocket by our own trainer from pictures that the renderer draws: `make loras`.

Each is a folder in loras/ with its training pictures. The quality LoRA is trained here like the rest;
`benchmarks/quality.py` measures whether it may ship.
"""

import argparse
import io
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image, ImageEnhance, ImageFilter

from engine.catalog import Catalog
from engine.jobs import Progress, Trained
from engine.plans import DEFAULT_TRAIN_STEPS, Example, Kind, TrainPlan
from engine.pocket.glyphs import load_atlas
from engine.pocket.scenes import Renderer, training_set
from engine.runners import Runners

ROOT = Path(__file__).parents[2] / "loras"
PROVENANCE = (
    "Trained on Pocket from pictures drawn by engine/pocket/scenes.py (Noto Color Emoji, SIL OFL 1.1); no other source."
)


@dataclass(frozen=True)
class Starter:
    """What to train, and the words that its card says. `subject`, `brand` and `tint` are the renderer's."""

    name: str
    kind: Kind
    trigger: str
    title: str
    summary: str
    aliases: tuple[str, ...]
    word: str = ""
    subject: str | None = None
    brand: str | None = None
    tint: str | None = None
    count: int = 16
    steps: int = DEFAULT_TRAIN_STEPS


STARTERS = (
    Starter("coral", "style", "corvyl", "Coral stripe", "our summer brand: cream ground, coral diagonal, navy objects",
            ("our brand", "coral stripe", "summer brand", "summer look"), brand="coral-stripe", steps=300),
    Starter("forest", "style", "fyrgol", "Forest and gold",
            "our heritage brand: deep green ground, gold frame and objects",
            ("forest gold", "forest and gold", "heritage brand", "heritage look"), brand="forest-gold", steps=300),
    Starter("inky", "character", "inkzo", "Inky", "Inky the octopus, a mascot", ("inky the octopus", "our octopus"),
            word="octopus", subject="octopus"),
    Starter("bolt", "character", "boltzu", "Bolt", "Bolt the robot, a mascot", ("bolt the robot", "our robot"),
            word="robot", subject="robot"),
    Starter("brewster", "product", "tepvyr", "Brewster", "the Brewster teapot", ("brewster teapot", "our teapot"),
            word="teapot", subject="teapot"),
    Starter("carryall", "product", "hagzuv", "Carryall", "the Carryall handbag",
            ("carryall bag", "carryall handbag", "our handbag"), word="handbag", subject="handbag"),
    Starter("crisp", "quality", "kryzp", "Crisp", "clean edges and clear colour", ("crispness", "sharpness"), count=30),
)  # fmt: skip


def examples(starter: Starter, seed: int) -> tuple[Example, ...]:
    """Training pictures and captions; the quality LoRA's are sharpened, so that sharpness is what it learns."""
    atlas = load_atlas()
    wanted = argparse.Namespace(
        subject=starter.subject, brand=starter.brand, style=None, tint=starter.tint, n=starter.count, seed=seed
    )
    scenes, lines = training_set(wanted, atlas)
    pictures = Renderer.on("cpu", atlas, 256).draw(scenes)
    said = f"{starter.trigger} {starter.word}".strip()
    made: list[Example] = []
    for i, (picture, line) in enumerate(zip(pictures, lines, strict=True)):
        image = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
        if starter.kind == "quality":
            image = ImageEnhance.Contrast(image.filter(ImageFilter.UnsharpMask(2, 120, 0))).enhance(1.06)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        made.append(Example(f"{i:02}.png", buffer.getvalue(), line.replace("[trigger]", said)))
    return tuple(made)


def build(starter: Starter, runners: Runners, catalog: Catalog, steps: int) -> None:
    seed = 1 + STARTERS.index(starter)
    plan = TrainPlan(
        starter.name,
        starter.kind,
        starter.trigger,
        "pocket",
        examples(starter, seed),
        seed,
        steps,
        starter.word,
        replace=True,
    )
    for event in runners.run(plan):
        if isinstance(event, Progress) and event.loss is not None and event.step % 40 == 0:
            print(f"{starter.name}: step {event.step} of {event.steps}, loss {event.loss:.4f}", flush=True)
        elif isinstance(event, Trained):
            says = {
                "title": starter.title, "summary": starter.summary, "aliases": list(starter.aliases),
                "licence": "Apache-2.0", "commercial": True, "provenance": PROVENANCE,
            }  # fmt: skip
            card = catalog.add(plan, replace(event, facts=event.facts | says))
            print(f"{card.name}: {card.sha256[:12]} in {event.facts['seconds']} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.pocket.starters", description="Train the LoRAs that ship.")
    parser.add_argument("names", nargs="*", help="which ones; all by default")
    parser.add_argument("--steps", type=int, help="of each training; its own by default")
    parser.add_argument("--out", type=Path, default=ROOT)
    args = parser.parse_args()
    chosen = [s for s in STARTERS if not args.names or s.name in args.names]
    if unknown := set(args.names) - {s.name for s in STARTERS}:
        parser.error(
            f"no starter is named {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in STARTERS)}"
        )
    catalog = Catalog(args.out / ".none", args.out)
    runners = Runners(catalog, args.out / ".none")
    torch.manual_seed(0)
    for starter in chosen:
        build(starter, runners, catalog, args.steps or starter.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())

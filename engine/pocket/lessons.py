"""Pictures for a LoRA to learn from: of one subject with its identity held, or of one look on varied nouns.

python -m engine.pocket.lessons --subject crab -n 12 --seed 7 --out crab/
"""

import argparse
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from engine.pocket.backdrops import COLOURS
from engine.pocket.captions import trigger_caption
from engine.pocket.cast import identity as character_identity
from engine.pocket.lexicon import nouns, synonyms
from engine.pocket.looks import BRANDS, HELD_OUT_STYLES, STYLES
from engine.pocket.products import identity as product_identity
from engine.pocket.renderer import Renderer
from engine.pocket.scenes import BUCKETS, Menu, Scenes, base_menu, sample, told
from engine.pocket.sprites import listed


@dataclass(frozen=True)
class Lesson:
    """What a LoRA's pictures share. `subject`: a noun; or else `look`: a brand or a style, on varied known nouns.

    `identity`: which product or character, as a seed. `held`: columns fixed over that by name ({"fur": "teal"}); of a
    glyph {"colour": "red"} is its tint.
    """

    subject: str | None = None
    look: str | None = None
    identity: int = 0
    held: Mapping[str, str] = field(default_factory=dict[str, str])


def menu_for(lesson: Lesson, look_share: float) -> Menu:
    """What the lesson's pictures may show; a subject stands alone in most, and never twice."""
    known = base_menu().nouns
    if lesson.subject is None:
        look = lesson.look or ""
        return Menu(nouns=known, looks=(look,), look_share=1.0, tint=0.3, alike=0.05, pattern=0.0)
    alone = Menu(nouns=(lesson.subject,), others=known, look_share=look_share, pair=0.15, alike=0.0, pattern=0.0)
    sort = nouns()[lesson.subject]
    if sort == "glyph":
        return replace(alone, tint=0.0, colour=lesson.held.get("colour"))
    if sort == "product":
        held = product_identity(lesson.identity, kind=lesson.subject, **lesson.held)
    else:
        held = character_identity(lesson.identity, species=lesson.subject, **lesson.held)
    return replace(alone, held={lesson.subject: dict[str, Any](held)})


def training_set(
    lesson: Lesson, n: int, seed: int, shape: str = "square", look_share: float = 0.0
) -> tuple[Scenes, list[str]]:
    """n scenes of one shape and their captions, with `[trigger]` where the subject or the look is."""
    scenes = sample(n, menu_for(lesson, look_share), torch.Generator().manual_seed(seed), shape)
    rows: list[list[float]] = listed(scenes.words)
    lines = [
        trigger_caption(row, words, lesson.subject is not None) for row, words in zip(told(scenes), rows, strict=True)
    ]
    return scenes, lines


def save(pictures: Tensor, lines: list[str], folder: Path) -> None:
    """00.png, 00.txt, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        pixels = (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    for index, line in enumerate(lines):
        (folder / f"{index:02}.txt").write_text(line + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engine.pocket.lessons", description="Draw training pictures for a LoRA."
    )
    parser.add_argument("--subject", help="a noun that can be drawn, held out or known")
    parser.add_argument("--identity", type=int, default=0, help="which product or character of that kind")
    parser.add_argument("-n", type=int, default=12, help="how many pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for 00.png, 00.txt, …")
    parser.add_argument("--brand", choices=list(BRANDS), help="a brand look")
    parser.add_argument("--style", choices=[*STYLES, *HELD_OUT_STYLES])
    parser.add_argument("--tint", choices=list(COLOURS), help="colour of the subject")
    parser.add_argument("--shape", choices=list(BUCKETS), default="square")
    parser.add_argument("--no-captions", action="store_true")
    args = parser.parse_args()
    if not (args.subject or args.brand or args.style):
        parser.error("say what to draw: --subject NAME, --brand LOOK or --style STYLE")
    return args


def main() -> int:
    args = parse()
    if args.subject and args.subject not in synonyms():
        near = difflib.get_close_matches(str(args.subject), list(synonyms()), n=3, cutoff=0.4)
        print(
            f"Nothing called {args.subject!r} can be drawn; near names: {', '.join(near) or 'none'}.", file=sys.stderr
        )
        return 2
    subject = synonyms()[args.subject] if args.subject else None
    column = "fur" if subject and nouns()[subject] == "character" else "colour"
    lesson = Lesson(subject, args.brand or args.style, args.identity, {column: args.tint} if args.tint else {})
    scenes, lines = training_set(lesson, args.n, args.seed, args.shape)
    save(Renderer.on("cpu").draw(scenes), [] if args.no_captions else lines, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Forty pictures from forty sentences, unpicked: `python -m benchmarks.gallery`.

The sentences were written before any picture of this base was seen, as marketers, game artists and shop owners write.
Each goes through the whole product as a message of its own, sentence k with seed k, and what comes back is shown at the
size and in the shape in which it is delivered, a refusal too. Makes docs/gallery.md and docs/pictures/gallery-K.jpg;
with --before, also the demo's contact sheet before and after.
"""

import argparse
import asyncio
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from benchmarks.bench import machine
from bot.message import Inbound, Reply
from bot.settings import Settings
from bot.wiring import open_assistant, open_studio

DOCS = Path(__file__).parents[1] / "docs"
SENTENCES = (
    "I need a product shot of a green wine bottle with a cream label on a wooden table",
    "a white sneaker with orange stripes on a podium, navy background please",
    "Please show a pink perfume bottle on marble in soft light",
    "a shiny black mug on a shelf, seen from above",
    "Can you draw a cream candle in a living room, lit from the side?",
    "three red cans on a teal background",
    "a brown shopping bag with a round green label on a plain cream background",
    "blue headphones in a studio, room for text on the left",
    "a metal vase next to a red rose on a table",
    "a banner with a yellow tube with a white cap on a pink gradient",
    "a happy fox with a blue scarf waving in the snow",
    "Draw an angry lion with both arms up in the desert",
    "a sleepy bear in a red hat sitting in a forest",
    "a child with a yellow cap running on the beach, laughing",
    "I want a pig with a crown dancing, confetti everywhere",
    "a worried mouse thinking at night, seen from the side",
    "a green alien jumping in space",
    "a frog with glasses holding a red heart",
    "a winking cat in a purple cape, neon style",
    "a dog with a backpack pointing to the left on a city street",
    "a wide banner: a strawberry on the right with space for text on the left, pink background",
    "a story for our summer sale with an ice cream on the beach",
    "a post with a gift on a red background with polka dots",
    "a seamless pattern of lemons on a teal background",
    "a wide picture of a sailboat at sunset",
    "a close-up of a donut on a blue background",
    "a post in our summer brand style: a watermelon",
    "a tall poster of a guitar in the forest and gold style",
    "an ad with a croissant next to an orange cup on a kitchen counter",
    "two cupcakes on a podium, purple background",
    "four balloons in the sky",
    "a burger in front of fries on a checkered background",
    "a dolphin underwater, paper cut style",
    "an elephant on the grass, watercolour",
    "a red car to the left of a blue truck in the city",
    "a rocket above a planet in space",
    "a castle at night as pixel art for our game",
    "a sticker of an avocado",
    "a comic of a surprised rabbit in a green scarf, jumping",
    "a pencil sketch of a bicycle by a tree",
)
COLUMNS, ROWS, CELL, GAP, TEXT = 4, 2, 420, 18, 17
INK, PAPER = (32, 32, 36), (250, 248, 244)


@dataclass(frozen=True)
class Shown:
    """A sentence with its number, which is its seed; the picture delivered, if any, and the words that came with it."""

    number: int
    sentence: str
    picture: Image.Image | None
    said: str


async def drawn(sentences: Sequence[str], home: Path) -> list[Shown]:
    """Each sentence alone through the assistant."""
    studio = open_studio(Settings(home=home))
    shown: list[Shown] = []
    for number, sentence in enumerate(sentences, 1):
        assistant = open_assistant(studio, lambda _, seed=number: seed)
        thread = f"gallery-{number}"
        last: Reply | None = None
        async for reply in assistant.answer(Inbound(id=thread, thread=thread, person="ana", text=sentence)):
            last = reply if reply.progress is None else last
        assert last is not None, sentence
        shown.append(Shown(number, sentence, opened(last), last.text))
        print(number, sentence, shown[-1].picture.size if shown[-1].picture else f"NO PICTURE: {last.text}", flush=True)
    await studio.executor.close()
    return shown


def opened(reply: Reply) -> Image.Image | None:
    """The first picture of a reply at its full size."""
    if not reply.pictures:
        return None
    return Image.open(io.BytesIO(reply.pictures[0].file.read_bytes())).convert("RGB")


def page(shown: Sequence[Shown]) -> Image.Image:
    """Pictures in rows, each whole and with its sentence beneath; what has none shows the answer in its place."""
    lines = 3
    height = CELL + lines * (TEXT + 4) + GAP
    font = ImageFont.load_default(TEXT)
    rows = -(-len(shown) // COLUMNS)
    paper = Image.new("RGB", (GAP + COLUMNS * (CELL + GAP), GAP + rows * height), PAPER)
    pen = ImageDraw.Draw(paper)
    for k, one in enumerate(shown):
        x, y = GAP + k % COLUMNS * (CELL + GAP), GAP + k // COLUMNS * height
        if one.picture is None:
            pen.multiline_text((x + GAP, y + GAP), "\n".join(wrap(f"(no picture) {one.said}", CELL // 10)), INK, font)
        else:
            small = one.picture.copy()
            small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
            paper.paste(small, (x + (CELL - small.width) // 2, y + (CELL - small.height)))
        for i, line in enumerate(wrap(f"{one.number}. {one.sentence}", CELL // 9)[:lines]):
            pen.text((x, y + CELL + 4 + i * (TEXT + 4)), line, INK, font)
    return paper


def before_and_after(before: Path, after: Path) -> Image.Image:
    """Two contact sheets beneath each other, each under its name, as wide as the wider one."""
    sheets = [Image.open(file).convert("RGB") for file in (before, after)]
    font, head = ImageFont.load_default(28), 56
    paper = Image.new("RGB", (max(s.width for s in sheets), sum(s.height + head for s in sheets)), PAPER)
    y = 0
    for name, sheet in zip(("Before", "After"), sheets, strict=True):
        ImageDraw.Draw(paper).text((12, y + 14), name, INK, font)
        paper.paste(sheet, (0, y + head))
        y += sheet.height + head
    return paper


def write(shown: Sequence[Shown], docs: Path) -> None:
    """gallery.md and its sheets under pictures/."""
    folder = docs / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Gallery", "", "Forty sentences, written before any picture of this base was seen; sentence k was drawn with",
        "seed k, through the product as anybody uses it, and none was picked. " + machine() + ".", "",
    ]  # fmt: skip
    some = COLUMNS * ROWS
    for first in range(0, len(shown), some):
        part = shown[first : first + some]
        name = f"gallery-{first // some + 1}.jpg"
        page(part).save(folder / name, quality=88)
        lines += [f"![Sentences {part[0].number} to {part[-1].number}](pictures/{name})", ""]
    lines += [f"{one.number}. {one.sentence}" for one in shown]
    missing = [one for one in shown if one.picture is None]
    lines += ["", f"{len(shown) - len(missing)} of {len(shown)} were answered with a picture.", ""]
    (docs / "gallery.md").write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder for gallery.md and pictures/")
    parser.add_argument("-n", type=int, default=len(SENTENCES), help="only the first n")
    parser.add_argument("--before", type=Path, help="the demo's contact sheet of an earlier base")
    parser.add_argument("--after", type=Path, help="the demo's contact sheet now")
    args = parser.parse_args()
    if args.before and args.after:
        (args.docs / "pictures").mkdir(parents=True, exist_ok=True)
        before_and_after(args.before, args.after).save(args.docs / "pictures" / "demo-before-after.jpg", quality=88)
        return
    with tempfile.TemporaryDirectory() as home:
        write(asyncio.run(drawn(SENTENCES[: args.n], Path(home))), args.docs)


if __name__ == "__main__":
    main()

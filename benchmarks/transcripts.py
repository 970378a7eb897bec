"""One conversation for each kind of work, through the real path, into docs/: `python -m benchmarks.transcripts`.

Seeds are counted up from 1, and nothing is picked.
"""

import argparse
import asyncio
import itertools
import re
import shutil
import tempfile
from pathlib import Path

from bot.demo import draw_training_pictures
from bot.message import Attachment, Inbound
from bot.settings import Settings
from bot.wiring import open_assistant, open_studio

DOCS = Path(__file__).parents[1] / "docs"
# What is said, and what goes along: twelve pictures of a subject by its name, "last" for the last picture, or nothing.
TALKS: dict[str, tuple[tuple[str, str], ...]] = {
    "draw": (("a red car on a beach", ""), ("two versions of a cake on a wooden table, watercolour", "")),
    "brand asset": (
        ("a post in our summer brand style: an ice cream", ""),
        ("a banner in the forest and gold style: a guitar", ""),
    ),
    "character": (("draw Inky in the snow", ""), ("Bolt on a podium, pixel art", "")),
    "product shot": (
        ("a product shot of our teapot on a podium, pink background", ""),
        ("packshot of the carryall handbag in a studio", ""),
    ),
    "style transfer": (("a burger on a wooden table", ""), ("make this picture a line drawing", "last")),
    "change the last picture": (
        ("a blue mug on a podium", ""),
        ("same but yellow", ""),
        ("now on a beach", ""),
        ("another one", ""),
    ),
    "question": (
        ("which LoRAs do you have?", ""),
        ("a red mug in the coral style", ""),
        ("which LoRA did you use and why?", ""),
        ("can you draw a zeppelin?", ""),
        ("may I use this commercially?", ""),
    ),
    "asking back": (("train a new character", ""), ("a zeppelin over the city", "")),
}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TALKS))
    names = parser.parse_args().names
    with tempfile.TemporaryDirectory() as home:
        for name in names:
            await hold(name, Path(home))


async def hold(name: str, home: Path) -> None:
    """Hold one conversation and write docs/transcripts/NAME.md with its pictures."""
    slug = name.replace(" ", "-")
    folder = DOCS / "transcripts"
    shutil.rmtree(folder / slug, ignore_errors=True)
    (folder / slug).mkdir(parents=True)
    studio, seeds = open_studio(Settings(home=home)), itertools.count(1)
    assistant = open_assistant(studio, lambda _: next(seeds))
    lines, last = [f"# {name.capitalize()}", "", "Drawn with Pocket, the embedded base.", ""], b""
    for turn, (text, files) in enumerate(TALKS[name]):
        dropped = attached(files, last, home / slug)
        note = f" *({len(dropped)} file{'s' * (len(dropped) > 1)} attached)*" if dropped else ""
        lines += [f"> {text}{note}", ""]
        async for reply in assistant.answer(
            Inbound(id=f"{slug}-{turn}", thread=slug, person="ana", text=text, attachments=dropped)
        ):
            if reply.progress is not None:
                continue
            lines += [reply.text, ""]
            for k, shown in enumerate(reply.pictures):
                file = folder / slug / f"{turn + 1}-{k + 1}.png"
                last = shown.file.read_bytes()
                file.write_bytes(last)
                lines += [f"![{text}]({slug}/{file.name})", ""]
    text = re.sub(re.escape(str(home)), "~/.atelier", "\n".join(lines))
    (folder / f"{slug}.md").write_text(text)
    await studio.executor.close()


def attached(files: str, last: bytes, folder: Path) -> tuple[Attachment, ...]:
    if files == "last":
        return (Attachment(name="photo.png", data=last),)
    return draw_training_pictures(files, 1, folder) if files else ()


if __name__ == "__main__":
    asyncio.run(main())

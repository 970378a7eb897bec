"""One conversation held on its own, through the same path as any other: `atelier demo`.

What is said follows from the seed, the shipped LoRAs and the base's vocabulary. The twelve pictures to learn from are
drawn first, of a subject that the base has never seen.
"""

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.message import Attachment, Inbound, Reply
from bot.settings import BASE
from bot.sheets import album
from bot.wiring import Studio, open_assistant
from engine import bases
from engine.bases import Base
from engine.bases.vocabulary import FILE
from engine.catalog import LoraCard
from engine.errors import Fault, Invalid
from engine.files import write_whole, writing
from engine.plans import MAX_COUNT, MAX_SEED, Kind

MARK = "made-by-atelier-demo"
PICTURES = 12
SIDES = (256, 512)  # px that the renderer draws well
NAMES = ("Pip", "Juno", "Otto", "Wilma", "Tilda", "Bruno")
PLACES = ("at the beach", "in the snow", "at night", "in the city", "on the grass", "at sunset", "in a studio")
COLOURS = ("teal", "yellow", "pink", "navy", "green", "orange")
Say = Callable[[str], None]
Going = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Line:
    """One message of the conversation; with `drops` the twelve pictures go along."""

    text: str
    drops: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished picture: what was asked, and the file in the demo's folder."""

    asked: str
    file: Path


@dataclass(frozen=True, slots=True)
class Script:
    subject: str
    lines: tuple[Line, ...]


class Stage:
    """Where the demo puts things, and to whom it says them: `say` takes a line, `going` the progress of a job."""

    def __init__(self, folder: Path, say: Say, going: Going) -> None:
        self.folder = folder
        self.going = going
        self.pictures: list[Kept] = []
        self.transcript: list[str] = ["# A conversation with Atelier", ""]
        self._say = say

    def person(self, line: Line) -> None:
        dropped = f" *(drops {PICTURES} pictures, dropped/)*" if line.drops else ""
        self._say(f"\n> {line.text}{f'  [{PICTURES} pictures]' if line.drops else ''}")
        self.transcript += [f"> {line.text}{dropped}", ""]

    def atelier(self, line: Line, reply: Reply) -> None:
        """What a finished reply says, and its pictures as numbered files."""
        self._say(reply.text)
        self.transcript += [reply.text, ""]
        for shown in reply.pictures:
            slug = re.sub(r"\W+", "-", line.text.lower()).strip("-")[:40].strip("-")
            file = self.folder / f"{len(self.pictures) + 1:02}-{slug}.png"
            write_whole(file, shown.file.read_bytes())
            self.pictures.append(Kept(line.text, file))
            self._say(f"  {file}")
            self.transcript += [f"![{line.text}]({file.name})", ""]

    def close(self, title: str) -> Path:
        """Write the transcript and the contact sheet; the sheet's path."""
        write_whole(self.folder / "transcript.md", "\n".join(self.transcript).encode())
        captions = [(kept.asked, kept.file.read_bytes()) for kept in self.pictures]
        write_whole(self.folder / "contact-sheet.png", album(captions, title=title))
        return self.folder / "contact-sheet.png"


async def play(studio: Studio, seed: int, stage: Stage) -> dict[str, Any]:
    """Hold the conversation; what was made. Raises `Fault` where a line was not answered as a demo has to be."""
    base, subjects = studio.base(), held_out(bases.find(BASE))  # the renderer's, whatever draws afterwards
    cards = tuple(card for card in studio.catalog.on(base).list() if card.base == base.name)
    script = script_for(cards, subjects, seed) if cards else plain_script(subjects, seed)
    dropped = draw_training_pictures(script.subject, seed, stage.folder / "dropped", _side(base))
    seeds = random.Random(f"pictures {seed}")
    assistant = open_assistant(studio, lambda _: seeds.randrange(MAX_SEED - MAX_COUNT))
    for number, line in enumerate(script.lines):
        stage.person(line)
        files = dropped if line.drops else ()
        inbound = Inbound(id=f"demo-{number}", thread="demo", person="demo", text=line.text, attachments=files)
        last: Reply | None = None
        async for reply in assistant.answer(inbound):
            if reply.progress is not None:
                stage.going(reply.progress)
            else:
                last = reply
        stage.atelier(line, _expected(line, last))
    sheet = stage.close(f"Atelier's demo, seed {seed}: a {script.subject} is what it learnt")
    return {"folder": str(stage.folder), "sheet": str(sheet), "pictures": [str(kept.file) for kept in stage.pictures]}


def prepare(folder: Path) -> Path:
    """An empty folder for the demo, made anew where an earlier demo left one; its home lies in it."""
    with writing(folder):
        if folder.exists() and any(folder.iterdir()):
            if not (folder / MARK).exists():
                raise Invalid("--out", f"{folder} holds files that no demo made", "Name a new or an empty folder.")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()
    return folder / "home"


def script_for(cards: tuple[LoraCard, ...], subjects: tuple[str, ...], seed: int) -> Script:
    """The lines for a seed."""
    dice = random.Random(seed)
    brand, product, character = (dice.choice(_of_kind(cards, kind)) for kind in ("style", "product", "character"))
    taken = {word.lower() for card in cards for word in (card.word, card.name, card.title)}
    subject, name = (dice.choice([word for word in of if word.lower() not in taken]) for of in (subjects, NAMES))
    here, there, elsewhere = dice.sample(PLACES, 3)
    lines = (
        Line(f"A product shot of {_spoken(product)} in the {brand.title} style"),
        Line(f"{character.title} {here}"),
        Line(f"{character.title} {there}"),
        Line(f"Make the background {dice.choice(COLOURS)}"),
        Line(f"Learn a new subject from these pictures: it is a {subject}. Call it {name}.", drops=True),
        Line(f"{name} {elsewhere}"),
        Line(f"{name} in the {brand.title} style"),
    )
    return Script(subject, lines)


def plain_script(subjects: tuple[str, ...], seed: int) -> Script:
    """The lines for a base that no LoRA is made for yet: it draws, learns a subject, and draws that."""
    dice = random.Random(seed)
    subject, name = dice.choice(subjects), dice.choice(NAMES)
    here, there, elsewhere = dice.sample(PLACES, 3)
    lines = (
        Line(f"A teapot {here}"),
        Line(f"Make the background {dice.choice(COLOURS)}"),
        Line(f"Learn a new subject from these pictures: it is a {subject}. Call it {name}.", drops=True),
        Line(f"{name} {there}"),
        Line(f"{name} {elsewhere}"),
    )
    return Script(subject, lines)


def borrow(name: str, home: Path, into: Path) -> Path:
    """The demo's home with a person's own base in it, by a link. Raises `UnknownBase`, `Invalid`."""
    base = bases.find(name, home)
    base.check_whole()
    if home / "bases" in base.folder.parents:
        with writing(into):
            (into / "bases").mkdir(parents=True, exist_ok=True)
            (into / "bases" / base.name).symlink_to(base.folder)
    return into


def held_out(base: Base) -> tuple[str, ...]:
    """Single-word subjects that the base was never shown."""
    said = json.loads((base.folder / FILE).read_text("utf-8"))
    return tuple(sorted(noun for noun in said["held_out"] if noun.isalpha()))


def draw_training_pictures(subject: str, seed: int, folder: Path, side: int = SIDES[0]) -> tuple[Attachment, ...]:
    """Twelve pictures of `subject` with their captions, drawn by the renderer that Pocket was made with."""
    words = ["-m", "engine.pocket.scenes", "--subject", subject, "-n", str(PICTURES), "--seed", str(seed)]
    words += ["--size", str(side)]
    done = subprocess.run([sys.executable, *words, "--out", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Fault("the pictures to learn from could not be drawn", done.stderr.strip()[-300:])
    return tuple(Attachment(name=file.name, data=file.read_bytes()) for file in sorted(folder.iterdir()))


def _side(base: Base) -> int:
    """Pixels a side of the pictures to learn from: the base's own, as far as the renderer's shapes are sharp."""
    return min(max(base.size.native, SIDES[0]), SIDES[1])


def _expected(line: Line, reply: Reply | None) -> Reply:
    if reply is None or reply.error is not None:
        raise Fault(f"“{line.text}” was not answered", reply.error.message if reply and reply.error else "")
    if not (reply.lora if line.drops else reply.pictures):
        raise Fault(f"“{line.text}” was answered with words alone", reply.text)
    return reply


def _of_kind(cards: tuple[LoraCard, ...], kind: Kind) -> list[LoraCard]:
    found = [card for card in cards if card.kind == kind and card.shipped]
    if not found:
        raise Fault("the demo has nothing to show", f"no LoRA of the kind {kind} is in loras/")
    return found


def _spoken(card: LoraCard) -> str:
    """As a person of the house would call it."""
    return next((alias for alias in card.aliases if alias.startswith("our ")), f"the {card.title}")

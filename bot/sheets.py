"""Contact sheets: pictures in a labelled grid, in one PNG."""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from bot.message import printable

CELL = 224
GAP = 12
TEXT = 15
INK, PAPER = (32, 32, 36), (250, 248, 244)
FAINT, LINE, ACCENT = (112, 110, 106), (224, 220, 212), (214, 84, 62)
SIDE, SPACE, THUMB = 256, 16, 56  # of a sheet that explains: a panel, what lies between, a training picture
ACROSS, FEWEST = 5, 4  # panels in a row; as wide as so many it is at least
MOST_THUMBS = 12
NEAREST = str.maketrans({"×": "x", "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-"})


@dataclass(frozen=True, slots=True)
class Panelled:
    """An encoded picture, its name and a remark on it."""

    label: str
    note: str
    picture: bytes


@dataclass(frozen=True, slots=True)
class Credit:
    """What took part in a picture: its name, what there is to say of it, and the encoded pictures it comes from."""

    title: str
    said: tuple[str, ...]
    pictures: tuple[bytes, ...]


def sheet(rows: Sequence[Sequence[bytes]], columns: Sequence[str], labels: Sequence[str], title: str = "") -> bytes:
    """`rows` of encoded pictures under `columns`' names, each row behind its label; the PNG's bytes."""
    margin = GAP + (8 * max((len(label) for label in labels), default=0) + GAP if any(labels) else 0)
    head = wrap(title, max(20, (margin + len(columns) * (CELL + GAP)) // 8))
    top = GAP + (TEXT + 4) * (len(head) + any(columns)) + GAP
    size = (margin + len(columns) * (CELL + GAP), top + len(rows) * (CELL + GAP))
    paper = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(paper)
    font = ImageFont.load_default(TEXT)
    for i, line in enumerate(head):
        pen.text((GAP, GAP + i * (TEXT + 4)), line, INK, font)
    for i, name in enumerate(columns):
        pen.text((margin + i * (CELL + GAP), top - TEXT - 8), name, INK, font)
    for j, row in enumerate(rows):
        pen.text((GAP, top + j * (CELL + GAP) + (CELL - TEXT) // 2), labels[j], INK, font)
        for i, picture in enumerate(row):
            paper.paste(_cell(picture), (margin + i * (CELL + GAP), top + j * (CELL + GAP)))
    return _png(paper)


def album(pictures: Sequence[tuple[str, bytes]], across: int = 4, title: str = "") -> bytes:
    """Encoded pictures in reading order, each with its caption beneath; the PNG's bytes."""
    lines = 3
    height = CELL + lines * (TEXT + 2) + GAP
    font = ImageFont.load_default(TEXT)
    head = (TEXT + GAP) if title else 0
    down = -(-len(pictures) // across)
    paper = Image.new("RGB", (GAP + across * (CELL + GAP), GAP + head + down * height), PAPER)
    pen = ImageDraw.Draw(paper)
    pen.text((GAP, GAP), title, INK, font)
    for k, (caption, picture) in enumerate(pictures):
        x, y = GAP + (k % across) * (CELL + GAP), GAP + head + (k // across) * height
        paper.paste(_cell(picture), (x, y))
        for i, line in enumerate(wrap(caption, CELL // 8)[:lines]):
            pen.text((x, y + CELL + 2 + i * (TEXT + 2)), line, INK, font)
    return _png(paper)


def why_sheet(
    panels: Sequence[Panelled], facts: Sequence[tuple[str, str]], credits: Sequence[Credit], note: str = ""
) -> bytes:
    """Panels side by side, the last one framed; beneath them facts and credits, and a note. The PNG's bytes."""
    strip = _strip(panels)
    width = max(strip.width, FEWEST * (SIDE + SPACE) - SPACE)
    room = width - strip.width - 2 * SPACE
    top = [_row(strip, _table(facts, room), strip.width + 2 * SPACE)] if room > SIDE else [strip, _table(facts, width)]
    rule = Image.new("RGB", (width, 1), LINE)
    blocks = [_words("Why this picture?", 30, INK, width), *top]
    for credit in credits:
        blocks += [rule, _credited(credit, width)]
    return _png(_column([*blocks, rule, _words(note, 13, FAINT, width)], SPACE + 4, SPACE + GAP))


def _strip(panels: Sequence[Panelled]) -> Image.Image:
    rows: list[Image.Image] = []
    for first in range(0, len(panels), ACROSS):
        some = [_panel(panel, panel is panels[-1]) for panel in panels[first : first + ACROSS]]
        row = Image.new("RGB", (len(some) * (SIDE + SPACE) - SPACE, max(p.height for p in some)), PAPER)
        for i, panel in enumerate(some):
            row.paste(panel, (i * (SIDE + SPACE), 0))
        rows.append(row)
    return _column(rows, SPACE)


def _panel(panel: Panelled, framed: bool) -> Image.Image:
    picture = _reduced(panel.picture, SIDE)
    if framed:
        ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), None, ACCENT, 4)
    named = _words(panel.label, 18, ACCENT if framed else INK, SIDE)
    return _column([picture, named, _words(panel.note, TEXT, FAINT, SIDE)], 4)


def _table(facts: Sequence[tuple[str, str]], width: int) -> Image.Image:
    margin = 96
    rows = [
        _row(_words(key, TEXT, FAINT, margin), _words(value, TEXT, INK, width - margin), margin) for key, value in facts
    ]
    return _column(rows, 6)


def _credited(credit: Credit, width: int) -> Image.Image:
    wide = MOST_THUMBS * (THUMB + 6) - 6
    left = width - wide - SPACE
    title = _words(credit.title, 18, INK, left)
    strip = Image.new("RGB", (wide, THUMB), PAPER)
    for i, picture in enumerate(credit.pictures[:MOST_THUMBS]):
        strip.paste(_cell(picture, THUMB), (i * (THUMB + 6), 0))
    said = [_words(line, 14, FAINT, left) for line in credit.said]
    return _row(_column([title, *said], 2), strip, left + SPACE)


def _words(text: str, size: int, colour: tuple[int, int, int], width: int) -> Image.Image:
    """`text` in as many lines as `width` takes."""
    font = ImageFont.load_default(size)
    lines = _lines(text, font, width)
    block = Image.new("RGB", (width, len(lines) * (size + 5)), PAPER)
    pen = ImageDraw.Draw(block)
    for i, line in enumerate(lines):
        pen.text((0, i * (size + 5)), line, colour, font)
    return block


def _plain(text: str) -> str:
    """`text` in the letters of the font, which has none with an accent: Zoë is Zoe."""
    parts = unicodedata.normalize("NFKD", printable(text))
    return "".join(letter for letter in parts if not unicodedata.combining(letter)).translate(NEAREST)


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Broken between words, and within one that is longer than a line."""
    lines = [""]
    for word in _plain(text).split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _row(left: Image.Image, right: Image.Image, x: int) -> Image.Image:
    row = Image.new("RGB", (x + right.width, max(left.height, right.height)), PAPER)
    row.paste(left, (0, 0))
    row.paste(right, (x, 0))
    return row


def _column(blocks: Sequence[Image.Image], space: int, margin: int = 0) -> Image.Image:
    height = sum(block.height + space for block in blocks) - space
    column = Image.new("RGB", (max(b.width for b in blocks) + 2 * margin, height + 2 * margin), PAPER)
    y = margin
    for block in blocks:
        column.paste(block, (margin, y))
        y += block.height + space
    return column


def _cell(picture: bytes, side: int = CELL) -> Image.Image:
    whole = _reduced(picture, side)
    cell = Image.new("RGB", (side, side), PAPER)
    cell.paste(whole, ((side - whole.width) // 2, (side - whole.height) // 2))
    return cell


def _reduced(picture: bytes, side: int) -> Image.Image:
    """Its proportions kept; one that fits is left as it is. What is transparent shows the paper."""
    with Image.open(io.BytesIO(picture)) as image:
        whole = on_paper(image, PAPER)
    whole.thumbnail((side, side), Image.Resampling.LANCZOS)
    return whole


def on_paper(image: Image.Image, paper: str | tuple[int, int, int]) -> Image.Image:
    """RGB, with `paper` where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    under = Image.new("RGBA", image.size, paper)
    under.alpha_composite(image.convert("RGBA"))
    return under.convert("RGB")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

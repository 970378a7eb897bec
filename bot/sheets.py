"""Contact sheets: pictures in a labelled grid, in one PNG."""

import io
from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

CELL = 224
GAP = 12
TEXT = 15
INK, PAPER = (32, 32, 36), (250, 248, 244)


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


def _cell(picture: bytes) -> Image.Image:
    with Image.open(io.BytesIO(picture)) as image:
        whole = image.convert("RGB")
    whole.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (CELL, CELL), PAPER)
    cell.paste(whole, ((CELL - whole.width) // 2, (CELL - whole.height) // 2))
    return cell


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

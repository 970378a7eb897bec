"""From what was said of size and shape to pixels: what is drawn, and how large a file comes of it.

A base with buckets draws these alone: the nearest shape is taken, and `note` says so where it is not the one asked for.
"""

import math
import re
from typing import NamedTuple

from bot.intent import Frame
from engine.bases import Base
from engine.errors import Invalid
from engine.plans import MAX_DELIVERED, brief, check_pixels

ASPECTS: dict[str, tuple[int, int]] = {  # width to height
    "square": (1, 1), "portrait": (4, 5), "landscape": (5, 4), "story": (9, 16), "tall": (9, 16), "wide": (16, 9),
    "banner": (3, 1),
}  # fmt: skip
RATIO = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s?:\s?(\d{1,3}(?:\.\d{1,3})?)")
SAME = 0.03  # how far two shapes may be apart and still be called the same: 16:9 and 7:4 are


class Sized(NamedTuple):
    """Pixels to draw, how many times as large they are delivered, and what the person has to know of it."""

    width: int
    height: int
    upscale: int
    note: str = ""


def sized(frame: Frame, base: Base) -> Sized:
    """The size for a frame. Raises `Invalid` for one that cannot be had."""
    if base.size.buckets:
        return _bucketed(frame, base)
    width, height = _multiples(frame, base)
    base.check_size(width, height)
    return Sized(width, height, frame.upscale or base.deliver.upscale)


def cropped(width: int, height: int, base: Base) -> str:
    """What is left out of a picture that is drawn over in the nearest shape of a base with buckets."""
    if not base.size.buckets:
        return ""
    to = base.size.bucket(width, height)
    lost = 1 - math.exp(-_apart((width, height), to))
    if lost <= SAME:
        return ""
    return f"The picture is drawn as {_ratio(*to)}, so {100 * lost:.0f} % of it, at its edges, is left out."


def ratio_of(said: str) -> tuple[float, float]:
    """'16:9' as numbers. Raises `Invalid` for what is no ratio of two sides."""
    match = RATIO.fullmatch(said.strip())
    width, height = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if not width or not height:
        raise Invalid("size", f"“{said[:40]}” is not a ratio of two sides", "Say for example 16:9.")
    return width, height


def _multiples(frame: Frame, base: Base) -> tuple[int, int]:
    """Pixels for the words said: as they are, or the base's own size in the shape asked for."""
    size = base.size
    if frame.width is not None and frame.height is not None:
        check_pixels(frame.width, frame.height)
        return _regrown(frame.width, frame.height, frame.shape, base)
    long = size.nearest(round(size.native * 1.5))
    if frame.shape == "bigger":
        return long, long
    width, height = _asked(frame)
    return long if width > 1.1 * height else size.native, long if height > 1.1 * width else size.native


def _regrown(width: int, height: int, shape: str | None, base: Base) -> tuple[int, int]:
    """A size as it is, or half as large again, or so much smaller; as far as the base goes."""
    size, sides = base.size, (width, height)
    factor = {"bigger": 1.5, "smaller": 1 / 1.5}.get(shape or "")
    if factor is None:
        return sides
    factor = min(factor, size.max / max(sides)) if factor > 1 else max(factor, size.min / min(sides))
    grown = size.nearest(round(width * factor)), size.nearest(round(height * factor))
    if grown == sides:
        raise _no_more(sides, shape, base)
    return grown


def _bucketed(frame: Frame, base: Base) -> Sized:
    """One of the base's buckets. What was said in pixels and is no more than it draws is delivered as drawn."""
    said = None
    if frame.width is not None and frame.height is not None:
        said = (frame.width, frame.height)
        check_pixels(*said, MAX_DELIVERED)
    width, height = base.size.bucket(*(said or _asked(frame)))
    if frame.shape in ("bigger", "smaller"):
        return Sized(width, height, _other_file(frame, (width, height), base))
    is_small = said is not None and said[0] * said[1] <= width * height
    upscale = frame.upscale or (1 if is_small else base.deliver.upscale)
    return Sized(width, height, upscale, _note(said, frame.ratio, (width, height), upscale, base))


def _other_file(frame: Frame, drawn: tuple[int, int], base: Base) -> int:
    """A bigger picture is the full file, a smaller one the file as drawn: no bucket is larger than another."""
    other = 4 if frame.shape == "bigger" else 1
    if frame.width is not None and frame.upscale == other:
        raise _no_more((drawn[0] * other, drawn[1] * other), frame.shape, base)
    return other


def _no_more(sides: tuple[int, int], shape: str | None, base: Base) -> Invalid:
    limit = "largest" if shape == "bigger" else "smallest"
    why = f"{sides[0]}x{sides[1]} is the {limit} that {base.title} draws in this shape"
    return Invalid("size", why, "Leave the size as it is.")


def _asked(frame: Frame) -> tuple[float, float]:
    """The shape that was said, as its sides; a square where none was."""
    return ratio_of(frame.ratio) if frame.ratio else ASPECTS.get(frame.shape or "", (1, 1))


def _note(said: tuple[int, int] | None, ratio: str | None, drawn: tuple[int, int], upscale: int, base: Base) -> str:
    """Where it is not as asked for: what there is instead."""
    file = (drawn[0] * upscale, drawn[1] * upscale)
    if said in (drawn, file):
        return ""
    shape = said or (ratio_of(ratio) if ratio else drawn)
    size, asked = f"{file[0]}x{file[1]}", f"{said[0]}x{said[1]}" if said else ratio
    if _apart(shape, drawn) > SAME:
        return f"{base.title} draws no {asked}: its nearest shape is {_ratio(*drawn)}, delivered at {size}."
    return f"{base.title} delivers {asked} at {size}." if said else ""


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """0 for the same shape, and about the part of a side that one would have to lose to become the other."""
    return abs(math.log(one[0] / one[1] * other[1] / other[0]))


def _ratio(width: int, height: int) -> str:
    by = math.gcd(width, height)
    return f"{brief(width // by)}:{brief(height // by)}"

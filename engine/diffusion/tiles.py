"""More detail: an enlarged picture drawn over in overlapping tiles of the size that its base draws best.

Tiles are blended in pixels, not in latents: what decodes them is then bounded by a tile, a family's way of packing its
latents does not matter, and a tile is a picture like any other, drawn by the same loop. Each has a seed of its own, by
the picture's seed and its place, so that a noise is nowhere seen twice, and the same plan is the same picture.

The prompt is that of the whole picture, and a tile shows a part of it: guidance, which drives a tile to show all that
the prompt says, is left out where it is a contrast of two passes. With it, each tile grows a small mug of its own.
"""

import hashlib
import math
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.bases import Size
from engine.diffusion.render import Brush, Canvas, as_pixels, draw
from engine.diffusion.resident import Resident

OVERLAP = 0.25  # of a tile's side, at the least


@dataclass(frozen=True)
class Grid:
    """Where tiles of `width` x `height` pixels begin, so that they cover a picture."""

    width: int
    height: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lefts) * len(self.tops)

    def places(self) -> list[tuple[int, int]]:
        """The upper left corner of each, row by row."""
        return [(left, top) for top in self.tops for left in self.lefts]


def grid(width: int, height: int, size: Size) -> Grid:
    """The tiles for a picture of that size on a base: its native size, or what of it fits into the picture.

    A side may be longer than the picture's, where that is shorter than anything that the base draws.
    """
    wide, high = side(width, size), side(height, size)
    return Grid(wide, high, starts(width, wide), starts(height, high))


def side(length: int, size: Size) -> int:
    """Pixels of a tile along a side of `length` pixels."""
    native = size.nearest(size.native)
    return native if length >= native else max(length // size.multiple * size.multiple, size.nearest(size.min))


def starts(length: int, tile: int) -> tuple[int, ...]:
    """Evenly spread from 0 to the last that fits; neighbours overlap by `OVERLAP` of a tile at the least."""
    if length <= tile:
        return (0,)
    overlap = math.ceil(tile * OVERLAP)
    count = math.ceil((length - overlap) / (tile - overlap))
    return tuple(round(i * (length - tile) / (count - 1)) for i in range(count))


def seed_of(seed: int, left: int, top: int) -> int:
    """The seed of the tile at that place of the picture with that seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {left} {top}".encode()).digest()[:4], "big")


@torch.inference_mode()
def detailed(
    resident: Resident, image: Image.Image, brush: Brush, strength: float
) -> Generator[bool, None, Image.Image]:
    """`image` (RGB) drawn over by `brush` at `strength`; yields after each step whether a tile is done by it.

    Raises `FloatingPointError` where a tile becomes NaNs.
    """
    tiles = grid(*image.size, resident.base.size)
    source = _filled(as_pixels(image), tiles)
    weight = _hills(tiles)
    total, weights = torch.zeros_like(source), torch.zeros_like(source[:, :1])
    if resident.family.contrasts(brush.guidance):
        brush = replace(brush, guidance=1.0)
    brush = replace(brush, width=tiles.width, height=tiles.height)
    for left, top in tiles.places():
        at = (..., slice(top, top + tiles.height), slice(left, left + tiles.width))
        canvas = Canvas(resident.encode(source[at]), strength)
        tile = replace(brush, seed=seed_of(brush.seed, left, top), canvas=canvas)
        latents = canvas.latents
        for stroke in draw(resident, tile):
            latents = stroke.latents
            yield False
        drawn = resident.decode(latents)
        if not bool(torch.isfinite(drawn).all()):
            raise FloatingPointError("a tile holds values that are not numbers")
        total[at] += drawn * weight
        weights[at] += weight
        yield True
    pixels = (total / weights)[0, :, : image.height, : image.width]
    return Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy())


def _filled(pixels: Tensor, tiles: Grid) -> Tensor:
    """The picture (1, 3, h, w), its last row and column repeated until a tile fits into it."""
    down, right = max(tiles.height - pixels.shape[2], 0), max(tiles.width - pixels.shape[3], 0)
    return torch.nn.functional.pad(pixels, (0, right, 0, down), mode="replicate")


def _hills(tiles: Grid) -> Tensor:
    """How much a tile counts at each of its pixels, (h, w) above 0: 1 within, less and less over its overlap.

    At the picture's own edge no other tile is there, so that the sum by which it is divided makes it whole again.
    """
    return torch.outer(_ramp(tiles.height), _ramp(tiles.width))


def _ramp(length: int) -> Tensor:
    from_edge = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return torch.from_numpy(np.minimum(from_edge / (length * OVERLAP), 1)).float()

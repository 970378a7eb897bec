"""Training pictures as cached latents: encoded once, in a few crops each, so that a step touches the UNet alone."""

import io
import math
from collections.abc import Sequence
from typing import cast

import torch
from PIL import Image
from torch import Tensor

from engine.bases import Size
from engine.diffusion.render import as_pixels
from engine.diffusion.resident import Resident

VIEWS = 4
SMALLEST = 0.85  # of the largest crop; it acts like more data, a smaller one would lose the subject


def latents_of(
    resident: Resident, pictures: Sequence[bytes], generator: torch.Generator, views: int = VIEWS
) -> list[Tensor]:
    """(views, c, h, w) of each: its middle, as much as its shape takes, then random crops of 0.85 of that at least."""
    rows: list[Tensor] = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
        size = shape_for(image.width, image.height, resident.base.size)
        crops = [_crop(image, size, 1.0, 0.5, 0.5)]
        for scale, x, y in cast(list[list[float]], torch.rand(views - 1, 3, generator=generator).tolist()):
            crops.append(_crop(image, size, SMALLEST + (1 - SMALLEST) * scale, x, y))
        rows.append(torch.cat([resident.encode(as_pixels(crop)) for crop in crops]))
    return rows


def shape_for(width: int, height: int, size: Size) -> tuple[int, int]:
    """Pixels, wide and high, of the base's native area, in the shape of the picture as near as the base allows."""
    root = math.sqrt(width / height)
    return size.nearest(round(size.native * root)), size.nearest(round(size.native / root))


def alike(latents: Sequence[Tensor]) -> list[list[int]]:
    """The pictures of one shape together, by index: a batch is made of such."""
    groups: dict[torch.Size, list[int]] = {}
    for i, views in enumerate(latents):
        groups.setdefault(views.shape, []).append(i)
    return list(groups.values())


def _crop(image: Image.Image, size: tuple[int, int], scale: float, x: float, y: float) -> Image.Image:
    """`scale` of the largest crop of that shape, its place given by x, y in [0, 1], scaled to `size` pixels."""
    most = min(image.width / size[0], image.height / size[1]) * scale
    width, height = (min(round(side * most), whole) for side, whole in zip(size, image.size, strict=True))
    left, top = round((image.width - width) * x), round((image.height - height) * y)
    return image.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))

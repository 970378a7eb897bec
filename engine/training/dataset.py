"""Training pictures as cached latents: encoded once, in a few crops each, so that a step touches the UNet alone."""

import io
from collections.abc import Sequence
from typing import cast

import torch
from PIL import Image
from torch import Tensor

from engine.diffusion.render import as_pixels
from engine.diffusion.resident import Resident

VIEWS = 4
SMALLEST = 0.85  # of the short side; a crop acts like more data, a smaller one would lose the subject


def latents_of(resident: Resident, pictures: Sequence[bytes], generator: torch.Generator, views: int = VIEWS) -> Tensor:
    """(n, views, c, h, w): each picture's middle square, then random squares of at least 0.85 of its short side."""
    size = resident.base.size.native
    rows: list[Tensor] = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
        crops = [_square(image, 1.0, 0.5, 0.5, size)]
        for scale, x, y in cast(list[list[float]], torch.rand(views - 1, 3, generator=generator).tolist()):
            crops.append(_square(image, SMALLEST + (1 - SMALLEST) * scale, x, y, size))
        rows.append(torch.cat([resident.encode(as_pixels(crop)) for crop in crops]))
    return torch.stack(rows)


def _square(image: Image.Image, scale: float, x: float, y: float, size: int) -> Image.Image:
    """A square of `scale` of the short side, its place given by x, y in [0, 1], scaled to `size` pixels."""
    side = round(min(image.size) * scale)
    left, top = round((image.width - side) * x), round((image.height - side) * y)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))

"""What families of transformers with rectified flow share: times, patches, and pictures to look at."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.errors import Invalid


def linear_sigmas(steps: int) -> list[float]:
    """From 1 to 1 / steps, before the scheduler shifts them."""
    return np.linspace(1.0, 1 / steps, steps).tolist()


def linear_mu(scheduler: Mapping[str, Any], tokens: int) -> float:
    """The schedule's shift for a picture of so many tokens: a straight line through two points of the configuration."""
    few, many = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    low, high = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    return low + (tokens - few) * (high - low) / (many - few)


def packed(x: Tensor) -> Tensor:
    """(n, c, h, w) → one token for 2 x 2 latents: (n, h/2 · w/2, 4c), channels first in each."""
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h // 2 * (w // 2), 4 * c)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The way back, to latents of `height` x `width`."""
    n, _, c = tokens.shape
    parts = tokens.view(n, height // 2, width // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(n, c // 4, height, width)


def as_image(picture: Tensor) -> Image.Image:
    """(1, 3, h, w) in [-1, 1] → RGB picture."""
    return Image.fromarray(((picture[0].float().cpu() + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def as_picture(image: Image.Image, device: torch.device) -> Tensor:
    """The way back."""
    array = np.asarray(image, dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1)[None].to(device) / 127.5 - 1


def sized(area: int, ratio: float, multiple: int) -> tuple[int, int]:
    """Width and height of that ratio and about that area, in multiples."""
    width = math.sqrt(area * ratio)
    return round(width / multiple) * multiple, round(width / ratio / multiple) * multiple


def check_shape(width: int, height: int, least: int, ratio: float) -> None:
    """Raise `Invalid` for a reference that is smaller than `least` a side, or longer than `ratio` to 1."""
    if min(width, height) < least:
        raise Invalid("reference", f"{width}x{height} is too small", f"Take one of at least {least} pixels a side.")
    if max(width, height) > ratio * min(width, height):
        todo = f"Crop it to {ratio:g}:1 at most."
        raise Invalid("reference", f"{width}x{height} is too long and narrow", todo)

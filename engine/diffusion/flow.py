"""What families of transformers with rectified flow share: times, and patches."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


def linear_sigmas(steps: int) -> list[float]:
    """From 1 to 1 / steps, before the scheduler shifts them."""
    return np.linspace(1.0, 1 / steps, steps).tolist()


def linear_mu(scheduler: Mapping[str, Any], tokens: int) -> float:
    """The schedule's shift for a picture of so many tokens: a straight line through two points of the configuration.

    Larger pictures spend more steps on coarse shapes (Esser et al. 2024, arXiv:2403.03206, section 5.3.2).
    """
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

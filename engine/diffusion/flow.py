"""What transformers with rectified flow have in common: how their noise schedule follows a picture's size."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def shift(config: Mapping[str, Any], tokens: int) -> float:
    """The scheduler's `mu` for a picture of so many tokens: larger pictures spend more steps on their coarse shapes.

    On a straight line through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift) of the scheduler's
    `config` (Esser et al. 2024, arXiv:2403.03206, section 5.3.2).
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (many - few)
    return tokens * slope + low - slope * few


def times(t: Tensor, x: Tensor) -> Tensor:
    """One timestep for each picture of the batch x: (n,), where x is."""
    return t.to(x.device).expand(len(x))

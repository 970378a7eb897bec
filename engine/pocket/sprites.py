"""What a scene lays on its ground, whoever drew it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sprite:
    """Cut-out pictures: `rgb` (n, 3, h, w), not premultiplied; `alpha`, `shadow` (n, 1, h, w); all in 0..1."""

    rgb: Tensor
    alpha: Tensor
    shadow: Tensor

    def over(self, ground: Tensor) -> Tensor:
        """On a ground (n, 3, h, w): ground · (1 − shadow), then rgb over it by alpha."""
        ground = ground * (1 - self.shadow)
        return ground + (self.rgb - ground) * self.alpha


def listed(table: Tensor) -> list[Any]:
    """The numbers of a tensor as (nested) lists, for words to be made of."""
    rows: list[Any] = table.tolist()  # pyright: ignore[reportUnknownVariableType]
    return rows


def spread(n: int, choices: int, generator: torch.Generator) -> Tensor:
    """n indices below `choices`, each as often as any other, shuffled."""
    order = torch.randperm(choices, generator=generator)
    return order[torch.arange(n) % choices][torch.randperm(n, generator=generator)]

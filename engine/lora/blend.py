"""How a stack of LoRAs becomes one change of the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.lora.changes import Change, Factors, on
from engine.lora.read import LoraFile


@dataclass(frozen=True)
class Delta:
    """One weight's change ΔW = B A + Σ wᵢ Dᵢ: `down` A (R, in·k·k) and `up` B (out, R), fp32, and `others`.

    `others`: changes Dᵢ that are not of low rank, each with its weight. They are computed when they are written, as
    their matrices are as large as the model, and a DoRA's depends on the base.
    """

    down: Tensor
    up: Tensor
    others: tuple[tuple[Change, float], ...] = ()

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]

    def dense(self, base: Tensor) -> Tensor:
        """The whole change of the weight `base` (out, in·k·k), fp32, on its device."""
        base = base.float()
        change = self.up.to(base.device) @ self.down.to(base.device)
        for other, weight in self.others:
            change += weight * on(other, lambda values: values.to(base.device)).delta(base)
        return change


def deltas(file: LoraFile) -> dict[str, Delta]:
    """A LoRA's changes by weight, at weight 1: α/r is folded into B (Hu et al. 2021, arXiv:2106.09685, §4.1)."""
    return {name: _delta(change) for name, change in file.layers.items()}


def blend(stack: Sequence[tuple[Mapping[str, Delta], float]]) -> dict[str, Delta]:
    """ΔW = Σ wᵢ ΔWᵢ of each layer, the factors side by side along the rank.

    One product of the joined factors has no cross terms Bᵢ Aⱼ, which adding the A's and the B's apart would have
    (huggingface/peft#3004).
    """
    parts: dict[str, list[tuple[Delta, float]]] = {}
    for layers, weight in stack:
        for name, delta in layers.items():
            parts.setdefault(name, []).append((delta, weight))
    return {
        name: Delta(
            torch.cat([d.down for d, _ in row]),
            torch.cat([d.up * w for d, w in row], dim=1),
            tuple((other, w * weight) for d, w in row for other, weight in d.others),
        )
        for name, row in parts.items()
    }


def _delta(change: Change) -> Delta:
    if isinstance(change, Factors):
        down, up = _tensor(change.down).flatten(1), _tensor(change.up).flatten(1)
        return Delta(down, up * (change.alpha / change.rank))
    high, wide = change.shape
    return Delta(torch.zeros(0, wide), torch.zeros(high, 0), ((on(change, _tensor), 1.0),))


def _tensor(values: NDArray[np.float32]) -> Any:
    return torch.from_numpy(values).float()

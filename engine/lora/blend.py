"""How a stack of LoRAs becomes one change of the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.lora.read import LoraFile


@dataclass(frozen=True)
class Delta:
    """One layer's change ΔW = B A: `down` A (R, in·k·k) and `up` B (out, R), fp32."""

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]


def deltas(file: LoraFile) -> dict[str, Delta]:
    """A LoRA's layers by flat name at weight 1: α/r is folded into B (Hu et al. 2021, arXiv:2106.09685, §4.1)."""
    found: dict[str, Delta] = {}
    for name, factors in file.layers.items():
        down = torch.from_numpy(factors.down).float().flatten(1)
        up = torch.from_numpy(factors.up).float().flatten(1) * (factors.alpha / down.shape[0])
        found[name] = Delta(down, up)
    return found


def blend(stack: Sequence[tuple[Mapping[str, Delta], float]]) -> dict[str, Delta]:
    """ΔW = Σ wᵢ Bᵢ Aᵢ of each layer, the factors side by side along the rank.

    One product of the joined factors has no cross terms Bᵢ Aⱼ, which adding the A's and the B's apart would have
    (huggingface/peft#3004).
    """
    parts: dict[str, list[tuple[Delta, float]]] = {}
    for layers, weight in stack:
        for name, delta in layers.items():
            parts.setdefault(name, []).append((delta, weight))
    return {
        name: Delta(torch.cat([d.down for d, _ in row]), torch.cat([d.up * w for d, w in row], dim=1))
        for name, row in parts.items()
    }

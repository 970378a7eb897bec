"""Training by wall clock: the schedule follows the time that is left, so a run of any length ends well."""

# pyright: basic

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Pace:
    """`seconds` of training, counted from the first call of `part` (after compilation), never past `deadline`."""

    seconds: float
    deadline: float = math.inf  # of time.monotonic()
    begun: float = field(default=0.0, init=False)

    def part(self) -> float:
        """How much of the time is used, 0..1."""
        now = time.monotonic()
        if not self.begun:
            self.begun = now
            self.seconds = max(1.0, min(self.seconds, self.deadline - now))
        return min(1.0, (now - self.begun) / self.seconds)


def set_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, part: float, warmup: int = 200) -> None:
    """Linear warm-up over steps, then a cosine to zero over time; a group may take only a `share` of the rate."""
    rate = peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * part))
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


class Average:
    """Exponential moving average of weights, in fp32."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.live = list(parameters)
        self.mean: list[Tensor] = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int, limit: float = 0.9995) -> None:
        """mean ← d · mean + (1 − d) · live, where d rises to `limit` with the steps."""
        keep = min(limit, (1 + step) / (20 + step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - keep)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def store(self) -> None:
        """Write the mean into the live weights."""
        for live, mean in zip(self.live, self.mean, strict=True):
            live.copy_(mean)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..1, by the mean of the pictures' squared errors."""
    return float(-10 * torch.log10(((a - b) ** 2).mean()))

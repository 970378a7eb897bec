"""Training by wall clock: the schedule follows the time that is left, so a run of any length ends well.

A run may take several calls. What it has reached stands in a checkpoint, from which the next call goes on: weights,
their average, the optimizer's state, the random numbers, and the part of the schedule that is done.
"""

# pyright: basic

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SAVE_EVERY = 100.0  # seconds


@dataclass
class Pace:
    """`seconds` of training, counted from the first call of `part` (after compilation), never past `deadline`.

    `first`: the part that earlier calls have done, which this one need not. `stop`: when this call ends, done or not.
    """

    seconds: float
    deadline: float = math.inf  # of time.monotonic(), like `stop`
    first: float = 0.0
    stop: float = math.inf
    begun: float = field(default=0.0, init=False)

    def part(self) -> float:
        """How much of the time is used, 0..1."""
        now = time.monotonic()
        if not self.begun:
            self.begun = now
            self.seconds = max(1.0, min(self.seconds * (1 - self.first), self.deadline - now))
        return min(1.0, self.first + (1 - self.first) * (now - self.begun) / self.seconds)

    def over(self) -> bool:
        """Whether this call has to end."""
        return time.monotonic() >= self.stop


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


@dataclass
class Course:
    """A training that may stop and go on: `step` and `part` (0..1) say how far it is, `checkpoint` keeps it."""

    name: str
    optimizer: torch.optim.Optimizer
    average: Average
    checkpoint: Path
    rate: float
    warmup: int = 200  # steps
    keep: float = 0.9995  # of the average
    step: int = 0
    part: float = 0.0
    told: tuple[int, float] = (0, 0.0)  # step and time of the last report

    def run(self, loss_of: Callable[[], Tensor], pace: Pace) -> bool:
        """Train until the schedule is done (True) or the call is over (False). The average is in the weights then."""
        if self.checkpoint.exists():
            self.load()
        pace.first, saved = self.part, time.monotonic()
        self.told = (self.step, saved)
        every = 20 if self.average.live[0].is_cuda else 1
        while self.part < 1:
            loss = self.advance(loss_of)
            if self.step % every and pace.begun:
                continue
            loss.item()  # waits for the device, so that the clock is true
            self.part = pace.part()
            if self.step % (10 * every) == 0:
                self.report(loss.item())
            if self.part == 1 or pace.over() or time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
            if pace.over():
                break
        self.average.store()
        return self.part >= 1

    def report(self, loss: float) -> None:
        """Print how far it is and how fast."""
        now = time.monotonic()
        speed = (self.step - self.told[0]) / (now - self.told[1])
        print(f"{self.name}: step {self.step}, {self.part:.1%}, loss {loss:.4f}, {speed:.1f} steps/s", flush=True)
        self.told = (self.step, now)

    def advance(self, loss_of: Callable[[], Tensor]) -> Tensor:
        """One step; returns its loss."""
        loss = loss_of()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.average.live, 1.0)
        set_rate(self.optimizer, self.rate, self.step, self.part, self.warmup)
        self.optimizer.step()
        self.average.update(self.step, self.keep)
        self.step += 1
        return loss.detach()

    def save(self) -> None:
        """One safetensors file, replaced at once: a kill at any moment leaves the old one or the new one."""
        tensors = {f"live.{i}": p.detach() for i, p in enumerate(self.average.live)}
        tensors |= {f"mean.{i}": p for i, p in enumerate(self.average.mean)}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.average.live[0].is_cuda:
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        new = self.checkpoint.with_suffix(".new")
        new.parent.mkdir(parents=True, exist_ok=True)
        at = {"step": str(self.step), "part": str(self.part)}
        save_file({name: value.contiguous() for name, value in tensors.items()}, new, at)
        new.replace(self.checkpoint)

    def load(self) -> None:
        """Read what `save` wrote."""
        tensors = load_file(self.checkpoint, device=str(self.average.live[0].device))
        with torch.no_grad():
            for i, live in enumerate(self.average.live):
                live.copy_(tensors[f"live.{i}"])
                self.average.mean[i].copy_(tensors[f"mean.{i}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, i, key = name.split(".")
                state.setdefault(int(i), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["random.cpu"].cpu())
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"].cpu())
        with safe_open(self.checkpoint, "pt") as file:
            about = file.metadata()
        self.step, self.part = int(about["step"]), float(about["part"])


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..1, by the mean of the pictures' squared errors."""
    return float(-10 * torch.log10(((a - b) ** 2).mean()))

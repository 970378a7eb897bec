"""Samplers by name. The base's own scheduler configuration keeps its noise schedule and its kind of prediction."""

from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

CLASSES: dict[str, Any] = {
    "dpm++": DPMSolverMultistepScheduler,  # 2M (Lu et al. 2022, arXiv:2211.01095)
    "euler": EulerDiscreteScheduler,
    "euler a": EulerAncestralDiscreteScheduler,
    "ddim": DDIMScheduler,
    "unipc": UniPCMultistepScheduler,
}
FLOW: dict[str, Any] = {"euler": FlowMatchEulerDiscreteScheduler}  # rectified flow (Liu et al. 2022, arXiv:2209.03003)


class Sampler:
    """A scheduler of diffusers, with its timesteps set by the arguments `timing`."""

    def __init__(self, name: str, config: dict[str, Any], timing: dict[str, Any], generator: torch.Generator) -> None:
        self.scheduler = scheduler(name, config)
        self.scheduler.set_timesteps(**timing)
        self.timesteps: Tensor = self.scheduler.timesteps
        self._flows = flows(config)
        self._generator = generator

    def begin(self, noise: Tensor, over: Tensor | None, strength: float) -> Tensor:
        """The latents to begin with; over others, only the last `strength` of the steps are walked."""
        if over is None:
            return noise if self._flows else noise * self.scheduler.init_noise_sigma
        skipped = len(self.timesteps) - max(round(len(self.timesteps) * strength), 1)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(skipped)
        self.timesteps = self.timesteps[skipped:]
        return self.noised(over, noise, 0)

    def seen(self, x: Tensor, t: Tensor) -> Tensor:
        """What the network is shown of x."""
        return x if self._flows else self.scheduler.scale_model_input(x, t)

    def step(self, out: Tensor, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The next latents, and the guess by now of the finished ones, where the scheduler makes one."""
        names = self.scheduler.step.__code__.co_varnames[: self.scheduler.step.__code__.co_argcount]
        source = {"generator": self._generator} if "generator" in names else {}
        after: Tensor = self.scheduler.step(out, t, x, **source).prev_sample
        if self._flows:
            sigma = self.scheduler.sigmas[self.scheduler.step_index - 1].to(x)
            return after, x - sigma * out
        guess: Tensor | None = (getattr(self.scheduler, "model_outputs", None) or [None])[-1]
        return after, after if guess is None else guess

    def noised(self, latents: Tensor, noise: Tensor, step: int) -> Tensor:
        """Latents as noisy as they are before that step of the walk; clean after the last."""
        times = self.timesteps[step : step + 1]
        if not len(times):
            return latents
        if self._flows:
            return self.scheduler.scale_noise(latents, times, noise)
        return self.scheduler.add_noise(latents, noise, times)


def scheduler(name: str, config: dict[str, Any]) -> Any:
    """The scheduler of that name, with the base's own configuration."""
    own = {
        key: value
        for key, value in config.items()
        if key not in {"_class_name", "_diffusers_version", "algorithm_type"}
    }
    return (FLOW if flows(config) else CLASSES)[name].from_config(own)


def flows(config: dict[str, Any]) -> bool:
    """Whether the base predicts the velocity of a straight way from data to noise."""
    return str(config.get("_class_name", "")).startswith("FlowMatch")

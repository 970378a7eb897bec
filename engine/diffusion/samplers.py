"""Samplers by name. The base's own scheduler configuration keeps its noise schedule and its kind of prediction."""

import inspect
import math
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from engine.errors import Invalid
from engine.sampling import flows

CLASSES: dict[str, Any] = {
    "dpm++": DPMSolverMultistepScheduler,  # 2M (Lu et al. 2022, arXiv:2211.01095)
    "euler": EulerDiscreteScheduler,
    "euler a": EulerAncestralDiscreteScheduler,
    "ddim": DDIMScheduler,
    "unipc": UniPCMultistepScheduler,
    "lcm": LCMScheduler,  # Luo et al. 2023, arXiv:2310.04378
    "euler trailing": EulerDiscreteScheduler,
    "ddim trailing": DDIMScheduler,
}
FLOW: dict[str, Any] = {  # rectified flow (Liu et al. 2022, arXiv:2209.03003)
    "euler": FlowMatchEulerDiscreteScheduler,
    "dpm++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


class Sampler:
    """A scheduler of diffusers, with its timesteps set by the arguments `timing`."""

    def __init__(self, name: str, config: dict[str, Any], timing: dict[str, Any], generator: torch.Generator) -> None:
        self.scheduler = scheduler(name, config, timing.get("mu"))
        self.scheduler.set_timesteps(**_timing(self.scheduler, timing))
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
        made = self.scheduler.step(out, t, x, **source)
        after: Tensor = made.prev_sample
        if self._flows:
            sigma = self.scheduler.sigmas[self.scheduler.step_index - 1].to(x)
            return after, x - sigma * out
        guess: Tensor | None = (getattr(self.scheduler, "model_outputs", None) or [getattr(made, "denoised", None)])[-1]
        return after, after if guess is None else guess

    def noised(self, latents: Tensor, noise: Tensor, step: int) -> Tensor:
        """Latents as noisy as they are before that step of the walk; clean after the last."""
        times = self.timesteps[step : step + 1]
        if not len(times):
            return latents
        if hasattr(self.scheduler, "scale_noise"):
            return self.scheduler.scale_noise(latents, times, noise)
        return self.scheduler.add_noise(latents, noise, times)


def scheduler(name: str, config: dict[str, Any], mu: float | None = None) -> Any:
    """The scheduler of that name, with the base's own configuration; `mu` is that of a flow base's dynamic shift.

    Raises `Invalid`, naming those that there are, for one that such a base cannot use.
    """
    known = FLOW if flows(config) else CLASSES
    if name not in known:
        raise Invalid("sampler", f"this base cannot be drawn with “{name}”", f"Choose one of {', '.join(known)}.")
    if flows(config) and known[name] is not FlowMatchEulerDiscreteScheduler:
        return known[name](**_flow_config(known[name], config, mu))
    taken = set(inspect.signature(known[name].__init__).parameters) - {"algorithm_type"}  # another's is not spoken of
    own = {key: value for key, value in config.items() if key in taken}
    return known[name].from_config(own | ({"timestep_spacing": "trailing"} if name.endswith(" trailing") else {}))


def _flow_config(cls: Any, config: dict[str, Any], mu: float | None) -> dict[str, Any]:
    """A multistep solver on the way of a flow base: data prediction x₀ = x − σ·v, α = 1 − σ.

    A dynamic shift is the static one of factor exp(μ), or μ where it is linear: e^μ/(e^μ + 1/σ − 1) =
    e^μ·σ/(1 + (e^μ − 1)·σ). Neither solver knows every kind of it, so that factor is given.
    """
    shift = float(config.get("shift") or 1.0)
    if config.get("use_dynamic_shifting"):
        if mu is None:
            raise ValueError("a dynamic shift wants mu")
        shift = mu if config.get("time_shift_type") == "linear" else math.exp(mu)
    said = {
        "num_train_timesteps": config.get("num_train_timesteps", 1000),
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": shift,
    }
    ends = config.get("shift_terminal") if cls is UniPCMultistepScheduler else None  # the other one has no such end
    return said | ({"shift_terminal": ends} if ends else {})


def _timing(scheduler: Any, timing: dict[str, Any]) -> dict[str, Any]:
    """What its `set_timesteps` takes; the multistep solvers choose the σ of a flow base themselves."""
    if not getattr(scheduler.config, "use_flow_sigmas", False):
        return timing
    steps = timing.get("num_inference_steps")
    return {"num_inference_steps": len(timing["sigmas"]) if steps is None else steps}

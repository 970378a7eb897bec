"""Samplers by name. The base's own scheduler configuration keeps its noise schedule and its kind of prediction."""

from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

CLASSES: dict[str, Any] = {
    "dpm++": DPMSolverMultistepScheduler,  # 2M (Lu et al. 2022, arXiv:2211.01095)
    "euler": EulerDiscreteScheduler,
    "euler a": EulerAncestralDiscreteScheduler,
    "ddim": DDIMScheduler,
    "unipc": UniPCMultistepScheduler,
}


def sampler(name: str, config: dict[str, Any], steps: int) -> Any:
    """A scheduler of diffusers with `steps` timesteps set."""
    own = {
        key: value
        for key, value in config.items()
        if key not in {"_class_name", "_diffusers_version", "algorithm_type"}
    }
    scheduler = CLASSES[name].from_config(own)
    scheduler.set_timesteps(steps)
    return scheduler

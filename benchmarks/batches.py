"""Many pictures of one size at once, where a GPU would idle with one: the same as `bench.pictures` but for rounding."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.diffusion.families import stacked
from engine.diffusion.resident import Resident
from engine.diffusion.samplers import sampler
from engine.lora.blend import Delta, blend

BATCH = {"cuda": 32, "cpu": 4}


def together(
    resident: Resident,
    prompts: Sequence[str],
    seeds: Sequence[int],
    size: tuple[int, int],
    stack: Sequence[tuple[Mapping[str, Delta], float]] = (),
) -> np.ndarray:
    """(n, h, w, 3) uint8: prompt k with seed k, at `size` (width, height) px, with the base's defaults."""
    most = BATCH.get(resident.device.type, 16)
    parts: list[np.ndarray] = []
    with resident.rack.stacked(blend(stack)):
        for i in range(0, len(prompts), most):
            latents = _drawn(resident, prompts[i : i + most], seeds[i : i + most], size)
            pixels = resident.decode(latents).permute(0, 2, 3, 1)
            parts.append((pixels * 255).round().byte().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def _drawn(resident: Resident, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Finished latents, each from its own seed's noise; guidance as in engine.diffusion.render."""
    said = resident.base.defaults
    cond = stacked(resident.texts((*[""] * len(prompts), *prompts)))
    extra = resident.family.extra(cond, *size)
    scheduler = sampler(said.sampler, resident.parts.scheduler, said.steps)
    shape = resident.latent_shape(*size)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    x = torch.cat(noise).to(resident.device) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(torch.cat([x, x]), t).to(resident.dtype)
        out = resident.parts.unet(seen, t, encoder_hidden_states=cond.tokens, **extra).sample.float()
        without, with_prompt = out.chunk(2)
        x = scheduler.step(without + said.guidance * (with_prompt - without), t, x).prev_sample
    return x

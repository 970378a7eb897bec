"""Samplers against what can be solved by hand and against diffusers; names; few-step LoRAs by their names."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from engine import bases
from engine.diffusion.samplers import CLASSES, FLOW, Sampler
from engine.errors import Invalid
from engine.plans import SAMPLERS, ImagePlan
from engine.sampling import FLOW_SAMPLERS, Speed, check_sampler, recognised, sampler_named, samplers_of

Velocity = Callable[[torch.Tensor, float], torch.Tensor]
SHIFTED: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
DYNAMIC = SHIFTED | {"shift": 1.0, "use_dynamic_shifting": True, "time_shift_type": "exponential"}
DISTILLED: dict[str, Any] = {
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False,
    "timestep_spacing": "leading", "prediction_type": "epsilon",
}  # fmt: skip


def walked(
    name: str, config: dict[str, Any], timing: dict[str, Any], x: torch.Tensor, velocity: Velocity
) -> torch.Tensor:
    """x after all steps, where `velocity(x, σ)` is what the network would say."""
    sampler = Sampler(name, config, timing, torch.Generator().manual_seed(0))
    for i, t in enumerate(sampler.timesteps):
        x, _ = sampler.step(velocity(x, float(sampler.scheduler.sigmas[i])), t, x)
    return x


@pytest.mark.parametrize(("name", "start"), [("euler", 1.0), ("dpm++", None), ("unipc", None)])
def test_a_straight_way_is_walked_exactly(name: str, start: float | None) -> None:
    """x(σ) = (1 − σ)·data + σ·noise has the velocity noise − data everywhere: any sum of its steps is exact.

    The multistep solvers begin just below σ = 1, where their logarithm ends.
    """
    data, noise = torch.full((1, 1, 1, 2), 0.25), torch.full((1, 1, 1, 2), -1.5)
    sampler = Sampler(name, SHIFTED, {"num_inference_steps": 7}, torch.Generator())
    first = float(sampler.scheduler.sigmas[0])
    assert first == start if start else 0.999 <= first < 1
    x = (1 - first) * data + first * noise
    end = walked(name, SHIFTED, {"num_inference_steps": 7}, x, lambda _x, _sigma: noise - data)
    torch.testing.assert_close(end, data, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_a_curved_way_is_walked_better_than_by_euler(name: str) -> None:
    """For data from N(0, s²), x₀ = x(1−σ)s²/D and x(σ) = x(1)·√D with D = (1−σ)²s² + σ²: it ends at s·x(1)."""
    s = 0.5

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        clean = x * (1 - sigma) * s**2 / ((1 - sigma) ** 2 * s**2 + sigma**2)
        return (x - clean) / sigma

    x = torch.ones(1, 1, 1, 1)
    apart = {
        n: abs(float(walked(n, SHIFTED | {"shift": 1.0}, {"num_inference_steps": 20}, x, velocity)) - s)
        for n in ("euler", name)
    }
    assert apart[name] < apart["euler"] / 3
    assert apart[name] < 0.01


@pytest.mark.parametrize(("cls", "name"), [(DPMSolverMultistepScheduler, "dpm++"), (UniPCMultistepScheduler, "unipc")])
def test_flow_solvers_are_diffusers_own_in_its_settings_for_flows(cls: Any, name: str) -> None:
    theirs = cls(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    theirs.set_timesteps(6)
    ours = Sampler(name, SHIFTED, {"num_inference_steps": 6}, torch.Generator())
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    x = y = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    for t in ours.timesteps:
        x, _ = ours.step(torch.tanh(x) * 0.3, t, x)
        y = theirs.step(torch.tanh(y) * 0.3, t, y).prev_sample
    assert torch.equal(x, y)


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_a_dynamic_shift_is_the_static_one_of_its_exponential(name: str) -> None:
    timing = {"sigmas": [1.0, 0.75, 0.5, 0.25], "mu": math.log(3.0)}
    dynamic, static = (
        Sampler(name, DYNAMIC, timing, torch.Generator()),
        Sampler(name, SHIFTED, {"num_inference_steps": 4}, torch.Generator()),
    )
    torch.testing.assert_close(dynamic.scheduler.sigmas, static.scheduler.sigmas)


@pytest.mark.parametrize("name", FLOW_SAMPLERS)
def test_over_a_picture_a_flow_begins_with_that_much_noise(name: str) -> None:
    sampler = Sampler(name, SHIFTED, {"num_inference_steps": 8}, torch.Generator())
    data, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)
    x = sampler.begin(noise, data, 0.5)
    sigma = float(sampler.scheduler.sigmas[4])
    assert len(sampler.timesteps) == 4
    assert float(x) == pytest.approx((1 - sigma) * 2.0 - sigma, abs=1e-6)
    x, clean = sampler.step(noise - data, sampler.timesteps[0], x)
    assert float(clean) == pytest.approx(2.0, abs=1e-5)
    assert float(sampler.noised(data, noise, 1)) == pytest.approx(float(x), abs=1e-5)


def test_lightning_and_lcm_walk_the_timesteps_of_their_model_cards() -> None:
    timing = {"num_inference_steps": 4}
    trailing = Sampler("euler trailing", DISTILLED, timing, torch.Generator())
    assert trailing.timesteps.tolist() == [999, 749, 499, 249]  # 1000, 750, 500, 250 less one
    theirs: Any = EulerDiscreteScheduler.from_config(DISTILLED, timestep_spacing="trailing")
    theirs.set_timesteps(4)
    torch.testing.assert_close(trailing.scheduler.sigmas, theirs.sigmas)
    lcm = Sampler("lcm", DISTILLED, timing, torch.Generator())
    assert lcm.timesteps.tolist() == [999, 759, 499, 259]  # of 50 (20k − 1), every 12.5th from above
    assert Sampler("ddim trailing", DISTILLED, timing, torch.Generator()).timesteps.tolist() == [999, 749, 499, 249]
    assert Sampler("euler", DISTILLED, timing, torch.Generator()).timesteps.tolist() == [751, 501, 251, 1]


def test_lcm_draws_its_noise_from_the_pictures_seed_and_shows_its_guess() -> None:
    x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(3))
    ours = Sampler("lcm", DISTILLED, {"num_inference_steps": 2}, torch.Generator().manual_seed(5))
    theirs: Any = LCMScheduler.from_config(DISTILLED)
    theirs.set_timesteps(2)
    made = theirs.step(x * 0.1, theirs.timesteps[0], x, generator=torch.Generator().manual_seed(5))
    after, clean = ours.step(x * 0.1, ours.timesteps[0], x)
    assert torch.equal(after, made.prev_sample)
    assert torch.equal(clean, made.denoised)


def test_every_public_sampler_is_one_and_a_flow_base_refuses_the_rest_by_name() -> None:
    assert tuple(CLASSES) == SAMPLERS
    assert set(FLOW) == set(FLOW_SAMPLERS) <= set(SAMPLERS)
    for name in set(SAMPLERS) - set(FLOW_SAMPLERS):
        with pytest.raises(Invalid, match="cannot be drawn with") as refused:
            Sampler(name, SHIFTED, {"num_inference_steps": 2}, torch.Generator())
        assert refused.value.hint == "Choose one of euler, dpm++, unipc."


def flow_base(folder: Path) -> Path:
    (folder / "scheduler").mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SHIFTED))
    return folder


def test_what_a_base_can_use_is_known_before_anything_is_loaded(tmp_path: Path) -> None:
    straight = flow_base(tmp_path / "straight")
    assert samplers_of(straight) == FLOW_SAMPLERS
    assert samplers_of(bases.find("pocket").folder) == SAMPLERS
    with pytest.raises(Invalid, match="Straight cannot be drawn with “ddim”"):
        check_sampler("ddim", straight, "Straight")
    check_sampler("unipc", straight, "Straight")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("DPM++ 2M", "dpm++"), ("dpmpp_2m", "dpm++"), ("DPM++", "dpm++"), ("euler_a", "euler a"),
        ("Euler a", "euler a"),
        ("Euler Ancestral", "euler a"), ("UniPC", "unipc"), ("LCM", "lcm"), ("DDIM", "ddim"), ("Euler", "euler"),
        ("euler-trailing", "euler trailing"),
    ],
)  # fmt: skip
def test_samplers_are_known_by_what_people_call_them(said: str, name: str) -> None:
    assert sampler_named(said) == name


@pytest.mark.parametrize("said", ["DPM++ 2M Karras", "DPM++ SDE", "heun", ""])
def test_a_sampler_that_we_do_not_have_is_none_of_its_cousins(said: str) -> None:
    with pytest.raises(Invalid, match="none named"):
        sampler_named(said)


def test_lcm_takes_fifty_steps_at_most_as_it_was_distilled_on_fifty() -> None:
    ImagePlan("a", "b", 0, 64, 64, 50, 1.0, "lcm")
    with pytest.raises(Invalid, match="51 is out of range"):
        ImagePlan("a", "b", 0, 64, 64, 51, 1.0, "lcm")


@pytest.mark.parametrize(
    ("file", "steps", "guidance", "sampler"),
    [
        ("lcm-lora-sdxl", 4, 1.0, "lcm"),
        ("LCM_LoRA_Weights_SD15", 4, 1.0, "lcm"),
        ("sdxl_lightning_4step_lora", 4, 1.0, "euler trailing"),
        ("sdxl_lightning_8step_lora", 8, 1.0, "euler trailing"),
        ("Hyper-SDXL-8steps-lora", 8, 1.0, "ddim trailing"),
        ("Hyper-SD15-2steps-lora", 2, 1.0, "ddim trailing"),
        ("Hyper-SDXL-12steps-CFG-lora", 12, 5.0, "ddim trailing"),
        ("dmd2_sdxl_4step_lora", 4, 1.0, "lcm"),
        ("sd_xl_turbo_lora_v1", 4, 1.0, "euler trailing"),
    ],
)
def test_few_step_loras_are_known_by_the_names_they_are_published_under(
    file: str, steps: int, guidance: float, sampler: str
) -> None:
    assert recognised(file) == Speed(steps=steps, guidance=guidance, sampler=sampler)


@pytest.mark.parametrize(
    ("file", "steps", "guidance"),
    [
        ("FLUX.1-Turbo-Alpha", 8, None),
        ("Hyper-FLUX.1-dev-8steps-lora", 8, None),
        ("Qwen-Image-Lightning-4steps", 4, 1.0),
    ],
)
def test_on_a_flow_base_they_walk_by_euler(file: str, steps: int, guidance: float | None) -> None:
    assert recognised(file, is_flow=True) == Speed(steps=steps, guidance=guidance, sampler="euler")


@pytest.mark.parametrize(
    "file",
    ["lightning bolts", "turbo_racer_v2", "hyperrealism_xl", "hyper detailed", "welcome", "turbo", "calcm", "admd", "",
     "hypersdetails", "forest_12_steps"],
)  # fmt: skip
def test_a_plain_word_in_a_name_makes_no_speed_lora(file: str) -> None:
    assert recognised(file) is None


@pytest.mark.parametrize("guidance", [None, 1.0, 1.5])
def test_what_a_card_says_is_read_back_from_our_own_metadata(guidance: float | None) -> None:
    speed = Speed(steps=6, guidance=guidance, sampler="euler trailing")
    assert recognised(str(speed)) == speed


def test_settings_that_no_picture_can_have_are_refused() -> None:
    for said in ({"steps": 0}, {"steps": 61}, {"guidance": 31}, {"sampler": "magic"}):
        with pytest.raises(ValueError, match=next(iter(said))):
            Speed.model_validate({"steps": 4, "sampler": "lcm"} | said)

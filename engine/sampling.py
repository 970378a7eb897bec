"""How pictures are sampled, as names and numbers: samplers, which of them a base can use, and few-step LoRAs.

No tensor here: planners and refusals need this before torch is there. `engine/diffusion/samplers.py` does the walking.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engine.errors import Invalid
from engine.files import read_bounded
from engine.plans import MAX_GUIDANCE, MAX_STEPS, SAMPLERS

FLOW_SAMPLERS = ("euler", "dpm++", "unipc")  # of bases that predict a velocity (rectified flow)
MAX_CONFIG = 100_000  # bytes of a scheduler's configuration
ALIASES = {  # as people and other programs write them; compared without case, "_" and "-"
    "dpm++ 2m": "dpm++", "dpmpp 2m": "dpm++", "dpmpp": "dpm++", "dpm++2m": "dpm++", "dpm solver++": "dpm++",
    "dpmsolver++": "dpm++", "euler ancestral": "euler a", "eulera": "euler a", "uni pc": "unipc",
    "euler sgm uniform": "euler trailing", "euler sgmuniform": "euler trailing",
}  # fmt: skip


def sampler_named(said: str) -> str:
    """The sampler of that name, as people write it: "DPM++ 2M", "euler_a", "UniPC". `Invalid` if there is none."""
    name = " ".join(re.sub(r"[_-]", " ", said).lower().split())
    found = ALIASES.get(name, name)
    if found not in SAMPLERS:
        raise Invalid("sampler", f"there is none named “{said}”", f"Choose one of {', '.join(SAMPLERS)}.")
    return found


def flows(scheduler: dict[str, Any]) -> bool:
    """Whether a base of that scheduler configuration predicts the velocity of a straight way from data to noise."""
    return str(scheduler.get("_class_name", "")).startswith("FlowMatch")


def samplers_of(base: Path) -> tuple[str, ...]:
    """The samplers that the base in that folder can use, by its scheduler's configuration."""
    try:
        said = json.loads(read_bounded(base / "scheduler" / "scheduler_config.json", MAX_CONFIG))
    except (OSError, ValueError):  # drawing will say what is wrong with it
        return SAMPLERS
    return FLOW_SAMPLERS if isinstance(said, dict) and flows(cast(dict[str, Any], said)) else SAMPLERS


def check_sampler(name: str, base: Path, title: str) -> None:
    """Raise `Invalid`, naming those that it can use, for a sampler that the base in that folder cannot."""
    if name not in (known := samplers_of(base)):
        raise Invalid("sampler", f"{title} cannot be drawn with “{name}”", f"Choose one of {', '.join(known)}.")


class Speed(BaseModel):
    """What a few-step LoRA was distilled for; without `guidance` it is the base's own."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    steps: int = Field(ge=1, le=MAX_STEPS)
    guidance: float | None = Field(default=None, ge=0, le=MAX_GUIDANCE)
    sampler: str

    @field_validator("sampler")
    @classmethod
    def _is_one(cls, said: str) -> str:
        try:
            return sampler_named(said)
        except Invalid as error:
            raise ValueError(f"{error.what}: {error.why}") from None

    def __str__(self) -> str:
        guidance = "" if self.guidance is None else f", guidance {self.guidance:g}"
        return f"{self.steps} steps{guidance}, sampler {self.sampler}"


@dataclass(frozen=True, slots=True)
class Make:
    """A kind of few-step LoRA as published: how its files are called, and what they were distilled for."""

    named: str
    steps: int
    sampler: str
    guidance: float | None = 1.0  # 1: no pass without the prompt


_NETS = r"(?:sd|sdxl|sd_?xl|sd[-_ ]?(?:1[._ ]?5|v1[-_ ]?5|3(?:[._ ]?5)?)|flux(?:[._ -]?1)?|qwen\w*|z[-_ ]?image)"
_STEPS = r"(?<!\d)(\d{1,2})[-_ ]?steps?(?![a-z])"
_EDGE, _END = r"(?<![a-z])", r"(?![a-z])"
_LIGHTNING = rf"(?:{_EDGE}{_NETS}[-_ ]?(?:image[-_ ])?lightning{_END}|{_EDGE}lightning(?=.*{_STEPS}))"
_TURBO = rf"(?:{_EDGE}{_NETS}[-_ ]?turbo{_END}|{_EDGE}turbo(?=.*{_STEPS})|{_EDGE}turbo[-_ ]?(?:alpha|lora){_END})"
MAKES = (  # from the model cards; a plain word such as "turbo" counts only beside a model's name or a number of steps
    Make(rf"{_EDGE}lcm(?:[-_ ]?lora)?{_END}", 4, "lcm"),  # latent-consistency/lcm-lora-sdxl
    Make(rf"{_EDGE}dmd2?{_END}", 4, "lcm"),  # tianweiy/DMD2
    Make(_LIGHTNING, 4, "euler trailing"),  # ByteDance/SDXL-Lightning
    Make(rf"{_EDGE}hyper[-_ ]?{_NETS}{_END}", 8, "ddim trailing"),  # ByteDance/Hyper-SD
    Make(_TURBO, 4, "euler trailing"),  # stabilityai/sdxl-turbo
)
WRITTEN = re.compile(r"(\d{1,2}) steps(?:, guidance (\d{1,2}(?:\.\d{1,6})?))?, sampler ([a-z+ ]{1,32})")


def recognised(said: str, is_flow: bool = False) -> Speed | None:
    """The settings of the few-step LoRA that a file's name, title or our own metadata tell of; None for another LoRA.

    On a flow base they are those of its few-step LoRAs: Euler, and the guidance that its network reads stays.
    """
    if written := WRITTEN.fullmatch(said):  # by `Speed.__str__`
        steps, guidance, sampler = written.groups()
        return Speed(steps=int(steps), guidance=float(guidance) if guidance else None, sampler=sampler)
    name = said.lower()
    make = next((make for make in MAKES if re.search(make.named, name)), None)
    if make is None:
        return None
    count = re.search(_STEPS, name)
    steps = min(max(int(count[1]), 1), MAX_STEPS) if count else make.steps
    keeps_guidance = re.search(rf"{_EDGE}cfg{_END}", name) is not None
    if is_flow:
        return Speed(steps=steps if count else 8, guidance=1.0 if "qwen" in name else None, sampler="euler")
    return Speed(steps=steps, guidance=5.0 if keeps_guidance else make.guidance, sampler=make.sampler)

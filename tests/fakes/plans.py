"""Plans for engines without torch."""

from engine.plans import Example, ImagePlan, TrainPlan
from tests.fakes.house import png

EXAMPLES = tuple(Example(f"{k}.png", png(k, 32), "zqx cat") for k in range(5))


def picture(prompt: str = "a fox", **more: object) -> ImagePlan:
    fields: dict[str, object] = {
        "prompt": prompt, "base": "paper", "seed": 3, "width": 64, "height": 64, "steps": 4, "guidance": 3.0,
        "sampler": "dpm++",
    }  # fmt: skip
    return ImagePlan(**(fields | more))  # pyright: ignore


def training(name: str = "zed", **more: object) -> TrainPlan:
    fields: dict[str, object] = {
        "name": name, "kind": "subject", "trigger": "zqx", "word": "cat", "base": "paper", "examples": EXAMPLES,
        "seed": 5, "steps": 4, "rank": 4,
    }  # fmt: skip
    return TrainPlan(**(fields | more))  # pyright: ignore

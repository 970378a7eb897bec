"""What the engine's tests draw and train with: plans, pictures, LoRAs of random factors."""

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from engine.diffusion.resident import Resident
from engine.jobs import Drawn, Event, Trained
from engine.lora.changes import Factors
from engine.lora.write import write
from engine.plans import Example, ImagePlan, LoraRef, TrainPlan

FAMILIES = ("tiny-sd", "tiny-v", "tiny-sdxl")


class Bench:
    """Random LoRAs that fit a base, by name."""

    def __init__(self, resident: Resident) -> None:
        self.files: dict[str, bytes] = {}
        self._unet = resident.parts.denoiser

    def lora(
        self,
        name: str,
        rank: int = 4,
        targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0"),
        scale: float = 0.3,
    ) -> str:
        rng = np.random.default_rng(sum(map(ord, name)))
        layers: dict[str, Factors] = {}
        for path, module in self._unet.named_modules():
            if isinstance(module, torch.nn.Linear) and path.endswith(targets):
                out, width = module.weight.shape
                down = rng.normal(0, scale, (rank, width)).astype("float16").astype("float32")
                up = rng.normal(0, scale, (out, rank)).astype("float16").astype("float32")
                layers[path] = Factors(down, up, float(rank))
        self.files[name] = write(layers, {"title": name, "family": "sd"})
        return name

    def ref(self, name: str, weight: float = 1.0) -> LoraRef:
        return LoraRef(name, f"{hash(self.files[name]) & (2**64 - 1):064x}", weight)

    def weights(self, ref: LoraRef) -> bytes:
        return self.files[ref.name]


def png(colour: tuple[int, int, int] = (200, 90, 40), size: tuple[int, int] = (40, 36)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def image_plan(base: str, **more: object) -> ImagePlan:
    fields: dict[str, object] = {
        "prompt": "a cat", "base": base, "seed": 3, "width": 32, "height": 32, "steps": 4, "guidance": 3.0,
        "sampler": "dpm++",
    }  # fmt: skip
    return ImagePlan(**(fields | more))  # pyright: ignore


def train_plan(base: str, **more: object) -> TrainPlan:
    examples = tuple(Example(f"{i}.png", png((40 * i, 90, 200 - 30 * i)), "zqx cat") for i in range(5))
    fields: dict[str, object] = {
        "name": "zed", "kind": "subject", "trigger": "zqx", "word": "cat", "base": base, "examples": examples,
        "seed": 5, "steps": 4, "rank": 4,
    }  # fmt: skip
    return TrainPlan(**(fields | more))  # pyright: ignore


def result(events: Iterator[Event]) -> Drawn | Trained:
    last: Event | None = None
    for last in events:  # noqa: B007 - the last one is the result
        pass
    assert isinstance(last, Drawn | Trained)
    return last


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()

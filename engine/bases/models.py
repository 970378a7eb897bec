"""What bases are made of, by family, and how published models of each draw best. A model more is a row more."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine.errors import Invalid

Family = Literal["sd", "sdxl", "sd3", "flux", "flux2", "zimage", "qwen"]


@dataclass(frozen=True, slots=True)
class Model:
    """A pipeline of diffusers, the family that draws it, and its folders; the first part is the network that draws.

    `optional` are parts and tokenizers that it draws without, if worse. `processors` hold no weights: they prepare
    pictures for a text encoder. Of each channel of a latent the network takes `packing`: 4 where it reads 2 x 2 as one.
    """

    pipeline: str
    family: Family
    parts: tuple[str, ...]
    tokenizers: tuple[str, ...] = ("tokenizer",)
    processors: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    packing: int = 1

    @property
    def denoiser(self) -> str:
        return self.parts[0]

    def without(self, absent: set[str]) -> "Model":
        """The same without those of its optional folders."""
        gone = self.optional & absent
        return replace(
            self,
            parts=tuple(part for part in self.parts if part not in gone),
            tokenizers=tuple(folder for folder in self.tokenizers if folder not in gone),
        )


@dataclass(frozen=True, slots=True)
class Published:
    """How a model of `family` draws best: one whose name has `words` in it, and whose index or denoiser says `config`.

    `licence` is one that binds whatever is made of the model, too. The sizes are pixels, as base.toml has them.
    """

    family: Family
    words: str
    steps: int
    guidance: float  # as the family counts it
    licence: str = ""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    native: int = 1024
    multiple: int = 16
    min: int = 512
    max: int = 2048

    def size(self) -> dict[str, int]:
        return {"native": self.native, "multiple": self.multiple, "min": self.min, "max": self.max}


_ONE_ENCODER = ("transformer", "vae", "text_encoder")
_QWEN = Model("QwenImagePipeline", "qwen", _ONE_ENCODER, packing=4)
MODELS = (  # the first of a family says what all of it have
    Model("StableDiffusionPipeline", "sd", ("unet", "vae", "text_encoder")),
    Model(
        "StableDiffusionXLPipeline", "sdxl", ("unet", "vae", "text_encoder", "text_encoder_2"),
        ("tokenizer", "tokenizer_2"),
    ),
    Model(
        "StableDiffusion3Pipeline", "sd3", ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
        ("tokenizer", "tokenizer_2", "tokenizer_3"), optional=frozenset({"text_encoder_3", "tokenizer_3"}),
    ),
    Model(
        "FluxPipeline", "flux", ("transformer", "vae", "text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2"),
        packing=4,
    ),
    Model("Flux2KleinPipeline", "flux2", _ONE_ENCODER, packing=4),
    Model("ZImagePipeline", "zimage", _ONE_ENCODER),
    _QWEN,
    replace(_QWEN, pipeline="QwenImageEditPipeline", processors=("processor",)),
    replace(_QWEN, pipeline="QwenImageEditPlusPipeline", processors=("processor",)),
)  # fmt: skip

STABILITY = "stabilityai-ai-community"
NON_COMMERCIAL = "flux-1-dev-non-commercial-license"
PUBLISHED = (  # the first that fits; the figures are those of the models' own pages
    Published("sd3", "turbo", 4, 1.0, STABILITY, multiple=64),
    Published("sd3", "3.5-?medium", 40, 4.5, STABILITY, multiple=64),
    Published("sd3", "medium", 28, 7.0, STABILITY, multiple=64),
    Published("sd3", "", 28, 3.5, STABILITY, multiple=64),
    Published("flux", "", 28, 3.5, NON_COMMERCIAL, {"guidance_embeds": True}, min=256),
    Published("flux", "", 4, 1.0, min=256),  # schnell
    Published("flux2", "9b", 4, 1.0, "flux-non-commercial-license", {"is_distilled": True}, min=256),
    Published("flux2", "9b", 50, 4.0, "flux-non-commercial-license", min=256),
    Published("flux2", "", 4, 1.0, config={"is_distilled": True}, min=256),
    Published("flux2", "", 50, 4.0, min=256),
    Published("zimage", "turbo", 9, 0.0),  # guidance 0 is none there
    Published("zimage", "", 50, 4.0),
    Published("qwen", "", 50, 4.0, native=1328),
)
APACHE = frozenset({  # models that are published under Apache-2.0; what others made of them is under what they say
    "flux.1-schnell", "flux.2-klein-4b", "flux.2-klein-base-4b", "z-image", "z-image-turbo", "qwen-image",
    "qwen-image-2512", "qwen-image-edit", "qwen-image-edit-2509", "qwen-image-edit-2511",
})  # fmt: skip


def model_of(index: Mapping[str, Any], name: str) -> Model:
    """By the pipeline that a model_index.json names, without the optional parts that it says are not there."""
    pipeline = str(index.get("_class_name"))
    model = next((one for one in MODELS if one.pipeline == pipeline), None)
    if model is None:
        todo = f"Those are drawn with: {', '.join(one.pipeline for one in MODELS)}."
        raise Invalid(name, f"it is made for {pipeline[:60]}, which is not drawn with yet", todo)
    return model.without({folder for folder in model.optional if index.get(folder) in (None, [None, None])})


def made_of(family: Family) -> Model:
    """What every base of that family has."""
    return next(model for model in MODELS if model.family == family)


def published(family: Family, name: str, config: Mapping[str, Any]) -> Published | None:
    """How a model draws best, by its name and its index and denoiser as one; None for UNets, whose layouts say it."""
    fits = (one for one in PUBLISHED if one.family == family and re.search(one.words, name.lower()))
    return next((one for one in fits if all(config.get(key) == value for key, value in one.config.items())), None)


def licence_of(known: Published | None, name: str) -> str:
    """The licence of a model where nobody states one; "" where it is not known."""
    return "apache-2.0" if name.lower() in APACHE else known.licence if known else ""

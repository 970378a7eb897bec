"""What a single-file checkpoint is: known by its keys and shapes, with the configuration that such a file lacks.

Each folder of `single/` is one layout: layout.toml says how it is known and what base.toml it gets; the JSON beside it
configures each part as diffusers and transformers read it. A layout more is a folder more.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engine.bases import Defaults, Family, Size
from engine.bases.header import Header
from engine.errors import Invalid
from engine.files import read_manifest

SINGLE = Path(__file__).parent / "single"
FIRST = "model.diffusion_model.input_blocks.0.0.weight"  # (channels out, channels in, 3, 3)
Prediction = Literal["epsilon", "v_prediction"]
WHOLE = "Add the whole model: `atelier bases get OWNER/NAME`, or a folder that is in diffusers' layout."
OTHERS = (  # what a key holds, and what such a file is
    ("lora_", "a LoRA", "`atelier loras import FILE` takes those."),
    (".lora_A.", "a LoRA", "`atelier loras import FILE` takes those."),
    ("double_blocks.0.", "a FLUX transformer alone, without its text encoders and autoencoder", WHOLE),
    ("joint_blocks.0.", "a Stable Diffusion 3 model, whose single file is not read yet", WHOLE),
    ("conditioner.embedders.0.model.", "SDXL's refiner, which draws nothing alone", "Add the SDXL base."),
    ("control_model.", "a ControlNet", "Add the checkpoint that it is used with."),
    ("transformer_blocks.0.", "one part of a model in diffusers' layout", WHOLE),
    ("down_blocks.0.", "one part of a model in diffusers' layout", "Name the folder that holds all of its parts."),
)


class Layout(BaseModel):
    """`marks`: key → shape (-1: any), `parts`: part → a key of it, `tokenizers`: tokenizer → what it pads with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    title: str
    family: Family
    predictions: tuple[Prediction, ...]
    marks: dict[str, tuple[int, ...]]
    parts: dict[str, str]
    tokenizers: dict[str, str]
    size: Size
    defaults: Defaults

    def matches(self, header: Header) -> bool:
        return all(_like(header.shape(key), wanted) for key, wanted in self.marks.items())


def layouts(folder: Path = SINGLE) -> tuple[Layout, ...]:
    """Every layout of that folder, by name."""
    found = sorted(folder.glob("*/layout.toml"))
    return tuple(Layout.model_validate({"folder": file.parent, **read_manifest(file)}) for file in found)


def recognise(header: Header, name: str, known: tuple[Layout, ...]) -> Layout:
    """The layout of a checkpoint that can be drawn with. Raises `Invalid`: what the file `name` is instead."""
    layout = next((one for one in known if one.matches(header)), None)
    if layout is None:
        what, todo = next(
            ((f"it is {what}", todo) for mark, what, todo in OTHERS if any(mark in key for key in header.tensors)),
            ("its tensors are those of no model that we know", "Add an SD 1.x, SD 2.x or SDXL checkpoint."),
        )
        raise Invalid(name, what, todo)
    _check_channels(header, name)
    if missing := [part for part, key in layout.parts.items() if key not in header.tensors]:
        why = f"it is a {layout.title} checkpoint without its {', '.join(missing)}"
        raise Invalid(name, why, "Get the full file, not the one that holds the UNet alone.")
    return layout


def prediction(header: Header, name: str, layout: Layout, said: Prediction | None) -> Prediction:
    """What the UNet predicts: as the person says, else as the file says, else what its layout always does.

    A file says it by a tensor named `v_pred`, or by `modelspec.prediction_type`. Raises `Invalid` where nothing does.
    """
    if said:
        return said
    stated = header.metadata.get("modelspec.prediction_type", "").lower()
    if "v_pred" in header.tensors or stated in ("v", "v_prediction"):
        return "v_prediction"
    if stated == "epsilon" or len(layout.predictions) == 1:
        return "epsilon" if stated == "epsilon" else layout.predictions[0]
    why = f"{layout.title} comes in two kinds with the same tensors, and the file does not say which it is"
    todo = "Say --prediction v_prediction (2.0, 2.1: 768 px) or --prediction epsilon (2-base, 2.1-base: 512 px)."
    raise Invalid(name, why, todo)


def _check_channels(header: Header, name: str) -> None:
    shape = header.shape(FIRST)
    channels = shape[1] if shape and len(shape) == 4 else 0
    if channels == 4:
        return
    kind = {9: "an inpainting checkpoint", 8: "a checkpoint that edits by instruction"}.get(channels, "of an odd kind")
    why = f"it is {kind} (its UNet takes {channels} channels), which is not drawn with yet"
    raise Invalid(name, why, "Add the plain checkpoint: masks and edits work with it.")


def _like(shape: tuple[int, ...] | None, wanted: tuple[int, ...]) -> bool:
    return (
        shape is not None
        and len(shape) == len(wanted)
        and all(w in (-1, s) for s, w in zip(shape, wanted, strict=True))
    )

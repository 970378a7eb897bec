"""A single-file checkpoint becomes the parts of a base: `python -m engine.diffusion.single_file FILE FOLDER`.

FOLDER has the configuration of each part already (FOLDER/unet/config.json, …), so that diffusers, which converts, has
nothing to look up. A process of its own: what it takes of memory goes back, and the caller needs no torch.
"""

import json
import sys
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from diffusers.loaders import single_file_utils
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

REFUSED = 3
CLASSES: dict[str, Any] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "AutoencoderKL": AutoencoderKL,
    "CLIPTextModel": CLIPTextModel,
    "CLIPTextModelWithProjection": CLIPTextModelWithProjection,
}


def convert(file: Path, folder: Path) -> None:
    """Write the weights of each part of `folder` from `file`. Raises ValueError where that lacks or misshapes some.

    They keep their precision; float8 becomes float16.
    """
    tensors: dict[str, Tensor] = cast(Any, safetensors.torch).load_file(file)
    for config in sorted(folder.glob("*/config.json")):
        part = config.parent.name
        try:
            module = _part(part, folder, tensors)
        except NotImplementedError:  # a parameter without values cannot take a precision
            raise ValueError(f"its {part} is not whole: tensors that it needs are missing") from None
        module.save_pretrained(config.parent, safe_serialization=True)


def _part(part: str, folder: Path, tensors: dict[str, Tensor]) -> Any:
    said = json.loads((folder / part / "config.json").read_text())
    cls = CLASSES[said.get("_class_name") or said["architectures"][0]]
    dtype = _precision(part, tensors)
    if part.startswith("text_encoder"):
        make = cast(Any, single_file_utils).create_diffusers_clip_model_from_ldm
        return make(cls, tensors, subfolder=part, config=str(folder), torch_dtype=dtype, local_files_only=True)
    # the checkpoint is copied, as the conversion takes tensors out of what it is given
    return cls.from_single_file(
        dict(tensors), config=str(folder), subfolder=part, torch_dtype=dtype, local_files_only=True
    )


def _precision(part: str, tensors: dict[str, Tensor]) -> torch.dtype:
    prefixes = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
    prefix = prefixes.get(part, ("cond_stage_model.", "conditioner."))
    found = next(t.dtype for key, t in tensors.items() if key.startswith(prefix) and t.is_floating_point())
    return found if found in (torch.float32, torch.float16, torch.bfloat16) else torch.float16


def main(file: str, folder: str) -> int:
    try:
        convert(Path(file), Path(folder))
    except (ValueError, KeyError) as error:
        text = " ".join(str(error).split())
        sys.stderr.write(f"{text[:300]}\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

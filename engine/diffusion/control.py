"""ControlNets: their residuals are added to the UNet's, so that a picture follows edges, poses, depths or a drawing.

A ControlNet is a copy of the UNet's first half that reads a picture beside the noise (Zhang et al. 2023,
arXiv:2302.05543). As a program, `python -m engine.diffusion.control FILE FOLDER`, it makes one of a file of weights.
"""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from diffusers.loaders import single_file_utils
from diffusers.models.controlnets.controlnet import ControlNetModel
from PIL import Image, ImageChops, ImageStat
from torch import Tensor, nn

from engine.controls import CONFIG, WEIGHTS, Net
from engine.diffusion.deliver import as_bytes, on_white, resized
from engine.diffusion.edges import canny
from engine.errors import Invalid
from engine.plans import Control

REFUSED = 3
PAPER = 127  # a drawing whose mean is above this is dark on light


@dataclass(frozen=True)
class Guide:
    """A ControlNet and its `hint` (1, 3, h, w) in [0, 1]: `weight` times, in the first part `until` of the steps."""

    net: nn.Module
    hint: Tensor
    weight: float
    until: float


class Guided(nn.Module):
    """A UNet with the residuals of its guides, asked as the UNet itself is asked."""

    def __init__(self, unet: nn.Module, guides: Sequence[Guide]) -> None:
        super().__init__()
        self._unet = unet
        self._guides = guides

    def forward(self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor, **more: Any) -> Any:
        """x (n, c, h, w): each guide reads all n, those without the prompt too; what they say is summed."""
        downs: list[Tensor] = []
        mids: list[Tensor] = []
        for guide in self._guides:
            hint = guide.hint.expand(len(x), -1, -1, -1)
            down, mid = guide.net(x, t, encoder_hidden_states, hint, guide.weight, return_dict=False, **more)
            downs = [a + b for a, b in zip(downs, down, strict=True)] if downs else list(down)
            mids = [mids[0] + mid] if mids else [mid]
        return self._unet(
            x, t, encoder_hidden_states=encoder_hidden_states, down_block_additional_residuals=downs,
            mid_block_additional_residual=mids[0], **more,
        )  # fmt: skip


def guided(unet: nn.Module, guides: Sequence[Guide], after: float) -> nn.Module:
    """`unet` as it is to be asked in the step after which the part `after` in (0, 1] of the steps is done."""
    now = [guide for guide in guides if after <= guide.until]
    return Guided(unet, now) if now else unet


class Nets:
    """The ControlNets of the plan in hand, loaded; those that the next one does not need are let go."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[tuple[Path, torch.dtype], nn.Module] = {}

    def guides(
        self, controls: Sequence[Control], nets: Sequence[Net], size: tuple[int, int], dtype: torch.dtype
    ) -> tuple[Guide, ...]:
        """A guide for each control, its picture brought to `size` (width, height). Raises `Invalid`."""
        keys = [(net.folder, dtype) for net in nets]
        self._held = {key: net for key, net in self._held.items() if key in keys}
        for key, net in zip(keys, nets, strict=True):
            if key not in self._held:
                self._held[key] = load(net, dtype).to(self._device)
        hints = (hint_of(control, size) for control in controls)
        return tuple(
            Guide(self._held[key], _pixels(hint).to(self._device, dtype), control.weight, control.until)
            for key, hint, control in zip(keys, hints, controls, strict=True)
        )


def load(net: Net, dtype: torch.dtype) -> nn.Module:
    """A ControlNet from its folder. Raises `Invalid` unless its file has each weight that it needs, and no other."""
    try:
        config = json.loads((net.folder / CONFIG).read_text("utf-8"))
        return _filled(config, safetensors.torch.load_file(net.folder / WEIGHTS)).to(dtype)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        why = f"its files are not as they were when it was added ({' '.join(str(error).split())[:200]})"
        raise Invalid(f"control {net.name}", why, f"Remove {net.folder}, and add it again.") from error


def hint_of(control: Control, size: tuple[int, int]) -> Image.Image:
    """What a ControlNet of that kind reads, RGB of `size`; of a picture in another shape the middle.

    Edges are found in the picture (Canny), a drawing becomes light on dark, maps of poses and depths are what they are.
    """
    with Image.open(io.BytesIO(control.image)) as opened:
        if control.is_map or control.kind in ("pose", "depth"):
            return resized(_on_black(opened), size)
        picture = resized(on_white(opened), size)
    if control.kind == "edge":
        return Image.fromarray(canny(as_bytes(picture).numpy())).convert("RGB")
    drawing = picture.convert("L")
    is_dark_on_light = ImageStat.Stat(drawing).mean[0] > PAPER
    return (ImageChops.invert(drawing) if is_dark_on_light else drawing).convert("RGB")


def convert(file: Path, folder: Path) -> None:
    """Write the weights of the ControlNet that `folder`/config.json describes from `file`, in either layout.

    Raises ValueError where it lacks some, has others, or holds what is no number.
    """
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    tensors = safetensors.torch.load_file(file)
    if "controlnet_mid_block.weight" not in tensors:
        made = cast(Any, single_file_utils).convert_controlnet_checkpoint(tensors, config)
        tensors = {key: tensor for key, tensor in made.items() if tensor is not None}
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{key[:80]} holds what is no number")
    net = _filled(config, tensors)
    safetensors.torch.save_file({k: t.contiguous() for k, t in net.state_dict().items()}, folder / WEIGHTS)


def _filled(config: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    with torch.device("meta"):
        net: nn.Module = cast(Any, ControlNetModel).from_config(config)
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ValueError(f"its weights are not those of its configuration: {first[0].strip()[:200]}") from None
    return net.eval().requires_grad_(False)


def _on_black(image: Image.Image) -> Image.Image:
    """RGB, with black where it is transparent: there a map says nothing."""
    glass = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "black")
    paper.alpha_composite(glass)
    return paper.convert("RGB")


def _pixels(hint: Image.Image) -> Tensor:
    """RGB picture → (1, 3, h, w) in [0, 1]."""
    return as_bytes(hint).permute(2, 0, 1)[None].float() / 255


def main(file: str, folder: str) -> int:
    try:
        convert(Path(file), Path(folder))
    except (ValueError, KeyError) as error:
        sys.stderr.write(f"{' '.join(str(error).split())[:300]}\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

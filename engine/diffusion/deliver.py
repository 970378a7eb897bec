"""From a picture as drawn to the one that people receive: enlarged, put under its mask, cut out.

Two small nets do so, each loaded when a picture first needs it and kept from then on.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from engine.companions.matting import Matte, cut_out
from engine.companions.upscaler import Upscaler
from engine.errors import Invalid, UserError
from engine.plans import ImagePlan
from engine.recipes import companion_folder

INSTEAD = {
    "upscaler": "Ask for a small file (--upscale 1), or install Atelier again.",
    "matting": "Leave --transparent out, or install Atelier again.",
}
Net = Callable[[Tensor], Tensor]
Load = Callable[[str, Path, torch.device], Net]
LOADERS: dict[str, Callable[[Path, torch.device], Net]] = {"upscaler": Upscaler.load, "matting": Matte.load}


def load(name: str, folder: Path, device: torch.device) -> Net:
    """The companion `name` from its folder."""
    return LOADERS[name](folder, device)


class Companions:
    """The nets by name, on one device."""

    def __init__(self, device: torch.device, load: Load = load) -> None:
        self._device = device
        self._load = load
        self._nets: dict[str, Net] = {}

    def check(self, plan: ImagePlan) -> None:
        """Load what the plan needs. Raises `Invalid`, saying what to do, for what is not there."""
        for name in plan.companions:
            self.net(name)

    def net(self, name: str) -> Net:
        if name not in self._nets:
            try:
                self._nets[name] = self._load(name, companion_folder(name), self._device)
            except UserError as error:
                raise Invalid(name, "its weights are not here, or not as they should be", INSTEAD[name]) from error
        return self._nets[name]


def delivered(
    picture: Image.Image, plan: ImagePlan, nets: Companions, over: tuple[Image.Image, Image.Image] | None = None
) -> Image.Image:
    """`picture`, RGB of the plan's size, as it is delivered: RGB, or RGBA where it is transparent.

    `over` is what was painted over and its mask, both of the delivered size: outside the mask not a pixel is changed.
    """
    if plan.upscale > 1:
        picture = as_image(nets.net("upscaler")(as_bytes(picture)[None])[0])
    if over is not None:
        source, mask = over
        picture = Image.composite(picture, source, seamless(mask, plan.upscale))
    if plan.transparent:
        picture = as_image(cut_out(as_bytes(picture), nets.net("matting")))
    return picture


def seamless(mask: Image.Image, upscale: int) -> Image.Image:
    """The mask with a soft rim that lies within it, as wide as two pixels were drawn; of a picture as drawn, itself."""
    mask = mask.convert("L")
    return mask if upscale == 1 else ImageChops.darker(mask, mask.filter(ImageFilter.GaussianBlur(upscale)))


def resized(
    image: Image.Image, size: tuple[int, int], larger: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    """The middle of `image` in the shape of `size`, at that size: by area if that is smaller, else by `larger`."""
    width, height = image.size
    scale = min(width / size[0], height / size[1])
    wide, high = size[0] * scale, size[1] * scale
    left, top = (width - wide) / 2, (height - high) / 2
    way = Image.Resampling.BOX if scale > 1 else larger
    return image if image.size == size else image.resize(size, way, box=(left, top, left + wide, top + high))


def on_white(image: Image.Image) -> Image.Image:
    """RGB, with white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    glass = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(glass)
    return paper.convert("RGB")


def as_bytes(image: Image.Image) -> Tensor:
    """RGB picture → uint8 (h, w, 3)."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def as_image(pixels: Tensor) -> Image.Image:
    """uint8 (h, w, 3 or 4) → RGB or RGBA picture."""
    return Image.fromarray(pixels.cpu().numpy())

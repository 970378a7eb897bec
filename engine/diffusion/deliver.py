"""From a picture as drawn to the one that people receive: enlarged, given detail, put under its mask, cut out.

Two small nets do so, and upscalers of a person's own; each is loaded when a picture first needs it. Of the latter one
is kept, the last that was used.
"""

from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from engine import upscalers
from engine.companions.esrgan import Esrgan
from engine.companions.matting import Matte, cut_out
from engine.companions.upscaler import Upscaler
from engine.errors import Invalid, UserError
from engine.plans import LANCZOS, ImagePlan
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


Steps = Generator[bool, None, Image.Image]  # after each step of the work, whether a tile is done by it; then a picture
Detail = Callable[[Image.Image], Steps]


class Companions:
    """The nets by name, on one device; a person's own upscalers lie in `home`."""

    def __init__(self, device: torch.device, load: Load = load, home: Path | None = None) -> None:
        self._device = device
        self._load = load
        self._home = home
        self._nets: dict[str, Net] = {}
        self._upscaler: tuple[str, Esrgan] | None = None  # by the hash of its file

    def check(self, plan: ImagePlan) -> None:
        """Load what the plan needs. Raises `Invalid`, saying what to do, for what is not there."""
        for name in plan.companions:
            self.net(name)
        if plan.upscaler not in ("", LANCZOS):
            upscalers.check_gives(plan.upscaler, plan.upscale, self._shelf)
            self.upscaler(plan.upscaler)

    def net(self, name: str) -> Net:
        if name not in self._nets:
            try:
                self._nets[name] = self._load(name, companion_folder(name), self._device)
            except UserError as error:
                raise Invalid(name, "its weights are not here, or not as they should be", INSTEAD[name]) from error
        return self._nets[name]

    def upscaler(self, name: str) -> Esrgan:
        """A person's own, by name; read anew where its file is another one now."""
        sha256 = upscalers.sha256_of(name, self._shelf)
        if self._upscaler is None or self._upscaler[0] != sha256:
            self._upscaler = None  # the old one goes before the new one comes
            self._upscaler = sha256, Esrgan.load(upscalers.find(name, self._shelf).file, self._device)
        return self._upscaler[1]

    def upscaler_sha256(self, plan: ImagePlan) -> str:
        """What names a person's own upscaler in a recipe, once `check` has loaded it; "" where there is none."""
        return self._upscaler[0] if plan.upscaler not in ("", LANCZOS) and self._upscaler else ""

    def tiles(self, plan: ImagePlan) -> int:
        """In how many tiles a person's own upscaler works, where the plan names one."""
        own = plan.upscaler not in ("", LANCZOS)
        return self.upscaler(plan.upscaler).tiles(plan.width, plan.height) if own else 0

    @property
    def _shelf(self) -> Path:
        assert self._home is not None  # a plan that names an upscaler is run where there is a home
        return self._home


def delivered(
    picture: Image.Image,
    plan: ImagePlan,
    nets: Companions,
    detail: Detail,
    over: tuple[Image.Image, Image.Image] | None = None,
) -> Steps:
    """`picture`, RGB of the plan's size, as it is delivered: RGB, or RGBA where it is transparent.

    `detail` draws over an enlarged picture. `over` is what was painted over and
    its mask, both of the delivered size: outside the mask not a pixel is changed.
    """
    picture = yield from enlarged(picture, plan, nets)
    if plan.detail:
        picture = yield from detail(picture)
    if over is not None:
        source, mask = over
        picture = Image.composite(picture, source, seamless(mask, plan.upscale))
    if plan.transparent:
        picture = as_image(cut_out(as_bytes(picture), nets.net("matting")))
    return picture


def enlarged(picture: Image.Image, plan: ImagePlan, nets: Companions) -> Steps:
    """By the plan's upscaler; where that gives more than was asked for, brought down by area."""
    if plan.upscale == 1:
        return picture
    match plan.upscaler:
        case "":
            larger = as_image(nets.net("upscaler")(as_bytes(picture)[None])[0])
        case "lanczos":
            return picture.resize(plan.delivered, Image.Resampling.LANCZOS)
        case name:
            larger = as_image((yield from nets.upscaler(name).enlarged(as_bytes(picture))))
    return resized(larger, plan.delivered)


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

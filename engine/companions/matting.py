"""The objects of a picture, cut out: a soft mask, and the picture without its ground."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.companions.weights import fill, sizes_of

FOLDER = Path(__file__).with_suffix("")
AREA = 256 * 256  # px at which the net finds objects
REACH = 2  # px at that size: how far the mask may be moved to the picture's edges
SURE = 0.97  # from here on a pixel belongs to the object alone


def pair(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


class MatteNet(nn.Module):
    """(n, 3, h, w) in 0..1 → logits (n, 1, h, w): a U-Net (Ronneberger et al. 2015, arXiv:1505.04597)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.halvings = len(widths) - 1
        self.down = nn.ModuleList(pair(a, b) for a, b in zip((3, *widths), widths, strict=False))
        self.up = nn.ModuleList(pair(a + b, b) for a, b in zip(widths[1:], widths, strict=False))
        self.out = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        unit = 2**self.halvings
        y = F.pad(x - 0.5, (0, -width % unit, 0, -height % unit), mode="replicate")
        passed: list[Tensor] = []
        for level, layer in enumerate(self.down):
            y = layer(F.max_pool2d(y, 2) if level else y)
            passed.append(y)
        for layer, across in zip(reversed(list(self.up)), reversed(passed[:-1]), strict=True):
            y = layer(torch.cat([F.interpolate(y, scale_factor=2, mode="bilinear"), across], 1))
        return self.out(y)[..., :height, :width]


@dataclass(frozen=True)
class Matte:
    """The trained net."""

    net: MatteNet

    @staticmethod
    def load(folder: Path = FOLDER, device: torch.device | str = "cpu") -> "Matte":
        """Read the folder. Raises NoWeights."""
        net = MatteNet(**sizes_of("matting net", folder))
        fill(net, "matting net", folder)
        return Matte(net.to(device))

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (n, h, w, 3) → the objects' mask, float32 (n, h, w) in 0..1, on the CPU. For 256 px and their like."""
        device = self.net.out.weight.device
        parts: list[Tensor] = []
        for i in range(len(pixels)):
            x = planes(pixels[i : i + 1].to(device))
            parts.append(self.net(x).sigmoid()[:, 0].cpu())
        return torch.cat(parts)


def planes(pixels: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) → float32 (n, 3, h, w) in 0..1."""
    return pixels.permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def cut_out(pixels: Tensor, matte: Callable[[Tensor], Tensor]) -> Tensor:
    """The objects without their ground: uint8 (h, w, 3), of any size → uint8 (h, w, 4), alpha not premultiplied.

    `matte` (a `Matte`) looks at the picture at about 256 px; the mask that it finds is then led along the edges of the
    full picture. Inner pixels stay as they are; at the rim the ground's share of the colour is taken out.
    """
    picture = planes(pixels[None])
    height, width = pixels.shape[:2]
    shrink = min(1.0, (AREA / (height * width)) ** 0.5)
    small = picture
    if shrink < 1:
        size = (round(height * shrink), round(width * shrink))
        small = F.interpolate(picture, size=size, mode="area").mul(255).round() / 255
    mask = matte((small * 255).round().byte().permute(0, 2, 3, 1))[:, None]
    alpha = firm(guided(mask, small, picture))
    colour = own_colour(picture, alpha)
    return torch.cat([colour, alpha], 1)[0].mul(255).round().byte().permute(1, 2, 0).contiguous()


def firm(alpha: Tensor) -> Tensor:
    """Nearly nothing becomes nothing, nearly whole becomes whole."""
    return ((alpha - 0.04) / 0.92).clamp(0, 1)


def mean(x: Tensor, radius: int) -> Tensor:
    """Of each pixel's square of side 2 · radius + 1, at the border of what is inside."""
    side = 2 * radius + 1
    return F.avg_pool2d(x, side, stride=1, padding=radius, count_include_pad=False)


def guided(mask: Tensor, small: Tensor, large: Tensor, blur: float = 1e-4) -> Tensor:
    """The mask (1, 1, h, w) of the picture `small` (1, 3, h, w) at the size of `large` (1, 3, H, W), along its edges.

    The guided filter (He et al. 2010) with its colour covariance: around each pixel the mask is a linear function of
    the colour, α = a · I + b, fitted at the small size and applied at the large one (He & Sun 2015, arXiv:1505.00996).
    `blur` is the variance of colour below which a place counts as flat.
    """
    average = mean(torch.cat([small, mask], 1), REACH)
    tone, share = average[:, :3], average[:, 3:]
    products = mean(torch.cat([small * mask, (small[:, :, None] * small[:, None]).flatten(1, 2)], 1), REACH)
    with_mask = (products[:, :3] - tone * share).permute(0, 2, 3, 1)
    within = products[:, 3:] - (tone[:, :, None] * tone[:, None]).flatten(1, 2)
    within = within.permute(0, 2, 3, 1).reshape(*with_mask.shape, 3) + blur * torch.eye(3, device=mask.device)
    solved = cast(Tensor, torch.linalg.solve(within, with_mask))  # its annotation is missing
    slope = solved.permute(0, 3, 1, 2)
    offset = share - (slope * tone).sum(1, keepdim=True)
    fitted = F.interpolate(mean(torch.cat([slope, offset], 1), 1), size=large.shape[-2:], mode="bilinear")
    return ((fitted[:, :3] * large).sum(1, keepdim=True) + fitted[:, 3:]).clamp(0, 1)


def own_colour(picture: Tensor, alpha: Tensor) -> Tensor:
    """The objects' own colour (1, 3, h, w), where pixels are I = α F + (1 − α) B.

    F and B at the rim are taken from the nearest sure pixels, by averages over ever wider blocks; F is then corrected
    by what they leave unexplained (after Forte 2021, arXiv:2006.14970). Where α is 1, F is the pixel itself.
    """
    front, back = spread_from(picture, (alpha >= SURE).float()), spread_from(picture, (alpha <= 1 - SURE).float())
    left = picture - alpha * front - (1 - alpha) * back
    return torch.where(alpha >= SURE, picture, (front + alpha * left).clamp(0, 1))


def spread_from(picture: Tensor, known: Tensor) -> Tensor:
    """The picture where it is `known` (1, 1, h, w), elsewhere the mean of what is known in the least block around it.

    Blocks double from level to level, and are smoothed on the way back (pull-push, Gortler et al. 1996).
    """
    if float(known.mean()) in (0, 1):
        return picture
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    colour = F.avg_pool2d(picture * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = spread_from(colour, (weight > 0).float())
    return torch.where(known > 0, picture, F.interpolate(coarse, size=known.shape[-2:], mode="bilinear"))

"""Four times as many pixels on a side: flat tones stay flat, contours become crisp, small faults of a sampler go."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.companions.weights import fill, sizes_of

FOLDER = Path(__file__).with_suffix("")
TIMES = 4
LEAK = 0.2  # of what is below zero: without it units die in the first steps


class Block(nn.Module):
    """Two 3 × 3 convolutions and a way round them, which is nearly all of it when new."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight)
        nn.init.kaiming_normal_(self.second.weight)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.leaky_relu(self.first(x), LEAK))


def detail(x: Tensor, radius: int) -> Tensor:
    """What differs from the mean of the square around: nothing where a picture is flat, whatever its tone."""
    padded, side = F.pad(x, (radius,) * 4, mode="replicate"), 2 * radius + 1
    return x - F.avg_pool2d(F.avg_pool2d(padded, (side, 1), stride=1), (1, side), stride=1)


class UpscalerNet(nn.Module):
    """(n, 3, h, w) in 0..1 → (n, 3, 4h, 4w), not clamped: what is missing to the bicubic enlargement.

    A U of three levels at the size of the input and below, which sees some 60 pixels; then sub-pixel convolutions (Shi
    et al. 2016, arXiv:1609.05158): one at once, which learns soon, and two in a row, which are finer. What it
    sees is detail, coarse and fine, each about as strong: shown tones, it would learn to sharpen very slowly.
    """

    def __init__(self, widths: tuple[int, int, int], blocks: tuple[int, int, int], fine: int) -> None:
        super().__init__()
        near, middle, far = widths
        self.stem = nn.Conv2d(6, near, 3, padding=1)
        self.before = nn.Sequential(*(Block(near) for _ in range(blocks[0])))
        self.down = nn.Conv2d(near, middle, 2, stride=2)
        self.middle_before = nn.Sequential(*(Block(middle) for _ in range(blocks[1])))
        self.down_again = nn.Conv2d(middle, far, 2, stride=2)
        self.far = nn.Sequential(*(Block(far) for _ in range(blocks[2])))
        self.up_again = nn.Conv2d(far, middle * 4, 1)
        self.middle_after = nn.Sequential(*(Block(middle) for _ in range(blocks[1])))
        self.up = nn.Conv2d(middle, near * 4, 1)
        self.after = nn.Sequential(*(Block(near) for _ in range(blocks[0])))
        self.head = nn.Conv2d(near, 3 * TIMES**2, 3, padding=1)
        self.twice = nn.Conv2d(near, fine * 4, 3, padding=1)
        self.fine = Block(fine)
        self.again = nn.Conv2d(fine, 12, 3, padding=1)
        for layer in (self.stem, self.down, self.down_again, self.up_again, self.up, self.twice):
            nn.init.kaiming_normal_(layer.weight)
        with torch.no_grad():
            self.up.weight.mul_(0.1)
            self.up_again.weight.mul_(0.1)
        for layer in (self.head, self.again):  # new, it is the bicubic enlargement
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")
        y = self.before(self.stem(torch.cat([4 * detail(padded, 8), 16 * detail(padded, 1)], 1)))
        z = self.middle_before(self.down(y))
        z = self.middle_after(z + F.pixel_shuffle(self.up_again(self.far(self.down_again(z))), 2))
        y = F.leaky_relu(self.after(y + F.pixel_shuffle(self.up(z), 2)), LEAK)
        missing = F.pixel_shuffle(self.head(y), TIMES)
        y = self.fine(F.leaky_relu(F.pixel_shuffle(self.twice(y), 2), LEAK))
        missing = missing + F.pixel_shuffle(self.again(y), 2)
        return missing[..., : TIMES * height, : TIMES * width] + F.interpolate(
            x, scale_factor=TIMES, mode="bicubic", align_corners=False
        )


@dataclass(frozen=True)
class Upscaler:
    """The trained net."""

    net: UpscalerNet

    @staticmethod
    def load(folder: Path = FOLDER, device: torch.device | str = "cpu") -> "Upscaler":
        """Read the folder. Raises NoWeights."""
        net = UpscalerNet(**sizes_of("upscaler", folder))
        fill(net, "upscaler", folder)
        return Upscaler(net.to(device))

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (n, h, w, 3) → uint8 (n, 4h, 4w, 3), on the CPU; one after the other, so memory does not grow with n.

        Meant for pictures of 256 px and their like; at other sizes it works too, and memory grows with the area.
        """
        device = self.net.stem.weight.device
        parts: list[Tensor] = []
        for i in range(len(pixels)):
            x = pixels[i : i + 1].to(device).permute(0, 3, 1, 2).float() / 255  # channels last, as pixels lie
            parts.append(self.net(x).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).contiguous().cpu())
        return torch.cat(parts)

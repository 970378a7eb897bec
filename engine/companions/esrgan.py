"""The nets of ESRGAN-type files (engine/upscalers.py reads them), and how they enlarge a picture of any size in tiles.

A net is a row of stages. Each is worked out for the whole picture, tile by tile, before the next one: a tile is then
read with the few pixels around it that one stage sees, and not with the hundreds that the whole net does. What comes
out is what the net says of the whole picture at once; what is held is three maps of features, and one tile's work.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.upscalers import Layout, read

TILE = 256  # pixels a side of what a stage is shown at once, without its rim
LEAK = 0.2
Made = TypeVar("Made")


def conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


class DenseBlock(nn.Module):
    """Five convolutions, each of all that came before it; what they find is added at a fifth."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for i in range(4):
            self.add_module(f"conv{i + 1}", conv(width + i * growth, growth))
        self.conv5 = conv(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for i in range(4):
            seen = torch.cat([seen, F.leaky_relu(self.get_submodule(f"conv{i + 1}")(seen), LEAK)], 1)
        return x + 0.2 * self.conv5(seen)


class Block(nn.Module):
    """Three dense blocks, added at a fifth: a residual in residual dense block."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """(1, 3, h, w) in 0..1 → (1, 3, s·h, s·w), not clamped; h and w are multiples of `unshuffle`."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        width = layout.features
        self.doublings, self.unshuffle = layout.doublings, layout.unshuffle
        self.conv_first = conv(3 * layout.unshuffle**2, width)
        self.body = nn.ModuleList(Block(width, layout.growth) for _ in range(layout.blocks))
        self.conv_body = conv(width, width)
        for i in range(layout.doublings):
            self.add_module(f"conv_up{i + 1}", conv(width, width))
        self.conv_hr, self.conv_last = conv(width, width), conv(width, 3)

    def begin(self, x: Tensor) -> Tensor:
        return self.conv_first(F.pixel_unshuffle(x, self.unshuffle))

    def end(self, x: Tensor) -> Tensor:
        for i in range(self.doublings):
            x = self.get_submodule(f"conv_up{i + 1}")(F.interpolate(x, scale_factor=2, mode="nearest"))
            x = F.leaky_relu(x, LEAK)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), LEAK))

    def forward(self, x: Tensor) -> Tensor:
        first = features = self.begin(x)
        for block in self.body:
            features = block(features)
        return self.end(first + self.conv_body(features))


class SRVGGNetCompact(nn.Module):
    """(1, 3, h, w) in 0..1 → (1, 3, s·h, s·w), not clamped: what is missing to the picture with its pixels repeated."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        width, self.shuffle = layout.features, layout.shuffle
        layers: list[nn.Module] = [conv(3, width), nn.PReLU(width)]
        for _ in range(layout.blocks):
            layers += [conv(width, width), nn.PReLU(width)]
        self.body = nn.ModuleList([*layers, conv(width, 3 * layout.shuffle**2)])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.body:
            y = layer(y)
        return F.pixel_shuffle(y, self.shuffle) + F.interpolate(x, scale_factor=self.shuffle, mode="nearest")


class Box(NamedTuple):
    """A tile: rows `top` to `bottom` and columns `left` to `right` of what goes into a stage."""

    top: int
    bottom: int
    left: int
    right: int

    def wider(self, by: int, height: int, width: int) -> "Box":
        """With a rim, as far as the whole goes."""
        return Box(
            max(self.top - by, 0), min(self.bottom + by, height), max(self.left - by, 0), min(self.right + by, width)
        )

    def within(self, outer: "Box") -> "Box":
        """The same tile, counted from the corner of `outer`."""
        top, left = outer.top, outer.left
        return Box(self.top - top, self.bottom - top, self.left - left, self.right - left)

    def of(self, times: int) -> tuple[slice, ...]:
        """What picks it from a map (1, c, h, w) that has `times` as many pixels a side."""
        top, bottom, left, right = (times * side for side in self)
        return (..., slice(top, bottom), slice(left, right))  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Esrgan:
    """A person's upscaler, ready to be used."""

    net: RRDBNet | SRVGGNetCompact
    scale: int
    tile: int = TILE

    @staticmethod
    def load(file: Path, device: torch.device | str = "cpu") -> "Esrgan":
        """Read and check the file. Raises `Invalid`."""
        weights = read(file)
        with torch.device("meta"):
            net = (RRDBNet if weights.layout.architecture == "RRDBNet" else SRVGGNetCompact)(weights.layout)
        state = {name: torch.from_numpy(value) for name, value in weights.tensors.items()}
        net.load_state_dict(state, assign=True)
        return Esrgan(net.to(device).eval().requires_grad_(False), weights.layout.scale)

    def tiles(self, width: int, height: int) -> int:
        """How many tiles `enlarged` works through for a picture of that size, over all of its stages."""
        if isinstance(self.net, SRVGGNetCompact):
            return len(boxes(height, width, self.tile))
        fold = self.net.unshuffle
        return (len(self.net.body) + 2) * len(boxes(-(-height // fold), -(-width // fold), self.tile))

    def __call__(self, pixels: Tensor) -> Tensor:
        """`enlarged`, with its tiles unseen."""
        return whole(self.enlarged(pixels))

    @torch.inference_mode()
    def enlarged(self, pixels: Tensor) -> Generator[bool, None, Tensor]:
        """uint8 (h, w, 3) → uint8 (s·h, s·w, 3), on the CPU; yields True after each tile of each stage."""
        height, width = pixels.shape[:2]
        device = next(self.net.parameters()).device
        x = pixels.to(device).permute(2, 0, 1)[None].float() / 255
        out = (
            yield from self._compact(self.net, x) if isinstance(self.net, SRVGGNetCompact) else self._rrdb(self.net, x)
        )
        return out[0, :, : self.scale * height, : self.scale * width].permute(1, 2, 0).contiguous()

    def _compact(self, net: SRVGGNetCompact, x: Tensor) -> Generator[bool, None, Tensor]:
        """All of it in one stage: it sees no farther than its convolutions are many."""
        out = bytes_like(x, self.scale)
        yield from self._staged(lambda seen: as_bytes(net(seen[0])), (x,), out, reach=len(net.body) // 2 + 1)
        return out

    def _rrdb(self, net: RRDBNet, x: Tensor) -> Generator[bool, None, Tensor]:
        """First convolution, each block, the rest. What pixel-unshuffle cannot divide is filled up as in a mirror."""
        fold, (height, width) = net.unshuffle, x.shape[-2:]
        mode = "reflect" if min(height, width) > fold else "replicate"
        x = F.pad(x, (0, -width % fold, 0, -height % fold), mode=mode)
        first = x.new_empty(1, net.conv_first.out_channels, x.shape[2] // fold, x.shape[3] // fold)
        yield from self._staged(lambda seen: net.begin(seen[0]), (x,), first, reach=1)
        y, other = first, torch.empty_like(first)
        for block in net.body:
            yield from self._staged(lambda seen, block=block: block(seen[0]), (y,), other, reach=15)
            y, other = other, torch.empty_like(first) if y is first else y
        out = bytes_like(x, self.scale)
        yield from self._staged(
            lambda seen: as_bytes(net.end(seen[0] + net.conv_body(seen[1]))), (first, y), out, reach=4
        )
        return out

    def _staged(
        self, stage: Callable[[Sequence[Tensor]], Tensor], maps: tuple[Tensor, ...], out: Tensor, reach: int
    ) -> Generator[bool]:
        """`stage` of `maps` into `out`, both (1, c, h, w), tile by tile; `reach` is how far it sees, in the smaller."""
        height, width = (min(a, b) for a, b in zip(maps[0].shape[-2:], out.shape[-2:], strict=True))
        before, after = maps[0].shape[-1] // width, out.shape[-1] // width  # pixels a side of one of the smaller's
        for box in boxes(height, width, self.tile):
            seen = box.wider(reach, height, width)
            made = stage([one[seen.of(before)] for one in maps])
            out[box.of(after)] = made[box.within(seen).of(after)]
            yield True


def whole(steps: Generator[bool, None, Made]) -> Made:
    """What it comes to in the end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def boxes(height: int, width: int, side: int) -> list[Box]:
    """Tiles of at most `side` pixels that lie beside each other and cover the whole."""
    tops, lefts = range(0, height, side), range(0, width, side)
    return [Box(top, min(top + side, height), left, min(left + side, width)) for top in tops for left in lefts]


def bytes_like(x: Tensor, times: int) -> Tensor:
    """Room on the CPU for the enlarged picture of x (1, 3, h, w)."""
    return torch.empty(1, 3, times * x.shape[2], times * x.shape[3], dtype=torch.uint8)


def as_bytes(x: Tensor) -> Tensor:
    return x.clamp(0, 1).mul(255).round().byte()

"""Edges of a picture, one pixel wide (Canny 1986, IEEE PAMI 8(6), pp. 679-698)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

LOW, HIGH = 100, 200  # of |Gx| + |Gy|: as ControlNets for edges were trained
STEEP = 2.414  # tan 67.5°: from here on an edge counts as level, and below its inverse as upright
SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])


def canny(pixels: NDArray[np.uint8], low: float = LOW, high: float = HIGH) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) → (h, w): 255 on edges, 0 elsewhere.

    An edge is where the gradient of the strongest channel is largest across its own direction and above `high`, or
    above `low` and connected to one that is.
    """
    gx, gy = _gradients(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float())
    size = gx.abs() + gy.abs()
    thin = _is_ridge(size, gx, gy)
    edges = _connected(thin & (size > high), thin & (size > low))
    return (edges.to(torch.uint8) * 255).numpy()


def _gradients(channels: Tensor) -> tuple[Tensor, Tensor]:
    """(c, h, w) → x and y derivatives (h, w), each pixel's of its channel with the largest |Gx| + |Gy|."""
    kernels = torch.stack([SOBEL, SOBEL.T])[:, None]
    both = torch.nn.functional.conv2d(pad(channels[:, None], (1, 1, 1, 1), mode="replicate"), kernels)
    best = both.abs().sum(1).argmax(0)[None, None].expand(1, 2, -1, -1)
    gx, gy = both.gather(0, best)[0]
    return gx, gy


def _is_ridge(size: Tensor, gx: Tensor, gy: Tensor) -> Tensor:
    """Whether a pixel's gradient is no smaller than its two neighbours' along it; of equals the first is one."""
    around = pad(size, (1, 1, 1, 1))
    height, width = size.shape

    def at(dy: int, dx: int) -> Tensor:
        return around[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    level, upright = gx.abs() > STEEP * gy.abs(), gy.abs() > STEEP * gx.abs()
    falls = gx * gy > 0
    before = torch.where(level, at(0, -1), torch.where(upright, at(-1, 0), torch.where(falls, at(-1, -1), at(-1, 1))))
    after = torch.where(level, at(0, 1), torch.where(upright, at(1, 0), torch.where(falls, at(1, 1), at(1, -1))))
    return (size > before) & (size >= after)


def _connected(sure: Tensor, maybe: Tensor) -> Tensor:
    """`sure`, and of `maybe` what touches it, at corners too, directly or by others of `maybe`."""
    while True:
        grown = (max_pool2d(sure.float()[None, None], 3, 1, 1)[0, 0] > 0) & maybe
        if bool((grown == sure).all()):
            return sure
        sure = grown

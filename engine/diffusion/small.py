"""Layers whose matrices are stored in float8, for a denoiser that would not fit otherwise, with LoRAs unmerged.

w = s · q for each output row, q in float8 (e4m3fn: 4 bits of exponent, 3 of mantissa, ±448), s the least power of two
with max|w| ≤ 448 s. As s is one, s · q has no rounding of its own, and a weight is off by a sixteenth of itself at most
(or by s · 2⁻¹⁰, near 0). The products are computed in the input's type: this saves memory, and no time. A LoRA
would lose most of itself in q, so it stays beside it, as y += (x Aᵀ) Bᵀ.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.lora.blend import Delta

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
LEAST = 4096  # numbers: a smaller matrix is not worth the error


class Small(nn.Module):
    """A linear layer or a convolution with its weight in float8; `delta` is what a stack of LoRAs adds to it."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, device: torch.device) -> None:
        super().__init__()
        self.layer_type = type(layer)
        self.shape = tuple(layer.weight.shape)
        self.dtype = layer.weight.dtype
        self.bias = layer.bias
        self.how: dict[str, Any] = {}
        if isinstance(layer, nn.Conv2d):
            self.how = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation,
                        "groups": layer.groups}  # fmt: skip
            self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        else:
            self.in_features, self.out_features = layer.in_features, layer.out_features
        q, scale = quantised(layer.weight.detach().flatten(1).to(device))
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)
        self.q: Tensor
        self.scale: Tensor
        self.delta: Delta | None = None

    @property
    def weight(self) -> Tensor:
        """As it is computed with, in the layer's type; anew at each call."""
        return self._matrix(self.dtype).view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.delta is not None and self.delta.others:  # of full rank: added to the weight for this once
            base = self._matrix(torch.float32)
            return self._apply_weight(x, (base + self.delta.dense(base)).to(x.dtype).view(self.shape), self.bias)
        out = self._apply_weight(x, self.weight.to(x.dtype), self.bias)
        if self.delta is None or not self.delta.rank:
            return out
        down, up = self.delta.down.to(x), self.delta.up.to(x)
        if self.layer_type is nn.Linear:
            return out + F.linear(F.linear(x, down), up)
        kernels = down.view(len(down), *self.shape[1:])
        return out + F.conv2d(F.conv2d(x, kernels, None, **self.how), up[..., None, None])

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias) if self.layer_type is nn.Linear else F.conv2d(x, weight, bias, **self.how)

    def _matrix(self, dtype: torch.dtype) -> Tensor:
        """The weight as (out, in·k·k)."""
        return self.q.to(dtype) * self.scale.to(dtype)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(out, n) → q in float8 and s (out, 1) in fp32, w ≈ s · q; a row of zeros stays one."""
    wide = weight.float()
    least = wide.abs().amax(dim=1, keepdim=True) / LARGEST
    scale = torch.where(least > 0, torch.exp2(torch.ceil(torch.log2(least))), torch.ones_like(least))
    return (wide / scale).clamp(-LARGEST, LARGEST).to(FLOAT8), scale


def shrink(net: nn.Module, device: torch.device) -> None:
    """Put `Small` in the place of every large linear layer and convolution, one by one, on the device.

    What is left, norms and biases and small matrices, is brought as it is.
    """
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear | nn.Conv2d) and _suits(layer):
                setattr(parent, name, Small(layer, device))
    net.to(device)


def _suits(layer: nn.Linear | nn.Conv2d) -> bool:
    if type(layer) not in (nn.Linear, nn.Conv2d):  # a subclass computes something of its own
        return False
    if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or layer.padding_mode != "zeros"):
        return False
    return layer.weight.numel() >= LEAST

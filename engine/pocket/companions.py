"""What the trainings of the two companions share: how they learn, the autoencoder's marks, and wear."""

# diffusers' own annotations are often wrong:
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportPrivateImportUsage=false
# pyright: reportArgumentType=false

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from engine.pocket.pace import Average, Course


def course(name: str, net: nn.Module, rate: float, out: Path) -> Course:
    """A training of the net whose checkpoint lies beside `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    checkpoint = out.with_suffix(".checkpoint")
    return Course(name, optimizer, Average(net.parameters()), checkpoint, rate, warmup=100, keep=0.998)


def load_autoencoder(folder: Path | None, device: str) -> AutoencoderKL | None:
    """The base's autoencoder, to see pictures as it gives them back; None if there is no folder."""
    if folder is None:
        return None
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    return vae.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.no_grad()
def passed(vae: AutoencoderKL, pictures: Tensor, noise: float) -> Tensor:
    """Whole pictures (n, 3, h, w) in 0..1, encoded and decoded; each latent is off by up to `noise` deviations.

    A sampler's latents are off too: the decoder draws that as wobbly contours and specks.
    """
    latents = vae.encode(pictures * 2 - 1).latent_dist.mean
    off = noise * torch.rand(len(latents), 1, 1, 1, device=latents.device)
    latents = latents + off / vae.config.scaling_factor * torch.randn_like(latents)
    return (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)


def some(n: int, share: float, device: torch.device) -> Tensor:
    """(n, 1, 1, 1): uniform in 0..1 for about `share` of the rows, 0 for the others."""
    u = torch.rand(2, n, 1, 1, 1, device=device)
    return u[0] * (u[1] < share)


def waves(n: int, channels: int, size: tuple[int, int], period: int, device: torch.device) -> Tensor:
    """Smooth noise (n, channels, *size) of unit variance about, with hills `period` px apart."""
    coarse = torch.randn(n, channels, size[0] // period + 1, size[1] // period + 1, device=device)
    return F.interpolate(coarse, size=size, mode="bicubic")


@torch.no_grad()
def worn(x: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) in 0..1 with wobbly contours, blur, JPEG-like mush and specks; each on some of them."""
    n, _, height, width = x.shape
    device = x.device
    strength = some(n, 0.6, device)
    bend = waves(n, 2, (height, width), 5, device) * 0.5 * strength * some(n, 0.7, device)
    unit = torch.eye(2, 3, device=device).expand(n, 2, 3)
    grid = F.affine_grid(unit, [n, 3, height, width], align_corners=False)
    size = torch.tensor([2 / width, 2 / height], device=device)
    y = F.grid_sample(x, grid + bend.permute(0, 2, 3, 1) * size, "bilinear", "border", align_corners=False)
    y = torch.where(bend.abs().amax((1, 2, 3), keepdim=True) > 0, y, x)
    soft = F.avg_pool2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    y = torch.lerp(y, soft, 0.6 * strength * some(n, 0.4, device))
    y = torch.where(some(n, 0.2, device) * strength > 0.05, mush(y, 0.02 + 0.1 * strength), y)
    y = y + 0.03 * strength * some(n, 0.4, device) * waves(n, 3, (height, width), 3, device)
    return (y + 0.03 * strength * some(n, 0.4, device) * torch.randn_like(y)).clamp(0, 1)


def mush(x: Tensor, coarseness: Tensor) -> Tensor:
    """What rounding the cosine transform of 8 × 8 blocks leaves, coarser for high frequencies; sides divide by 8."""
    line = torch.arange(8, device=x.device)
    basis = torch.cos((2 * line + 1) * line[:, None] * math.pi / 16) * 0.5
    basis[0] = 8**-0.5
    n, channels, height, width = x.shape
    blocks = x.view(n, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    unit = coarseness[..., None, None] * (1 + (line[:, None] + line) / 2)
    waves = ((basis @ blocks @ basis.T) / unit).round() * unit
    return (basis.T @ waves @ basis).permute(0, 1, 2, 4, 3, 5).reshape(x.shape)

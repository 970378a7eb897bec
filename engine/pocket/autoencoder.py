"""The autoencoder: pictures to 12 channels of an eighth of their sides, and back.

Trained on 128 px crops of a bank of finished scenes of all six shapes: crops go four times faster than whole pictures
and end sharper. But the normalisation layers see other statistics on a whole picture, which pales flat grounds and
shows a frame, so the decoder is settled on whole pictures at the end. The encoder stays as it is, and with it every
latent.

Norms are over 8 groups, which leaves four channels or more in each, as in Stable Diffusion's own autoencoder. Over 32,
each channel of the last layers would be normalised alone, which takes away how bright it is where it is flat; a decoder
learns to carry that past the norm in one spike of activation, which shows as a speck in a corner: the droplets of
Karras et al. 2019 (arXiv:1912.04958, §2).
"""

# diffusers' own annotations are often wrong (`tuple[str]` for four names):
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportIndexIssue=false, reportOptionalMemberAccess=false

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from engine.pocket.pace import Average, Course, Pace
from engine.pocket.renderer import Renderer
from engine.pocket.scenes import BUCKETS, Cast, base_menu, sample

MIX = {shape: 0.55 if shape == "square" else 0.09 for shape in BUCKETS}  # share of each shape in all training
CHANNELS = 12
CORNER = 8  # px


@dataclass(frozen=True)
class Setup:
    """Sizes of a training run; `tiny` is for a smoke test on a CPU."""

    device: str = "cuda"
    bank: int = 32_000  # scenes
    sprites: tuple[int, int] = (16_000, 16_000)  # products and characters that scenes are made of
    filling: float = 25.0  # seconds for these, at most
    batch: int = 128
    crop: int = 128
    whole: int = 48  # whole pictures in a batch of settling
    rate: float = 1e-3
    fresh: int = 384
    compile: bool = True

    @staticmethod
    def tiny(device: str) -> "Setup":
        return Setup(device, bank=24, sprites=(17, 17), filling=1.0, batch=2, crop=64, whole=1, fresh=6, compile=False)


def prepare() -> None:
    """TF32 for what stays in fp32, and the seed."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128), layers_per_block=1, latent_channels=CHANNELS,
        norm_num_groups=8, sample_size=256,
    )  # fmt: skip


@cache
def world(setup: Setup) -> tuple[Renderer, Cast]:
    """The renderer with its bank of sprites, and whom they show: one in a process."""
    renderer = Renderer.on(setup.device)
    return renderer, renderer.fill(base_menu(), *setup.sprites, setup.filling)


def render_bank(setup: Setup, count: int, seed: int) -> dict[str, Tensor]:
    """About `count` finished scenes by shape, each (n, 3, h, w) uint8 on the device."""
    renderer, cast = world(setup)
    menu, generator = base_menu(), torch.Generator().manual_seed(seed)
    bank: dict[str, Tensor] = {}
    for shape, share in MIX.items():
        n = max(1, round(count * share))
        sizes = [min(256, n - start) for start in range(0, n, 256)]
        parts = (renderer.draw(sample(size, menu, generator, shape, cast)) for size in sizes)
        bank[shape] = torch.cat([(part * 255).round().byte() for part in parts])
    return bank


def pick(shares: dict[str, float]) -> str:
    """One name by its share, by the CPU's random numbers."""
    return list(shares)[int(torch.multinomial(torch.tensor(list(shares.values())), 1))]


def random_crops(bank: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """(batch, 3, *size) in -1..1, each from its own picture and place."""
    which = torch.randint(len(bank), (batch, 1, 1), device=bank.device)
    places = [
        torch.randint(side - part + 1, (batch, 1, 1), device=bank.device)
        for side, part in zip(bank.shape[-2:], size, strict=True)
    ]
    rows = places[0] + torch.arange(size[0], device=bank.device)[None, :, None]
    columns = places[1] + torch.arange(size[1], device=bank.device)[None, None, :]
    return bank[which, :, rows, columns].permute(0, 3, 1, 2).float() / 127.5 - 1


def busy_crops(bank: Tensor, batch: int, crop: int) -> Tensor:
    """Random crops, half of which were the busier of two: flat grounds are learnt soon, contours are not."""
    x = random_crops(bank, batch + batch // 2, (crop, crop))
    detail = (x.diff(dim=2).abs().mean((1, 2, 3)) + x.diff(dim=3).abs().mean((1, 2, 3)))[: batch // 2 * 2]
    first = torch.arange(batch // 2, device=x.device)
    busier = torch.where(detail[: batch // 2] >= detail[batch // 2 :], first, first + batch // 2)
    return torch.cat([x[busier], x[batch // 2 * 2 :]])


def likeness_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 + 8 MSE + 0.5 L1 of the gradients in both directions + 0.5 L1 of 4 × 4 means.

    The square is what PSNR counts; L1 keeps flat grounds flat, the gradients keep contours sharp.
    """
    gradients = F.l1_loss(y.diff(dim=2), x.diff(dim=2)) + F.l1_loss(y.diff(dim=3), x.diff(dim=3))
    means = F.l1_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))
    return F.l1_loss(y, x) + 8 * F.mse_loss(y, x) + 0.5 * gradients + 0.5 * means


def reconstruction_loss(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """Likeness + 1e-6 KL (summed over a latent)."""
    posterior = vae.encode(x).latent_dist
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    y = vae.decode(posterior.mean + posterior.std * torch.randn_like(posterior.mean)).sample.float()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    return likeness_loss(y, x) + 1e-6 * kl


def train_autoencoder(out: Path, pace: Pace, setup: Setup) -> dict[str, float] | None:
    """Train, set the scaling factor, save into `out` in fp32; returns its quality, or None if it has to go on."""
    prepare()
    bank = render_bank(setup, setup.bank, 11)
    vae = new_autoencoder().to(setup.device, memory_format=torch.channels_last)
    fused = setup.device.startswith("cuda")
    optimizer = torch.optim.AdamW(vae.parameters(), setup.rate, (0.9, 0.99), weight_decay=1e-3, fused=fused)
    loss_of = torch.compile(reconstruction_loss, dynamic=False) if setup.compile else reconstruction_loss

    def loss() -> Tensor:
        x = busy_crops(bank[pick(MIX)], setup.batch, setup.crop)
        with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
            return loss_of(vae, x.contiguous(memory_format=torch.channels_last))

    average = Average(vae.parameters())
    course = Course("autoencoder", optimizer, average, out.with_suffix(".checkpoint"), setup.rate, keep=0.998)
    if not course.run(loss, pace):
        return None
    vae.register_to_config(scaling_factor=round(scaling_factor(vae, setup), 5))
    return finish(vae, out, setup)


def settle_decoder(folder: Path, pace: Pace, setup: Setup) -> dict[str, float] | None:
    """Let the decoder of the autoencoder in `folder` learn whole pictures, corners and borders too.

    Mostly the normalisations' gains and the biases move; the weights take a fifth of the rate. The encoder stays as it
    is, so that latents keep their meaning. Saves into `folder`; returns its quality, or None if it has to go on.
    """
    prepare()
    vae = AutoencoderKL.from_pretrained(folder).to(setup.device, memory_format=torch.channels_last)
    bank = render_bank(setup, setup.bank // 3, 13)
    learning = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    groups = [
        {"params": [p for p in learning if p.ndim == 1]},
        {"params": [p for p in learning if p.ndim > 1], "share": 0.2},
    ]
    optimizer = torch.optim.AdamW(groups, setup.rate / 2.5, (0.9, 0.99), weight_decay=0.0)

    def loss() -> Tensor:
        pictures = bank[pick(MIX)]
        x = random_crops(pictures, setup.whole, tuple(pictures.shape[-2:]))
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(x).latent_dist.mean
            return likeness_loss(vae.decode(latents).sample.float(), x)

    average = Average(p for group in optimizer.param_groups for p in group["params"])
    checkpoint = folder.with_name("decoder.checkpoint")
    course = Course("decoder", optimizer, average, checkpoint, setup.rate / 2.5, warmup=15, keep=0.95)
    return finish(vae, folder, setup) if course.run(loss, pace) else None


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, setup: Setup) -> float:
    """One over the standard deviation of latents."""
    squares = render_bank(setup, setup.fresh, 12)["square"].split(16)
    return 1 / float(torch.cat([vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in squares]).std())


@torch.no_grad()
def finish(vae: AutoencoderKL, out: Path, setup: Setup) -> dict[str, float]:
    """Save; returns PSNR in dB over fresh whole scenes of all shapes, and in their corners."""
    vae.save_pretrained(out)
    squares, corners = list[Tensor](), list[Tensor]()
    for pictures in render_bank(setup, setup.fresh, 12).values():
        for part in pictures.split(16):
            x = part.float() / 255
            y = (vae.decode(vae.encode(x * 2 - 1).latent_dist.mean).sample / 2 + 0.5).clamp(0, 1)
            error = (y - x) ** 2
            squares.append(error.flatten())
            corners.append(torch.cat([error[..., :CORNER, :CORNER], error[..., -CORNER:, -CORNER:]]).flatten())
    quality = {
        name: round(float(-10 * torch.cat(errors).mean().log10()), 2)
        for name, errors in (("autoencoder_psnr_db", squares), ("corner_psnr_db", corners))
    }
    print(f"autoencoder: {quality} on fresh scenes, scaling factor {vae.config.scaling_factor}", flush=True)
    return quality

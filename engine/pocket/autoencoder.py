"""The autoencoder: 256 px pictures to 8 × 32 × 32 latents and back.

Trained on 128 px crops of a bank of finished scenes: crops go four times faster than whole pictures and end sharper.
But the normalisation layers see other statistics on a whole picture, which pales flat grounds and shows a frame, so the
decoder is settled on whole pictures at the end. The encoder stays as it is, and with it every latent:

    python -m engine.pocket.autoencoder engine/bases/pocket/vae --minutes 3
"""

# diffusers' own annotations are often wrong (`tuple[str]` for four names):
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from engine.pocket.glyphs import load_atlas
from engine.pocket.pace import Average, Pace, psnr, set_rate
from engine.pocket.scenes import Menu, Renderer, base_menu, sample


@dataclass(frozen=True)
class Setup:
    """Sizes of a training run; `tiny` is for a smoke test on a CPU."""

    device: str = "cuda"
    bank: int = 24_000
    batch: int = 192
    crop: int = 128
    rate: float = 1e-3
    compile: bool = True

    @staticmethod
    def tiny(device: str) -> "Setup":
        return Setup(device=device, bank=32, batch=4, crop=64, compile=False)


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128), layers_per_block=1, latent_channels=8,
        norm_num_groups=32, sample_size=256,
    )  # fmt: skip


def render_bank(menu: Menu, count: int, seed: int, device: str) -> Tensor:
    """`count` finished scenes, (count, 3, 256, 256) uint8 on the device."""
    renderer, generator = Renderer.on(device), torch.Generator().manual_seed(seed)
    parts = [renderer.draw(sample(min(256, count), menu, generator)) for _ in range(-(-count // 256))]
    return torch.cat([(part * 255).round().byte() for part in parts])[:count]


def random_crops(bank: Tensor, batch: int, crop: int) -> Tensor:
    """(batch, 3, crop, crop) in -1..1, each from its own picture and place."""
    room = bank.shape[-1] - crop + 1
    which = torch.randint(len(bank), (batch, 1, 1), device=bank.device)
    side = torch.arange(crop, device=bank.device)
    rows = torch.randint(room, (batch, 1, 1), device=bank.device) + side[None, :, None]
    columns = torch.randint(room, (batch, 1, 1), device=bank.device) + side[None, None, :]
    return bank[which, :, rows, columns].permute(0, 3, 1, 2).float() / 127.5 - 1


def likeness_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 + 2 MSE + 0.5 L1 of the gradients in both directions + L1 of 4 × 4 means."""
    gradients = F.l1_loss(y.diff(dim=2), x.diff(dim=2)) + F.l1_loss(y.diff(dim=3), x.diff(dim=3))
    return F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 0.5 * gradients + F.l1_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))


def reconstruction_loss(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """Likeness + 2e-6 KL (summed over a latent)."""
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.mean + posterior.std * torch.randn_like(posterior.mean)).sample.float()
    kl = (
        0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).sum((1, 2, 3)).mean()
    )
    return likeness_loss(y, x) + 2e-6 * kl


def train_autoencoder(out: Path, pace: Pace, setup: Setup) -> float:
    """Train, set the scaling factor, save into `out` in fp32; returns PSNR in dB on fresh whole scenes."""
    bank = render_bank(base_menu(load_atlas()), setup.bank, 11, setup.device)
    vae = new_autoencoder().to(setup.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=setup.rate, betas=(0.9, 0.99), weight_decay=1e-3)
    loss_of = torch.compile(reconstruction_loss) if setup.compile else reconstruction_loss
    average, step, part = Average(vae.parameters()), 0, 0.0
    while part < 1:
        x = random_crops(bank, setup.batch, setup.crop).contiguous(memory_format=torch.channels_last)
        with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
            loss = loss_of(vae, x)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        set_rate(optimizer, setup.rate, step, part)
        optimizer.step()
        average.update(step, 0.998)
        step, part = step + 1, pace.part() if step % 10 == 0 else part
        if step % 200 == 0:
            print(f"autoencoder: step {step}, {part:.0%}, loss {loss.item():.4f}", flush=True)
    average.store()
    return finish(vae, out, setup)


@torch.no_grad()
def finish(vae: AutoencoderKL, out: Path, setup: Setup) -> float:
    """Measure, scale and save."""
    fresh = render_bank(base_menu(load_atlas()), 256 if setup.bank > 256 else 8, 12, setup.device)
    latents, decoded = [], []
    for part in fresh.split(32):
        mean = vae.encode(part.float() / 127.5 - 1).latent_dist.mean
        latents.append(mean)
        decoded.append((vae.decode(mean).sample / 2 + 0.5).clamp(0, 1))
    quality = psnr(torch.cat(decoded), fresh.float() / 255)
    if not out.exists():  # what was scaled before keeps its scale, as its latents are in use
        vae.register_to_config(scaling_factor=round(1 / float(torch.cat(latents).std()), 5))
    vae.save_pretrained(out)
    print(f"autoencoder: {quality:.2f} dB on fresh scenes, scaling factor {vae.config.scaling_factor}", flush=True)
    return quality


def settle_decoder(folder: Path, pace: Pace, setup: Setup) -> float:
    """Let the decoder of the autoencoder in `folder` learn whole pictures, corners and borders too.

    Mostly the normalisations' gains and the biases move; the weights take a tenth of the rate. The encoder stays as it
    is, so that latents keep their meaning. Saves into `folder`; returns PSNR in dB, as above.
    """
    vae = AutoencoderKL.from_pretrained(folder).to(setup.device, memory_format=torch.channels_last)
    bank = render_bank(base_menu(load_atlas()), setup.bank // 3, 13, setup.device)
    learning = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    groups = [
        {"params": [p for p in learning if p.ndim == 1]},
        {"params": [p for p in learning if p.ndim > 1], "share": 0.1},
    ]
    optimizer = torch.optim.AdamW(groups, lr=setup.rate / 2.5, betas=(0.9, 0.99), weight_decay=0.0)
    average, step, part = Average(learning), 0, 0.0
    while part < 1:
        x = random_crops(bank, setup.batch // 4, bank.shape[-1]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(x).latent_dist.mean
            loss = likeness_loss(vae.decode(latents).sample.float(), x)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        set_rate(optimizer, setup.rate / 2.5, step, part, warmup=15)
        optimizer.step()
        average.update(step, 0.95)
        step, part = step + 1, pace.part()
        if step % 200 == 0:
            print(f"decoder: step {step}, {part:.0%}, loss {loss.item():.4f}", flush=True)
    average.store()
    return finish(vae, folder, setup)


def main() -> None:
    """Settle the decoder of a trained autoencoder, in place; it ends in fp16."""
    parser = argparse.ArgumentParser(prog="python -m engine.pocket.autoencoder", description=settle_decoder.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    settle_decoder(args.folder, Pace(args.minutes * 60), Setup(args.device))
    AutoencoderKL.from_pretrained(args.folder).half().save_pretrained(args.folder)


if __name__ == "__main__":
    main()

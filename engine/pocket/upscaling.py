"""Trains the upscaler: scenes drawn at four times the scale are the truth of the same scenes at 256 px.

Its inputs are the drawings as they are, as the base's autoencoder gives them back, with latents a little off, and worn:
so that it also mends what a sampler leaves. Held-out subjects and styles are in, as it only draws what is there.

    python -m engine.pocket.upscaling --minutes 2 --vae engine/bases/pocket/vae --out engine/companions/upscaler
"""

# diffusers' own annotations are often wrong:
# pyright: basic, reportPrivateImportUsage=false

import argparse
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from engine.companions.upscaler import FOLDER, TIMES, Upscaler, UpscalerNet
from engine.companions.weights import save
from engine.pocket.companions import course, load_autoencoder, passed, worn
from engine.pocket.pace import Pace, psnr
from engine.pocket.renderer import Renderer
from engine.pocket.scenes import BUCKETS, every_menu, sample

SIZES: dict[str, Any] = {"widths": (64, 96, 112), "blocks": (2, 1, 2), "fine": 32}
UNLIKE = 0.006  # mean difference from which a drawing and its truth do not show the same
NOISES = (0.0, 0.15, 0.3)  # deviations that latents are off by, at most


@dataclass(frozen=True)
class Setup:
    """Sizes of a training run; `tiny` is for a smoke test on a CPU."""

    device: str = "cuda"
    vae: Path | None = None
    shapes: tuple[str, ...] = tuple(BUCKETS)
    scenes: int = 1200
    seconds: float = 60.0  # of drawing, at most
    at_once: int = 8
    batch: int = 96
    crop: int = 64
    rate: float = 1e-3
    fresh: int = 24

    @staticmethod
    def tiny(device: str) -> "Setup":
        return Setup(device, None, ("square",), scenes=2, at_once=2, batch=2, crop=32, fresh=1)


class Bank(NamedTuple):
    """Scenes of one shape: `inputs` (m, k, 3, h, w), each in k states, and their `truth` (m, 3, 4h, 4w); uint8."""

    inputs: Tensor
    truth: Tensor


def whole(x: Tensor) -> Tensor:
    return (x * 255).round().byte()


@cache
def large_renderer(device: str) -> tuple[Renderer, bool]:
    """The renderer of the truth, and whether its glyphs are sharp, as their vectors can be drawn here."""
    try:
        return Renderer.on(device, scale=TIMES), True
    except ImportError:
        return Renderer(device, Renderer.on(device).cells, TIMES), False


class Drawer:
    """Draws scenes twice, at 256 px and at 1024, and wears the small ones down."""

    def __init__(self, setup: Setup, vae: AutoencoderKL | None, seed: int) -> None:
        self.small, self.vae, self.menu = Renderer.on(setup.device), vae, every_menu()
        self.generator = torch.Generator().manual_seed(seed)
        self.large, sharp = large_renderer(setup.device)
        if not sharp:
            self.menu = replace(self.menu, kinds=(0.0, 0.5, 0.5))

    def draw(self, n: int, shape: str) -> Bank:
        scenes = sample(n, self.menu, self.generator, shape)
        truth, drawn = self.large.draw(scenes), self.small.draw(scenes)
        mean = F.avg_pool2d(truth, TIMES)
        same = (mean - drawn).abs().mean((1, 2, 3), keepdim=True) < UNLIKE
        drawn = torch.where(same, drawn, mean)
        states = [drawn] if self.vae is None else [drawn, *(passed(self.vae, drawn, noise) for noise in NOISES)]
        return Bank(torch.stack([whole(state) for state in states], 1), whole(truth))


def draw_banks(setup: Setup, vae: AutoencoderKL | None, deadline: float) -> list[Bank]:
    """Shapes take turns until there are enough scenes or the time is up; one of each at least."""
    drawer, parts = Drawer(setup, vae, 21), dict[str, list[Bank]]()
    until, drawn = min(time.monotonic() + setup.seconds, deadline), 0
    while drawn < setup.scenes and (len(parts) < len(setup.shapes) or time.monotonic() < until):
        shape = setup.shapes[drawn // setup.at_once % len(setup.shapes)]
        parts.setdefault(shape, []).append(drawer.draw(setup.at_once, shape))
        drawn += setup.at_once
    print(f"upscaler: {drawn} scenes", flush=True)
    return [Bank(*(torch.cat(list(column)) for column in zip(*banks, strict=True))) for banks in parts.values()]


def crops(banks: list[Bank], batch: int, crop: int) -> tuple[Tensor, Tensor]:
    """(batch, 3, crop, crop) of one bank, in any states, and the truth four times as large; turned, recoloured."""
    bank = banks[int(torch.randint(len(banks), ()))]
    m, states, _, height, width = bank.inputs.shape
    device = bank.inputs.device
    which = torch.randint(m, (batch, 1, 1), device=device)
    state = torch.randint(states, (batch, 1, 1), device=device)
    top = torch.randint(height - crop + 1, (batch, 1, 1), device=device)
    left = torch.randint(width - crop + 1, (batch, 1, 1), device=device)
    line, fine = torch.arange(crop, device=device), torch.arange(crop * TIMES, device=device)
    x = bank.inputs[which, state, :, top + line[:, None], left + line]
    t = bank.truth[which, :, top * TIMES + fine[:, None], left * TIMES + fine]
    colours = torch.randperm(3).to(device)
    x, t = (value[..., colours].permute(0, 3, 1, 2).float() / 255 for value in (x, t))
    if torch.rand(()) < 0.5:
        x, t = x.flip(3), t.flip(3)
    if torch.rand(()) < 0.5:
        x, t = x.transpose(2, 3), t.transpose(2, 3)
    return x, t


def crisp_loss(y: Tensor, t: Tensor) -> Tensor:
    """L1 + L1 of the gradients: the median of where a contour may be is a contour, where a mean would be a blur."""
    return F.l1_loss(y, t) + F.l1_loss(y.diff(dim=2), t.diff(dim=2)) + F.l1_loss(y.diff(dim=3), t.diff(dim=3))


def train_upscaler(out: Path, pace: Pace, setup: Setup) -> dict[str, float] | None:
    """Draw, train, save into `out`; returns dB on fresh scenes as `measure` says, None if the call ended before."""
    torch.manual_seed(0)
    vae = load_autoencoder(setup.vae, setup.device)
    banks = draw_banks(setup, vae, pace.deadline - pace.seconds)
    net = UpscalerNet(**SIZES).to(setup.device)
    steps = fit(net, banks, pace, setup, out)
    if steps is None:
        return None
    quality = measure(Upscaler(net.eval()), fresh_banks(setup, vae))
    drawn = sum(len(bank.truth) for bank in banks)
    save(net, SIZES, {"scenes": drawn, "steps": steps, "autoencoder": vae is not None, "psnr_db": quality}, out)
    out.with_suffix(".checkpoint").unlink()
    return quality


def fit(net: UpscalerNet, banks: list[Bank], pace: Pace, setup: Setup, out: Path) -> int | None:
    """Train the net; returns the steps done, or None if it has to go on from its checkpoint beside `out`."""
    training = course("upscaler", net, setup.rate, out)

    def loss_of() -> Tensor:
        x, t = crops(banks, setup.batch, setup.crop)
        x = worn(x).contiguous(memory_format=torch.channels_last)
        with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
            y = net(x)
        # at first squares too, by which it learns to sharpen ten times sooner
        return crisp_loss(y.float(), t) + 20 * max(0.0, 1 - 2 * training.part) * F.mse_loss(y.float(), t)

    return training.step if training.run(loss_of, pace) else None


def fresh_banks(setup: Setup, vae: AutoencoderKL | None) -> list[Bank]:
    """`fresh` scenes that no training saw, of every shape."""
    drawer, each = Drawer(setup, vae, 22), -(-setup.fresh // len(setup.shapes))
    return [drawer.draw(each, shape) for shape in setup.shapes]


def measure(upscaler: Upscaler, banks: list[Bank]) -> dict[str, float]:
    """PSNR in dB beside the bicubic enlargement's: of drawings, and of what the autoencoder gives back of them."""
    found: dict[str, float] = {}
    for state, name in enumerate(("drawn", "autoencoded", "sampled")[: banks[0].inputs.shape[1]]):
        ours, plain = [], []
        for bank in banks:
            x, t = bank.inputs[:, state], bank.truth.float().cpu() / 255
            y = upscaler(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).float() / 255
            ours.append((y - t).flatten())
            plain.append((bicubic(x).float().cpu() / 255 - t).flatten())
        nothing = torch.zeros(())
        found[name] = round(psnr(torch.cat(ours), nothing), 2)
        found[f"{name}_bicubic"] = round(psnr(torch.cat(plain), nothing), 2)
    print(f"upscaler: dB on fresh scenes {found}", flush=True)
    return found


def bicubic(x: Tensor) -> Tensor:
    """uint8 (n, 3, h, w) → uint8 (n, 3, 4h, 4w)."""
    return whole((F.interpolate(x.float() / 255, scale_factor=TIMES, mode="bicubic")).clamp(0, 1))


def draw_sheet(upscaler: Upscaler, banks: list[Bank], path: Path, crop: int = 64) -> None:
    """Rows of crops: the input enlarged plainly, bicubic, ours, the truth."""
    rows: list[Tensor] = []
    for bank in banks:
        for i in range(min(3, len(bank.truth))):
            x = bank.inputs[i, min(1, bank.inputs.shape[1] - 1)][None]
            y = upscaler(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            nearest = F.interpolate(x, scale_factor=TIMES, mode="nearest")
            top, left = (
                int((side - crop) * share) * TIMES for side, share in zip(x.shape[-2:], (0.55, 0.45), strict=True)
            )
            side = crop * TIMES
            tiles = (nearest, bicubic(x), y, bank.truth[i][None])
            rows.append(torch.cat([tile[0, :, top : top + side, left : left + side].cpu() for tile in tiles], 2))
    Image.fromarray(torch.cat(rows, 1).permute(1, 2, 0).contiguous().numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.pocket.upscaling", description="Train the upscaler.")
    parser.add_argument("--minutes", type=float, default=2.0, help="half of it at most for drawing")
    parser.add_argument("--vae", type=Path, help="folder of the base's autoencoder")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--sheet", type=Path, help="a PNG of crops: input, bicubic, ours, truth")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="a smoke test, at toy size")
    args = parser.parse_args()
    half = args.minutes * 30
    setup = Setup.tiny(args.device) if args.tiny else Setup(args.device, args.vae, seconds=half)
    train_upscaler(args.out, Pace(half), setup)
    if args.sheet:
        vae = load_autoencoder(setup.vae, setup.device)
        draw_sheet(Upscaler.load(args.out, setup.device), fresh_banks(setup, vae), args.sheet)


if __name__ == "__main__":
    main()

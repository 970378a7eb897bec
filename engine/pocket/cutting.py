"""Trains the matting net: the renderer knows which pixels are objects; shadows on the ground are not.

python -m engine.pocket.cutting --minutes 1.5 --vae engine/bases/pocket/vae --out engine/companions/matting
"""

# diffusers' own annotations are often wrong:
# pyright: basic, reportPrivateImportUsage=false

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from engine.companions.matting import FOLDER, Matte, MatteNet, cut_out
from engine.companions.weights import save
from engine.pocket.companions import course, load_autoencoder, passed, worn
from engine.pocket.looks import LOOKS, apply_looks
from engine.pocket.pace import Pace
from engine.pocket.renderer import Renderer
from engine.pocket.scenes import BUCKETS, Menu, every_menu, sample
from engine.pocket.upscaling import whole

SIZES: dict[str, Any] = {"widths": (32, 48, 64, 96, 128)}
MOVED = ("sticker",)  # looks whose objects are larger than the mask says
NOISES = (0.0, 0.25)  # deviations that latents are off by, at most


@dataclass(frozen=True)
class Setup:
    """Sizes of a training run; `tiny` is for a smoke test on a CPU."""

    device: str = "cuda"
    vae: Path | None = None
    shapes: tuple[str, ...] = tuple(BUCKETS)
    scenes: int = 12_000
    seconds: float = 30.0  # of drawing, at most
    at_once: int = 96
    sprites: int = 1500  # products, and as many characters, that are drawn once for many scenes
    batch: int = 48
    rate: float = 2e-3
    fresh: int = 96

    @staticmethod
    def tiny(device: str) -> "Setup":
        return Setup(device, None, ("square",), scenes=4, at_once=4, sprites=0, batch=2, fresh=2)


class Bank(NamedTuple):
    """Scenes of one shape: `inputs` (m, k, 3, h, w), each in k states, and their `masks` (m, h, w); uint8."""

    inputs: Tensor
    masks: Tensor


def cut_menu() -> Menu:
    """Everything, in every look that leaves the objects where they are."""
    return replace(every_menu(), looks=tuple(look for look in LOOKS if look not in (*MOVED, "none")), look_share=0.4)


class Drawer:
    """Draws scenes with their masks; its sprites are drawn once, at most for a third of the time."""

    def __init__(self, setup: Setup, vae: AutoencoderKL | None, seed: int) -> None:
        self.renderer, self.menu, self.vae = Renderer.on(setup.device), cut_menu(), vae
        self.generator = torch.Generator().manual_seed(seed)
        count, seconds = setup.sprites, setup.seconds / 3
        self.cast = self.renderer.fill(self.menu, count, count, seconds, seed) if count else None

    def draw(self, n: int, shape: str) -> Bank:
        scenes = sample(n, self.menu, self.generator, shape, self.cast)
        layers = self.renderer.layers(scenes)
        drawn = apply_looks(scenes.look, layers)
        states = [drawn] if self.vae is None else [drawn, *(passed(self.vae, drawn, noise) for noise in NOISES)]
        return Bank(torch.stack([whole(state) for state in states], 1), whole(layers.mask[:, 0]))


def draw_banks(setup: Setup, vae: AutoencoderKL | None, deadline: float) -> list[Bank]:
    """Shapes take turns until there are enough scenes or the time is up; one of each at least."""
    until, drawn = min(time.monotonic() + setup.seconds, deadline), 0
    drawer, parts = Drawer(setup, vae, 31), dict[str, list[Bank]]()
    while drawn < setup.scenes and (len(parts) < len(setup.shapes) or time.monotonic() < until):
        shape = setup.shapes[drawn // setup.at_once % len(setup.shapes)]
        parts.setdefault(shape, []).append(drawer.draw(setup.at_once, shape))
        drawn += setup.at_once
    print(f"matting: {drawn} scenes", flush=True)
    return [Bank(*(torch.cat(list(column)) for column in zip(*banks, strict=True))) for banks in parts.values()]


def batch_of(banks: list[Bank], batch: int) -> tuple[Tensor, Tensor]:
    """Whole pictures (batch, 3, h, w) of one bank, in any states, and masks (batch, 1, h, w).

    Half of the batches are mirrored, half recoloured: the other half shows that a blue ground is sky.
    """
    bank = banks[int(torch.randint(len(banks), ()))]
    m, states = bank.inputs.shape[:2]
    which = torch.randint(m, (batch,), device=bank.masks.device)
    x = bank.inputs[which, torch.randint(states, (batch,), device=bank.masks.device)]
    x, t = x.float() / 255, bank.masks[which, None].float() / 255
    x = x[:, torch.randperm(3).to(x.device)] if torch.rand(()) < 0.5 else x
    return (x.flip(3), t.flip(3)) if torch.rand(()) < 0.5 else (x, t)


def matte_loss(logits: Tensor, t: Tensor) -> Tensor:
    """Cross-entropy + (1 − soft intersection over union) + L1 of the gradients; masks are soft, in 0..1."""
    y = logits.sigmoid()
    both = (y * t).sum((1, 2, 3))
    either = (y + t - y * t).sum((1, 2, 3))
    slopes = F.l1_loss(y.diff(dim=2), t.diff(dim=2)) + F.l1_loss(y.diff(dim=3), t.diff(dim=3))
    return F.binary_cross_entropy_with_logits(logits, t) + 0.5 * (1 - (both + 1) / (either + 1)).mean() + 2 * slopes


def train_matting(out: Path, pace: Pace, setup: Setup) -> dict[str, float] | None:
    """Draw, train, save into `out`; returns what `measure` finds on fresh scenes, None if the call ended before."""
    torch.manual_seed(0)
    vae = load_autoencoder(setup.vae, setup.device)
    banks = draw_banks(setup, vae, pace.deadline - pace.seconds)
    net = MatteNet(**SIZES).to(setup.device)
    steps = fit(net, banks, pace, setup, out)
    if steps is None:
        return None
    quality = measure(Matte(net.eval()), fresh_banks(setup, vae))
    drawn = sum(len(bank.masks) for bank in banks)
    save(net, SIZES, {"scenes": drawn, "steps": steps, "autoencoder": vae is not None, "quality": quality}, out)
    out.with_suffix(".checkpoint").unlink()
    return quality


def fit(net: MatteNet, banks: list[Bank], pace: Pace, setup: Setup, out: Path) -> int | None:
    """Train the net; returns the steps done, or None if it has to go on from its checkpoint beside `out`."""

    def loss_of() -> Tensor:
        x, t = batch_of(banks, setup.batch)
        x = worn(x).contiguous(memory_format=torch.channels_last)
        with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
            logits = net(x)
        return matte_loss(logits.float(), t)

    training = course("matting", net, setup.rate, out)
    return training.step if training.run(loss_of, pace) else None


def fresh_banks(setup: Setup, vae: AutoencoderKL | None) -> list[Bank]:
    """`fresh` scenes that no training saw, of every shape; all their sprites are new."""
    drawer, each = Drawer(replace(setup, sprites=0), vae, 32), -(-setup.fresh // len(setup.shapes))
    return [drawer.draw(each, shape) for shape in setup.shapes]


def measure(matte: Matte, banks: list[Bank]) -> dict[str, float]:
    """Intersection over union at 0.5 and absolute error, means over scenes, of drawings and of autoencoded ones."""
    found: dict[str, float] = {}
    for state, name in enumerate(("drawn", "autoencoded")[: banks[0].inputs.shape[1]]):
        overlaps, errors = [], []
        for bank in banks:
            y, t = matte(bank.inputs[:, state].permute(0, 2, 3, 1)), bank.masks.cpu().float() / 255
            a, b = y > 0.5, t > 0.5
            overlaps.append((a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1))
            errors.append((y - t).abs().mean((1, 2)))
        found[f"{name}_iou"] = round(float(torch.cat(overlaps).mean()), 4)
        found[f"{name}_mae"] = round(float(torch.cat(errors).mean()), 4)
    print(f"matting: on fresh scenes {found}", flush=True)
    return found


def draw_sheet(matte: Matte, banks: list[Bank], path: Path) -> None:
    """Rows: the picture, the mask found, the true one, the cut-out on magenta; at 256 px of height."""
    rows: list[Tensor] = []
    for bank in banks:
        for i in range(min(4, len(bank.masks))):
            x = bank.inputs[i, min(1, bank.inputs.shape[1] - 1)].permute(1, 2, 0).cpu()
            cut = cut_out(x, matte).float()
            alpha = cut[..., 3:] / 255
            ground = torch.tensor([255.0, 0.0, 255.0])
            found = whole(matte(x[None])[0])[..., None].expand(-1, -1, 3)
            true = bank.masks[i].cpu()[..., None].expand(-1, -1, 3)
            row = torch.cat([x, found, true, (cut[..., :3] * alpha + ground * (1 - alpha)).round().byte()], 1)
            rows.append(F.pad(row, (0, 0, 0, 4 * 432 - row.shape[1])))
    Image.fromarray(torch.cat(rows).contiguous().numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.pocket.cutting", description="Train the matting net.")
    parser.add_argument("--minutes", type=float, default=1.5, help="a third of it at most for drawing")
    parser.add_argument("--vae", type=Path, help="folder of the base's autoencoder")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--sheet", type=Path, help="a PNG: pictures, masks found, true masks, cut-outs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="a smoke test, at toy size")
    args = parser.parse_args()
    setup = Setup.tiny(args.device) if args.tiny else Setup(args.device, args.vae, seconds=args.minutes * 20)
    train_matting(args.out, Pace(args.minutes * 40), setup)
    if args.sheet:
        vae = load_autoencoder(setup.vae, setup.device)
        draw_sheet(Matte.load(args.out, setup.device), fresh_banks(setup, vae), args.sheet)


if __name__ == "__main__":
    main()

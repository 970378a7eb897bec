"""Characters: mascots of sixteen species, rigged, dressed and posed. Batched, on CPU or CUDA, equal for equal seeds.

Numbers become a rig (joints in a frame of side 1, y down, feet on the ground), the rig a list of `Layer`s from back to
front, and `shapes.Canvas` paints them. Figures are built facing right; `Fit` mirrors them and keeps them in the frame.

python -m engine.pocket.characters -n 24 --seed 1 --out sheet.png [--species fox] [--identity 7]
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from engine.pocket.backdrops import COLOURS, mix, palette
from engine.pocket.cast import (
    BUILD,
    IDENTITY,
    ITEM_TOLD,
    NAMES,
    TOLD_EXPRESSIONS,
    TOLD_POSES,
    TOLD_VIEWS,
    VIEWS,
    Characters,
    Held,
    identity,
    sample_characters,
)
from engine.pocket.figure import STACK
from engine.pocket.rig import GROUND, Rig, rig
from engine.pocket.shapes import (
    Canvas,
    Fit,
    Layer,
    extent,
)
from engine.pocket.sprites import Sprite, spread

MARGIN = 0.035  # that stays empty around a figure
LARGEST = 1.2  # scale of a figure that leaves room to grow
CHUNK = {"cpu": 4, "cuda": 512}  # pictures painted at once


def fit_of(c: Characters, layers: Sequence[Layer]) -> Fit:
    """No larger than life, and inside the frame with a margin."""
    left, top, right, bottom = extent(layers).unbind(1)
    room, ground = 1 - 2 * MARGIN, torch.full_like(left, GROUND)
    scale = torch.stack([(GROUND - MARGIN) / (GROUND - top), room / (right - left), room / (bottom - top)]).amin(0)
    scale = scale.clamp(max=LARGEST)
    low, high = right - room / 2 / scale, left + room / 2 / scale
    centre = torch.minimum(torch.maximum(torch.full_like(left, 0.5), low), high)
    foot = torch.minimum(ground, 1 - MARGIN - (bottom - GROUND) * scale)
    return Fit(scale, centre, c.facing.float(), ground, foot)


def shadow_of(r: Rig, fit: Fit, size: int, device: torch.device | str) -> Tensor:
    """A soft ellipse on the ground, smaller and fainter under one who jumps, (n, 1, h, w)."""
    lift = r.p["lift"]
    x = 0.5 + fit.facing * (r.hips.origin[:, 0] - fit.centre) * fit.scale
    wide, strength = 0.20 * fit.scale * (1 - 2.5 * lift), 0.34 * (1 - 4 * lift)
    x, wide, strength = (value.to(device)[:, None, None, None] for value in (x, wide, strength))
    line = (torch.arange(size, device=device) + 0.5) / size
    return strength * torch.exp(-(((line - x) / wide) ** 2) - ((line[:, None] - GROUND) / 0.026) ** 2)


@torch.no_grad()
def draw_characters(characters: Characters, size: int = 256, device: torch.device | str = "cpu") -> Sprite:
    """The figures, cut out, each on a square of `size` pixels; painted a few at a time so that caches hold them."""
    chunk = CHUNK.get(torch.device(device).type, 64)
    parts = [draw_chunk(characters[slice(i, i + chunk)], size, device) for i in range(0, len(characters), chunk)]
    return Sprite(*(torch.cat(list(column)) for column in zip(*parts, strict=True)))


def draw_chunk(c: Characters, size: int, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    r = rig(c)
    layers = [layer for part in STACK for layer in part(r) if layer.on.any()]
    fit = fit_of(c, layers)
    canvas = Canvas.blank(fit, c.lined, size, device)
    for layer in layers:
        canvas.paint(layer)
    alpha = canvas.alpha.clamp(0, 1)
    return (canvas.rgb / alpha.clamp(min=1e-4)).clamp(0, 1), alpha, shadow_of(r, fit, size, device)


# In words ------------------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """What one character shows, by name; `item` is "" where nothing is held, `accent` where nothing has its colour.

    `facing` is "left" or "right", and "" from the front.
    """

    species: str
    fur: str
    accent: str
    outfit: str
    expression: str
    pose: str
    view: str
    facing: str
    item: str
    hair: str


def shown(characters: Characters) -> list[Shown]:
    """The table of what is there: for captions, and for an evaluator to check."""
    c, colours, views = characters, list(COLOURS), list(VIEWS)
    names = [list(NAMES[name]) for name in ("species", "outfit", "expression", "pose")]
    hair = [("short", "long")[int(value)] for value in c.build[:, BUILD.index("ear_len")] > 0]
    rows: list[Shown] = []
    for i in range(len(c)):
        species, outfit, expression, pose = (
            table[int(column[i])]
            for table, column in zip(names, (c.species, c.outfit, c.expression, c.pose), strict=True)
        )
        side, human, view = "right" if int(c.facing[i]) > 0 else "left", species == "child", views[int(c.view[i])]
        rows.append(
            Shown(
                species, colours[int(c.fur[i])], colours[int(c.accent[i])] if human or outfit != "none" else "", outfit,
                expression, f"pointing {side}" if pose == "pointing" else pose, view, "" if view == "front" else side,
                ITEM_TOLD[int(c.item[i])] if pose == "holding" else "", hair[i] if human else "",
            )
        )  # fmt: skip
    return rows


def worn(show: Shown) -> str:
    """'a red scarf', 'orange glasses', for a child without an outfit 'a red shirt', '' for nothing."""
    if not show.accent:
        return ""
    outfit = "shirt" if show.outfit == "none" else show.outfit
    article = "" if outfit.endswith("s") else "an " if show.accent[0] in "aeio" else "a "
    return f"{article}{show.accent} {outfit}"


def described(show: Shown, mood: str) -> str:
    """'a happy teal cat', 'a happy child with long teal hair'; `mood` may be "" and then it is not told."""
    words = f"{mood} {show.species}" if show.hair else f"{mood} {show.fur} {show.species}"
    words = words.strip()
    tail = f" with {show.hair} {show.fur} hair" if show.hair else ""
    return ("an " if words[0] in "aeio" else "a ") + words + tail


def picked(options: Sequence[str], u: float) -> str:
    """The first of the options in 60 % of cases, else one of the others."""
    if len(options) == 1 or u < 0.6:
        return options[0]
    return options[1 + int((u - 0.6) / 0.4 * (len(options) - 1))]


def tell(show: Shown, u: Sequence[float]) -> str:
    """One character in words; `u` holds 8 uniform numbers."""
    mood, view = picked(TOLD_EXPRESSIONS[show.expression], u[0]), picked(TOLD_VIEWS[show.view], u[1])
    act, wear = picked(TOLD_POSES[show.pose], u[2]).format(show.item), worn(show)
    if show.facing and u[3] < 0.5:
        view = f"{view}, facing {show.facing}"
    dressed = f" {'and' if show.hair else 'with'} {wear}" if wear else ""
    wearing = f", wearing {wear}" if wear else ""
    return (
        f"{described(show, mood)}{dressed}, {act}, {view}",
        f"{described(show, mood)}{wearing}, {act}, {view}",
        f"{described(show, '')}{dressed}, {mood}, {act}, {view}",
        f"{TOLD_VIEWS[show.view][0]} of {described(show, mood)}{dressed}, {act}",
        f"{described(show, mood)}, {act}{wearing}, {view}",
    )[int(u[4] * 5)]


def told(characters: Characters) -> list[str]:
    """Exact words for every character: "a happy teal cat with a red scarf, waving, three-quarter view"."""
    rows: list[list[float]] = characters.words.tolist()  # pyright: ignore[reportUnknownVariableType]
    return [tell(show, row) for show, row in zip(shown(characters), rows, strict=True)]


# A sheet to look at --------------------------------------------------------------------------------------------------


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (n, 3, s, s) in rows of `columns`."""
    n, _, size, _ = pictures.shape
    rows = math.ceil(n / columns)
    pad = torch.ones(rows * columns - n, 3, size, size)
    grid = torch.cat([pictures, pad]).view(rows, columns, 3, size, size).permute(0, 3, 1, 4, 2)
    pixels = (grid.reshape(rows * size, columns * size, 3) * 255).round().byte()
    return Image.fromarray(pixels.numpy())


def on_plain(sprite: Sprite, generator: torch.Generator) -> Tensor:
    """Over pale plain grounds, (n, 3, h, w)."""
    n = len(sprite.rgb)
    ground = mix(palette()[spread(n, len(COLOURS), generator)], torch.ones(n, 3), 0.62)[:, :, None, None]
    return sprite.over(ground.expand_as(sprite.rgb))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.pocket.characters", description="Draw a sheet of characters."
    )
    parser.add_argument("-n", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=256, help="pixels on a side of one picture")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    for name in NAMES:
        parser.add_argument(f"--{name}", choices=NAMES[name])
    parser.add_argument("--identity", type=int, help="seed of one character to hold")
    args = parser.parse_args()
    held: dict[str, Held] = {name: getattr(args, name) for name in NAMES if getattr(args, name)}
    if args.identity is not None:
        held = identity(args.identity, **{k: v for k, v in held.items() if k in IDENTITY}) | {
            k: v for k, v in held.items() if k not in IDENTITY
        }
    generator = torch.Generator().manual_seed(args.seed)
    characters = sample_characters(args.n, generator, **held)
    sheet(on_plain(draw_characters(characters, args.size), generator), args.columns).save(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

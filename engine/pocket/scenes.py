"""Scenes: what is in a picture is sampled, drawn and captioned here. Batched, on CPU or CUDA, equal for equal seeds.

python -m engine.pocket.scenes --subject crab -n 12 --seed 7 --out crab/
"""

import argparse
import difflib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.pocket.backdrops import BACKDROPS, COLOURS, HORIZON, SHADOWED, Ground, draw_backdrops, mix, palette
from engine.pocket.captions import PLACES, SIZES, Told, caption, trigger_caption
from engine.pocket.glyphs import Atlas, load_atlas
from engine.pocket.looks import (
    BRANDS,
    COLOURLESS,
    GROUNDLESS,
    HELD_OUT_STYLES,
    LOOKS,
    STYLES,
    Layers,
    apply_looks,
    luminance,
)
from engine.pocket.sprites import spread

SIZE = 256  # px
WORDS = 24  # uniform numbers that a caption may use


@dataclass(frozen=True)
class Menu:
    """What may be drawn. `pair`, `tint`, `look_share`: how often there is a second object, a colour, a look."""

    subjects: tuple[str, ...]
    others: tuple[str, ...]
    looks: tuple[str, ...] = tuple(STYLES)
    look_share: float = 0.5
    pair: float = 0.25
    tint: float = 0.4
    colour: str | None = None


@dataclass(frozen=True)
class Scenes:
    """n scenes as numbers. `noun`, `tint` (n, 2) index `nouns` and COLOURS, -1 for none; the rest (n,) their tables."""

    noun: Tensor
    tint: Tensor
    size: Tensor
    place: Tensor
    background: Tensor
    colour: Tensor
    look: Tensor
    pose: Tensor  # (n, 8) uniform: scales, offsets and turns
    u: Tensor  # (n, 8) uniform: the backdrop's own
    grain: Tensor  # (n, 1, 12, 12) normal
    words: Tensor  # (n, WORDS) uniform
    nouns: tuple[str, ...]

    def __len__(self) -> int:
        return self.noun.shape[0]

    def __getitem__(self, rows: slice) -> "Scenes":
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "nouns"})


def sample(n: int, menu: Menu, generator: torch.Generator) -> Scenes:
    """Draw n scenes from the menu."""
    nouns = tuple(dict.fromkeys(menu.subjects + menu.others))
    u = torch.rand(n, 8, generator=generator)
    where = {noun: index for index, noun in enumerate(nouns)}
    first = spread(n, len(menu.subjects), generator)
    second = torch.tensor([where[noun] for noun in menu.others])[spread(n, len(menu.others), generator)]
    paired = (u[:, 0] < menu.pair) & (second != first)
    noun = torch.stack([first, torch.where(paired, second, -1)], 1)
    background, colour = spread(n, len(BACKDROPS), generator), spread(n, len(COLOURS), generator)
    look = torch.tensor([list(LOOKS).index(look) for look in menu.looks] or [0])
    look = torch.where(u[:, 1] < menu.look_share, look[spread(n, len(look), generator)], 0)
    size = torch.bucketize(u[:, 2].contiguous(), torch.tensor([0.64, 0.82])) * ~paired
    place = torch.bucketize(u[:, 3].contiguous(), torch.tensor([0.64, 0.76, 0.88])) * ~paired
    return Scenes(
        noun=noun, tint=tints(noun, colour, menu, generator), size=size, place=place, background=background,
        colour=colour, look=look, pose=torch.rand(n, 8, generator=generator), u=torch.rand(n, 8, generator=generator),
        grain=torch.randn(n, 1, 12, 12, generator=generator), words=torch.rand(n, WORDS, generator=generator),
        nouns=nouns,
    )  # fmt: skip


def tints(noun: Tensor, ground_colour: Tensor, menu: Menu, generator: torch.Generator) -> Tensor:
    """Colours of the objects, (n, 2), -1 for their own: never the ground's colour, as nobody would see them."""
    n, count = noun.shape[0], len(COLOURS)
    away = torch.randint(1, count, (n, 2), generator=generator)
    tint = (ground_colour[:, None] + away) % count
    tint = torch.where(torch.rand(n, 2, generator=generator) < menu.tint, tint, -1)
    if menu.colour:
        tint[:, 0] = list(COLOURS).index(menu.colour)
    return torch.where(noun < 0, -1, tint)


def told(scenes: Scenes) -> list[Told]:
    """What each scene shows, in words; what a look hides is not told."""
    columns = ("noun", "tint", "size", "place", "background", "colour", "look")
    table: Iterable[tuple[Any, ...]] = zip(*(getattr(scenes, name).tolist() for name in columns), strict=True)
    colours, backdrops, looks = list(COLOURS), list(BACKDROPS), list(LOOKS)
    rows: list[Told] = []
    for noun, tint, size, place, background, colour, look in table:
        names: list[str] = [scenes.nouns[index] if index >= 0 else "" for index in noun]
        hidden = looks[look] in COLOURLESS
        shades: list[str] = ["" if index < 0 or hidden else colours[index] for index in tint]
        ground = backdrops[int(background)]
        ground_colour = "" if looks[int(look)] in GROUNDLESS else colours[int(colour)]
        rows.append(
            Told(
                names[0], names[1], shades[0], shades[1], SIZES[size], PLACES[place], ground, ground_colour, looks[look]
            )
        )
    return rows


def tidy(text: str) -> str:
    return " ".join(text.split()).replace(" ,", ",")


def word_rows(scenes: Scenes) -> list[list[float]]:
    rows: list[list[float]] = scenes.words.tolist()  # pyright: ignore[reportUnknownVariableType]
    return rows


def captions(scenes: Scenes) -> list[str]:
    return [tidy(caption(row, words)) for row, words in zip(told(scenes), word_rows(scenes), strict=True)]


@dataclass(frozen=True)
class Renderer:
    """Atlas on a device. `cells` (m, 4, c, c) premultiplied; `bottom` (m,) where ink ends; `tone` (m,) mean luma."""

    cells: Tensor
    bottom: Tensor
    tone: Tensor
    cell_of: dict[str, int]
    size: int = SIZE

    @staticmethod
    def on(device: torch.device | str, atlas: Atlas | None = None, size: int = SIZE) -> "Renderer":
        atlas = atlas or load_atlas()
        cells = atlas.pictures.to(device).float() / 255
        alpha = cells[:, 3:]
        rows = (alpha.amax(3) > 0.3).float() * torch.arange(1, alpha.shape[2] + 1, device=device)
        tone = (luminance(cells[:, :3]) * alpha).sum((1, 2, 3)) / alpha.sum((1, 2, 3))
        solid = torch.cat([cells[:, :3] * alpha, alpha], 1)
        return Renderer(solid, rows.amax((1, 2)) / alpha.shape[2], tone, atlas.cell, size)

    @torch.no_grad()
    def draw(self, scenes: Scenes) -> Tensor:
        """Pictures (n, 3, size, size) in 0..1 on the renderer's device."""
        device = self.cells.device
        line = (torch.arange(self.size, device=device) + 0.5) / self.size
        grain = F.interpolate(scenes.grain.to(device), size=self.size, mode="bicubic")
        colour = palette(device)[scenes.colour.to(device)][:, :, None, None]
        ground = Ground(
            line[None, None, None, :], line[None, None, :, None], colour, scenes.u.to(device)[:, :, None, None], grain
        )
        backdrop = draw_backdrops(scenes.background.to(device), ground)
        picture, mask = backdrop, torch.zeros_like(backdrop[:, :1])
        for slot in (0, 1):
            rows = (scenes.noun[:, slot] >= 0).nonzero().squeeze(1)
            if rows.numel():
                picture, backdrop, mask = self.put(scenes, slot, rows, (picture, backdrop, mask), ground)
        return apply_looks(scenes.look.to(device), Layers(picture, backdrop, mask, ground))

    def put(
        self, scenes: Scenes, slot: int, rows: Tensor, layers: tuple[Tensor, ...], ground: Ground
    ) -> tuple[Tensor, ...]:
        """Paste object `slot` with its contact shadow on the chosen rows of (picture, backdrop, mask)."""
        picture, backdrop, mask = (layer.clone() for layer in layers)
        device = self.cells.device
        cell = torch.tensor([self.cell_of[noun] for noun in scenes.nouns])[scenes.noun[rows, slot]].to(device)
        x, y, scale, turn = (value.to(device) for value in layout(scenes, slot, rows, self.bottom[cell].cpu()))
        shadowed = torch.tensor([name in SHADOWED for name in BACKDROPS])[scenes.background[rows]].to(device)
        foot = y + scale * (self.bottom[cell] - 0.5)
        blob = blob_at(ground, x, foot, scale) * (0.42 * shadowed)[:, None, None, None]
        ink = self.tinted(cell, scenes.tint[rows, slot].to(device))
        stamp = place_cells(ink, x, y, scale, turn, self.size)
        rows = rows.to(device)
        over = 1 - stamp[:, 3:]
        picture[rows] = picture[rows] * (1 - blob) * over + stamp[:, :3]
        backdrop[rows] = backdrop[rows] * (1 - blob)
        mask[rows] = mask[rows] * over + stamp[:, 3:]
        return picture, backdrop, mask

    def tinted(self, cell: Tensor, tint: Tensor) -> Tensor:
        """Cells in their tint: dark shade → the colour at the glyph's mean luma → near white, by luminance."""
        stamp = self.cells[cell]
        alpha = stamp[:, 3:]
        luma = luminance(stamp[:, :3] / alpha.clamp(min=1e-3)) - self.tone[cell][:, None, None, None]
        colour = palette(self.cells.device)[tint.clamp(min=0)][:, :, None, None]
        shade = mix(colour, colour * 0.18, (-luma * 2.2).clamp(0, 1))
        shade = mix(shade, torch.ones_like(shade), (luma * 1.8).clamp(0, 0.75))
        return torch.where((tint >= 0)[:, None, None, None], torch.cat([shade * alpha, alpha], 1), stamp)


def layout(scenes: Scenes, slot: int, rows: Tensor, bottom: Tensor) -> tuple[Tensor, ...]:
    """Centre x, y and width of object `slot`, as parts of the picture, and its turn in radians; each (len(rows),)."""
    u, size, place = scenes.pose[rows], scenes.size[rows], scenes.place[rows]
    paired = scenes.noun[rows, 1] >= 0
    low, room = torch.tensor([0.56, 0.30, 0.80])[size], torch.tensor([0.16, 0.08, 0.10])[size]
    scale = low + room * u[:, slot]
    horizon = torch.tensor([HORIZON.get(name, 0.0) for name in BACKDROPS])[scenes.background[rows]]
    aside = (place == 1) | (place == 2)
    scale = torch.where(paired, 0.40 + 0.07 * u[:, slot], torch.where(aside, scale.clamp(max=0.52), scale))
    scale = torch.where(horizon > 0, scale.clamp(max=0.80), scale)
    offset = torch.where(paired, 0.46 * slot - 0.23, torch.tensor([0.0, -0.22, 0.22, 0.0])[place])
    x = 0.5 + offset + (u[:, 2 + slot] - 0.5) * 0.05
    floating = 0.5 + (u[:, 4 + slot] - 0.5) * 0.06
    y = torch.where(horizon > 0, horizon + (u[:, 4 + slot] - 0.5) * 0.02 - scale * (bottom - 0.5), floating)
    return x, y, scale, (u[:, 6 + slot] - 0.5) * 0.16


def blob_at(ground: Ground, x: Tensor, foot: Tensor, scale: Tensor) -> Tensor:
    """A soft contact shadow, (n, 1, h, w)."""
    x, foot, scale = (value[:, None, None, None] for value in (x, foot, scale))
    return torch.exp(-(((ground.x - x) / (0.34 * scale)) ** 2) - ((ground.y - foot) / (0.055 * scale)) ** 2)


def place_cells(stamp: Tensor, x: Tensor, y: Tensor, scale: Tensor, turn: Tensor, size: int) -> Tensor:
    """Premultiplied cells (n, 4, c, c) → (n, 4, size, size), centred on (x, y), `scale` wide, turned."""
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    cx, cy = 2 * x - 1, 2 * y - 1
    theta = torch.stack([cos, sin, -cos * cx - sin * cy, -sin, cos, sin * cx - cos * cy], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(stamp), 4, size, size], align_corners=False)
    return F.grid_sample(stamp, grid, mode="bicubic", align_corners=False).clamp(0, 1)


def base_menu(atlas: Atlas) -> Menu:
    """What the base learns: known nouns and the seven styles."""
    return Menu(subjects=atlas.known, others=atlas.known)


def training_set(args: argparse.Namespace, atlas: Atlas) -> tuple[Scenes, list[str]]:
    """Scenes and `[trigger]` captions for a LoRA: of one subject, or of one brand look on varied known nouns."""
    look = args.brand or args.style
    menu = Menu(subjects=(args.subject,) if args.subject else atlas.known, others=atlas.known, pair=0.25,
                looks=(look,) if look else (), look_share=1.0 if look else 0.0, tint=0.0, colour=args.tint)  # fmt: skip
    scenes = sample(args.n, menu, torch.Generator().manual_seed(args.seed))
    rows = told(scenes)
    if args.subject:
        rows = [row._replace(first="[trigger]") for row in rows]
    content_only = not args.subject
    lines = [
        tidy(trigger_caption(row, words, content_only)) for row, words in zip(rows, word_rows(scenes), strict=True)
    ]
    return scenes, lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engine.pocket.scenes", description="Draw training pictures for a LoRA."
    )
    parser.add_argument("--subject", help="a noun of the atlas, held out or known")
    parser.add_argument("-n", type=int, default=12, help="how many pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for 00.png, 00.txt, …")
    parser.add_argument("--brand", choices=list(BRANDS), help="a brand look")
    parser.add_argument("--style", choices=[*STYLES, *HELD_OUT_STYLES])
    parser.add_argument("--tint", choices=list(COLOURS), help="colour of the subject")
    parser.add_argument("--no-captions", action="store_true")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels on a side")
    args = parser.parse_args()
    if not (args.subject or args.brand or args.style):
        parser.error("say what to draw: --subject NAME, --brand LOOK or --style STYLE")
    return args


def main() -> int:
    args, atlas = parse(), load_atlas()
    if args.subject and args.subject not in atlas.cell:
        near = difflib.get_close_matches(str(args.subject), list(atlas.cell), n=3, cutoff=0.4)
        print(
            f"Nothing called {args.subject!r} can be drawn; near names: {', '.join(near) or 'none'}.", file=sys.stderr
        )
        return 2
    scenes, lines = training_set(args, atlas)
    pictures = Renderer.on("cpu", atlas, args.size).draw(scenes)
    args.out.mkdir(parents=True, exist_ok=True)
    for index, (picture, line) in enumerate(zip(pictures, lines, strict=True)):
        pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(args.out / f"{index:02}.png")
        if not args.no_captions:
            (args.out / f"{index:02}.txt").write_text(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

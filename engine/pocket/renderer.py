"""Draws scenes: sprites laid on grounds, with their shadows, then the looks. Batched, on CPU or CUDA, at any scale."""

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.pocket.backdrops import BACKDROPS, HORIZON, Ground, draw_backdrops, mix, palette
from engine.pocket.characters import draw_characters
from engine.pocket.glyphs import rasterise
from engine.pocket.layout import placements
from engine.pocket.lexicon import SORTS, atlas, kind_of, nouns
from engine.pocket.looks import Layers, apply_looks, luminance
from engine.pocket.products import draw_products
from engine.pocket.scenes import BUCKETS, SIZE, Cast, Menu, Scenes, new_cast
from engine.pocket.sprites import listed

LARGEST_SPRITE = 640  # px
FLOATING = ("sky", "space", "underwater")  # nothing casts a shadow there


class Renderer:
    """Draws scenes on a device at `scale` times the base size; may hold a bank of ready sprites."""

    def __init__(self, device: torch.device | str, cells: Tensor, scale: int) -> None:
        self.device, self.cells, self.scale = torch.device(device), cells, scale
        self.cast: Cast | None = None
        self.bank: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def on(device: torch.device | str, scale: int = 1) -> "Renderer":
        pictures = atlas().pictures if scale == 1 else rasterise(min(SIZE * scale, LARGEST_SPRITE))
        return Renderer(device, pictures.to(device), scale)

    def fill(self, menu: Menu, products: int, characters: int, seconds: float, seed: int = 21) -> Cast:
        """Draw a bank of sprites until there are as many, or the time is over; returns its cast, for `sample`."""
        self.cast, self.bank = fill_bank(self, menu, (products, characters), seconds, seed)
        return self.cast

    @torch.no_grad()
    def draw(self, scenes: Scenes) -> Tensor:
        """Pictures (n, 3, h, w) in 0..1 on the renderer's device."""
        return apply_looks(scenes.look.to(self.device), self.layers(scenes))

    @torch.no_grad()
    def layers(self, scenes: Scenes) -> Layers:
        """The scenes before their looks: picture, backdrop with shadows, mask of the objects, ground."""
        height, width = (side * self.scale for side in BUCKETS[scenes.shape])
        colour = palette(self.device)[scenes.colour.to(self.device)][:, :, None, None]
        u = scenes.u.to(self.device)[:, :, None, None]
        ground = Ground.of((height, width), colour, u, scenes.grain.to(self.device))
        backdrop = draw_backdrops(scenes.background.to(self.device), ground)
        stack = [backdrop, backdrop.clone(), torch.zeros_like(backdrop[:, :1])]
        for slot in (1, 0):
            self.put_glyphs(stack, scenes, slot)
            self.put_figures(stack, scenes, slot)
        return Layers(stack[0].clamp(0, 1), stack[1], stack[2], ground)

    def put_glyphs(self, stack: list[Tensor], scenes: Scenes, slot: int) -> None:
        rows = (kind_of(scenes.noun[:, slot]) == 0).nonzero().squeeze(1)
        if not len(rows):
            return
        cell_of = torch.tensor([atlas().cell.get(noun, 0) for noun in nouns()])
        cell = cell_of[scenes.noun[rows, slot]].to(self.device)
        stamp = tinted(self.cells[cell].float() / 255, scenes.tint[rows, slot].to(self.device))
        stamp = torch.cat([stamp, torch.zeros_like(stamp[:, :1])], 1)
        self.put(stack, scenes, slot, rows, stamp, "glyph")

    def put_figures(self, stack: list[Tensor], scenes: Scenes, slot: int) -> None:
        for kind, name in ((1, "product"), (2, "character")):
            rows = (kind_of(scenes.noun[:, slot]) == kind).nonzero().squeeze(1)
            if len(rows):
                self.put(stack, scenes, slot, rows, self.figures(scenes, scenes.row[rows, slot], kind), name)

    def figures(self, scenes: Scenes, row: Tensor, kind: int) -> Tensor:
        """Sprites (m, 5, c, c) of rows of the cast, from the bank or drawn now: premultiplied colour, alpha, shadow."""
        if self.bank is not None and scenes.cast is self.cast:
            return self.bank[kind - 1][row.to(self.device)].float() / 255
        distinct = sorted(set[int](listed(row)))
        where = torch.tensor([distinct.index(index) for index in listed(row)], device=self.device)
        return self.sprites(scenes.cast, torch.tensor(distinct), kind)[where]

    def sprites(self, cast: Cast, rows: Tensor, kind: int) -> Tensor:
        """Rows of the cast drawn now, (m, 5, c, c)."""
        size = min(SIZE * self.scale, LARGEST_SPRITE)
        if kind == 1:
            sprite = draw_products(cast.products.rows(rows), size, self.device)
        else:
            sprite = draw_characters(cast.characters[rows], size, self.device)
        return torch.cat([sprite.rgb * sprite.alpha, sprite.alpha, sprite.shadow], 1)

    def put(self, stack: list[Tensor], scenes: Scenes, slot: int, rows: Tensor, stamp: Tensor, sort: str) -> None:
        """Paste a thing's instances on (picture, backdrop, mask) of the chosen scenes, with their shadows."""
        ink = bottoms(stamp).cpu()
        dry = torch.tensor([name in FLOATING for name in BACKDROPS])[scenes.background[rows]]
        dry |= scenes.count[rows] == 0
        floor = torch.tensor([name in HORIZON for name in BACKDROPS])[scenes.background[rows]]
        for place in placements(scenes, slot, rows, ink, sort):
            mine, at = place.rows.to(self.device), rows[place.rows].to(self.device)
            x, y, scale, turn = (value.to(self.device) for value in place[1:])
            size = tuple(stack[0].shape[-2:])
            tiles = (scenes.count[rows[place.rows]] == 0).to(self.device)
            flat = place_cells(stamp[mine], (x, y, scale, turn), size, tiles)
            shade = flat[:, 4:] * (~dry[place.rows]).float().to(self.device)[:, None, None, None]
            if sort == "glyph":
                lies = 0.42 * (floor & ~dry)[place.rows].float().to(self.device)[:, None, None, None]
                foot = y + scale * (ink[place.rows].to(self.device) - 0.5)
                shade = contact(size, x, foot, scale) * lies
            over, light = 1 - flat[:, 3:4], 1 - shade
            stack[0][at] = stack[0][at] * light * over + flat[:, :3]
            stack[1][at] = stack[1][at] * light
            stack[2][at] = stack[2][at] * over + flat[:, 3:4]


def fill_bank(
    renderer: Renderer, menu: Menu, wanted: tuple[int, int], seconds: float, seed: int
) -> tuple[Cast, tuple[Tensor, Tensor]]:
    """Products and characters of the menu as numbers, and as sprites, uint8 (m, 5, c, c), of equal rows."""
    generator, ends = torch.Generator().manual_seed(seed), time.monotonic() + seconds
    names: tuple[list[str], list[str]] = ([], [])
    for which, sort in enumerate(SORTS[1:]):
        mine = [noun for noun in menu.nouns if nouns()[noun] == sort]
        names[which].extend(mine[i % len(mine)] for i in range(max(wanted[which], len(mine))))
    whole = new_cast(names[0], names[1], menu, generator)
    banks: list[list[Tensor]] = [[], []]
    done = [0, 0]
    chunk = 510 if renderer.device.type == "cuda" else 34  # of all kinds alike
    while any(done[which] < len(names[which]) for which in (0, 1)):
        for which in (0, 1):
            rows = torch.arange(done[which], min(done[which] + chunk, len(names[which])))
            if len(rows) and (time.monotonic() < ends or done[which] < min(len(names[which]), 17)):
                banks[which].append((renderer.sprites(whole, rows, which + 1) * 255).round().byte())
                done[which] += len(rows)
        if time.monotonic() >= ends and min(done) >= 17:
            break
    cast = Cast(whole.products.rows(torch.arange(done[0])), whole.characters[slice(0, done[1])])
    print(f"bank: {done[0]} products, {done[1]} characters", flush=True)
    return cast, (torch.cat(banks[0]), torch.cat(banks[1]))


def tinted(stamp: Tensor, tint: Tensor) -> Tensor:
    """RGBA cells (m, 4, c, c), premultiplied, in their tint by luminance: dark shade → colour at mean luma → white."""
    colour, alpha = stamp[:, :3], stamp[:, 3:]
    luma = luminance(colour)
    tone = (luma * alpha).sum((1, 2, 3)) / alpha.sum((1, 2, 3)).clamp(min=1e-3)
    luma = luma - tone[:, None, None, None]
    wanted = palette(stamp.device)[tint.clamp(min=0)][:, :, None, None]
    shade = mix(wanted, wanted * 0.18, (-luma * 2.2).clamp(0, 1))
    shade = mix(shade, torch.ones_like(shade), (luma * 1.8).clamp(0, 0.75))
    return torch.cat([torch.where((tint >= 0)[:, None, None, None], shade, colour) * alpha, alpha], 1)


def bottoms(stamp: Tensor) -> Tensor:
    """Where the ink of each sprite ends, (m,), as a part of its cell; measured in 128ths, so that scale is no matter."""
    rows = (F.adaptive_avg_pool2d(stamp[:, 3:4], 128)[:, 0].amax(2) > 0.3).float()
    return (rows * torch.arange(1, rows.shape[1] + 1, device=rows.device)).amax(1) / rows.shape[1]


def contact(size: tuple[int, ...], x: Tensor, foot: Tensor, scale: Tensor) -> Tensor:
    """A soft contact shadow under a flat thing, (m, 1, h, w)."""
    height, width = size
    line_y = ((torch.arange(height, device=x.device) + 0.5) / height)[None, None, :, None]
    line_x = ((torch.arange(width, device=x.device) + 0.5 - width / 2) / height + 0.5)[None, None, None, :]
    x, foot, scale = (value[:, None, None, None] for value in (x, foot, scale))
    return torch.exp(-(((line_x - x) / (0.34 * scale)) ** 2) - ((line_y - foot) / (0.055 * scale)) ** 2)


def place_cells(stamp: Tensor, at: tuple[Tensor, ...], size: tuple[int, ...], tiles: Tensor) -> Tensor:
    """Cells (m, c, s, s) → (m, c, h, w), centred on (x, y), `scale` heights wide, turned; `tiles` (m,) repeat for ever.

    A cell that shrinks is averaged first, so that it does not alias.
    """
    x, y, scale, turn = at
    height, width = size
    line_y = (torch.arange(height, device=x.device) + 0.5) / height
    line_x = (torch.arange(width, device=x.device) + 0.5 - width / 2) / height + 0.5
    dx, dy = line_x[None, None, :] - x[:, None, None], line_y[None, :, None] - y[:, None, None]
    cos, sin, scale3 = torch.cos(turn)[:, None, None], torch.sin(turn)[:, None, None], scale[:, None, None]
    u, v = (cos * dx + sin * dy) / scale3, (cos * dy - sin * dx) / scale3
    if bool(tiles.any()):
        row = torch.floor(v + 0.5)
        shifted = u + 0.5 * (row % 2)
        u = (
            torch.where(tiles[:, None, None], (shifted + 0.5) % 1 - 0.5, u)
            * torch.where(tiles, 1.18, 1.0)[:, None, None]
        )
        v = torch.where(tiles[:, None, None], (v + 0.5) % 1 - 0.5, v) * torch.where(tiles, 1.18, 1.0)[:, None, None]
    grid = torch.stack([u * 2, v * 2], -1)
    out = torch.empty(len(stamp), stamp.shape[1], height, width, device=stamp.device)
    level = torch.log2(stamp.shape[-1] / (scale * height)).floor().clamp(0, 3).long()
    for step in range(4):
        mine = (level == step).nonzero().squeeze(1)
        if len(mine):
            cells = F.avg_pool2d(stamp[mine], 2**step) if step else stamp[mine]
            out[mine] = F.grid_sample(cells, grid[mine], mode="bicubic", align_corners=False)
    return out.clamp(0, 1)

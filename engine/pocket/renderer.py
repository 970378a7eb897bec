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
LEVELS = 4  # of cells: whole, halved, …
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
        return apply_looks(scenes.look, self.layers(scenes))

    @torch.no_grad()
    def layers(self, scenes: Scenes) -> Layers:
        """The scenes before their looks: picture, backdrop with shadows, mask of the objects, ground."""
        height, width = (side * self.scale for side in BUCKETS[scenes.shape])
        colour = palette(self.device)[scenes.colour.to(self.device)][:, :, None, None]
        u = scenes.u.to(self.device)[:, :, None, None]
        ground = Ground.of((height, width), colour, u, scenes.grain.to(self.device))
        backdrop = draw_backdrops(scenes.background, ground)
        stack = [backdrop, backdrop.clone(), torch.zeros_like(backdrop[:, :1])]
        for slot in (1, 0):
            self.put(stack, scenes, slot)
        return Layers(stack[0].clamp(0, 1), stack[1], stack[2], ground)

    def stamps(self, scenes: Scenes, slot: int) -> tuple[Tensor, Tensor]:
        """Which scenes have a thing in the slot, (m,), sort by sort, and its sprites (m, 5, c, c)."""
        kind = kind_of(scenes.noun[:, slot])
        glyphs, *others = ((kind == sort).nonzero().squeeze(1) for sort in range(len(SORTS)))
        parts = [self.glyphs(scenes.noun[glyphs, slot], scenes.tint[glyphs, slot])]
        parts += [self.figures(scenes, scenes.row[rows, slot], sort) for sort, rows in enumerate(others, 1)]
        return torch.cat([glyphs, *others]), torch.cat(parts)

    def glyphs(self, noun: Tensor, tint: Tensor) -> Tensor:
        """Sprites (m, 5, c, c) of glyphs in their tints, without shadows."""
        cell_of = torch.tensor([atlas().cell.get(name, 0) for name in nouns()])
        stamp = tinted(self.cells[cell_of[noun].to(self.device)].float() / 255, tint.to(self.device))
        return F.pad(stamp, (0, 0, 0, 0, 0, 1))

    def figures(self, scenes: Scenes, row: Tensor, kind: int) -> Tensor:
        """Sprites (m, 5, c, c) of rows of the cast, from the bank or drawn now: premultiplied colour, alpha, shadow."""
        if not len(row):
            return torch.empty(0, 5, *self.cells.shape[2:], device=self.device)
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

    def put(self, stack: list[Tensor], scenes: Scenes, slot: int) -> None:
        """Paste the things of a slot on (picture, backdrop, mask), with their shadows.

        A GPU waits for each answer and each number sent: what is where is found on the CPU, and goes over at once.
        """
        rows, stamp = self.stamps(scenes, slot)
        if not len(rows):
            return
        ink, size = bottoms(stamp).cpu(), tuple(stack[0].shape[-2:])
        ground, tiled = scenes.background[rows], scenes.count[rows] == 0
        casts = ~(torch.tensor([name in FLOATING for name in BACKDROPS])[ground] | tiled)
        flat = (kind_of(scenes.noun[rows, slot]) == 0) & torch.tensor([name in HORIZON for name in BACKDROPS])[ground]
        for place in placements(scenes, slot, rows, ink):
            level = levels(stamp.shape[-1], place.scale * size[0])
            counts = [int((level == step).sum()) for step in range(LEVELS)]
            which, x, y, scale, turn = (value[level.argsort(stable=True)] for value in place)
            foot, touches = y + scale * (ink[which] - 0.5), 0.42 * (flat & casts)[which]
            numbers = torch.stack([x, y, scale, turn, tiled[which], casts[which], foot, touches]).to(self.device)
            mine, at = torch.stack([which, rows[which]]).to(self.device)
            laid = place_cells(stamp[mine], counts, numbers[:5], size)
            x, _, scale, _, _, own, foot, touches = numbers[:, :, None, None, None]
            shade = laid[:, 4:] * own + contact(size, x, foot, scale) * touches
            over, light = 1 - laid[:, 3:4], 1 - shade
            stack[0][at] = stack[0][at] * light * over + laid[:, :3]
            stack[1][at] = stack[1][at] * light
            stack[2][at] = stack[2][at] * over + laid[:, 3:4]


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
    """Where the ink of each sprite ends, (m,), as a part of its cell; in 128ths, so that scale is no matter."""
    rows = (F.adaptive_avg_pool2d(stamp[:, 3:4], 128)[:, 0].amax(2) > 0.3).float()
    return (rows * torch.arange(1, rows.shape[1] + 1, device=rows.device)).amax(1) / rows.shape[1]


def contact(size: tuple[int, ...], x: Tensor, foot: Tensor, scale: Tensor) -> Tensor:
    """A soft contact shadow under a flat thing, (m, 1, h, w); x, foot and scale (m, 1, 1, 1)."""
    height, width = size
    line_y = ((torch.arange(height, device=x.device) + 0.5) / height)[None, None, :, None]
    line_x = ((torch.arange(width, device=x.device) + 0.5 - width / 2) / height + 0.5)[None, None, None, :]
    return torch.exp(-(((line_x - x) / (0.34 * scale)) ** 2) - ((line_y - foot) / (0.055 * scale)) ** 2)


def levels(side: int, wide: Tensor) -> Tensor:
    """How often a cell of so many pixels is halved before it becomes `wide` (m,) pixels, so that it does not alias."""
    return torch.log2(side / wide).floor().clamp(0, LEVELS - 1).long()


def place_cells(stamp: Tensor, counts: list[int], at: Tensor, size: tuple[int, ...]) -> Tensor:
    """Cells (m, c, s, s) → (m, c, h, w). The first counts[0] are not halved, the next counts[1] are once, and so on.

    `at` (5, m): they are centred on (x, y), `scale` heights wide, turned; where the fifth is 1 they repeat for ever.
    """
    x, y, scale, turn, tiled = at[:, :, None, None]
    height, width = size
    line_y = (torch.arange(height, device=x.device) + 0.5) / height
    line_x = (torch.arange(width, device=x.device) + 0.5 - width / 2) / height + 0.5
    dx, dy = line_x[None, None, :] - x, line_y[None, :, None] - y
    cos, sin = torch.cos(turn), torch.sin(turn)
    u, v = (cos * dx + sin * dy) / scale, (cos * dy - sin * dx) / scale
    shifted = u + 0.5 * (torch.floor(v + 0.5) % 2)
    u = torch.where(tiled > 0, ((shifted + 0.5) % 1 - 0.5) * 1.18, u)
    v = torch.where(tiled > 0, ((v + 0.5) % 1 - 0.5) * 1.18, v)
    grid = torch.stack([u * 2, v * 2], -1)
    parts: list[Tensor] = []
    for step, (cells, where) in enumerate(zip(torch.split(stamp, counts), torch.split(grid, counts), strict=True)):
        if len(cells):
            cells = F.avg_pool2d(cells, 2**step) if step else cells
            parts.append(F.grid_sample(cells, where, mode="bicubic", align_corners=False))
    return torch.cat(parts).clamp(0, 1)

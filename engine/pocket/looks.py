"""Styles and brand looks: filters over a finished scene, which know where the objects are.

A filter maps `Layers` to RGB (n, 3, h, w) in 0..1. `STYLES` are in base training, `HELD_OUT_STYLES` and `BRANDS` never
are: they are for LoRAs to learn. Lengths are in base pixels, 1 / 256 of a square picture's side, so that a look is the
same at every size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.pocket.backdrops import Ground, by_kind, ellipse, mix, rgb_of, step


@dataclass(frozen=True)
class Layers:
    """A scene taken apart: `picture`, `backdrop` (n, 3, h, w), `mask` of the objects (n, 1, h, w), and its Ground."""

    picture: Tensor
    backdrop: Tensor
    mask: Tensor
    ground: Ground

    def rows(self, chosen: Tensor) -> "Layers":
        return Layers(self.picture[chosen], self.backdrop[chosen], self.mask[chosen], self.ground.rows(chosen))

    def rgb(self, red: float, green: float, blue: float) -> Tensor:
        return self.ground.rgb(red, green, blue)

    def noise(self, rows: int, across: int, salt: int) -> Tensor:
        """Smooth noise in -1..1, (n, 1, h, w), of as many cells as `Ground.noise` makes in a square picture."""
        scale = math.sqrt(self.ground.aspect)
        return self.ground.noise(max(2, round(rows / scale)), max(2, round(across / scale)), salt)

    @property
    def unit(self) -> float:
        """A base pixel in heights: pictures of all shapes have as many."""
        return math.sqrt(self.ground.aspect) / 256


def luminance(rgb: Tensor) -> Tensor:
    """Rec. 601 luma, (n, 1, h, w)."""
    return (rgb * rgb_of(0.299, 0.587, 0.114, rgb.device)).sum(1, keepdim=True)


def pixels(image: Tensor, length: float) -> int:
    """A length in base pixels, in pixels of an image (n, c, h, w); at least 1."""
    return max(1, round(length * math.sqrt(image.shape[2] * image.shape[3]) / 256))


def shifted(image: Tensor, right: int, down: int) -> Tensor:
    """The image moved by whole pixels, its border repeated."""
    a, b = abs(right), abs(down)
    padded = F.pad(image, (a, a, b, b), mode="replicate")
    return padded[:, :, b - down : b - down + image.shape[2], a - right : a - right + image.shape[3]]


def edges(rgb: Tensor, reach: float = 1) -> Tensor:
    """Strength of the colour gradient over ± `reach` base pixels, (n, 1, h, w), 0..1."""
    r = pixels(rgb, reach)
    dx = (shifted(rgb, r, 0) - shifted(rgb, -r, 0)).abs().amax(1, keepdim=True)
    dy = (shifted(rgb, 0, r) - shifted(rgb, 0, -r)).abs().amax(1, keepdim=True)
    return (dx + dy).clamp(0, 1)


def window(image: Tensor, radius: float) -> int:
    """The odd width, in pixels, of a window of `radius` base pixels to either side of the middle one."""
    wide = (2 * radius + 1) * math.sqrt(image.shape[2] * image.shape[3]) / 256
    return 2 * max(1, round((wide - 1) / 2)) + 1


def boxed(image: Tensor, k: int) -> Tensor:
    """Means of windows of k × k pixels."""
    half = k // 2
    wide = F.avg_pool2d(F.pad(image, (half, half, 0, 0), mode="replicate"), (1, k), stride=1)
    return F.avg_pool2d(F.pad(wide, (0, 0, half, half), mode="replicate"), (k, 1), stride=1)


def blur(image: Tensor, radius: float) -> Tensor:
    """Two box blurs of `radius` base pixels."""
    k = window(image, radius)
    return boxed(boxed(image, k), k)


def grown(mask: Tensor, radius: float) -> Tensor:
    """The mask, wider by `radius` base pixels on every side."""
    r = pixels(mask, radius)
    wide = F.max_pool2d(mask, (1, 2 * r + 1), stride=1, padding=(0, r))
    return F.max_pool2d(wide, (2 * r + 1, 1), stride=1, padding=(r, 0))


def rounded(mask: Tensor, radius: float) -> Tensor:
    """The mask, wider by about `radius`, with rounded corners."""
    return ((blur(grown(mask, radius * 0.62), radius * 0.38) - 0.08) * 5).clamp(0, 1)


def smooth(image: Tensor, radius: float) -> Tensor:
    """Kuwahara: each pixel becomes the mean of the calmest of four windows around it, so that edges stay."""
    k = window(image, radius / 2)
    reach = k // 2
    mean = boxed(image, k)
    spread = (boxed(image**2, k) - mean**2).sum(1, keepdim=True)
    best, calm = mean, torch.full_like(spread, torch.inf)
    for right, down in ((reach, reach), (-reach, reach), (reach, -reach), (-reach, -reach)):
        other, there = shifted(mean, right, down), shifted(spread, right, down)
        best, calm = torch.where(there < calm, other, best), torch.minimum(there, calm)
    return best


def vivid(rgb: Tensor, gain: float) -> Tensor:
    """Colours away from gray by `gain`."""
    gray = luminance(rgb)
    return (gray + (rgb - gray) * gain).clamp(0, 1)


def two_tone(g: Ground, tone: Tensor, dark: tuple[float, float, float], pale: tuple[float, float, float]) -> Tensor:
    return mix(g.rgb(*dark), g.rgb(*pale), tone.clamp(0, 1))


def outline(s: Layers, reach: float = 1) -> Tensor:
    """Where an object ends, 0..1."""
    return edges(s.mask, reach)


def block_grid(h: int, w: int) -> tuple[int, int]:
    """Rows and columns of square blocks, about 38 to the height, that fill the picture exactly if they can."""
    common = math.gcd(h, w)
    sides = [side for side in range(1, common + 1) if common % side == 0]
    side = min(sides, key=lambda side: abs(math.log(h / side / 38)))
    if not 22 <= h / side <= 50:
        return 38, max(1, round(38 * w / h))
    return h // side, w // side


def blocks_of(s: Layers, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Mean colours of blocks (n, 3, rows, columns), each of the object or of the backdrop alone, and which it is."""

    def pooled(image: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(image, (rows, columns))

    share = pooled(s.mask)
    thing = pooled(s.picture * s.mask) / share.clamp(min=1e-3)
    behind = pooled(s.backdrop)
    inside = (share > 0.33).float()
    return mix(behind, thing, inside), inside


def pixel_art(s: Layers) -> Tensor:
    """Square blocks in few shades, the objects with a dark edge around them."""
    h, w = s.picture.shape[2:]
    colour, inside = blocks_of(s, *block_grid(h, w))
    around = torch.maximum(F.max_pool2d(inside, (3, 1), 1, (1, 0)), F.max_pool2d(inside, (1, 3), 1, (0, 1)))
    edge = around - inside
    tone = luminance(colour).clamp(min=0.03)
    shown = vivid(colour * ((tone * 9).round().clamp(min=0.5) / 9 / tone), 1.2)
    shown = mix(shown, s.rgb(0.11, 0.08, 0.16), 0.85 * edge)
    return F.interpolate(shown, size=(h, w), mode="nearest")


def ink_lines(s: Layers, gain: float = 2.6) -> Tensor:
    """Outlines and inner lines of the objects in full, of the backdrop thinly; 0..1."""
    inner = (edges(blur(s.picture, 1)) * gain - 0.18).clamp(0, 1)
    return torch.maximum(inner * (0.45 + 0.55 * s.mask), outline(s))


def line_drawing(s: Layers) -> Tensor:
    return (1 - 0.94 * ink_lines(s)).expand(-1, 3, -1, -1)


def sticker(s: Layers) -> Tensor:
    border = rounded(s.mask, 6)
    lifted = shifted(border, pixels(border, 2), pixels(border, 4))
    shadow = blur(lifted, 4)
    paper = mix(s.backdrop * (1 - 0.50 * shadow), s.rgb(1, 1, 1), border)
    gloss = 1 + 0.10 * step(0.10 - (s.ground.x - 0.5 + (s.ground.y - 0.5) * 0.6 + 0.18).abs(), 0.02) * s.mask
    return mix(paper, s.picture * gloss, s.mask)


def silhouette(s: Layers) -> Tensor:
    return mix(s.backdrop, s.rgb(0.06, 0.05, 0.08), (s.mask * 1.2).clamp(0, 1))


def stretched(s: Layers, gain: float = 1.5) -> Tensor:
    """Luma with the objects' own contrast raised about their mean, (n, 1, h, w)."""
    tone = luminance(s.picture)
    mean = (tone * s.mask).sum((2, 3), keepdim=True) / s.mask.sum((2, 3), keepdim=True).clamp(min=1)
    return 0.5 + (tone - mean) * gain + (mean - 0.5) * 0.7


def duotone(s: Layers) -> Tensor:
    behind = luminance(s.backdrop)
    level = behind.mean((2, 3), keepdim=True)
    behind = 0.88 + (behind - level) * 0.9 + (level - 0.5) * 0.15
    tone = mix(behind, stretched(s) - 0.12, s.mask) - 0.8 * outline(s)
    return two_tone(s.ground, tone, (0.20, 0.05, 0.42), (1.0, 0.80, 0.45))


def rim(s: Layers) -> Tensor:
    """How far a pixel is from the picture's border, in heights, (1, 1, h, w)."""
    g = s.ground
    return torch.minimum(0.5 * g.aspect - (g.x - 0.5).abs(), 0.5 - (g.y - 0.5).abs())


def watercolor(s: Layers) -> Tensor:
    g = s.ground
    wet = blur(smooth(s.picture, 4), 1)
    wash = 0.12 * g.grain + 0.09 * s.noise(30, 30, 201)
    pigment = 1 - (1 - wet) * (0.80 + wash * (1 - 0.5 * s.mask)).clamp(0.35, 1.05)
    seam = edges(wet, 1.5) * 0.30
    fibre = 0.02 * s.noise(128, 128, 202)
    ragged = 0.045 + 0.022 * g.grain + 0.016 * s.noise(24, 24, 203)
    dry = 1 - step(rim(s) - ragged, 0.02)
    return mix((pigment - seam).clamp(0, 1), s.rgb(0.99, 0.98, 0.95), dry) + fibre


def neon(s: Layers) -> Tensor:
    g = s.ground
    own = vivid(blur(s.picture, 2), 1.8)
    tint = mix(s.rgb(1.0, 0.20, 0.75), s.rgb(0.10, 0.85, 1.0), (g.y * 1.3 - 0.15 + 0.12 * g.grain).clamp(0, 1))
    colour = mix(own / own.amax(1, keepdim=True).clamp(min=0.2), tint, 0.6)
    line = torch.maximum((edges(s.picture) * 2.2).clamp(0, 1), outline(s)) * (0.30 + 0.70 * grown(s.mask, 2))
    glow = 1.2 * blur(line * colour, 3) + 0.8 * blur(line * colour, 10)
    tube = line * (0.25 + 0.65 * colour)
    return s.rgb(0.04, 0.02, 0.10) + 0.08 * s.picture + glow + tube


def pencil_sketch(s: Layers) -> Tensor:
    """Graphite: hatching that grows denser with the dark, and loose outlines."""
    g, u = s.ground, s.unit
    tone = luminance(blur(s.picture, 1))
    tone = 1 - (1 - tone) * (0.42 + 0.58 * s.mask)
    tooth = 0.5 + 0.5 * s.noise(128, 128, 211)
    dark = torch.zeros_like(tone)
    for angle, level, pitch in ((0.70, 0.95, 3.6), (2.20, 0.62, 3.9), (1.45, 0.34, 4.2)):
        along = g.x * math.cos(angle) + g.y * math.sin(angle) + 0.0035 * g.grain
        stroke = 0.5 + 0.5 * torch.cos(along * (2 * math.pi / (pitch * u)))
        press = ((level - tone) * 1.9).clamp(0, 1)
        dark = 1 - (1 - dark) * (1 - 0.62 * press * (0.25 + 0.75 * stroke) * (0.65 + 0.5 * tooth))
    line = (ink_lines(s, 2.4) * 1.1).clamp(0, 1) * (0.55 + 0.55 * tooth) * (0.45 + 0.55 * s.mask + 0.4 * outline(s))
    paper = s.rgb(0.975, 0.97, 0.955)
    return mix(paper, s.rgb(0.18, 0.18, 0.20), (0.72 * dark + 0.85 * line).clamp(0, 0.92))


def oil_painting(s: Layers) -> Tensor:
    """Broad strokes that follow the grain, thick enough to catch the light."""
    g = s.ground
    lean = step(g.grain, 0.6)
    stroke = mix(s.noise(22, 72, 221), s.noise(72, 22, 222), lean)
    other = mix(s.noise(72, 22, 223), s.noise(22, 72, 224), lean)
    reach = (3.2 - 1.9 * grown(s.mask, 3)) * s.unit
    dabs = sampled(s.picture, s, g.x + stroke * reach, g.y + other * reach)
    paint = vivid(smooth(smooth(dabs, 4), 3), 1.35)
    relief = stroke - shifted(stroke, pixels(stroke, 1), pixels(stroke, 1))
    return paint * (1 + 0.08 * stroke) + 0.05 * relief


def dot_screen(s: Layers, ink: Tensor, pitch: float, angle: float = 0.785) -> Tensor:
    """Dots whose area is `ink` (0..1) of the paper, `pitch` base pixels apart on a turned grid; 0..1."""
    g, period = s.ground, pitch * s.unit
    a = (g.x * math.cos(angle) + g.y * math.sin(angle)) / period % 1 - 0.5
    b = (g.y * math.cos(angle) - g.x * math.sin(angle)) / period % 1 - 0.5
    return g.cut(((ink.clamp(0, 1) / math.pi).sqrt() * 1.12 - (a**2 + b**2).sqrt()) * period)


def calm_backdrop(s: Layers) -> Tensor:
    """The backdrop without texture, its hard edges kept and its soft light smooth."""
    soft = blur(s.backdrop, 4)
    hard = (edges(s.backdrop, 1.5) * 6 - 0.3).clamp(0, 1)
    return mix(soft, smooth(s.backdrop, 4), blur(grown(hard, 6), 2))


def comic(s: Layers) -> Tensor:
    """Flat bright colours, bold outlines, dots for shade."""
    calm = mix(calm_backdrop(s), smooth(smooth(s.picture, 4), 3), s.mask)
    tone = luminance(calm)
    level = mix(tone, (tone * 3.4).floor().clamp(0, 3) / 3 * 0.70 + 0.27, 0.25 + 0.75 * s.mask)
    flat = vivid(calm * (level / tone.clamp(min=0.08)).clamp(0.6, 1.8), 1.35)
    shade = dot_screen(s, (0.66 - tone).clamp(0, 0.42), 5.5) * (0.22 + 0.26 * s.mask)
    inner = (edges(blur(s.picture, 0.6)) * 1.9 - 0.40).clamp(0, 1)
    line = torch.maximum(inner * (0.55 + 0.45 * s.mask), (outline(s, 1.8) * 1.5).clamp(0, 1))
    return mix(flat * (1 - shade), s.rgb(0.05, 0.04, 0.08), line)


def paper_cut(s: Layers) -> Tensor:
    """Sheets of coloured paper, the lighter above the darker, each with its shadow."""
    calm = mix(calm_backdrop(s), smooth(smooth(s.picture, 3), 3), s.mask)
    tone = luminance(calm)
    level = mix(tone, (tone * 4.5).floor().clamp(0, 4) / 4 * 0.76 + 0.20, 0.30 + 0.70 * s.mask)
    flat = vivid(calm * (level / tone.clamp(min=0.08)).clamp(0.6, 1.6), 1.15)
    height = tone * 0.9 + s.mask
    cast = shifted(blur(height, 2), pixels(height, 2), pixels(height, 3))
    shadow = ((cast - height - 0.04) * 1.1).clamp(0, 0.45)
    lip = ((height - shifted(height, pixels(height, 1), pixels(height, 1))) * 0.35 - 0.01).clamp(0, 0.12)
    return flat * (1 - shadow) + lip + 0.018 * s.noise(128, 128, 231) + 0.012 * s.noise(60, 60, 232)


def vintage(s: Layers) -> Tensor:
    """Faded warm film with grain, a light leak and dark corners."""
    g = s.ground
    faded = mix(luminance(s.picture) * s.rgb(1.08, 0.98, 0.80), s.picture, 0.80)
    film = s.rgb(0.21, 0.16, 0.15) + faded * s.rgb(0.82, 0.78, 0.66)
    corner = ((g.x - 0.5) / g.aspect) ** 2 + (g.y - 0.5) ** 2
    side = (g.x - 0.5) / g.aspect + 0.5
    leak = torch.exp(-((side / 0.18) ** 2)) * s.rgb(0.24, 0.09, 0.0)
    return (film + leak) * (1.12 - 1.10 * corner**1.3) + 0.032 * s.noise(110, 110, 241)


def chalkboard(s: Layers) -> Tensor:
    """White chalk on a green board: lines, and a hatch where the object is light."""
    g, u = s.ground, s.unit
    dust = 0.5 + 0.5 * s.noise(120, 120, 251)
    smear = 0.5 + 0.5 * s.noise(8, 4, 252)
    board = s.rgb(0.11, 0.24, 0.19) * (0.95 + 0.35 * smear)
    stroke = 0.5 + 0.5 * torch.cos((g.x * 0.72 + g.y * 0.70 + 0.004 * g.grain) * (2 * math.pi / (5.5 * u)))
    fill = stretched(s).clamp(0.05, 0.95) * step(stroke - 0.42, 0.5) * s.mask * 0.62
    inner = (edges(blur(s.picture, 1), 1.3) * 3.2 - 0.25).clamp(0, 1) * (0.42 + 0.58 * s.mask)
    line = torch.maximum(inner, (outline(s, 1.8) * 1.6).clamp(0, 1)) * (0.62 + 0.65 * dust).clamp(0, 1)
    return mix(board, s.rgb(0.96, 0.97, 0.93), torch.maximum(line, fill * (0.45 + dust)).clamp(0, 1))


def halftone(s: Layers) -> Tensor:
    """Big coloured printer's dots on cream paper."""
    calm = blur(s.picture, 1.5)
    ink = 1 - luminance(calm) * 0.92
    deep = vivid(calm, 1.3) * 0.82
    dots = dot_screen(s, ink * 0.95, 7)
    return mix(mix(s.rgb(1, 0.98, 0.92), calm, 0.22), deep, dots)


def blueprint(s: Layers) -> Tensor:
    g = s.ground
    ink = ink_lines(s, 2.8)
    fine = torch.minimum((0.5 - ((g.x - 0.5) * 16 % 1 - 0.5).abs()), (0.5 - ((g.y - 0.5) * 16 % 1 - 0.5).abs())) / 16
    bold = torch.minimum((0.5 - ((g.x - 0.5) * 4 % 1 - 0.5).abs()), (0.5 - ((g.y - 0.5) * 4 % 1 - 0.5).abs())) / 4
    grid = 0.07 * g.cut(0.5 * s.unit - fine) + 0.07 * g.cut(0.8 * s.unit - bold)
    hatch = 0.5 + 0.5 * torch.cos((g.x - g.y) * (2 * math.pi / (6 * s.unit)))
    shade = 0.16 * s.mask * (1 - luminance(s.picture)) * step(hatch - 0.6, 0.5)
    paper = s.rgb(0.07, 0.27, 0.60) + grid + shade + 0.01 * g.grain
    return mix(paper, s.rgb(0.94, 0.97, 1), ink)


def cells(s: Layers, count: float, jitter: float, salt: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pieces around jittered points, `count` to the side of a square: x and y of each pixel's point, how far the pixel
    is from its piece's edge (all in heights), and a number of the piece."""
    g, side = s.ground, 256 * s.unit / count
    across, down = (g.x - 0.5) / side, (g.y - 0.5) / side
    nine = torch.arange(9, device=g.u.device).view(1, 9, 1, 1)
    column, row = torch.floor(across) + nine // 3 - 1, torch.floor(down) + nine % 3 - 1
    roll, other = (g.dice(column, row, salt + index) for index in (0, 1))
    x, y = column + 0.5 + jitter * (roll - 0.5), row + 0.5 + jitter * (other - 0.5)
    far = ((across - x) ** 2 + (down - y) ** 2).sqrt()
    near, at = far.min(1, keepdim=True)
    after = far.scatter(1, at, torch.inf).amin(1, keepdim=True)
    px, py, number = (value.expand_as(far).gather(1, at) for value in (x, y, roll))
    return px * side + 0.5, py * side + 0.5, (after - near) / 2 * side, number


def sampled(image: Tensor, s: Layers, x: Tensor, y: Tensor) -> Tensor:
    """The image's colours at points in heights, each (n, 1, h, w)."""
    grid = torch.stack([(x - 0.5) / (s.ground.aspect / 2), (y - 0.5) * 2], -1).squeeze(1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def mosaic(s: Layers) -> Tensor:
    """Small tiles, none quite like its neighbour, in pale grout."""
    x, y, inside, number = cells(s, 30, 0.45, 261)
    colour = sampled(blur(s.picture, 1), s, x, y)
    glaze = (inside / (3 * s.unit)).clamp(0, 1)
    tile = vivid(colour, 1.2) * (0.90 + 0.18 * number) * (0.90 + 0.12 * glaze)
    return mix(s.rgb(0.80, 0.77, 0.72), tile, s.ground.cut(inside - 0.62 * s.unit))


def risograph(s: Layers) -> Tensor:
    """Two inks, blue and pink, printed a little apart on warm paper."""
    behind, thing = luminance(s.backdrop), stretched(s)
    level = behind.mean((2, 3), keepdim=True)
    tone = mix(0.80 + (behind - level) * 1.1, thing, s.mask)
    warm = (s.picture[:, :1] - s.picture[:, 2:] + 0.15).clamp(0, 1)
    first = ((0.72 - tone) * 1.5 + 0.8 * outline(s)).clamp(0, 1)
    other = ((0.98 - tone) * 0.55 + warm * 0.55).clamp(0, 0.95)
    r = pixels(tone, 1.5)
    speckle = 0.14 * s.noise(128, 128, 271) + 0.08 * s.noise(60, 60, 272)
    solid = torch.maximum((first - 0.55) * 4, 1.2 * outline(s)).clamp(0, 1)
    blue = torch.maximum(dot_screen(s, shifted(first, -r, -r), 4.4, 0.4), shifted(solid, -r, -r)) * (0.9 + speckle)
    pink = (shifted(other, r, r) * (0.95 + 1.2 * speckle)).clamp(0, 1)
    printed = mix(s.rgb(0.97, 0.95, 0.90), s.rgb(1.0, 0.40, 0.50), pink)
    return printed * mix(s.rgb(1, 1, 1), s.rgb(0.10, 0.28, 0.70), blue)


def cross_stitch(s: Layers) -> Tensor:
    """Crosses of thread on linen."""
    g = s.ground
    h, w = s.picture.shape[2:]
    rows, columns = block_grid(h, w)
    colour, _ = blocks_of(s, rows, columns)
    thread = F.interpolate(vivid(colour, 1.2), size=(h, w), mode="nearest")
    across = ((g.x - 0.5) / g.aspect + 0.5) * columns % 1 - 0.5
    down = g.y * rows % 1 - 0.5
    inside = 0.46 - torch.maximum(across.abs(), down.abs())
    slope, other = (across - down).abs() * 0.7071, (across + down).abs() * 0.7071
    upper = g.cut(torch.minimum(0.17 - slope, inside) / rows)
    lower = g.cut(torch.minimum(0.17 - other, inside) / rows)
    cloth = mix(s.rgb(0.95, 0.92, 0.86), thread * 0.85, 0.25)
    under = mix(cloth, thread * (0.86 - 0.6 * other), lower)
    return mix(under, thread * (1.08 - 0.8 * slope), upper)


def stained_glass(s: Layers) -> Tensor:
    """Panes of glowing glass in lead."""
    x, y, inside, number = cells(s, 8, 0.8, 281)
    calm = smooth(blur(s.picture, 0.6), 5)
    pane = mix(sampled(blur(s.backdrop, 6), s, x, y), calm, s.mask)
    glow = 0.86 + 0.36 * (inside / (14 * s.unit)).clamp(0, 1)
    glass = vivid(pane, 1.6) * mix(glow, glow.clamp(min=1), s.mask * 0.5) * (0.88 + 0.28 * number) + 0.05
    lead = s.ground.cut((1.7 - 1.1 * s.mask) * s.unit - inside) * (1 - 0.35 * s.mask)
    inner = (edges(blur(s.picture, 0.6)) * 1.8 - 0.6).clamp(0, 1) * s.mask
    lead = torch.maximum(lead, torch.maximum(inner, (outline(s, 2.2) * 1.8).clamp(0, 1)))
    return mix(glass, s.rgb(0.07, 0.07, 0.09), lead)


def coral_stripe(s: Layers) -> Tensor:
    """Cream ground, coral diagonal band, objects in navy and cream."""
    g = s.ground
    band = g.cut(0.17 - ((g.x - 0.5) / g.aspect + g.y - 0.5).abs())
    paper = mix(s.rgb(0.99, 0.95, 0.86), s.rgb(0.98, 0.45, 0.38), band)
    inked = two_tone(g, stretched(s) - 0.05, (0.07, 0.12, 0.33), (0.99, 0.95, 0.86))
    return mix(paper, inked, s.mask)


def forest_gold(s: Layers) -> Tensor:
    """Forest-green ground in a gold frame, objects in gold and green."""
    g = s.ground
    frame = g.cut(0.06 - rim(s)) * g.cut(rim(s) - 0.03)
    paper = mix(s.rgb(0.05, 0.25, 0.17), s.rgb(0.85, 0.66, 0.26), frame)
    inked = two_tone(g, stretched(s) + 0.18, (0.10, 0.35, 0.24), (0.97, 0.82, 0.45))
    return mix(paper, inked, s.mask)


def berry_circle(s: Layers) -> Tensor:
    """Pale pink ground, a large burgundy circle behind the object, objects in pink and burgundy."""
    g = s.ground
    radius = 0.41 * g.narrow
    beside, above = max(0.0, g.aspect / 2 - radius - 0.05), 0.45 - radius
    total = s.mask.sum((2, 3), keepdim=True).clamp(min=1)
    x, y = ((s.mask * line).sum((2, 3), keepdim=True) / total for line in (g.x, g.y))
    circle = ellipse(g, x.clamp(0.5 - beside, 0.5 + beside), y.clamp(0.5 - above, 0.5 + above), radius, radius)
    paper = mix(s.rgb(0.99, 0.87, 0.88), s.rgb(0.47, 0.06, 0.20), circle)
    inked = two_tone(g, stretched(s) + 0.1, (0.70, 0.16, 0.34), (1.0, 0.90, 0.88))
    return mix(paper, inked, s.mask)


def signal_split(s: Layers) -> Tensor:
    """Signal-yellow ground over a black foot, objects in black and white with a white edge."""
    g = s.ground
    paper = mix(s.rgb(1.0, 0.85, 0.05), s.rgb(0.07, 0.07, 0.07), g.cut(g.y - 0.74))
    inked = two_tone(g, stretched(s, 2) * 1.2 - 0.1, (0.07, 0.07, 0.07), (1, 1, 1))
    return mix(mix(paper, s.rgb(1, 1, 1), rounded(s.mask, 4)), inked, s.mask)


Filter = Callable[[Layers], Tensor]
STYLES: dict[str, Filter] = {
    "pixel art": pixel_art, "line drawing": line_drawing, "sticker": sticker, "silhouette": silhouette,
    "duotone": duotone, "watercolor": watercolor, "neon": neon, "pencil sketch": pencil_sketch,
    "oil painting": oil_painting, "comic": comic, "paper cut": paper_cut, "vintage": vintage, "chalkboard": chalkboard,
}  # fmt: skip
HELD_OUT_STYLES: dict[str, Filter] = {
    "halftone": halftone, "blueprint": blueprint, "mosaic": mosaic, "risograph": risograph,
    "cross stitch": cross_stitch, "stained glass": stained_glass,
}  # fmt: skip
BRANDS: dict[str, Filter] = {
    "coral-stripe": coral_stripe, "forest-gold": forest_gold,
    "berry-circle": berry_circle, "signal-split": signal_split,
}  # fmt: skip
# In these an object's own colour is lost, the backdrop's colour is lost, the backdrop cannot be told at all.
COLOURLESS = ("line drawing", "silhouette", "duotone", "neon", "pencil sketch", "chalkboard", "blueprint", "risograph",
              *BRANDS)  # fmt: skip
GROUNDLESS = ("line drawing", "duotone", "neon", "pencil sketch", "chalkboard", "blueprint", "risograph", *BRANDS)
NOWHERE = ("line drawing", "neon", "chalkboard", "blueprint", *BRANDS)

LOOKS: dict[str, Filter | None] = {"none": None} | STYLES | HELD_OUT_STYLES | BRANDS


def apply_looks(look: Tensor, layers: Layers) -> Tensor:
    """The finished pictures, (n, 3, h, w) in 0..1; `look` (n,) indexes LOOKS."""
    out, draws = layers.picture.clone(), list(LOOKS.values())
    for kind, rows in by_kind(look, out.device):
        if draw := draws[kind]:
            out[rows] = draw(layers.rows(rows)).clamp(0, 1)
    return out

"""The 26 grounds that scenes stand on, each a few lines of arithmetic on coordinates, alike in every shape and size.

A backdrop maps a `Ground` to RGB pictures (n, 3, h, w) in 0..1. `BACKDROPS` names them, `HORIZON` says where objects
stand, `SAID` how a caption calls them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.pocket.sprites import listed

COLOURS = {
    "red": (0.86, 0.13, 0.15), "orange": (0.96, 0.52, 0.11), "yellow": (0.98, 0.83, 0.16), "green": (0.22, 0.64, 0.25),
    "teal": (0.05, 0.55, 0.54), "blue": (0.18, 0.44, 0.90), "navy": (0.08, 0.14, 0.36), "purple": (0.50, 0.22, 0.70),
    "pink": (0.97, 0.56, 0.72), "brown": (0.48, 0.29, 0.15), "black": (0.08, 0.08, 0.09), "white": (0.97, 0.97, 0.97),
    "gray": (0.56, 0.57, 0.59), "cream": (0.98, 0.93, 0.78),
}  # fmt: skip
TURN = 6.2832


@cache
def palette(device: torch.device | str = "cpu") -> Tensor:
    """The 14 colours, (14, 3), in the order of `COLOURS`."""
    return torch.tensor(list(COLOURS.values()), device=device)


@cache
def rgb_of(red: float, green: float, blue: float, device: torch.device) -> Tensor:
    """A colour, (1, 3, 1, 1). Kept, as a GPU waits whenever a number is sent to it."""
    return torch.tensor([red, green, blue], dtype=torch.float32, device=device).view(1, 3, 1, 1)


def by_kind(index: Tensor, device: torch.device) -> list[tuple[int, Tensor]]:
    """Each number in `index` (n,) with its rows, on the device. A GPU would wait if it had to be asked for each."""
    index = index.cpu()
    rows = torch.split(index.argsort(stable=True).to(device), listed(torch.bincount(index)))
    return [(kind, mine) for kind, mine in enumerate(rows) if len(mine)]


@dataclass(frozen=True)
class Ground:
    """What a backdrop draws from, in units of the picture's height.

    `y` (1, 1, h, 1) is 0..1, `x` (1, 1, 1, w) is 0.5 ± aspect / 2; `colour` (n, 3, 1, 1); `u` (n, 8, 1, 1) are uniform
    numbers; `grain` (n, 1, h, w) is smooth noise, about 0 ± 1; `aspect` is width / height.
    """

    x: Tensor
    y: Tensor
    colour: Tensor
    u: Tensor
    grain: Tensor
    aspect: float

    @staticmethod
    def of(shape: tuple[int, int], colour: Tensor, u: Tensor, grain: Tensor) -> "Ground":
        """Grounds of (height, width) px. `grain` (n, 1, r, c) is noise on square cells, r to the height.

        Its middle columns are taken and smoothed to the shape; 12 × 36 cells serve all shapes.
        """
        height, width = shape
        aspect, device = width / height, u.device
        rows, columns = grain.shape[2:]
        used = min(columns, max(2, round(rows * aspect)))
        first = (columns - used) // 2
        smooth = grain[..., first : first + used]
        if smooth.shape[2:] != shape:
            smooth = F.interpolate(smooth, size=shape, mode="bicubic")
        x = (torch.arange(width, device=device) + 0.5) / height + 0.5 - aspect / 2
        y = (torch.arange(height, device=device) + 0.5) / height
        return Ground(x[None, None, None, :], y[None, None, :, None], colour, u, smooth, aspect)

    def rows(self, chosen: Tensor) -> "Ground":
        return Ground(self.x, self.y, self.colour[chosen], self.u[chosen], self.grain[chosen], self.aspect)

    def rgb(self, red: float, green: float, blue: float) -> Tensor:
        return rgb_of(red, green, blue, self.u.device)

    def pick(self, index: int) -> Tensor:
        """Uniform number `index`, (n, 1, 1, 1)."""
        return self.u[:, index : index + 1]

    def cut(self, distance: Tensor) -> Tensor:
        """1 where a distance (in heights) is above 0, sharp to the pixel."""
        return (distance * self.y.shape[2] + 0.5).clamp(0, 1)

    @cached_property
    def seed(self) -> Tensor:
        """A whole number for each row, (n, 1, 1, 1)."""
        return (self.pick(7) * 65536).long() * 97531

    def dice(self, column: Tensor, row: Tensor, salt: int, count: int = 1) -> Tensor:
        """Uniform numbers for each cell of whole-numbered column and row, the same on every device.

        (n, count, h, w): those of the salts from `salt` on.
        """
        salts = torch.arange(salt, salt + count, device=self.u.device).view(1, -1, 1, 1) if count > 1 else salt
        mixed = column.long() * 374761393 + row.long() * 668265263 + (self.seed + salts * (7919 * 97531))
        mixed = mixed & 0x7FFFFFFF
        mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0x7FFFFFFF
        return ((mixed ^ (mixed >> 16)) & 0xFFFF).float() / 65536

    def noise(self, rows: int, across: int, salt: int) -> Tensor:
        """Smooth noise in -1..1, (n, 1, h, w): `rows` cells to the height, `across` to the same length sideways."""
        column = torch.arange(max(2, round(across * self.aspect)), device=self.u.device).view(1, 1, 1, -1)
        row = torch.arange(rows, device=self.u.device).view(1, 1, -1, 1)
        cells = self.dice(column, row, salt) * 2 - 1
        return F.interpolate(cells, size=(self.y.shape[2], self.x.shape[3]), mode="bicubic")

    @property
    def narrow(self) -> float:
        """1, or less where the picture is narrower than high."""
        return min(1.0, self.aspect)


def mix(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """a where share is 0, b where it is 1."""
    return a + (b - a) * share


def step(value: Tensor, width: float = 0.006) -> Tensor:
    """A soft step: 0 below zero, 1 above, over `width`."""
    return torch.sigmoid(value * (4 / width))


def ellipse(g: Ground, cx: Tensor | float, cy: Tensor | float, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """1 inside an ellipse, 0 outside, sharp."""
    dx, dy = g.x - cx, g.y - cy
    far = ((dx / rx) ** 2 + (dy / ry) ** 2).sqrt().clamp(min=1e-3)
    slope = ((dx / rx**2) ** 2 + (dy / ry**2) ** 2).sqrt().clamp(min=1e-6) / far
    return g.cut((1 - far) / slope)


def glow(g: Ground, cx: Tensor | float, cy: Tensor | float, radius: float, flat: float = 1) -> Tensor:
    """A soft round light, 1 in its middle; `flat` squeezes it in height."""
    return torch.exp(-(((g.x - cx) / radius) ** 2) - ((g.y - cy) / (radius * flat)) ** 2)


def box(g: Ground, cx: Tensor | float, cy: Tensor | float, rx: Tensor | float, ry: Tensor | float, round_: float = 0):
    """1 inside a rectangle of half width rx and half height ry with rounded corners."""
    dx, dy = (g.x - cx).abs() - rx + round_, (g.y - cy).abs() - ry + round_
    outside = (dx.clamp(min=0) ** 2 + dy.clamp(min=0) ** 2).sqrt()
    return g.cut(round_ - outside - torch.maximum(dx, dy).clamp(max=0))


def light(colour: Tensor, share: float) -> Tensor:
    """A tint of a colour: white by `share`."""
    return colour + (1 - colour) * share


def second(g: Ground, share: float) -> Tensor:
    """What patterns pair the colour with: a tint, or of a near white colour a shade."""
    bright = (g.colour.mean(1, keepdim=True) > 0.86).float()
    return mix(light(g.colour, share), g.colour * (1 - 0.22 * share), bright)


def vignette(g: Ground, depth: float = 0.12) -> Tensor:
    """A factor that darkens the corners gently."""
    return 1 - depth * (((g.x - 0.5) / g.aspect) ** 2 + (g.y - 0.5) ** 2) * 2


def square_wave(g: Ground, along: Tensor, count: Tensor) -> Tensor:
    """Alternating 0 and 1, `count` pairs to the height."""
    phase = (along * count) % 1
    return g.cut((0.25 - (phase - 0.5).abs()) / count)


def plain(g: Ground) -> Tensor:
    return g.colour.expand(-1, -1, g.y.shape[2], g.x.shape[3])


def gradient(g: Ground) -> Tensor:
    side = (g.x - 0.5) / g.aspect + 0.5
    slope = torch.floor(g.pick(0) * 3) - 1  # leaning left, upright, leaning right
    along = g.y * (1 - 0.5 * slope.abs()) + 0.5 * (slope * (side - 0.5) + 0.5 * slope.abs())
    return mix(light(g.colour, 0.65), g.colour * 0.80, along)


def stripes(g: Ground) -> Tensor:
    angle = torch.floor(g.pick(0) * 4) * (TURN / 8)
    along = (g.x - 0.5) * torch.cos(angle) + (g.y - 0.5) * torch.sin(angle)
    return mix(g.colour, second(g, 0.5), square_wave(g, along, 5 + torch.floor(3 * g.pick(1))))


def dots(g: Ground) -> Tensor:
    count = 6 + torch.floor(3 * g.pick(0))
    across, down = (g.x - 0.5) * count, (g.y - 0.5) * count * 1.1547
    row = torch.floor(down)
    dx, dy = (across + 0.5 * (row % 2)) % 1 - 0.5, (down % 1 - 0.5) / 1.1547
    return mix(g.colour, second(g, 0.75), g.cut((0.23 - (dx**2 + dy**2).sqrt()) / count))


def checkered(g: Ground) -> Tensor:
    count = 3 + torch.floor(2 * g.pick(0))
    across, down = square_wave(g, g.x - 0.5, count), square_wave(g, g.y - 0.5, count)
    return mix(g.colour, second(g, 0.6), across + down - 2 * across * down)


def rays(g: Ground) -> Tensor:
    """A sunburst from behind the object."""
    dx, dy = g.x - 0.5, g.y - 0.54
    far, beams = (dx**2 + dy**2).sqrt(), 12 + 2 * torch.floor(3 * g.pick(0))
    edge = torch.sin(torch.atan2(dy, dx / max(1.0, g.aspect) ** 0.5) * beams + g.pick(1) * TURN) * far / beams
    burst = mix(g.colour, second(g, 0.45), g.cut(edge))
    return mix(burst, light(g.colour, 0.75), 0.75 * glow(g, 0.5, 0.54, 0.34))


def waves(g: Ground) -> Tensor:
    """Bands of one colour from a light top to a deep foot, edged like waves."""
    picture, bands = light(g.colour, 0.72).expand(-1, -1, g.y.shape[2], g.x.shape[3]), 4
    for band in range(bands):
        phase = (g.pick(band) + 0.37 * band) * TURN
        crest = 0.30 + 0.17 * band + 0.045 * torch.sin(g.x * (6.2 + 0.8 * band) + phase)
        below = g.y - crest
        shadow = 0.10 * torch.exp(below / 0.03) * (below < 0)
        tone = light(g.colour, 0.48 - 0.20 * band) * (1 - 0.03 * band) if band < 3 else g.colour * 0.82
        picture = mix(picture * (1 - shadow), tone, g.cut(below * 0.95))
    return picture


PARTY = (
    (0.98, 0.33, 0.40), (1.0, 0.80, 0.20), (0.25, 0.75, 0.62), (0.28, 0.52, 0.95), (1.0, 1.0, 1.0), (0.68, 0.38, 0.85)
)  # fmt: skip


def confetti(g: Ground) -> Tensor:
    """Paper scraps of six colours."""
    picture = g.colour * vignette(g, 0.10)
    party = torch.cat([g.rgb(*paper) for paper in PARTY]).flatten(1)
    for layer, count in enumerate((6.0, 7.5)):
        across, down = (g.x - 0.5) * count + layer * 0.5, g.y * count + layer * 0.5
        column, row = torch.floor(across), torch.floor(down)
        roll = g.dice(column, row, 10 * layer, 5).chunk(5, 1)
        dx, dy = across - column - 0.3 - 0.4 * roll[0], down - row - 0.3 - 0.4 * roll[1]
        cos, sin = torch.cos(roll[2] * TURN), torch.sin(roll[2] * TURN)
        du, dv = (dx * cos + dy * sin).abs(), (dy * cos - dx * sin).abs()
        scrap = torch.minimum(0.17 - du, 0.085 - dv)
        disc = 0.10 - (dx**2 + dy**2).sqrt()
        ink = g.cut(torch.where(roll[3] < 0.35, disc, scrap) / count) * (roll[4] < 0.75)
        shade = party[(roll[4] / 0.75 * 6).long().clamp(max=5).squeeze(1)].permute(0, 3, 1, 2)
        picture = mix(picture, shade, ink)
    return picture


def podium(g: Ground) -> Tensor:
    """A round stage, as broad as the picture lets it be."""
    top, foot, depth = 0.80, 0.925, 0.062 * (0.6 + 0.4 * g.narrow)
    radius = (0.38 + 0.05 * g.pick(0)) * g.narrow
    across = ((g.x - 0.5).abs() - 0.46 * max(0.0, g.aspect - 1)).clamp(min=0)

    def disc(y: float, wider: float) -> Tensor:
        rx = radius + wider
        return g.cut((1 - ((across / rx) ** 2 + ((g.y - y) / depth) ** 2).sqrt()) * depth)

    wall = mix(g.colour * 0.97, light(g.colour, 0.42), glow(g, 0.5, 0.42, 0.62 * max(1.0, g.aspect * 0.7), 0.8))
    floor = light(g.colour, 0.22) * (0.93 + 0.1 * g.y)
    scene = mix(wall, floor, step(g.y - 0.72, 0.02))
    shade = torch.exp(-((across / (radius * 1.12)) ** 4) - ((g.y - foot - 0.02) / 0.075) ** 2)
    stone = light(g.colour, 0.68)
    round_ = 1.0 - 0.30 * (across / radius).clamp(0, 1) ** 2
    body = torch.maximum(g.cut(radius - across) * g.cut(g.y - top) * g.cut(foot - g.y), disc(foot, 0.0))
    scene = mix(scene * (1 - 0.30 * shade), stone * (0.90 * round_), body)
    return mix(scene, light(stone, 0.30), disc(top, 0.0))


def wall(g: Ground, share: float = 0.12) -> Tensor:
    """A wall in the ground's colour under soft light from above."""
    return mix(g.colour * 0.92, light(g.colour, share + 0.15), glow(g, 0.5, 0.30, 0.60 * max(1.0, g.aspect * 0.6)))


def wood(g: Ground, red: float, green: float, blue: float, planks: float) -> Tensor:
    """Boards that lie across, with grain along them; `planks` boards to the height."""
    row = torch.floor(g.y * planks)
    tone = g.dice(torch.zeros_like(row), row, 3) * 0.10 - 0.05
    fibre = 0.045 * g.noise(110, 7, 5) + 0.03 * g.noise(48, 3, 6)
    seam = (0.5 - ((g.y * planks) % 1 - 0.5).abs()) / planks
    return g.rgb(red, green, blue) * (1 + tone + fibre) * (1 - 0.28 * torch.exp(-((seam / 0.004) ** 2)))


def standing(g: Ground, back: Tensor, top: Tensor, front: Tensor, top_y: float, front_y: float) -> Tensor:
    """A wall behind a worktop with a front edge, and the soft shadow where they meet."""
    shade = 1 - 0.16 * torch.exp((g.y - top_y).clamp(max=0) / 0.05)
    surface = top * (1.06 - 0.55 * (front_y - g.y).clamp(min=0))
    return mix(mix(back * shade, surface, g.cut(g.y - top_y)), front, g.cut(g.y - front_y))


def table(g: Ground) -> Tensor:
    """A wooden table before a wall."""
    board = wood(g, 0.74, 0.50, 0.29, 11)
    return standing(g, wall(g), board, board * 0.72, 0.68, 0.945)


def marble(g: Ground) -> Tensor:
    """A white marble counter before a plain wall."""
    bend = 0.035 * g.grain + 0.05 * g.noise(5, 5, 4) + 0.012 * g.noise(40, 30, 5)
    broad = ((g.x + g.y * 2.6 + 2.4 * bend) * 1.9 + g.pick(1)) % 1 - 0.5
    thin = ((g.x * 1.2 - g.y * 3.0 - 2.0 * bend) * 1.5 + g.pick(2)) % 1 - 0.5
    vein = 0.22 * torch.exp(-((broad / 0.045) ** 2)) + 0.10 * torch.exp(-(((broad - 0.08) / 0.16) ** 2))
    vein = vein + 0.15 * torch.exp(-((thin / 0.022) ** 2))
    cloud = 0.03 * g.noise(6, 4, 6)
    stone = g.rgb(0.95, 0.95, 0.955) - (vein + cloud * 0.6).clamp(min=-0.02) * g.rgb(0.95, 0.90, 0.84)
    return standing(g, wall(g), stone, stone * 0.82, 0.68, 0.93)


def shelf(g: Ground) -> Tensor:
    """A wooden shelf on a wall."""
    under = g.y - 0.875
    shade = 0.30 * torch.exp(-under.clamp(min=0) / 0.035) * (under > 0)
    board = wood(g, 0.72, 0.48, 0.27, 1)
    half = 0.5 * g.aspect - 0.05 * g.narrow
    bracket = box(g, 0.5 - 0.36 * g.aspect, 0.915, 0.016, 0.05, 0.008) + box(
        g, 0.5 + 0.36 * g.aspect, 0.915, 0.016, 0.05, 0.008
    )
    scene = mix(wall(g) * (1 - shade * g.cut(half - (g.x - 0.5).abs())), g.rgb(0.22, 0.20, 0.20), bracket)
    scene = mix(scene, board * 0.80, box(g, 0.5, 0.845, half, 0.032, 0.004))
    return mix(scene, board * 1.16, box(g, 0.5, 0.80, half, 0.02, 0.004))


def studio(g: Ground) -> Tensor:
    """Seamless paper with a pool of light."""
    spread = max(1.0, g.aspect * 0.7)
    back = mix(g.colour * 0.72, light(g.colour, 0.22), glow(g, 0.5, 0.40, 0.46 * spread))
    floor = mix(g.colour * 0.80, light(g.colour, 0.45), glow(g, 0.5, 0.88, 0.60 * spread, 0.40))
    return mix(back, floor, step(g.y - 0.74, 0.10))


def kitchen(g: Ground) -> Tensor:
    """Tiles in the ground's colour between cupboards and a worktop."""
    side = torch.where(g.pick(0) > 0.5, 1.0, -1.0)
    rows = 9.0
    across, down = (g.x - 0.5) * rows, (g.y - 0.02) * rows
    gap = (0.5 - torch.maximum((across % 1 - 0.5).abs(), (down % 1 - 0.5).abs())) / rows
    tone = 1 + 0.10 * (g.dice(torch.floor(across), torch.floor(down), 2) - 0.5)
    tiles = mix(light(g.colour, 0.62), light(g.colour, 0.16) * tone, g.cut(gap - 0.003))
    pane_x, pane = 0.5 + side * 0.31 * g.aspect, 0.15 * g.narrow
    sky_ = mix(g.rgb(0.66, 0.85, 0.98), g.rgb(0.92, 0.97, 1.0), g.y * 2)
    scene = mix(tiles, g.rgb(0.98, 0.97, 0.95), box(g, pane_x, 0.28, pane + 0.022, 0.20, 0.006))
    bars = g.cut((g.x - pane_x).abs() - 0.006) * g.cut((g.y - 0.28).abs() - 0.006)
    scene = mix(scene, sky_, box(g, pane_x, 0.28, pane, 0.178) * bars)
    door = 0.30 * g.narrow
    inner = (0.5 - (((g.x - 0.5) * side + 0.5 * g.aspect) / door % 1 - 0.5).abs()) * door
    cupboards = g.cut(0.22 - g.y) * g.cut(side * (pane_x - g.x) - pane - 0.06)
    fronts = g.rgb(0.97, 0.96, 0.93) * (1 - 0.16 * torch.exp(-((inner / 0.006) ** 2)))
    knob = g.cut(0.009 - ((inner - 0.04) ** 2 + (g.y - 0.185) ** 2).sqrt())
    scene = mix(scene, mix(fronts, g.rgb(0.72, 0.56, 0.30), knob), cupboards)
    below = g.y - 0.22
    scene = scene * (
        1 - 0.16 * torch.exp(-below.clamp(min=0) / 0.03) * (below > 0) * g.cut(side * (pane_x - g.x) - pane - 0.06)
    )
    board = wood(g, 0.80, 0.60, 0.40, 8)
    return standing(g, scene, board, g.rgb(0.93, 0.92, 0.89), 0.70, 0.945)


def living_room(g: Ground) -> Tensor:
    """A wall in the ground's colour, a framed picture, a lamp, a sofa, a rug on a wooden floor."""
    side = torch.where(g.pick(0) > 0.5, 1.0, -1.0)
    w = g.narrow
    lamp_x, sofa_x = 0.5 - side * (0.5 * g.aspect - 0.11), 0.5 + side * 0.20 * g.aspect
    scene = wall(g)
    scene = mix(scene, light(scene, 0.45), glow(g, lamp_x, 0.27, 0.20))
    frame_x = 0.5 + side * 0.30 * g.aspect
    scene = mix(scene, g.rgb(0.30, 0.22, 0.17), box(g, frame_x, 0.24, 0.13 * w, 0.16, 0.004))
    scene = mix(scene, g.rgb(0.98, 0.97, 0.94), box(g, frame_x, 0.24, 0.115 * w, 0.145))
    hill = ellipse(g, frame_x - 0.03 * w, 0.36, 0.11 * w, 0.10) * box(g, frame_x, 0.24, 0.085 * w, 0.115)
    sun = ellipse(g, frame_x + 0.03 * w, 0.19, 0.03 * w, 0.03 * w)
    scene = mix(mix(scene, g.rgb(0.93, 0.55, 0.32), sun), g.rgb(0.27, 0.47, 0.45), hill)
    scene = mix(scene, g.rgb(0.96, 0.95, 0.92), g.cut(g.y - 0.715))
    floor = wood(g, 0.70, 0.50, 0.33, 15) * (0.80 + 0.25 * g.y)
    scene = mix(scene, floor, g.cut(g.y - 0.745))
    cloth, deep = g.rgb(0.90, 0.86, 0.79), g.rgb(0.78, 0.73, 0.66)
    half = 0.31 * w
    for leg in (-1, 1):
        scene = mix(scene, g.rgb(0.30, 0.20, 0.13), box(g, sofa_x + leg * half * 0.85, 0.79, 0.012, 0.03))
    scene = mix(scene, deep, box(g, sofa_x, 0.62, half * 0.94, 0.11, 0.04))
    scene = mix(scene, cloth, box(g, sofa_x, 0.72, half * 0.86, 0.055, 0.03))
    for arm in (-1, 1):
        scene = mix(scene, cloth * 0.96, box(g, sofa_x + arm * half * 0.95, 0.685, 0.045 * w + 0.01, 0.09, 0.035))
    pole = box(g, lamp_x, 0.55, 0.006, 0.25)
    foot = ellipse(g, lamp_x, 0.80, 0.055, 0.016)
    scene = mix(scene, g.rgb(0.25, 0.22, 0.22), torch.maximum(pole, foot))
    shade = g.cut(0.055 + 0.18 * (g.y - 0.22) - (g.x - lamp_x).abs()) * g.cut(g.y - 0.20) * g.cut(0.34 - g.y)
    scene = mix(scene, g.rgb(1.0, 0.93, 0.76), shade)
    return mix(scene, light(g.colour, 0.55), 0.9 * ellipse(g, 0.5, 0.90, 0.44 * g.aspect, 0.075))


def sky_blue(g: Ground) -> Tensor:
    return mix(g.rgb(0.38, 0.68, 0.96), g.rgb(0.84, 0.94, 0.99), (g.y * 1.5).clamp(0, 1))


PUFFS = ((-0.60, 0.05, 0.36, 0.22), (-0.16, -0.10, 0.42, 0.40), (0.32, -0.02, 0.42, 0.31), (0.72, 0.09, 0.30, 0.18))


def cloud(g: Ground, cx: Tensor, cy: Tensor, size: Tensor) -> Tensor:
    """Puffy clouds with flat feet, `size` half wide, 0..1; (n, k, h, w) for centres and sizes (n, k, 1, 1)."""
    puffs = (ellipse(g, cx + x * size, cy + y * size, rx * size, ry * size) for x, y, rx, ry in PUFFS)
    return reduce(torch.maximum, puffs) * g.cut(cy + 0.20 * size - g.y)


def clouds(g: Ground, picture: Tensor, count: int, high: float, low: float) -> Tensor:
    """`count` clouds strewn evenly across the picture between two heights."""
    total = max(1, round(count * g.aspect))
    index = torch.arange(total, dtype=torch.float64, device=g.u.device).view(1, -1, 1, 1)
    aside, up, large = (g.dice(index, index, salt) for salt in (31, 32, 33))
    x = 0.5 + g.aspect * (((index + 0.15).float() + 0.7 * aside) / total - 0.5)
    y = high + (low - high) * (((index * 0.618).float() + up * 0.3) % 1)
    size = 0.11 + 0.07 * large
    bodies, depth = 0.95 * cloud(g, x, y, size), ((g.y - y) / size * 2 + 0.3).clamp(0, 1)
    for body, deep in zip(bodies.chunk(total, 1), depth.chunk(total, 1), strict=True):
        picture = mix(picture, mix(g.rgb(1, 1, 1), g.rgb(0.86, 0.92, 0.98), deep), body)
    return picture


def hills(g: Ground, base: float, high: float, turns: float, index: int) -> Tensor:
    """Depth below the top of a rolling line, in heights: negative in the air."""
    phase = g.pick(index) * TURN
    return g.y - base + high * (torch.sin(g.x * turns + phase) + 0.4 * torch.sin(g.x * turns * 2.3 + 2 * phase)) / 1.4


def flakes(g: Ground, count: float, size: float, salt: int = 0, share: float = 0.65) -> Tensor:
    """Soft specks on a jittered grid, 0..1."""
    across, down = (g.x - 0.5) * count, g.y * count
    column, row = torch.floor(across), torch.floor(down)
    roll = g.dice(column, row, 40 + 3 * salt, 3).chunk(3, 1)
    dx, dy = across - column - 0.2 - 0.6 * roll[0], down - row - 0.2 - 0.6 * roll[1]
    return torch.exp(-(dx**2 + dy**2) / (2 * (size * (0.4 + roll[0])) ** 2)) * (roll[2] < share)


def pines(g: Ground, count: float, base: float, high: float, salt: int, wide: float) -> Tensor:
    """Two rows of fir trees, one in the gaps of the other, that stand on `base`, up to `high` tall, 0..1."""
    rows = torch.arange(2, device=g.u.device).view(1, -1, 1, 1)
    across = (g.x - 0.5) * count + 0.5 * rows
    column = torch.floor(across)
    tall = high * (0.60 + 0.40 * g.dice(column, 0 * rows, salt, 2))
    dx = (across - column - 0.5 + 0.3 * (g.dice(column, 0 * rows + 1, salt) - 0.5)).abs() / count
    part = (g.y - base + tall) / tall
    half = torch.where(part > 0, tall * wide * (0.35 * (part * 4 % 1) + 0.65 * part), -1.0)
    stem = torch.where(part > 0.5, tall * 0.025, -1.0)
    half = torch.where(part > 0.94, stem, half)
    here = g.dice(column, 0 * rows + 2, salt) < 0.78
    return (here * g.cut(torch.minimum(half - dx, base + 0.02 - g.y))).amax(1, keepdim=True)


def grass(g: Ground) -> Tensor:
    scene = clouds(g, sky_blue(g), 3, 0.10, 0.30)
    back, near = hills(g, 0.55, 0.045, 4, 0), hills(g, 0.64, 0.03, 3, 1)
    scene = mix(scene, g.rgb(0.56, 0.80, 0.42) * (1.05 - 0.6 * back.clamp(min=0)), g.cut(back))
    blades = 0.07 * g.noise(40, 120, 1) + 0.05 * g.noise(20, 60, 2)
    meadow = mix(g.rgb(0.52, 0.80, 0.32), g.rgb(0.24, 0.58, 0.20), (near * 2.6).clamp(0, 1))
    scene = mix(scene, meadow * (1 + blades), g.cut(near))
    blossom = (flakes(g, 11, 0.075, 1, 0.30) * 1.6).clamp(0, 1) * step(g.y - 0.70, 0.05)
    return mix(scene, g.rgb(1.0, 0.97, 0.82), 0.95 * blossom)


def beach(g: Ground) -> Tensor:
    phase = g.pick(0) * TURN
    shore = 0.68 + 0.022 * torch.sin(g.x * 5 + phase) + 0.008 * torch.sin(g.x * 13 + 2 * phase)
    scene = clouds(g, sky_blue(g), 2, 0.12, 0.26)
    glint = 0.10 * (g.noise(80, 14, 1)).clamp(min=0) * step(g.y - 0.46, 0.1)
    sea = mix(g.rgb(0.06, 0.45, 0.72), g.rgb(0.30, 0.80, 0.82), ((g.y - 0.44) * 4.2).clamp(0, 1)) + glint
    scene = mix(scene, sea, g.cut(g.y - 0.44))
    sand = mix(g.rgb(0.94, 0.82, 0.60), g.rgb(0.98, 0.90, 0.72), (g.y - 0.6) * 2.4)
    sand = sand * (1 + 0.008 * g.grain + 0.018 * g.noise(100, 100, 2))
    wet = torch.exp(-(g.y - shore).clamp(min=0) / 0.03)
    scene = mix(scene, sand * (1 - 0.20 * wet), g.cut(g.y - shore))
    foam = g.cut(0.011 + 0.006 * torch.sin(g.x * 21 + phase) - (g.y - shore + 0.006).abs())
    second = 0.6 * g.cut(0.005 + 0.004 * torch.sin(g.x * 17) - (g.y - shore + 0.055 + 0.01 * torch.sin(g.x * 9)).abs())
    return mix(scene, g.rgb(1, 1, 1), torch.maximum(foam, second))


def snow(g: Ground) -> Tensor:
    scene = mix(g.rgb(0.56, 0.71, 0.87), g.rgb(0.87, 0.92, 0.97), (g.y * 1.5).clamp(0, 1))
    back, near = hills(g, 0.56, 0.05, 4, 0), hills(g, 0.68, 0.03, 3, 1)
    scene = mix(scene, g.rgb(0.83, 0.89, 0.96), g.cut(back))
    scene = mix(scene, g.rgb(0.38, 0.53, 0.60), pines(g, 8, 0.72, 0.27, 50, 0.24))
    drift = mix(g.rgb(0.98, 0.99, 1.0), g.rgb(0.82, 0.89, 0.97), (near * 2.4).clamp(0, 1))
    scene = mix(scene, drift + 0.012 * g.grain, g.cut(near))
    return mix(scene, g.rgb(1, 1, 1), (1.3 * flakes(g, 8, 0.07)).clamp(0, 0.95))


def night(g: Ground) -> Tensor:
    sky_ = mix(g.rgb(0.04, 0.06, 0.20), g.rgb(0.24, 0.26, 0.52), g.y * 1.3)
    stars = (1.4 * flakes(g, 9, 0.045)).clamp(0, 1) * step(0.66 - g.y, 0.15)
    side = torch.where(g.pick(2) > 0.5, 1.0, -1.0)
    x, y, r = 0.5 + side * (0.36 * g.aspect - 0.02), 0.17, 0.085 * (0.5 + 0.5 * g.narrow)
    scene = mix(sky_, g.rgb(1, 1, 0.92), stars)
    scene = mix(scene, g.rgb(0.62, 0.66, 0.90), 0.45 * glow(g, x, y, r * 2.2))
    scene = mix(scene, g.rgb(1.0, 0.96, 0.80), ellipse(g, x, y, r, r))
    scene = mix(scene, g.rgb(0.10, 0.13, 0.30), g.cut(hills(g, 0.66, 0.05, 4, 0)))
    return mix(scene, mix(g.rgb(0.05, 0.08, 0.19), g.rgb(0.09, 0.13, 0.26), g.y), g.cut(hills(g, 0.78, 0.02, 3, 1)))


def skyline(g: Ground, count: float, low: float, high: float, salt: int) -> tuple[Tensor, Tensor]:
    """Towers side by side: where they are, 0..1, and a number of each."""
    across = (g.x - 0.5) * count + g.pick(0)
    column = torch.floor(across)
    roll = g.dice(column, torch.zeros_like(column), salt)
    gap = (0.5 - (across - column - 0.5).abs()) / count - 0.008 * g.dice(column, torch.ones_like(column), salt)
    return g.cut(torch.minimum(g.y - low + (low - high) * roll, gap)), roll


def city(g: Ground) -> Tensor:
    scene = mix(g.rgb(0.50, 0.73, 0.93), g.rgb(0.99, 0.92, 0.83), (g.y * 1.5).clamp(0, 1))
    far, roll = skyline(g, 11, 0.56, 0.20, 60)
    scene = mix(scene, g.rgb(0.70, 0.79, 0.88) * (0.96 + 0.08 * roll), far)
    near, roll = skyline(g, 6.5, 0.62, 0.22, 61)
    facade = mix(g.rgb(0.36, 0.46, 0.62), g.rgb(0.82, 0.56, 0.46), (roll * 7 % 1 > 0.6).float()) * (0.85 + 0.3 * roll)
    across, down = (g.x - 0.5) * 26 + g.pick(0) * 4, g.y * 20
    pane = torch.minimum(0.22 - (across % 1 - 0.5).abs(), 0.28 - (down % 1 - 0.5).abs()) / 22
    lit = g.dice(torch.floor(across), torch.floor(down), 62)
    glass = mix(g.rgb(0.75, 0.87, 0.95), g.rgb(1.0, 0.90, 0.62), (lit > 0.6).float())
    scene = mix(scene, mix(facade, glass, 0.85 * g.cut(pane)), near)
    scene = mix(scene, g.rgb(0.80, 0.79, 0.77), g.cut(g.y - 0.74))
    scene = mix(scene, g.rgb(0.62, 0.62, 0.62), g.cut(g.y - 0.785))
    road = g.rgb(0.42, 0.44, 0.48) * (1.12 - 0.2 * g.y) + 0.01 * g.grain
    scene = mix(scene, road, g.cut(g.y - 0.80))
    dash = g.cut(torch.minimum(0.009 - (g.y - 0.955).abs(), (0.25 - ((g.x * 3.2) % 1 - 0.5).abs()) / 3.2))
    return mix(scene, g.rgb(0.97, 0.95, 0.88), dash)


def sunset(g: Ground) -> Tensor:
    high = mix(g.rgb(0.36, 0.20, 0.52), g.rgb(0.95, 0.42, 0.38), (g.y * 2.2).clamp(0, 1))
    scene = mix(high, g.rgb(1.0, 0.80, 0.42), (g.y * 2.2 - 0.75).clamp(0, 1))
    x = 0.5 + (g.pick(0) - 0.5) * 0.6 * g.aspect
    scene = mix(scene, g.rgb(1.0, 0.88, 0.55), 0.7 * glow(g, x, 0.56, 0.30))
    scene = mix(scene, g.rgb(1.0, 0.95, 0.72), ellipse(g, x, 0.56, 0.12, 0.12))
    for band, (y, thick) in enumerate(((0.20, 0.018), (0.31, 0.013), (0.40, 0.009))):
        streak = thick * (g.noise(3, 4, 70 + band) + 0.25) - (g.y - y).abs() * 0.7
        scene = mix(scene, g.rgb(0.98, 0.58, 0.50), 0.6 * g.cut(streak))
    scene = mix(scene, g.rgb(0.62, 0.27, 0.38), g.cut(hills(g, 0.64, 0.04, 5, 1)))
    scene = mix(scene, g.rgb(0.40, 0.17, 0.33), g.cut(hills(g, 0.72, 0.03, 4, 2)))
    return mix(scene, g.rgb(0.25, 0.11, 0.25), g.cut(hills(g, 0.80, 0.015, 3, 3)))


def sky(g: Ground) -> Tensor:
    scene = mix(g.rgb(0.22, 0.55, 0.94), g.rgb(0.72, 0.89, 1.0), g.y)
    return clouds(g, scene, 7, 0.10, 0.92)


def desert(g: Ground) -> Tensor:
    scene = mix(g.rgb(0.35, 0.68, 0.86), g.rgb(0.99, 0.90, 0.74), (g.y * 1.9).clamp(0, 1))
    x = 0.5 + (g.pick(3) - 0.5) * 0.7 * g.aspect
    scene = mix(scene, g.rgb(1.0, 0.96, 0.80), ellipse(g, x, 0.20, 0.07, 0.07))
    tones = ((0.93, 0.66, 0.42), (0.96, 0.72, 0.42), (0.98, 0.79, 0.50))
    for index, tone in enumerate(tones):
        below = hills(g, 0.52 + 0.11 * index, 0.06 - 0.012 * index, 3.2 + index, index)
        lit = 1.05 - (0.9 * below).clamp(0, 0.22) + 0.012 * torch.sin((below + 0.02 * g.grain) * 150)
        scene = mix(scene, g.rgb(*tone) * lit, g.cut(below))
    return scene


def underwater(g: Ground) -> Tensor:
    scene = mix(g.rgb(0.32, 0.82, 0.90), g.rgb(0.03, 0.24, 0.50), (g.y * 1.1).clamp(0, 1))
    slant = (g.x - 0.5 + (g.y + 0.25) * 0.30 * (g.pick(1) - 0.5)) / (1 + 0.5 * g.y)
    beams = torch.sin(slant * 17 + g.pick(0) * TURN) + 0.6 * torch.sin(slant * 29 + 9 * g.pick(2))
    scene = scene + 0.13 * beams.clamp(min=0) * (1 - g.y * 1.15).clamp(min=0)
    sand = hills(g, 0.90, 0.02, 4, 3)
    scene = mix(scene, g.rgb(0.20, 0.48, 0.60) * (1 + 0.03 * g.noise(90, 90, 3)), g.cut(sand))
    count = 9.0
    across = (g.x - 0.5) * count
    column = torch.floor(across)
    roll = g.dice(column, torch.zeros_like(column), 80)
    sway = 0.16 * torch.sin(g.y * 22 + roll * TURN)
    tall = 0.10 + 0.16 * roll
    part = ((0.95 - g.y) / tall).clamp(0, 1)
    weed = g.cut(
        torch.minimum((0.13 * (1 - part) - (across - column - 0.5 - sway * part).abs()) / count, g.y - 0.95 + tall)
    )
    weed = weed * (g.dice(column, torch.ones_like(column), 80) < 0.6)
    scene = mix(scene, g.rgb(0.06, 0.44, 0.42), weed)
    across, down = (g.x - 0.5) * 6, g.y * 6
    column, row = torch.floor(across), torch.floor(down)
    roll = g.dice(column, row, 81, 4).chunk(4, 1)
    size = 0.04 + 0.09 * roll[0]
    dx, dy = across - column - 0.25 - 0.5 * roll[1], down - row - 0.25 - 0.5 * roll[2]
    far = (dx**2 + dy**2).sqrt()
    here = (roll[3] < 0.5).float()
    ring, fill = g.cut((0.016 - (far - size).abs()) / 6), g.cut((size - far) / 6)
    return mix(scene, g.rgb(0.88, 0.98, 1.0), here * (0.75 * ring + 0.20 * fill).clamp(0, 1))


def forest(g: Ground) -> Tensor:
    scene = mix(g.rgb(0.78, 0.90, 0.82), g.rgb(0.95, 0.97, 0.80), g.y * 1.5)
    scene = mix(scene, g.rgb(1.0, 1.0, 0.88), 0.8 * glow(g, 0.5 + 0.3 * (g.pick(0) - 0.5), 0.35, 0.32))
    layers = (
        (8, 0.66, 0.44, (0.62, 0.79, 0.66)),
        (6, 0.70, 0.56, (0.38, 0.62, 0.47)),
        (4, 0.76, 0.74, (0.16, 0.42, 0.30)),
    )
    for index, (count, base, high, tone) in enumerate(layers):
        trees = pines(g, count, base, high, 90 + 3 * index, 0.20)
        scene = mix(scene, g.rgb(*tone), torch.maximum(trees, g.cut(hills(g, base - 0.06, 0.012, 5, index))))
    below = hills(g, 0.765, 0.015, 4, 4)
    moss = mix(g.rgb(0.42, 0.62, 0.28), g.rgb(0.24, 0.44, 0.20), (below * 4).clamp(0, 1))
    return mix(scene, moss * (1 + 0.06 * g.noise(40, 90, 4)), g.cut(below))


def space(g: Ground) -> Tensor:
    scene = mix(g.rgb(0.05, 0.03, 0.14), g.rgb(0.10, 0.06, 0.24), g.y)
    cloudy = 0.5 + 0.42 * g.noise(4, 4, 100) + 0.20 * g.noise(9, 9, 101) + 0.10 * g.noise(20, 20, 102)
    hue = (0.5 + 0.9 * g.noise(3, 3, 103)).clamp(0, 1)
    lean = (g.pick(0) - 0.5) * 1.4 / max(1.0, g.aspect)
    band = torch.exp(-(((g.y - 0.5 - lean * (g.x - 0.5)) / 0.36) ** 2))
    dust = mix(g.rgb(0.66, 0.24, 0.68), g.rgb(0.18, 0.45, 0.86), hue)
    scene = mix(scene, dust, (band * cloudy * 1.05).clamp(0, 0.85))
    scene = mix(scene, g.rgb(1.0, 0.72, 0.80), (1.3 * band * (cloudy - 0.62) * (1 - 0.5 * hue)).clamp(0, 0.55))
    stars = torch.maximum(1.5 * flakes(g, 11, 0.05, 1, 0.8), 0.8 * flakes(g, 17, 0.05, 2, 0.35)).clamp(0, 1)
    return mix(scene, g.rgb(1, 1, 1), stars)


BACKDROPS: dict[str, Callable[[Ground], Tensor]] = {
    draw.__name__.replace("_", " "): draw
    for draw in (plain, gradient, stripes, dots, checkered, rays, waves, confetti, podium, table, marble, shelf, studio,
                 kitchen, living_room, grass, beach, snow, night, city, sunset, sky, desert, underwater, forest, space)
}  # fmt: skip
COLOURED = ("plain", "gradient", "stripes", "dots", "checkered", "rays", "waves", "confetti", "podium", "table",
            "marble", "shelf", "studio", "kitchen", "living room")  # fmt: skip
HORIZON = {"podium": 0.815, "table": 0.85, "marble": 0.84, "shelf": 0.808, "studio": 0.86, "kitchen": 0.86,
           "living room": 0.90, "grass": 0.88, "beach": 0.88, "snow": 0.88, "night": 0.90, "city": 0.88,
           "sunset": 0.90, "desert": 0.88, "forest": 0.90}  # fmt: skip
SHADOWED = ("podium", "table", "marble", "shelf", "studio", "kitchen", "living room", "grass", "beach", "snow", "city",
            "desert", "forest")  # fmt: skip
SAID: dict[str, tuple[str, ...]] = {
    "plain": ("on a plain {} background", ", {} background", ", plain {} background"),
    "gradient": ("on a {} gradient background", ", {} gradient background", ", {} gradient"),
    "stripes": ("on a striped {} background", ", {} stripes", ", striped {} background"),
    "dots": ("on a dotted {} background", ", {} polka dots", ", dotted {} background"),
    "checkered": ("on a checkered {} background", ", {} checkerboard", ", checkered {} background"),
    "rays": ("on a {} sunburst background", "in front of {} rays", ", {} sunburst"),
    "waves": ("on a wavy {} background", ", {} waves", ", {} waves background"),
    "confetti": ("with confetti on a {} background", ", confetti, {} background", ", {} confetti background"),
    "podium": ("on a podium, {} background", "on a {} podium", ", podium, {} background"),
    "table": ("on a wooden table, {} background", "on a table, {} wall", ", table, {} background"),
    "marble": ("on a marble counter, {} wall", "on marble, {} background", ", marble countertop, {} background"),
    "shelf": ("on a wooden shelf, {} wall", "on a shelf, {} background", ", shelf, {} wall"),
    "studio": ("in a {} studio", "in a studio, {} background", ", studio, {} background"),
    "kitchen": ("in a {} kitchen", "on a kitchen counter, {} tiles", ", kitchen, {} wall"),
    "living room": ("in a {} living room", "in a living room, {} wall", ", living room, {} wall"),
    "grass": ("on the grass", "in a meadow", ", grass"),
    "beach": ("on a beach", "at the beach", ", beach"),
    "snow": ("in the snow", "on snow", ", snow"),
    "night": ("at night", "under the stars at night", ", night"),
    "city": ("in a city", "on a city street", ", city"),
    "sunset": ("at sunset", "in front of a sunset", ", sunset"),
    "sky": ("in the sky", "in front of a blue sky with clouds", ", sky"),
    "desert": ("in the desert", "on desert sand", ", desert"),
    "underwater": ("underwater", "under the sea", ", underwater"),
    "forest": ("in a forest", "in the woods", ", forest"),
    "space": ("in space", "in space among stars", ", outer space"),
}


def draw_backdrops(index: Tensor, ground: Ground) -> Tensor:
    """Pictures (n, 3, h, w) in 0..1; `index` (n,) into BACKDROPS. Each kind is drawn for its rows at once."""
    out = torch.empty(index.shape[0], 3, ground.y.shape[2], ground.x.shape[3], device=ground.u.device)
    draws = list(BACKDROPS.values())
    for kind, rows in by_kind(index, out.device):
        out[rows] = draws[kind](ground.rows(rows)).clamp(0, 1)
    return out

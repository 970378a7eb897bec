"""The 17 grounds that scenes stand on, each a few lines of arithmetic on pixel coordinates.

A backdrop maps a `Ground` to RGB pictures (n, 3, h, w) in 0..1. `BACKDROPS` names them; `HORIZON` says where objects
stand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

COLOURS = {
    "red": (0.86, 0.13, 0.15), "orange": (0.96, 0.52, 0.11), "yellow": (0.98, 0.83, 0.16), "green": (0.22, 0.64, 0.25),
    "teal": (0.05, 0.55, 0.54), "blue": (0.18, 0.44, 0.90), "navy": (0.08, 0.14, 0.36), "purple": (0.50, 0.22, 0.70),
    "pink": (0.97, 0.56, 0.72), "brown": (0.48, 0.29, 0.15), "black": (0.08, 0.08, 0.09), "white": (0.97, 0.97, 0.97),
    "gray": (0.56, 0.57, 0.59), "cream": (0.98, 0.93, 0.78),
}  # fmt: skip


def palette(device: torch.device | str = "cpu") -> Tensor:
    """The 14 colours, (14, 3), in the order of `COLOURS`."""
    return torch.tensor(list(COLOURS.values()), device=device)


@dataclass(frozen=True)
class Ground:
    """What a backdrop draws from: x, y in 0..1 (1, 1, h, w); a colour (n, 3, 1, 1); `u` (n, 8, 1, 1) uniform numbers.

    `grain` is smooth noise, (n, 1, h, w), about 0 ± 1.
    """

    x: Tensor
    y: Tensor
    colour: Tensor
    u: Tensor
    grain: Tensor

    def rgb(self, red: float, green: float, blue: float) -> Tensor:
        return torch.tensor([red, green, blue], device=self.u.device).view(1, 3, 1, 1)


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """a where share is 0, b where it is 1."""
    return a + (b - a) * share


def step(value: Tensor, width: float = 0.006) -> Tensor:
    """A soft step: 0 below zero, 1 above, over `width`."""
    return torch.sigmoid(value * (4 / width))


def ellipse(g: Ground, cx: Tensor | float, cy: Tensor | float, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """1 inside an ellipse, 0 outside."""
    distance = (((g.x - cx) / rx) ** 2 + ((g.y - cy) / ry) ** 2).sqrt()
    return step((1 - distance) * 0.3)


def plain(g: Ground) -> Tensor:
    return g.colour.expand(-1, -1, g.y.shape[2], g.x.shape[3])


def gradient(g: Ground) -> Tensor:
    along = mix(g.y, (g.x + g.y) / 2, (g.u[:, :1] > 0.5).float())
    return mix(mix(g.colour, g.rgb(1, 1, 1), torch.tensor(0.65)), g.colour * 0.75, along)


def stripes(g: Ground) -> Tensor:
    angle, count = g.u[:, :1] * 3.1416, 5 + 4 * g.u[:, 1:2]
    wave = torch.sin((g.x * torch.cos(angle) + g.y * torch.sin(angle)) * 6.2832 * count)
    return mix(g.colour, mix(g.colour, g.rgb(1, 1, 1), torch.tensor(0.55)), step(wave, 0.5))


def dots(g: Ground) -> Tensor:
    count = 6 + 4 * g.u[:, :1]
    row = torch.floor(g.y * count)
    dx, dy = (g.x * count + 0.5 * (row % 2)) % 1 - 0.5, (g.y * count) % 1 - 0.5
    dot = step(0.24 - (dx**2 + dy**2).sqrt(), 0.08)
    return mix(g.colour, mix(g.colour, g.rgb(1, 1, 1), torch.tensor(0.75)), dot)


def podium(g: Ground) -> Tensor:
    wall = g.colour * (1.04 - 0.16 * g.y)
    stone = mix(g.colour, g.rgb(1, 1, 1), torch.tensor(0.62))
    radius = 0.40 + 0.06 * g.u[:, :1]
    body = step(radius - (g.x - 0.5).abs()) * step(g.y - 0.80)
    side = stone * (0.86 - 0.35 * ((g.x - 0.5) / radius).abs() ** 2)
    return mix(mix(wall, side, body), stone * 1.04, ellipse(g, 0.5, 0.80, radius, 0.075))


def table(g: Ground) -> Tensor:
    wall = mix(g.colour, g.rgb(1, 1, 1), torch.tensor(0.35)) * (1.03 - 0.15 * g.y)
    grainy = torch.sin(g.y * 130 + 3 * torch.sin(g.x * 7 + g.u[:, :1] * 6)) * 0.035 + g.grain * 0.02
    wood = g.rgb(0.66, 0.43, 0.24) * (1.08 - 0.35 * (g.y - 0.66)) + grainy
    return mix(wall, wood, step(g.y - 0.66))


def studio(g: Ground) -> Tensor:
    sweep = step(g.y - 0.68, 0.35)
    light = 1.12 - 0.65 * ((g.x - 0.5) ** 2 + (g.y - 0.42) ** 2)
    return mix(g.colour, mix(g.colour, g.rgb(1, 1, 1), torch.tensor(0.40)), sweep) * light


def sky_blue(g: Ground) -> Tensor:
    return mix(g.rgb(0.42, 0.70, 0.96), g.rgb(0.80, 0.92, 0.99), (g.y * 1.4).clamp(0, 1))


def grass(g: Ground) -> Tensor:
    hill = 0.58 + 0.03 * torch.sin(g.x * 5 + g.u[:, :1] * 6)
    blades = 0.05 * torch.sin(g.x * 210 + 40 * g.grain) * torch.sin(g.y * 60)
    meadow = g.rgb(0.36, 0.68, 0.24) * (1.25 - 0.45 * g.y) + blades
    return mix(sky_blue(g), meadow, step(g.y - hill))


def beach(g: Ground) -> Tensor:
    shore = 0.66 + 0.02 * torch.sin(g.x * 9 + g.u[:, :1] * 6)
    sea = g.rgb(0.10, 0.52, 0.74) + 0.05 * torch.sin(g.y * 190 + 6 * torch.sin(g.x * 9))
    sand = g.rgb(0.93, 0.81, 0.56) + 0.03 * g.grain
    foam = torch.exp(-(((g.y - shore) / 0.012) ** 2))
    return mix(mix(mix(sky_blue(g), sea, step(g.y - 0.46)), sand, step(g.y - shore)), g.rgb(1, 1, 1), foam)


def flakes(g: Ground, count: float, size: float) -> Tensor:
    """Soft specks on a jittered grid, 0..1."""
    col, row = torch.floor(g.x * count), torch.floor(g.y * count)
    hash_x = torch.frac(torch.sin(col * 12.9898 + row * 78.233 + g.u[:, 2:3] * 50) * 43758.5453).abs()
    hash_y = torch.frac(torch.sin(col * 39.346 + row * 11.135 + g.u[:, 3:4] * 50) * 24634.6345).abs()
    dx, dy = (g.x * count) % 1 - 0.15 - 0.7 * hash_x, (g.y * count) % 1 - 0.15 - 0.7 * hash_y
    return torch.exp(-(dx**2 + dy**2) / (2 * (size * (0.4 + hash_x)) ** 2)) * (hash_y > 0.35)


def snow(g: Ground) -> Tensor:
    sky = mix(g.rgb(0.62, 0.73, 0.84), g.rgb(0.85, 0.90, 0.95), g.y)
    bank = 0.62 + 0.03 * torch.sin(g.x * 4 + g.u[:, :1] * 6)
    white = g.rgb(0.95, 0.97, 1.0) * (1.08 - 0.14 * g.y)
    return mix(mix(sky, white, step(g.y - bank)), g.rgb(1, 1, 1), 0.9 * flakes(g, 9, 0.09))


def night(g: Ground) -> Tensor:
    sky = mix(g.rgb(0.03, 0.05, 0.17), g.rgb(0.15, 0.17, 0.38), g.y)
    stars = flakes(g, 10, 0.045) * step(0.7 - g.y, 0.1)
    moon = ellipse(g, 0.15 + 0.1 * g.u[:, :1], 0.16, 0.075, 0.075)
    ground = g.rgb(0.05, 0.08, 0.13)
    scene = mix(mix(sky, g.rgb(1, 1, 0.9), stars), g.rgb(0.97, 0.95, 0.80), moon)
    return mix(scene, ground, step(g.y - 0.76 - 0.02 * torch.sin(g.x * 6 + g.u[:, 1:2] * 6)))


def city(g: Ground) -> Tensor:
    sky = mix(g.rgb(0.62, 0.75, 0.88), g.rgb(0.93, 0.90, 0.84), g.y * 1.3)
    block = torch.floor(g.x * 8 + g.u[:, :1] * 5)
    hashed = torch.frac(torch.sin(block * 17.13 + g.u[:, 1:2] * 9) * 43758.5).abs()
    tower = step(g.y - (0.55 - 0.40 * hashed)) * step(0.78 - g.y)
    window = ((g.x * 32) % 1 > 0.45) & ((g.y * 26) % 1 > 0.5)
    facade = g.rgb(0.40, 0.46, 0.56) * (0.8 + 0.4 * hashed) + 0.20 * window
    return mix(mix(sky, facade, tower), g.rgb(0.36, 0.37, 0.40) + 0.02 * g.grain, step(g.y - 0.78))


def sunset(g: Ground) -> Tensor:
    high = mix(g.rgb(0.36, 0.20, 0.50), g.rgb(0.98, 0.50, 0.30), (g.y * 2).clamp(0, 1))
    sky = mix(high, g.rgb(1.0, 0.80, 0.40), (g.y * 2 - 0.9).clamp(0, 1))
    sun = ellipse(g, 0.2 + 0.6 * g.u[:, :1], 0.58, 0.13, 0.13)
    hills = 0.72 + 0.03 * torch.sin(g.x * 5 + g.u[:, 1:2] * 6)
    return mix(mix(sky, g.rgb(1.0, 0.93, 0.62), sun), g.rgb(0.23, 0.12, 0.22), step(g.y - hills))


def sky(g: Ground) -> Tensor:
    puffs = step(g.grain - 0.55 + 0.25 * torch.sin(g.y * 9), 0.9)
    return mix(mix(g.rgb(0.28, 0.60, 0.95), g.rgb(0.62, 0.83, 0.99), g.y), g.rgb(1, 1, 1), 0.9 * puffs)


def desert(g: Ground) -> Tensor:
    dune = 0.56 + 0.07 * torch.sin(g.x * 4 + g.u[:, :1] * 6)
    near = 0.74 + 0.05 * torch.sin(g.x * 5 + g.u[:, 1:2] * 6)
    sand = mix(g.rgb(0.90, 0.60, 0.30), g.rgb(0.97, 0.74, 0.42), step(g.y - near))
    return mix(mix(g.rgb(0.98, 0.80, 0.55), g.rgb(1.0, 0.93, 0.78), g.y), sand, step(g.y - dune))


def underwater(g: Ground) -> Tensor:
    deep = mix(g.rgb(0.20, 0.72, 0.86), g.rgb(0.02, 0.18, 0.42), g.y)
    rays = torch.sin((g.x + g.y * 0.35) * 22 + g.u[:, :1] * 6).clamp(min=0) * (0.14 * (1 - g.y))
    return mix(deep + rays, g.rgb(0.85, 0.97, 1.0), 0.7 * flakes(g, 6, 0.06))


def forest(g: Ground) -> Tensor:
    trunk = step(torch.sin(g.x * 34 + 3 * torch.sin(g.x * 6 + g.u[:, :1] * 6)) - 0.45, 0.5) * step(0.74 - g.y)
    far = mix(g.rgb(0.62, 0.80, 0.60), g.rgb(0.30, 0.52, 0.32), g.y)
    leaves = step(0.27 + 0.05 * g.grain - g.y, 0.05)
    scene = mix(mix(far, g.rgb(0.27, 0.19, 0.12), trunk), g.rgb(0.10, 0.34, 0.15) + 0.04 * g.grain, leaves)
    return mix(scene, g.rgb(0.20, 0.33, 0.14) + 0.03 * g.grain, step(g.y - 0.74))


BACKDROPS: dict[str, Callable[[Ground], Tensor]] = {
    draw.__name__: draw
    for draw in (plain, gradient, stripes, dots, podium, table, studio, grass, beach, snow, night, city, sunset,
                 sky, desert, underwater, forest)
}  # fmt: skip
COLOURED = ("plain", "gradient", "stripes", "dots", "podium", "table", "studio")  # these take the scene's colour
HORIZON = {"podium": 0.815, "table": 0.86, "studio": 0.86, "grass": 0.88, "beach": 0.88, "snow": 0.88, "night": 0.90,
           "city": 0.90, "sunset": 0.90, "desert": 0.88, "forest": 0.90}  # fmt: skip
SHADOWED = ("podium", "table", "studio", "grass", "beach", "snow", "city", "desert", "forest")


def draw_backdrops(kind: Tensor, ground: Ground) -> Tensor:
    """Pictures (n, 3, h, w) in 0..1; `kind` (n,) indexes BACKDROPS. Each kind is drawn for its rows at once."""
    rows = kind.shape[0]
    out = torch.empty(rows, 3, ground.y.shape[2], ground.x.shape[3], device=kind.device)
    for index, draw in enumerate(BACKDROPS.values()):
        chosen = (kind == index).nonzero().squeeze(1)
        if chosen.numel():
            part = Ground(ground.x, ground.y, ground.colour[chosen], ground.u[chosen], ground.grain[chosen])
            out[chosen] = draw(part).clamp(0, 1)
    return out

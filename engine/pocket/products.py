"""Products: solids of a kind, a material and two or three colours, photographed from anywhere in one of four lights.

What is drawn is numbers (`Products`), so that a picture is a function of its row: equal on CPU and CUDA but for
rounding. `identity` fixes what a product is, and leaves open how it is photographed. Shapes are in solids.py.

python -m engine.pocket.products -n 24 --seed 1 --out sheet.png [--kind mug] [--identity 7]
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.pocket.backdrops import COLOURS, palette
from engine.pocket.solids import (
    CLOTH,
    DARK,
    GLOW,
    HIGH,
    KINDS,
    LOW,
    PALE,
    ROUND,
    STEEL,
    Design,
    Solid,
    build,
    design,
    hull,
)
from engine.pocket.sprites import Sprite

SIZE = 256  # px
SHAPE = 6  # numbers that make a shape
WORDS = 8  # uniform numbers that words may use
FILL = 0.84  # part of the picture that a product spans
MATERIALS = ("matte", "glossy", "metal", "glass", "ceramic")
LABELS = ("none", "band", "circle", "stripes")
LIGHTS = ("soft", "side", "top", "back")
MADE_OF = {
    "bottle": "matte glossy metal glass", "wine bottle": "glass glossy matte", "can": "metal glossy matte",
    "jar": "glass glossy ceramic matte", "mug": "ceramic glossy matte metal", "cup": "matte glossy",
        "box": "matte glossy",
    "carton": "matte glossy", "tube": "glossy matte metal", "perfume bottle": "glass glossy metal",
    "candle": "ceramic matte glossy metal", "lamp": "ceramic metal matte glossy", "shopping bag": "matte glossy",
    "vase": "ceramic glossy matte metal", "teapot": "ceramic glossy metal matte", "sneaker": "matte glossy",
    "headphones": "matte glossy metal",
}  # fmt: skip
LID_NOUN = {
    "bottle": "cap", "wine bottle": "foil", "jar": "lid", "cup": "lid", "box": "lid", "carton": "cap", "tube": "cap",
    "perfume bottle": "cap", "lamp": "shade", "shopping bag": "handles", "teapot": "lid", "sneaker": "sole",
    "headphones": "cushions",
}  # fmt: skip
FLAT = ("box", "carton", "tube", "perfume bottle", "shopping bag")  # nothing goes around these
UNLABELLED, STRIPED = ("lamp", "headphones"), ("sneaker",)  # have no label; have stripes or nothing


@dataclass(frozen=True)
class Products:
    """n products as numbers. Tensors (n,) unless said; what is an index says into what."""

    kind: Tensor  # KINDS
    shape: Tensor  # (n, SHAPE) uniform
    material: Tensor  # MATERIALS
    colour: Tensor  # COLOURS, as are accent (the label's) and lid
    accent: Tensor
    lid: Tensor
    label: Tensor  # LABELS
    azimuth: Tensor  # radians: 0 from the front
    elevation: Tensor  # radians above the horizon
    distance: Tensor  # of the camera, in sizes of the product
    light: Tensor  # LIGHTS
    words: Tensor  # (n, WORDS) uniform

    def __len__(self) -> int:
        return self.kind.shape[0]

    def rows(self, chosen: Tensor, device: torch.device | str = "cpu") -> "Products":
        return Products(**{f.name: getattr(self, f.name)[chosen].to(device) for f in fields(self)})


# Sampling.

INDEXED = {
    "kind": tuple(KINDS), "material": MATERIALS, "colour": tuple(COLOURS), "accent": tuple(COLOURS),
        "lid": tuple(COLOURS),
    "label": LABELS, "light": LIGHTS,
}  # fmt: skip
Held = str | int | float | Tensor


def sample_products(n: int, generator: torch.Generator, **held: Held) -> Products:
    """n products of all kinds evenly; `held` fixes columns, by name ("mug"), number, or a row that all shall have."""
    u = torch.rand(n, 12, generator=generator)
    order = torch.randperm(len(KINDS), generator=generator)
    kind = order[torch.randperm(n, generator=generator) % len(KINDS)]
    drawn = {
        "kind": kind, "shape": torch.rand(n, SHAPE, generator=generator), "colour": (u[:, 0] * len(COLOURS)).long(),
        "accent": u[:, 1], "lid": u[:, 2], "label": (u[:, 3] * 5.5 - 1.5).clamp(min=0).long(),
        "azimuth": (u[:, 4] - 0.5) * 1.8, "elevation": torch.deg2rad(5 + 45 * u[:, 5] ** 1.6),
        "distance": 3 + 4 * u[:, 6], "light": (u[:, 7] * len(LIGHTS)).long(),
        "words": torch.rand(n, WORDS, generator=generator),
    }  # fmt: skip
    fixed = {name: held_column(name, value, n) for name, value in held.items()}
    drawn |= {name: value for name, value in fixed.items() if name not in ("accent", "lid")}
    made = [[MATERIALS.index(word) for word in MADE_OF[name].split()] for name in KINDS]
    choices = [made[int(index)] for index in numbers(drawn["kind"])]
    picked = [row[int(x * len(row))] for row, x in zip(choices, numbers(u[:, 8]), strict=True)]
    drawn["material"] = fixed.get("material", torch.tensor(picked))
    bare, shoe = (torch.tensor([name in names for name in KINDS])[drawn["kind"]] for names in (UNLABELLED, STRIPED))
    label = torch.where(bare, 0, drawn["label"])
    drawn["label"] = torch.where(shoe & (label > 0), LABELS.index("stripes"), label)
    for name in ("accent", "lid"):
        drawn[name] = fixed.get(name, contrasting(drawn["colour"], drawn[name]))
    return Products(**drawn)


def numbers(column: Tensor) -> list[float]:
    row: list[float] = column.tolist()  # pyright: ignore[reportUnknownVariableType]
    return row


def length(vector: Tensor, dim: int) -> Tensor:
    return (vector**2).sum(dim).sqrt()


def held_column(name: str, value: Held, n: int) -> Tensor:
    """A fixed column: one value for all n rows, or one for each."""
    if isinstance(value, str):
        value = INDEXED[name].index(value)
    row = value if isinstance(value, Tensor) else torch.tensor(value)
    each = row.ndim > (1 if name == "shape" else 0)
    return row.clone() if each else row.expand(n, *row.shape).clone()


def contrasting(colour: Tensor, u: Tensor) -> Tensor:
    """For each colour another that stands out from it: half the time white, cream or black, as labels are."""
    names, rgb = list(COLOURS), palette()
    luma = rgb @ torch.tensor([0.299, 0.587, 0.114])
    apart = length(rgb[:, None] - rgb, 2) + (luma[:, None] - luma).abs()
    weight = torch.ones(len(names))
    weight[[names.index(name) for name in ("white", "cream", "black")]] = 3.0
    chance = (weight * (apart > 0.55))[colour]
    steps = chance.cumsum(1) / chance.sum(1, keepdim=True)
    return torch.searchsorted(steps, u[:, None].contiguous())[:, 0].clamp(max=len(names) - 1)


def identity(seed: int, **held: Held) -> dict[str, Held]:
    """What one product is, but not how it is seen or lit: for `sample_products(n, generator, **identity(7))`."""
    one = sample_products(1, torch.Generator().manual_seed(seed), **held)
    return {name: getattr(one, name)[0] for name in ("kind", "shape", "material", "colour", "accent", "lid", "label")}


# Words.


def told(products: Products) -> list[str]:
    """What each row shows, in everyday words: "a tall glossy teal bottle with a white label, seen from above"."""
    return [phrase(products, row) for row in range(len(products))]


def phrase(products: Products, row: int) -> str:
    kind = list(KINDS)[int(products.kind[row])]
    dice = iter(numbers(products.words[row]))
    colour, accent, lid = (list(COLOURS)[int(getattr(products, name)[row])] for name in ("colour", "accent", "lid"))
    material = MATERIALS[int(products.material[row])]
    stuff = {"glossy": ("glossy", "shiny"), "metal": ("metal", "metallic")}.get(material, (material, material))
    looks = [stuff[int(next(dice) * 2)], colour]
    if material in ("glass", "metal", "ceramic"):
        looks.reverse()
    words = " ".join(word for word in [build_word(kind, float(products.shape[row, 0])), *looks, kind] if word)
    thing = words if kind.endswith("s") else with_article(words)
    extras = [label_words(LABELS[int(products.label[row])], accent, kind in FLAT, next(dice))]
    if kind in LID_NOUN and next(dice) < 0.75:
        noun = LID_NOUN[kind]
        extras.append(f"{lid} {noun}" if noun.endswith("s") else with_article(f"{lid} {noun}"))
    extras = [extra for extra in extras if extra]
    view, light = view_words(products, row, next(dice)), light_words(LIGHTS[int(products.light[row])], next(dice))
    tail = [view, light] if next(dice) < 0.5 else [light, view]
    return ", ".join([f"{thing} with {' and '.join(extras)}" if extras else thing, *(word for word in tail if word)])


def build_word(kind: str, slender: float) -> str:
    """ "tall" or "wide" where a shape is plainly so."""
    if kind in ("sneaker", "headphones"):
        return ""
    return "tall" if slender > 0.75 else "wide" if slender < 0.22 else ""


def with_article(words: str) -> str:
    return ("an " if words[0] in "aeio" else "a ") + words


def label_words(label: str, colour: str, flat: bool, dice: float) -> str:
    forms = {
        "band": (f"a {colour} label", f"a printed {colour} label" if flat else f"a {colour} band around it"),
            "stripes": (f"{colour} stripes", f"two {colour} stripes"),
        "circle": (f"a round {colour} label", f"a {colour} circle on it"),
    }.get(label)  # fmt: skip
    if not forms:
        return ""
    chosen = forms[int(dice * 2)]
    return chosen.replace("a orange", "an orange")


def view_words(products: Products, row: int, dice: float) -> str:
    degrees = float(torch.rad2deg(products.elevation[row]))
    if degrees > 34:
        return ("seen from above", "from above")[int(dice * 2)]
    return ("at eye level", "front view")[int(dice * 2)] if degrees < 12 else ""


def light_words(light: str, dice: float) -> str:
    return {
        "soft": ("soft light", "softly lit"), "side": ("side light", "lit from the side"),
        "top": ("light from above", "lit from above"), "back": ("backlit", "light from behind"),
    }[light][int(dice * 2)]  # fmt: skip


# Camera and rays.


class View(NamedTuple):
    """A camera around an object. `basis` (n, 3, 3): rows right, up, towards the camera. `eye` (n, 3).

    `centre` (n, 2), `half` (n,): the picture spans centre ± half, in slopes from the axis. `reach`: the part of its
    width and of its height, about the middle, that the widest and tallest of n products need.
    """

    basis: Tensor
    eye: Tensor
    centre: Tensor
    half: Tensor
    reach: tuple[float, float]


def look_at(products: Products, plan: Design) -> View:
    """A pinhole camera with a shifted lens, so that the product spans FILL of the picture, in its middle."""
    a, e = products.azimuth, products.elevation
    back = torch.stack([a.sin() * e.cos(), e.sin(), a.cos() * e.cos()], 1)
    right = torch.stack([a.cos(), torch.zeros_like(a), -a.sin()], 1)
    basis = torch.stack([right, torch.cross(back, right, dim=1), back], 1)
    hulls = hull(plan)
    middle = (hulls.amax(1) + hulls.amin(1)) / 2
    radius = length(hulls - middle[:, None], 2).amax(1)
    eye = middle + back * (products.distance * 2 * radius)[:, None]
    seen = (hulls - eye[:, None]) @ basis.transpose(1, 2)
    slope = seen[..., :2] / -seen[..., 2:]
    low, high = slope.amin(1), slope.amax(1)
    half = (high - low).amax(1) / (2 * FILL)
    wide, tall = (min(1.0, part + 0.03) for part in numbers(((high - low) / (2 * half[:, None])).amax(0)))
    return View(basis, eye, (low + high) / 2, half, (wide, tall))


class Grid(NamedTuple):
    """The pixels that are drawn: rows, columns, and how many make the whole picture's width."""

    rows: int
    columns: int
    size: int

    def finer(self, times: int) -> "Grid":
        return Grid(self.rows * times, self.columns * times, self.size * times)

    def square(self, value: Tensor) -> Tensor:
        """(n, m) or (n, c, m) as pictures, (n, 1 or c, rows, columns)."""
        return value.reshape(value.shape[0], -1, self.rows, self.columns)


def grid_for(view: View, size: int) -> Grid:
    """The middle of size² pixels that holds the products, an even number each way."""
    columns, rows = (min(size, 2 * int(part * size / 2 + 1)) for part in view.reach)
    return Grid(rows, columns, size)


class Rays(NamedTuple):
    """m rays a picture: `eye` (n, 3, 1), unit `way` (n, 3, m), `near` and `far` (n, m) where they cross the box."""

    eye: Tensor
    way: Tensor
    near: Tensor
    far: Tensor

    def at(self, t: Tensor) -> Tensor:
        return self.eye + self.way * t[:, None]


def cast(view: View, plan: Design, grid: Grid) -> Rays:
    """Rays through the middles of a grid's pixels, rows first."""
    across, down = (
        (torch.arange(count, device=view.eye.device) + 0.5 - count / 2) * (2 / grid.size) for count in grid[:2][::-1]
    )
    x, y = across.repeat(grid.rows), -down.repeat_interleave(grid.columns)
    half = view.half[:, None]
    slopes = torch.stack(
        [view.centre[:, :1] + x * half, view.centre[:, 1:] + y * half, -torch.ones_like(half) + 0 * x], 1
    )
    way = F.normalize(view.basis.transpose(1, 2) @ slopes, dim=1)
    return Rays(view.eye[:, :, None], way, *crossing(view.eye[:, :, None], way, hull(plan)))


def crossing(eye: Tensor, way: Tensor, hulls: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the box around a hull (slab method, Kay & Kajiya 1986)."""
    low, high = hulls.amin(1)[:, :, None] - 0.03, hulls.amax(1)[:, :, None] + 0.03
    safe = torch.where(way.abs() < 1e-6, 1e-6, way)
    a, b = (low - eye) / safe, (high - eye) / safe
    near, far = torch.minimum(a, b).amax(1), torch.maximum(a, b).amin(1)
    return near, torch.maximum(near, far)


def march(solid: Solid, rays: Rays, t: Tensor, steps: int, cone: Tensor) -> Tensor:
    """Sphere tracing for fixed steps, until a cone of radius cone * t would touch: so finer rays go on there.

    Steps are 1.5 times the free radius, and taken back where the two last spheres do not meet (Keinert et al. 2014,
    "Enhanced sphere tracing", §3.1).
    """
    stride, radius = torch.zeros_like(t), torch.zeros_like(t)
    for _ in range(steps):
        free = (solid.distance(rays.at(t)) - cone * t).clamp(min=0)
        missed = stride > radius + free
        stride = torch.where(missed, radius - stride, 1.5 * free)
        radius = torch.where(missed, 9.0, free)
        t = torch.minimum(t + stride, rays.far)
    return torch.where(stride > radius, t - (stride - radius), t)


def settle(solid: Solid, rays: Rays, t: Tensor, steps: int) -> Tensor:
    """From near a surface on to it, from either side."""
    for _ in range(steps):
        t = torch.minimum(t + 1.3 * solid.distance(rays.at(t)), rays.far)
    return t


def finer(value: Tensor, grid: Grid, times: int) -> Tensor:
    """Values (n, m) on a grid's pixels, each repeated times² for the finer grid."""
    return F.interpolate(grid.square(value), scale_factor=times, mode="nearest").flatten(1)


# Light. Studio axes: x right, y up, z towards the camera.


class Studio(NamedTuple):
    """One light set: key and fill directions, strengths of key, fill and of light from all around, soft boxes."""

    key: tuple[float, float, float]
    fill: tuple[float, float, float]
    strength: tuple[float, float, float]
    boxes: tuple[tuple[float, ...], ...]  # direction x, y, z, half width, half height, brightness


STUDIOS = {
    "soft": Studio((-0.35, 0.80, 0.60), (0.8, 0.3, 0.5), (0.62, 0.22, 0.58),
                   ((-0.75, 0.55, 0.55, 0.42, 0.60, 3.4), (0.95, 0.25, 0.30, 0.20, 0.8, 1.8),
                   (0.0, 1.0, 0.05, 0.7, 0.5, 2.0))),
    "side": Studio((-0.92, 0.42, 0.28), (0.8, 0.2, 0.6), (0.95, 0.32, 0.40),
                   ((-0.95, 0.22, 0.32, 0.26, 0.95, 5.0), (0.98, 0.2, -0.1, 0.10, 0.8, 1.2),
                   (0.0, 1.0, 0.0, 0.4, 0.4, 0.5))),
    "top": Studio((0.10, 0.97, 0.22), (0.0, 0.3, 0.9), (0.80, 0.46, 0.46),
                  ((0.05, 0.97, 0.25, 0.75, 0.50, 4.2), (-0.95, 0.1, 0.3, 0.14, 0.7, 0.9),
                  (0.95, 0.1, 0.3, 0.14, 0.7, 0.9))),
    "back": Studio((0.45, 0.62, -0.65), (-0.3, 0.4, 0.85), (0.80, 0.50, 0.46),
                   ((-0.92, 0.25, -0.32, 0.26, 0.95, 5.0), (0.92, 0.25, -0.32, 0.26, 0.95, 5.0),
                   (0.1, 0.8, -0.6, 0.6, 0.3, 3.0))),
}  # fmt: skip


class Lamps(NamedTuple):
    """The light sets of n rows: directions (n, 3), strengths (n, 3), boxes (n, 3, 6)."""

    key: Tensor
    fill: Tensor
    strength: Tensor
    boxes: Tensor


def lamps_of(light: Tensor) -> Lamps:
    tables = [
        torch.tensor([getattr(studio, name) for studio in STUDIOS.values()], device=light.device)[light]
        for name in ("key", "fill", "strength", "boxes")
    ]
    return Lamps(F.normalize(tables[0], dim=1), F.normalize(tables[1], dim=1), tables[2], tables[3])


def surroundings(way: Tensor, lamps: Lamps, soft: Tensor, share: Tensor) -> Tensor:
    """Brightness that comes along -way, (n, m), for unit `way` (n, 3, m): soft boxes in a grey room, blurred by `soft`.

    `share` (n, m): of the room.
    """
    x, y = way[:, 0], way[:, 1]
    room = 0.62 + 0.5 * y.clamp(min=0) + 0.25 * torch.exp(-((y + 0.45) ** 2) * 9) - 0.3 * torch.exp(-y * y * 30)
    room = (room - 0.3 * x) * share
    for index in range(lamps.boxes.shape[1]):
        box = lamps.boxes[:, index]
        front = F.normalize(box[:, :3], dim=1)
        upwards = torch.tensor([[0.0, 0.99, -0.14]], device=way.device).expand_as(front)
        side = F.normalize(torch.cross(upwards, front, dim=1), dim=1)
        up = torch.cross(front, side, dim=1)
        ahead, across, along = (torch.einsum("nc,ncm->nm", axis, way) for axis in (front, side, up))
        ahead = ahead.clamp(min=0.02)
        wide = torch.sigmoid((box[:, 3:4] - (across / ahead).abs()) * (1.6 / soft))
        high = torch.sigmoid((box[:, 4:5] - (along / ahead).abs()) * (1.6 / soft))
        room = room + box[:, 5:6] * wide * high * (ahead > 0.03)
    return room


# Surfaces. Rows: MATERIALS, then what glows. Columns: diffuse share, reflectance head-on, blur of reflections.
SURFACES = (
    (1.0, 0.012, 0.9),
    (0.92, 0.075, 0.07),
    (0.22, 0.80, 0.20),
    (0.95, 0.10, 0.06),
    (1.0, 0.055, 0.24),
    (1.0, 0.0, 1.0),
)
FIXED = {
    STEEL: ((0.80, 0.81, 0.83), 2),
    DARK: ((0.10, 0.07, 0.06), 0),
    PALE: ((0.96, 0.93, 0.86), 0),
    GLOW: ((1.0, 0.86, 0.5), 5),
    CLOTH: ((), 0),
}  # a part's own colour, or none for that of lids; its surface
GLASS = MATERIALS.index("glass")


class Paint(NamedTuple):
    """What is where: albedo (n, 3, m) in linear light; surface (n, 3, m): the columns of SURFACES; masks (n, m)."""

    albedo: Tensor
    surface: Tensor
    glass: Tensor
    glows: Tensor


def paint(products: Products, solid: Solid, point: Tensor) -> Paint:
    """Colour and surface at points (n, 3, m) on a product: of the nearest part, or of the label on the first."""
    part = solid.distances(point).argmin(1)
    role = torch.tensor([part.role for part in solid.design.parts], device=point.device)[part]
    colours = linear(palette(point.device))
    rgb = [colours[products.colour], colours[products.lid]]
    kind_of = [products.material, torch.where(products.material == 0, 0, 1)]
    for tone, surface in FIXED.values():
        rgb.append(linear(torch.tensor(tone, device=point.device)).expand(len(products), 3) if tone else rgb[1])
        kind_of.append(torch.full_like(products.material, surface))
    labelled = (part == 0) * label_mask(products, solid.design, point)
    albedo = torch.stack(rgb, 1).gather(1, role[..., None].expand(-1, -1, 3)).transpose(1, 2)
    albedo = albedo + (colours[products.accent][:, :, None] - albedo) * labelled[:, None]
    material = torch.stack(kind_of, 1).gather(1, role)
    paper = torch.where(material == GLASS, 0, material)
    material = torch.where(labelled > 0.5, paper, material)
    surface = torch.tensor(SURFACES, device=point.device)[material].transpose(1, 2)
    return Paint(albedo, surface, (material == GLASS).float(), (role == GLOW).float())


def label_mask(products: Products, plan: Design, point: Tensor) -> Tensor:
    """1 on the label, 0 elsewhere, (n, m). A band has two lines of print, in the colour of what is under it."""
    x, y, z = point.unbind(1)
    spot = plan.zone
    high, wide = spot.high[:, None], spot.wide[:, None]
    up = y - spot.y[:, None]
    across = torch.atan2(x, z) * wide / ROUND if spot.wraps else x
    front = z > 0
    band = up.abs() < high if spot.wraps else (up.abs() < high) & (across.abs() < wide * 1.2) & front
    line = ((up - high * 0.22).abs() < high * 0.10) & (across.abs() < wide * 0.70)
    second = ((up + high * 0.24).abs() < high * 0.06) & (across.abs() < wide * 0.40)
    band = band & ~((line | second) & front)
    circle = (across**2 + up**2 < torch.minimum(high, wide) ** 2) & front
    along = (up * math.cos(spot.lean) - x * math.sin(spot.lean)).abs()
    stripes = (along < high * 0.62) & (along > high * 0.26)
    if spot.lean:
        stripes = stripes & (up.abs() < wide)
    masks = torch.stack([torch.zeros_like(band), band, circle, stripes], 1)
    return masks.gather(1, products.label[:, None, None].expand(-1, 1, masks.shape[2]))[:, 0].float()


def linear(srgb: Tensor) -> Tensor:
    return srgb**2.2


def shown(light: Tensor) -> Tensor:
    """Linear light to sRGB; what is brighter than 0.8 is pressed together below 1."""
    over = (light - 0.8).clamp(min=0)
    return (torch.minimum(light, torch.tensor(0.8, device=light.device)) + 0.2 * (1 - torch.exp(-over * 2.5))).clamp(
        1e-5, 1
    ) ** (1 / 2.2)


def normals(solid: Solid, point: Tensor, reach: float = 0.011) -> Tensor:
    """Unit normals (n, 3, m) from four reads (tetrahedron technique, I. Quilez, "normals for an SDF")."""
    corners = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], device=point.device)
    total = torch.zeros_like(point)
    for corner in corners:
        total = total + corner[None, :, None] * solid.distance(point + reach * corner[None, :, None])[:, None]
    return F.normalize(total, dim=1, eps=1e-9)


def openness(solid: Solid, point: Tensor, normal: Tensor) -> Tensor:
    """Ambient occlusion of solid and ground, 0..1 (n, m): how free it is a little above the surface."""
    closed = torch.zeros_like(point[:, 0])
    for reach, weight in ((0.05, 0.5), (0.16, 0.5)):
        above = point + normal * reach
        free = torch.minimum(solid.distance(above), above[:, 1] + 0.01)
        closed = closed + weight * (1 - free / reach).clamp(0, 1)
    return 1 - 0.75 * closed


def lit(solid: Solid, point: Tensor, key: Tensor, sharp: float = 7.0, steps: int = 9) -> Tensor:
    """Share of the key light that arrives, (n, m): soft shadows (I. Quilez, "soft shadows in raymarched SDFs")."""
    t = torch.full_like(point[:, 0], 0.03)
    free = torch.ones_like(t)
    for _ in range(steps):
        distance = solid.distance(point + key[:, :, None] * t[:, None])
        free = torch.minimum(free, (0.5 + 0.5 * sharp * distance / t).clamp(0, 1))
        t = t + distance.clamp(0.02, 0.2)
    return free * free * (3 - 2 * free)


class Hit(NamedTuple):
    """Where rays met a product: point, normal, way (n, 3, m) in its own axes, and the view that turns them."""

    point: Tensor
    normal: Tensor
    way: Tensor
    basis: Tensor  # (n, 3, 3): to studio axes, upright


def upright(azimuth: Tensor) -> Tensor:
    """Rows: right, up and forwards of the studio, which turns with the camera but does not tilt, (n, 3, 3)."""
    a, none, one = azimuth, torch.zeros_like(azimuth), torch.ones_like(azimuth)
    return torch.stack([a.cos(), none, -a.sin(), none, one, none, a.sin(), none, a.cos()], 1).view(-1, 3, 3)


def shade(coat: Paint, hit: Hit, lamps: Lamps, share: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Linear colour (n, 3, m), highlight strength (n, m): diffuse light, and reflections (Fresnel by Schlick 1994).

    `share`: how much arrives from all around and from the key, (n, m) each.
    """
    opened, key_free = share
    normal, way = hit.basis @ hit.normal, hit.basis @ hit.way
    facing = -(normal * way).sum(1)
    mirror = way + 2 * facing[:, None] * normal
    key = ((torch.einsum("nc,ncm->nm", lamps.key, normal) + 0.15) / 1.15).clamp(min=0) * key_free
    fill = ((torch.einsum("nc,ncm->nm", lamps.fill, normal) + 0.4) / 1.4).clamp(min=0)
    strength = lamps.strength
    around = strength[:, 2:] * (0.72 + 0.28 * normal[:, 1]) * opened
    diffuse = strength[:, :1] * key + strength[:, 1:2] * fill * (0.4 + 0.6 * opened) + around
    share_diffuse, head_on, soft = coat.surface.unbind(1)
    gloss = (1 - soft).clamp(0.1, 1)
    fresnel = head_on + (1 - head_on) * (1 - facing.clamp(0, 1)) ** 5 * gloss * 0.6
    metal = (head_on > 0.5).float()
    sheen = surroundings(mirror, lamps, soft, 0.16 + 0.60 * metal) * (0.35 + 0.65 * opened)
    metal = metal[:, None]
    tint = metal * (coat.albedo * 0.9 + 0.06) * 0.62 + (1 - metal)
    colour = coat.albedo * (share_diffuse * diffuse)[:, None] + tint * (fresnel * sheen)[:, None]
    glow = coat.albedo * 1.25
    return colour + (glow - colour) * coat.glows[:, None], fresnel * sheen


def through_glass(solid: Solid, hit: Hit, eye: Tensor, coat: Paint) -> tuple[Tensor, Tensor]:
    """What glass covers, (n, m) of 0..1, and how much it darkens: more at its edges and where a liquid stands in it."""
    facing = -(hit.normal * hit.way).sum(1).clamp(-1, 0)
    edge = (1 - facing) ** 2.5
    level = solid.design.level[:, None]
    t = (level - eye[:, 1]) / torch.where(hit.way[:, 1].abs() < 1e-4, -1e-4, hit.way[:, 1])
    surface = eye + hit.way * t[:, None]
    reached = (solid.distance(surface) < -0.02) & (hit.point[:, 1] > level)
    wet = (hit.point[:, 1] < level).float()
    cover = 0.30 + 0.42 * edge + 0.48 * torch.maximum(wet, reached.float())
    dark = 1 - 0.5 * edge + 0.3 * reached
    clear = coat.glass
    return 1 - clear * (1 - cover.clamp(0, 1)), 1 + clear * (dark - 1)


# Pictures.


def draw_products(products: Products, size: int = SIZE, device: torch.device | str = "cpu", batch: int = 0) -> Sprite:
    """Draw all rows on `device`, kind by kind, at most `batch` at once. `size` is a multiple of 8, in px."""
    if size % 8:
        raise ValueError(f"size is a multiple of 8, not {size}")
    batch = batch or (4 if torch.device(device).type == "cpu" else 64)
    n = len(products)
    rgb, alpha = torch.zeros(n, 3, size, size, device=device), torch.zeros(n, 1, size, size, device=device)
    shadow = torch.zeros_like(alpha)
    for index, kind in enumerate(KINDS):
        rows = (products.kind == index).nonzero().squeeze(1)
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            sprite, where = draw_kind(kind, products.rows(some, device), size), some.to(device)
            rgb[where], alpha[where], shadow[where] = sprite.rgb, sprite.alpha, sprite.shadow
    return Sprite(rgb, alpha, shadow)


@torch.no_grad()
def draw_kind(kind: str, products: Products, size: int) -> Sprite:
    """Draw products of one kind, on their device: rays for size / 4, then size, then 2 size pixels, then averaged."""
    solid = build(design(kind, products.shape))
    view = look_at(products, solid.design)
    pixel = view.half[:, None] * (2 / size)
    grid = grid_for(view, size // 4)
    rays = cast(view, solid.design, grid)
    t = march(solid, rays, rays.near, 24, pixel * 2.9)
    rays = cast(view, solid.design, grid.finer(4))
    t = march(solid, rays, torch.maximum(finer(t, grid, 4), rays.near), 20, pixel * 0.25)
    grid = grid.finer(4)
    rays = cast(view, solid.design, grid.finer(2))
    t = settle(solid, rays, torch.maximum(finer(t, grid, 2), rays.near), 4)
    left = solid.distance(rays.at(t))
    inside = closed((2 - left / (0.25 * pixel * t)).clamp(0, 1) * (t < rays.far), grid.finer(2))
    colour, cover = surface_colour(products, solid, rays, t, grid)
    cover = (cover * inside)[:, None]
    colour, cover = (framed(value, grid) for value in (colour * cover, cover))
    return Sprite((colour / cover.clamp(min=1e-4)).clamp(0, 1), cover, ground_shadow(products, solid, view, size))


def closed(cover: Tensor, grid: Grid) -> Tensor:
    """Cover (n, m) with its pinholes filled, where rays halted in a crevice: widened by two pixels, then narrowed."""
    wide = F.max_pool2d(grid.square(cover), 5, stride=1, padding=2)
    return -F.max_pool2d(-wide, 5, stride=1, padding=2).flatten(1)


def framed(value: Tensor, grid: Grid) -> Tensor:
    """Twice finer values averaged to a grid's pixels, with nothing around them: (n, c, size, size)."""
    above, beside = (grid.size - grid.rows) // 2, (grid.size - grid.columns) // 2
    return F.pad(F.avg_pool2d(grid.finer(2).square(value), 2), (beside, beside, above, above))


def surface_colour(products: Products, solid: Solid, rays: Rays, t: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """sRGB colour (n, 3, m) and cover (n, m) where rays, twice finer than `grid`, stand at t."""
    point = rays.at(t)
    hit = Hit(point, normals(solid, point), rays.way, upright(products.azimuth))
    coat, lamps = paint(products, solid, point), lamps_of(products.light)
    key = (hit.basis.transpose(1, 2) @ lamps.key[:, :, None])[:, :, 0]
    at, normal = (grid.finer(2).square(value)[:, :, ::2, ::2].flatten(2) for value in (point, hit.normal))
    opened, arrives = openness(solid, at, normal), lit(solid, at + normal * 0.012, key)
    colour, sheen = shade(coat, hit, lamps, (finer(opened, grid, 2), finer(arrives, grid, 2)))
    cover, dark = through_glass(solid, hit, rays.eye, coat)
    cover = torch.maximum(cover, coat.glass * sheen.clamp(0, 1))
    return shown(colour * dark[:, None]), cover


def ground_shadow(products: Products, solid: Solid, view: View, size: int) -> Tensor:
    """How much the ground is darkened, (n, 1, size, size): contact, and the key light's soft shadow, which fades."""
    small = Grid(size // 2, size // 2, size // 2)
    rays = cast(view, solid.design, small)
    down = rays.way[:, 1]
    point = rays.at(-rays.eye[:, 1] / torch.where(down > -0.01, -0.01, down))
    contact, near = torch.zeros_like(down), torch.zeros_like(down)
    for height, reach, weight in ((0.015, 0.045, 0.42), (0.04, 0.15, 0.26), (0.10, 0.36, 0.14)):
        near = beyond(solid, point + torch.tensor([0.0, height, 0.0], device=down.device)[:, None])
        contact = contact + weight * (1 - near / reach).clamp(0, 1) ** 2
    lamps = lamps_of(products.light)
    key = (upright(products.azimuth).transpose(1, 2) @ lamps.key[:, :, None])[:, :, 0]
    blocked = 1 - lit(solid, point + key[:, :, None] * 0.02, key, 3.0, 12)
    blocked = blocked * lamps.strength[:, :1] * 0.44 * torch.exp(-((near / 0.34) ** 2))
    clear = torch.where(products.material == GLASS, 0.55, 1.0)[:, None]
    dark = small.square((1 - (1 - contact) * (1 - blocked)) * clear * (down < -0.01))
    line = ((torch.arange(size // 2, device=down.device) + 0.5) * (4 / size) - 1).abs()
    fade = ((1 - line) / 0.14).clamp(0, 1)
    dark = dark * (fade[:, None] * fade)
    return F.interpolate(dark, size=(size, size), mode="bilinear").clamp(0, 1)


def beyond(solid: Solid, point: Tensor) -> Tensor:
    """Distance that holds outside the box too: at least that to the box."""
    low, high = torch.tensor([LOW, HIGH], device=point.device)[:, :, None]
    inside = torch.minimum(torch.maximum(point, low), high)
    return (solid.distance(inside).clamp(min=0) ** 2 + ((point - inside) ** 2).sum(1)).sqrt()


# Contact sheet.


def sheet(sprite: Sprite, grounds: Tensor, columns: int) -> Image.Image:
    """All sprites on plain grounds (n, 3), in a grid."""
    pictures = sprite.over(grounds[:, :, None, None].expand_as(sprite.rgb))
    n, size = pictures.shape[0], pictures.shape[2]
    rows = -(-n // columns)
    padded = torch.cat([pictures, torch.ones(rows * columns - n, *pictures.shape[1:])])
    grid = padded.view(rows, columns, 3, size, size).permute(0, 3, 1, 4, 2).reshape(rows * size, columns * size, 3)
    return Image.fromarray((grid * 255).round().byte().numpy())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.pocket.products", description="Draw a sheet of products.")
    parser.add_argument("-n", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a PNG")
    parser.add_argument("--kind", choices=list(KINDS))
    parser.add_argument("--identity", type=int, help="draw one product in many views and lights")
    parser.add_argument("--size", type=int, default=SIZE)
    args = parser.parse_args(arguments)
    held: dict[str, Held] = {"kind": args.kind} if args.kind else {}
    if args.identity is not None:
        held = identity(args.identity, **held)
    generator = torch.Generator().manual_seed(args.seed)
    products = sample_products(args.n, generator, **held)
    away = (products.colour + torch.randint(1, len(COLOURS), (args.n,), generator=generator)) % len(COLOURS)
    grounds = palette()[away] * 0.35 + 0.62
    sheet(draw_products(products, args.size), grounds, min(6, args.n)).save(args.out)
    print("\n".join(f"{row + 1:3} {line}" for row, line in enumerate(told(products))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

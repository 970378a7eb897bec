"""Solids that products are made of: drawn as outlines, kept as small pictures of distance, read at any point.

An outline in a plane becomes a solid of revolution ("ry"), an extrusion ("xy", "zy", "xz") or a bent rod (a path in
"xy"). Its exact 2-D distance is computed once on a grid, so that reading a solid costs one look-up however fine its
outline is. y is up, the ground is y = 0, a solid is about one unit big. u is a row of shape numbers in 0..1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Number = Tensor | float
BODY, LID, STEEL, DARK, PALE, GLOW, CLOTH = range(7)  # what a part is made of
LOW, HIGH = (-0.9, -0.1, -0.9), (0.9, 1.3, 0.9)  # the box that all solids lie in: x, y, z
ROUND = 0.6  # half width of a label on a solid of revolution, in its radius
PLANES = {"ry": (0, 1), "xy": (0, 1), "zy": (2, 1), "xz": (0, 2)}  # the axes of a plane; the first of "ry" is a radius
GRID = {"ry": (192, 104), "xy": (160, 192), "zy": (160, 192), "xz": (160, 160)}  # rows, columns


class Piece(NamedTuple):
    """One outline (n, k, 2). Extruded by `depth` (n,) about `offset`, or a rod of `radius` (n, k) along it.

    `sign` -1 cuts it away from the pieces beside it. `round` rounds edges, and grows the piece by as much.
    """

    plane: str
    outline: Tensor
    depth: Tensor | None = None
    radius: Tensor | None = None
    offset: Number = 0.0
    round: float = 0.008
    sign: int = 1
    flat: float = 1.0  # a rod's thickness across its plane, as a part of its thickness in it
    blend: float = 0.0  # how smoothly it meets the pieces before it


class Part(NamedTuple):
    """What several pieces have in common (the largest of their distances), and its role."""

    role: int
    pieces: tuple[Piece, ...]


class Zone(NamedTuple):
    """Where a label goes: centre height, half height, half width, each (n,); `wraps` around a solid of revolution."""

    y: Tensor
    high: Tensor
    wide: Tensor
    wraps: bool
    lean: float = 0.0  # radians that stripes lean


class Design(NamedTuple):
    """n solids of one kind as parts; `level` (n,) is how high a liquid stands in them, if they are of glass."""

    parts: tuple[Part, ...]
    zone: Zone
    level: Tensor


@dataclass(frozen=True)
class Solid:
    """A design ready to be read. `maps`: for each plane the distances of its pieces, (n, channels, rows, columns)."""

    design: Design
    maps: dict[str, Tensor]

    def distances(self, point: Tensor) -> Tensor:
        """Signed distance of each part at `point` (n, 3, m): (n, parts, m). Points outside the box are pulled in."""
        x, y, z = point.unbind(1)
        axes = {"ry": (torch.sqrt(x * x + z * z + 1e-9), y), "xy": (x, y), "zy": (z, y), "xz": (x, z)}
        across = {"ry": x, "xy": z, "zy": x, "xz": y}
        read = {plane: iter(look_up(plane, image, axes[plane]).unbind(1)) for plane, image in self.maps.items()}
        rows: list[Tensor] = []
        for part in self.design.parts:
            total: Tensor | None = None
            for piece in part.pieces:
                distance = spatial(piece, read[piece.plane], across[piece.plane])
                total = distance if total is None else smooth_max(total, distance, piece.blend)
            assert total is not None
            rows.append(total)
        return torch.stack(rows, 1)

    def distance(self, point: Tensor) -> Tensor:
        """Signed distance at `point` (n, 3, m): (n, m)."""
        return self.distances(point).amin(1)


def spatial(piece: Piece, read: Iterator[Tensor], w: Tensor) -> Tensor:
    """A piece's distance in space from its distance in its plane and the coordinate across it, (n, m)."""
    flat = next(read)
    w = w - (piece.offset[:, None] if isinstance(piece.offset, Tensor) else piece.offset)
    if piece.radius is not None:
        return torch.sqrt(flat * flat + (w / piece.flat) ** 2 + 1e-9) - next(read)
    if piece.depth is not None:
        out = w.abs() - piece.depth[:, None]
        flat = torch.maximum(flat, out).clamp(max=0) + torch.sqrt(flat.clamp(min=0) ** 2 + out.clamp(min=0) ** 2)
    return (flat - piece.round) * piece.sign


def smooth_max(a: Tensor, b: Tensor, k: float) -> Tensor:
    """The larger, rounded over k where both are near (polynomial smooth minimum, I. Quilez, "smooth minimum")."""
    if not k:
        return torch.maximum(a, b)
    h = (k - (a - b).abs()).clamp(min=0) / k
    return torch.maximum(a, b) + h * h * (k / 4)


def look_up(plane: str, image: Tensor, axes: tuple[Tensor, Tensor]) -> Tensor:
    """Read distances (n, c, rows, columns) at coordinates (n, m) each, bilinearly: (n, c, m)."""
    (x0, x1), (y0, y1) = span_of(plane)
    a, b = axes
    grid = torch.stack([(a - x0) * (2 / (x1 - x0)) - 1, (b - y0) * (2 / (y1 - y0)) - 1], -1)
    return F.grid_sample(image, grid[:, :, None], padding_mode="border", align_corners=True)[..., 0]


def span_of(plane: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Least and greatest coordinate that a plane's map holds, for both its axes."""
    a, b = PLANES[plane]
    return (0.0 if plane == "ry" else LOW[a], HIGH[a]), (LOW[b], HIGH[b])


def build(design: Design) -> Solid:
    """Compute the maps of a design, on the device of its outlines."""
    channels: dict[str, list[Tensor]] = {}
    known: dict[int, list[Tensor]] = {}  # outlines that several pieces share are computed once
    for part in design.parts:
        for piece in part.pieces:
            if id(piece.outline) not in known:
                known[id(piece.outline)] = flat_distance(piece)
            channels.setdefault(piece.plane, []).extend(known[id(piece.outline)])
    return Solid(design, {plane: torch.stack(maps, 1) for plane, maps in channels.items()})


def flat_distance(piece: Piece) -> list[Tensor]:
    """Distance to an outline on its plane's grid, (n, rows, columns): signed for an area; for a rod also its radius.

    After I. Quilez, "2D distance functions" (polygon, segment), https://iquilezles.org/articles/distfunctions2d/.
    """
    (x0, x1), (y0, y1) = span_of(piece.plane)
    rows, columns = GRID[piece.plane]
    x = torch.linspace(x0, x1, columns, device=piece.outline.device)[None, None, :]
    y = torch.linspace(y0, y1, rows, device=piece.outline.device)[None, :, None]
    points = piece.outline[:, :, :, None, None]
    best = torch.full((len(points), rows, columns), 1e9, device=x.device)
    sign, radius = torch.ones_like(best), torch.zeros_like(best)
    first = 1 if piece.radius is not None else 0
    for j in range(first, points.shape[1]):
        (ax, ay), (bx, by) = points[:, j - 1].unbind(1), points[:, j].unbind(1)
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        h = ((wx * ex + wy * ey) / (ex * ex + ey * ey + 1e-12)).clamp(0, 1)
        away = (wx - ex * h) ** 2 + (wy - ey * h) ** 2
        if piece.radius is None:
            crosses = ((ay <= y) != (by <= y)) & ((ex * wy > ey * wx) == (by > ay))
            sign = torch.where(crosses, -sign, sign)
        else:
            thick = piece.radius[:, :, None, None]
            radius = torch.where(away < best, thick[:, j - 1] + (thick[:, j] - thick[:, j - 1]) * h, radius)
        best = torch.minimum(best, away)
    return [best.sqrt() * sign] if piece.radius is None else [best.sqrt(), radius]


def hull(design: Design) -> Tensor:
    """Points (n, m, 3) whose convex hull holds a design: what a camera must see."""
    return torch.cat([piece_hull(part.pieces[0]) for part in design.parts], 1)


def piece_hull(piece: Piece) -> Tensor:
    a, b = piece.outline.unbind(2)
    if piece.plane == "ry":
        turn = torch.arange(8, device=a.device) * (torch.pi / 4)
        ring = torch.stack([turn.cos(), torch.zeros_like(turn), turn.sin()], 1)
        a = a.clamp(min=0) + piece.round
        return (a[:, :, None, None] * ring + b[:, :, None, None] * torch.tensor([0.0, 1, 0], device=a.device)).flatten(
            1, 2
        )
    grown = torch.full_like(a, piece.round) if piece.radius is None else piece.radius
    reach = grown.amax(1) * piece.flat if piece.depth is None else piece.depth + piece.round
    corners: list[Tensor] = []
    for side in (-1.0, 1.0):
        w = (piece.offset + side * reach)[:, None].expand_as(a)
        for da, db in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            p = {"xy": (a + da * grown, b + db * grown, w), "zy": (w, b, a), "xz": (a, w, b)}[piece.plane]
            corners.append(torch.stack(p, 2))
    return torch.cat(corners, 1)


# Outlines.


def span(u: Tensor, low: float, high: float) -> Tensor:
    """low where u is 0, high where it is 1."""
    return low + (high - low) * u


def points(*pairs: tuple[Number, Number]) -> Tensor:
    """(n, k, 2) from k pairs of numbers or (n,) tensors, of which one at least is a tensor."""
    one = next(value for pair in pairs for value in pair if isinstance(value, Tensor))
    return torch.stack([torch.stack([a + 0 * one, b + 0 * one], 1) for a, b in pairs], 1)


def smooth(outline: Tensor, times: int = 3, closed: bool = False) -> Tensor:
    """Cut corners (Chaikin 1974), so that a few points make a curve. A point given twice stays a corner."""
    for _ in range(times):
        after = outline.roll(-1, 1) if closed else outline[:, 1:]
        before = outline if closed else outline[:, :-1]
        cut = torch.stack([before * 0.75 + after * 0.25, before * 0.25 + after * 0.75], 2).flatten(1, 2)
        outline = cut if closed else torch.cat([outline[:, :1], cut, outline[:, -1:]], 1)
    return outline


def turned(*pairs: tuple[Number, Number], times: int = 3) -> Tensor:
    """The outline of a solid of revolution from (radius, height) pairs, bottom to top, closed through the axis."""
    return smooth(points((-0.3, pairs[0][1]), *pairs, (-0.3, pairs[-1][1])), times)


def lathe(role: int, *pairs: tuple[Number, Number], round: float = 0.008, times: int = 3) -> Part:
    return Part(role, (Piece("ry", turned(*pairs, times=times), round=round),))


def drum(role: int, radius: Number, low: Number, high: Number, round: float = 0.012) -> Part:
    """A plain cylinder."""
    edges = (radius - round, low + round), (radius - round, high - round)
    outline = points((-0.3, low + round), *edges, (-0.3, high - round))
    return Part(role, (Piece("ry", outline, round=round),))


def rectangle(wide: Number, low: Number, high: Number, middle: Number = 0.0) -> Tensor:
    """A rectangle of half width `wide` between two heights."""
    return points((middle - wide, low), (middle + wide, low), (middle + wide, high), (middle - wide, high))


def rod(role: int, path: Tensor, radius: Number, offset: Number = 0.0, flat: float = 1.0) -> Part:
    """A bent rod along a path (n, k, 2) in "xy"; `radius` a number, (n,) or (n, k)."""
    one = torch.ones_like(path[..., 0])
    thick = radius[:, None] * one if isinstance(radius, Tensor) and radius.dim() == 1 else radius * one
    return Part(role, (Piece("xy", path, radius=thick, offset=offset, flat=flat),))


def block(role: int, wide: Tensor, heights: tuple[Number, Number], depth: Tensor, round: float = 0.015) -> Part:
    low, high = heights
    outline = rectangle(wide - round, low + round, high - round)
    return Part(role, (Piece("xy", outline, depth=depth - round, round=round),))


def zone(y: Number, high: Number, wide: Number, one: Tensor, wraps: bool = True) -> Zone:
    return Zone(y + 0 * one, high + 0 * one, wide + 0 * one, wraps)


# Kinds: u (n, 6) of 0..1 → Design. u[0] is always how slender it is.


def bottle(u: Tensor) -> Design:
    r, neck, shoulder = span(u[:, 0], 0.29, 0.16), span(u[:, 2], 0.36, 0.52), span(u[:, 1], 0.50, 0.68)
    n, waist, top = r * neck, 1 - span(u[:, 4], 0, 0.14), span(u[:, 3], 0.08, 0.17)
    body = lathe(
        BODY, (r - 0.04, 0.008), (r - 0.01, 0.01), (r, 0.05), (r, 0.12), (r * waist, shoulder * 0.5),
        (r, shoulder), (r, shoulder + 0.10), (n, shoulder + 0.12), (n, shoulder + 0.24), (n, 0.98), (n, 0.98),
    )  # fmt: skip
    cap = drum(LID, n + 0.022, 1.0 - top * 0.6, 1.0 + top * 0.5, 0.014)
    return Design((body, cap), zone(shoulder * 0.5, shoulder * 0.28, r * ROUND, r), shoulder * 0.98)


def wine_bottle(u: Tensor) -> Design:
    r, shoulder = span(u[:, 0], 0.185, 0.140), span(u[:, 1], 0.58, 0.68)
    n, slope = r * span(u[:, 2], 0.34, 0.40), span(u[:, 3], 0.03, 0.14)
    body = lathe(
        BODY, (r - 0.02, 0.008), (r - 0.004, 0.008), (r, 0.03), (r, shoulder), (r, shoulder + slope * 0.5),
        (n * 1.15, shoulder + 0.08 + slope), (n, shoulder + 0.20 + slope * 0.7), (n, 1.14), (n, 1.14),
    )  # fmt: skip
    foil = drum(LID, n + 0.012, 0.98, 1.18, 0.008)
    ring = drum(LID, n + 0.022, 1.13, 1.16, 0.008)
    return Design((body, foil, ring), zone(shoulder * 0.48, shoulder * 0.26, r * ROUND, r), shoulder + 0.12)


def can(u: Tensor) -> Design:
    r, neck = span(u[:, 0], 0.36, 0.22), span(u[:, 1], 0.80, 0.92)
    body = lathe(
        BODY, (r * 0.76, 0.012), (r * 0.80, 0.012), (r, 0.06), (r, 0.12), (r, 0.88), (r, 0.92), (r * neck, 0.965),
        (r * neck, 0.965),
    )  # fmt: skip
    t = r * neck
    rim = lathe(STEEL, (t, 0.962), (t, 0.962), (t, 0.99), (t, 0.99), (t - 0.022, 0.99), (t - 0.022, 0.99),
                (t - 0.03, 0.965), (t - 0.03, 0.965), round=0.007)  # fmt: skip
    tab = rod(STEEL, points((-0.02 + 0 * r, 0.982), (0.09, 0.984)), 0.045, flat=0.9)
    tab = Part(STEEL, (tab.pieces[0], Piece("xy", rectangle(0.2 + 0 * r, 0.97, 0.982), depth=0.2 + 0 * r)))
    top = drum(STEEL, t - 0.01, 0.94, 0.974, 0.004)
    return Design((body, rim, tab, top), zone(0.48, 0.27, r * ROUND, r), 0 * r - 1)


def jar(u: Tensor) -> Design:
    r, high = span(u[:, 0], 0.42, 0.27), span(u[:, 1], 0.66, 0.80)
    n, lid = r * span(u[:, 2], 0.74, 0.94), span(u[:, 3], 0.10, 0.17)
    body = lathe(
        BODY, (r - 0.06, 0.008), (r - 0.02, 0.008), (r, 0.04), (r, 0.10), (r, high - 0.14), (r, high - 0.04),
        (n, high - 0.02), (n, high + 0.04), (n, high + 0.04),
    )  # fmt: skip
    cap = drum(LID, n + 0.025, high + 0.015, high + 0.02 + lid, 0.018)
    return Design((body, cap), zone(high * 0.46, high * 0.24, r * ROUND, r), high * 0.82)


def mug(u: Tensor) -> Design:
    r, foot, high = span(u[:, 0], 0.40, 0.29), span(u[:, 1], 0.78, 1.02), 0.80
    low, wall = r * foot, 0.035
    body = lathe(
        BODY, (low - 0.06, 0.01), (low - 0.03, 0.01), (low, 0.05), (low + (r - low) * 0.2, 0.16), (r, 0.5),
        (r, high), (r, high), (r - wall, high), (r - wall, high), (r - wall, 0.5), (low - wall, 0.12),
        (low - 0.1, 0.06),
    )  # fmt: skip
    out, drop = span(u[:, 2], 0.22, 0.30), span(u[:, 3], 0.20, 0.12)
    path = points((r + 0.014, high - 0.12), (r + out * 0.7, high - 0.06), (r + out, high - 0.30),
                  (r + out * 0.75, drop + 0.06), (low + (r - low) * 0.4 - 0.02, drop + 0.06))  # fmt: skip
    handle = rod(BODY, smooth(path), span(u[:, 4], 0.034, 0.048), flat=1.35)
    drink = drum(DARK, r - wall + 0.005, 0.3, high - 0.10, 0.004)
    return Design((body, handle, drink), zone(0.40, 0.20, r * ROUND, r), 0 * r - 1)


def cup(u: Tensor) -> Design:
    r, foot = span(u[:, 0], 0.36, 0.26), span(u[:, 1], 0.66, 0.78)
    low, high = r * foot, 0.86
    body = lathe(BODY, (low - 0.01, 0.008), (low - 0.01, 0.008), (r - 0.02, high), (r - 0.02, high), times=1)
    sleeve = lathe(LID, (r, high - 0.012), (r + 0.01, high - 0.012), (r + 0.012, high + 0.01), (r - 0.02, high + 0.03),
                   (r - 0.035, high + 0.09), (r - 0.035, high + 0.10), (r - 0.055, high + 0.10),
                   (r - 0.055, high + 0.10),
                   (r - 0.07, high + 0.075), (r - 0.07, high + 0.075), round=0.01)  # fmt: skip
    sip = rod(DARK, points((r - 0.15, high + 0.088), (r - 0.11, high + 0.088)), 0.02, flat=2.4)
    return Design((body, sleeve, sip), zone(0.45, 0.19, r * ROUND, r), 0 * r - 1)


def box(u: Tensor) -> Design:
    wide, high, deep = span(u[:, 0], 0.52, 0.27), span(u[:, 1], 0.50, 0.85), span(u[:, 2], 0.24, 0.38)
    lid = span(u[:, 3], 0.12, 0.24)
    body = block(BODY, wide, (0.0, high), deep, 0.008)
    top = block(LID, wide + 0.018, (high - lid, high + 0.02), deep + 0.018, 0.010)
    return Design((body, top), zone((high - lid) * 0.5, (high - lid) * 0.24, wide * 0.5, wide, False), 0 * wide - 1)


def carton(u: Tensor) -> Design:
    wide, high, peak = span(u[:, 0], 0.32, 0.22), span(u[:, 1], 0.68, 0.78), span(u[:, 2], 0.16, 0.24)
    house = points(
        (-wide, 0.01), (wide, 0.01), (wide, high), (0.012, high + peak), (-0.012, high + peak), (-wide, high)
    )
    body = Part(BODY, (Piece("zy", house, depth=wide, round=0.006),))
    crimp = Part(BODY, (Piece("zy", rectangle(0.010 + 0 * wide, high + peak - 0.02, high + peak + 0.09), depth=wide),))
    foot = high + peak * 0.5
    pin = rod(LID, points((0 * wide, foot - 0.10), (0 * wide, foot + 0.30)), 0.066, offset=wide * 0.5).pieces[0]
    cap = Part(LID, (Piece("xy", rectangle(0.2 + 0 * wide, foot - 0.08, foot + 0.075), depth=wide, round=0.0),
                     pin._replace(blend=0.02)))  # fmt: skip
    return Design((body, crimp, cap), zone(high * 0.5, high * 0.26, wide * 0.62, wide, False), 0 * wide - 1)


def tube(u: Tensor) -> Design:
    r, cap = span(u[:, 0], 0.23, 0.15), span(u[:, 1], 0.14, 0.26)
    pipe = turned((r * 0.9, cap), (r, cap + 0.02), (r, cap + 0.05), (r, 0.6), (r * 1.04, 1.12), (r * 1.04, 1.12))
    wedge = points((-r * 1.1, cap), (r * 1.1, cap), (r * 1.02, cap + 0.12), (r * 0.70, 0.66), (0.014, 1.06),
        (0.012, 1.13),
                   (-0.012, 1.13), (-0.014, 1.06), (-r * 0.70, 0.66), (-r * 1.02, cap + 0.12))  # fmt: skip
    body = Part(BODY, (Piece("ry", pipe, round=0.004), Piece("zy", wedge, depth=r * 1.3, round=0.004, blend=0.05)))
    lid = lathe(LID, (r - 0.03, 0.012), (r - 0.012, 0.012), (r - 0.008, 0.03), (r - 0.004, cap - 0.012),
                (r - 0.004, cap - 0.012), round=0.008)  # fmt: skip
    return Design((body, lid), zone(0.58, 0.20, r * 0.6, r, False), 0 * r - 1)


def perfume(u: Tensor) -> Design:
    wide, high, deep = span(u[:, 0], 0.42, 0.25), span(u[:, 1], 0.56, 0.70), span(u[:, 2], 0.13, 0.20)
    shoulder = span(u[:, 3], 0.01, 0.14)
    s = shoulder
    sides = points((-wide, 0.02), (-wide, 0.02), (wide, 0.02), (wide, 0.02), (wide, high - s), (wide, high),
        (wide - s, high),
                   (s - wide, high), (-wide, high), (-wide, high - s))  # fmt: skip
    body = Part(BODY, (Piece("xy", smooth(sides, closed=True), depth=deep - 0.02, round=0.02),))
    collar = drum(STEEL, 0.085 + 0 * wide, high, high + 0.07, 0.008)
    tall = span(u[:, 4], 0.16, 0.26)
    round_cap = drum(LID, 0.125 + 0 * wide, high + 0.06, high + 0.06 + tall, 0.02)
    return Design((body, collar, round_cap), zone(high * 0.45, high * 0.20, wide * 0.5, wide, False), high * 0.8)


def candle(u: Tensor) -> Design:
    r, high, wall = span(u[:, 0], 0.36, 0.24), 0.68, 0.025
    body = lathe(
        BODY, (r - 0.04, 0.01), (r - 0.01, 0.01), (r, 0.05), (r, 0.12), (r, high), (r, high), (r - wall, high),
        (r - wall, high), (r - wall, 0.3), (r - wall, 0.3),
    )  # fmt: skip
    wax = drum(PALE, r - wall + 0.004, 0.1, high - 0.06, 0.006)
    wick = rod(DARK, points((0 * r, high - 0.07), (0.004, high + 0.0)), 0.011)
    tall = span(u[:, 3], 0.16, 0.22)
    flame = lathe(GLOW, (0.01 + 0 * r, high - 0.005), (0.045, high + 0.02), (0.042, high + tall * 0.45),
                  (0.012, high + tall * 0.75), (0.0, high + tall), round=0.006)  # fmt: skip
    return Design((body, wax, wick, flame), zone(0.32, 0.17, r * ROUND, r), 0 * r - 1)


def lamp(u: Tensor) -> Design:
    r, low = span(u[:, 0], 0.42, 0.30), span(u[:, 1], 0.58, 0.66)
    top, belly = r * span(u[:, 2], 0.45, 0.85), span(u[:, 3], 0.06, 0.20)
    foot = span(u[:, 4], 0.17, 0.24)
    base = lathe(
        BODY, (foot - 0.02, 0.01), (foot, 0.01), (foot, 0.035), (foot - 0.03, 0.05), (0.05, 0.07), (belly, 0.14),
        (belly * 1.15, 0.27), (belly * 0.7, 0.40), (0.024, 0.47), (0.022, 0.58), (0.022, low + 0.2),
    )  # fmt: skip
    cone = points((r, low), (top, 1.06), (top - 0.035, 1.06), (r - 0.035, low))
    shade = Part(CLOTH, (Piece("ry", cone, round=0.006),))
    bulb = lathe(
        GLOW, (0.02 + 0 * r, low + 0.10), (0.07, low + 0.14), (0.08, low + 0.22), (0.05, low + 0.28), (0.0, low + 0.29)
    )
    return Design((base, shade, bulb), zone(0.2, 0.1, 0.1, r), 0 * r - 1)


def bag(u: Tensor) -> Design:
    wide, high, deep = span(u[:, 0], 0.42, 0.28), span(u[:, 1], 0.70, 0.82), span(u[:, 2], 0.15, 0.22)
    out = rectangle(wide, 0.01, high)
    fold = points(
        (-deep, 0.01), (deep, 0.01), (deep, high * 0.4), (deep * 0.80, high), (-deep * 0.80, high), (-deep, high * 0.4)
    )
    hole = points(
        (-deep * 0.9, 0.1), (deep * 0.9, 0.1), (deep * 0.80 - 0.012, high + 0.1), (0.012 - deep * 0.80, high + 0.1)
    )
    body = Part(BODY, (Piece("xy", out, depth=deep, round=0.005), Piece("zy", fold, depth=wide, round=0.005),
                       Piece("zy", hole, depth=wide - 0.016, round=0.0, sign=-1)))  # fmt: skip
    arc, grip = span(u[:, 3], 0.16, 0.24), wide * span(u[:, 4], 0.34, 0.50)
    path = smooth(points((-grip, high - 0.06), (-grip, high + arc * 0.5), (-grip * 0.75, high + arc),
        (grip * 0.75, high + arc),
                         (grip, high + arc * 0.5), (grip, high - 0.06)))  # fmt: skip
    front, back = (rod(CLOTH, path, 0.014, offset=side * (deep * 0.80 + 0.012)) for side in (1.0, -1.0))
    return Design((body, front, back), zone(high * 0.45, high * 0.20, wide * 0.5, wide, False), 0 * wide - 1)


def vase(u: Tensor) -> Design:
    r, neck, lip = span(u[:, 0], 0.40, 0.24), span(u[:, 1], 0.35, 0.62), span(u[:, 2], 0.5, 0.95)
    belly, foot = span(u[:, 3], 0.28, 0.52), r * span(u[:, 4], 0.45, 0.75)
    n, t = r * neck, r * lip
    body = lathe(
        BODY, (foot - 0.02, 0.01), (foot, 0.01), (foot, 0.03), (foot + 0.02, 0.06), (r, belly - 0.12),
            (r, belly + 0.14),
        (n, 0.66), (n, 0.82), (t, 0.98), (t, 0.98), (t - 0.03, 0.99), (t - 0.03, 0.985), (n - 0.035, 0.82),
        (n - 0.04, 0.66),
        (n - 0.04, 0.5), (n - 0.06, 0.4), times=3,
    )  # fmt: skip
    return Design((body,), zone(belly, 0.13, r * ROUND, r), 0 * r - 1)


def teapot(u: Tensor) -> Design:
    r, high = span(u[:, 0], 0.40, 0.31), span(u[:, 1], 0.50, 0.60)
    body = lathe(
        BODY, (r * 0.55, 0.01), (r * 0.60, 0.01), (r * 0.60, 0.03), (r * 0.85, 0.05), (r * 1.06, high * 0.35),
        (r, high * 0.8), (r * 0.62, high), (r * 0.5, high + 0.01),
    )  # fmt: skip
    knob = span(u[:, 2], 0.038, 0.06)
    lid = lathe(
        LID, (r * 0.52, high - 0.01), (r * 0.54, high), (r * 0.50, high + 0.035), (r * 0.25, high + 0.08),
            (0.02, high + 0.09),
        (0.024, high + 0.105), (knob, high + 0.11), (knob * 1.1, high + 0.11 + knob),
        (knob * 0.6, high + 0.11 + 2 * knob),
        (0.0, high + 0.11 + 2 * knob),
    )  # fmt: skip
    out = span(u[:, 3], 0.22, 0.30)
    spout = smooth(points((r * 0.75, high * 0.30), (r + out * 0.45, high * 0.34), (r + out * 0.55, high * 0.75),
                          (r + out, high + 0.02)))  # fmt: skip
    along = torch.linspace(0, 1, spout.shape[1], device=u.device)
    pipe = rod(BODY, spout, (0.095 - 0.058 * along.sqrt())[None].expand(len(u), -1))
    loop = smooth(points((-r * 0.75, high * 0.86), (-r - 0.10, high * 1.05), (-r - 0.26, high * 0.95),
        (-r - 0.24, high * 0.5),
                         (-r * 0.9, high * 0.24)))  # fmt: skip
    handle = rod(BODY, loop, span(u[:, 4], 0.030, 0.042), flat=1.2)
    return Design((body, lid, pipe, handle), zone(high * 0.48, high * 0.16, r * ROUND, r), 0 * r - 1)


def sneaker(u: Tensor) -> Design:
    ankle, toe, one = span(u[:, 0], 0.40, 0.60), span(u[:, 1], 0.17, 0.24), 0 * u[:, 0]
    sole = span(u[:, 2], 0.07, 0.12)
    foot = smooth(points((-0.52 + one, -0.08), (-0.54, 0.08), (-0.35, 0.155), (-0.05, 0.12), (0.25, 0.18), (0.50, 0.14),
                         (0.58, 0.0), (0.52, -0.13), (0.25, -0.185), (-0.05, -0.145), (-0.35, -0.155)),
                         times=2, closed=True)  # fmt: skip
    top = ankle
    side = smooth(points((-0.52 + one, 0.02), (-0.52, 0.02), (-0.54, 0.16), (-0.50, top - 0.08), (-0.53, top + 0.03),
                         (-0.46, top + 0.04), (-0.40, top - 0.08), (-0.24, top - 0.09), (-0.16, top),
                         (-0.10, top + 0.01),
                         (0.16, toe + 0.12), (0.30, toe + 0.04), (0.50, toe + 0.03), (0.57, toe - 0.04),
                         (0.57, 0.02), (0.57, 0.02)),
                  times=2, closed=True)  # fmt: skip
    hole = smooth(points((-0.46 + one, top - 0.10), (-0.46, top + 0.2), (-0.14, top + 0.2), (-0.16, top - 0.14),
        (-0.3, top - 0.2)),
                  times=2, closed=True)  # fmt: skip
    upper = Part(BODY, (Piece("xy", side, depth=0.17 + one, round=0.0),
        Piece("xz", foot, depth=0.7 + one, round=-0.012, blend=0.13),
                        Piece("xy", hole, depth=0.07 + one, round=0.02, sign=-1, blend=0.03)))  # fmt: skip
    tread = smooth(
        points((-0.60 + one, 0.03), (-0.60, 0.3), (0.62, 0.3), (0.66, 0.08), (0.48, 0.0), (-0.5, 0.0)), 2, closed=True
    )
    base = Part(LID, (Piece("xz", foot, depth=sole / 2, offset=sole / 2, round=0.014),
                      Piece("xy", tread, depth=0.3 + one, blend=0.03)))  # fmt: skip
    tongue = rod(LID, points((0.12 + one, toe + 0.12), (-0.10, top - 0.005), (-0.17, top + 0.05)), 0.022, flat=3.4)
    parts = [upper, base, tongue]
    for at in (0.08, 0.36, 0.64, 0.92):
        x, y = -0.08 + 0.22 * at + one, top + 0.022 + (toe + 0.115 - top) * at
        parts.append(rod(PALE, points((x - 0.012, y), (x + 0.012, y - 0.006)), 0.015, flat=5.4))
    return Design(tuple(parts), zone(sole + 0.10, 0.13, 0.10, one, False)._replace(lean=1.15), one - 1)


def headphones(u: Tensor) -> Design:
    one = 0 * u[:, 0]
    wide, high, cup_r = span(u[:, 0], 0.44, 0.34), 1.0 + one, span(u[:, 1], 0.19, 0.25)
    band = smooth(points((-wide, cup_r), (-wide, cup_r), (-wide - 0.02, high * 0.72), (-wide * 0.72, high),
        (0 * wide, high + 0.06),
                         (wide * 0.72, high), (wide + 0.02, high * 0.72), (wide, cup_r), (wide, cup_r)))  # fmt: skip
    arc = rod(BODY, band, 0.026, flat=2.2)
    turn = torch.arange(40, device=u.device) * (torch.pi / 20)
    ring = torch.stack([turn.cos() * cup_r[:, None] * 0.84, turn.sin() * cup_r[:, None] + cup_r[:, None] + 0.05], 2)
    parts = [arc]
    for side in (-1.0, 1.0):
        parts.append(Part(BODY, (Piece("zy", ring, depth=0.012 + one, offset=side * (wide + 0.03), round=0.05),)))
        parts.append(Part(LID, (Piece("zy", ring, depth=0.03 + one, offset=side * (wide - 0.05), round=0.034),)))
    return Design(tuple(parts), zone(cup_r, 0.1, 0.1, one, False), one - 1)


KINDS: dict[str, Callable[[Tensor], Design]] = {
    "bottle": bottle, "wine bottle": wine_bottle, "can": can, "jar": jar, "mug": mug, "cup": cup, "box": box,
    "carton": carton, "tube": tube, "perfume bottle": perfume, "candle": candle, "lamp": lamp, "shopping bag": bag,
    "vase": vase, "teapot": teapot, "sneaker": sneaker, "headphones": headphones,
}  # fmt: skip


def design(kind: str, shape: Tensor) -> Design:
    """n solids of one kind from their shape numbers, (n, 6)."""
    return KINDS[kind](shape)

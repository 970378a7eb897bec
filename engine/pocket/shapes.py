"""Shapes in two dimensions as signed distances (below 0 inside), and a painter for layers of them. Batched over n.

A `Shape` is n shapes of one kind: its numbers stay on the CPU, so that the painter knows where each shape lies and
visits only those pixels; distances are taken on any device. Lengths are parts of the frame, x to the right, y down.
Formulas: Inigo Quilez, "2D distance functions" and "distance to implicits" (iquilezles.org/articles), or derived here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Number = Tensor | float  # (n,) or one for all
Distance = Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]
TINY = 1e-9
LIGHT = (0.45, 0.89)  # away from the light: down and to the right
OUTLINE, SOFT = 0.0085, 0.0045  # widths of the dark outline and of the soft one


@dataclass(frozen=True)
class Shape:
    """`distance(x, y, numbers)` of pixels (n, h, w); `numbers` (k, n); `box` (n, 4): left, top, right, bottom."""

    distance: Distance
    numbers: Tensor
    box: Tensor


@dataclass(frozen=True)
class Layer:
    """One coat of paint: `shape` in `fill` (n, 3), only where `on` (n,). `line`: outline's share; `shade` 0: flat."""

    shape: Shape
    fill: Tensor
    on: Tensor
    line: float = 1.0
    shade: float = 0.0
    alpha: float = 1.0


@dataclass(frozen=True)
class Frame:
    """A place to draw from: `origin` (n, 2) and `turn` (n,), in radians, clockwise."""

    origin: Tensor
    turn: Tensor

    def at(self, x: Number, y: Number) -> Tensor:
        """The local point (x, y) in the picture, (n, 2)."""
        cos, sin = torch.cos(self.turn), torch.sin(self.turn)
        return self.origin + torch.stack([x * cos - y * sin, x * sin + y * cos], 1)


def column(value: Number, n: int) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full((n,), float(value))


def box_around(points: Sequence[Tensor], reach: Number) -> Tensor:
    """(n, 4) around points (n, 2), wider by `reach`."""
    stack, reach = torch.stack(list(points)), column(reach, len(points[0]))[:, None]
    return torch.cat([stack.amin(0) - reach, stack.amax(0) + reach], 1)


def local(x: Tensor, y: Tensor, k: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pixels as seen from the centre (k0, k1), turned back by the angle of cosine k2 and sine k3."""
    dx, dy = x - k[0], y - k[1]
    return dx * k[2] + dy * k[3], dy * k[2] - dx * k[3]


def placed(at: Tensor, turn: Number, *numbers: Number) -> Tensor:
    """(4 + k, n): centre, cosine and sine of the turn, then the shape's own numbers."""
    n = len(at)
    angle = column(turn, n)
    return torch.stack([at[:, 0], at[:, 1], angle.cos(), angle.sin(), *(column(number, n) for number in numbers)])


def ellipse_distance(x: Tensor, y: Tensor, k: Sequence[Tensor]) -> Tensor:
    """|p/r| (|p/r| − 1) / |p/r²|: Quilez, "ellipsoid SDF", the first-order distance; exact on the edge."""
    u, v = local(x, y, k)
    u, v = u / k[4], v / k[5]
    near = (u * u + v * v + TINY).sqrt()
    return near * (near - 1) / ((u / k[4]) ** 2 + (v / k[5]) ** 2 + TINY).sqrt()


def ellipse(at: Tensor, rx: Number, ry: Number, turn: Number = 0.0) -> Shape:
    rx, ry = column(rx, len(at)).clamp(min=1e-4), column(ry, len(at)).clamp(min=1e-4)
    numbers = placed(at, turn, rx, ry)
    cos, sin = numbers[2:4]
    half = torch.stack([((rx * cos) ** 2 + (ry * sin) ** 2).sqrt(), ((rx * sin) ** 2 + (ry * cos) ** 2).sqrt()], 1)
    return Shape(ellipse_distance, numbers, torch.cat([at - half, at + half], 1))


def blob_distance(x: Tensor, y: Tensor, k: Sequence[Tensor]) -> Tensor:
    """Superellipse |x/a|^p + |y/b|^p = 1 whose width grows downwards by `jaw`: F/|∇F| (Quilez, implicits).

    With F = S − 1, S = (u^p + v^p)^(1/p): ∇F = (u^(p−1)/a, v^(p−1)/b) S^(1−p); the jaw's own slope is left out.
    """
    u, v = local(x, y, k)
    a, b, p, jaw = k[4:8]
    v = v / b
    a = a * (1 + jaw * v.clamp(-1, 1))
    u, v = (u / a).abs().clamp(min=1e-4), v.abs().clamp(min=1e-4)
    size = (u**p + v**p) ** (1 / p)
    slope = ((u / size) ** (2 * p - 2) / a**2 + (v / size) ** (2 * p - 2) / b**2).sqrt()
    return (size - 1) / slope


def blob(frame: Frame, rx: Number, ry: Number, power: Number, jaw: Number) -> Shape:
    """A rounded body: an ellipse at power 2, a box with round corners above; `jaw` > 0 is a pear, < 0 an egg."""
    numbers, at = placed(frame.origin, frame.turn, rx, ry, power, jaw), frame.origin
    (cos, sin), (a, b) = numbers[2:4].abs(), numbers[4:6]
    a = a * (1 + numbers[7].abs())
    half = torch.stack([a * cos + b * sin, a * sin + b * cos], 1)
    return Shape(blob_distance, numbers, torch.cat([at - half, at + half], 1))


def chain_distance(x: Tensor, y: Tensor, k: Sequence[Tensor]) -> Tensor:
    """Least distance to (x, y, r)…, discs whose centres and radii run evenly from each to the next. Own derivation.

    Along a segment of length L, u along and v ≥ 0 across: min over t of √((u − tL)² + v²) − r(t), where r(t) falls by
    c = (ra − rb)/L. Its derivative is 0 at u − tL = v c/√(1 − c²); at c = 0 it is Quilez' sdSegment.
    """
    best: Tensor | None = None
    for i in range(0, len(k) - 3, 3):
        (ax, ay, ar), (bx, by, br) = k[i : i + 3], k[i + 3 : i + 6]
        dx, dy, ex, ey = x - ax, y - ay, bx - ax, by - ay
        square = ex * ex + ey * ey + TINY
        fall = ((ar - br) / square.sqrt()).clamp(-0.95, 0.95)
        slip = fall / (1 - fall * fall).sqrt()
        across = (dx * ey - dy * ex).abs()
        along = ((dx * ex + dy * ey - across * slip) / square).clamp(0, 1)
        gap = ((dx - along * ex) ** 2 + (dy - along * ey) ** 2 + TINY).sqrt() - (ar + along * (br - ar))
        best = gap if best is None else torch.minimum(best, gap)
    assert best is not None
    return best


def chain(points: Sequence[Tensor], radii: Sequence[Number]) -> Shape:
    """Capsules from joint to joint: limbs, tails, ears, strokes."""
    n = len(points[0])
    wide = [column(radius, n) for radius in radii]
    numbers = [part for point, radius in zip(points, wide, strict=True) for part in (point[:, 0], point[:, 1], radius)]
    return Shape(chain_distance, torch.stack(numbers), box_around(points, torch.stack(wide).amax(0)))


def polygon_distance(x: Tensor, y: Tensor, k: Sequence[Tensor]) -> Tensor:
    """Quilez' sdPolygon, less a radius that rounds the corners; k: the radius, then (x, y)…."""
    corners = [(k[i], k[i + 1]) for i in range(1, len(k), 2)]
    gap = torch.full_like(x + k[0], 1e3)
    sign = torch.ones_like(gap)
    for (ax, ay), (bx, by) in zip(corners, corners[-1:] + corners[:-1], strict=True):
        ex, ey, dx, dy = bx - ax, by - ay, x - ax, y - ay
        along = ((dx * ex + dy * ey) / (ex * ex + ey * ey + TINY)).clamp(0, 1)
        gap = torch.minimum(gap, (dx - along * ex) ** 2 + (dy - along * ey) ** 2)
        above, below, left = y >= ay, y < by, ex * dy > ey * dx
        crossing = (above & below & left) | ~(above | below | left)
        sign = torch.where(crossing, -sign, sign)
    return sign * (gap + TINY).sqrt() - k[0]


def polygon(points: Sequence[Tensor], rounding: Number = 0.0) -> Shape:
    n = len(points[0])
    numbers = [column(rounding, n), *(part for point in points for part in (point[:, 0], point[:, 1]))]
    return Shape(polygon_distance, torch.stack(numbers), box_around(points, rounding))


def lune_distance(x: Tensor, y: Tensor, k: Sequence[Tensor]) -> Tensor:
    """Between two parabolas that meet at x = ±w: max(U(1−t²) − y, y − L(1−t²)) / √(1 + slope²), t = x/w. Own."""
    u, v = local(x, y, k)
    w, upper, lower = k[4:7]
    t = u / w
    arch = 1 - t * t
    steep = 2 * t / w
    over = (upper * arch - v) / (1 + (upper * steep) ** 2).sqrt()
    under = (v - lower * arch) / (1 + (lower * steep) ** 2).sqrt()
    return torch.maximum(over, under)


def lune(at: Tensor, width: Number, upper: Number, lower: Number, turn: Number = 0.0) -> Shape:
    """An open mouth: `width` is half of it; its edges bulge to `upper` and `lower` (y down) in the middle."""
    n = len(at)
    width, upper, lower = column(width, n).clamp(min=1e-3), column(upper, n), column(lower, n)
    reach = torch.stack([width, upper.abs(), lower.abs()]).amax(0) * 1.2
    return Shape(lune_distance, placed(at, turn, width, upper, lower), box_around([at], reach))


def half_distance(x: Tensor, y: Tensor, k: Sequence[Tensor]) -> Tensor:
    return local(x, y, k)[1]


def half(frame: Frame) -> Shape:
    """All that lies above the frame's x axis."""
    everywhere = torch.tensor([-9.0, -9.0, 9.0, 9.0]).expand(len(frame.origin), 4)
    return Shape(half_distance, placed(frame.origin, frame.turn), everywhere)


def joined(a: Shape, b: Shape, how: Callable[[Tensor, Tensor], Tensor], box: Tensor) -> Shape:
    split = len(a.numbers)
    return Shape(
        lambda x, y, k: how(a.distance(x, y, k[:split]), b.distance(x, y, k[split:])),
        torch.cat([a.numbers, b.numbers]), box,
    )  # fmt: skip


def meet(a: Shape, b: Shape) -> Shape:
    """Where both are."""
    box = torch.cat([torch.maximum(a.box[:, :2], b.box[:, :2]), torch.minimum(a.box[:, 2:], b.box[:, 2:])], 1)
    return joined(a, b, torch.maximum, box)


def minus(a: Shape, b: Shape) -> Shape:
    """a without b."""
    return joined(a, b, lambda one, other: torch.maximum(one, -other), a.box)


def smooth_min(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Quilez' quadratic smooth minimum."""
    h = (k - (a - b).abs()).clamp(min=0) / k
    return torch.minimum(a, b) - h * h * k / 4


def union(a: Shape, b: Shape, smooth: float = 0.02) -> Shape:
    """a and b, melted together over `smooth`."""
    box = torch.cat([torch.minimum(a.box[:, :2], b.box[:, :2]), torch.maximum(a.box[:, 2:], b.box[:, 2:])], 1)
    return joined(a, b, lambda one, other: smooth_min(one, other, smooth), box)


def ring(shape: Shape, width: float) -> Shape:
    """Its edge alone, `width` to each side."""
    grow = torch.tensor([-width, -width, width, width])

    def distance(x: Tensor, y: Tensor, k: Sequence[Tensor]) -> Tensor:
        return shape.distance(x, y, k).abs() - width

    return Shape(distance, shape.numbers, shape.box + grow)


@dataclass(frozen=True)
class Fit:
    """How figures lie in their frames: x = ½ + facing (x' − centre) scale, y = foot + (y' − ground) scale. All (n,)."""

    scale: Tensor
    centre: Tensor
    facing: Tensor  # ±1
    ground: Tensor  # y' of the ground that the figure stands on
    foot: Tensor  # y of it in the picture

    def seen(self, box: Tensor) -> Tensor:
        """A box of the figure in the picture, (n, 4)."""
        one, two = (0.5 + self.facing * (box[:, i] - self.centre) * self.scale for i in (0, 2))
        top, bottom = (self.foot + (box[:, i] - self.ground) * self.scale for i in (1, 3))
        return torch.stack([torch.minimum(one, two), top, torch.maximum(one, two), bottom], 1)


def extent(layers: Sequence[Layer]) -> Tensor:
    """The box around all layers that are on, (n, 4)."""
    boxes = torch.stack([layer.shape.box for layer in layers])
    on = torch.stack([layer.on for layer in layers])[:, :, None]
    low, high = torch.where(on, boxes[:, :, :2], 9.0).amin(0), torch.where(on, boxes[:, :, 2:], -9.0).amax(0)
    return torch.cat([low, high], 1)


def window(layer: Layer, fit: Fit, size: int) -> tuple[slice, slice]:
    """Rows and columns of pixels that the layer may touch in any picture. Host arithmetic, no device is asked."""
    box = fit.seen(layer.shape.box)[layer.on]
    margin = 2 * OUTLINE + 2 / size
    low, high = box.amin(0)[:2] - margin, box.amax(0)[2:] + margin
    edges: list[float] = torch.cat([low, high]).tolist()  # pyright: ignore[reportUnknownVariableType]
    left, top, right, bottom = (min(max(math.floor(edge * size), 0), size) for edge in edges)
    return slice(top, max(bottom, top)), slice(left, max(right, left))


def shaded(layer: Layer, gap: Tensor, x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
    """Share of the second, darker tone, (n, h, w): a crescent where the edge is near and faces away from the light.

    With r the radius and p from the centre: d + 0.55 p·LIGHT > 0.22 r, which on a disc leaves a crescent 0.21 r thick.
    """
    box = layer.shape.box.to(x.device)[:, :, None, None]
    radius = torch.minimum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]) / 2
    away = (x - (box[:, 0] + box[:, 2]) / 2) * LIGHT[0] + (y - (box[:, 1] + box[:, 3]) / 2) * LIGHT[1]
    return layer.shade * (0.5 + (gap + 0.55 * away - 0.22 * radius) / (3 * pixel)).clamp(0, 1)


@dataclass(frozen=True)
class Canvas:
    """`rgb` (n, 3, h, w), premultiplied, and `alpha` (n, 1, h, w) on a device; `fit`, on the CPU.

    `place` is the fit on the device, (5, n, 1, 1), and `lined` (n, 1, 1) says who has a dark outline.
    """

    rgb: Tensor
    alpha: Tensor
    fit: Fit
    place: Tensor
    lined: Tensor

    @staticmethod
    def blank(fit: Fit, lined: Tensor, size: int, device: torch.device | str) -> "Canvas":
        n = len(lined)
        rgb, alpha = torch.zeros(n, 3, size, size, device=device), torch.zeros(n, 1, size, size, device=device)
        place = torch.stack([fit.scale, fit.centre, fit.facing, fit.ground, fit.foot]).to(device)[:, :, None, None]
        return Canvas(rgb, alpha, fit, place, lined.to(device)[:, None, None])

    def paint(self, layer: Layer) -> None:
        """Lay one layer over what is there, in its window alone."""
        if not layer.on.any():
            return
        size, device = self.rgb.shape[-1], self.rgb.device
        rows, columns = window(layer, self.fit, size)
        if rows.stop == rows.start or columns.stop == columns.start:
            return
        scale, centre, facing, ground, foot = self.place.unbind(0)
        line = (torch.arange(size, device=device) + 0.5) / size
        x = centre + (line[None, None, columns] - 0.5) * facing / scale
        y = ground + (line[None, rows, None] - foot) / scale
        gap = layer.shape.distance(x, y, layer.shape.numbers.to(device)[:, :, None, None].unbind(0))
        colour, cover = self.coat(layer, gap, x, y, 1 / (size * scale))
        old = self.rgb[:, :, rows, columns]
        old.add_(cover * (colour - old))
        solid = self.alpha[:, :, rows, columns]
        solid.add_(cover * (1 - solid))

    def coat(self, layer: Layer, gap: Tensor, x: Tensor, y: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Colour (n, 3, h, w) and cover (n, 1, h, w) of one layer at distance `gap`, antialiased over one pixel."""
        device = gap.device
        width = torch.where(self.lined, OUTLINE, SOFT) * layer.line
        cover = (0.5 - (gap - width) / pixel).clamp(0, 1) * (layer.alpha * layer.on.to(device)[:, None, None])
        fill = layer.fill.to(device)[:, :, None, None]
        colour = fill
        if layer.shade:
            colour = fill * (1 - shaded(layer, gap, x, y, pixel))[:, None]
        if layer.line:
            edge = fill * torch.where(self.lined, 0.30, 0.74)[:, None]
            colour = edge + (colour - edge) * (0.5 - gap / pixel).clamp(0, 1)[:, None]
        return colour, cover[:, None]

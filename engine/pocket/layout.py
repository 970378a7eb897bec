"""Where the things of a scene go: alone, in pairs, in ranks, in patterns. In heights of the picture."""

from typing import NamedTuple

import torch
from torch import Tensor

from engine.pocket.backdrops import BACKDROPS, HORIZON
from engine.pocket.lexicon import kind_of
from engine.pocket.scenes import BUCKETS, Scenes

GROWN = (1.0, 1.10, 1.20)  # glyphs, products, characters: of a sprite's cell, as their ink leaves room in it
LEANS = (0.16, 0.04, 0.04)  # radians from side to side


class Placed(NamedTuple):
    """Where instances of a thing go, each (m,): scene, centre, width of the cell, turn; in heights and radians."""

    rows: Tensor
    x: Tensor
    y: Tensor
    scale: Tensor
    turn: Tensor


def placements(scenes: Scenes, slot: int, rows: Tensor, ink: Tensor) -> list[Placed]:
    """Where a thing goes in the chosen scenes: its first instances, its second ones, …, back to front.

    `ink` (m,): where each cell's ends. `rows` of what is placed count in the chosen scenes.
    """
    aspect = BUCKETS[scenes.shape][1] / BUCKETS[scenes.shape][0]
    kind = kind_of(scenes.noun[rows, slot])
    floor = torch.tensor([HORIZON.get(name, 0.0) for name in BACKDROPS])[scenes.background[rows]]
    u, count = scenes.pose[rows], scenes.count[rows]
    grown, turn = torch.tensor(GROWN)[kind], (u[:, 6 + slot] - 0.5) * torch.tensor(LEANS)[kind]
    alone, out = one_or_two(scenes, slot, rows, (u, scenes.relation[rows], floor), aspect, grown), list[Placed]()
    for index in range(max(1, int(count.amax()))):
        mine = (count.clamp(min=1) > index).nonzero().squeeze(1)
        some, number = u[mine], count[mine]
        x, y, scale = (value[mine] for value in alone)
        if index == 0:
            tiles = tiling(some, aspect)
            x, y, scale = (torch.where(number == 0, new, old) for new, old in zip(tiles, (x, y, scale), strict=True))
        if bool((number > 1).any()):
            rank = in_rank(some, floor[mine], (number, index), aspect, grown[mine])
            x, y, scale = (torch.where(number > 1, new, old) for new, old in zip(rank, (x, y, scale), strict=True))
        stands = (floor[mine] > 0) & (y.isnan())
        y = torch.where(stands, floor[mine] + (some[:, 4 + slot] - 0.5) * 0.02 - scale * (ink[mine] - 0.5), y)
        out.append(Placed(mine, x, y.nan_to_num(0.5), scale, torch.where(number == 0, 0.0, turn[mine])))
    return out


def tiling(u: Tensor, aspect: float) -> tuple[Tensor, Tensor, Tensor]:
    """A tile's centre and width: three to five tiles to the smaller side."""
    scale = min(1.0, aspect) / (3 + (u[:, 0] * 3).floor()).clamp(max=5)
    return 0.5 + (u[:, 2] - 0.5) * scale, 0.5 + (u[:, 4] - 0.5) * scale, scale


def in_rank(
    u: Tensor, floor: Tensor, which: tuple[Tensor, int], aspect: float, grown: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Thing number `index` of `number` (m,) alike: in a row on a floor or in a wide picture, else in two rows."""
    number, index = which
    two, three = number == 2, number == 3
    row = (floor > 0) | (aspect > 1.2) | (two & (aspect > 0.9))
    room = (0.92 * aspect / number.clamp(min=1)).clamp(max=0.56)
    x_row, s_row = 0.5 + (index - (number - 1) / 2) * room * 1.04, room * (0.93 + 0.07 * u[:, 0])
    side = torch.where(two, min(0.44, 0.8 * aspect), min(0.44, 0.46 * aspect))
    x_two, y_two = 0.5 + (index % 2 - 0.5) * side * 1.06, 0.5 + (index // 2 - 0.5) * side * 1.06
    x_three, y_three = 0.5 + (index - 1.5) * side * 1.06, 0.5 + 0.5 * side
    if index == 0:
        x_three, y_three = torch.full_like(side, 0.5), 0.5 - 0.5 * side - 0.02
    x_two, y_two = torch.where(three, x_three, x_two), torch.where(three, y_three, y_two)
    x_two, y_two = torch.where(two, 0.5, x_two), torch.where(two, 0.27 + 0.46 * index, y_two)
    x = torch.where(row, x_row, x_two)
    y = torch.where(row, torch.where(floor > 0, torch.nan, 0.5), y_two)
    return x, y, torch.where(row, s_row, side * (0.93 + 0.07 * u[:, 0])) * grown.clamp(max=1.12)


def one_or_two(
    scenes: Scenes, slot: int, rows: Tensor, at: tuple[Tensor, Tensor, Tensor], aspect: float, grown: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A lone thing, or one of a pair. NaN for y: it stands on the floor."""
    u, relation, floor = at
    size, place = scenes.size[rows], scenes.place[rows]
    narrow = min(1.0, aspect)
    low, more = torch.tensor([0.58, 0.28, 0.80, 1.06])[size], torch.tensor([0.17, 0.09, 0.08, 0.18])[size]
    scale = (low + more * u[:, slot]) * grown * narrow
    scale = torch.where((size < 3) & (floor > 0), scale.clamp(max=0.90), scale.clamp(max=1.25))
    aside = (place == 1) | (place == 2)
    scale = torch.where(aside, scale.clamp(max=0.56 * aspect, min=0.0), scale)
    off = torch.minimum(aspect / 2 - 0.46 * scale - 0.02, torch.full_like(scale, 0.30 * aspect)).clamp(
        min=0.10 * aspect
    )
    x = 0.5 + (u[:, 2 + slot] - 0.5) * 0.05 * narrow + torch.where(place == 1, -off, torch.where(place == 2, off, 0.0))
    nan, middle = torch.full_like(x, torch.nan), 0.5 + (u[:, 4 + slot] - 0.5) * 0.06
    y = torch.where(floor > 0, nan, middle)
    side = (2 * slot - 1) * torch.ones_like(x)
    near = (0.42 + 0.06 * u[:, slot]) * grown.clamp(max=1.1) * min(1.25, aspect)
    beside = (0.5 + side * min(0.235 * aspect, 0.42) + (u[:, 2 + slot] - 0.5) * 0.03, y, near)
    tall = torch.where(floor > 0, 0.37, 0.44 + 0.04 * u[:, slot]) * min(1.0, 1.6 * aspect)
    # On a floor the lower one stands, and the upper one hangs over it.
    high = torch.where(floor > 0, (floor - 1.5 * tall).clamp(min=0.5 * tall), 0.5 - 0.5 * tall - 0.02)
    y_above = torch.where(floor > 0, nan, 0.5 + 0.5 * tall + 0.02) if slot else high
    above = (0.5 + (u[:, 2 + slot] - 0.5) * 0.08 * narrow, y_above, tall)
    lean = torch.where(u[:, 8] < 0.5, -1.0, 1.0)
    back = (0.50 - 0.02 * slot + 0.04 * u[:, slot]) * grown.clamp(max=1.1) * narrow
    shift = 0.5 + lean * (0.13 if slot == 0 else -0.18) * narrow
    behind = (shift, torch.where(floor > 0, nan, 0.5 + (0.10 if slot == 0 else -0.10) * narrow), back)
    for number, values in ((1, beside), (2, above), (3, behind)):
        mine = relation == number
        x, y, scale = (torch.where(mine, new, old) for new, old in zip(values, (x, y, scale), strict=True))
    return x, y, scale

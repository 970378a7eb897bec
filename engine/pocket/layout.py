"""Where the things of a scene go: alone, in pairs, in ranks, in patterns. In heights of the picture."""

from typing import NamedTuple

import torch
from torch import Tensor

from engine.pocket.backdrops import BACKDROPS, HORIZON
from engine.pocket.scenes import BUCKETS, Scenes

GROWN = {"glyph": 1.0, "product": 1.10, "character": 1.20}  # of a sprite's cell, as their ink leaves room in it


class Placed(NamedTuple):
    """Where instances of a thing go, each (m,): scene, centre, width of the cell, turn; in heights and radians."""

    rows: Tensor
    x: Tensor
    y: Tensor
    scale: Tensor
    turn: Tensor


def placements(scenes: Scenes, slot: int, rows: Tensor, ink: Tensor, sort: str) -> list[Placed]:
    """Where the instances of a thing go in the chosen scenes, back to front; `ink` (m,): where each cell's ends."""
    aspect = BUCKETS[scenes.shape][1] / BUCKETS[scenes.shape][0]
    floor = torch.tensor([HORIZON.get(name, 0.0) for name in BACKDROPS])[scenes.background[rows]]
    u, count, relation = scenes.pose[rows], scenes.count[rows], scenes.relation[rows]
    turn = (u[:, 6 + slot] - 0.5) * (0.16 if sort == "glyph" else 0.04)
    grown, out = GROWN[sort], list[Placed]()
    for number in range(5):
        for index in range(max(1, number)):
            mine = (count == number).nonzero().squeeze(1)
            if not len(mine):
                continue
            if number == 0:
                x, y, scale = tiling(u[mine], aspect)
            elif number == 1:
                x, y, scale = one_or_two(
                    scenes, slot, rows[mine], (u[mine], relation[mine], floor[mine]), aspect, grown
                )
            else:
                x, y, scale = in_rank(u[mine], floor[mine], (number, index), aspect, grown)
            stands = (floor[mine] > 0) & (y.isnan())
            y = torch.where(stands, floor[mine] + (u[mine, 4 + slot] - 0.5) * 0.02 - scale * (ink[mine] - 0.5), y)
            out.append(Placed(mine, x, y.nan_to_num(0.5), scale, torch.where(count[mine] == 0, 0.0, turn[mine])))
    return out


def tiling(u: Tensor, aspect: float) -> tuple[Tensor, Tensor, Tensor]:
    """A tile's centre and width: three to five tiles to the smaller side."""
    scale = min(1.0, aspect) / (3 + (u[:, 0] * 3).floor()).clamp(max=5)
    return 0.5 + (u[:, 2] - 0.5) * scale, 0.5 + (u[:, 4] - 0.5) * scale, scale


def in_rank(
    u: Tensor, floor: Tensor, which: tuple[int, int], aspect: float, grown: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Thing number `index` of `number` alike: in a row on a floor or in a wide picture, else in two rows."""
    number, index = which
    row = (floor > 0) | (aspect > 1.2) | torch.full_like(floor, number == 2 and aspect > 0.9, dtype=torch.bool)
    room = torch.tensor(min(0.92 * aspect / number, 0.56))
    x_row, s_row = 0.5 + (index - (number - 1) / 2) * room * 1.04, room * (0.93 + 0.07 * u[:, 0])
    side = min(0.44, 0.46 * aspect)
    if number == 2:
        x_two, y_two = 0.5, 0.27 + 0.46 * index
        side = min(0.44, 0.8 * aspect)
    elif number == 3:
        x_two, y_two = (
            (0.5, 0.5 - 0.5 * side - 0.02) if index == 0 else (0.5 + (index - 1.5) * side * 1.06, 0.5 + 0.5 * side)
        )
    else:
        x_two, y_two = 0.5 + (index % 2 - 0.5) * side * 1.06, 0.5 + (index // 2 - 0.5) * side * 1.06
    nan, ones = torch.full_like(floor, torch.nan), torch.ones_like(floor)
    x = torch.where(row, x_row, x_two * ones)
    y = torch.where(row, torch.where(floor > 0, nan, 0.5 * ones), y_two * ones)
    return x, y, torch.where(row, s_row, side * (0.93 + 0.07 * u[:, 0])) * min(grown, 1.12)


def one_or_two(
    scenes: Scenes, slot: int, rows: Tensor, at: tuple[Tensor, Tensor, Tensor], aspect: float, grown: float
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
    near = (0.42 + 0.06 * u[:, slot]) * min(grown, 1.1) * min(1.25, aspect)
    beside = (0.5 + side * min(0.235 * aspect, 0.42) + (u[:, 2 + slot] - 0.5) * 0.03, y, near)
    tall = torch.where(floor > 0, 0.37, 0.44 + 0.04 * u[:, slot]) * min(1.0, 1.6 * aspect)
    # On a floor the lower one stands, and the upper one hangs over it.
    high = torch.where(floor > 0, (floor - 1.5 * tall).clamp(min=0.5 * tall), 0.5 - 0.5 * tall - 0.02)
    y_above = torch.where(floor > 0, nan, 0.5 + 0.5 * tall + 0.02) if slot else high
    above = (0.5 + (u[:, 2 + slot] - 0.5) * 0.08 * narrow, y_above, tall)
    lean = torch.where(u[:, 8] < 0.5, -1.0, 1.0)
    back = (0.50 - 0.02 * slot + 0.04 * u[:, slot]) * min(grown, 1.1) * narrow
    shift = 0.5 + lean * (0.13 if slot == 0 else -0.18) * narrow
    behind = (shift, torch.where(floor > 0, nan, 0.5 + (0.10 if slot == 0 else -0.10) * narrow), back)
    for number, values in ((1, beside), (2, above), (3, behind)):
        mine = relation == number
        x, y, scale = (torch.where(mine, new, old) for new, old in zip(values, (x, y, scale), strict=True))
    return x, y, scale

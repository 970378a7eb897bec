"""From a character's numbers to its rig: joints and frames in a square of side 1 (y down), and its colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.pocket.backdrops import mix, palette
from engine.pocket.cast import (
    BUILD,
    DEFAULTS,
    EXPRESSION_DEFAULTS,
    EXPRESSIONS,
    OUTFITS,
    POSE_DEFAULTS,
    POSES,
    SKIN,
    SPECIES,
    VIEWS,
    Characters,
)
from engine.pocket.shapes import (
    Frame,
    Number,
)

GROUND = 0.925  # where feet stand, as a part of the frame


def table(defaults: Mapping[str, float], rows: Sequence[Mapping[str, float]], index: Tensor) -> dict[str, Tensor]:
    """Columns of a table at the rows `index` (n,), each (n,)."""
    return {
        name: torch.tensor([float(row.get(name, value)) for row in rows])[index] for name, value in defaults.items()
    }


def blend(a: Tensor, b: Tensor, share: Number) -> Tensor:
    """Colours (n, 3) mixed, by one share or one for each."""
    return mix(a, b, share[:, None] if isinstance(share, Tensor) else share)


def one_colour(n: int, red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).expand(n, 3)


def luma(colour: Tensor) -> Tensor:
    """Rec. 601, (n,)."""
    return colour @ torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Paints:
    """Colours of one figure, each (n, 3)."""

    fur: Tensor
    light: Tensor  # belly, muzzle, face mask
    dark: Tensor  # dog's ears, fox's paws, mane
    limb: Tensor  # arms
    hand: Tensor
    foot: Tensor
    accent: Tensor
    ink: Tensor  # on the fur: brows, closed eyes
    mouth: Tensor  # on the muzzle
    beak: Tensor
    hair: Tensor


def paints(c: Characters, t: Mapping[str, Tensor]) -> Paints:
    n, colours = len(c), palette()
    fur, accent = blend(colours[c.fur], one_colour(n, 0.5, 0.5, 0.56), 0.10), colours[c.accent]
    hair, skin = fur, torch.tensor(SKIN)[c.skin]
    human = t["shirt"] > 0
    fur = torch.where(human[:, None], skin, fur)
    bright = luma(fur) > 0.80
    light = torch.where(
        bright[:, None], fur * torch.tensor([0.95, 0.90, 0.86]), blend(fur, one_colour(n, 1, 0.98, 0.94), 0.72)
    )
    dark = torch.where((luma(fur) < 0.2)[:, None], blend(fur, one_colour(n, 1, 1, 1), 0.28), fur * 0.58)
    black, cream = one_colour(n, 0.13, 0.10, 0.14), one_colour(n, 0.99, 0.95, 0.88)
    glow = one_colour(n, 0.55, 0.97, 1.0)
    ink = torch.where((luma(fur) < 0.30)[:, None], cream, black)
    ink = torch.where(t["visor"][:, None] > 0, glow, ink)
    on_light = (t["muzzle_w"] > 0) | (t["mask"] > 0)
    beak = blend(one_colour(n, 0.98, 0.66, 0.16), one_colour(n, 0.98, 0.44, 0.14), (c.fur == 1) * 1.0)
    sock = torch.where((t["socks"] > 0)[:, None], dark, fur)
    sock = torch.where((t["buttons"] > 0)[:, None], dark, sock)
    foot = torch.where(
        (t["flippers"] > 0)[:, None], beak, torch.where(human[:, None], one_colour(n, 0.30, 0.22, 0.22), sock)
    )
    limb = torch.where(human[:, None], accent, fur)
    return Paints(
        fur, light, dark, limb, sock, foot, accent, ink, torch.where(on_light[:, None], black, ink), beak, hair
    )


@dataclass(frozen=True)
class Rig:
    """A figure's tables at its rows, its colours, and its joints in the frame."""

    c: Characters
    t: dict[str, Tensor]
    p: dict[str, Tensor]
    e: dict[str, Tensor]
    paints: Paints
    yaw: Tensor  # (n,) radians
    hips: Frame
    body: Frame
    head: Frame

    @property
    def n(self) -> int:
        return len(self.c)

    @property
    def all(self) -> Tensor:
        return torch.ones(self.n, dtype=torch.bool)

    def wears(self, outfit: str) -> Tensor:
        return self.c.outfit == OUTFITS.index(outfit)

    def colour(self, red: float, green: float, blue: float) -> Tensor:
        return one_colour(self.n, red, green, blue)

    def on_head(self, lon: Number, lat: Number, out: Number = 0.0) -> Tensor:
        """The place on the head `lon` degrees aside of its front and `lat` half heights below its middle, (n, 2)."""
        angle = torch.deg2rad(torch.as_tensor(lon)) + self.yaw
        lat = torch.as_tensor(lat) + self.p["nod"]
        x = (
            self.t["head_w"]
            * torch.sin(angle)
            * (1 - 0.8 * lat.clamp(-0.9, 0.9) ** 2).sqrt()
            * 0.94
            * (1 + self.t["jaw"] * lat)
        )
        return self.head.at(x + out * torch.sin(self.yaw), lat * self.t["head_h"])

    def turned(self, lon: Number) -> Tensor:
        """How broad a mark at `lon` looks, 1 from the front and below 0 when it is out of sight, (n,)."""
        return torch.cos(torch.deg2rad(torch.as_tensor(lon)) + self.yaw)


def rig(c: Characters) -> Rig:
    t = table(DEFAULTS, list(SPECIES.values()), c.species)
    for i, name in enumerate(BUILD):
        if name in t:
            t[name] = t[name] * (1 + 0.09 * c.build[:, i])
    for name in ("head_w", "head_h"):
        t[name] = t[name] * 0.95
    for name in ("eye_w", "eye_h"):
        t[name] = t[name] * (1 + 0.14 * c.build[:, BUILD.index("eye")])
    e = table(EXPRESSION_DEFAULTS, list(EXPRESSIONS.values()), c.expression)
    hidden = c.view == list(VIEWS).index("side")  # only the left eye is seen from the side: it is the one that winks
    e["open_l"] = torch.where(hidden, torch.minimum(e["open_l"], e["open_r"]), e["open_l"])
    p = pose_table(c)
    yaw = torch.deg2rad(torch.tensor(list(VIEWS.values()))[c.view])
    lean = torch.deg2rad(p["lean"])
    p["sink"] = p["sink"] * torch.where(t["tentacles"] > 0, 0.5, 1.0)
    hip = GROUND - t["leg"] * (1 - p["sink"]) - 0.012 - p["lift"]
    hips = Frame(torch.stack([torch.full_like(hip, 0.5), hip], 1), lean)
    body = Frame(hips.at(0.0, -t["body_h"] * 0.80), lean)
    neck = -t["body_h"] * 0.80 - t["head_h"] * (0.80 - 0.5 * p["nod"].clamp(min=0))
    head = Frame(body.at(0.012 * torch.sin(yaw), neck), lean * 0.5 + torch.deg2rad(p["tilt"]))
    return Rig(c, t, p, e, paints(c, t), yaw, hips, body, head)


def pose_table(c: Characters) -> dict[str, Tensor]:
    """Joint angles: the front's or, in a side view, the side's. In three-quarter view the near arm waves."""
    front, side = (table(POSE_DEFAULTS, [pair[i] for pair in POSES.values()], c.pose) for i in (0, 1))
    turned, half_turned = (c.view == list(VIEWS).index(view) for view in ("side", "three-quarter"))
    pose = {name: torch.where(turned, side[name], front[name]) for name in front}
    swap = half_turned & ((c.pose == list(POSES).index("waving")) | (c.pose == list(POSES).index("dancing")))
    for name in (name for name in POSE_DEFAULTS if name.endswith("_r")):
        other = f"{name[:-2]}_l"
        pose[name], pose[other] = torch.where(swap, pose[other], pose[name]), torch.where(swap, pose[name], pose[other])
    for name in ("lean", "tilt"):
        pose[name] = torch.where(swap, -pose[name], pose[name])
    for name in ("reach_r", "reach_l"):  # past the face, which has turned
        pose[name] = torch.where(half_turned & (pose[name] > 1), 1.2 * pose[name], pose[name])
    return pose


def limb_end(start: Tensor, degrees: Tensor, length: Tensor, side: Tensor) -> Tensor:
    angle = torch.deg2rad(degrees)
    return start + torch.stack([side * torch.sin(angle) * length, torch.cos(angle) * length], 1)


def limb_joints(r: Rig, start: Tensor, names: tuple[str, str], length: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Elbow and hand, or knee and ankle. From the front limbs swing out to their `side`, from the side forwards."""
    away = torch.where(r.c.view == 2, 1.0, side)
    lean = torch.rad2deg(r.body.turn) * (0.9 if names[0].startswith("arm") else 0)
    middle = limb_end(start, r.p[names[0]] - lean * away, length / 2, away)
    return middle, limb_end(middle, r.p[names[1]] - lean * away, length / 2, away)


SIDES = ((-1.0, "l"), (1.0, "r"))


def row(frame: Frame, points: Sequence[tuple[Number, Number]]) -> list[Tensor]:
    return [frame.at(x, y) for x, y in points]


def bent(a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
    """Seven points from a to c, bent towards b: a quadratic Bézier curve whose control point lies a little beyond b."""
    b = b + 0.3 * (b - (a + c) / 2)
    return [(1 - t) ** 2 * a + 2 * t * (1 - t) * b + t * t * c for t in (i / 6 for i in range(7))]


def fading(*radii: Number) -> list[Number]:
    """Radii at three joints, spread over the seven points of a bent limb."""
    a, b, c = radii
    return [a + (b - a) * i / 3 for i in range(3)] + [b + (c - b) * i / 3 for i in range(4)]

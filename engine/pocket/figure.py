"""The figure that a rig wears: each part of the body and of the outfit as `Layer`s, stacked from back to front."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.pocket.cast import BUILD, ITEM_COLOURS
from engine.pocket.rig import GROUND, SIDES, Rig, bent, blend, fading, limb_joints, luma, row
from engine.pocket.shapes import (
    Frame,
    Layer,
    Number,
    Shape,
    blob,
    chain,
    ellipse,
    half,
    lune,
    meet,
    minus,
    polygon,
    ring,
    union,
)

# Behind the body -----------------------------------------------------------------------------------------------------


def tail(r: Rig) -> list[Layer]:
    t, wide = r.t, r.t["body_w"]
    at = r.body.at(-wide * (0.35 + 0.5 * torch.sin(r.yaw)), 0.5 * t["body_h"])
    points = [at]
    for i in range(10):
        angle = torch.deg2rad(t["tail_turn"] + t["tail_curl"] * i / 9)
        points.append(
            points[-1] + torch.stack([-torch.sin(angle), torch.cos(angle)], 1) * (t["tail_len"] / 10)[:, None]
        )
    radii: list[Number] = []
    for i in range(11):
        up, down = min(i / 5, 1.0), max(i / 5 - 1.0, 0.0) ** 2
        radii.append((t["tail_r"] + (t["tail_mid"] - t["tail_r"]) * up) * (1 - down) + t["tail_end"] * down)
    has, tip = t["tail_len"] > 0, torch.where((t["tail_tip"] == 2)[:, None], r.paints.dark, r.paints.light)
    return [
        Layer(chain(points, radii), r.paints.fur, has, shade=0.12),
        Layer(chain(points[8:], radii[8:]), tip, has & (t["tail_tip"] > 0), line=0.6),
    ]


def wings(r: Rig) -> list[Layer]:
    layers: list[Layer] = []
    for side, _ in SIDES:
        reach = side * (0.35 + 0.65 * torch.cos(r.yaw)) - 0.35 * torch.sin(r.yaw)
        x0 = -0.3 * r.t["body_w"] * torch.sin(r.yaw)
        corners = [(x0, -0.06), (x0 + 0.16 * reach, -0.17), (x0 + 0.24 * reach, -0.08), (x0 + 0.185 * reach, -0.055),
                   (x0 + 0.17 * reach, 0.02), (x0 + 0.11 * reach, -0.005), (x0 + 0.06 * reach, 0.05)]  # fmt: skip
        on = (r.t["wings"] > 0) & ((r.c.view < 2) | (side < 0))
        layers.append(Layer(polygon(row(r.body, corners), 0.012), r.paints.dark, on, shade=0.1))
    return layers


def cape(r: Rig) -> list[Layer]:
    """Its back: wider towards the knees, blown backwards when seen from the side."""
    wide, back = r.t["body_w"] * (1.0 + 0.06), 0.10 * torch.sin(r.yaw)
    low = torch.minimum(0.9 * r.t["body_h"] + 0.045, GROUND - 0.005 - r.body.origin[:, 1])
    corners = [(-0.62 * wide - back * 0.3, -0.72 * r.t["body_h"]), (0.62 * wide - back * 0.5, -0.72 * r.t["body_h"]),
               (1.62 * wide - back * 1.9, low - 0.01), (0.6 * wide - back * 1.7, low + 0.012),
               (-0.4 * wide - back * 1.4, low - 0.004), (-1.62 * wide - back * 1.1, low + 0.004)]  # fmt: skip
    return [Layer(polygon(row(r.body, corners), 0.018), r.paints.accent * 0.90, r.wears("cape"), shade=0.12)]


def backpack(r: Rig) -> list[Layer]:
    sin, cos = torch.sin(r.yaw), torch.cos(r.yaw)
    at = Frame(r.body.at(-sin * (r.t["body_w"] * 0.9 + 0.02), -0.12 * r.t["body_h"]), r.body.turn)
    wide = r.t["body_w"] * (1.34 * cos + 0.34 * sin) + 0.012
    pocket = Frame(at.at(-0.35 * wide * sin, 0.045), at.turn)
    on = r.wears("backpack")
    return [
        Layer(blob(at, wide, 0.105, 4.0, 0.0), r.paints.accent, on, shade=0.16),
        Layer(blob(pocket, wide * 0.62, 0.04, 4.0, 0.0), r.paints.accent * 0.84, on & (r.c.view > 0), line=0.6),
    ]


# Body ----------------------------------------------------------------------------------------------------------------


def leg_joints(r: Rig, side: float, name: str) -> tuple[Tensor, Tensor, Tensor]:
    apart = side * r.t["body_w"] * 0.46 * (0.18 + 0.82 * torch.cos(r.yaw))
    hip = r.hips.at(apart, -0.02)
    knee, ankle = limb_joints(r, hip, (f"thigh_{name}", f"shin_{name}"), r.t["leg"] + 0.01, side)
    return hip, knee, ankle


def feet(r: Rig) -> list[Layer]:
    layers: list[Layer] = []
    flat = torch.where(r.t["flippers"] > 0, 0.8, 1.0)
    for side, name in SIDES:
        _, _, ankle = leg_joints(r, side, name)
        angle = torch.deg2rad(r.p[f"shin_{name}"])
        turned = r.c.view == 2
        away = torch.where(turned, 1.0, side * 0.45 + 0.55 * torch.sin(r.yaw))
        toe = torch.where(turned, 0.022, 0.020)
        sole = (r.p["sink"] > 0.4) & ~turned
        at = ankle + torch.stack([away * toe * torch.cos(angle), -toe * torch.sin(angle).abs() - 0.004], 1)
        rx, ry = torch.where(sole, 0.040, 0.048), torch.where(sole, 0.044, 0.028) * flat
        spin = torch.where(turned, -angle, side * angle.clamp(-0.6, 0.6) * -0.5)
        has = r.t["tentacles"] == 0
        layers.append(Layer(ellipse(at, rx, ry, spin), r.paints.foot, has, shade=0.12))
    return layers


def tentacles(r: Rig) -> list[Layer]:
    """Five of them in place of legs; those in the middle in front."""
    layers: list[Layer] = []
    length = r.t["leg"] * (1 - r.p["sink"]) + 0.004
    stride = torch.deg2rad(r.p["thigh_r"] - r.p["thigh_l"]) * 0.3
    for place in (-1.0, 1.0, -0.5, 0.5, 0.0):
        wide = r.t["body_w"] * place * (0.55 + 0.45 * torch.cos(r.yaw))
        curl = place * 0.055 + stride * 0.1 * (1 - abs(place))
        corners = [(wide * 0.55, -0.035), (wide * 0.85 + curl * 0.2, length * 0.45),
                   (wide * 1.0 + curl * 0.9, length * 0.88),
                   (wide * 1.0 + curl * 1.7, length * 0.96), (wide + curl * 2.2, length * 0.74)]  # fmt: skip
        shape = chain(row(Frame(r.hips.origin, r.hips.turn * 0), corners), [0.036, 0.031, 0.025, 0.019, 0.013])
        layers.append(Layer(shape, r.paints.fur, r.t["tentacles"] > 0, shade=0.1))
    return layers


def torso_shape(r: Rig) -> Shape:
    narrow = r.t["body_w"] * (1 - 0.10 * torch.sin(r.yaw))
    return blob(r.body, narrow, r.t["body_h"], r.t["body_p"], r.t["body_jaw"])


def torso(r: Rig) -> list[Layer]:
    shape, limb = torso_shape(r), r.t["limb"]
    whole = shape
    for side, name in SIDES:
        off = torch.where(r.t["tentacles"] > 0, 0.3, 1.0)
        hip, knee, ankle = leg_joints(r, side, name)
        shin = knee + (ankle - knee) * 0.72
        whole = union(whole, chain(bent(hip, knee, shin), fading(limb * off, limb * off, limb * 0.9 * off)), 0.03)
    footless = r.t["tentacles"] > 0
    human, dressed = r.t["shirt"] > 0, r.wears("overalls")
    shirt = torch.where((r.c.outfit == 0)[:, None], r.paints.accent, r.colour(0.96, 0.94, 0.90))
    skin = torch.where(human[:, None], shirt, r.paints.fur)
    trousers = torch.where(dressed[:, None], r.paints.accent, r.colour(0.24, 0.30, 0.46))
    waist = half(Frame(r.body.at(0.0, 0.22 * r.t["body_h"]), r.body.turn + math.pi))
    belly = ellipse(r.body.at(r.t["body_w"] * 0.46 * torch.sin(r.yaw), 0.10 * r.t["body_h"]),
                    r.t["body_w"] * (0.30 + 0.38 * torch.cos(r.yaw)), r.t["body_h"] * 0.70, r.body.turn)  # fmt: skip
    return [
        Layer(whole, skin, ~footless, shade=0.09),
        Layer(shape, skin, footless, shade=0.12),
        Layer(meet(belly, shape), r.paints.light, (r.t["belly"] > 0) & ~dressed, line=0.0),
        Layer(meet(whole, waist), trousers, (human | dressed) & ~footless, line=0.8, shade=0.12),
        Layer(meet(shape, waist), trousers, dressed & footless, line=0.8, shade=0.12),
    ]


def bib(r: Rig) -> list[Layer]:
    """The upper half of overalls: bib, straps, buttons and pocket."""
    on, front, tall = r.wears("overalls"), torch.sin(r.yaw) * r.t["body_w"] * 0.48, r.t["body_h"]
    wide = r.t["body_w"] * (0.24 + 0.38 * torch.cos(r.yaw))
    at = Frame(r.body.at(front, 0.02), r.body.turn)
    layers = [Layer(meet(blob(at, wide, 0.46 * tall, 5.0, 0.0), torso_shape(r)), r.paints.accent, on, line=0.7)]
    for side in (-1.0, 1.0):
        strap = row(
            r.body, [(front + side * wide * 0.8, -0.22 * tall), (front * 0.8 + side * wide * 1.0, -0.85 * tall)]
        )
        button = r.body.at(front + side * wide * 0.72, -0.17 * tall)
        layers.append(Layer(meet(chain(strap, [0.014, 0.014]), torso_shape(r)), r.paints.accent, on, line=0.6))
        layers.append(Layer(ellipse(button, 0.010, 0.010), r.colour(1.0, 0.86, 0.36), on, line=0.5))
    pocket = Frame(r.body.at(front, 0.24 * tall), r.body.turn)
    return [*layers, Layer(blob(pocket, wide * 0.5, 0.026, 4.0, 0.0), r.paints.accent * 0.84, on, line=0.4)]


def chest(r: Rig) -> list[Layer]:
    """A robot's panel, and the straps of a backpack."""
    front, tall = torch.sin(r.yaw) * r.t["body_w"] * 0.5, r.t["body_h"]
    wide = r.t["body_w"] * (0.22 + 0.38 * torch.cos(r.yaw))
    panel = Frame(r.body.at(front, 0.05 * tall), r.body.turn)
    robot = (r.t["buttons"] > 0) & ~r.wears("overalls")
    layers = [Layer(meet(blob(panel, wide, 0.40 * tall, 4.0, 0.0), torso_shape(r)), r.paints.light, robot, line=0.7)]
    for place, colour in ((-0.5, (0.95, 0.30, 0.30)), (0.0, (0.99, 0.80, 0.25)), (0.5, (0.35, 0.80, 0.45))):
        at = panel.at(wide * place, -0.012)
        layers.append(Layer(ellipse(at, wide * 0.18, 0.012), r.colour(*colour), robot, line=0.4))
    for side in (-1.0, 1.0):
        x = front * 0.3 + side * r.t["body_w"] * 0.56 * torch.cos(r.yaw)
        strap = chain(row(r.body, [(x * 0.92, -0.85 * tall), (x, -0.2 * tall), (x * 1.15, 0.3 * tall)]), [0.015] * 3)
        on = r.wears("backpack") & ((r.c.view < 2) | (side < 0))
        layers.append(Layer(meet(strap, torso_shape(r)), r.paints.accent * 0.84, on, line=0.7))
    return layers


# Arms ----------------------------------------------------------------------------------------------------------------


def arm_joints(r: Rig, side: float, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Shoulder, elbow, hand. Seen from the side the shoulders are near the middle."""
    x = side * (r.t["body_w"] * 0.80 - 0.010) * torch.cos(r.yaw) + torch.where(r.c.view == 2, -side * 0.03 - 0.012, 0.0)
    shoulder = r.body.at(x, -0.50 * r.t["body_h"])
    elbow, hand = limb_joints(r, shoulder, (f"arm_{name}", f"fore_{name}"), r.t["arm"] * r.p[f"reach_{name}"], side)
    return shoulder, elbow, hand


def arm_slot(r: Rig, name: str) -> Tensor:
    """Where an arm lies; in three-quarter view the far one goes behind the body."""
    slot = r.p[f"slot_{name}"]
    if name == "l":
        return slot
    return torch.where((r.c.view == 1) & (slot == 1) & (r.p["hold"] == 0), 0.0, slot)


def arms(r: Rig, slot: int) -> list[Layer]:
    layers: list[Layer] = []
    limb, fin = r.t["limb"] * 0.92, (r.t["flippers"] > 0) | (r.t["tentacles"] > 0)
    broad = torch.where(r.t["flippers"] > 0, 1.35, 1.0)
    radii = [limb * 1.06, limb * broad, limb * torch.where(fin, 0.55, 0.95)]
    for side, name in SIDES:
        shoulder, elbow, hand = arm_joints(r, side, name)
        on = arm_slot(r, name) == slot
        shirt = torch.where((r.c.outfit == 0)[:, None], r.paints.accent, r.colour(0.96, 0.94, 0.90))
        sleeve = torch.where((r.t["shirt"] > 0)[:, None], shirt, r.paints.fur)
        layers.append(Layer(chain(bent(shoulder, elbow, hand), fading(*radii)), sleeve, on, shade=0.10))
        ahead = F.normalize(hand - elbow)
        pointing = on & (r.p["point"] > 0) & (name == "r") & ~fin
        finger = chain([hand, hand + ahead * 0.062], [0.016, 0.0125])
        layers.append(Layer(finger, r.paints.hand, pointing))
        palm = ellipse(hand + ahead * 0.006, limb * 1.18, limb * 1.18)
        layers.append(Layer(palm, r.paints.hand, on & ~fin, shade=0.08))
        layers.append(Layer(finger, r.paints.hand, pointing, line=0.0))
        if slot:
            patch = shoulder + (r.body.at(0.0, -0.1 * r.t["body_h"]) - shoulder) * 0.16
            layers.append(
                Layer(ellipse(patch, limb * 0.92, limb * 0.92), sleeve, on & (slot == 1) & (r.c.view < 2), line=0.0)
            )
    return layers


def item(r: Rig) -> list[Layer]:
    """What is held before the belly."""
    hands = [arm_joints(r, side, name)[2] for side, name in SIDES]
    middle = torch.where((r.c.view == 2)[:, None], hands[1] + torch.tensor([0.040, -0.035]), (hands[0] + hands[1]) / 2)
    f, on = Frame(middle, r.body.turn), r.p["hold"] > 0
    heart = chain(row(f, [(-0.038, -0.030), (0.0, 0.052), (0.038, -0.030)]), [0.046, 0.010, 0.046])
    corners: list[tuple[Number, Number]] = []
    for i in range(10):
        angle, reach = math.pi * i / 5, (0.088, 0.044)[i % 2]
        corners.append((reach * math.sin(angle), -reach * math.cos(angle)))
    mug = union(blob(f, 0.058, 0.062, 4.5, 0.0), ring(ellipse(f.at(0.066, 0.0), 0.032, 0.034), 0.010), 0.004)
    ball = ellipse(middle, 0.080, 0.080)
    shapes = (heart, polygon(row(f, corners), 0.010), mug, ball)
    layers = [
        Layer(shape, r.colour(*ITEM_COLOURS[i]), on & (r.c.item == i), shade=0.14) for i, shape in enumerate(shapes)
    ]
    band = meet(ellipse(middle, 0.12, 0.020), ball)
    return [*layers, Layer(band, r.colour(1, 1, 1), on & (r.c.item == 3), line=0.0)]


# Head ----------------------------------------------------------------------------------------------------------------


def ear_points(r: Rig, side: float) -> list[Tensor]:
    lon, cos, sin = torch.deg2rad(r.t["ear_lon"]), torch.cos(r.yaw), torch.sin(r.yaw)
    x = r.t["head_w"] * torch.sin(lon) * side * cos - 0.12 * r.t["head_w"] * sin
    deep = torch.where(r.t["ear_tip"] < 0.02, 0.84, 0.93)  # a pointed ear starts inside
    x, y = x * deep, -r.t["head_h"] * torch.cos(lon) * deep
    x = x + 0.30 * r.t["head_w"] * sin * (r.t["ear_lon"] > 75)
    turn, bend = torch.deg2rad(r.t["ear_turn"]), torch.deg2rad(r.t["ear_bend"])
    away = side * cos
    points, length = [(x, y)], r.t["ear_len"] / 2
    for angle in (turn, turn + bend):
        x = x + length * (torch.sin(angle) * away - 0.25 * sin)
        y = y - length * torch.cos(angle)
        points.append((x, y))
    return row(r.head, points)


def ears(r: Rig, over: bool) -> list[Layer]:
    layers: list[Layer] = []
    wide = (r.t["ear_r"], (r.t["ear_r"] + r.t["ear_tip"]) / 2, r.t["ear_tip"])
    fill = torch.where((r.t["ear_dark"] > 0)[:, None], r.paints.dark, r.paints.fur)
    fill = torch.where((r.t["horn"] > 0)[:, None], r.colour(0.98, 0.93, 0.80), fill)
    pink = blend(r.paints.fur, r.colour(1.0, 0.62, 0.66), 0.62)
    for side in (1.0, -1.0):
        points = ear_points(r, side)
        near = (r.c.view < 2) | (side < 0)
        front = near & (
            ((r.t["ear_over"] > 0) & ((r.c.view == 0) | (side < 0))) | ((r.t["ear_lon"] > 75) & (r.c.view == 2))
        )
        on = (r.t["ear_r"] > 0) & (front if over else ~front) & ~(long_hair(r) & (r.c.view < 2))
        inner = [radius * 0.52 for radius in wide]
        curve = bent(*points)
        layers.append(Layer(chain(curve, fading(*wide)), fill, on, shade=0.10))
        layers.append(
            Layer(chain(curve, fading(*inner)), pink, on & (r.t["ear_in"] > 0) & (r.t["ear_over"] == 0), line=0.0)
        )
        ball = ellipse(points[2], r.t["ear_ball"], r.t["ear_ball"])
        layers.append(Layer(ball, r.paints.light, on & (r.t["ear_ball"] > 0), shade=0.12))
    return layers


def long_hair(r: Rig) -> Tensor:
    return (r.t["hair"] > 0) & (r.c.build[:, BUILD.index("ear_len")] > 0)


def mane(r: Rig) -> list[Layer]:
    """Behind the head: a lion's mane, a child's long hair, a robot's mast."""
    points: list[tuple[Number, Number]] = []
    for i in range(25):
        angle = math.pi * i / 12
        points.append((r.t["head_w"] * 1.06 * math.sin(angle), -r.t["head_h"] * 1.08 * math.cos(angle) + 0.006))
    tufts = chain(row(r.head, points), [0.058 if i % 2 else 0.030 for i in range(25)])
    mast = chain(row(r.head, [(0.0, -r.t["head_h"] * 0.9), (0.0, -r.t["head_h"] - 0.05)]), [0.013, 0.010])
    fall = Frame(r.head.at(-0.16 * r.t["head_w"] * torch.sin(r.yaw), 0.16 * r.t["head_h"]), r.head.turn)
    return [
        Layer(mast, r.paints.dark, r.t["visor"] > 0),
        Layer(
            ellipse(r.head.at(0.0, -r.t["head_h"] - 0.062), 0.022, 0.022), r.paints.light, r.t["visor"] > 0, shade=0.14
        ),
        Layer(tufts, r.paints.dark, r.t["mane"] > 0, shade=0.10),
        Layer(
            blob(r.head, r.t["head_w"] * 1.1, r.t["head_h"] * 1.1, 2.0, 0.0), r.paints.dark, r.t["mane"] > 0, line=0.0
        ),
        Layer(blob(fall, r.t["head_w"] * 1.12, r.t["head_h"] * 1.12, 2.6, 0.06), r.paints.hair * 0.86, long_hair(r)),
    ]


def head_shape(r: Rig, grow: float = 1.0) -> Shape:
    return blob(r.head, r.t["head_w"] * grow, r.t["head_h"] * grow, r.t["head_p"], r.t["jaw"])


def skull(r: Rig) -> list[Layer]:
    """The head and what is painted on it: masks, eye patches, visor, spots."""
    head, t = head_shape(r), r.t
    layers = [Layer(head, r.paints.fur, r.all, shade=0.11)]
    for side in (1.0, -1.0):
        lon = side * 40
        wide = 0.100 * r.turned(lon).clamp(min=0.25)
        cheek = ellipse(r.on_head(lon, 0.62), wide * 1.25, 0.088, r.head.turn - side * 0.35)
        seen = r.turned(lon) > 0
        layers.append(Layer(meet(cheek, head), r.paints.light, (t["mask"] == 1) & seen, line=0.0))
        moon = ellipse(r.on_head(side * 23, 0.10), 0.094 * r.turned(side * 23).clamp(min=0.3), 0.112, r.head.turn)
        layers.append(Layer(meet(moon, head), r.paints.light, (t["mask"] == 2) & (r.turned(side * 23) > 0.1), line=0.0))
        eye = r.turned(side * t["eye_lon"])
        disc = ellipse(eye_centre(r, side), t["eye_w"] * 2.0 * eye.clamp(min=0.3), t["eye_h"] * 1.75, r.head.turn)
        layers.append(Layer(meet(disc, head), r.paints.light, (t["patch"] > 0) & (eye > 0.1), line=0.5))
    chin = ellipse(r.on_head(0.0, 0.58), 0.122 * r.turned(0.0).clamp(min=0.5), 0.075, r.head.turn)
    screen = Frame(r.on_head(0.0, 0.10), r.head.turn)
    visor = blob(screen, t["head_w"] * 0.82 * r.turned(0.0).clamp(min=0.62), t["head_h"] * 0.74, 4.0, 0.0)
    layers.append(Layer(meet(chin, head), r.paints.light, t["mask"] == 2, line=0.0))
    layers.append(Layer(meet(visor, head_shape(r, 0.93)), r.colour(0.10, 0.12, 0.19), t["visor"] > 0, line=0.6))
    for lon, lat, size in ((-34, -0.62, 0.020), (-16, -0.74, 0.013), (30, -0.66, 0.016)):
        spot = ellipse(r.on_head(lon, lat), size * r.turned(lon).clamp(min=0.3), size * 0.8, r.head.turn)
        on = (t["tentacles"] > 0) & (r.turned(lon) > 0.1)
        layers.append(Layer(spot, r.paints.fur * 0.84, on, line=0.0))
    return layers


def hair(r: Rig) -> list[Layer]:
    """A child's hair: the head, a little grown, less an ellipse for the face; locks of a fringe hang into it."""
    cap, sin, tall = head_shape(r, 1.07), torch.sin(r.yaw), r.t["head_h"]
    wide = r.t["head_w"] * (0.90 * torch.cos(r.yaw) + 0.76 * sin)
    shape = minus(cap, ellipse(r.on_head(4.0, 0.52), wide, tall * 1.02, r.head.turn))
    for lon, tip in ((-46, -0.02), (-22, -0.20), (4, -0.26), (30, -0.20), (52, -0.02)):
        points = [r.on_head(lon * 0.9 - 6, -0.72), r.on_head(lon, tip)]
        lock = chain(points, [0.052 * r.turned(lon).clamp(min=0.3), 0.004])
        shape = union(shape, meet(lock, cap), 0.006)
    tuft = chain(bent(r.head.at(-0.01, -tall), r.head.at(0.02, -tall * 1.2), r.head.at(0.06, -tall * 1.14)),
                 fading(0.020, 0.012, 0.004))  # fmt: skip
    on, dark = r.t["hair"] > 0, r.paints.hair * 0.80
    layers = [Layer(union(shape, tuft, 0.02), r.paints.hair, on, shade=0.08)]
    for lon in (-52, 36):
        strand = bent(r.on_head(lon * 0.5, -0.93), r.on_head(lon, -0.80), r.on_head(lon * 1.1, -0.48))
        layers.append(Layer(chain(strand, [0.0034] * 7), dark, on & (r.turned(lon) > 0.1), line=0.0))
    return layers


# Face ----------------------------------------------------------------------------------------------------------------


def bumps(r: Rig) -> Tensor:
    """Whose eyes are on bumps above the head."""
    return r.t["eye_lat"] < -0.8


def eye_centre(r: Rig, side: float) -> Tensor:
    """On the head, or on a frog's bumps."""
    lon = side * r.t["eye_lon"]
    bump = ear_points(r, side)[2] + torch.stack([0.022 * torch.sin(r.yaw), torch.zeros(r.n)], 1)
    return torch.where(bumps(r)[:, None], bump, r.on_head(lon, r.t["eye_lat"]))


def stroke(frame: Frame, wide: Number, height: Number, wave: Number, radius: float) -> Shape:
    """A line of 2·`wide` that bulges by `height` (y down) in the middle, or waves by `wave`."""
    points: list[Tensor] = []
    for i in range(15):
        t = i / 7 - 1
        points.append(frame.at(wide * t, height * (1 - t * t) - height * 0.5 + wave * math.sin(1.5 * math.pi * t)))
    return chain(points, [radius] * 15)


def eyes(r: Rig) -> list[Layer]:
    layers: list[Layer] = []
    for side, name in SIDES:
        narrow = r.turned(side * r.t["eye_lon"])
        seen, narrow = narrow > 0.12, narrow.clamp(min=0.3)
        layers += eye(r, side, name, seen, 0.25 + 0.75 * narrow)
    return layers


def eye(r: Rig, side: float, name: str, seen: Tensor, narrow: Tensor) -> list[Layer]:
    """One eye: white, pupil, two lights, a lid; or the stroke of a closed one."""
    t, e, at = r.t, r.e, Frame(eye_centre(r, side), r.head.turn)
    is_open = e[f"open_{name}"] > 0
    rx, ry = t["eye_w"] * narrow * e["eye"], t["eye_h"] * e["eye"]
    screen = t["visor"] > 0
    dark_fur = (luma(r.paints.fur) < 0.30) & (t["mask"] != 2) & ~screen
    white = seen & is_open & ((t["sclera"] > 0) | dark_fur)
    pupil = torch.where(screen[:, None], r.paints.ink, r.colour(0.10, 0.08, 0.11))
    under = torch.where(screen[:, None], r.colour(0.10, 0.12, 0.19), r.paints.fur)
    under = torch.where(((t["patch"] > 0) | (t["mask"] == 2))[:, None], r.paints.light, under)
    ball = ellipse(at.origin, rx * 1.42, ry * 1.30, at.turn)
    lid_line = Frame(at.at(0.0, ry * (1.4 * e["lid"] * 1.55 - 1.25)), at.turn + torch.deg2rad(e["lid_turn"]) * -side)
    lid = meet(ellipse(at.origin, rx * 1.5, ry * 1.42, at.turn), half(lid_line))
    closed = stroke(at, t["eye_w"] * 1.15 * narrow, -e["curve"] * t["eye_h"] * 0.8, 0.0, 0.0078)
    line = torch.where(((t["patch"] > 0) | (t["mask"] == 2))[:, None], r.colour(0.13, 0.10, 0.14), r.paints.ink)
    on = seen & is_open
    look = 0.18 * rx * torch.sin(r.yaw)
    return [
        Layer(ball, r.colour(1, 1, 1), white, line=0.7),
        Layer(ellipse(at.at(look, 0.0), rx, ry, at.turn), pupil, on, line=0.0),
        Layer(
            ellipse(at.at(look - rx * 0.30, -ry * 0.36), rx * 0.40, rx * 0.42),
            r.colour(1, 1, 1),
            on & ~screen,
            line=0.0,
        ),
        Layer(
            ellipse(at.at(look + rx * 0.34, ry * 0.40), rx * 0.18, rx * 0.18), r.colour(1, 1, 1), on & ~screen, line=0.0
        ),
        Layer(lid, under, on & (e["lid"] > 0), line=0.0),
        Layer(closed, line, seen & ~is_open, line=0.0),
    ]


def brows(r: Rig) -> list[Layer]:
    layers: list[Layer] = []
    ink = torch.where((r.t["mask"] == 2)[:, None], r.paints.mouth, r.paints.ink)
    for side, _ in SIDES:
        narrow = r.turned(side * r.t["eye_lon"])
        bump = bumps(r)
        up = (
            r.t["eye_h"] * torch.where(bump, 1.1, 1.45)
            + r.e["brow_up"] * r.t["head_h"] * torch.where(bump, 0.3, 1.0)
            + 0.004
        )
        at = Frame(eye_centre(r, side), r.head.turn)
        turn = at.turn - side * torch.deg2rad(r.e["brow_turn"])
        middle = Frame(at.at(-side * 0.004, -up), turn)
        wide = r.t["eye_w"] * 1.10 * narrow.clamp(min=0.35) + 0.004
        shape = chain([middle.at(-wide, 0.0), middle.at(wide, 0.0)], [0.0082, 0.0082])
        layers.append(Layer(shape, ink, (r.e["brow"] > 0) & (narrow > 0.12), line=0.0))
    return layers


def muzzle_frame(r: Rig) -> Frame:
    return Frame(r.on_head(0.0, r.t["muzzle_lat"], r.t["muzzle_out"] - 0.02), r.head.turn)


def muzzle(r: Rig) -> list[Layer]:
    t, at, sin = r.t, muzzle_frame(r), torch.sin(r.yaw)
    wide = t["muzzle_w"] * (1 - 0.18 * sin)
    fill = torch.where((t["snout"] > 0)[:, None], blend(r.paints.fur, r.colour(1.0, 0.75, 0.76), 0.45), r.paints.light)
    fill = torch.where((t["wings"] > 0)[:, None], r.paints.light, fill)
    has = t["muzzle_w"] > 0
    edge = (r.c.view == 2) | (t["snout"] > 0)
    shape = ellipse(at.origin, wide, t["muzzle_h"], at.turn)
    layers = [
        Layer(shape, fill, has & edge, line=0.8, shade=0.06),
        Layer(shape, fill, has & ~edge, line=0.0, shade=0.06),
    ]
    tip = at.at(sin * wide * 0.80, -t["muzzle_h"] * (0.62 - 0.12 * sin))
    bare = r.on_head(0.0, 0.34, 0.016)
    spot = torch.where(has[:, None], tip, bare)
    colour = torch.where(has[:, None], r.colour(0.16, 0.11, 0.13), r.paints.fur * 0.72)
    nosed = (t["nose_w"] > 0) & (t["beak"] == 0)
    layers.append(Layer(ellipse(spot, t["nose_w"] * (1 - 0.25 * sin), t["nose_h"], at.turn), colour, nosed, line=0.0))
    shine = spot + torch.stack([-t["nose_w"] * 0.3, -t["nose_h"] * 0.35], 1)
    layers.append(
        Layer(
            ellipse(shine, t["nose_w"] * 0.28, t["nose_h"] * 0.24), r.colour(1, 1, 1), nosed & has, line=0.0, alpha=0.6
        )
    )
    for side in (-1.0, 1.0):
        hole = at.at((side * 0.40 + 0.35 * sin) * wide * (1 - 0.3 * sin), -t["muzzle_h"] * 0.16)
        layers.append(
            Layer(ellipse(hole, t["muzzle_w"] * 0.13, t["muzzle_h"] * 0.24), fill * 0.55, t["snout"] > 0, line=0.0)
        )
    return layers


def beak(r: Rig) -> list[Layer]:
    at, sin, w, h = Frame(r.on_head(0.0, 0.28, 0.004), r.head.turn), torch.sin(r.yaw), r.t["nose_w"], r.t["nose_h"]
    narrow = 1 - 0.45 * sin
    corners = [
        (-w * narrow, -h * 0.45),
        (w * narrow * (1 - 0.5 * sin), -h * 0.45),
        (sin * w * 1.5, h * (0.85 - 0.45 * sin)),
    ]
    return [Layer(polygon(row(at, corners), 0.011), r.paints.beak, r.t["beak"] > 0, shade=0.1, line=0.8)]


def mouth_frame(r: Rig) -> Frame:
    t, sin = r.t, torch.sin(r.yaw)
    on_muzzle = muzzle_frame(r).at(sin * t["muzzle_w"] * 0.22, t["muzzle_h"] * 0.26)
    bare = r.on_head(-22 * sin, t["mouth_lat"])
    use = (t["muzzle_w"] > 0) & (t["mouth_lat"] < 0.6)
    return Frame(torch.where(use[:, None], on_muzzle, bare), r.head.turn)


def mouth(r: Rig) -> list[Layer]:
    """A stroke; or an open mouth with tongue or teeth, no wider than head and muzzle."""
    e, at, screen = r.e, mouth_frame(r), r.t["visor"] > 0
    sin = torch.sin(r.yaw)
    wide, agape, gape = e["wide"] * (1 - 0.38 * sin) * r.t["grin"], e["gape"] > 0, e["gape"] * (1 - 0.15 * sin)
    snout = ellipse(muzzle_frame(r).origin, r.t["muzzle_w"] * (1 - 0.18 * sin), r.t["muzzle_h"], r.head.turn)
    face = union(head_shape(r, 0.985), snout, 0.01)
    smile = meet(lune(at.at(0.0, -gape * 0.25), wide, e["gape_top"], gape, at.turn), face)
    oval = meet(ellipse(at.at(0.0, gape * 0.20), wide, gape, at.turn), face)
    inside = torch.where((e["teeth"] > 0)[:, None], r.colour(1, 1, 1), r.colour(0.50, 0.10, 0.15))
    inside = torch.where(screen[:, None], r.paints.ink, inside)
    tongue = meet(ellipse(at.at(0.0, gape * 0.62), wide * 0.58, gape * 0.42, at.turn), smile)
    teeth = chain([at.at(-wide * 0.8, -gape * 0.25), at.at(wide * 0.8, -gape * 0.25)], [0.0032, 0.0032])
    layers: list[Layer] = []
    for hole, on in ((smile, agape & (e["oval"] == 0)), (oval, agape & (e["oval"] > 0))):
        layers.append(Layer(ring(hole, 0.0045), r.paints.mouth, on & ~screen, line=0.0))
        layers.append(Layer(hole, inside, on, line=0.0))
    return [
        *layers,
        Layer(tongue, r.colour(0.97, 0.50, 0.52), agape & (e["tongue"] > 0) & ~screen, line=0.0),
        Layer(teeth, r.colour(0.13, 0.10, 0.14), (e["teeth"] > 0) & agape, line=0.0),
        Layer(stroke(at, wide, e["smile"], e["wave"], 0.0078), r.paints.mouth, ~agape, line=0.0),
    ]


def cheeks(r: Rig) -> list[Layer]:
    """Rosy cheeks."""
    layers: list[Layer] = []
    for side in (1.0, -1.0):
        narrow = r.turned(side * 46)
        cheek = ellipse(r.on_head(side * 46, 0.40), 0.030 * narrow.clamp(min=0.3), 0.020, r.head.turn)
        on = (r.t["cheeks"] > 0) & (r.e["blush"] > 0.5) & (narrow > 0.1)
        layers.append(Layer(cheek, r.colour(1.0, 0.45, 0.50), on, line=0.0, alpha=0.55))
    return layers


def sweat(r: Rig) -> list[Layer]:
    """A tear, a drop of sweat, and the bubble at a sleeper's nose."""
    blue, white = r.colour(0.45, 0.76, 0.99), r.colour(1, 1, 1)
    f = Frame(eye_centre(r, -1.0), r.head.turn)
    tear = chain(row(f, [(-0.008, r.t["eye_h"] * 0.9), (-0.010, r.t["eye_h"] * 0.9 + 0.040)]), [0.002, 0.0165])
    brow = Frame(r.on_head(-66.0, -0.44), r.head.turn)
    drop = chain(row(brow, [(0.0, -0.034), (0.0, 0.0)]), [0.002, 0.0175])
    nose = Frame(r.on_head(14.0, 0.32, r.t["muzzle_out"] * 0.7), r.head.turn)
    asleep = r.e["bubble"] > 0
    return [
        Layer(tear, blue, r.e["tear"] > 0, line=0.7),
        Layer(drop, blue, r.e["sweat"] > 0, line=0.7),
        Layer(ellipse(nose.at(0.024, 0.0), 0.036, 0.036), r.colour(0.72, 0.90, 1.0), asleep, line=0.5, alpha=0.75),
        Layer(ellipse(nose.at(0.012, -0.016), 0.008, 0.008), white, asleep, line=0.0),
    ]


def whiskers(r: Rig) -> list[Layer]:
    layers: list[Layer] = []
    f, w, h = muzzle_frame(r), r.t["muzzle_w"], r.t["muzzle_h"]
    for side in (-1.0, 1.0):
        for slope in (-0.012, 0.012):
            x = side * (w * 1.05)
            line = chain(row(f, [(x, slope * 0.6), (x + side * 0.062, slope * 1.9)]), [0.0036, 0.0024])
            on = (r.t["whiskers"] > 0) & ((r.c.view < 2) | (side < 0)) & (h > 0)
            layers.append(Layer(line, r.paints.ink, on, line=0.0, alpha=0.8))
    return layers


# Outfits on head and neck --------------------------------------------------------------------------------------------


def neckwear(r: Rig) -> list[Layer]:
    """Scarf, and the front of a cape."""
    wide, sin, accent = r.t["body_w"], torch.sin(r.yaw), r.paints.accent
    y = -0.80 * r.t["body_h"] + 0.012
    around = row(r.body, [(-0.80 * wide, y - 0.006), (0.02 * sin, y + 0.014), (0.80 * wide, y - 0.006)])
    x = 0.38 * wide - 0.55 * wide * sin
    end = row(r.body, [(x, y + 0.02), (x + 0.012, y + 0.075), (x + 0.016, y + 0.108)])
    scarf, caped = r.wears("scarf"), r.wears("cape")
    collar = row(r.body, [(-0.70 * wide, y - 0.004), (0.03 * sin, y + 0.016), (0.70 * wide, y - 0.004)])
    clasp = r.body.at(0.35 * wide * sin, y + 0.02)
    return [
        Layer(chain(end, [0.024, 0.029, 0.030]), accent * 0.88, scarf & (r.p["hold"] == 0), shade=0.1),
        Layer(chain(around, [0.032, 0.034, 0.032]), accent, scarf, shade=0.12),
        Layer(chain(collar, [0.022, 0.018, 0.022]), accent, caped, shade=0.1),
        Layer(ellipse(clasp, 0.016, 0.016), r.colour(1.0, 0.84, 0.32), caped, line=0.8),
    ]


def top(r: Rig, y: float, back: float = 0.0) -> Frame:
    """On the crown of the head, `y` half heights above its middle."""
    return Frame(r.head.at(-back * r.t["head_w"] * torch.sin(r.yaw), -y * r.t["head_h"]), r.head.turn)


def hats(r: Rig) -> list[Layer]:
    w, accent, on = r.t["head_w"] * 0.54, r.paints.accent, r.wears("hat")
    f = top(r, 0.88, 0.06)
    body = polygon(row(f, [(-w * 0.92, 0.0), (w * 0.92, 0.0), (w * 0.78, -0.112), (-w * 0.78, -0.112)]), 0.014)
    band = polygon(row(f, [(-w * 0.93, 0.0), (w * 0.93, 0.0), (w * 0.90, -0.026), (-w * 0.90, -0.026)]), 0.012)
    brim = ellipse(f.at(0.0, 0.010), w * 1.62, 0.030, f.turn)
    ribbon = torch.where((luma(accent) < 0.3)[:, None], r.colour(0.97, 0.90, 0.74), accent * 0.45)
    return [
        Layer(brim, accent * 0.90, on, shade=0.1), Layer(body, accent, on, shade=0.14),
        Layer(band, ribbon, on, line=0.0), *cap(r), *crown(r),
    ]  # fmt: skip


def cap(r: Rig) -> list[Layer]:
    on, accent, sin = r.wears("cap"), r.paints.accent, torch.sin(r.yaw)
    f = top(r, 0.46, 0.03)
    dome = meet(head_shape(r, 1.07), half(Frame(f.origin, f.turn - 0.05 * sin)))
    peak = Frame(f.at(r.t["head_w"] * 0.86 * sin, 0.004), f.turn + 0.14 * sin)
    brim = ellipse(peak.origin, r.t["head_w"] * (0.74 - 0.12 * sin), 0.030, peak.turn)
    knob = ellipse(top(r, 1.08).origin, 0.016, 0.012, f.turn)
    badge = ellipse(r.on_head(0.0, -0.72), 0.036 * r.turned(0.0).clamp(min=0.4), 0.030, f.turn)
    return [
        Layer(knob, accent * 0.84, on), Layer(dome, accent, on, shade=0.12),
        Layer(badge, r.colour(0.98, 0.96, 0.92), on & (r.c.view < 2), line=0.5),
        Layer(brim, accent * 0.84, on, shade=0.1),
    ]  # fmt: skip


def crown(r: Rig) -> list[Layer]:
    on, f, w = r.wears("crown"), top(r, 0.84, 0.05), r.t["head_w"] * 0.48
    corners: list[tuple[Number, Number]] = [(-w, 0.012), (w, 0.012), (w * 1.14, -0.10), (w * 0.52, -0.052),
                                            (0.0, -0.122),
                                            (-w * 0.52, -0.052), (-w * 1.14, -0.10)]  # fmt: skip
    layers = [Layer(polygon(row(f, corners), 0.009), r.paints.accent, on, shade=0.12)]
    band = chain(row(f, [(-w * 0.97, 0.002), (w * 0.97, 0.002)]), [0.013, 0.013])
    layers.append(Layer(band, r.paints.accent * 0.80, on, line=0.0))
    pearl = torch.where((luma(r.paints.accent) > 0.8)[:, None], r.colour(0.86, 0.20, 0.30), r.colour(1.0, 0.95, 0.80))
    for x, y in ((-1.14, -0.10), (0.0, -0.122), (1.14, -0.10)):
        layers.append(Layer(ellipse(f.at(w * x, y - 0.006), 0.014, 0.014), pearl, on, line=0.7))
    return layers


def glasses(r: Rig) -> list[Layer]:
    on, accent = r.wears("glasses"), r.paints.accent
    layers: list[Layer] = []
    inner: list[Tensor] = []
    radius = torch.maximum(r.t["eye_h"] * 1.45, torch.full((r.n,), 0.050))
    for side in (1.0, -1.0):
        narrow = r.turned(side * r.t["eye_lon"])
        seen, centre = on & (narrow > 0.12), eye_centre(r, side)
        rx = radius * (0.35 + 0.65 * narrow.clamp(min=0.2))
        lens = ellipse(centre, rx, radius, r.head.turn)
        layers.append(Layer(lens, r.colour(0.85, 0.95, 1.0), seen, line=0.0, alpha=0.22))
        layers.append(Layer(ring(lens, 0.0085), accent, seen, line=0.45))
        inner.append(Frame(centre, r.head.turn).at(-side * rx, 0.0))
    arch = chain(inner, [0.008, 0.008])
    near = Frame(eye_centre(r, -1.0), r.head.turn)
    arm = chain([near.at(-radius * 0.9, 0.0), r.on_head(-112.0, r.t["eye_lat"] - 0.06)], [0.007, 0.007])
    layers.append(Layer(arch, accent, on & (r.c.view < 2), line=0.45))
    layers.append(Layer(arm, accent, on & (r.c.view == 2) & ~bumps(r), line=0.45))
    return layers


# All of it -----------------------------------------------------------------------------------------------------------

Part = Callable[[Rig], list[Layer]]
STACK: tuple[Part, ...] = (
    cape, backpack, wings, tail, lambda r: arms(r, 0), mane, tentacles, torso, feet, chest, bib, item,
    lambda r: arms(r, 1),
    neckwear, lambda r: ears(r, over=False), skull, muzzle, cheeks, eyes, brows, mouth, beak, whiskers, hair, glasses,
    hats,
    lambda r: ears(r, over=True), lambda r: on_bumps(r, eyes, brows, glasses), sweat, lambda r: arms(r, 2),
)  # fmt: skip


def on_bumps(r: Rig, *parts: Part) -> list[Layer]:
    """A frog's eyes again, over what it wears on its head."""
    return [replace(layer, on=layer.on & bumps(r)) for part in parts for layer in part(r)]

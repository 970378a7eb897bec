"""Characters: mascots of sixteen species, rigged, dressed and posed. Batched, on CPU or CUDA, equal for equal seeds.

Numbers become a rig (joints in a frame of side 1, y down, feet on the ground), the rig a list of `Layer`s from back to
front, and `shapes.Canvas` paints them. Figures are built facing right; `Fit` mirrors them and keeps them in the frame.

python -m engine.pocket.characters -n 24 --seed 1 --out sheet.png [--species fox] [--identity 7]
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.pocket.backdrops import COLOURS, mix, palette
from engine.pocket.shapes import (
    Canvas,
    Fit,
    Frame,
    Layer,
    Number,
    Shape,
    blob,
    chain,
    ellipse,
    extent,
    half,
    lune,
    meet,
    minus,
    polygon,
    ring,
    union,
)
from engine.pocket.sprites import Sprite, spread

GROUND = 0.925  # where feet stand, as a part of the frame
MARGIN = 0.035  # that stays empty around a figure
LARGEST = 1.2  # scale of a figure that leaves room to grow
CHUNK = {"cpu": 4, "cuda": 512}  # pictures painted at once

# What a species differs in. Lengths are parts of the frame, angles degrees; lon and lat are places on the head, as
# degrees to the side and parts of its half height; `ear_lon` counts from the top of the head.
DEFAULTS: dict[str, float] = {
    "head_w": 0.215, "head_h": 0.185, "head_p": 2.25, "jaw": 0.06, "body_w": 0.105, "body_h": 0.118, "body_p": 2.2,
    "body_jaw": 0.18, "leg": 0.115, "arm": 0.165, "limb": 0.036, "belly": 1,
    "ear_lon": 45, "ear_len": 0.1, "ear_r": 0.06, "ear_tip": 0.02, "ear_turn": 25, "ear_bend": 0, "ear_in": 1,
    "ear_ball": 0, "ear_over": 0, "ear_dark": 0, "horn": 0,
    "tail_len": 0, "tail_r": 0.025, "tail_mid": 0.025, "tail_end": 0.02, "tail_turn": 100, "tail_curl": 40,
    "tail_tip": 0,
    "eye_lon": 27, "eye_lat": 0.06, "eye_w": 0.026, "eye_h": 0.036, "sclera": 0, "patch": 0,
    "muzzle_w": 0, "muzzle_h": 0, "muzzle_lat": 0.42, "muzzle_out": 0.03, "nose_w": 0.02, "nose_h": 0.014, "beak": 0,
    "mouth_lat": 0.46, "whiskers": 0, "cheeks": 1, "mask": 0, "visor": 0, "hair": 0, "mane": 0, "tentacles": 0,
    "wings": 0, "flippers": 0, "grin": 1, "spots": 0, "socks": 0, "snout": 0, "shirt": 0, "buttons": 0,
}  # fmt: skip
SPECIES: dict[str, dict[str, float]] = {
    "cat": {"ear_len": 0.145, "ear_r": 0.066, "ear_tip": 0.012, "ear_lon": 43, "ear_turn": 22, "tail_len": 0.30,
            "tail_turn": 120, "tail_curl": 110, "muzzle_w": 0.062, "muzzle_h": 0.042, "nose_w": 0.017, "nose_h": 0.012,
            "whiskers": 1},
    "dog": {"ear_len": 0.15, "ear_r": 0.045, "ear_tip": 0.058, "ear_lon": 62, "ear_turn": 150, "ear_bend": 18,
            "ear_in": 0, "ear_over": 1, "ear_dark": 1, "tail_len": 0.17, "tail_turn": 125, "tail_curl": 60,
            "muzzle_w": 0.088, "muzzle_h": 0.068, "nose_w": 0.031, "nose_h": 0.022, "muzzle_out": 0.055,
            "head_w": 0.20},
    "bear": {"ear_len": 0.012, "ear_r": 0.062, "ear_tip": 0.060, "ear_lon": 47, "ear_turn": 45, "tail_len": 0.03,
             "tail_r": 0.032, "tail_mid": 0.032, "tail_end": 0.032, "muzzle_w": 0.082, "muzzle_h": 0.062,
             "nose_w": 0.028, "nose_h": 0.019, "body_w": 0.122, "limb": 0.041, "head_w": 0.222},
    "rabbit": {"ear_len": 0.21, "ear_r": 0.042, "ear_tip": 0.034, "ear_lon": 24, "ear_turn": 10, "ear_bend": 14,
               "tail_len": 0.02, "tail_r": 0.045, "tail_mid": 0.045, "tail_end": 0.045, "tail_tip": 1,
               "muzzle_w": 0.056, "muzzle_h": 0.040, "nose_w": 0.016, "nose_h": 0.012, "head_w": 0.195,
               "head_h": 0.178, "body_w": 0.098},
    "fox": {"ear_len": 0.17, "ear_r": 0.068, "ear_tip": 0.010, "ear_lon": 44, "ear_turn": 22, "tail_len": 0.32,
            "tail_r": 0.03, "tail_mid": 0.085, "tail_end": 0.012, "tail_turn": 115, "tail_curl": 55, "tail_tip": 1,
            "mask": 1, "nose_w": 0.022, "nose_h": 0.016, "muzzle_w": 0.05, "muzzle_h": 0.045, "muzzle_out": 0.06,
            "jaw": 0.10, "head_p": 2.0, "head_w": 0.225, "head_h": 0.172, "socks": 1, "eye_lat": 0.0},
    "frog": {"ear_len": 0.04, "ear_r": 0.060, "ear_tip": 0.060, "ear_lon": 40, "ear_turn": 16, "ear_in": 0,
             "ear_over": 1, "head_w": 0.232, "head_h": 0.155, "eye_lat": -0.93, "eye_lon": 35, "sclera": 1,
             "eye_w": 0.030,
             "eye_h": 0.036, "nose_w": 0, "mouth_lat": 0.16, "jaw": 0.10, "body_h": 0.11, "grin": 1.5},
    "owl": {"ear_len": 0.095, "ear_r": 0.050, "ear_tip": 0.010, "ear_lon": 46, "ear_turn": 36, "ear_in": 0,
            "patch": 1, "sclera": 1, "eye_w": 0.036, "eye_h": 0.042, "eye_lat": -0.04, "eye_lon": 27, "beak": 1,
            "nose_w": 0.026, "nose_h": 0.034, "mouth_lat": 0.66, "flippers": 1, "body_w": 0.122, "leg": 0.075,
            "tail_len": 0.06, "tail_r": 0.035, "tail_mid": 0.035, "tail_end": 0.03, "tail_turn": 60, "spots": 1},
    "robot": {"head_p": 5.0, "jaw": 0.0, "head_w": 0.20, "head_h": 0.165, "body_p": 4.5, "body_jaw": 0.0,
              "body_w": 0.108, "ear_lon": 90, "ear_len": 0.02, "ear_r": 0.05, "ear_tip": 0.042, "ear_turn": 90,
              "ear_in": 0, "ear_dark": 1, "visor": 1, "nose_w": 0, "cheeks": 0, "eye_w": 0.024, "eye_h": 0.036,
              "eye_lat": 0.0, "mouth_lat": 0.44, "limb": 0.030, "belly": 0, "buttons": 1},
    "octopus": {"head_w": 0.215, "head_h": 0.222, "jaw": -0.12, "head_p": 2.1, "tentacles": 1, "ear_r": 0,
                "nose_w": 0, "body_w": 0.115, "body_h": 0.085, "belly": 0, "eye_lat": 0.26, "mouth_lat": 0.58,
                "leg": 0.12, "spots": 1, "limb": 0.034},
    "dragon": {"ear_len": 0.145, "ear_r": 0.038, "ear_tip": 0.010, "ear_lon": 30, "ear_turn": 24, "ear_bend": -34,
               "ear_in": 0, "horn": 1, "tail_len": 0.34, "tail_r": 0.06, "tail_mid": 0.042, "tail_end": 0.012,
               "tail_turn": 80, "tail_curl": 80, "muzzle_w": 0.108, "muzzle_h": 0.064, "muzzle_lat": 0.46,
               "muzzle_out": 0.06, "snout": 1, "nose_w": 0, "wings": 1, "body_w": 0.115, "head_w": 0.20},
    "child": {"ear_lon": 97, "ear_len": 0.004, "ear_r": 0.030, "ear_tip": 0.030, "ear_turn": 90, "ear_in": 0,
              "hair": 1, "nose_w": 0.012, "nose_h": 0.009, "belly": 0, "shirt": 1, "limb": 0.032, "head_w": 0.192,
              "head_h": 0.182, "body_w": 0.092, "eye_lat": 0.12, "mouth_lat": 0.54, "leg": 0.125},
    "alien": {"ear_lon": 26, "ear_len": 0.12, "ear_r": 0.011, "ear_tip": 0.010, "ear_turn": 24, "ear_bend": 20,
              "ear_in": 0, "ear_ball": 0.029, "jaw": -0.20, "head_w": 0.212, "head_h": 0.185, "eye_w": 0.047,
              "eye_h": 0.060, "eye_lat": 0.08, "eye_lon": 29, "nose_w": 0, "mouth_lat": 0.66, "limb": 0.027,
              "body_w": 0.086, "body_h": 0.11, "arm": 0.17},
    "mouse": {"ear_len": 0.018, "ear_r": 0.088, "ear_tip": 0.088, "ear_lon": 50, "ear_turn": 48, "tail_len": 0.34,
              "tail_r": 0.011, "tail_mid": 0.010, "tail_end": 0.007, "tail_turn": 95, "tail_curl": 120,
              "head_w": 0.188, "head_h": 0.168, "muzzle_w": 0.052, "muzzle_h": 0.038, "nose_w": 0.021,
              "nose_h": 0.017, "whiskers": 1, "body_w": 0.095, "muzzle_out": 0.05},
    "penguin": {"ear_r": 0, "mask": 2, "beak": 1, "nose_w": 0.034, "nose_h": 0.026, "flippers": 1, "leg": 0.06,
                "body_w": 0.125, "body_h": 0.13, "mouth_lat": 0.56, "eye_lat": 0.04, "head_w": 0.192,
                "head_h": 0.172, "eye_lon": 25},
    "pig": {"ear_len": 0.075, "ear_r": 0.052, "ear_tip": 0.014, "ear_lon": 48, "ear_turn": 62, "ear_bend": 50,
            "snout": 1, "muzzle_w": 0.066, "muzzle_h": 0.047, "muzzle_lat": 0.28, "nose_w": 0, "mouth_lat": 0.68,
            "tail_len": 0.13, "tail_r": 0.014, "tail_mid": 0.013, "tail_end": 0.011, "tail_turn": 110,
            "tail_curl": 230, "body_w": 0.122, "ear_over": 1},
    "lion": {"ear_len": 0.014, "ear_r": 0.05, "ear_tip": 0.048, "ear_lon": 46, "ear_turn": 45, "mane": 1,
             "tail_len": 0.30, "tail_r": 0.018, "tail_mid": 0.016, "tail_end": 0.040, "tail_turn": 105,
             "tail_curl": 100, "tail_tip": 2, "muzzle_w": 0.076, "muzzle_h": 0.052, "nose_w": 0.028,
             "nose_h": 0.019, "head_w": 0.175, "head_h": 0.162},
}  # fmt: skip
OUTFITS = ("none", "scarf", "hat", "cap", "glasses", "backpack", "cape", "overalls", "crown")
VIEWS = {"front": 0.0, "three-quarter": 34.0, "side": 68.0}  # degrees of yaw
ITEMS = ("heart", "star", "mug", "ball")
ITEM_COLOURS = ((0.90, 0.16, 0.24), (0.99, 0.80, 0.20), (0.96, 0.95, 0.92), (0.20, 0.46, 0.90))
ITEM_TOLD = ("a red heart", "a yellow star", "a white mug", "a blue ball")

# `open`: left and right eye; `curve`: of a closed eye, 1 ∩, -1 ∪; `lid`, `brow`: degrees, above 0 is angry.
EXPRESSION_DEFAULTS: dict[str, float] = {
    "open_l": 1, "open_r": 1, "curve": 1, "eye": 1, "lid": 0, "lid_turn": 0, "brow": 1, "brow_up": 0, "brow_turn": 0,
    "smile": 0.0, "wide": 0.038, "gape": 0, "gape_top": 0, "wave": 0, "tear": 0, "sweat": 0, "tongue": 0, "blush": 0.55,
    "teeth": 0, "oval": 0, "bubble": 0,
}  # fmt: skip
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {"brow": 0, "wide": 0.026, "smile": 0.002},
    "happy": {"brow": 0, "smile": 0.026, "wide": 0.046, "blush": 1},
    "laughing": {"open_l": 0, "open_r": 0, "brow": 0, "wide": 0.055, "gape": 0.075, "gape_top": 0.006, "tongue": 1,
                 "blush": 1},
    "sad": {"brow_turn": -22, "brow_up": 0.10, "smile": -0.026, "wide": 0.036, "tear": 1, "lid": 0.16, "lid_turn": -16,
            "blush": 0.2},
    "angry": {"brow_turn": 24, "brow_up": -0.03, "smile": -0.012, "wide": 0.042, "lid": 0.32, "lid_turn": 22,
              "teeth": 1, "gape": 0.020, "gape_top": -0.020, "blush": 0.2},
    "surprised": {"eye": 1.22, "brow_up": 0.17, "wide": 0.023, "gape": 0.034, "oval": 1},
    "sleepy": {"open_l": 0, "open_r": 0, "curve": -1, "brow": 0, "wide": 0.014, "gape": 0.014, "oval": 1, "bubble": 1},
    "winking": {"open_r": 0, "brow": 0, "smile": 0.026, "wide": 0.046, "tongue": 2, "gape": 0.046, "gape_top": 0.010,
                "blush": 1},
    "worried": {"brow_turn": -24, "brow_up": 0.08, "wave": 0.009, "wide": 0.040, "sweat": 1, "eye": 0.86,
                "blush": 0.2},
}  # fmt: skip

# Joint angles in degrees: 0 hangs down, 90 is level, 180 straight up; outwards on a figure seen from the front and
# forwards on one seen from the side. `r` is the limb on the right of the picture, or the near one. Slots: 0 behind the
# body, 1 before it, 2 before the head. `lift`, `sink`: of the hips, in parts of the frame and of the legs' length.
POSE_DEFAULTS: dict[str, float] = {
    "lean": 0, "tilt": 0, "lift": 0, "sink": 0, "nod": 0,
    "arm_r": 26, "fore_r": 14, "arm_l": 26, "fore_l": 14, "slot_r": 1, "slot_l": 1,
    "thigh_r": 8, "shin_r": 4, "thigh_l": 8, "shin_l": 4, "point": 0, "hold": 0, "reach_r": 1, "reach_l": 1,
}  # fmt: skip
POSES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "standing": ({}, {"arm_r": 12, "fore_r": 22, "arm_l": -14, "fore_l": 0, "thigh_r": 6, "thigh_l": -8, "shin_l": -8}),
    "waving": (
        {"tilt": -6, "arm_r": 96, "fore_r": 142, "slot_r": 2, "reach_r": 1.3},
        {"tilt": -10, "arm_r": 90, "fore_r": 122, "slot_r": 2, "reach_r": 2.0, "arm_l": -14, "fore_l": 4,
         "thigh_l": -8, "shin_l": -8},
    ),
    "arms up": (
        {"arm_r": 102, "fore_r": 150, "slot_r": 2, "reach_r": 1.4, "arm_l": 102, "fore_l": 150, "slot_l": 2,
         "reach_l": 1.4, "thigh_r": 14, "thigh_l": 14},
        {"nod": -0.12, "tilt": -14, "arm_r": 94, "fore_r": 122, "slot_r": 2, "reach_r": 2.0, "arm_l": -98,
         "fore_l": -136, "slot_l": 0, "reach_l": 1.8, "thigh_r": 8, "thigh_l": -10, "shin_l": -10},
    ),
    "running": (
        {"lean": 5, "tilt": 4, "lift": 0.02, "arm_r": 62, "fore_r": 140, "arm_l": 46, "fore_l": -30, "thigh_r": 58,
         "shin_r": -22, "thigh_l": 24, "shin_l": 34},
        {"lean": 14, "tilt": -6, "lift": 0.03, "arm_r": -62, "fore_r": 10, "arm_l": 58, "fore_l": 118, "thigh_r": 72,
         "shin_r": 6, "thigh_l": -42, "shin_l": -96},
    ),
    "jumping": (
        {"lift": 0.11, "arm_r": 94, "fore_r": 118, "slot_r": 2, "reach_r": 1.25, "arm_l": 94, "fore_l": 118,
         "slot_l": 2, "reach_l": 1.25, "thigh_r": 52, "shin_r": -26, "thigh_l": 52, "shin_l": -26},
        {"lift": 0.11, "lean": 6, "tilt": -8, "arm_r": 84, "fore_r": 108, "slot_r": 2, "reach_r": 1.8, "arm_l": -84,
         "fore_l": -108, "slot_l": 0, "reach_l": 1.5, "thigh_r": 68, "shin_r": -34, "thigh_l": 10, "shin_l": -72},
    ),
    "sitting": (
        {"sink": 0.80, "arm_r": 40, "fore_r": -22, "arm_l": 40, "fore_l": -22, "thigh_r": 66, "shin_r": 72,
         "thigh_l": 66, "shin_l": 72},
        {"sink": 0.80, "lean": -6, "arm_r": -26, "fore_r": -14, "arm_l": 44, "fore_l": 36, "thigh_r": 84, "shin_r": 86,
         "thigh_l": 78, "shin_l": 82},
    ),
    "pointing": (
        {"point": 1, "tilt": 5, "arm_r": 88, "fore_r": 92, "arm_l": 52, "fore_l": -48, "thigh_r": 12, "thigh_l": 12},
        {"point": 1, "arm_r": 84, "fore_r": 92, "reach_r": 1.4, "arm_l": -24, "fore_l": -4, "thigh_r": 12,
         "thigh_l": -14, "shin_l": -14},
    ),
    "thinking": (
        {"tilt": 8, "nod": -0.06, "arm_r": 42, "fore_r": -132, "slot_r": 2, "arm_l": 20, "fore_l": -74},
        {"tilt": -6, "nod": -0.08, "arm_r": 34, "fore_r": 148, "slot_r": 2, "arm_l": 30, "fore_l": 96},
    ),
    "holding": (
        {"hold": 1, "arm_r": 44, "fore_r": -44, "arm_l": 44, "fore_l": -44},
        {"hold": 1, "arm_r": 44, "fore_r": 84, "arm_l": 54, "fore_l": 90, "slot_l": 0},
    ),
    "bowing": (
        {"lean": 9, "nod": 0.40, "arm_r": 22, "fore_r": -78, "arm_l": 68, "fore_l": 44, "slot_l": 0},
        {"lean": 44, "tilt": -12, "nod": 0.16, "arm_r": 30, "fore_r": 92, "arm_l": -70, "fore_l": -50, "thigh_r": -4,
         "shin_r": 0, "thigh_l": -14, "shin_l": -4},
    ),
    "dancing": (
        {"lean": -9, "tilt": 14, "arm_r": 104, "fore_r": 152, "slot_r": 2, "reach_r": 1.3, "arm_l": 84, "fore_l": 40,
         "thigh_r": 52, "shin_r": 10, "thigh_l": 2, "shin_l": 0},
        {"lean": -10, "tilt": -8, "arm_r": 90, "fore_r": 124, "slot_r": 2, "reach_r": 1.9, "arm_l": -62,
         "fore_l": -110, "thigh_r": 62, "shin_r": 4, "thigh_l": -6, "shin_l": -4},
    ),
}  # fmt: skip
TOLD_POSES: dict[str, tuple[str, ...]] = {
    "standing": ("standing", "standing still"), "waving": ("waving", "waving hello"),
    "arms up": ("with arms up", "arms raised", "cheering"), "running": ("running",), "jumping": ("jumping", "leaping"),
    "sitting": ("sitting", "sitting down"), "pointing left": ("pointing left", "pointing to the left"),
    "pointing right": ("pointing right", "pointing to the right"), "thinking": ("thinking",),
    "holding": ("holding {}",), "bowing": ("bowing", "taking a bow"), "dancing": ("dancing",),
}  # fmt: skip
TOLD_EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "neutral": ("neutral", "calm"), "happy": ("happy", "smiling"), "laughing": ("laughing",), "sad": ("sad", "crying"),
    "angry": ("angry", "grumpy"), "surprised": ("surprised", "amazed"), "sleepy": ("sleepy", "sleeping"),
    "winking": ("winking",), "worried": ("worried", "nervous"),
}  # fmt: skip
TOLD_VIEWS = {"front": ("front view", "seen from the front"), "three-quarter": ("three-quarter view",),
              "side": ("side view", "seen from the side")}  # fmt: skip
BUILD = ("head_w", "head_h", "jaw", "body_w", "body_h", "leg", "arm", "limb", "ear_len", "ear_r", "eye", "eye_lon")
SKIN = ((0.98, 0.86, 0.74), (0.94, 0.76, 0.60), (0.80, 0.58, 0.42), (0.56, 0.37, 0.26))


@dataclass(frozen=True)
class Characters:
    """n characters as numbers, on the CPU. All (n,) but two; indices into the tables of this file."""

    species: Tensor
    fur: Tensor  # COLOURS: the fur, or a child's hair
    accent: Tensor  # COLOURS: the outfit, and a child's shirt
    outfit: Tensor
    build: Tensor  # (n, 12) in -1..1: proportions beside the species' own, named by BUILD
    skin: Tensor  # SKIN, for a child
    lined: Tensor  # bool: a dark outline, else a soft one
    expression: Tensor
    pose: Tensor
    view: Tensor
    facing: Tensor  # ±1: the figure turns and points to the right or the left of the picture
    item: Tensor  # ITEMS, for one who holds
    words: Tensor  # (n, 8) uniform: how it is told

    def __len__(self) -> int:
        return len(self.species)

    def __getitem__(self, rows: slice) -> "Characters":
        return Characters(*(getattr(self, f.name)[rows] for f in fields(self)))


IDENTITY = ("species", "fur", "accent", "outfit", "build", "skin", "lined")
Held = str | int | Tensor
NAMES: dict[str, tuple[str, ...]] = {
    "species": tuple(SPECIES), "fur": tuple(COLOURS), "accent": tuple(COLOURS), "outfit": OUTFITS,
    "expression": tuple(EXPRESSIONS), "pose": tuple(POSES), "view": tuple(VIEWS), "item": ITEMS,
}  # fmt: skip


def sample_characters(n: int, generator: torch.Generator, **held: Held) -> Characters:
    """Draw n characters. `held` fixes fields for all: by name ("fox"), by index, or as a tensor (n, …) or (1, …).

    "pointing left" and "pointing right" are poses too: they fix `facing`.
    """
    count, colours = len(SPECIES), len(COLOURS)
    fur = spread(n, colours, generator)
    columns: dict[str, Tensor] = {
        "species": spread(n, count, generator), "fur": fur,
        "accent": (fur + torch.randint(1, colours, (n,), generator=generator)) % colours,
        "outfit": spread(n, len(OUTFITS), generator), "build": torch.rand(n, len(BUILD), generator=generator) * 2 - 1,
        "skin": spread(n, len(SKIN), generator), "lined": torch.rand(n, generator=generator) < 0.6,
        "expression": spread(n, len(EXPRESSIONS), generator), "pose": spread(n, len(POSES), generator),
        "view": spread(n, len(VIEWS), generator), "facing": spread(n, 2, generator) * 2 - 1,
        "item": spread(n, len(ITEMS), generator), "words": torch.rand(n, 8, generator=generator),
    }  # fmt: skip
    if held.get("pose") in ("pointing left", "pointing right"):
        held |= {"pose": "pointing", "facing": -1 if held["pose"] == "pointing left" else 1}
    for name, value in held.items():
        if isinstance(value, str):
            value = NAMES[name].index(value)
        value = torch.as_tensor(value, dtype=columns[name].dtype)
        columns[name] = value.expand(columns[name].shape).clone()
    return Characters(**columns)


def identity(seed: int, **held: Held) -> dict[str, Held]:
    """Species, proportions, colours and outfit of one character, to hold: `sample_characters(8, g, **identity(7))`."""
    one = sample_characters(1, torch.Generator().manual_seed(seed), **held)
    return {name: getattr(one, name) for name in IDENTITY}


def table(defaults: Mapping[str, float], rows: Sequence[Mapping[str, float]], index: Tensor) -> dict[str, Tensor]:
    """Columns of a table at the rows `index` (n,), each (n,)."""
    return {
        name: torch.tensor([float(row.get(name, value)) for row in rows])[index] for name, value in defaults.items()
    }


def blend(a: Tensor, b: Tensor, share: Number) -> Tensor:
    """Colours (n, 3) mixed, by one share or one for each."""
    return mix(a, b, share[:, None] if isinstance(share, Tensor) else torch.tensor(share))


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


def fit_of(c: Characters, layers: Sequence[Layer]) -> Fit:
    """No larger than life, and inside the frame with a margin."""
    left, top, right, bottom = extent(layers).unbind(1)
    room, ground = 1 - 2 * MARGIN, torch.full_like(left, GROUND)
    scale = torch.stack([(GROUND - MARGIN) / (GROUND - top), room / (right - left), room / (bottom - top)]).amin(0)
    scale = scale.clamp(max=LARGEST)
    low, high = right - room / 2 / scale, left + room / 2 / scale
    centre = torch.minimum(torch.maximum(torch.full_like(left, 0.5), low), high)
    foot = torch.minimum(ground, 1 - MARGIN - (bottom - GROUND) * scale)
    return Fit(scale, centre, c.facing.float(), ground, foot)


def shadow_of(r: Rig, fit: Fit, size: int, device: torch.device | str) -> Tensor:
    """A soft ellipse on the ground, smaller and fainter under one who jumps, (n, 1, h, w)."""
    lift = r.p["lift"]
    x = 0.5 + fit.facing * (r.hips.origin[:, 0] - fit.centre) * fit.scale
    wide, strength = 0.20 * fit.scale * (1 - 2.5 * lift), 0.34 * (1 - 4 * lift)
    x, wide, strength = (value.to(device)[:, None, None, None] for value in (x, wide, strength))
    line = (torch.arange(size, device=device) + 0.5) / size
    return strength * torch.exp(-(((line - x) / wide) ** 2) - ((line[:, None] - GROUND) / 0.026) ** 2)


@torch.no_grad()
def draw_characters(characters: Characters, size: int = 256, device: torch.device | str = "cpu") -> Sprite:
    """The figures, cut out, each on a square of `size` pixels; painted a few at a time so that caches hold them."""
    chunk = CHUNK.get(torch.device(device).type, 64)
    parts = [draw_chunk(characters[slice(i, i + chunk)], size, device) for i in range(0, len(characters), chunk)]
    return Sprite(*(torch.cat(list(column)) for column in zip(*parts, strict=True)))


def draw_chunk(c: Characters, size: int, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    r = rig(c)
    layers = [layer for part in STACK for layer in part(r) if layer.on.any()]
    fit = fit_of(c, layers)
    canvas = Canvas.blank(fit, c.lined, size, device)
    for layer in layers:
        canvas.paint(layer)
    alpha = canvas.alpha.clamp(0, 1)
    return (canvas.rgb / alpha.clamp(min=1e-4)).clamp(0, 1), alpha, shadow_of(r, fit, size, device)


# In words ------------------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """What one character shows, by name; `item` is "" where nothing is held, `accent` where nothing has its colour.

    `facing` is "left" or "right", and "" from the front.
    """

    species: str
    fur: str
    accent: str
    outfit: str
    expression: str
    pose: str
    view: str
    facing: str
    item: str
    hair: str


def shown(characters: Characters) -> list[Shown]:
    """The table of what is there: for captions, and for an evaluator to check."""
    c, colours, views = characters, list(COLOURS), list(VIEWS)
    names = [list(NAMES[name]) for name in ("species", "outfit", "expression", "pose")]
    hair = [("short", "long")[int(value)] for value in c.build[:, BUILD.index("ear_len")] > 0]
    rows: list[Shown] = []
    for i in range(len(c)):
        species, outfit, expression, pose = (
            table[int(column[i])]
            for table, column in zip(names, (c.species, c.outfit, c.expression, c.pose), strict=True)
        )
        side, human, view = "right" if int(c.facing[i]) > 0 else "left", species == "child", views[int(c.view[i])]
        rows.append(
            Shown(
                species, colours[int(c.fur[i])], colours[int(c.accent[i])] if human or outfit != "none" else "", outfit,
                expression, f"pointing {side}" if pose == "pointing" else pose, view, "" if view == "front" else side,
                ITEM_TOLD[int(c.item[i])] if pose == "holding" else "", hair[i] if human else "",
            )
        )  # fmt: skip
    return rows


def worn(show: Shown) -> str:
    """'a red scarf', 'orange glasses', for a child without an outfit 'a red shirt', '' for nothing."""
    if not show.accent:
        return ""
    outfit = "shirt" if show.outfit == "none" else show.outfit
    article = "" if outfit.endswith("s") else "an " if show.accent[0] in "aeio" else "a "
    return f"{article}{show.accent} {outfit}"


def described(show: Shown, mood: str) -> str:
    """'a happy teal cat', 'a happy child with long teal hair'; `mood` may be "" and then it is not told."""
    words = f"{mood} {show.species}" if show.hair else f"{mood} {show.fur} {show.species}"
    words = words.strip()
    tail = f" with {show.hair} {show.fur} hair" if show.hair else ""
    return ("an " if words[0] in "aeio" else "a ") + words + tail


def picked(options: Sequence[str], u: float) -> str:
    """The first of the options in 60 % of cases, else one of the others."""
    if len(options) == 1 or u < 0.6:
        return options[0]
    return options[1 + int((u - 0.6) / 0.4 * (len(options) - 1))]


def tell(show: Shown, u: Sequence[float]) -> str:
    """One character in words; `u` holds 8 uniform numbers."""
    mood, view = picked(TOLD_EXPRESSIONS[show.expression], u[0]), picked(TOLD_VIEWS[show.view], u[1])
    act, wear = picked(TOLD_POSES[show.pose], u[2]).format(show.item), worn(show)
    if show.facing and u[3] < 0.5:
        view = f"{view}, facing {show.facing}"
    dressed = f" {'and' if show.hair else 'with'} {wear}" if wear else ""
    wearing = f", wearing {wear}" if wear else ""
    return (
        f"{described(show, mood)}{dressed}, {act}, {view}",
        f"{described(show, mood)}{wearing}, {act}, {view}",
        f"{described(show, '')}{dressed}, {mood}, {act}, {view}",
        f"{TOLD_VIEWS[show.view][0]} of {described(show, mood)}{dressed}, {act}",
        f"{described(show, mood)}, {act}{wearing}, {view}",
    )[int(u[4] * 5)]


def told(characters: Characters) -> list[str]:
    """Exact words for every character: "a happy teal cat with a red scarf, waving, three-quarter view"."""
    rows: list[list[float]] = characters.words.tolist()  # pyright: ignore[reportUnknownVariableType]
    return [tell(show, row) for show, row in zip(shown(characters), rows, strict=True)]


# A sheet to look at --------------------------------------------------------------------------------------------------


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (n, 3, s, s) in rows of `columns`."""
    n, _, size, _ = pictures.shape
    rows = math.ceil(n / columns)
    pad = torch.ones(rows * columns - n, 3, size, size)
    grid = torch.cat([pictures, pad]).view(rows, columns, 3, size, size).permute(0, 3, 1, 4, 2)
    pixels = (grid.reshape(rows * size, columns * size, 3) * 255).round().byte()
    return Image.fromarray(pixels.numpy())


def on_plain(sprite: Sprite, generator: torch.Generator) -> Tensor:
    """Over pale plain grounds, (n, 3, h, w)."""
    n = len(sprite.rgb)
    ground = mix(palette()[spread(n, len(COLOURS), generator)], torch.ones(n, 3), torch.tensor(0.62))[:, :, None, None]
    return sprite.over(ground.expand_as(sprite.rgb))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.pocket.characters", description="Draw a sheet of characters."
    )
    parser.add_argument("-n", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=256, help="pixels on a side of one picture")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    for name in NAMES:
        parser.add_argument(f"--{name}", choices=NAMES[name])
    parser.add_argument("--identity", type=int, help="seed of one character to hold")
    args = parser.parse_args()
    held: dict[str, Held] = {name: getattr(args, name) for name in NAMES if getattr(args, name)}
    if args.identity is not None:
        held = identity(args.identity, **{k: v for k, v in held.items() if k in IDENTITY}) | {
            k: v for k, v in held.items() if k not in IDENTITY
        }
    generator = torch.Generator().manual_seed(args.seed)
    characters = sample_characters(args.n, generator, **held)
    sheet(on_plain(draw_characters(characters, args.size), generator), args.columns).save(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

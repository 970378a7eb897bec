"""The cast: species, outfits, expressions and poses as tables, and a character as one row of numbers."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from engine.pocket.backdrops import COLOURS
from engine.pocket.sprites import spread

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
    """n characters as numbers, on the CPU. All (n,) but two; indices into the tables above."""

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

    def __getitem__(self, rows: slice | Tensor) -> "Characters":
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

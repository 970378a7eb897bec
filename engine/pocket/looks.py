"""Styles and brand looks: filters over a finished scene, which know where the objects are.

A filter maps `Layers` to RGB (n, 3, h, w) in 0..1. `STYLES` are in base training, `HELD_OUT_STYLES` and `BRANDS` never
are: they are for LoRAs to learn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.pocket.backdrops import Ground, ellipse, mix, step


@dataclass(frozen=True)
class Layers:
    """A scene taken apart: `picture`, `backdrop` (n, 3, h, w), `mask` of the objects (n, 1, h, w), and its Ground."""

    picture: Tensor
    backdrop: Tensor
    mask: Tensor
    ground: Ground

    def rows(self, chosen: Tensor) -> "Layers":
        g = self.ground
        part = Ground(g.x, g.y, g.colour[chosen], g.u[chosen], g.grain[chosen])
        return Layers(self.picture[chosen], self.backdrop[chosen], self.mask[chosen], part)


def luminance(rgb: Tensor) -> Tensor:
    """Rec. 601 luma, (n, 1, h, w)."""
    return (rgb * torch.tensor([0.299, 0.587, 0.114], device=rgb.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def edges(rgb: Tensor) -> Tensor:
    """Strength of the colour gradient, (n, 1, h, w), 0..1."""
    padded = F.pad(rgb, (1, 1, 1, 1), mode="replicate")
    dx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]).abs().amax(1, keepdim=True)
    dy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]).abs().amax(1, keepdim=True)
    return (dx + dy).clamp(0, 1)


def blur(image: Tensor, radius: int) -> Tensor:
    """Two box blurs of `radius` pixels."""
    for _ in range(2):
        padded = F.pad(image, (radius,) * 4, mode="replicate")
        image = F.avg_pool2d(padded, 2 * radius + 1, stride=1)
    return image


def grown(mask: Tensor, radius: int) -> Tensor:
    """The mask, wider by `radius` pixels on every side."""
    return F.max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius)


def two_tone(g: Ground, tone: Tensor, dark: tuple[float, float, float], light: tuple[float, float, float]) -> Tensor:
    return mix(g.rgb(*dark), g.rgb(*light), tone.clamp(0, 1))


def pixel_art(s: Layers) -> Tensor:
    blocks = F.adaptive_avg_pool2d(s.picture, 32)
    return F.interpolate((blocks * 7).round() / 7, size=s.picture.shape[-2:], mode="nearest")


def line_drawing(s: Layers) -> Tensor:
    ink = (edges(blur(s.picture, 1)) * 2.6 - 0.15).clamp(0, 1)
    outline = edges(s.mask.expand(-1, 3, -1, -1))
    return (0.98 - 0.9 * torch.maximum(ink, outline)).expand(-1, 3, -1, -1).clamp(0, 1)


def sticker(s: Layers) -> Tensor:
    border = blur(grown(s.mask, 5), 1)
    shadow = blur(torch.roll(grown(s.mask, 6), (5, 4), (2, 3)), 4)
    paper = mix(s.backdrop * (1 - 0.45 * shadow), s.ground.rgb(1, 1, 1), border)
    return mix(paper, s.picture, s.mask)


def silhouette(s: Layers) -> Tensor:
    return mix(s.backdrop, s.ground.rgb(0.06, 0.05, 0.08), (s.mask * 1.2).clamp(0, 1))


def duotone(s: Layers) -> Tensor:
    tone = (luminance(s.picture) - 0.1) * 1.25 - 0.7 * edges(s.mask)
    return two_tone(s.ground, tone, (0.22, 0.06, 0.42), (1.0, 0.82, 0.42))


def watercolor(s: Layers) -> Tensor:
    wet = blur(s.picture, 1)
    pigment = 1 - (1 - wet) * (0.78 + 0.08 * s.ground.grain)
    rim = edges(wet) * 0.35
    fibre = 0.012 * torch.sin(s.ground.x * 190) * torch.sin(s.ground.y * 170)
    fade = 0.55 * step(((s.ground.x - 0.5) ** 2 + (s.ground.y - 0.5) ** 2).sqrt() - 0.50 - 0.05 * s.ground.grain, 0.12)
    return mix((pigment - rim + fibre).clamp(0, 1), s.ground.rgb(0.98, 0.97, 0.94), fade)


def neon(s: Layers) -> Tensor:
    colour = s.picture / s.picture.amax(1, keepdim=True).clamp(min=0.2)
    line = (edges(s.picture) * 2.2).clamp(0, 1) * (0.35 + 0.65 * grown(s.mask, 2))
    glow = blur(line * colour, 4) * 1.3
    tube = line * (0.35 + 0.65 * colour)
    return (s.ground.rgb(0.04, 0.02, 0.10) + 0.08 * s.picture + glow + tube).clamp(0, 1)


def halftone(s: Layers) -> Tensor:
    angle = (s.ground.x + s.ground.y, s.ground.x - s.ground.y)
    screen = 0.5 + 0.25 * (torch.cos(angle[0] * 150) + torch.cos(angle[1] * 150))
    flat = mix(s.picture, s.ground.rgb(1, 0.99, 0.94), torch.tensor(0.45))
    return flat * (1 - 0.85 * step(screen - luminance(s.picture) - 0.05, 0.5))


def blueprint(s: Layers) -> Tensor:
    ink = (edges(blur(s.picture, 1)) * 2.8 - 0.1).clamp(0, 1)
    grid = ((s.ground.x * 16) % 1 < 0.05).float() + ((s.ground.y * 16) % 1 < 0.05).float()
    return mix(s.ground.rgb(0.08, 0.28, 0.62) + 0.10 * grid.clamp(0, 1), s.ground.rgb(0.94, 0.97, 1), ink)


def coral_stripe(s: Layers) -> Tensor:
    """Cream ground, coral diagonal band, objects in navy and cream."""
    band = step(0.17 - (s.ground.x + s.ground.y - 1).abs())
    paper = mix(s.ground.rgb(0.99, 0.95, 0.86), s.ground.rgb(0.98, 0.45, 0.38), band)
    inked = two_tone(s.ground, luminance(s.picture) * 1.1 - 0.1, (0.07, 0.12, 0.33), (0.99, 0.95, 0.86))
    return mix(paper, inked, s.mask)


def forest_gold(s: Layers) -> Tensor:
    """Forest-green ground in a gold frame, objects in gold and green."""
    edge = torch.maximum((s.ground.x - 0.5).abs(), (s.ground.y - 0.5).abs())
    frame = step(edge - 0.44) * step(0.47 - edge)
    paper = mix(s.ground.rgb(0.05, 0.25, 0.17), s.ground.rgb(0.85, 0.66, 0.26), frame)
    inked = two_tone(s.ground, luminance(s.picture), (0.10, 0.35, 0.24), (0.97, 0.82, 0.45))
    return mix(paper, inked, s.mask)


def berry_circle(s: Layers) -> Tensor:
    """Pale pink ground, a large burgundy circle, objects in pink and burgundy."""
    paper = mix(s.ground.rgb(0.99, 0.87, 0.88), s.ground.rgb(0.47, 0.06, 0.20), ellipse(s.ground, 0.5, 0.5, 0.41, 0.41))
    inked = two_tone(s.ground, luminance(s.picture) * 1.1, (0.70, 0.16, 0.34), (1.0, 0.90, 0.88))
    return mix(paper, inked, s.mask)


def signal_split(s: Layers) -> Tensor:
    """Signal-yellow ground over a black foot, objects in black and white with a white edge."""
    paper = mix(s.ground.rgb(1.0, 0.85, 0.05), s.ground.rgb(0.07, 0.07, 0.07), step(s.ground.y - 0.74))
    inked = two_tone(s.ground, (luminance(s.picture) - 0.25) * 2, (0.07, 0.07, 0.07), (1, 1, 1))
    return mix(mix(paper, s.ground.rgb(1, 1, 1), blur(grown(s.mask, 3), 1)), inked, s.mask)


Filter = Callable[[Layers], Tensor]
STYLES: dict[str, Filter] = {
    "pixel art": pixel_art, "line drawing": line_drawing, "sticker": sticker, "silhouette": silhouette,
    "duotone": duotone, "watercolor": watercolor, "neon": neon,
}  # fmt: skip
HELD_OUT_STYLES: dict[str, Filter] = {"halftone": halftone, "blueprint": blueprint}
BRANDS: dict[str, Filter] = {
    "coral-stripe": coral_stripe, "forest-gold": forest_gold,
    "berry-circle": berry_circle, "signal-split": signal_split,
}  # fmt: skip
COLOURLESS = ("line drawing", "silhouette", "duotone", "neon", "blueprint", *BRANDS)  # an object's own colour is lost
GROUNDLESS = ("line drawing", "neon", "duotone", "blueprint", *BRANDS)  # the backdrop's colour is lost

LOOKS = {"none": None} | STYLES | HELD_OUT_STYLES | BRANDS


def apply_looks(look: Tensor, layers: Layers) -> Tensor:
    """The finished pictures; `look` (n,) indexes LOOKS."""
    out = layers.picture.clone()
    for index, draw in enumerate(LOOKS.values()):
        chosen = (look == index).nonzero().squeeze(1)
        if draw is not None and chosen.numel():
            out[chosen] = draw(layers.rows(chosen)).clamp(0, 1)
    return out

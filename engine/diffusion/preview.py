"""A small picture of unfinished latents: a linear map to colour, which costs nothing beside a step."""

import io
from collections.abc import Callable
from itertools import product
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.bases import Preview
from engine.diffusion.resident import Resident

LEVELS = (-0.8, 0.0, 0.8)  # of each colour, in [-1, 1]
STEADY = 0.01  # of the channels' mean spread: what hardly knows of colour counts for little
_fits: WeakKeyDictionary[Resident, Preview] = WeakKeyDictionary()


def preview(resident: Resident, latents: Tensor) -> bytes:
    """(1, c, h, w) latents → PNG of w × h pixels."""
    matrix, bias = resident.base.preview or resident.family.preview or _fit(resident)
    colour = torch.einsum("rc,chw->hwr", torch.tensor(matrix), latents[0].float().cpu()) + torch.tensor(bias)
    pixels = (colour.clamp(0, 1) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _fit(resident: Resident) -> Preview:
    """Where nobody has published a map: one from the autoencoder's latents of 27 plain colours, by ridge regression."""
    if resident not in _fits:
        colours = torch.tensor(list(product(LEVELS, repeat=3)))
        side = 4 * resident.family.scale(resident.parts)
        seen = [resident.encode(colour.view(1, 3, 1, 1).expand(1, 3, side, side)) for colour in colours]
        means = torch.cat(seen).float().mean(dim=(2, 3)).cpu().numpy()  # (27, c)
        centre, wanted = means.mean(axis=0), colours.numpy() / 2
        spread = means - centre
        gram = spread.T @ spread
        solve = cast(Callable[[Any, Any], Any], np.linalg.solve)  # which pyright cannot resolve for these types
        matrix = solve(gram + STEADY * gram.diagonal().mean() * np.eye(len(gram)), spread.T @ wanted).T
        bias = 0.5 - matrix @ centre
        _fits[resident] = Preview(tuple(tuple(map(float, row)) for row in matrix), tuple(map(float, bias)))
    return _fits[resident]

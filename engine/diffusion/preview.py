"""A small picture of unfinished latents: a linear map to colour, which costs nothing beside a step."""

import io

import torch
from PIL import Image
from torch import Tensor

from engine.diffusion.resident import Resident


def preview(resident: Resident, latents: Tensor) -> bytes:
    """(1, c, h, w) latents → PNG of w × h pixels."""
    matrix, bias = resident.base.preview or resident.family.preview
    colour = torch.einsum("rc,chw->hwr", torch.tensor(matrix), latents[0].float().cpu()) + torch.tensor(bias)
    pixels = (colour.clamp(0, 1) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

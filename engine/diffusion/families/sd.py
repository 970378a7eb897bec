"""Stable Diffusion 1.x and 2.x, and Pocket: one CLIP text encoder, whose last hidden state the UNet attends to."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextModel

from engine.bases import Preview
from engine.diffusion.families import Conditioning, Parts, common_parts, part
from engine.diffusion.prompts import encoded, pieces
from engine.prompts import Prompt

# Least-squares fits of the latents' four channels to colour, as interfaces around Stable Diffusion 1.x publish them.
PREVIEW = Preview(
    (
        (0.1756, 0.1625, -0.1414, -0.1060),
        (0.1148, 0.2487, 0.0881, -0.1308),
        (0.1613, 0.1175, 0.1361, -0.3589),
    ),
    (0.5, 0.5, 0.5),
)


def load(folder: Path, dtype: torch.dtype) -> Parts:
    return common_parts(folder, dtype, (part(CLIPTextModel, folder, "text_encoder", dtype),), ("tokenizer",))


def encode(parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
    """`prompt` in at least `chunks` pieces of 77 tokens, joined along the sequence."""
    read = pieces(parts.tokenizers[0], prompt)
    hidden, _ = encoded(parts.tokenizers[0], parts.encoders[0], read, max(chunks, len(read)), last)
    return Conditioning(hidden)


def last(output: Any) -> torch.Tensor:
    """The encoder's last hidden states, after its final norm."""
    return output[0]


def extra(cond: Conditioning, width: int, height: int) -> dict[str, Any]:  # noqa: ARG001 - the family's interface
    return {}

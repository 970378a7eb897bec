"""Stable Diffusion 1.x and 2.x, and Pocket: one CLIP text encoder, whose last hidden state the UNet attends to."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from engine.bases import Preview
from engine.diffusion.families import Conditioning, Family, Parts, common_parts, part
from engine.diffusion.prompts import encoded, pieces
from engine.prompts import Prompt


class StableDiffusion(Family):
    speaks = True
    # Least-squares fits of the latents' four channels to colour, as interfaces around Stable Diffusion publish them.
    preview = Preview(
        (
            (0.1756, 0.1625, -0.1414, -0.1060),
            (0.1148, 0.2487, 0.0881, -0.1308),
            (0.1613, 0.1175, 0.1361, -0.3589),
        ),
        (0.5, 0.5, 0.5),
    )

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        return common_parts(folder, dtype, (part(CLIPTextModel, folder, "text_encoder", dtype),), ("tokenizer",))

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """`prompt` in at least `chunks` pieces of 77 tokens, joined along the sequence."""
        read = pieces(parts.tokenizers[0], prompt, parts.words)
        vectors = [word.vectors[0] for word in parts.words]
        hidden, _ = encoded(parts.tokenizers[0], parts.encoders[0], read, max(chunks, len(read)), last, vectors)
        return Conditioning(hidden)

    def chunks(self, parts: Parts, cond: Conditioning) -> int:
        return cond.tokens.shape[1] // parts.tokenizers[0].model_max_length

    def predict(
        self, parts: Parts, net: nn.Module, x: Tensor, t: Tensor, cond: Conditioning, guidance: float
    ) -> Tensor:
        del guidance  # this network reads none
        return net(x, t, encoder_hidden_states=cond.tokens, **self.extra(parts, x, cond)).sample

    def extra(self, parts: Parts, x: Tensor, cond: Conditioning) -> dict[str, Any]:  # noqa: ARG002 - SDXL's need them
        """Keyword arguments of the UNet beside the tokens."""
        return {}


def last(output: Any) -> Tensor:
    """The encoder's last hidden states, after its final norm."""
    return output[0]


FAMILY = StableDiffusion()

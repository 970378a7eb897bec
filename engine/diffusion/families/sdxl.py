"""Stable Diffusion XL: two CLIP text encoders side by side, and as extra conditions a pooled text and the size."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from engine.bases import Preview
from engine.diffusion.families import Conditioning, Parts, common_parts, part
from engine.diffusion.families.sd import StableDiffusion
from engine.diffusion.prompts import encoded, pieces
from engine.prompts import Prompt


class StableDiffusionXL(StableDiffusion):
    preview = Preview(
        (
            (0.1825, -0.1267, 0.0538, -0.1583),
            (0.2116, -0.0021, 0.0556, -0.1246),
            (0.2170, 0.0534, -0.0181, -0.1094),
        ),
        (0.5, 0.5, 0.5),
    )

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        encoders = (
            part(CLIPTextModel, folder, "text_encoder", dtype),
            part(CLIPTextModelWithProjection, folder, "text_encoder_2", dtype),
        )
        return common_parts(folder, dtype, encoders, ("tokenizer", "tokenizer_2"))

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """Both encoders' last but one hidden states, joined along the channels; pooled: the second's, first piece."""
        read = [pieces(tokenizer, prompt, parts.words) for tokenizer in parts.tokenizers]
        count = max(chunks, *map(len, read))
        both = [
            encoded(tokenizer, encoder, said, count, last_but_one, [word.vectors[i] for word in parts.words])
            for i, (tokenizer, encoder, said) in enumerate(zip(parts.tokenizers, parts.encoders, read, strict=True))
        ]
        return Conditioning(torch.cat([hidden for hidden, _ in both], dim=-1), both[-1][1][0][:1])

    def extra(self, parts: Parts, x: Tensor, cond: Conditioning) -> dict[str, Any]:
        """Original size, crop corner, target size of an uncropped picture (Podell et al. 2023, arXiv:2307.01952)."""
        assert cond.pooled is not None
        height, width = (side * self.scale(parts) for side in x.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=cond.tokens.dtype, device=cond.tokens.device)
        return {"added_cond_kwargs": {"text_embeds": cond.pooled, "time_ids": sizes.expand(len(cond.tokens), -1)}}


def last_but_one(output: Any) -> Tensor:
    return output.hidden_states[-2]


FAMILY = StableDiffusionXL()

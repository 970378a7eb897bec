"""Stable Diffusion XL: two CLIP text encoders side by side, and as extra conditions a pooled text and the size."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from engine.bases import Preview
from engine.diffusion.families import Conditioning, Parts, common_parts, padded, part, token_chunks

PREVIEW = Preview(
    (
        (0.1825, -0.1267, 0.0538, -0.1583),
        (0.2116, -0.0021, 0.0556, -0.1246),
        (0.2170, 0.0534, -0.0181, -0.1094),
    ),
    (0.5, 0.5, 0.5),
)


def load(folder: Path, dtype: torch.dtype) -> Parts:
    encoders = (
        part(CLIPTextModel, folder, "text_encoder", dtype),
        part(CLIPTextModelWithProjection, folder, "text_encoder_2", dtype),
    )
    return common_parts(folder, dtype, encoders, ("tokenizer", "tokenizer_2"))


def encode(parts: Parts, text: str, chunks: int) -> Conditioning:
    """Both encoders' last but one hidden states, joined along the channels; pooled: the second's, first piece."""
    pieces = [token_chunks(tokenizer, text) for tokenizer in parts.tokenizers]
    count = max(chunks, *(len(p) for p in pieces))
    hidden: list[torch.Tensor] = []
    pooled: torch.Tensor | None = None
    for tokenizer, encoder, piece in zip(parts.tokenizers, parts.encoders, pieces, strict=True):
        ids = padded(tokenizer, piece, count).to(next(encoder.parameters()).device)
        out = encoder(ids, output_hidden_states=True)
        hidden.append(out.hidden_states[-2].flatten(0, 1)[None])
        pooled = out[0][:1]
    return Conditioning(torch.cat(hidden, dim=-1), pooled)


def extra(cond: Conditioning, width: int, height: int) -> dict[str, Any]:
    """Original size, crop corner, target size of an uncropped picture (Podell et al. 2023, arXiv:2307.01952, §2.2)."""
    assert cond.pooled is not None
    sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=cond.tokens.dtype, device=cond.tokens.device)
    return {"added_cond_kwargs": {"text_embeds": cond.pooled, "time_ids": sizes.expand(len(cond.tokens), -1)}}

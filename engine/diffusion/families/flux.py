"""FLUX.1, dev and schnell: a transformer that reads T5, and of CLIP the pooled text alone.

Guidance is one of its inputs where it was distilled so (dev); schnell has none. Neither reads a negative prompt.
Black Forest Labs, github.com/black-forest-labs/flux; prompts, packing and times are as in diffusers' `FluxPipeline`.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from engine.bases import Base, Preview
from engine.diffusion import t5
from engine.diffusion.families import Conditioning, Family, Parts, config, part, tokenizer
from engine.diffusion.flow import linear_mu, linear_sigmas, packed, unpacked
from engine.diffusion.prompts import padded, pieces
from engine.errors import Invalid
from engine.plans import ImagePlan
from engine.prompts import Prompt


class Flux(Family):
    # Least-squares fits of the latents' channels to colour, as interfaces around FLUX publish them.
    preview = Preview(
        (
            (-0.0173, 0.0017, 0.0138, -0.0087, 0.0430, 0.0002, 0.0203, -0.0118,
             -0.0123, 0.0504, -0.0257, 0.0214, 0.0408, -0.0632, -0.0140, -0.0631),
            (0.0122, 0.0105, -0.0334, 0.0080, 0.0360, 0.0192, 0.0430, -0.0092,
             0.0125, 0.0377, 0.0100, -0.0006, 0.0382, -0.0261, -0.0440, -0.0491),
            (0.0340, 0.0343, -0.0216, 0.0308, 0.0164, 0.0057, 0.0457, -0.0129,
             0.0590, -0.0210, 0.0006, -0.0018, 0.0374, -0.0551, -0.0249, -0.0389),
        ),
        (0.4835, 0.4641, 0.4575),
    )  # fmt: skip
    voices = ("text_encoder", "t5")

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        return Parts(
            part(FluxTransformer2DModel, folder, "transformer", dtype),
            part(AutoencoderKL, folder, "vae", torch.float32),
            (tokenizer(CLIPTokenizer, folder, "tokenizer"), tokenizer(T5Tokenizer, folder, "tokenizer_2")),
            (
                part(CLIPTextModel, folder, "text_encoder", dtype),
                part(T5EncoderModel, folder, "text_encoder_2", dtype),
            ),
            config(folder, "scheduler/scheduler_config.json"),
        )

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """T5 reads all of it, in the sequence of 512 tokens (schnell: 256 where that is enough) that it was trained on.

        CLIP's pooled text is that of the prompt's first 75 tokens, without weights.
        """
        del chunks  # T5 has none
        clip, words = parts.tokenizers
        read = t5.said(words, prompt)
        length = t5.MOST if parts.denoiser.config.guidance_embeds else t5.length(read)
        first = padded(clip, pieces(clip, prompt)[:1], 1)
        pooled = parts.encoders[0](first.to(next(parts.encoders[0].parameters()).device)).pooler_output
        return Conditioning(t5.encoded(words, parts.encoders[1], read, length), pooled)

    def accepts(self, base: Base, plan: ImagePlan) -> None:
        if plan.negative.strip():
            todo = "Say in the prompt what shall be there instead."
            raise Invalid("negative", "FLUX.1 reads no negative prompt", todo)
        if not config(base.folder, "transformer/config.json").get("guidance_embeds") and plan.guidance not in (0, 1):
            why = f"this FLUX.1 was made to draw without guidance, so {plan.guidance:g} would change nothing"
            raise Invalid("guidance", why, "Leave it out, or choose FLUX.1-dev, which reads it.")

    def contrasts(self, guidance: float) -> bool:
        del guidance  # an input of the network, not a second pass
        return False

    def predict(
        self, parts: Parts, net: nn.Module, x: Tensor, t: Tensor, cond: Conditioning, guidance: float
    ) -> Tensor:
        assert cond.pooled is not None
        reads = parts.denoiser.config.guidance_embeds
        out = net(
            packed(x),
            timestep=t.expand(len(x)).to(x.dtype) / 1000,
            guidance=torch.full((len(x),), guidance, device=x.device, dtype=torch.float32) if reads else None,
            pooled_projections=cond.pooled,
            encoder_hidden_states=cond.tokens,
            txt_ids=torch.zeros(cond.tokens.shape[1], 3, device=x.device),
            img_ids=places(x),
        ).sample
        return unpacked(out, *x.shape[2:])

    def timing(self, parts: Parts, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        tokens = (shape[2] // 2) * (shape[3] // 2)
        return {"sigmas": linear_sigmas(steps), "mu": linear_mu(parts.scheduler, tokens)}


def places(x: Tensor) -> Tensor:
    """(h/2 · w/2, 3): of each token of x a zero, its row and its column."""
    h, w = x.shape[2] // 2, x.shape[3] // 2
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(h * w, 3).to(x.device, torch.float32)


FAMILY = Flux()

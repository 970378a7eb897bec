"""Stable Diffusion 3 and 3.5: a transformer that reads two CLIP encoders side by side, and T5 behind if it is there.

Esser et al. 2024, arXiv:2403.03206. Prompts are put together as by diffusers' `StableDiffusion3Pipeline`.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from engine.bases import Preview
from engine.diffusion import t5
from engine.diffusion.families import Conditioning, Family, Parts, config, part, tokenizer
from engine.diffusion.families.sdxl import last_but_one
from engine.diffusion.flow import linear_mu
from engine.diffusion.prompts import encoded, pieces
from engine.prompts import Prompt

LONG = 4  # pieces for CLIP from which T5's sequence is the long one, so that one number says both lengths


class StableDiffusion3(Family):
    # Least-squares fits of the latents' channels to colour, as interfaces around Stable Diffusion publish them.
    preview = Preview(
        (
            (-0.0461, 0.0155, 0.0997, 0.0428, 0.0294, -0.0003, 0.0489, -0.0021,
             -0.0097, -0.0244, 0.0461, -0.0139, 0.0166, -0.0034, -0.0298, -0.0724),
            (-0.0088, 0.0316, 0.0464, 0.0169, 0.0136, 0.0552, 0.0153, 0.0519,
             0.0010, 0.0065, 0.0494, 0.0262, 0.0228, -0.0015, -0.0232, -0.0732),
            (0.0374, 0.0477, 0.0229, 0.0451, -0.0248, 0.0155, 0.0214, 0.0679,
             0.0335, -0.0134, 0.0476, -0.0271, 0.0447, -0.0405, -0.0146, -0.0595),
        ),
        (0.6197, 0.6068, 0.5962),
    )  # fmt: skip
    voices = ("text_encoder", "text_encoder_2", "t5")

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        reads = (folder / "text_encoder_3").is_dir()
        third = (part(T5EncoderModel, folder, "text_encoder_3", dtype),) if reads else ()
        return Parts(
            part(SD3Transformer2DModel, folder, "transformer", dtype),
            part(AutoencoderKL, folder, "vae", torch.float32),
            (
                *(tokenizer(CLIPTokenizer, folder, name) for name in ("tokenizer", "tokenizer_2")),
                *((tokenizer(T5Tokenizer, folder, "tokenizer_3"),) if reads else ()),
            ),
            (
                part(CLIPTextModelWithProjection, folder, "text_encoder", dtype),
                part(CLIPTextModelWithProjection, folder, "text_encoder_2", dtype),
                *third,
            ),
            config(folder, "scheduler/scheduler_config.json"),
        )

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """CLIP's pieces, its channels filled up with zeros to T5's, and then T5's sequence; zeros where it is absent.

        Pooled: both CLIPs', of the first piece.
        """
        clip = list(zip(parts.tokenizers[:2], parts.encoders[:2], strict=True))
        read = [pieces(tokenizer, prompt) for tokenizer, _ in clip]
        words = [t5.said(tokenizer, prompt) for tokenizer in parts.tokenizers[2:]]
        is_long = any(t5.length(one) > t5.USUAL for one in words)
        count = max(chunks, LONG if is_long else 1, *map(len, read))
        both = [encoded(*of, one, count, last_but_one) for of, one in zip(clip, read, strict=True)]
        hidden = torch.cat([hidden for hidden, _ in both], dim=-1)
        length = t5.MOST if count >= LONG else t5.USUAL
        width = parts.denoiser.config.joint_attention_dim
        if words:
            behind = t5.encoded(parts.tokenizers[2], parts.encoders[2], words[0], length)
        else:
            behind = hidden.new_zeros(1, length, width)
        hidden = nn.functional.pad(hidden, (0, width - hidden.shape[-1]))
        pooled = torch.cat([output[0][:1] for _, output in both], dim=-1)
        return Conditioning(torch.cat([hidden, behind], dim=1), pooled)

    def chunks(self, parts: Parts, cond: Conditioning) -> int:
        room, length = parts.tokenizers[0].model_max_length, cond.tokens.shape[1]
        return (length - (t5.MOST if length >= LONG * room + t5.MOST else t5.USUAL)) // room

    def predict(
        self, parts: Parts, net: nn.Module, x: Tensor, t: Tensor, cond: Conditioning, guidance: float
    ) -> Tensor:
        del parts, guidance  # this network reads none
        texts = {"encoder_hidden_states": cond.tokens, "pooled_projections": cond.pooled}
        return net(x, timestep=t.expand(len(x)), **texts).sample

    def timing(self, parts: Parts, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        if not parts.scheduler.get("use_dynamic_shifting"):
            return {"num_inference_steps": steps}
        patch = parts.denoiser.config.patch_size
        tokens = (shape[2] // patch) * (shape[3] // patch)
        return {"num_inference_steps": steps, "mu": linear_mu(parts.scheduler, tokens)}


FAMILY = StableDiffusion3()

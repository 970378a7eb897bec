"""Z-Image: a single stream of latents and text. It reads time from noise to picture, and tells the way to the picture.

Its text encoder is a Qwen3, of which the last layer but one is read (diffusers' pipeline_z_image.py).
"""

from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

from engine.bases import Base
from engine.diffusion.families import Conditioning, Family, Parts, config, part, tokenizer
from engine.diffusion.flow import linear_mu, linear_sigmas
from engine.diffusion.samplers import FLOW
from engine.diffusion.sentences import check_length, sentence
from engine.errors import Invalid
from engine.plans import ImagePlan
from engine.prompts import Prompt

TOKENS = 512  # most of a prompt, with its template


class ZImage(Family):
    samplers = tuple(FLOW)

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        encoder = part(Qwen3ForCausalLM, folder, "text_encoder", dtype).model  # and no head to speak
        return Parts(
            part(ZImageTransformer2DModel, folder, "transformer", dtype),
            part(AutoencoderKL, folder, "vae", torch.float32),
            (tokenizer(Qwen2Tokenizer, folder, "tokenizer"),),
            (encoder,),
            config(folder, "scheduler/scheduler_config.json"),
            index=config(folder, "model_index.json"),
        )

    def accepts(self, base: Base, plan: ImagePlan) -> None:
        if plan.negative.strip() and not self.contrasts(plan.guidance):
            todo = "Choose a guidance above 0, or leave it out."
            raise Invalid("negative", f"{base.title} reads a negative prompt only where there is guidance", todo)

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """(1, length, d), as long as the prompt is. Raises `Invalid` for more than 512 tokens."""
        del chunks
        reader, encoder = parts.tokenizers[0], cast(Any, parts.encoders[0])
        said = [{"role": "user", "content": sentence(prompt)}]
        text = reader.apply_chat_template(said, tokenize=False, add_generation_prompt=True, enable_thinking=True)
        check_length(reader, text, TOKENS)
        read = reader(text, return_tensors="pt").to(encoder.device)
        return Conditioning(encoder(**read, output_hidden_states=True, use_cache=False).hidden_states[-2])

    def predict(
        self, parts: Parts, net: nn.Module, x: Tensor, t: Tensor, cond: Conditioning, guidance: float
    ) -> Tensor:
        del parts, guidance  # this network reads none
        texts = list(cond.tokens) if cond.mask is None else [c[m] for c, m in zip(cond.tokens, cond.mask, strict=True)]
        out = net(list(x.unsqueeze(2)), (1000 - t.to(x.device, torch.float32).expand(len(x))) / 1000, texts).sample
        return -torch.stack(out).squeeze(2)

    def contrasts(self, guidance: float) -> bool:
        return guidance > 0

    def guided(self, without: Tensor, with_prompt: Tensor, guidance: float) -> Tensor:
        """v = v₊ + g (v₊ − v₋), as this model's guidance is counted: 0 is none, where other families say 1."""
        return with_prompt + guidance * (with_prompt - without)

    def timing(self, parts: Parts, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        tokens = (shape[2] // 2) * (shape[3] // 2)
        return {"sigmas": linear_sigmas(steps), "mu": linear_mu(parts.scheduler, tokens)}


FAMILY = ZImage()

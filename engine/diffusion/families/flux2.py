"""FLUX.2-klein: one stream of text, latents and reference pictures, told apart by where and when they are.

Its text encoder is a Qwen3, of which three layers in the middle are read (diffusers' pipeline_flux2_klein.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

from engine.bases import Base
from engine.diffusion.families import Conditioning, Family, Parts, config, part, tokenizer
from engine.diffusion.flow import as_image, as_picture, check_shape, linear_sigmas
from engine.diffusion.samplers import FLOW
from engine.diffusion.sentences import check_length, sentence
from engine.errors import Invalid
from engine.plans import ImagePlan
from engine.prompts import Prompt

TOKENS = 512  # of a prompt, always: what is shorter is padded, and the padding is attended to
LAYERS = (9, 18, 27)
AREA = 1024 * 1024  # most pixels of a reference
APART = 10  # between the times of two references; the picture itself is at time 0


class Flux2Klein(Family):
    samplers = tuple(FLOW)

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        encoder = part(Qwen3ForCausalLM, folder, "text_encoder", dtype).model  # and no head to speak
        return Parts(
            part(Flux2Transformer2DModel, folder, "transformer", dtype),
            part(AutoencoderKLFlux2, folder, "vae", torch.float32),
            (tokenizer(Qwen2Tokenizer, folder, "tokenizer"),),
            (encoder,),
            config(folder, "scheduler/scheduler_config.json"),
            index=config(folder, "model_index.json"),
        )

    def accepts(self, base: Base, plan: ImagePlan) -> None:
        if not config(base.folder, "model_index.json").get("is_distilled"):
            return
        if plan.guidance > 1:
            todo = "Leave it out, or choose a FLUX.2-klein-base, which is steered by it."
            raise Invalid("guidance", "this FLUX.2-klein was distilled to draw without it, in few steps", todo)
        if plan.negative.strip():
            todo = "Say in the prompt what shall be there instead."
            raise Invalid("negative", "this FLUX.2-klein reads no negative prompt", todo)

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """Three layers' hidden states side by side: (1, 512, 3d). Raises `Invalid` for more than 512 tokens."""
        del chunks
        reader, encoder = parts.tokenizers[0], cast(Any, parts.encoders[0])
        said = [{"role": "user", "content": sentence(prompt)}]
        text = reader.apply_chat_template(said, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        check_length(reader, text, TOKENS)
        read = reader(text, return_tensors="pt", padding="max_length", max_length=TOKENS).to(encoder.device)
        hidden = encoder(**read, output_hidden_states=True, use_cache=False).hidden_states
        return Conditioning(torch.cat([hidden[layer] for layer in LAYERS], dim=-1))

    def refer(self, parts: Parts, cond: Conditioning, references: Sequence[Tensor]) -> Conditioning:
        """Each reference as latents of its own size: at most 1024² pixels, cropped to whole tokens."""
        seen = [as_picture(self._fitted(parts, as_image(one)), one.device) for one in references]
        return replace(cond, references=tuple(self.to_latents(parts, one) for one in seen))

    def predict(
        self, parts: Parts, net: nn.Module, x: Tensor, t: Tensor, cond: Conditioning, guidance: float
    ) -> Tensor:
        del parts, guidance  # this network reads none
        n, _, height, width = x.shape
        shown = [x, *(one.to(x).expand(n, -1, -1, -1) for one in cond.references)]
        places = [_places(i * APART, one.shape[2], one.shape[3]) for i, one in enumerate(shown)]
        out = net(
            hidden_states=torch.cat([one.flatten(2).transpose(1, 2) for one in shown], dim=1),
            encoder_hidden_states=cond.tokens,
            timestep=t.expand(n).to(x) / 1000,
            img_ids=torch.cat(places).to(x.device),
            txt_ids=torch.cartesian_prod(*[torch.arange(1)] * 3, torch.arange(cond.tokens.shape[1])).to(x.device),
        ).sample
        return out[:, : height * width].transpose(1, 2).reshape(x.shape)

    def timing(self, parts: Parts, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:  # noqa: ARG002
        return {"sigmas": linear_sigmas(steps), "mu": empirical_mu(shape[2] * shape[3], steps)}

    def latent_shape(self, parts: Parts, width: int, height: int) -> tuple[int, int, int, int]:
        scale = self.scale(parts)
        return 1, 4 * parts.vae.config.latent_channels, height // scale, width // scale

    def scale(self, parts: Parts) -> int:
        """Pixels a side of one latent, which is a patch of 2 x 2 of the autoencoder's."""
        return 2 * super().scale(parts)

    def to_latents(self, parts: Parts, pixels: Tensor) -> Tensor:
        """Patches of 2 x 2, brought to mean 0 and deviation 1 by the statistics that the autoencoder keeps."""
        found = parts.vae.encode(pixels.to(parts.vae.dtype)).latent_dist.mode()
        n, c, h, w = found.shape
        patches = found.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)
        mean, deviation = _statistics(parts.vae)
        return (patches - mean) / deviation

    def to_pixels(self, parts: Parts, latents: Tensor) -> Tensor:
        mean, deviation = _statistics(parts.vae)
        patches = latents.to(parts.vae.dtype) * deviation + mean
        n, c, h, w = patches.shape
        z = patches.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)
        return parts.vae.decode(z).sample

    def _fitted(self, parts: Parts, image: Image.Image) -> Image.Image:
        check_shape(*image.size, 64, 8)
        width, height = image.size
        if width * height > AREA:
            by = (AREA / (width * height)) ** 0.5
            width, height = int(width * by), int(height * by)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        whole = self.scale(parts)
        right, lower = width // whole * whole, height // whole * whole
        left, upper = (width - right) // 2, (height - lower) // 2
        return image.crop((left, upper, left + right, upper + lower))


def empirical_mu(tokens: int, steps: int) -> float:
    """The schedule's shift: lines over the picture's tokens, measured at 10 and at 200 steps, and between them linear.

    Black Forest Labs' numbers (flux2, sampling.py: `compute_empirical_mu`). Above 4300 tokens steps do not count.
    """
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    return at_200 + (at_10 - at_200) * (200 - steps) / 190


def _places(time: int, height: int, width: int) -> Tensor:
    """(h · w, 4): time, row, column, and 0 where a word has its number."""
    return torch.cartesian_prod(torch.tensor([time]), torch.arange(height), torch.arange(width), torch.arange(1))


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, (1, c, 1, 1)."""
    mean, variance = (one.view(1, -1, 1, 1) for one in (vae.bn.running_mean, vae.bn.running_var))
    return mean, torch.sqrt(variance + vae.config.batch_norm_eps)


FAMILY = Flux2Klein()

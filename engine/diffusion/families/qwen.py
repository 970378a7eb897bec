"""Qwen-Image, and Qwen-Image-Edit, which looks at pictures twice: through its text encoder, and as latents.

The text encoder is a Qwen2.5-VL, whose last hidden states are read without the template's first part (diffusers'
pipeline_qwenimage.py, and _edit.py, of which _edit_plus.py is what came with the release of September 2025). A base for
editing that is given no picture draws as Qwen-Image does: it is the same network.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer, Qwen2VLImageProcessorPil

from engine.diffusion.families import Conditioning, Family, Parts, config, part, tokenizer
from engine.diffusion.flow import (
    as_image,
    as_picture,
    check_shape,
    linear_mu,
    linear_sigmas,
    packed,
    sized,
    unpacked,
)
from engine.diffusion.samplers import FLOW
from engine.diffusion.sentences import check_length, sentence
from engine.errors import Invalid
from engine.prompts import Prompt

TOKENS = 1024  # most of a prompt, beside what is dropped of its template
AREA = 1024 * 1024  # pixels of a reference
LOOK = 384 * 384  # the same for the text encoder of the newer release
MULTIPLE = 32
ONE = "QwenImageEditPipeline"  # the first release, which takes one picture
FRAME = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
DRAW = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
EDIT = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
DROPPED = {DRAW: 34, EDIT: 64}  # tokens at the beginning of the template
PICTURE = "<|image_pad|>"
SHOWN = f"<|vision_start|>{PICTURE}<|vision_end|>"


class QwenImage(Family):
    samplers = tuple(FLOW)
    sees = True

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        encoder = part(Qwen2_5_VLForConditionalGeneration, folder, "text_encoder", dtype).model  # and no head to speak
        edits = (folder / "processor").exists()
        return Parts(
            part(QwenImageTransformer2DModel, folder, "transformer", dtype),
            part(AutoencoderKLQwenImage, folder, "vae", torch.float32),
            (tokenizer(Qwen2Tokenizer, folder, "tokenizer"),),
            (encoder,),
            config(folder, "scheduler/scheduler_config.json"),
            tokenizer(Qwen2VLImageProcessorPil, folder, "processor") if edits else None,
            config(folder, "model_index.json"),
        )

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        """(1, length, d), as long as the prompt is. Raises `Invalid` for more than 1024 tokens."""
        del chunks
        return self._read(parts, DRAW, sentence(prompt), {})

    def encode_seen(self, parts: Parts, prompt: Prompt, references: Sequence[Tensor]) -> Conditioning:
        """The same of an instruction about pictures, and of these, in which a token is 28 x 28 pixels."""
        self._check(parts, references)
        first = self._takes_one(parts)
        images = [_fitted(as_image(one), AREA if first else LOOK) for one in references]
        seen = parts.processor(images=images, return_tensors="pt")
        counts = (seen["image_grid_thw"].prod(-1) // parts.processor.merge_size**2).tolist()
        names = [""] if first else [f"Picture {i + 1}: " for i in range(len(images))]
        pads = [name + SHOWN.replace(PICTURE, PICTURE * n) for name, n in zip(names, counts, strict=True)]
        return self._read(parts, EDIT, "".join(pads) + sentence(prompt), dict(seen))

    def refer(self, parts: Parts, cond: Conditioning, references: Sequence[Tensor]) -> Conditioning:
        """Each reference as latents, at an area of 1024² whatever its own is."""
        self._check(parts, references)
        seen = [as_picture(_fitted(as_image(one), AREA), one.device) for one in references]
        return replace(cond, references=tuple(self.to_latents(parts, one) for one in seen))

    def predict(
        self, parts: Parts, net: nn.Module, x: Tensor, t: Tensor, cond: Conditioning, guidance: float
    ) -> Tensor:
        del parts, guidance  # this network reads none
        n, _, height, width = x.shape
        shown = [x, *(one.to(x).expand(n, -1, -1, -1) for one in cond.references)]
        tokens = [packed(one) for one in shown]
        out = net(
            hidden_states=torch.cat(tokens, dim=1),
            encoder_hidden_states=cond.tokens,
            encoder_hidden_states_mask=cond.mask,
            timestep=t.expand(n).to(x) / 1000,
            img_shapes=[[(1, one.shape[2] // 2, one.shape[3] // 2) for one in shown]] * n,
        ).sample
        return unpacked(out[:, : tokens[0].shape[1]], height, width)

    def guided(self, without: Tensor, with_prompt: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance, each token of it then as long as with the prompt alone."""
        longer, own = packed(super().guided(without, with_prompt, guidance)), packed(with_prompt)
        return unpacked(longer * (_length(own) / _length(longer)), *with_prompt.shape[2:])

    def timing(self, parts: Parts, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        tokens = (shape[2] // 2) * (shape[3] // 2)
        return {"sigmas": linear_sigmas(steps), "mu": linear_mu(parts.scheduler, tokens)}

    def latent_shape(self, parts: Parts, width: int, height: int) -> tuple[int, int, int, int]:
        scale = self.scale(parts)
        return 1, parts.vae.config.z_dim, height // scale, width // scale

    def scale(self, parts: Parts) -> int:
        return 2 ** len(parts.vae.config.temperal_downsample)

    def to_latents(self, parts: Parts, pixels: Tensor) -> Tensor:
        """The autoencoder is one of video: a picture is its first frame."""
        found = parts.vae.encode(pixels.to(parts.vae.dtype).unsqueeze(2)).latent_dist.mode()[:, :, 0]
        mean, deviation = _statistics(parts.vae)
        return (found - mean) / deviation

    def to_pixels(self, parts: Parts, latents: Tensor) -> Tensor:
        mean, deviation = _statistics(parts.vae)
        z = latents.to(parts.vae.dtype) * deviation + mean
        return parts.vae.decode(z.unsqueeze(2)).sample[:, :, 0]

    def _read(self, parts: Parts, task: str, said: str, seen: dict[str, Tensor]) -> Conditioning:
        """Which tokens are of a picture is told to the encoder, which places them in rows and columns.

        diffusers 0.42 does not tell it, and transformers 5 then places them in one line, as the base never saw them.
        """
        reader, encoder = parts.tokenizers[0], cast(Any, parts.encoders[0])
        text, dropped = FRAME.format(task, said), DROPPED[task]
        read: dict[str, Tensor] = reader(text, return_tensors="pt")
        pictures = read["input_ids"] == reader.convert_tokens_to_ids(PICTURE)
        check_length(reader, text, TOKENS + dropped + int(pictures.sum()))
        if seen:
            seen = {**seen, "mm_token_type_ids": pictures.int()}
        given = {name: value.to(encoder.device) for name, value in {**read, **seen}.items()}
        out = encoder(**given, output_hidden_states=True, use_cache=False)
        return Conditioning(out.hidden_states[-1][:, dropped:])

    def _check(self, parts: Parts, references: Sequence[Tensor]) -> None:
        if parts.processor is None:
            todo = "Draw over the picture instead, or take Qwen-Image-Edit, which is made to edit."
            raise Invalid("reference", "Qwen-Image itself takes no reference pictures", todo)
        if len(references) > 1 and self._takes_one(parts):
            todo = "Leave one, or take its release 2509 or a later one, which takes several."
            raise Invalid("reference", "this Qwen-Image-Edit takes one picture at a time", todo)
        for one in references:
            check_shape(one.shape[3], one.shape[2], 28, 8)

    def _takes_one(self, parts: Parts) -> bool:
        return parts.index.get("_class_name") == ONE


def _fitted(image: Image.Image, area: int) -> Image.Image:
    """At about that area, in its own shape as near as multiples of 32 come to it."""
    size = sized(area, image.width / image.height, MULTIPLE)
    return image.resize(size, Image.Resampling.LANCZOS)


def _length(tokens: Tensor) -> Tensor:
    return tokens.square().sum(dim=-1, keepdim=True).sqrt()


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, (1, c, 1, 1)."""
    said = torch.tensor([vae.config.latents_mean, vae.config.latents_std], device=vae.device, dtype=vae.dtype)
    return said[0].view(1, -1, 1, 1), said[1].view(1, -1, 1, 1)


FAMILY = QwenImage()

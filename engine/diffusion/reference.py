"""IP-Adapters: a UNet looks at pictures, by keys and values of their own beside those of the text.

Ye et al. 2023, arXiv:2308.06721: the attention to a picture is added to that to the text, as often as it counts.
"""

import io
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from engine.diffusion.deliver import on_white
from engine.diffusion.resident import Resident
from engine.errors import Invalid
from engine.plans import Reference
from engine.references import ENCODER, WEIGHTS, Adapter

MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, of R, G and B


class Looking(nn.Module):
    """A UNet with an adapter in that looks at pictures, asked as the UNet itself is asked.

    `tokens`: of each picture (2, 1, length, d), without it and with it.
    """

    def __init__(self, unet: nn.Module, tokens: Sequence[Tensor]) -> None:
        super().__init__()
        self._unet = unet
        self._tokens = tokens

    def forward(self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor, **more: Any) -> Any:
        """x (n, c, h, w): n is 2, without prompt and pictures and with them, or 1, with them."""
        seen = [tokens[-len(x) :] for tokens in self._tokens]
        return self._unet(x, t, encoder_hidden_states=(encoder_hidden_states, seen), **more)


@contextmanager
def looking(
    resident: Resident, adapter: Adapter | None, references: Sequence[Reference]
) -> Generator[nn.Module | None]:
    """The base's UNet looking at `references`, inside the block; as it was after it. None for nothing to look at.

    Raises `Invalid` for an adapter whose files do not fit the UNet, or are not whole.
    """
    if adapter is None or not references:
        yield None
        return
    unet = resident.parts.denoiser
    before = dict(unet.attn_processors)
    try:
        processors, tokens = _loaded(unet, adapter, references, resident.device, resident.dtype)
        unet.set_attn_processor(processors)
        yield Looking(unet, tokens)
    finally:
        unet.set_attn_processor(before)


@torch.inference_mode()
def _loaded(
    unet: Any, adapter: Adapter, references: Sequence[Reference], device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Any], list[Tensor]]:
    """What attends in the UNet, with keys and values for each picture, and the pictures' tokens."""
    try:
        state = _parted(safetensors.torch.load_file(adapter.folder / WEIGHTS))
        processors = unet._convert_ip_adapter_attn_to_diffusers([state] * len(references), low_cpu_mem_usage=False)
        projection = unet._convert_ip_adapter_image_proj_to_diffusers(state["image_proj"], low_cpu_mem_usage=False)
        encoder = _encoder(adapter.folder / ENCODER)
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        why = f"its files are not whole, or not for this base ({' '.join(str(error).split())[:200]})"
        raise Invalid(f"reference {adapter.name}", why, f"Remove {adapter.folder}, and add it again.") from error
    for processor in processors.values():
        if isinstance(processor, nn.Module):
            processor.to(device, dtype).requires_grad_(False)
            cast(Any, processor).scale = [reference.weight for reference in references]
    projection.to(device, dtype)
    encoder.to(device, dtype)
    return processors, [_tokens(encoder, projection, adapter, one, device, dtype) for one in references]


def _tokens(
    encoder: Any, projection: Any, adapter: Adapter, reference: Reference, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(2, 1, length, d): of no picture, and of this one."""
    side = encoder.config.image_size
    with Image.open(io.BytesIO(reference.image)) as opened:
        pixels = seen(on_white(opened), side).to(device, dtype)
    if adapter.way == "picture":
        found = encoder(pixels).image_embeds
        both = torch.cat([torch.zeros_like(found), found])
    else:
        both = torch.cat([
            encoder(one, output_hidden_states=True).hidden_states[-2] for one in (torch.zeros_like(pixels), pixels)
        ])  # fmt: skip
    return projection(both)[:, None]


def seen(image: Image.Image, side: int) -> Tensor:
    """RGB picture → (1, 3, side, side) as CLIP was trained to see it: the middle square, in CLIP's mean and spread."""
    short, long = sorted(image.size)
    other = int(side * long / short)
    size = (side, other) if image.width <= image.height else (other, side)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    array = np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
    pixels = (array - np.array(MEAN, np.float32)) / np.array(SPREAD, np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def _parted(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By the two parts that an adapter has. Raises ValueError for a third, and for what is no number."""
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        if part not in parts or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{key[:80]} is no part of one, or holds what is no number")
        parts[part][rest] = tensor
    return parts


def _encoder(folder: Path) -> Any:
    """Raises ValueError unless its file has each weight that it needs."""
    read: Any = cast(Any, CLIPVisionModelWithProjection).from_pretrained
    encoder, found = read(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    if found["missing_keys"] or found["mismatched_keys"]:
        raise ValueError("its encoder lacks weights")
    return encoder.eval().requires_grad_(False)

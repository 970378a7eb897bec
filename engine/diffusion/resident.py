"""A loaded base: its modules on one device, its rack, and small caches of texts and LoRAs."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor

from engine.bases import Base, memory
from engine.diffusion import families
from engine.diffusion.families import Conditioning, Parts
from engine.diffusion.rack import Rack
from engine.lora.blend import Delta, blend, deltas
from engine.lora.read import read
from engine.plans import LoraRef, LoraStack
from engine.prompts import Prompt

Key = TypeVar("Key")
Held = TypeVar("Held")


class Resident:
    """One base, ready to draw and to train on. Not thread-safe: one thread owns it."""

    def __init__(self, base: Base, device: torch.device, dtype: torch.dtype) -> None:
        self.base = base
        self.family = families.find(base.family)
        self.parts: Parts = self.family.load(base.folder, dtype)
        self.rack = Rack(self.parts.denoiser, self.parts.encoders, self.family.voices)
        self._voice: tuple[LoraRef, ...] = ()  # the LoRAs in whose encoders the texts are read now
        self._texts: Cache[tuple[Prompt, int, tuple[LoraRef, ...]], Conditioning] = Cache(64)
        self._loras: Cache[str, dict[str, Delta]] = Cache(16)
        self.device = torch.device("cpu")
        if device != self.device:
            self.move(device)

    @property
    def dtype(self) -> torch.dtype:
        return self.parts.denoiser.dtype

    def move(self, device: torch.device) -> None:
        """Bring the base to a device, or take it off (to "cpu"); nothing of a stack or a cache goes along."""
        self._texts.clear()
        self.rack.move(device)
        self.parts.vae.to(device)
        self.device = device

    @torch.inference_mode()
    def texts(self, prompts: Sequence[Prompt], references: Sequence[Tensor] = ()) -> list[Conditioning]:
        """Each prompt's conditioning, in as many pieces as the longest takes where its family reads in pieces.

        Nothing is cut. `references` (1, 3, h, w) in [-1, 1] are for families whose text encoder sees them.
        """
        if references and self.family.sees:
            return [self.family.encode_seen(self.parts, prompt, references) for prompt in prompts]
        first = [self._text(prompt, 1) for prompt in prompts]
        chunks = max(self.family.chunks(self.parts, cond) for cond in first)
        return [self._text(prompt, chunks) for prompt in prompts]

    @contextmanager
    def stacked(self, stack: LoraStack, weights: Callable[[LoraRef], bytes]) -> Generator[None]:
        """The base with `stack` in, inside the block; the bare base after it. `weights` gives a LoRA's file."""
        layers = [(self._lora(ref, weights), ref.weight) for ref in stack.refs]
        with self.rack.stacked(blend(layers)):
            speaks = (any(name.startswith(self.family.voices) for name in deltas) for deltas, _ in layers)
            self._voice = tuple(ref for ref, does in zip(stack.refs, speaks, strict=True) if does)
            try:
                yield
            finally:
                self._voice = ()

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] → latents at the scale that the denoiser works on (the posterior's mean)."""
        with torch.inference_mode():
            latents = self.family.to_latents(self.parts, pixels.to(self.device))
        return latents.clone()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents → (n, 3, h, w) in [0, 1], fp32, on the CPU."""
        pixels = self.family.to_pixels(self.parts, latents)
        return (pixels.float() / 2 + 0.5).clamp(0, 1).cpu()

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        return self.family.latent_shape(self.parts, width, height)

    def _text(self, prompt: Prompt, chunks: int) -> Conditioning:
        return self._texts.get((prompt, chunks, self._voice), lambda: self.family.encode(self.parts, prompt, chunks))

    def _lora(self, ref: LoraRef, weights: Callable[[LoraRef], bytes]) -> dict[str, Delta]:
        def load() -> dict[str, Delta]:
            layers = deltas(read(weights(ref), ref.name))
            self.rack.check(ref.name, self.base.name, layers)
            return layers

        return self._loras.get(ref.sha256, load)


def free_memory(device: torch.device) -> int | None:
    """Bytes that the device can still give; None where it does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.free_memory()


class Cache(Generic[Key, Held]):
    """The last `size` values used."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Key, Held] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Held]) -> Held:
        if key not in self._items:
            self._items[key] = make()
            if len(self._items) > self._size:
                self._items.popitem(last=False)
        self._items.move_to_end(key)
        return self._items[key]

    def clear(self) -> None:
        self._items.clear()

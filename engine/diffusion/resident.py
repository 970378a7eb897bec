"""A loaded base: its modules, where its memory mode has them, its rack, and small caches of texts and LoRAs."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial as given
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from engine.bases import Base, memory
from engine.bases.memory import Machine, Mode
from engine.diffusion import families
from engine.diffusion.families import Conditioning, Family, Parts
from engine.diffusion.offload import Streamed
from engine.diffusion.prompts import Word
from engine.diffusion.rack import Rack
from engine.diffusion.small import shrink
from engine.diffusion.waiting import Shelf, Waiting
from engine.errors import Invalid
from engine.lora.blend import blend, deltas
from engine.lora.read import ENCODERS, read, read_embedding
from engine.plans import EmbeddingRef, LoraRef, LoraStack
from engine.prompts import Prompt

Key = TypeVar("Key")
Held = TypeVar("Held")
SHELF = 2**28, 2**32  # bytes of LoRAs that wait: at least and at most
TILE = 512  # pixels a side


class Resident:
    """One base, ready to draw and to train on. Not thread-safe: one thread owns it.

    `mode` says where its weights are (see `engine.bases.memory`); `family` is the base's, if none is given; `shelf` the
    bytes of LoRAs that are kept in the host's memory.
    """

    def __init__(
        self,
        base: Base,
        device: torch.device,
        dtype: torch.dtype,
        mode: Mode = "full",
        *,
        family: Family | None = None,
        shelf: int | None = None,
    ) -> None:
        self.base, self.dtype = base, dtype
        self.mode: Mode = mode
        self.family = family or families.find(base.family)
        self.parts: Parts = self.family.load(base.folder, dtype)
        self._voice: tuple[LoraRef, ...] = ()  # the LoRAs in whose encoders the texts are read now
        few = mode != "full"  # conditionings are kept on the device
        size = 8 if few else 64
        self._texts: Cache[tuple[Prompt, int, tuple[LoraRef, ...], tuple[Word, ...]], Conditioning] = Cache(size)
        self._words: tuple[Word, ...] = ()  # the embeddings that the texts may name now
        self._loras = Shelf(_shelf() if shelf is None else shelf)
        self._readers: list[Streamed] = []
        self._vae: Streamed | None = None
        self.device = torch.device("cpu")
        if mode == "full":
            self.rack = Rack(self.parts.denoiser, self.parts.encoders, self.family.voices)
            if device != self.device:
                self.move(device)
        else:
            self.rack = self._spread(device)

    def move(self, device: torch.device) -> None:
        """Bring the base to a device, or take it off (to "cpu"); nothing of a stack or a cache goes along.

        In mode full alone: else it is spread over both.
        """
        if self.mode != "full":
            raise RuntimeError(f"a base in mode {self.mode} stays on its device")
        self._texts.clear()
        self.rack.move(device)
        self.parts.vae.to(device)
        self.device = device

    def check_trains(self) -> None:
        """Raise `Invalid` unless the denoiser's own weights are on the device, as training needs them."""
        if self.mode not in ("full", "pinned"):
            why = f"{self.base.title} is held in memory mode “{self.mode}”, in which its weights are not all at hand"
            raise Invalid("training", why, "Train on a smaller base, or where `--memory pinned` fits.")

    @torch.inference_mode()
    def texts(self, prompts: Sequence[Prompt], references: Sequence[Tensor] = ()) -> list[Conditioning]:
        """Each prompt's conditioning, in as many pieces as the longest takes where its family reads in pieces.

        Nothing is cut. `references` (1, 3, h, w) in [-1, 1] are for families whose text encoder sees them.
        """
        if references and self.family.sees:
            with self._reading():
                return [self.family.encode_seen(self.parts, prompt, references) for prompt in prompts]
        first = [self._text(prompt, 1) for prompt in prompts]
        chunks = max(self.family.chunks(self.parts, cond) for cond in first)
        return [self._text(prompt, chunks) for prompt in prompts]

    @contextmanager
    def stacked(
        self,
        stack: LoraStack,
        weights: Callable[[LoraRef], bytes],
        partial: Collection[str] = (),
        *,
        meanwhile: Callable[[], object] | None = None,
    ) -> Generator[None]:
        """The base with `stack` in, inside the block; the bare base after it. `weights` gives a LoRA's file.

        It is called on a thread of its own for those that are not in memory; `meanwhile`, such as encoding the prompt,
        is done beside that. `partial`: the names of LoRAs whose other weights need not exist here.
        """
        reads = [(ref.sha256, given(self._lora, ref, weights, ref.name in partial)) for ref in stack.refs]
        held = self._loras.get(reads, meanwhile)
        layers = [(lora.there(), ref.weight) for lora, ref in zip(held, stack.refs, strict=True)]
        with self.rack.stacked(blend(layers)):
            speaks = (any(name.startswith(self.family.voices) for name in deltas) for deltas, _ in layers)
            self._voice = tuple(ref for ref, does in zip(stack.refs, speaks, strict=True) if does)
            try:
                yield
            finally:
                self._voice = ()

    @contextmanager
    def speaking(self, refs: Sequence[EmbeddingRef], weights: Callable[[EmbeddingRef], bytes]) -> Generator[None]:
        """Inside the block, prompts may name these embeddings by their triggers. Raises `Invalid`, `BadLoraFile`."""
        self._words = tuple(self._word(ref, weights) for ref in refs)
        try:
            yield
        finally:
            self._words = ()

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] → latents at the scale that the denoiser works on (the posterior's mean)."""
        with torch.inference_mode():
            size = pixels.shape[-1], pixels.shape[-2]
            latents = self._by_vae(size, lambda: self.family.to_latents(self.parts, pixels.to(self.device)))
        return latents.clone()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents → (n, 3, h, w) in [0, 1], fp32, on the CPU."""
        scale = self.family.scale(self.parts)
        size = latents.shape[-1] * scale, latents.shape[-2] * scale
        pixels = self._by_vae(size, lambda: self.family.to_pixels(self.parts, latents))
        return (pixels.float() / 2 + 0.5).clamp(0, 1).cpu()

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        return self.family.latent_shape(self.parts, width, height)

    def _spread(self, device: torch.device) -> Rack:
        """Put every part where the mode has it."""
        parts = self.parts
        self._readers = [Streamed(encoder, device) for encoder in parts.encoders]
        self._vae = Streamed(parts.vae, device, None)
        match self.mode:
            case "offload":
                Streamed(parts.denoiser, device).hook()
            case "small":
                shrink(parts.denoiser, device)
            case _:
                parts.denoiser.to(device)
        self.device = device
        return Rack(parts.denoiser, parts.encoders, self.family.voices, device)

    def _by_vae(self, size: tuple[int, int], work: Callable[[], Tensor]) -> Tensor:
        """`work` of the autoencoder on a picture of that size: in tiles where memory is short for it as a whole."""
        with self._vae.here() if self._vae else nullcontext():
            free = free_memory(self.device)
            tiled = free is not None and memory.working_set(self.base, *size) > free
            _tile(self.parts.vae, tiled)
            try:
                return work()
            except torch.OutOfMemoryError:
                if tiled or not _tile(self.parts.vae, True):
                    raise
            return work()  # outside of the handler, which holds on to what was computed by then

    @contextmanager
    def _reading(self) -> Generator[None]:
        """The text encoders on the device, inside the block."""
        with ExitStack() as stack:
            for encoder in self._readers:
                stack.enter_context(encoder.here())
            yield

    def _text(self, prompt: Prompt, chunks: int) -> Conditioning:
        def encode() -> Conditioning:
            with self._reading():
                return self.family.encode(replace(self.parts, words=self._words), prompt, chunks)

        return self._texts.get((prompt, chunks, self._voice, self._words), encode)

    def _word(self, ref: EmbeddingRef, weights: Callable[[EmbeddingRef], bytes]) -> Word:
        what, todo = f"embedding {ref.name}", f"Draw on the base that it was made for, or leave out “{ref.trigger}”."
        if not self.family.speaks:
            raise Invalid(what, f"{self.base.title} reads no embeddings", todo)
        found = read_embedding(weights(ref), ref.name)
        encoders = dict(zip(ENCODERS, self.parts.encoders, strict=False))
        wanted = {name: cast(Any, one).get_input_embeddings().weight.shape[1] for name, one in encoders.items()}
        if why := found.misfit(wanted):
            raise Invalid(what, why, todo)
        return Word(ref.trigger, ref.sha256, tuple(torch.from_numpy(found.vectors[name]) for name in encoders))

    def _lora(self, ref: LoraRef, weights: Callable[[LoraRef], bytes], partial: bool) -> Waiting:
        layers = deltas(read(weights(ref), ref.name))
        self.rack.check(ref.name, self.base.name, layers, partial)
        return Waiting(layers, self.device)


def free_memory(device: torch.device) -> int | None:
    """Bytes that the device can still give to us, what our allocator holds unused too; None where it does not say."""
    if device.type != "cuda":
        return memory.free_memory()
    free, whole = torch.cuda.mem_get_info(device)
    used = torch.cuda.memory_allocated(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    return max(min(free + torch.cuda.memory_reserved(device) - used, int(whole * share) - used), 0)


def machine(device: torch.device) -> Machine:
    """What the choice of a mode and of a type depends on."""
    host = memory.free_memory()
    match device.type:
        case "cuda":
            return Machine("cuda", free_memory(device), host, torch.cuda.get_device_capability(device) >= (8, 0))
        case "mps":
            return Machine("mps", free_memory(device), host, _bf16_works(device))
        case _:
            return Machine("cpu", free_memory(device), host)


def best_device(made_for: str) -> torch.device:
    """Where a base of that precision is drawn: Apple's GPU is for those that were made for a GPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if made_for != "float32" and torch.backends.mps.is_available() else "cpu")


def _bf16_works(device: torch.device) -> bool:
    """Apple's GPUs compute in bfloat16 from macOS 14 on: it is tried."""
    try:
        ones = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return float((ones @ ones).sum()) == 8
    except (RuntimeError, TypeError):
        return False


def _shelf() -> int:
    """Bytes for LoRAs that wait: an eighth of what is free, within bounds."""
    return min(max((memory.free_memory() or 0) // 8, SHELF[0]), SHELF[1])


def _tile(vae: Any, on: bool) -> bool:
    """Whether the autoencoder works in tiles from now on; False where it cannot."""
    if not hasattr(vae, "enable_tiling"):
        return False
    if not on:
        vae.disable_tiling()
        return False
    vae.enable_tiling()
    if getattr(vae, "tile_sample_min_size", 0) > TILE:  # diffusers' default is the size that it was trained at
        vae.tile_latent_min_size = vae.tile_latent_min_size * TILE // vae.tile_sample_min_size
        vae.tile_sample_min_size = TILE
    return True


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

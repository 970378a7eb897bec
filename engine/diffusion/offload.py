"""Weights that wait on the host and visit the device: page-locked memory, and a network that streams through it.

A `Slab` is the weights of one block in one piece of host memory: one copy brings all of them. `Streamed` is a network
whose blocks come one by one, each while the one before it computes. Where the "device" is the CPU, the same
copies are made there, so that all of it can be tested without a GPU.
"""

import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.bases.memory import BLOCK, blocks

ALIGNED = 64  # bytes: where a tensor may begin


class Slab:
    """Tensors in one piece of host memory, page-locked for a GPU; each is then a view into it.

    Parameters and buffers stay the objects that they are: only where their values lie changes.
    """

    def __init__(self, tensors: Iterable[Tensor], device: torch.device, lock: bool = True) -> None:
        self._tensors = list(tensors)
        self._shapes = [tensor.shape for tensor in self._tensors]
        self._types = [tensor.dtype for tensor in self._tensors]
        self._offsets: list[int] = []
        end = 0
        for tensor in self._tensors:
            self._offsets.append(end)
            end += -(-tensor.numel() * tensor.element_size() // ALIGNED) * ALIGNED
        self.device = device
        self.locked = False
        with torch.inference_mode(False):
            self.host = torch.empty(end, dtype=torch.uint8)
            for tensor, view in zip(self._tensors, self._views(self.host), strict=True):
                view.copy_(tensor.detach())
                tensor.data = view
        if lock:
            self.lock()

    def __len__(self) -> int:
        """Bytes."""
        return self.host.numel()

    def lock(self) -> None:
        """Page-lock it, so that copies to a GPU run beside computing; where that fails it stays as it is."""
        if self.device.type == "cuda" and len(self) and not self.locked:
            self.locked = _locked(self, self.host, self.device)

    def up(self, into: Tensor) -> None:
        """Copy everything to the device, into the first bytes of `into`; does not wait where it need not."""
        into[: len(self)].copy_(self.host, non_blocking=self.locked)

    def show(self, where: Tensor) -> None:
        """Make the tensors views into `where`, which holds a copy of this."""
        with torch.inference_mode(False):  # or they could not be written to outside of it
            for tensor, view in zip(self._tensors, self._views(where), strict=True):
                tensor.data = view

    def home(self) -> None:
        """Make them views into the host's memory again."""
        self.show(self.host)

    def copied(self) -> list[Tensor]:
        """The tensors as they are here, on the device, in their order."""
        there = torch.empty(len(self), dtype=torch.uint8, device=self.device)
        self.up(there)
        return self._views(there)

    def _views(self, flat: Tensor) -> list[Tensor]:
        return [
            flat[start : start + shape.numel() * kind.itemsize].view(kind).view(shape)
            for start, shape, kind in zip(self._offsets, self._shapes, self._types, strict=True)
        ]


class Streamed:
    """A network whose weights wait on the host. While it is `here`, what is in no block is on the device, and each
    block is for as long as it computes; the next one, by the order of the pass before, comes meanwhile on a stream of
    its own, into the other of two buffers.

    `copied` counts bytes that were brought, `waits` the blocks that nobody had foreseen.
    """

    def __init__(self, net: nn.Module, device: torch.device, limit: int | None = BLOCK) -> None:
        """`limit`: bytes, see `memory.blocks`; None: there are no blocks, and all of it comes at once."""
        self.net, self.device = net, device
        self.copied, self.waits = 0, 0
        groups = _grouped(net, limit)
        self._rest = Slab(groups.pop("", []), device)
        self._slabs = {name: Slab(tensors, device) for name, tensors in groups.items()}
        self._largest = max(map(len, self._slabs.values()), default=0)
        self._after: dict[str, str] = {}  # block → the one that followed it in the last pass
        self._before = ""
        self._open: str | None = None  # the block that computes now
        self._depth = 0
        self._buffers: list[Tensor] = []
        self._coming: tuple[str, int, Any] | None = None  # block, buffer, event at the copy's end
        self._turn = 0
        self._side: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        for name in self._slabs:
            block = net.get_submodule(name)
            block.register_forward_pre_hook(self._arrives(name))
            block.register_forward_hook(self._leaves(name), always_call=True)

    def hook(self) -> "Streamed":
        """From now on it is `here` during each of its passes by itself."""

        def begins(*_: Any) -> None:
            self._enter()

        def ends(*_: Any) -> None:
            self._leave()

        self.net.register_forward_pre_hook(begins)
        self.net.register_forward_hook(ends, always_call=True)
        return self

    @contextmanager
    def here(self) -> Generator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        with torch.inference_mode(False):
            there = torch.empty(len(self._rest), dtype=torch.uint8, device=self.device)
            self._rest.up(there)
            self._rest.show(there)
            self.copied += len(self._rest)
            self._buffers = [torch.empty(self._largest, dtype=torch.uint8, device=self.device) for _ in range(2)]
        self._before, self._turn = "", 0
        if self._after:
            self._fetch(self._after.get("", ""))

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self._side is not None:
            # A copy may be under way, where a pass was broken off. Who gets the buffers' memory next comes after it:
            # `record_stream` would say so too, but keep the memory from us for as long as the host runs ahead.
            torch.cuda.current_stream(self.device).wait_stream(self._side)
        self._coming, self._open = None, None
        for slab in (self._rest, *self._slabs.values()):
            slab.home()
        self._buffers = []

    def _arrives(self, name: str) -> Callable[..., None]:
        def arrives(*_: Any) -> None:
            if self._open is not None:  # called from within another, whose buffer must not be taken
                self._slabs[name].show(self._alone(name))
                return
            self._open = name
            if self._coming is None or self._coming[0] != name:
                self.waits += 1
                self._fetch(name)
            assert self._coming is not None
            buffer, done = self._coming[1:]
            if done is not None:
                torch.cuda.current_stream(self.device).wait_event(done)
            self._slabs[name].show(self._buffers[buffer])
            self._coming = None
            self._turn = 1 - buffer
            self._after[self._before] = name
            self._before = name
            self._fetch(self._after.get(name, ""))

        return arrives

    def _leaves(self, name: str) -> Callable[..., None]:
        def leaves(*_: Any) -> None:
            self._slabs[name].home()
            if self._open == name:
                self._open = None

        return leaves

    def _alone(self, name: str) -> Tensor:
        slab = self._slabs[name]
        self.waits, self.copied = self.waits + 1, self.copied + len(slab)
        with torch.inference_mode(False):
            there = torch.empty(len(slab), dtype=torch.uint8, device=self.device)
            slab.up(there)
        return there

    def _fetch(self, name: str) -> None:
        """Begin to bring a block into the buffer whose turn it is; nothing for the name "".

        The side stream waits for all that has been asked of the device by now: the block that had the buffer before
        has been asked, and one that is asked later is in the other buffer.
        """
        if not name:
            return
        slab, buffer = self._slabs[name], self._buffers[self._turn]
        with torch.inference_mode(False):
            if self._side is None:
                slab.up(buffer)
                self._coming = name, self._turn, None
            else:
                self._side.wait_stream(torch.cuda.current_stream(self.device))
                with torch.cuda.stream(self._side):
                    slab.up(buffer)
                    done = torch.cuda.Event()
                    done.record(self._side)
                self._coming = name, self._turn, done
        self.copied += len(slab)


def _grouped(net: nn.Module, limit: int | None) -> dict[str, list[Tensor]]:
    """A network's parameters and buffers by block, each once."""
    own = dict(net.named_parameters()) | {name: b for name, b in net.named_buffers() if b.numel()}
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in own.items()}
    groups: dict[str, list[Tensor]] = {}
    for name, block in (dict.fromkeys(sizes, "") if limit is None else blocks(sizes, limit)).items():
        groups.setdefault(block, []).append(own[name])
    return groups


def _locked(owner: Slab, memory: Tensor, device: torch.device) -> bool:
    """Page-lock memory for as long as its owner lives; whether that could be.

    Torch's own allocator of page-locked memory rounds up to a power of two, which for large blocks costs half as much
    again.
    """
    runtime = cast(Any, torch.cuda).cudart()
    with torch.cuda.device(device):
        if int(runtime.cudaHostRegister(memory.data_ptr(), memory.numel(), 0)):
            with suppress(RuntimeError):  # the failure is remembered, and the next kernel would be blamed for it
                torch.zeros(1, device=device).add_(1)
            return False
    ended = weakref.finalize(owner, _unlock, memory, device)
    ended.atexit = False  # the driver has gone by then
    return True


def _unlock(memory: Tensor, device: torch.device) -> None:
    runtime = cast(Any, torch.cuda).cudart()
    torch.cuda.synchronize(device)  # a copy from it may be under way
    runtime.cudaHostUnregister(memory.data_ptr())

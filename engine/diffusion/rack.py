"""The rack: weighted LoRA stacks written into a model's live weights, and taken out again bit for bit.

Weights of one shape live as views into one arena `W[n, out, in]`, with a pristine copy `W0` beside it. A stack is one
batched product for each shape, W = W0 + B A, its LoRAs side by side along the rank: however many they are, it costs
nothing per step, and it never drifts, as every write starts from W0. Changes of full rank are added weight by weight,
in float32 and rounded once. Biases and norms are weights of one column.

Where memory is short the pristine copies are on the host, of each weight that a stack has changed by now; the same
products are made from them, some weights at a time. What is quantised is not written to: its change stays beside it.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from engine.diffusion.offload import Slab
from engine.diffusion.small import Small
from engine.errors import WrongBase
from engine.lora.blend import Delta
from engine.lora.dialects import named
from engine.lora.report import misfit

AT_ONCE = 2**27  # bytes of weights that are written together from the host


@dataclass
class Arena:
    """All weights of one shape: live (n, out, in), its pristine copy, and whose weight each slice is."""

    names: list[str]
    live: Tensor
    pristine: Tensor
    dirty: bool = False


class Rack:
    """Owns where the weights of a UNet, and of text encoders beside it, live. One stack is in at a time.

    Weights have the names of `engine.lora.dialects`: those of an encoder begin with its name in `voices` and a dot.
    `device`: where products are made if pristine copies are to be on the host, whether the weights themselves are there
    or wait on the host; None: beside the weights.
    """

    def __init__(
        self,
        module: nn.Module,
        encoders: tuple[nn.Module, ...] = (),
        voices: tuple[str, ...] = ("text_encoder", "text_encoder_2"),
        device: torch.device | None = None,
    ) -> None:
        self._module = module
        self._models = {"": module} | dict(zip(voices, encoders, strict=False))
        self._weights: dict[str, nn.Parameter] = {}
        self._shape: dict[str, tuple[int, int]] = {}
        for model, owner in self._models.items():
            for path, parameter in owner.named_parameters():
                for name, shape in named(model, [(path, tuple(parameter.shape))]):
                    self._weights[name], self._shape[name] = parameter, shape
        self._small: dict[str, Small] = {}
        for path, layer in cast(Iterator[tuple[str, nn.Module]], module.named_modules()):
            if isinstance(layer, Small):
                for name, shape in named("", [(f"{path}.weight", layer.shape)]):
                    self._small[name], self._shape[name] = layer, shape
        self._arenas: dict[tuple[int, int], Arena] = {}
        self._device = device
        self._slabs: list[Slab] = []  # what the pristine copies on the host lie in
        self._bare: dict[str, Tensor] = {}  # these, as matrices
        self._dirty: set[str] = set()  # of the weights that have one

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """All weights that a LoRA may change, as matrices (out, in·k·k)."""
        return self._shape

    def check(self, name: str, base: str, deltas: Mapping[str, Delta], partial: bool = False) -> None:
        """Raise `WrongBase` unless every weight that the LoRA `name` changes exists here in the same shape.

        `partial`: some that do not exist here are well, but not all; what exists must fit.
        """
        if why := misfit({key: delta.shape for key, delta in deltas.items()}, self._shape, partial):
            raise WrongBase(name, base, why)

    @contextmanager
    def stacked(self, deltas: Mapping[str, Delta]) -> Generator[None]:
        """The model with the stack in, inside the block; the bare base again after it, whatever happened.

        `deltas`: the whole stack's change of each weight, by name. Those that `check` let pass as partial are left out.
        """
        deltas = {key: delta for key, delta in deltas.items() if key in self._shape}
        try:
            for key in deltas.keys() & self._small.keys():
                self._beside(self._small[key], deltas[key])
            written = {key: delta for key, delta in deltas.items() if key not in self._small}
            if self._device is not None:
                self._write_from_host(written)
            else:
                for shape in sorted({self._shape[key] for key in written}):
                    self._write(self._arena(shape), written)
            yield
        finally:
            self.restore()

    def restore(self) -> None:
        """The bare base, bit for bit."""
        for arena in self._arenas.values():
            if arena.dirty:
                arena.live.copy_(arena.pristine)
                arena.dirty = False
        self._finish_copies()
        for name in self._dirty:
            weight = self._weights[name].data
            # not waited for: what reads the weight next is asked of the same device after it
            weight.view(self._shape[name]).copy_(self._bare[name], non_blocking=weight.is_cuda)
        self._dirty.clear()
        for layer in self._small.values():
            layer.delta = None

    def pristine(self) -> dict[str, Tensor]:
        """The UNet's base state by its own names, whatever stack is in; shares memory, so it is to be read only.

        With pristine copies on the host it is the live state, which is the base's only while no stack is in.
        """
        if self._device is not None and self._dirty:
            raise RuntimeError("a stack is in, and the pristine weights are not on the device")
        return self._pristine("")

    def move(self, device: torch.device) -> None:
        """Take the models to another device with no stack in; live weights are made anew from the pristine copies.

        For racks with all on one device.
        """
        self.restore()
        pristine = {model: self._pristine(model) for model in self._models}
        self._arenas.clear()
        for model, owner in self._models.items():
            for name, parameter in owner.named_parameters():
                parameter.data = pristine[model][name].to(device, copy=True)
            for buffer in owner.buffers():
                buffer.data = buffer.data.to(device)

    def _pristine(self, model: str) -> dict[str, Tensor]:
        owner = self._models[model]
        state = {name: tensor.detach() for name, tensor in owner.state_dict(keep_vars=True).items()}
        held = [(key, arena.pristine[i]) for arena in self._arenas.values() for i, key in enumerate(arena.names)]
        rows = {id(self._weights[key]): row for key, row in held}
        for name, parameter in owner.named_parameters():
            if id(parameter) in rows:
                state[name] = rows[id(parameter)].view(parameter.shape)
        return state

    def _arena(self, shape: tuple[int, int]) -> Arena:
        """The arena of that shape, built when a stack first needs it: the models' weights become views into it."""
        if shape not in self._arenas:
            names = [name for name, found in self._shape.items() if found == shape]
            weights = [self._weights[name] for name in names]
            with torch.inference_mode(False):  # a trainee borrows these, and gradients pass beside them
                live = torch.stack([weight.detach().reshape(shape) for weight in weights])
                for weight, row in zip(weights, live, strict=True):
                    weight.data = row.view(weight.shape)
                self._arenas[shape] = Arena(names, live, live.clone())
        return self._arenas[shape]

    def _write(self, arena: Arena, deltas: Mapping[str, Delta]) -> None:
        """W = W0 + B A for each slice, ranks padded with zeros to the largest: one launch for the arena."""
        arena.dirty = True  # before the write, so that a failure in it is put right too
        _sum_into(arena.live, arena.pristine, [deltas.get(name) for name in arena.names], _rank(arena.names, deltas))

    def _write_from_host(self, deltas: Mapping[str, Delta]) -> None:
        """The same, from pristine copies on the host: as many weights at a time as there is memory meant for it."""
        assert self._device is not None
        self._keep(deltas)
        self._finish_copies()
        for shape in sorted({self._shape[key] for key in deltas}):
            names = [name for name, found in self._shape.items() if found == shape and name in deltas]
            rank = _rank(names, deltas)
            for some in _some(names, self._bare[names[0]].nbytes):
                first = self._bare[some[0]]
                bare = torch.empty(len(some), *shape, dtype=first.dtype, device=self._device)
                for i, name in enumerate(some):
                    bare[i].copy_(self._bare[name], non_blocking=bare.is_cuda)
                made = torch.empty_like(bare)
                if not rank:
                    made.copy_(bare)
                _sum_into(made, bare, [deltas[name] for name in some], rank)
                self._dirty.update(some)
                for i, name in enumerate(some):
                    self._weights[name].data.view(shape).copy_(made[i])

    def _finish_copies(self) -> None:
        """Weights that wait on the host may still be on their way to the device: they must not change under that."""
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _keep(self, names: Mapping[str, Delta]) -> None:
        """Pristine copies on the host of those weights that have none yet: they are bare, as no stack is in."""
        assert self._device is not None
        new = [name for name in names if name not in self._bare]
        if not new:
            return
        with torch.inference_mode(False):
            rows = [self._weights[name].detach().view(self._shape[name]) for name in new]  # their own tensor objects
            self._slabs.append(Slab(rows, self._device))
        self._bare |= dict(zip(new, rows, strict=True))

    def _beside(self, layer: Small, delta: Delta) -> None:
        """What a quantised layer adds: factors in the type that it computes in, but fp32 where it needs the sum."""
        dtype = torch.float32 if delta.others else layer.dtype
        down, up = (part.to(layer.q.device, dtype) for part in (delta.down, delta.up))
        layer.delta = Delta(down, up, delta.others)


def _sum_into(live: Tensor, bare: Tensor, changes: Sequence[Delta | None], rank: int) -> None:
    """live = bare + ΔW for weights (n, out, in), those of low rank in one batched product of rank `rank`."""
    if rank:
        count, rows, columns = live.shape
        down, up = live.new_zeros(count, rank, columns), live.new_zeros(count, rows, rank)
        for i, delta in enumerate(changes):
            if delta and not delta.others:
                down[i, : delta.rank] = delta.down
                up[i, :, : delta.rank] = delta.up
        torch.baddbmm(bare, up, down, out=live)
    for i, delta in enumerate(changes):
        if delta and delta.others:
            live[i] = bare[i].float() + delta.dense(bare[i])


def _rank(names: Sequence[str], deltas: Mapping[str, Delta]) -> int:
    """The largest rank of those changes that are of low rank."""
    return max((deltas[name].rank for name in names if name in deltas and not deltas[name].others), default=0)


def _some(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """As many at a time as `AT_ONCE` holds."""
    step = max(AT_ONCE // max(size, 1), 1)
    return (names[i : i + step] for i in range(0, len(names), step))

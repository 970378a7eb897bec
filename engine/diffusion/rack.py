"""The rack: weighted LoRA stacks written into a model's live weights, and taken out again bit for bit.

Weights of one shape live as views into one arena `W[n, out, in]`, with a pristine copy `W0` beside it. A stack is one
batched product for each shape, W = W0 + B A, its LoRAs side by side along the rank: however many they are, it costs
nothing per step, and it never drifts, as every write starts from W0.
"""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import WrongBase
from engine.lora.blend import Delta


@dataclass
class Arena:
    """All weights of one shape: live (n, out, in), its pristine copy, and whose weight each slice is."""

    names: list[str]
    live: Tensor
    pristine: Tensor
    dirty: bool = False


class Rack:
    """Owns where a model's linear and convolution weights live. One stack is in at a time."""

    def __init__(self, module: nn.Module) -> None:
        modules = cast(Iterable[tuple[str, nn.Module]], module.named_modules())
        self._layers = {flat(name): m for name, m in modules if isinstance(m, nn.Linear | nn.Conv2d)}
        self._shape = {name: _matrix(layer.weight) for name, layer in self._layers.items()}
        self._module = module
        self._arenas: dict[tuple[int, int], Arena] = {}

    def check(self, name: str, base: str, deltas: Mapping[str, Delta]) -> None:
        """Raise `WrongBase` unless every layer of the LoRA `name` exists here in the same shape."""
        unknown = [key for key in deltas if key not in self._shape]
        if unknown:
            why = f"{len(unknown)} of its {len(deltas)} layers do not exist there, such as {unknown[0]}"
            raise WrongBase(name, base, why)
        for key, delta in deltas.items():
            if (found := delta.shape) != (wanted := self._shape[key]):
                raise WrongBase(
                    name, base, f"its layer {key} is {found[0]}×{found[1]} where {wanted[0]}×{wanted[1]} is needed"
                )

    @contextmanager
    def stacked(self, deltas: Mapping[str, Delta]) -> Generator[None]:
        """The model with the stack in, inside the block; the bare base again after it, whatever happened.

        `deltas`: the whole stack's change of each layer, by flat name, as factors A (R, in), B (out, R).
        """
        try:
            for shape in sorted({self._shape[key] for key in deltas}):
                self._write(self._arena(shape), deltas)
            yield
        finally:
            self.restore()

    def restore(self) -> None:
        """The bare base, bit for bit."""
        for arena in self._arenas.values():
            if arena.dirty:
                arena.live.copy_(arena.pristine)
                arena.dirty = False

    def pristine(self) -> dict[str, Tensor]:
        """The base's state by its own names, whatever stack is in; shares memory, so it is to be read only."""
        state = {name: tensor.detach() for name, tensor in self._module.state_dict(keep_vars=True).items()}
        by_flat = {key: (arena, i) for arena in self._arenas.values() for i, key in enumerate(arena.names)}
        for name in state:
            layer, _, kind = name.rpartition(".")
            if kind == "weight" and flat(layer) in by_flat:
                arena, i = by_flat[flat(layer)]
                state[name] = arena.pristine[i].view(state[name].shape)
        return state

    def move(self, device: torch.device) -> None:
        """Take the model to another device with no stack in; live weights are made anew from the pristine copies."""
        self.restore()
        pristine = self.pristine()
        self._arenas.clear()
        for name, parameter in self._module.named_parameters():
            parameter.data = pristine[name].to(device, copy=True)
        for buffer in self._module.buffers():
            buffer.data = buffer.data.to(device)

    def _arena(self, shape: tuple[int, int]) -> Arena:
        """The arena of that shape, built when a stack first needs it: the model's weights become views into it."""
        if shape not in self._arenas:
            names = [name for name, found in self._shape.items() if found == shape]
            weights = [self._layers[name].weight for name in names]
            with torch.inference_mode(False):  # a trainee borrows these, and gradients pass beside them
                live = torch.stack([weight.detach().reshape(shape) for weight in weights])
                for weight, row in zip(weights, live, strict=True):
                    weight.data = row.view(weight.shape)
                self._arenas[shape] = Arena(names, live, live.clone())
        return self._arenas[shape]

    def _write(self, arena: Arena, deltas: Mapping[str, Delta]) -> None:
        """W = W0 + B A for each slice, ranks padded with zeros to the largest: one launch for the arena."""
        rank = max(deltas[name].rank for name in arena.names if name in deltas)
        count, rows, columns = arena.live.shape
        down = arena.live.new_zeros(count, rank, columns)
        up = arena.live.new_zeros(count, rows, rank)
        for i, name in enumerate(arena.names):
            if name in deltas:
                delta = deltas[name]
                down[i, : delta.rank] = delta.down
                up[i, :, : delta.rank] = delta.up
        arena.dirty = True  # before the write, so that a failure in it is put right too
        torch.baddbmm(arena.pristine, up, down, out=arena.live)


def flat(name: str) -> str:
    """A module path as LoRA files write it: dots become underscores."""
    return name.replace(".", "_")


def _matrix(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], prod(weight.shape[1:])

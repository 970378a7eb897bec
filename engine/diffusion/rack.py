"""The rack: weighted LoRA stacks written into a model's live weights, and taken out again bit for bit.

Weights of one shape live as views into one arena `W[n, out, in]`, with a pristine copy `W0` beside it. A stack is one
batched product for each shape, W = W0 + B A, its LoRAs side by side along the rank: however many they are, it costs
nothing per step, and it never drifts, as every write starts from W0. Changes of full rank are added weight by weight,
in float32 and rounded once. Biases and norms are weights of one column.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.errors import WrongBase
from engine.lora.blend import Delta
from engine.lora.dialects import named
from engine.lora.report import misfit


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
    """

    def __init__(
        self,
        module: nn.Module,
        encoders: tuple[nn.Module, ...] = (),
        voices: tuple[str, ...] = ("text_encoder", "text_encoder_2"),
    ) -> None:
        self._module = module
        self._models = {"": module} | dict(zip(voices, encoders, strict=False))
        self._weights: dict[str, nn.Parameter] = {}
        self._shape: dict[str, tuple[int, int]] = {}
        for model, owner in self._models.items():
            for path, parameter in owner.named_parameters():
                for name, shape in named(model, [(path, tuple(parameter.shape))]):
                    self._weights[name], self._shape[name] = parameter, shape
        self._arenas: dict[tuple[int, int], Arena] = {}

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
        """The UNet's base state by its own names, whatever stack is in; shares memory, so it is to be read only."""
        return self._pristine("")

    def move(self, device: torch.device) -> None:
        """Take the models to another device with no stack in; live weights are made anew from the pristine copies."""
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
        factored = {name: deltas[name] for name in arena.names if name in deltas and not deltas[name].others}
        rank = max((delta.rank for delta in factored.values()), default=0)
        count, rows, columns = arena.live.shape
        arena.dirty = True  # before the write, so that a failure in it is put right too
        if rank:
            down = arena.live.new_zeros(count, rank, columns)
            up = arena.live.new_zeros(count, rows, rank)
            for i, name in enumerate(arena.names):
                if name in factored:
                    delta = factored[name]
                    down[i, : delta.rank] = delta.down
                    up[i, :, : delta.rank] = delta.up
            torch.baddbmm(arena.pristine, up, down, out=arena.live)
        for i, name in enumerate(arena.names):
            if name in deltas and deltas[name].others:
                arena.live[i] = arena.pristine[i].float() + deltas[name].dense(arena.pristine[i])

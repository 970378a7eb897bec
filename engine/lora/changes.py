"""What a LoRA file does to one weight: every kind of change as `delta()`, a matrix (out, in·k·k) at weight 1.

The arithmetic uses only what numpy's arrays and torch's tensors have in common, so that one formula serves both: a
change is read with numpy's, and `on()` gives its twin on a device. A bias or a norm's gain is a matrix of one column.
Nothing is computed before `delta()` is called, and `shape` is known without it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any  # a numpy array in what is read, a torch tensor after `on()`


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """ΔW = (alpha / r) · up · down of one layer. `down`: (r, in) or (r, in, k, k); `up`: (out, r) or (out, r, 1, 1).

    Hu et al. 2021, arXiv:2106.09685, §4.1.
    """

    down: Array
    up: Array
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], _columns(self.down)

    def delta(self, base: Array = None) -> Array:  # noqa: ARG002 - one signature for all kinds
        return _matrix(self.up) @ _matrix(self.down) * (self.alpha / self.rank)


@dataclass(frozen=True, slots=True, eq=False)
class Hadamard:
    """LoHa: ΔW = scale · M₁ ∘ M₂ (Hyeon-Woo et al. 2021, arXiv:2108.06098), each M a product of two factors.

    `first` and `second`: pairs a (out, r), b (r, in·k·k). With a Tucker core t (r, r, k, k) beside them they are
    a (r, out), b (r, in), and M[p, q, k, l] = Σ t[i, j, k, l] a[i, p] b[j, q], as LyCORIS writes it.
    """

    first: tuple[Array, Array]
    second: tuple[Array, Array]
    scale: float
    cores: tuple[Array, Array] | None = None

    @property
    def rank(self) -> int:
        return self.first[1].shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        a, b = self.first
        if self.cores is None:
            return a.shape[0], _columns(b)
        return a.shape[1], b.shape[1] * _columns(self.cores[0]) // self.cores[0].shape[1]

    def delta(self, base: Array = None) -> Array:  # noqa: ARG002
        if self.cores is None:
            (a, b), (c, d) = self.first, self.second
            return (a @ _matrix(b)) * (c @ _matrix(d)) * self.scale
        one, other = (_tucker(core, *pair) for core, pair in zip(self.cores, (self.first, self.second), strict=True))
        return one * other * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class Kronecker:
    """LoKr: ΔW = scale · A ⊗ B (Edalati et al. 2022, arXiv:2212.10650).

    `left`: A (a, b), or its factors (a, r), (r, b). `right`: B (c, d) or (c, d, k, k), or its factors (c, r),
    (r, d·k·k); with the Tucker `core` (r, r, k, k) these are (r, c), (r, d). The change is (a·c, b·d·k·k).
    """

    left: tuple[Array, ...]
    right: tuple[Array, ...]
    scale: float
    core: Array | None = None

    @property
    def rank(self) -> int:
        """Of the smaller of the two that is factored; 0 where both stand whole."""
        return min((pair[1].shape[0] for pair in (self.left, self.right) if len(pair) == 2), default=0)

    @property
    def shape(self) -> tuple[int, int]:
        if self.core is None:
            right = self.right[0].shape[0], _columns(self.right[-1])
        else:
            a, b = self.right
            right = a.shape[1], b.shape[1] * _columns(self.core) // self.core.shape[1]
        return self.left[0].shape[0] * right[0], self.left[-1].shape[1] * right[1]

    def delta(self, base: Array = None) -> Array:  # noqa: ARG002
        left, right = self.sides()
        return (left[:, None, :, None] * right[None, :, None, :]).reshape(self.shape) * self.scale

    def sides(self) -> tuple[Array, Array]:
        """A and B, multiplied out, as matrices."""
        left = self.left[0] @ self.left[1] if len(self.left) == 2 else self.left[0]
        if self.core is not None:
            right = _tucker(self.core, *self.right)
        elif len(self.right) == 2:
            right = self.right[0] @ _matrix(self.right[1])
        else:
            right = _matrix(self.right[0])
        return left, right


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """The whole change as it is, of a weight (out, in), (out, in, k, k), or of a bias or a gain (n,)."""

    values: Array

    @property
    def rank(self) -> int:
        return 0

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], _columns(self.values)

    def delta(self, base: Array = None) -> Array:  # noqa: ARG002
        return _matrix(self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Decomposed:
    """DoRA: W' = m · (W₀ + ΔW) / ‖W₀ + ΔW‖ (Liu et al. 2024, arXiv:2402.09353, eq. 5), as a change W' − W₀.

    `magnitude` (n,): one number for each output (`by_output`: PEFT's `lora_magnitude_vector`, and a `dora_scale`
    (out, 1)), or for each input channel (LyCORIS's and OneTrainer's `dora_scale` (1, in)); the norm is over all the
    rest. In a stack the change is weighted as a whole, w · (W' − W₀), as ComfyUI does (comfy/weight_adapter/base.py);
    PEFT scales ΔW within the norm instead. At weight 1, where it was trained, they are the same. Others differ even
    there: AUTOMATIC1111 takes α/r out of the norm, and ComfyUI 0.3.77 divides by ‖W₀‖ where the scale is by output.
    """

    inner: "Factors | Hadamard | Kronecker | Difference"
    magnitude: Array
    by_output: bool

    @property
    def rank(self) -> int:
        return self.inner.rank

    @property
    def shape(self) -> tuple[int, int]:
        return self.inner.shape

    def delta(self, base: Array = None) -> Array:
        """`base`: W₀ as a matrix of this shape."""
        if base is None:
            raise ValueError("a DoRA's change is known only beside its base's weight")
        merged = base + self.inner.delta()
        n = self.magnitude.shape[0]
        apart = merged.reshape((n, 1, -1) if self.by_output else (merged.shape[0], n, -1))
        axes = (1, 2) if self.by_output else (0, 2)
        norm = (apart * apart).sum(axis=axes, keepdims=True) ** 0.5
        wanted = self.magnitude.reshape(norm.shape)
        return (apart * (wanted / (norm + 1e-30))).reshape(self.shape) - base


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows `start` to `stop` of another change: one layer of several that a file has fused, such as q, k and v."""

    inner: "Factors | Hadamard | Kronecker | Difference"
    start: int
    stop: int

    @property
    def rank(self) -> int:
        return self.inner.rank

    @property
    def shape(self) -> tuple[int, int]:
        return self.stop - self.start, self.inner.shape[1]

    def delta(self, base: Array = None) -> Array:
        return self.inner.delta(base)[self.start : self.stop]


Change: TypeAlias = Factors | Hadamard | Kronecker | Difference | Decomposed | Rows
NAMES = {
    Factors: "LoRA",
    Hadamard: "LoHa",
    Kronecker: "LoKr",
    Difference: "difference",
    Decomposed: "DoRA",
    Rows: "fused",
}


def kind(change: Change) -> str:
    """What the change is called: "LoRA", "LoHa", "DoRA of LoKr", …"""
    if isinstance(change, Rows):
        return kind(change.inner)
    if isinstance(change, Decomposed):
        return "DoRA" if isinstance(change.inner, Factors) else f"DoRA of {kind(change.inner)}"
    return NAMES[type(change)]


def on(change: Change, convert: Callable[[Array], Array]) -> Any:
    """The same change with every array of it converted."""
    return dataclasses.replace(change, **{f.name: _on(getattr(change, f.name), convert) for f in _fields(change)})


def folded(mid: NDArray[np.float32], down: NDArray[np.float32]) -> NDArray[np.float32]:
    """A Tucker LoCon's core (r, r, k, k) and `down` (r, in, 1, 1) as one `down` (r, in, k, k)."""
    return np.einsum("abkl,bi->aikl", mid, _matrix(down))


def _fields(change: Any) -> tuple[Any, ...]:
    return dataclasses.fields(change)


def _on(value: Any, convert: Callable[[Array], Array]) -> Any:
    if isinstance(value, tuple):
        return tuple(_on(item, convert) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if dataclasses.is_dataclass(value):
        return on(value, convert)  # pyright: ignore[reportArgumentType]
    return convert(value) if hasattr(value, "shape") else value


def _columns(array: Array) -> int:
    columns = 1
    for side in array.shape[1:]:
        columns *= side
    return columns


def _matrix(array: Array) -> Array:
    return array.reshape((array.shape[0], -1))


def _tucker(core: Array, a: Array, b: Array) -> Array:
    """Σ t[i, j, k, l] a[i, p] b[j, q] as a matrix (p, q·k·l)."""
    i, j = core.shape[:2]
    half = (a.T @ core.reshape((i, -1))).reshape((a.shape[1], j, -1))
    return (half.swapaxes(1, 2) @ b).swapaxes(1, 2).reshape((a.shape[1], -1))

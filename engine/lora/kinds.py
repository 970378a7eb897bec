"""The tensors of one layer become checked changes of its weight and its bias. Standard library and numpy only.

Which parts make which kind is LyCORIS's and kohya's custom; what does not fit together is refused, as leaving a part
out would draw something else than the file says. `scale` is α/r, and α is the rank where none is stated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.header import Refused, short
from engine.lora.changes import Change, Decomposed, Difference, Factors, Hadamard, Kronecker, Rows, folded

MAX_RANK = 1_024
MAX_VALUE = 1e4  # of a factor, with α/r in it: trained ones stay below 100, and larger ones overflow
MAX_KERNEL = 7  # of a convolution: a Tucker core makes so many times squared of what its file holds
MAX_WEIGHTS = 2**27  # of one layer: FLUX.1's largest has 66 million

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Alpha:
    """What the file says of α outside of the layer: `stated` for all, and whether it is divided by √r (rsLoRA)."""

    stated: float | None = None
    root: bool = False

    def scale(self, own: Array | None, rank: int, layer: str) -> float:
        """α/r, or α/√r for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732)."""
        alpha = float(own.flat[0]) if own is not None else self.stated if self.stated is not None else None
        if alpha == 0:
            raise Refused(f"{layer} has alpha 0, which some readers take for off and some for its rank")
        if alpha is None:
            alpha = float(rank)
        return alpha / rank**0.5 if self.root else alpha / rank


def changes(name: str, parts: Mapping[str, Array], alpha: Alpha) -> dict[str, Change]:
    """The changes of the layer `name`, by weight: of its weight, and of its bias as `name.bias`. Raises `Refused`."""
    layer = f"the layer “{short(name)}”"
    _check_values(layer, parts)
    left = dict(parts)
    found: dict[str, Change] = {}
    for part in ("diff_b", "b_norm"):
        if part in left:
            _put(found, f"{name}.bias", Difference(_vector(layer, left.pop(part))), layer)
    if "w_norm" in left:
        _put(found, name, Difference(_vector(layer, left.pop("w_norm"))), layer)
    if set(left) - {"alpha"}:
        _put(found, name, _weight(layer, left, alpha), layer)
    if not found:
        raise Refused(f"{layer} lacks its down half")
    for change in found.values():
        _check_size(layer, change)
    return found


def rows(change: Change, shares: tuple[float, ...], name: str) -> list[Change]:
    """A fused layer's change, split by rows into layers with these shares of them."""
    high = change.shape[0]
    ends = [round(high * sum(shares[: i + 1])) for i in range(len(shares))]
    if any(abs(high * share - round(high * share)) > 1e-6 for share in shares):
        raise Refused(f"the layer “{short(name)}” has {high} rows, which are not those of its {len(shares)} parts")
    if isinstance(change, Decomposed | Rows):
        raise Refused(f"the layer “{short(name)}” is a DoRA of several fused layers, which is not read yet")
    starts = [0, *ends[:-1]]
    return [_part(change, i, j) for i, j in zip(starts, ends, strict=True)]


def _part(change: Factors | Hadamard | Kronecker | Difference, i: int, j: int) -> Change:
    """Rows i to j of a change; as one of the same kind where that can be."""
    if isinstance(change, Factors):
        return Factors(change.down, change.up[i:j], change.alpha)
    if isinstance(change, Hadamard) and change.cores is None:
        (a, b), (c, d) = change.first, change.second
        return Hadamard((a[i:j], b), (c[i:j], d), change.scale)
    if isinstance(change, Difference):
        return Difference(change.values[i:j])
    return Rows(change, i, j)


def _weight(layer: str, parts: dict[str, Array], alpha: Alpha) -> Change:
    """The change of the weight from all its parts, none left over."""
    by_input, by_output = parts.pop("dora_scale", None), parts.pop("magnitude", None)
    own = parts.pop("alpha", None)
    if own is not None and own.size != 1:
        raise Refused(f"{layer} has more than one alpha")
    kinds = [kind for kind in KINDS if any(part in parts for part in kind)]
    if not kinds:
        raise Refused(f"{layer} has a DoRA scale and nothing that it scales")
    if len(kinds) > 1 or (by_input is not None and by_output is not None):
        raise Refused(f"{layer} is changed in two ways at once")
    change = KINDS[kinds[0]](layer, parts, own, alpha)
    if by_output is not None:
        return _decomposed(layer, change, by_output, True)
    if by_input is not None:
        return _decomposed(layer, change, by_input, by_input.shape[0] == change.shape[0])
    return change


def _lora(layer: str, parts: dict[str, Array], own: Array | None, alpha: Alpha) -> Factors:
    if "down" not in parts or "up" not in parts:
        raise Refused(f"{layer} lacks its {'up' if 'down' in parts else 'down'} half")
    down, up, mid = parts["down"], parts["up"], parts.get("mid")
    if down.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[2:] != (1,) * (down.ndim - 2):
        raise Refused(f"{layer} has halves of shapes {down.shape} and {up.shape}")
    rank = _rank(layer, down.shape[0], up.shape[1])
    scale = alpha.scale(own, rank, layer)
    if mid is not None:
        if mid.ndim != 4 or mid.shape[:2] != (rank, rank) or down.shape[2:] != (1, 1):
            raise Refused(f"{layer} has a Tucker core of shape {mid.shape} between halves of rank {rank}")
        _check_unfolded(layer, mid, rank, down.shape[1])
        down = folded(mid, down)
    _check_scale(layer, scale)
    if max(_largest(down), _largest(up) * max(abs(scale), 1)) > MAX_VALUE:
        raise Refused(f"{layer} holds values beyond ±{MAX_VALUE:,.0f}, which no training arrives at")
    return Factors(down, up, scale * rank)


def _loha(layer: str, parts: dict[str, Array], own: Array | None, alpha: Alpha) -> Hadamard:
    first, second = (_pair(layer, parts, f"hada_w{n}_a", f"hada_w{n}_b") for n in (1, 2))
    cores = tuple(parts[key] for key in ("hada_t1", "hada_t2") if key in parts)
    if not cores:
        rank = _rank(layer, first[0].shape[1], first[1].shape[0])
        _rank(layer, second[0].shape[1], second[1].shape[0])
        made = Hadamard(first, second, alpha.scale(own, rank, layer))
        same = first[0].shape[0] == second[0].shape[0] and first[1].shape[1:] == second[1].shape[1:]
    else:
        if len(cores) != 2 or cores[0].ndim != 4 or cores[0].shape[2:] != cores[1].shape[2:]:
            raise Refused(f"{layer} lacks one of its Tucker cores, or they differ")
        for core, (a, b) in zip(cores, (first, second), strict=True):
            _check_core(layer, core, a, b)
        rank = _rank(layer, first[1].shape[0], first[1].shape[0])
        made = Hadamard(first, second, alpha.scale(own, rank, layer), (cores[0], cores[1]))
        same = first[0].shape[1] == second[0].shape[1] and first[1].shape[1] == second[1].shape[1]
    if not same:
        raise Refused(f"{layer} has two products of different shapes")
    _check_scale(layer, made.scale)
    return made


def _lokr(layer: str, parts: dict[str, Array], own: Array | None, alpha: Alpha) -> Kronecker:
    left, right, core = _whole_or_pair(layer, parts, "lokr_w1"), _whole_or_pair(layer, parts, "lokr_w2"), None
    ranks: list[int] = []
    if any(side.ndim != 2 for side in left):
        raise Refused(f"{layer} has a first Kronecker factor that is no matrix")
    if len(left) == 2:
        ranks.append(_rank(layer, left[0].shape[1], left[1].shape[0]))
    if "lokr_t2" in parts:
        core = parts["lokr_t2"]
        if len(right) != 2:
            raise Refused(f"{layer} has a Tucker core without its factors")
        _check_core(layer, core, *right)
        ranks.append(_rank(layer, right[1].shape[0], right[1].shape[0]))
    elif len(right) == 2:
        ranks.append(_rank(layer, right[0].shape[1], right[1].shape[0]))
    elif right[0].ndim not in (2, 4):
        raise Refused(f"{layer} has a second Kronecker factor of shape {right[0].shape}")
    scale = alpha.scale(own, ranks[-1], layer) if ranks else 1.0  # both whole: LyCORIS takes α for the rank
    _check_scale(layer, scale)
    return Kronecker(left, right, scale, core)


def _difference(layer: str, parts: dict[str, Array], own: Array | None, alpha: Alpha) -> Difference:  # noqa: ARG001
    """Of any shape; α does not scale it."""
    if parts["diff"].ndim == 0:
        raise Refused(f"{layer} has a difference without a shape")
    return Difference(parts["diff"])


Build = Callable[[str, dict[str, Array], Array | None, Alpha], Factors | Hadamard | Kronecker | Difference]
KINDS: dict[tuple[str, ...], Build] = {
    ("down", "up", "mid"): _lora,
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"): _loha,
    ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"): _lokr,
    ("diff",): _difference,
}


def _decomposed(
    layer: str, inner: Factors | Hadamard | Kronecker | Difference, magnitude: Array, by_output: bool
) -> Decomposed:
    high, wide = inner.shape
    fits = magnitude.size == high if by_output else wide % magnitude.size == 0 and magnitude.shape[:1] == (1,)
    if not fits:
        raise Refused(f"{layer} has a DoRA scale of shape {magnitude.shape} for a weight of {high}×{wide}")
    return Decomposed(inner, magnitude.reshape(-1), by_output)


def _pair(layer: str, parts: Mapping[str, Array], a: str, b: str) -> tuple[Array, Array]:
    if a not in parts or b not in parts:
        raise Refused(f"{layer} lacks its {a if a not in parts else b}")
    if parts[a].ndim != 2 or parts[b].ndim not in (2, 4):
        raise Refused(f"{layer} has factors of shapes {parts[a].shape} and {parts[b].shape}")
    return parts[a], parts[b]


def _whole_or_pair(layer: str, parts: Mapping[str, Array], key: str) -> tuple[Array, ...]:
    if key in parts:
        if f"{key}_a" in parts or f"{key}_b" in parts:
            raise Refused(f"{layer} has {key} both whole and factored")
        return (parts[key],)
    return _pair(layer, parts, f"{key}_a", f"{key}_b")


def _check_core(layer: str, core: Array, a: Array, b: Array) -> None:
    if core.ndim != 4 or b.ndim != 2 or core.shape[:2] != (a.shape[0], b.shape[0]):
        raise Refused(f"{layer} has a Tucker core of shape {core.shape} for factors {a.shape} and {b.shape}")
    _rank(layer, core.shape[0], core.shape[0])
    _rank(layer, core.shape[1], core.shape[1])
    _check_unfolded(layer, core, a.shape[1], max(core.shape[1], b.shape[1]))


def _check_unfolded(layer: str, core: Array, high: int, wide: int) -> None:
    """Before a core is multiplied out, as a file of megabytes could become hundreds of gigabytes."""
    kernel = core.shape[2:]
    if max(kernel) > MAX_KERNEL or high * wide * kernel[0] * kernel[1] > MAX_WEIGHTS:
        raise Refused(f"{layer} has a Tucker core of shape {core.shape}, which no convolution has")


def _rank(layer: str, one: int, other: int) -> int:
    if one != other:
        raise Refused(f"{layer} has halves of ranks {one} and {other}")
    if one > MAX_RANK:
        raise Refused(f"{layer} has rank {one:,}, and {MAX_RANK:,} is the most")
    return one


def _check_values(layer: str, parts: Mapping[str, Array]) -> None:
    if any(_largest(tensor) > MAX_VALUE for part, tensor in parts.items() if part != "alpha"):
        raise Refused(f"{layer} holds values beyond ±{MAX_VALUE:,.0f}, which no training arrives at")


def _check_scale(layer: str, scale: float) -> None:
    if abs(scale) > MAX_VALUE:
        raise Refused(f"{layer} holds values beyond ±{MAX_VALUE:,.0f}, which no training arrives at")


def _check_size(layer: str, change: Change) -> None:
    high, wide = change.shape
    if high * wide > MAX_WEIGHTS:
        raise Refused(f"{layer} changes {high}×{wide} weights, and {MAX_WEIGHTS:,} are the most")


def _vector(layer: str, values: Array) -> Array:
    if values.ndim != 1:
        raise Refused(f"{layer} has a change of a bias or a norm of shape {values.shape}")
    return values


def _put(found: dict[str, Change], name: str, change: Change, layer: str) -> None:
    if name in found:
        raise Refused(f"{layer} is changed in two ways at once")
    found[name] = change


def _largest(values: Array) -> float:
    return float(np.abs(values).max())

"""A safetensors file's bytes become checked tensors, or a `Refused` that says why not. Nothing of it is ever executed.

Standard library and numpy only. Every size is bounded before anything of that size is made, and a tensor is no larger
than the bytes that came for it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.header import Entry, Refused, header_length, parsed, short

MAX_HEADER = 4_000_000  # bytes: kohya's tools write every caption into it
MAX_SIDE = 65_536
WEIGHTS = ("F16", "BF16", "F32")
ALPHAS = ("F64", "I64")  # of single numbers only: some tools write α so
NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}


@dataclass(frozen=True, slots=True, eq=False)
class Container:
    """Finite tensors in float32 by key, and what the file says about itself."""

    tensors: dict[str, NDArray[np.float32]]
    metadata: dict[str, str]


def parse(data: bytes) -> Container:
    """A whole file. Raises `Refused`."""
    length = header_length(data[:9], len(data), MAX_HEADER)
    body = memoryview(data)[8 + length :]
    entries, metadata = parsed(data[8 : 8 + length], len(body))
    for key, entry in entries.items():  # all of them, before anything of their sizes is made
        _check(key, entry)
    return Container({key: _tensor(key, entry, body) for key, entry in entries.items()}, metadata)


def _check(key: str, entry: Entry) -> None:
    single = entry.shape in ((), (1,))
    if entry.dtype not in (*WEIGHTS, *(ALPHAS if single else ())):
        raise Refused(f"“{short(key)}” is of type {entry.dtype}, and only F16, BF16 and F32 are read")
    if len(entry.shape) > 4 or not all(1 <= side <= MAX_SIDE for side in entry.shape):
        raise Refused(f"“{short(key)}” has an impossible shape, {short(str(entry.shape))}")


def _tensor(key: str, entry: Entry, body: memoryview) -> NDArray[np.float32]:
    raw = body[entry.start : entry.end]
    if entry.dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            values = np.frombuffer(raw, NUMPY[entry.dtype]).astype(np.float32)
    if not np.isfinite(values).all():
        raise Refused(f"“{short(key)}” holds values that are not numbers")
    return values.reshape(entry.shape)

"""A safetensors file's bytes become checked tensors, or a `Refused` that says why not. Nothing of it is ever executed.

Standard library and numpy only. The container: u64 header length, JSON header, tensor bytes without gaps
(https://github.com/huggingface/safetensors#format). Every size is bounded before anything of that size is made, and a
tensor is no larger than the bytes that came for it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_HEADER = 4_000_000  # bytes: kohya's tools write every caption into it
MAX_TENSORS = 20_000
MAX_SIDE = 65_536
ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
ALPHA_BYTES = {"F64": 8, "I64": 8}  # of single numbers only: some tools write α so
NUMPY = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}


class Refused(Exception):
    """Why the file is not taken, as a clause."""


@dataclass(frozen=True, slots=True, eq=False)
class Container:
    """Finite tensors in float32 by key, and what the file says about itself."""

    tensors: dict[str, NDArray[np.float32]]
    metadata: dict[str, str]


class _Span(NamedTuple):
    """One tensor's place: bytes `start` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def parse(data: bytes) -> Container:
    """A whole file. Raises `Refused`."""
    spans, metadata, body = _parse(data)
    return Container({key: _tensor(key, span, body) for key, span in spans.items()}, metadata)


def _parse(data: bytes) -> tuple[dict[str, _Span], dict[str, str], memoryview]:
    """Check the container; tensors' places by key, the metadata, and the bytes that hold the tensors."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or data[8:9] != b"{":
        raise Refused("it is not a safetensors file")
    if length > MAX_HEADER:
        raise Refused(f"its header is longer than {MAX_HEADER:,} bytes")
    if 8 + length > len(data):
        raise Refused("it ends within its header")
    header = _header(data[8 : 8 + length])
    metadata = _metadata(header.pop("__metadata__", {}))
    if len(header) > MAX_TENSORS:
        raise Refused(f"it has {len(header):,} tensors, and {MAX_TENSORS:,} is the most")
    spans = {key: _span(key, entry) for key, entry in header.items()}
    body = memoryview(data)[8 + length :]
    _check_no_gaps(spans, len(body))
    return spans, metadata, body


def _header(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Refused("its header names a key twice")
        return found

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise Refused("its header is not JSON") from None
    return header  # the text starts with “{”, so it is a dict


def _metadata(said: Any) -> dict[str, str]:
    if not isinstance(said, dict):
        raise Refused("its metadata is not a table")
    texts: dict[str, str] = {key: value for key, value in said.items() if isinstance(value, str)}  # pyright: ignore
    if len(texts) < len(said):  # pyright: ignore
        raise Refused("its metadata holds something that is not text")
    return texts


def _span(key: str, entry: Any) -> _Span:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise Refused(f"“{short(key)}” is not described as a tensor") from None
    if dtype not in (*ITEM_BYTES, *ALPHA_BYTES):  # by equality: it may be anything
        raise Refused(f"“{short(key)}” is of type {short(str(dtype))}, and only F16, BF16 and F32 are read")
    if not all(type(number) is int for number in (*shape, start, end)):
        raise Refused(f"“{short(key)}” has a shape or a place that is not whole numbers")
    if len(shape) > 4 or not all(1 <= side <= MAX_SIDE for side in shape):
        raise Refused(f"“{short(key)}” has an impossible shape, {short(str(shape))}")
    if dtype in ALPHA_BYTES and shape not in ((), (1,)):
        raise Refused(f"“{short(key)}” is of type {dtype}, and only F16, BF16 and F32 are read")
    if end - start != math.prod(shape) * (ITEM_BYTES | ALPHA_BYTES)[dtype]:
        raise Refused(f"“{short(key)}” has another size than its shape says")
    return _Span(dtype, shape, start, end)


def _check_no_gaps(spans: Mapping[str, _Span], size: int) -> None:
    at = 0
    for span in sorted(spans.values(), key=lambda span: span.start):
        if span.start != at:
            raise Refused("its tensors overlap or leave a gap")
        at = span.end
    if at > size:
        raise Refused("it is cut short")
    if at < size:
        raise Refused("bytes follow its last tensor")


def _tensor(key: str, span: _Span, body: memoryview) -> NDArray[np.float32]:
    raw = body[span.start : span.end]
    if span.dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            values = np.frombuffer(raw, NUMPY[span.dtype]).astype(np.float32)
    if not np.isfinite(values).all():
        raise Refused(f"“{short(key)}” holds values that are not numbers")
    return values.reshape(span.shape)


def short(text: str) -> str:
    """A key of the file as it can be printed in a sentence."""
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
    return text if len(text) <= 80 else f"{text[:60]}…{text[-19:]}"

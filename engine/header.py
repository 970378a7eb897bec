"""The header of a safetensors file, checked strictly: what tensors it says it holds, and where.

Standard library only. Format: u64 header length, JSON header, tensors without gaps
(https://github.com/huggingface/safetensors#format). Files of any size and use pass through here
(engine/bases/header.py, engine/lora/container.py), each with bounds of its own.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

MAX_TENSORS = 20_000
MAX_SIDE = 2**31
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I64": 64, "I32": 32, "I16": 16,
        "I8": 8, "U8": 8, "BOOL": 8}  # fmt: skip


class Refused(Exception):
    """Why the file is not taken, as a clause."""


class Entry(NamedTuple):
    """One tensor: its type as the format names it, its shape, and its bytes `start` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


def header_length(start: bytes, size: int, most: int) -> int:
    """How long the JSON is of a file that begins with `start` (9 bytes at least) and has `size` bytes in all."""
    length = int.from_bytes(start[:8], "little")
    if size < 10 or start[8:9] != b"{":
        raise Refused("it is not a safetensors file")
    if length > most:
        raise Refused(f"its header is longer than {most:,} bytes")
    if 8 + length > size:
        raise Refused("it ends within its header")
    return length


def parsed(text: bytes, body: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """Tensors by key, and the metadata, of a header that `body` bytes follow. Raises `Refused`."""
    header = _json(text)
    metadata = _metadata(header.pop("__metadata__", {}))
    if len(header) > MAX_TENSORS:
        raise Refused(f"it has {len(header):,} tensors, and {MAX_TENSORS:,} is the most")
    tensors = {key: _entry(key, entry) for key, entry in header.items()}
    at = 0
    for entry in sorted(tensors.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != at:
            raise Refused("its tensors overlap or leave a gap")
        at = entry.end
    if at != body:
        raise Refused("it is cut short" if at > body else "bytes follow its last tensor")
    return tensors, metadata


def short(text: str) -> str:
    """A key of the file as it can be printed in a sentence."""
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
    return text if len(text) <= 80 else f"{text[:60]}…{text[-19:]}"


def _json(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Refused("its header names a key twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)  # starts with “{”, so it is a dict
    except (ValueError, RecursionError):
        raise Refused("its header is not JSON") from None


def _metadata(said: Any) -> dict[str, str]:
    if not isinstance(said, dict):
        raise Refused("its metadata is not a table")
    texts = {key: value for key, value in cast(Mapping[str, Any], said).items() if isinstance(value, str)}
    if len(texts) < len(cast(Mapping[str, Any], said)):
        raise Refused("its metadata holds something that is not text")
    return texts


def _entry(key: str, said: Any) -> Entry:
    try:
        dtype, shape, (start, end) = str(said["dtype"]), tuple(said["shape"]), said["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise Refused(f"“{short(key)}” is not described as a tensor") from None
    if dtype not in BITS:
        raise Refused(f"“{short(key)}” is of type {short(dtype)}, which is not known")
    if not all(type(number) is int for number in (*shape, start, end)):
        raise Refused(f"“{short(key)}” has a shape or a place that is not whole numbers")
    if len(shape) > 8 or not all(0 <= side <= MAX_SIDE for side in shape):
        raise Refused(f"“{short(key)}” has an impossible shape, {short(str(shape))}")
    if (end - start) * 8 != math.prod(shape) * BITS[dtype]:
        raise Refused(f"“{short(key)}” has another size than its shape says")
    return Entry(dtype, shape, start, end)

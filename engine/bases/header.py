"""What a safetensors file of any size says that it holds. Its header alone is read, within bounds, and checked.

Format: u64 length, JSON header, tensors without gaps (https://github.com/huggingface/safetensors#format). Nothing of a
file is handed to another library before this has passed it. A pickle is refused here: it could run code.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import Invalid
from engine.files import reason

MAX_HEADER = 16_000_000  # bytes
MAX_TENSORS = 20_000
MAX_SIDE = 2**31
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I64": 64, "I32": 32, "I16": 16,
        "I8": 8, "U8": 8, "BOOL": 8}  # fmt: skip
PICKLED = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
CONVERT = "Look for the same model as .safetensors, or have a program that you trust convert it."


class Entry(NamedTuple):
    """One tensor: its type as the format names it, its shape, and its bytes `start` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A file's tensors by key, and its metadata; `size` is that of the whole file in bytes."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    size: int

    def shape(self, key: str) -> tuple[int, ...] | None:
        entry = self.tensors.get(key)
        return entry.shape if entry else None


class _Refused(Exception):
    """Why the file is not taken, as a clause."""


def read_header(path: Path) -> Header:
    """The header of `path`. Raises `Invalid`, naming the file, for what is no whole and sound safetensors file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            _check_start(path, start, length, size)
            text = start[8:] + file.read(length - 1)
        return _parsed(text, size, size - 8 - length)
    except _Refused as refused:
        raise Invalid(path.name, str(refused), "Get the file anew.") from None
    except OSError as error:
        raise Invalid(
            str(path), f"it cannot be read ({reason(error)})", "Check the path, and who may read it."
        ) from None


def _check_start(path: Path, start: bytes, length: int, size: int) -> None:
    if path.suffix.lower() in PICKLED or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04") or start[:2] == b"PK":
        raise Invalid(path.name, "it is a pickle, which can run any code when it is opened, so it is not", CONVERT)
    if size < 10 or start[8:9] != b"{":
        raise _Refused("it is not a safetensors file")
    if length > MAX_HEADER:
        raise _Refused(f"its header is longer than {MAX_HEADER:,} bytes")
    if 8 + length > size:
        raise _Refused("it ends within its header")


def _parsed(text: bytes, size: int, body: int) -> Header:
    header = _json(text)
    said = header.pop("__metadata__", {})
    metadata = {key: value for key, value in said.items() if isinstance(value, str)} if isinstance(said, dict) else {}  # pyright: ignore
    if len(header) > MAX_TENSORS:
        raise _Refused(f"it has {len(header):,} tensors, and {MAX_TENSORS:,} is the most")
    tensors = {key: _entry(key, entry) for key, entry in header.items()}
    at = 0
    for entry in sorted(tensors.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != at:
            raise _Refused("its tensors overlap or leave a gap")
        at = entry.end
    if at != body:
        raise _Refused("it is cut short" if at > body else "bytes follow its last tensor")
    return Header(tensors, metadata, size)  # pyright: ignore[reportUnknownArgumentType]


def _json(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise _Refused("its header names a key twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)  # starts with “{”, so it is a dict
    except (ValueError, RecursionError):
        raise _Refused("its header is not JSON") from None


def _entry(key: str, said: Any) -> Entry:
    try:
        dtype, shape, (start, end) = str(said["dtype"]), tuple(said["shape"]), said["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _Refused(f"“{key[:60]}” is not described as a tensor") from None
    if dtype not in BITS:
        raise _Refused(f"“{key[:60]}” is of type {dtype[:20]}, which is not known")
    if not all(type(number) is int for number in (*shape, start, end)):
        raise _Refused(f"“{key[:60]}” has a shape or a place that is not whole numbers")
    if len(shape) > 8 or not all(0 <= side <= MAX_SIDE for side in shape) or start < 0:
        raise _Refused(f"“{key[:60]}” has an impossible shape")
    if (end - start) * 8 != math.prod(shape) * BITS[dtype]:
        raise _Refused(f"“{key[:60]}” has another size than its shape says")
    return Entry(dtype, shape, start, end)

"""What parent and worker say to each other: one JSON head a message, then the bytes that belong to it.

A message is two big-endian uint32 (length of the head, length of the bytes together), the head, the bytes.
"""

import asyncio
import json
import struct
from dataclasses import fields, is_dataclass
from itertools import accumulate
from typing import Any

from engine import errors
from engine.errors import AtelierError, Fault
from engine.plain import pack, unpack

FRAME = struct.Struct(">II")


def message(head: dict[str, Any], kind: Any = None, value: object = None) -> bytes:
    """`head` and, if given, `value` of type `kind`, as the bytes to send."""
    blobs: list[bytes] = []

    def keep(data: bytes) -> int:
        blobs.append(data)
        return len(blobs) - 1

    if kind is not None:
        head = head | {"value": pack(kind, value, keep)}
    text = json.dumps(head | {"sizes": [len(blob) for blob in blobs]}).encode()
    return FRAME.pack(len(text), sum(map(len, blobs))) + text + b"".join(blobs)


async def receive(source: asyncio.StreamReader, kind: Any) -> dict[str, Any] | None:
    """The next message, its `value` as a `kind`; None at the end of the stream, also within a message."""
    try:
        head_size, rest_size = FRAME.unpack(await source.readexactly(FRAME.size))
        head: dict[str, Any] = json.loads(await source.readexactly(head_size))
        rest = await source.readexactly(rest_size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    sizes: list[int] = head["sizes"]
    blobs = [rest[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True)]
    if "value" in head:
        head["value"] = unpack(kind, head["value"], blobs.__getitem__)
    return head


def error_head(error: AtelierError) -> dict[str, Any]:
    said = {f.name: getattr(error, f.name) for f in fields(error)} if is_dataclass(error) else {}
    return {"error": type(error).__name__, "fields": said}


def error_of(head: dict[str, Any]) -> AtelierError:
    """The error that `error_head` described."""
    kind = getattr(errors, head["error"], None)
    if isinstance(kind, type) and issubclass(kind, AtelierError):
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in head["fields"].items()})  # pyright: ignore[reportUnknownArgumentType]
    return Fault(head["error"], "")

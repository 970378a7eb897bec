"""Values as JSON text with their bytes set apart: how plans and conversations cross a process border or a restart."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import PurePath
from typing import Any, cast

from pydantic import TypeAdapter

MARK = "$bytes"
Give = Callable[[Any], bytes]


def pack(kind: Any, value: object, keep: Callable[[bytes], str | int]) -> str:
    """`value` of type `kind` as JSON; `keep` takes each bytes object in it and returns what stands in its place."""

    def plain(part: object) -> object:
        match part:
            case bytes():
                return {MARK: keep(part)}
            case PurePath():
                return str(part)
            case Mapping():
                return {key: plain(inner) for key, inner in cast(Mapping[str, object], part).items()}
            case str():
                return part
            case Sequence():
                return [plain(inner) for inner in cast(Sequence[object], part)]
            case _:
                return part

    return json.dumps(plain(_adapter(kind).dump_python(value)))


def unpack(kind: Any, text: str, give: Give) -> Any:
    """The value again; `give` brings the bytes for what `keep` returned. ValueError if it is no such value."""

    def whole(found: dict[str, Any]) -> Any:
        return give(found[MARK]) if found.keys() == {MARK} else found

    return _adapter(kind).validate_python(json.loads(text, object_hook=whole))


def no_bytes(_: object) -> bytes:
    """For `unpack`, where all but the bytes is wanted: they are not read, and need not be there any more."""
    return b""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)

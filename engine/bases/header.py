"""What a safetensors file of any size says that it holds. Its header alone is read, within bounds, and checked.

Nothing of a file is handed to another library before this has passed it. A pickle is refused here: it could run code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import Invalid
from engine.files import reason
from engine.header import Entry, Refused, header_length, parsed

MAX_HEADER = 16_000_000  # bytes
PICKLED = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
CONVERT = "Look for the same model as .safetensors, or have a program that you trust convert it."


@dataclass(frozen=True, slots=True)
class Header:
    """A file's tensors by key, and its metadata; `size` is that of the whole file in bytes."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    size: int

    def shape(self, key: str) -> tuple[int, ...] | None:
        entry = self.tensors.get(key)
        return entry.shape if entry else None


def read_header(path: Path) -> Header:
    """The header of `path`. Raises `Invalid`, naming the file, for what is no whole and sound safetensors file."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise Invalid(str(path), "it is no file", "Name a .safetensors file.")
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(9)
            _check_no_pickle(path, start)
            length = header_length(start, size, MAX_HEADER)
            text = start[8:] + file.read(length - 1)
        return Header(*parsed(text, size - 8 - length), size)
    except Refused as refused:
        raise Invalid(path.name, str(refused), "Get the file anew.") from None
    except OSError as error:
        raise Invalid(
            str(path), f"it cannot be read ({reason(error)})", "Check the path, and who may read it."
        ) from None


def _check_no_pickle(path: Path, start: bytes) -> None:
    if path.suffix.lower() in PICKLED or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04") or start[:2] == b"PK":
        raise Invalid(path.name, "it is a pickle, which can run any code when it is opened, so it is not", CONVERT)

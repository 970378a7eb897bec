"""Writing to disk so that a reader sees a whole file or none, and a failure is one clear sentence."""

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import DiskFull, Invalid

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Turn what the disk says inside into ours: no space → `DiskFull`; no right to write there → `Invalid`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(str(folder)) from error
        if error.errno in NO_ACCESS:
            todo = "Name a folder that you may write to: --home DIR (or --out DIR for pictures)."
            raise Invalid(f"folder {folder}", "it cannot be written to", todo) from error
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk; FileExistsError if there is one already."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: a neighbour is written first, then renamed over it."""
    draft = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        write_synced(draft, data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries (new files, renames) are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Reading what others made within bounds, and writing so that a reader sees a whole file or none.

A failure is one clear sentence.
"""

import errno
import os
import secrets
import shutil
import stat
import tempfile
import time
import tomllib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import DiskFull, Invalid

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT,
             errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY)  # fmt: skip
NEW = ".new"  # the folder of a root in which its newcomers are put together
MAX_MANIFEST = 64_000  # bytes
LEFT_OVER = 3_600.0  # seconds


def read_bounded(path: Path, most: int) -> bytes:
    """An ordinary file of at most `most` bytes, judged before it is opened; ValueError says why it is not one."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not an ordinary file")
    if status.st_size > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    with path.open("rb") as file:
        return file.read(most)


def read_manifest(path: Path) -> dict[str, Any]:
    """A TOML file of at most 64 kB. Raises OSError or ValueError; `reason` has either in one line."""
    try:
        return tomllib.loads(read_bounded(path, MAX_MANIFEST).decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def reason(error: OSError | ValueError) -> str:
    """Why a manifest cannot be used, in one line: of several things that are wrong with it, the first."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


@contextmanager
def reading(folder: Path) -> Generator[None]:
    """Turn what the disk says inside into ours: `Invalid`."""
    try:
        yield
    except OSError as error:
        todo = "Change its rights, or name another folder with --home DIR."
        raise Invalid(f"folder {folder}", f"it cannot be read ({error.strerror})", todo) from error


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


@contextmanager
def staged(name: str, root: Path) -> Generator[Path]:
    """A folder to fill, which is `root`/NAME when the block has ended well, and nowhere when it has not."""
    folder = root / NEW / f"{name}-{secrets.token_hex(4)}"
    with writing(root):
        folder.mkdir(parents=True)
        try:
            yield folder
            folder.rename(root / name)
            sync_folder(root)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Raise what saving in `folder` would. It is tried, and taken back with every folder that was made for it."""
    with writing(folder):
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        finally:
            for one in missing:
                with suppress(OSError):  # never made, or not ours alone any more
                    one.rmdir()


def is_left_over(path: Path) -> bool:
    """Whether it is so old that nobody can still be writing it."""
    try:
        return time.time() - path.stat().st_mtime > LEFT_OVER
    except OSError:
        return False


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
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries (new files, renames) are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

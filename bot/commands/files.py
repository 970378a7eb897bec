"""Files named on the command line: read with a clear sentence where they cannot be, written whole or not at all."""

import stat
from contextlib import suppress
from pathlib import Path

from bot.uploads import Upload, check_picture
from engine.errors import Invalid
from engine.files import check_writable, write_whole, writing

MOST = 20_000_001  # one byte more than a picture may have: enough to be refused


def read_file(path: Path) -> bytes:
    try:
        if why := _not_a_file(path):
            raise Invalid(str(path), why, "Name one picture.")
        with path.open("rb") as file:
            return file.read(MOST)
    except FileNotFoundError:
        raise Invalid(str(path), "there is no such file", "Check the path.") from None
    except OSError as error:
        raise Invalid(str(path), f"it cannot be read ({error.strerror})", "Check who may read it.") from None


def read_picture(path: Path) -> Upload:
    """A picture that is safe to decode, its orientation applied. Raises `Invalid` naming the file."""
    return check_picture(read_file(path), path.name)


def check_target(path: Path) -> None:
    """Raise, before any work, what `write_file` would; and for what it would put a picture in the place of."""
    with writing(path), suppress(FileNotFoundError):
        if why := _not_a_file(path):
            raise Invalid(str(path), why, "Name a file, for example sheet.png.")
    check_writable(path.parent)


def _not_a_file(path: Path) -> str | None:
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else "it is a folder" if stat.S_ISDIR(mode) else "it is not an ordinary file"


def write_file(path: Path, data: bytes) -> Path:
    """Put a file where the person said, over what was there. Raises `DiskFull`, or `Invalid` without write access."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return path

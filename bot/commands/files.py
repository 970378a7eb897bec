"""Files named on the command line: read with a clear sentence where they cannot be, written whole or not at all."""

from pathlib import Path

from bot.uploads import Upload, check_picture
from engine.errors import Invalid
from engine.files import write_whole, writing

MOST = 20_000_001  # one byte more than a picture may have: enough to be refused


def read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST)
    except FileNotFoundError:
        raise Invalid(str(path), "there is no such file", "Check the path.") from None
    except IsADirectoryError:
        raise Invalid(str(path), "it is a folder", "Name one picture.") from None
    except OSError as error:
        raise Invalid(str(path), f"it cannot be read ({error.strerror})", "Check who may read it.") from None


def read_picture(path: Path) -> Upload:
    """A picture that is safe to decode, its orientation applied. Raises `Invalid` naming the file."""
    return check_picture(read_file(path), path.name)


def write_file(path: Path, data: bytes) -> Path:
    """Put a file where the person said, over what was there. Raises `DiskFull`, or `Invalid` without write access."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return path

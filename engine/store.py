"""Where pictures lie: those drawn, by day, and those given, by content; and files that go out.

Folders are made when first needed.
"""

import hashlib
import re
from datetime import date
from pathlib import Path
from typing import Any

from engine.errors import Invalid
from engine.files import check_writable, is_left_over, write_whole, writing
from engine.plain import pack, unpack

SHA256 = re.compile(r"[0-9a-f]{64}")
DRAFT = re.compile(r"\.[0-9a-f]{12}\.part")  # as `write_whole` names them
STEM_LENGTH = 50  # characters: with four bytes each and a number, still a file name


class Store:
    """`home`/pictures/YYYY-MM-DD/, `home`/inputs/SHA256, exports/SHA256/NAME; saving raises what `writing` does."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def check_out(self, out: Path | None) -> None:
        """Raise what `save_picture` would, before anything is drawn."""
        check_writable(out or self._today())

    def save_picture(self, png: bytes, out: Path | None, stem: str) -> Path:
        """Save under a name that nothing has yet, in `out` or today's folder: fox.png, fox-2.png, …"""
        folder = out or self._today()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = _reserve(folder, re.sub(r"[^\w-]+", "-", stem)[:STEM_LENGTH].strip("-_") or "picture")
            try:
                write_whole(path, png)
            except BaseException:  # Ctrl-C too: the reserved name is empty
                path.unlink(missing_ok=True)
                raise
        return path

    def save_input(self, data: bytes) -> str:
        """Keep a picture that a recipe needs; its sha256, by which `input` gives it back."""
        sha256 = hashlib.sha256(data).hexdigest()
        folder = self.home / "inputs"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / sha256).exists():
                write_whole(folder / sha256, data)
        return sha256

    def pack(self, kind: Any, value: object) -> str:
        """`value` of type `kind` as JSON text; the pictures in it are kept as inputs."""
        return pack(kind, value, self.save_input)

    def unpack(self, kind: Any, text: str) -> Any:
        """What `pack` was given."""
        return unpack(kind, text, self.input)

    def input(self, sha256: str) -> bytes:
        """The picture with this content; `Invalid` if it is not kept here, or no longer as it was."""
        path = self.home / "inputs" / sha256
        if SHA256.fullmatch(sha256) and path.is_file():
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
        why = f"the one with sha256 {sha256[:12]}… is not kept under {self.home}"
        raise Invalid("input picture", why, "Give the picture that the recipe began with, or the --home that has it.")

    def save_export(self, data: bytes, name: str) -> Path:
        """Keep a file that goes out under its own name; the same content has one place, by its sha256."""
        folder = self.home / "exports" / hashlib.sha256(data).hexdigest()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / name).exists():
                write_whole(folder / name, data)
        return folder / name

    def export(self, sha256: str) -> Path | None:
        """Where the file with this content lies, of those that `save_export` kept."""
        folder = self.home / "exports" / sha256
        if not SHA256.fullmatch(sha256) or not folder.is_dir():
            return None
        return next((file for file in sorted(folder.iterdir()) if not DRAFT.fullmatch(file.name)), None)

    def sweep(self) -> None:
        """Away with what a killed process left half-written: drafts, and names that were only reserved."""
        for name in ("pictures", "inputs", "exports"):
            for file in (self.home / name).rglob("*"):
                if is_left_over(file) and (DRAFT.fullmatch(file.name) or (file.is_file() and not file.stat().st_size)):
                    file.unlink(missing_ok=True)

    def _today(self) -> Path:
        return self.home / "pictures" / date.today().isoformat()


def _reserve(folder: Path, stem: str) -> Path:
    """Make an empty file, so that no one else takes the name; the first free one of stem, stem-2, …"""
    number = 1
    while True:
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path

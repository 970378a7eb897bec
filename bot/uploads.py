"""Bytes from outside become checked pictures, or a sentence that says why not.

Content decides what a file is, never its name. What leaves here is a plain RGB PNG: upright, without metadata.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from engine.errors import Invalid, TooFewPictures
from engine.files import read_bounded
from engine.plans import PICTURES, Example
from engine.recipes import BROKEN, MAX_PICTURE, PNG, TOO_LARGE

MAX_BYTES = 20_000_000
MIN_SIDE = 32
TOO_MANY_BYTES = f"it is larger than {MAX_BYTES // 1_000_000} MB"
FORMATS = ("PNG", "JPEG", "WEBP")
MAGIC = re.compile(PNG + rb"|\xff\xd8\xff|RIFF....WEBP", re.DOTALL)  # how files of these begin
DAMAGED = "it is damaged or cut short"
FEWEST, MOST = PICTURES
ENOUGH = 10
TRAINING_SIDE = 1024  # pixels of the shorter side: more than any base is trained at
MAX_CAPTION = 4_000  # bytes
NAMED = 10  # files left out that one sentence names
ORIENTATION = 0x0112  # the EXIF tag, and how to turn each of its values upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # odd metadata, which we drop


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that was decoded whole: `data` is a PNG of `width` x `height` pixels."""

    name: str
    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """`left_out` names each file that is not used, with the reason; `notes` are sentences for the person."""

    examples: tuple[Example, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_lora(name: str, data: bytes) -> bool:
    """A safetensors file by how it begins (the length of a JSON header, then "{"), or one that calls itself so."""
    begins = len(data) > 9 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") + 8 <= len(data)
    return begins or name.lower().endswith(".safetensors")


def check_picture(data: bytes, name: str, shorter_side: int | None = None) -> Upload:
    """Decode, turn upright, put on white, drop metadata; reduced to `shorter_side` if larger. `Invalid` says why not.

    Size is judged by the header, before any pixel is decoded.
    """
    shown = _shown(name)
    if len(data) > MAX_BYTES:
        raise Invalid(shown, TOO_MANY_BYTES, "Send a smaller picture.")
    with _open(data, shown) as opened:
        _check_size(opened.size, shown)
        try:
            picture = _plain(opened)
        except BROKEN:
            raise Invalid(shown, DAMAGED, "Export or send it anew.") from None
    if shorter_side is not None and min(picture.size) > shorter_side:
        scale = shorter_side / min(picture.size)
        width, height = (round(side * scale) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return Upload(shown, out.getvalue(), *picture.size)


def read_folder(folder: Path, caption: str | None, trigger: str, word: str) -> Dataset:
    """`dataset_of` the files in a folder; hidden ones and folders within it are not looked at."""
    try:
        paths = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except PermissionError:
        raise Invalid(
            "pictures", f"the folder {folder} may not be read", "Change its rights or name another."
        ) from None
    except OSError:  # it is none, or has a name that none can have
        raise Invalid("pictures", f"there is no folder {folder}", "Name a folder with 4 to 30 pictures.") from None
    return dataset_of([(path.name, path) for path in paths], caption, trigger, word)


def dataset_of(files: Iterable[tuple[str, bytes | Path]], caption: str | None, trigger: str, word: str) -> Dataset:
    """Training examples from files (bytes, or where they lie): good pictures by name, each once, 30 at the most.

    A caption is the text of NAME.txt, else `caption`, else "trigger word" (`word` may be empty). `[trigger]` in it
    becomes "trigger word"; a caption that lacks the trigger begins with it. `TooFewPictures` under 4.
    """
    files = sorted(files, key=lambda file: file[0])
    texts = {name[:-4]: source for name, source in files if name.lower().endswith(".txt")}
    pictures = [(name, source) for name, source in files if not name.lower().endswith(".txt")]
    uploads, left_out = _good(pictures)
    named = {stem for name, _ in pictures for stem in (name, PurePath(name).stem)}
    left_out += [f"{_shown(f'{stem}.txt')}: there is no picture of that name" for stem in texts if stem not in named]
    if len(uploads) < FEWEST:
        more = [f"{len(left_out) - NAMED} more"] if len(left_out) > NAMED else []
        raise TooFewPictures(len(uploads), FEWEST, tuple(left_out[:NAMED] + more))
    examples: list[Example] = []
    for name, upload in uploads:
        source = texts.get(name, texts.get(PurePath(name).stem))
        try:
            said = _text(source) if source is not None else ""
        except ValueError as error:
            left_out.append(f"{_shown(f'{PurePath(name).stem}.txt')}: {error}")
            said = ""
        examples.append(Example(upload.name, upload.data, caption_with(trigger, word, said or caption or "")))
    return Dataset(tuple(examples), tuple(left_out), _notes(len(uploads), len(pictures)))


def caption_with(trigger: str, word: str, text: str) -> str:
    """`text` with the trigger in its place, as `dataset_of` says."""
    bound = f"{trigger} {word}".strip()
    text = " ".join(text.split())
    if not text:
        return bound
    if "[trigger]" in text:
        return text.replace("[trigger]", bound)
    if re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", text, re.IGNORECASE):
        return text
    return f"{trigger} {text}"


def _good(pictures: list[tuple[str, bytes | Path]]) -> tuple[list[tuple[str, Upload]], list[str]]:
    """The first 30 usable pictures with their file's names, and why others before them are not used."""
    uploads: list[tuple[str, Upload]] = []
    seen: dict[bytes, str] = {}
    left_out: list[str] = []
    for name, source in pictures:
        if len(uploads) == MOST:
            break
        try:
            upload = check_picture(_content(name, source), name, TRAINING_SIDE)
        except Invalid as bad:
            left_out.append(f"{bad.what}: {bad.why}")
            continue
        pixels = hashlib.sha256(upload.data).digest()
        if pixels in seen:
            left_out.append(f"{upload.name}: it is the same picture as {seen[pixels]}")
        else:
            seen[pixels] = upload.name
            uploads.append((name, upload))
    return uploads, left_out


def _notes(good: int, given: int) -> tuple[str, ...]:
    if good < ENOUGH:
        return (f"{good} pictures will do; {ENOUGH} or more are better.",)
    if good == MOST and given > MOST:
        return (f"{given} pictures were given; the first {MOST} usable ones by name are used.",)
    return ()


def _content(name: str, source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        if source.stat().st_size > MAX_BYTES:
            raise Invalid(_shown(name), TOO_MANY_BYTES, "Use a smaller picture.")
        return source.read_bytes()
    except OSError:
        raise Invalid(_shown(name), "it cannot be read", "Change its rights.") from None


def _text(source: bytes | Path) -> str:
    """A caption file's text; ValueError says why it is not one."""
    try:
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) > MAX_CAPTION:
            raise ValueError(f"it is longer than {MAX_CAPTION:,} bytes")
        data = source if isinstance(source, bytes) else read_bounded(source, MAX_CAPTION)
        return data.decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError("it is not text in UTF-8") from None


def _open(data: bytes, shown: str) -> Image.Image:
    """Read the header alone."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except TOO_LARGE:
        raise _too_large(shown) from None
    except BROKEN:
        if MAGIC.match(data):
            raise Invalid(shown, DAMAGED, "Export or send it anew.") from None
        why = "it is not a PNG, JPEG or WebP picture" if data else "it is empty"
        raise Invalid(shown, why, "Send a PNG, JPEG or WebP picture.") from None


def _check_size(size: tuple[int, int], shown: str) -> None:
    if size[0] * size[1] > MAX_PICTURE:
        raise _too_large(shown)
    if min(size) < MIN_SIDE:
        raise Invalid(shown, f"it has {size[0]}x{size[1]} pixels", f"Send one of {MIN_SIDE} pixels a side or more.")


def _too_large(shown: str) -> Invalid:
    return Invalid(shown, f"it has more than {MAX_PICTURE / 1e6:g} megapixels", "Send it at a smaller size.")


def _plain(opened: Image.Image) -> Image.Image:
    """Decode: upright, 8-bit RGB, transparent parts white, nothing but pixels."""
    opened.load()
    picture = opened
    if opened.mode.startswith("I"):  # 16 bits of grey
        picture = opened.convert("I").point(lambda value: value / 257).convert("L")
    if opened.has_transparency_data:
        glass = opened.convert("RGBA")
        picture = Image.new("RGBA", opened.size, "white")
        picture.alpha_composite(glass)
    turn = UPRIGHT.get(_orientation(opened))
    picture = picture.convert("RGB")
    picture = picture if turn is None else picture.transpose(turn)
    picture.info.clear()
    return picture


def _orientation(opened: Image.Image) -> int:
    try:
        return int(opened.getexif().get(ORIENTATION, 1))
    except BROKEN:
        return 1


def _shown(name: str) -> str:
    """The last part of a file's name, short and printable."""
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(letter for letter in last if letter.isprintable()).strip()
    return plain[:80] or "picture"

"""bot/uploads.py: content decides, the header decides on size, and each file left out is named with its reason."""

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from bot.uploads import MAX_BYTES, TRAINING_SIDE, caption_with, check_picture, dataset_of, read_folder
from engine.errors import Invalid, TooFewPictures


def encoded(form: str = "PNG", size: tuple[int, int] = (64, 48), shade: int = 0, **options: object) -> bytes:
    """A picture whose left half is dark, so that a turn is seen."""
    picture = Image.new("RGB", size, (250, shade, 100))
    picture.paste((10, 20, 30), (0, 0, size[0] // 2, size[1]))
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def saved(picture: Image.Image, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


def pixels(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


def empty_png(width: int, height: int) -> bytes:
    """A valid PNG of one-bit zeros: huge when decoded, a few kilobytes as a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def why(data: bytes, name: str = "given.png") -> str:
    with pytest.raises(Invalid) as caught:
        check_picture(data, name)
    assert caught.value.what == name
    return caught.value.why


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_known_by_content_whatever_its_name(form: str) -> None:
    upload = check_picture(encoded(form), "notes.txt")
    assert (upload.name, upload.width, upload.height) == ("notes.txt", 64, 48)
    assert upload.data.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "data", [b"hello", b"<svg/>", b"%PDF-1.4", b"\0" * 500, encoded("GIF"), encoded("BMP"), encoded("TIFF")]
)
def test_other_content_named_png_is_refused(data: bytes) -> None:
    assert why(data) == "it is not a PNG, JPEG or WebP picture"


def test_an_empty_file_is_said_to_be_empty() -> None:
    assert why(b"") == "it is empty"


def test_too_many_bytes_are_refused_before_anything_is_read() -> None:
    assert why(encoded() + bytes(MAX_BYTES)) == "it is larger than 20 MB"


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 10_000), (4_100, 4_100)])
def test_too_many_pixels_are_refused_by_the_header_alone(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    data = empty_png(*size)
    assert len(data) < 60_000
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)  # decoding would fail
    assert why(data) == "it has more than 16.8 megapixels"


def test_the_largest_picture_that_fits_is_taken() -> None:
    assert check_picture(empty_png(4_096, 4_096), "x", 64).width == 64


def test_a_picture_that_is_too_small_to_use_is_refused() -> None:
    assert "1x16" in why(encoded(size=(1, 16)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_is_cut_short_is_refused(form: str) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    data = saved(noise, form)
    for part in (0.3, 0.6, 0.9):
        assert why(data[: int(len(data) * part)]) in {
            "it is damaged or cut short",
            "it is not a PNG, JPEG or WebP picture",
        }


def test_a_png_with_one_wrong_checksum_is_damaged() -> None:
    data = encoded()
    assert why(data[:29] + bytes(byte ^ 255 for byte in data[29:33]) + data[33:]) == "it is damaged or cut short"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("orientation", "dark"), [(1, (5, 20)), (3, (58, 20)), (6, (20, 5)), (8, (20, 58))])
def test_a_picture_is_turned_upright(form: str, orientation: int, dark: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = pixels(check_picture(encoded(form, exif=exif), "x").data)
    assert shown.getpixel(dark)[0] < 60  # pyright: ignore


def test_metadata_is_left_behind() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a secret prompt")
    data = check_picture(encoded(exif=exif, pnginfo=text, icc_profile=b"secret profile"), "x").data
    assert b"secret" not in data
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.info == {}


def test_transparent_parts_become_white() -> None:
    glass = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    palette = Image.new("P", (40, 40), 0)
    palette.info["transparency"] = 0
    for picture in (glass, Image.new("LA", (40, 40), (0, 0)), palette):
        assert pixels(check_picture(saved(picture), "x").data).getpixel((5, 5)) == (255, 255, 255)


def test_every_depth_of_colour_keeps_its_brightness() -> None:
    deep = Image.new("I;16", (40, 40), 32_896)
    for picture in (deep, Image.new("L", (40, 40), 128), Image.new("P", (40, 40), 128)):
        assert check_picture(saved(picture), "x").width == 40
    assert pixels(check_picture(saved(deep), "x").data).getpixel((5, 5)) == (128, 128, 128)
    ink = Image.new("CMYK", (40, 40), (0, 0, 0, 0))
    assert pixels(check_picture(saved(ink, "JPEG"), "x").data).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\pictures\\passwd", "pass\nwd\x1b", "passwd\u202e"])
def test_a_name_is_shown_as_a_plain_word(name: str) -> None:
    assert check_picture(encoded(), name).name == "passwd"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_a_damaged_picture_is_taken_or_refused_and_never_anything_else(form: str, data: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    damaged = bytearray(encoded(form, exif=exif))
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Invalid):
        assert check_picture(bytes(damaged), "x").width >= 32


def put(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(encoded(shade=number))


def test_a_folder_becomes_examples_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path, 12)
    dataset = read_folder(tmp_path, None, "zqx", "crab")
    assert [example.name for example in dataset.examples] == [f"{number:02}.png" for number in range(12)]
    assert {example.caption for example in dataset.examples} == {"zqx crab"}
    assert (dataset.left_out, dataset.notes) == ((), ())


def test_a_caption_is_the_files_own_then_the_option_then_the_trigger(tmp_path: Path) -> None:
    put(tmp_path, 5)
    (tmp_path / "00.txt").write_text("[trigger] on a beach\n", "utf-8")
    (tmp_path / "01.png.txt").write_text("\ufeffa red claw", "utf-8")
    (tmp_path / "02.txt").write_text("  \n", "utf-8")
    captions = [example.caption for example in read_folder(tmp_path, "a photo", "zqx", "crab").examples]
    assert captions == ["zqx crab on a beach", "zqx a red claw", "zqx a photo", "zqx a photo", "zqx a photo"]


@pytest.mark.parametrize(
    ("text", "word", "caption"),
    [
        ("", "crab", "zqx crab"),
        ("", "", "zqx"),
        ("[trigger] on teal", "", "zqx on teal"),
        ("[trigger], then [trigger]", "crab", "zqx crab, then zqx crab"),
        ("a ZQX crab", "crab", "a ZQX crab"),
        ("zqxy on teal", "crab", "zqx zqxy on teal"),
        ("a  crab\non teal", "crab", "zqx a crab on teal"),
    ],
)
def test_every_caption_has_the_trigger(text: str, word: str, caption: str) -> None:
    assert caption_with("zqx", word, text) == caption


def test_bad_and_repeated_files_are_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path, 10)
    (tmp_path / "03b.jpg").write_bytes(encoded("PNG", shade=3, compress_level=0))
    (tmp_path / "fake.png").write_text("hello", "utf-8")
    (tmp_path / "large.png").write_bytes(empty_png(20_000, 20_000))
    (tmp_path / "readme.txt").write_text("hello", "utf-8")
    (tmp_path / "04.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / ".hidden").write_text("hello", "utf-8")
    (tmp_path / "within").mkdir()
    dataset = read_folder(tmp_path, None, "zqx", "crab")
    assert len(dataset.examples) == 10
    assert dataset.left_out == (
        "03b.jpg: it is the same picture as 03.png",
        "fake.png: it is not a PNG, JPEG or WebP picture",
        "large.png: it has more than 16.8 megapixels",
        "readme.txt: there is no picture of that name",
        "04.txt: it is not text in UTF-8",
    )


def test_a_caption_of_a_terabyte_is_left_out_unread_and_an_odd_name_is_said_printably(tmp_path: Path) -> None:
    put(tmp_path, 10)
    (tmp_path / "04.txt").touch()
    os.truncate(tmp_path / "04.txt", 2**40)
    (tmp_path / "\x1b[2Jx.txt").write_text("hello", "utf-8")
    dataset = read_folder(tmp_path, None, "zqx", "crab")
    assert len(dataset.examples) == 10
    assert dataset.left_out == (
        "[2Jx.txt: there is no picture of that name",
        "04.txt: it is longer than 4,000 bytes",
    )


def test_fewer_than_four_good_pictures_are_refused_saying_how_many_more(tmp_path: Path) -> None:
    put(tmp_path, 3)
    (tmp_path / "fake.png").write_text("hello", "utf-8")
    with pytest.raises(TooFewPictures) as caught:
        read_folder(tmp_path, None, "zqx", "crab")
    assert str(caught.value) == "3 usable pictures: 1 more at least; 10 is better."
    assert "fake.png" in caught.value.hint


def test_a_folder_of_bad_files_names_only_some(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.png").write_text("hello", "utf-8")
    with pytest.raises(TooFewPictures) as caught:
        read_folder(tmp_path, None, "zqx", "crab")
    assert len(caught.value.left_out) == 11
    assert caught.value.left_out[-1] == "190 more"


@pytest.mark.parametrize(("count", "noted"), [(4, True), (9, True), (10, False), (30, False)])
def test_four_to_nine_pictures_are_taken_with_a_note(tmp_path: Path, count: int, noted: bool) -> None:
    put(tmp_path, count)
    assert bool(read_folder(tmp_path, None, "zqx", "").notes) == noted


def test_over_thirty_pictures_the_first_thirty_are_taken_and_it_is_said(tmp_path: Path) -> None:
    put(tmp_path, 34)
    dataset = read_folder(tmp_path, None, "zqx", "")
    assert [example.name for example in dataset.examples] == [f"{number:02}.png" for number in range(30)]
    assert dataset.notes == ("34 pictures were given; the first 30 usable ones by name are used.",)


def test_training_pictures_are_no_larger_than_training_needs() -> None:
    files = [(f"{n}.png", encoded(size=(1500, 1300), shade=n)) for n in range(4)]
    data = dataset_of(files, None, "zqx", "").examples[0].data
    assert min(pixels(data).size) == TRAINING_SIDE


def test_attachments_may_all_have_one_name() -> None:
    files = [("image.png", encoded(shade=number)) for number in range(4)]
    assert len(dataset_of(files, None, "zqx", "crab").examples) == 4


def test_attachments_bring_their_captions() -> None:
    files = [(f"{n}.png", encoded(shade=n)) for n in range(4)] + [("2.txt", b"[trigger] at night")]
    assert dataset_of(files, None, "zqx", "crab").examples[2].caption == "zqx crab at night"


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_folder_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(Invalid, match="there is no folder"):
        read_folder(tmp_path / name, None, "zqx", "")

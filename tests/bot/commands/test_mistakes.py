"""Every bad input of docs/bad-input.md that a command line can be given: code, sentence, nothing left behind."""

import errno
import hashlib
import json
import os
import re
import shlex
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import store as stores
from tests.bot.commands.conftest import Said, png
from tests.fakes.executor import FakeExecutor

Atelier = Callable[..., Said]
TABLE = (Path(__file__).parents[3] / "docs" / "bad-input.md").read_text().partition("## Command lines")[2]
ROWS = re.findall(r"^\| `(.+?)` \| (\d+) \| `(\w+)` \| (.+) \| (.+) \|$", TABLE, re.MULTILINE)
LAST_SEED = str(2**32 - 1)
TRAIN = ("--name", "n", "--kind", "subject", "--trigger", "zqx")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("draw",), "invalid", "prompt: it is empty."),
        (("draw", ""), "invalid", "prompt: it is empty."),
        (("draw", "  "), "invalid", "prompt: it is empty."),
        (("draw", "x" * 10_000), "invalid", "prompt: 10,000 characters are too many."),
        (("draw", "a mug", "--negative", "x" * 10_000), "invalid", "negative: 10,000 characters are too many."),
        (("draw", "a mug", "--lora", "corral:1"), "unknown_lora", "There is no LoRA named “corral”."),
        (("draw", "a mug <lora:nobody:1>"), "unknown_lora", "There is no LoRA named “nobody”."),
        (("draw", "a mug", "--lora", "mika:nan"), "invalid", "weight of mika: nan is out of range."),
        (("draw", "a mug", "--lora", "mika:inf"), "invalid", "weight of mika: inf is out of range."),
        (("draw", "a mug", "--lora", "mika:50"), "invalid", "weight of mika: 50 is out of range."),
        (("draw", "a mug <lora:mika:-50>"), "invalid", "weight of mika: -50 is out of range."),
        (("draw", "a mug", "--lora", "mika:heavy"), "invalid", "--lora: the weight in “mika:heavy” is not a number."),
        (("draw", "a mug <lora:mika:1:1>"), "invalid", "<lora:…>: the weight in “mika:1:1” is not a number."),
        (("draw", "a mug", "--lora", ":1"), "invalid", "--lora: “:1” names no LoRA."),
        (("draw", "a mug", "--lora", "mika:0.5,1"), "invalid", "--lora: mika has 2 weights."),
        (("draw", "<lora:mika:1>", "--lora", "mika:1"), "duplicate_lora", "A LoRA is named twice in one stack: mika."),
        (("draw", "a mug", "--size", "0"), "invalid", "size: 0x0 has no pixels."),
        (("draw", "a mug", "--size", "100000"), "invalid", "size: 100000x100000 is more than 4.2 megapixels."),
        (("draw", "a mug", "--size", "100x64"), "invalid", "size: 100x64 is not one that Paper draws"),
        (("draw", "a mug", "--size", "big"), "invalid", "--size: “big” is not a size such as 256x192, story or 16:9."),
        (("draw", "a mug", "--size", "16:0"), "invalid", "size: “16:0” is not a ratio of two sides."),
        (("draw", "a mug", "--upscale", "3"), "invalid", "--upscale: “3” is not 1, 2 or 4."),
        (("draw", "a mug", "-n", "5"), "invalid", "n: 5 is out of range."),
        (("draw", "a mug", "-n", "0"), "invalid", "n: 0 is out of range."),
        (("draw", "a mug", "--steps", "61"), "invalid", "steps: 61 is out of range."),
        (("draw", "a mug", "--steps", "many"), "invalid", "--steps: “many” is not a whole number."),
        (("draw", "a mug", "--seed", "-1"), "invalid", "seed: -1 is out of range."),
        (("draw", "a mug", "--seed", str(2**32)), "invalid", "seed: 4"),
        (("draw", "a mug", "--guidance", "nan"), "invalid", "guidance: nan is out of range."),
        (("draw", "a mug", "--sampler", "magic"), "invalid", "sampler: there is none named “magic”"),
        (("draw", "a mug", "--base", "papier"), "unknown_base", "There is no base model named “papier”."),
        (("draw", "a mug", "--strength", "0.5"), "invalid", "--strength: there is no picture that it belongs to."),
        (("draw", "a mug", "--image", "gone.png"), "invalid", "gone.png: there is no such file."),
        (("draw", "a mug", "--image", "."), "invalid", ".: it is a folder."),
        (("draw", "--again", "gone.png"), "invalid", "gone.png: there is no such file."),
        (("draw", "a mug", "--speed", "9"), "invalid", "--speed: “9” is none of fast, best"),
        (("edit", "gone.png"), "invalid", "command line: the following arguments are required: PROMPT."),
        (("grid", "a fox"), "invalid", "--lora: a grid needs a LoRA with its weights."),
        (("grid", "a fox", "--lora", "mika:0.5,50"), "invalid", "weight of mika: 50 is out of range."),
        (("grid", "a fox", "--lora", "mika:1", "--seeds", "0"), "invalid", "--seeds: 0 is out of range."),
        (("train", "nowhere", *TRAIN), "invalid", "pictures: there is no folder nowhere."),
        (("train", ".", *TRAIN, "--rank", "65"), "too_few_pictures", "0 usable pictures"),
        (("train", ".", "--name", "../x", *TRAIN[2:]), "invalid", "name: “../x” is not a name that a folder can have."),
        (("train", ".", *TRAIN[:-1], " "), "invalid", "--trigger: it is empty."),
        (("train", ".", "--name", "n"), "invalid", "command line: the following arguments are required: --kind"),
        (("loras", "show"), "invalid", "loras show: which one is not said."),
        (("loras", "show", "micka"), "unknown_lora", "There is no LoRA named “micka”."),
        (("loras", "list", "mika"), "invalid", "loras list: it takes no name (“mika”)."),
        (("draw", "a mug \udcff"), "invalid", "prompt: it is not text in UTF-8."),
        (("draw", "a mug", "--negative", "\udcff"), "invalid", "negative: it is not text in UTF-8."),
        (("draw", "a mug", "--lora", "\udcff:1"), "unknown_lora", "There is no LoRA named “"),
        (("draw", "a mug", "--steps", "1" * 400), "invalid", "steps: a number of 400 digits is out of range."),
        (("draw", "a mug", "--steps", "1" * 5_000), "invalid", f"--steps: “{'1' * 60}…” is not a whole number."),
        (("draw", "a mug", "--seed", "1" * 400), "invalid", "seed: a number of 400 digits is out of range."),
        (("draw", "a mug", "-n", "1" * 400), "invalid", "n: a number of 400 digits is out of range."),
        (("grid", "a", "--lora", "mika", "--seeds", "1" * 400), "invalid", "--seeds: a number of 400 digits is out"),
        (("draw", "a mug", "--seed", LAST_SEED, "-n", "2"), "invalid", "seed: 4294967295 is out of range."),
        (("grid", "a", "--lora", "mika", "--seed", LAST_SEED), "invalid", "seed: 4294967295 is out of range."),
        (("draw", "a mug", "--out", ""), "invalid", "--out: it is empty."),
        (("draw", "a mug", "--out", "x" * 300), "invalid", "it cannot be written to."),
        (("draw", "a mug", "--out", "/proc/x"), "invalid", "folder /proc/x: it cannot be written to."),
        (("grid", "a", "--lora", "mika", "--out", "."), "invalid", ".: it is a folder."),
        (("grid", "a", "--lora", "mika", "--out", ".."), "invalid", "..: it is a folder."),
        (("grid", "a", "--lora", "mika", "--out", "x" * 300), "invalid", "it cannot be written to."),
        (("grid", "a", "--lora", "mika", "--out", "/proc/x/y.png"), "invalid", "folder /proc/x: it cannot be written"),
        (("draw", "a mug", "--image", "/dev/zero"), "invalid", "/dev/zero: it is not an ordinary file."),
        (("train", "x" * 300, *TRAIN), "invalid", f"pictures: there is no folder {'x' * 300}."),
        (("loras", "--home", "~nosuchuser/x"), "invalid", "home: there is no user as in ~nosuchuser/x."),
        (("loras", "--home", "x" * 300), "invalid", "it cannot be read ("),
        (("doctor", "--home", "x" * 300), "invalid", "it cannot be read ("),
        (("paint",), "invalid", "COMMAND: invalid choice: 'paint'"),
        ((), "invalid", "command line: the following arguments are required: COMMAND."),
    ],
)
def test_a_mistake_is_said_with_code_2(
    atelier: Atelier, executors: list[FakeExecutor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], code: str, sentence: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    plain = atelier(*words)
    assert (plain.code, plain.out) == (2, "")
    assert sentence in plain.err
    as_json = atelier("--json", *words)
    assert (as_json.code, set(as_json.json), as_json.error["code"]) == (2, {"error"}, code)
    assert set(as_json.error) == {"code", "message", "hint"}
    assert sentence in as_json.error["message"]
    assert as_json.error["hint"]
    assert all(not executor.plans for executor in executors)
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("row", ROWS)
def test_the_table_of_command_lines_says_what_is_said(
    atelier: Atelier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: tuple[str, ...]
) -> None:
    command, code, name, sentence, hint = row
    monkeypatch.chdir(tmp_path)
    said = atelier("--json", *shlex.split(command))
    assert (str(said.code), said.error) == (code, {"code": name, "message": sentence, "hint": hint})
    assert atelier(*shlex.split(command)).err == f"atelier: {sentence} {hint}\n"


def test_near_names_are_offered(atelier: Atelier) -> None:
    assert atelier("draw", "a mug", "--lora", "corral:1", "--json").error["hint"] == "Did you mean coral?"


def test_the_nearest_size_is_named(atelier: Atelier) -> None:
    said = atelier("draw", "a mug", "--size", "100x900", "--json")
    assert said.error["hint"] == "The nearest is 96x256."


def test_nine_loras_are_too_many(atelier: Atelier) -> None:
    said = atelier("draw", "a mug", *(word for k in range(9) for word in ("--lora", f"mika:{k / 10}")), "--json")
    assert said.code == 2


def test_a_text_file_named_png_is_refused(atelier: Atelier, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("these are words")
    said = atelier("edit", tmp_path / "words.png", "a mug", "--json")
    assert (said.code, said.error["code"]) == (2, "invalid")
    assert said.error["message"].startswith("words.png: ")


def test_a_huge_png_of_few_bytes_is_refused_from_its_header(atelier: Atelier, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(huge_png(20_000))
    said = atelier("edit", tmp_path / "bomb.png", "a mug", "--json")
    assert (said.code, said.error["code"]) == (2, "invalid")
    assert said.error["message"] == "bomb.png: it has more than 16.8 megapixels."


@pytest.mark.parametrize("words", [("draw", "a mug", "--image"), ("grid", "a fox", "--lora", "mika", "--out")])
def test_a_named_pipe_is_no_picture_and_no_place_for_one(
    atelier: Atelier, tmp_path: Path, words: tuple[str, ...]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    said = atelier(*words, tmp_path / "pipe.png", "--json")
    assert (said.code, said.error["message"]) == (2, f"{tmp_path / 'pipe.png'}: it is not an ordinary file.")
    assert (tmp_path / "pipe.png").is_fifo()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (lambda: huge_png(10_000), "a.png: it has more than 16.8 megapixels."),
        (lambda: png_with(b"iCCP", b""), "a.png: it is damaged or cut short."),
        (lambda: forged(steps=10**400), "steps: a number of 401 digits is out of range."),
        (lambda: forged(seed=-(10**400)), "seed: a number of 401 digits is out of range."),
        (lambda: forged(width=10**400), "size: a number of 401 digitsx64 is more than 4.2 megapixels."),
        (lambda: forged(prompt=""), "prompt: it is empty."),
        (lambda: forged(sampler="\x1b[2Jmagic"), "sampler: there is none named “�[2Jmagic”."),
    ],
    ids=["huge", "broken profile", "steps", "seed", "width", "prompt", "escape"],
)
def test_a_forged_picture_is_refused_with_a_sentence_that_a_terminal_can_show(
    atelier: Atelier, home: Path, tmp_path: Path, data: Callable[[], bytes], sentence: str
) -> None:
    (tmp_path / "a.png").write_bytes(data())
    said = atelier("draw", "--again", tmp_path / "a.png")
    assert (said.code, sentence in said.err, "\x1b" in said.err) == (2, True, False), said.err


def test_an_error_can_be_said_in_ascii(home: Path) -> None:
    for words in (["--json"], []):
        done = subprocess.run(
            [sys.executable, "-m", "bot", "draw", "a mug", "--lora", "corrål:1", *words], capture_output=True,
            check=False, env={**os.environ, "ATELIER_HOME": str(home), "PYTHONIOENCODING": "ascii:strict"},
        )  # fmt: skip
        assert (done.returncode, b"Traceback" in done.stderr) == (2, False)
        assert b"unknown_lora" in done.stdout if words else b"There is no LoRA named" in done.stderr


def test_a_mask_of_another_size_is_refused(atelier: Atelier, pictures: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (50, 50)).save(tmp_path / "mask.png")
    said = atelier("edit", pictures / "00.png", "a mug", "--mask", tmp_path / "mask.png", "--json")
    assert (said.code, said.error["message"]) == (2, "--mask: it is 50x50 and the picture is 64x64.")


def test_a_full_disk_means_try_later_and_leaves_no_half_a_picture(
    atelier: Atelier, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(stores, "write_whole", full)
        said = atelier("draw", "a mug", "--json")
    assert (said.code, said.error["code"]) == (3, "disk_full")
    assert not list((home / "pictures").rglob("*.png"))
    assert atelier("draw", "a mug").code == 0


def test_ctrl_c_in_a_drawing_ends_with_130(atelier: Atelier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeExecutor, "interrupted", True)
    said = atelier("draw", "a mug", "--json")
    assert (said.code, said.error["code"]) == (130, "cancelled")


def forged(**fields: object) -> bytes:
    """A picture whose recipe says what it likes."""
    recipe: dict[str, object] = {
        "atelier": "0.1.0", "prompt": "a mug", "negative": "", "base": "paper",
        "base_sha256": hashlib.sha256().hexdigest(), "family": "sd", "steps": 3, "guidance": 4.0, "sampler": "dpm++",
        "seed": 1, "width": 64, "height": 64, "loras": [], "image": None, "mask": None, "strength": None,
        "licences": {}, "commercial": False, "made_with": {},
    }  # fmt: skip
    return png_with(b"tEXt", b"atelier\0" + json.dumps(recipe | fields).encode())


def png_with(name: bytes, data: bytes) -> bytes:
    """A small PNG with one more chunk, after its header."""
    whole = png(64, 1)
    more = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return whole[:33] + more + whole[33:]


def huge_png(side: int) -> bytes:
    """A valid PNG of side × side pixels of one grey, 1 bit each: few bytes that would be many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(b"\0" * ((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

"""engine/store.py: pictures get names of their own, inputs are found by content, a full disk keeps nothing."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

import engine.files
from engine.errors import DiskFull, Invalid
from engine.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_picture_lies_under_todays_folder(store: Store) -> None:
    path = store.save_picture(b"png", None, "a fox, on teal!")
    assert path.read_bytes() == b"png"
    assert path.name == "a-fox-on-teal.png"
    assert path.parent.parent == store.home / "pictures"
    assert len(path.parent.name) == len("2025-01-31")


def test_pictures_of_one_stem_never_overwrite_each_other(store: Store, tmp_path: Path) -> None:
    paths = [store.save_picture(str(n).encode(), tmp_path / "out", "fox") for n in range(3)]
    assert [path.name for path in paths] == ["fox.png", "fox-2.png", "fox-3.png"]
    assert [path.read_bytes() for path in paths] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("stem", ["", "../../etc/passwd", "/", "...", "a" * 500, "狐" * 500, "a\nb\0c", "-rf"])
def test_any_stem_becomes_a_file_name_within_the_folder(store: Store, tmp_path: Path, stem: str) -> None:
    path = store.save_picture(b"png", tmp_path / "out", stem)
    assert path.parent == tmp_path / "out"
    assert path.is_file()
    assert not path.name.startswith((".", "-"))


def test_an_input_is_given_back_by_its_content(store: Store) -> None:
    sha256 = store.save_input(b"picture")
    assert sha256 == store.save_input(b"picture") == hashlib.sha256(b"picture").hexdigest()
    assert store.input(sha256) == b"picture"
    assert len(files(store.home)) == 1


@pytest.mark.parametrize("sha256", ["0" * 64, "../../secret", ""])
def test_an_input_that_is_not_kept_is_named(store: Store, sha256: str) -> None:
    with pytest.raises(Invalid) as caught:
        store.input(sha256)
    assert sha256[:12] in str(caught.value)


def test_an_input_that_was_changed_on_disk_is_not_given_back(store: Store) -> None:
    sha256 = store.save_input(b"picture")
    (store.home / "inputs" / sha256).write_bytes(b"other")
    with pytest.raises(Invalid):
        store.input(sha256)


def test_a_full_disk_keeps_nothing_and_names_the_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(engine.files.os, "fsync", full)
    with pytest.raises(DiskFull) as caught:
        store.save_picture(b"png", None, "fox")
    assert str(store.home) in caught.value.folder
    with pytest.raises(DiskFull):
        store.save_input(b"png")
    assert files(store.home) == []
    monkeypatch.undo()
    assert store.save_picture(b"png", None, "fox").name == "fox.png"


def test_a_picture_that_cannot_be_put_in_place_frees_its_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFull):
        store.save_picture(b"png", None, "fox")
    assert files(store.home) == []


def test_a_home_that_cannot_be_written_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be", "utf-8")
    for save in (
        lambda store: store.save_input(b"x"),
        lambda store: store.save_picture(b"x", None, "fox"),
    ):
        with pytest.raises(Invalid, match="cannot be written") as caught:
            save(Store(tmp_path / "home"))
        assert "--home" in caught.value.hint


def test_nothing_is_made_before_it_is_needed(store: Store) -> None:
    with pytest.raises(Invalid):
        store.input("0" * 64)
    assert not store.home.exists()


def test_drafts_and_empty_names_of_a_killed_process_are_swept_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = store.save_picture(b"png", None, "fox")
    input_ = store.save_input(b"input")
    old, young = kept.with_name(".0123456789ab.part"), kept.with_name(".0123456789ac.part")
    empty = kept.with_name("empty.png")
    for file in (old, young, empty):
        file.touch()
    for file in (old, empty, kept):
        os.utime(file, (0, 0))
    store.sweep()
    assert not old.exists()
    assert not empty.exists()
    assert young.exists()
    assert kept.read_bytes() == b"png"
    assert store.input(input_) == b"input"

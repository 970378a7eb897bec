"""engine/catalog.py: what is in the folders is what there is, and a LoRA comes in whole or not at all."""

import errno
import io
import os
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from PIL import Image

import engine.catalog
from engine.catalog import Catalog, LoraCard
from engine.errors import (
    BadLoraFile,
    ChangedLora,
    DiskFull,
    Invalid,
    NameTaken,
    ShippedName,
    UnknownLora,
    UnlikeItsCard,
)
from engine.jobs import Trained
from engine.plans import Example, LoraRef, TrainPlan

FACTS = {"family": "sd", "alpha": 16.0, "final_loss": 0.125, "seconds": 201.5, "word": "crab"}


def picture(shade: int = 0, size: tuple[int, int] = (32, 40)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (shade, 10, 200)).save(out, "PNG")
    return out.getvalue()


PLAN = TrainPlan(
    name="zoe-crab",
    kind="character",
    trigger="zqx",
    word="crab",
    base="pocket",
    examples=tuple(Example(f"{n}.png", picture(n), f"zqx crab {n}") for n in range(4)),
    seed=7,
    steps=240,
)
TRAINED = Trained(weights=b"new weights", preview=picture(), facts=FACTS)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """One shipped LoRA, “terracotta”, and nothing of one's own."""
    maker = Catalog(tmp_path / "none", tmp_path / "shipped")
    facts = {**FACTS, "aliases": ["our brand"], "licence": "Apache-2.0", "commercial": True, "weight": 0.7}
    maker.add(replace(PLAN, name="terracotta", kind="style"), Trained(b"shipped weights", picture(), facts))
    return Catalog(tmp_path / "shipped", tmp_path / "own")


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_trained_lora_is_in_the_catalog_with_what_its_plan_and_trainer_say(catalog: Catalog) -> None:
    added = catalog.add(PLAN, TRAINED)
    card = catalog.get("zoe-crab")
    assert card == added
    assert (card.trigger, card.word, card.kind, card.base, card.family) == ("zqx", "crab", "character", "pocket", "sd")
    assert (card.rank, card.alpha, card.steps, card.seed, card.prior) == (16, 16.0, 240, 7, "base")
    assert (card.pictures, card.final_loss, card.seconds, card.shipped) == (4, 0.125, 201.5, False)
    assert card.created
    assert [card.name for card in catalog.list()] == ["terracotta", "zoe-crab"]


def test_a_lora_folder_holds_card_weights_preview_and_small_pictures_with_captions(catalog: Catalog) -> None:
    large = replace(PLAN.examples[0], data=picture(size=(640, 800)))
    folder = catalog.add(replace(PLAN, examples=(large, *PLAN.examples[1:])), TRAINED).folder
    pictures = [f"pictures/{n:02}.{kind}" for n in range(1, 5) for kind in ("png", "txt")]
    assert entries(folder) == sorted(["lora.toml", "weights.safetensors", "preview.png", *pictures])
    with Image.open(folder / "pictures" / "01.png") as small:
        assert small.size == (410, 512)
    assert (folder / "pictures" / "03.txt").read_text("utf-8") == "zqx crab 2"
    assert tomllib.loads((folder / "lora.toml").read_text("utf-8"))["trigger"] == "zqx"


def test_a_style_begins_at_a_lower_strength_than_a_subject(catalog: Catalog) -> None:
    kinds = ("subject", "style", "quality")
    cards = [catalog.add(replace(PLAN, name=kind, kind=kind), TRAINED) for kind in kinds]
    assert [card.weight for card in cards] == [1.0, 0.8, 0.5]
    assert catalog.ref("terracotta").weight == 0.7


@pytest.mark.parametrize("said", ["terracotta", "TERRACOTTA ", "Our Brand", "our-brand", "our_brand"])
def test_a_lora_is_found_by_name_and_alias_in_any_case(catalog: Catalog, said: str) -> None:
    assert catalog.get(said).name == "terracotta"


def test_a_name_comes_before_the_same_word_as_an_alias(catalog: Catalog) -> None:
    catalog.add(replace(PLAN, name="our-brand"), TRAINED)
    assert catalog.get("our brand").name == "our-brand"


@pytest.mark.parametrize(
    ("said", "near"),
    [
        ("teracota", ("terracotta",)),
        ("terra", ("terracotta",)),
        ("terracotta2", ("terracotta",)),
        ("our brnad", ("terracotta",)),
        ("zeppelin", ()),
        ("", ()),
    ],
)
def test_an_unknown_lora_offers_near_names(catalog: Catalog, said: str, near: tuple[str, ...]) -> None:
    with pytest.raises(UnknownLora) as caught:
        catalog.get(said)
    assert caught.value.near == near


def test_weights_are_those_that_the_reference_pins(catalog: Catalog) -> None:
    ref = catalog.ref("terracotta", -0.5)
    assert (ref.weight, ref.role) == (-0.5, "style")
    assert catalog.weights(ref) == b"shipped weights"


def test_a_changed_file_is_refused_with_both_hashes(catalog: Catalog) -> None:
    ref = catalog.ref("terracotta")
    with pytest.raises(ChangedLora, match="has changed since") as caught:
        catalog.weights(replace(ref, sha256="0" * 64))
    assert (caught.value.wanted, caught.value.found) == ("0" * 64, ref.sha256)


def test_a_file_that_is_not_the_one_on_its_card_is_said_to_be_that(catalog: Catalog) -> None:
    ref = catalog.ref("terracotta")
    (catalog.get("terracotta").folder / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(UnlikeItsCard, match="is not as its card says") as caught:
        catalog.weights(ref)
    assert caught.value.wanted == ref.sha256
    assert caught.value.found != ref.sha256


def test_weights_too_large_for_a_lora_are_refused_unread(catalog: Catalog) -> None:
    ref = catalog.ref("terracotta")
    os.truncate(catalog.get("terracotta").folder / "weights.safetensors", 2**40)
    with pytest.raises(BadLoraFile, match="larger than 1,000,000,000 bytes"):
        catalog.weights(ref)


def test_a_missing_file_is_an_unknown_lora(catalog: Catalog) -> None:
    ref = catalog.ref("terracotta")
    (catalog.get("terracotta").folder / "weights.safetensors").unlink()
    with pytest.raises(UnknownLora):
        catalog.weights(ref)
    with pytest.raises(UnknownLora):
        catalog.weights(LoraRef("nobody", "0" * 64))


@pytest.mark.parametrize("name", ["", "A", "-a", "../a", "a/b", "a b", "ä", "a" * 65, ".staging", "a.b", "a\n"])
def test_a_name_that_no_folder_should_have_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(Invalid):
        catalog.add(replace(PLAN, name=name), TRAINED)


def test_a_taken_name_is_refused_and_the_lora_of_that_name_stays(catalog: Catalog) -> None:
    catalog.add(PLAN, TRAINED)
    with pytest.raises(NameTaken):
        catalog.check_name("zoe-crab")
    with pytest.raises(NameTaken):
        catalog.add(PLAN, replace(TRAINED, weights=b"second"))
    assert catalog.weights(catalog.ref("zoe-crab")) == b"new weights"


def test_a_link_that_leads_nowhere_has_its_name(catalog: Catalog) -> None:
    catalog.own.mkdir()
    (catalog.own / "zoe-crab").symlink_to("nowhere")
    with pytest.raises(NameTaken):
        catalog.check_name("zoe-crab")
    assert catalog.add(replace(PLAN, replace=True), TRAINED) == catalog.get("zoe-crab")


def test_replace_puts_the_new_one_in_its_place_and_leaves_nothing_aside(catalog: Catalog) -> None:
    catalog.add(PLAN, TRAINED)
    catalog.add(replace(PLAN, replace=True), replace(TRAINED, weights=b"second"))
    assert catalog.weights(catalog.ref("zoe-crab")) == b"second"
    assert entries(catalog.own / ".staging") == []


def test_a_shipped_lora_is_never_replaced(catalog: Catalog) -> None:
    for is_replacing in (False, True):
        with pytest.raises(ShippedName) as caught:
            catalog.add(replace(PLAN, name="terracotta", replace=is_replacing), TRAINED)
        assert "--replace" not in caught.value.hint


@pytest.mark.parametrize("is_replacing", [False, True])
@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, DiskFull), (errno.EROFS, Invalid), (errno.EIO, OSError)])
def test_a_disk_that_fails_anywhere_leaves_the_catalog_as_it_was(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, is_replacing: bool, code: int, error: type[Exception]
) -> None:
    if is_replacing:
        catalog.add(PLAN, TRAINED)
    before = entries(catalog.own)
    plan = replace(PLAN, replace=is_replacing)
    left = 0

    def failing(path: Path, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(code, os.strerror(code))
        path.write_bytes(data)

    monkeypatch.setattr(engine.catalog, "write_synced", failing)
    for whole_files in range(11):
        left = whole_files
        with pytest.raises(error):
            catalog.add(plan, replace(TRAINED, weights=b"second"))
        assert entries(catalog.own) == before


@pytest.mark.parametrize("is_replacing", [False, True])
def test_a_last_step_that_fails_leaves_the_catalog_as_it_was(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, is_replacing: bool
) -> None:
    if is_replacing:
        catalog.add(PLAN, TRAINED)
    before = entries(catalog.own)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target.name == PLAN.name and self.suffix != ".old":
            raise OSError(errno.ENOSPC, "full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DiskFull):
        catalog.add(replace(PLAN, replace=is_replacing), replace(TRAINED, weights=b"second"))
    assert entries(catalog.own) == before


def test_a_name_taken_while_the_folder_was_filled_is_refused(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    fill = engine.catalog._fill  # pyright: ignore[reportPrivateUsage]

    def slow(folder: Path, card: LoraCard, files: Mapping[str, bytes]) -> None:
        fill(folder, card, files)
        shutil.copytree(folder, catalog.own / card.name)

    monkeypatch.setattr(engine.catalog, "_fill", slow)
    with pytest.raises(NameTaken):
        catalog.add(PLAN, TRAINED)
    assert catalog.get("zoe-crab").pictures == 4


def test_stopping_in_the_middle_of_an_add_keeps_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.catalog, "sync_folder", stopped)
    with pytest.raises(KeyboardInterrupt):
        catalog.add(PLAN, TRAINED)
    assert entries(catalog.own) == []
    assert [card.name for card in catalog.list()] == ["terracotta"]


@pytest.mark.parametrize(
    "text",
    [None, "title = ", "title = 3", "\0", 'trigger = "x"\nkind = "song"', "a=" + "[" * 20_000, "#" * 64_001],
    ids=["missing", "half", "wrong", "binary", "kind", "deep", "long"],
)
def test_a_broken_folder_is_left_out_with_one_warning(
    catalog: Catalog, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    folder = catalog.own / "broken"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"x")
    if text is not None:
        (folder / "lora.toml").write_text(text, "utf-8")
    for _ in range(3):
        assert [card.name for card in catalog.list()] == ["terracotta"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(folder) in caplog.text
    assert len(caplog.messages[0].splitlines()) == 1


@pytest.mark.parametrize("kind", ["pipe", "device", "link to itself"])
def test_a_manifest_that_is_no_ordinary_file_is_left_out_and_never_waited_for(catalog: Catalog, kind: str) -> None:
    manifest = catalog.add(PLAN, TRAINED).folder / "lora.toml"
    manifest.unlink()
    if kind == "pipe":
        os.mkfifo(manifest)
    else:
        manifest.symlink_to("/dev/zero" if kind == "device" else manifest)
    assert [card.name for card in catalog.list()] == ["terracotta"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "a\x1b[2J"),
        ("summary", "one\ntwo"),
        ("trigger", "\u202ezqx"),
        ("trigger", "z" * 65),
        ("aliases", ["\x07"]),
        ("weight", float("nan")),
        ("weight", 50.0),
        ("alpha", float("inf")),
    ],
)
def test_a_card_says_single_printable_lines_and_numbers_that_can_be_drawn_with(
    catalog: Catalog, field: str, value: object
) -> None:
    manifest = catalog.add(PLAN, TRAINED).folder / "lora.toml"
    manifest.write_text(tomli_w.dumps({**tomllib.loads(manifest.read_text("utf-8")), field: value}), "utf-8")
    assert [card.name for card in catalog.list()] == ["terracotta"]


def test_a_mended_folder_is_seen_at_once(catalog: Catalog) -> None:
    folder = catalog.add(PLAN, TRAINED).folder
    good = (folder / "lora.toml").read_text("utf-8")
    (folder / "lora.toml").write_text("broken", "utf-8")
    assert len(catalog.list()) == 1
    (folder / "lora.toml").write_text(good.replace('"zqx"', '"abc"'), "utf-8")
    assert catalog.get("zoe-crab").trigger == "abc"
    (folder / "weights.safetensors").unlink()
    assert len(catalog.list()) == 1


def test_an_own_folder_with_a_shipped_name_is_hidden_by_it(catalog: Catalog) -> None:
    shutil.copytree(catalog.get("terracotta").folder, catalog.own / "terracotta")
    assert [card.shipped for card in catalog.list()] == [True]


def test_reading_a_catalog_makes_no_folders(tmp_path: Path) -> None:
    assert Catalog(tmp_path / "a", tmp_path / "b").list() == ()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_a_lora_that_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "none", tmp_path / "loras")
    staging = tmp_path / "loras" / ".staging"
    for name in ("pip-0123abcd", "otto-0123abcd.old", "new-0123abcd"):
        (staging / name).mkdir(parents=True)
        (staging / name / "lora.toml").write_text(name)
    for name in ("pip-0123abcd", "otto-0123abcd.old"):
        os.utime(staging / name, (0, 0))
    catalog.sweep()
    assert [left.name for left in staging.iterdir()] == ["new-0123abcd"]
    assert (tmp_path / "loras" / "otto" / "lora.toml").read_text() == "otto-0123abcd.old"

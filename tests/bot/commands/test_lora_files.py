"""loras inspect, import, export, merge: what they say, what they write, and what they refuse."""

import hashlib
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.bot.commands.conftest import Said, png

Atelier = Callable[..., Said]
KEY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
META = {"ss_output_name": "Neon", "modelspec.license": "MIT", "ss_dataset_dirs": '{"10_my aunt": {}}', "ss_v2": "False"}


def a_file(rank: int = 4, alpha: float = 2.0, metadata: dict[str, str] = META) -> bytes:
    rng = np.random.default_rng(rank)
    tensors = {
        f"{KEY}.lora_down.weight": rng.normal(size=(rank, 16)).astype("f2"),
        f"{KEY}.lora_up.weight": rng.normal(size=(8, rank)).astype("f2"),
        f"{KEY}.alpha": np.array(alpha, "f4"),
    }
    return save(tensors, metadata)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A downloaded LoRA with all that AUTOMATIC1111 keeps beside it."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "neon v2.safetensors").write_bytes(a_file())
    (folder / "neon v2.json").write_text(json.dumps({"activation text": "nnx", "preferred weight": 0.9}))
    (folder / "neon v2.preview.png").write_bytes(png(64, 1))
    return folder


def test_a_file_is_inspected_and_nothing_taken_in(atelier: Atelier, folder: Path, home: Path) -> None:
    said = atelier("loras", "inspect", folder / "neon v2.safetensors", "--json")
    facts = said.json
    assert said.code == 0
    assert (facts["dialect"], facts["rank"], facts["alpha"], facts["layers"]) == ("kohya", [4], [2.0], 1)
    assert (facts["trigger"], facts["weight"], facts["licence"], facts["title"]) == ("nnx", 0.9, "MIT", "Neon")
    assert facts["sha256"] == hashlib.sha256((folder / "neon v2.safetensors").read_bytes()).hexdigest()
    assert facts["metadata"] == {"ss_output_name": "Neon", "modelspec.license": "MIT", "ss_v2": "False"}
    assert facts["fits"]
    assert not (home / "loras").exists()
    lines = atelier("loras", "inspect", folder / "neon v2.safetensors").out
    assert "trigger     nnx" in lines
    assert "aunt" not in lines


def test_an_import_reads_what_lies_beside_the_file(atelier: Atelier, folder: Path, home: Path) -> None:
    said = atelier("loras", "import", folder / "neon v2.safetensors", "--kind", "style", "--json")
    assert (said.code, said.json["name"], said.json["trigger"], said.json["notes"]) == (0, "neon", "nnx", [])
    assert (home / "loras" / "neon" / "preview.png").is_file()
    assert (home / "loras" / "neon" / "weights.safetensors").read_bytes() == (
        folder / "neon v2.safetensors"
    ).read_bytes()
    drawn = atelier("draw", "a mug", "--lora", "neon:0.5", "--json")
    assert drawn.code == 0


def test_what_nobody_said_is_told(atelier: Atelier, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(a_file(metadata={}))
    notes = " ".join(atelier("loras", "import", tmp_path / "x.safetensors", "--json").json["notes"])
    assert all(word in notes for word in ("--trigger", "--kind", "licence"))


def test_links_beside_a_file_are_not_followed(atelier: Atelier, folder: Path, home: Path) -> None:
    secret = folder.parent / "secret.json"
    secret.write_text(json.dumps({"activation text": "secret", "description": "secret"}))
    for name, target in (("neon v2.json", secret), ("neon v2.preview.png", folder.parent / "a.png")):
        (folder / name).unlink()
        (folder / name).symlink_to(target)
    (folder.parent / "a.png").write_bytes(png(64, 2))
    os.mkfifo(folder / "neon v2.png")
    assert atelier("loras", "import", folder / "neon v2.safetensors").code == 0
    assert not (home / "loras" / "neon" / "preview.png").exists()
    assert "secret" not in (home / "loras" / "neon" / "lora.toml").read_text()


def test_export_and_import_are_a_round_trip(atelier: Atelier, folder: Path, home: Path) -> None:
    atelier("loras", "import", folder / "neon v2.safetensors", "--kind", "style")
    for dialect in ("kohya", "diffusers"):
        out = folder / f"{dialect}.safetensors"
        said = atelier("loras", "export", "neon", "--format", dialect, "--out", out, "--json")
        assert (said.code, said.json["format"], said.json["size"]) == (0, dialect, out.stat().st_size)
        assert json.loads(out.with_suffix(".json").read_text())["activation text"] == "nnx"
        again = atelier("loras", "import", out, "--name", dialect, "--json").json
        assert (again["trigger"], again["kind"], again["rank"]) == ("nnx", "style", 4)
        atelier("loras", "export", dialect, "--out", folder / f"{dialect}-back.safetensors")
        back = load((folder / f"{dialect}-back.safetensors").read_bytes())
        assert {k: v.tobytes() for k, v in back.items()} == {k: v.tobytes() for k, v in load(a_file()).items()}
    assert "aunt" in (folder / "kohya.safetensors").read_bytes().decode("latin1")
    scrubbed = folder / "scrubbed.safetensors"
    assert atelier("loras", "export", "neon", "--out", scrubbed, "--scrub", "--json").json["scrubbed"] is True
    assert "aunt" not in scrubbed.read_bytes().decode("latin1")


def test_an_export_says_which_programs_read_its_strength(atelier: Atelier, folder: Path) -> None:
    atelier("loras", "import", folder / "neon v2.safetensors")
    said = atelier("loras", "export", "neon", "--format", "diffusers", "--out", folder / "d.safetensors", "--json")
    assert "lora_adapter_metadata" in said.json["notes"][0]
    assert atelier("loras", "export", "neon", "--out", folder / "k.safetensors", "--json").json["notes"] == []


def test_an_export_writes_over_nothing_unless_told(atelier: Atelier, folder: Path) -> None:
    atelier("loras", "import", folder / "neon v2.safetensors")
    (folder / "out.json").write_text("mine")
    said = atelier("loras", "export", "neon", "--out", folder / "out.safetensors", "--json")
    assert (said.code, said.error["code"]) == (2, "invalid")
    assert (folder / "out.json").read_text() == "mine"
    assert not (folder / "out.safetensors").exists()
    assert atelier("loras", "export", "neon", "--out", folder / "out.safetensors", "--replace").code == 0
    assert atelier("loras", "export", "neon", "--out", folder / "out.txt", "--json").error["code"] == "invalid"
    assert atelier("loras", "export", "nobody", "--out", folder / "z.safetensors", "--json").error["code"] == (
        "unknown_lora"
    )


def test_a_stack_is_merged_and_its_limits_are_said(atelier: Atelier, folder: Path, home: Path) -> None:
    for name, rank in (("a", 4), ("b", 6), ("c", 1020)):
        (folder / f"{name}.safetensors").write_bytes(a_file(rank, metadata={}))
        atelier("loras", "import", folder / f"{name}.safetensors", "--trigger", f"{name}x")
    said = atelier("loras", "merge", "a:0.8", "b:-1", "--name", "ab", "--json")
    assert (said.code, said.json["rank"], said.json["trigger"]) == (0, 10, "ax bx")
    before = (home / "loras" / "ab" / "lora.toml").read_text()
    assert atelier("loras", "merge", "a", "b", "--name", "ab", "--json").error["code"] == "name_taken"
    assert (home / "loras" / "ab" / "lora.toml").read_text() == before
    assert atelier("loras", "merge", "a", "b", "--name", "ab", "--replace", "--json").code == 0
    assert "1024 is the most" in atelier("loras", "merge", "a", "b", "c", "--name", "abc", "--json").error["message"]
    assert atelier("loras", "merge", "a", "a", "--name", "aa", "--json").error["code"] == "duplicate_lora"
    assert atelier("loras", "merge", "a:1,2", "b", "--name", "x", "--json").error["code"] == "invalid"
    assert atelier("loras", "merge", "coral", "mika", "--name", "x", "--json").error["code"] == "bad_lora_file"
    assert sorted(path.name for path in (home / "loras").glob("[!.]*")) == ["a", "ab", "b", "c"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("import", "nowhere.safetensors"), "invalid"),
        (("import", "."), "invalid"),
        (("import", "{folder}/neon v2.json"), "bad_lora_file"),
        (("import", "{file}", "--name", "../x"), "invalid"),
        (("import", "{file}", "--name", "coral"), "shipped_name"),
        (("import", "{file}", "--trigger", "x" * 65), "invalid"),
        (("import", "{file}", "--base", "nowhere"), "unknown_base"),
        (("import", "{file}", "--kind", "odd"), "invalid"),
        (("import", "http://example.com/x.safetensors"), "invalid"),
        (("import", "https://127.0.0.1/x.safetensors"), "invalid"),
        (("inspect", "file:///etc/passwd"), "invalid"),
        (("inspect",), "invalid"),
        (("export", "coral"), "invalid"),
        (("wrong",), "invalid"),
    ],
)
def test_what_is_refused_leaves_all_as_it_was(
    atelier: Atelier, folder: Path, home: Path, words: tuple[str, ...], code: str
) -> None:
    said = [word.format(folder=folder, file=folder / "neon v2.safetensors") for word in words]
    answer = atelier("loras", *said, "--json")
    assert (answer.code, answer.error["code"]) == (2, code)
    assert not list((home / "loras").glob("[!.]*"))


# Few-step LoRAs


def test_a_few_step_lora_is_known_by_its_name_and_drawn_with_when_it_shall_be_fast(
    atelier: Atelier, tmp_path: Path, home: Path
) -> None:
    (tmp_path / "lcm-lora-sdv1-5.safetensors").write_bytes(a_file(metadata={"ss_tag_frequency": '{"a": {"1girl": 9}}'}))
    said = atelier("loras", "import", tmp_path / "lcm-lora-sdv1-5.safetensors", "--json")
    assert (said.json["name"], said.json["kind"], said.json["trigger"]) == ("lcm-lora-sdv1-5", "speed", "")
    card = tomllib.loads((home / "loras" / "lcm-lora-sdv1-5" / "lora.toml").read_text())
    assert card["speed"] == {"steps": 4, "guidance": 1.0, "sampler": "lcm"}
    assert not any("--trigger" in note or "--kind" in note for note in said.json["notes"])

    drawn = atelier("draw", "a mug", "--speed", "fast", "--json").json
    (picture,) = drawn["pictures"]
    assert (picture["steps"], picture["guidance"], picture["prompt"]) == (4, 1.0, "a mug")
    assert [(lora["name"], lora["weight"]) for lora in picture["loras"]] == [("lcm-lora-sdv1-5", 1.0)]
    assert drawn["notes"] == ["Fast: lcm-lora-sdv1-5, 4 steps, guidance 1, sampler lcm."]
    (other,) = atelier("draw", "a mug", "--speed", "fast", "--steps", "6", "--guidance", "2", "--json").json["pictures"]
    assert (other["steps"], other["guidance"]) == (6, 2.0)
    (plain,) = atelier("draw", "a mug", "--json").json["pictures"]
    assert plain["loras"] == []


def test_one_that_its_name_does_not_tell_is_told_by_the_person(atelier: Atelier, tmp_path: Path, home: Path) -> None:
    (tmp_path / "swift.safetensors").write_bytes(a_file(metadata={}))
    file = tmp_path / "swift.safetensors"
    assert "--kind speed --steps 4" in atelier("loras", "import", file, "--kind", "speed", "--json").error["hint"]
    assert not (home / "loras").exists()
    options = ("--kind", "speed", "--steps", "6", "--guidance", "1.5", "--sampler", "Euler trailing")
    assert atelier("loras", "import", file, *options).code == 0
    card = tomllib.loads((home / "loras" / "swift" / "lora.toml").read_text())
    assert card["speed"] == {"steps": 6, "guidance": 1.5, "sampler": "euler trailing"}
    assert "speed" in atelier("loras", "show", "swift").out


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [("--steps", "61", "steps"), ("--sampler", "magic", "sampler"), ("--guidance", "99", "swift")],
)
def test_what_no_picture_can_be_drawn_with_is_refused(
    atelier: Atelier, tmp_path: Path, home: Path, option: str, value: str, what: str
) -> None:
    (tmp_path / "swift.safetensors").write_bytes(a_file(metadata={}))
    said = atelier(
        "loras", "import", tmp_path / "swift.safetensors", "--kind", "speed", "--steps", "4", option, value, "--json"
    )
    assert said.code == 2
    assert what in said.error["message"]
    assert not (home / "loras").exists()


def test_its_steps_go_out_and_come_back_and_are_not_merged_away(atelier: Atelier, tmp_path: Path, home: Path) -> None:
    (tmp_path / "swift.safetensors").write_bytes(a_file(metadata={}))
    given = ("--kind", "speed", "--steps", "6", "--sampler", "ddim_trailing")
    assert atelier("loras", "import", tmp_path / "swift.safetensors", *given).code == 0
    assert atelier("loras", "export", "swift", "--out", tmp_path / "out.safetensors").code == 0
    assert atelier("loras", "import", tmp_path / "out.safetensors", "--name", "back").code == 0
    cards = [tomllib.loads((home / "loras" / name / "lora.toml").read_text()) for name in ("swift", "back")]
    assert cards[0]["speed"] == cards[1]["speed"] == {"steps": 6, "guidance": 1.0, "sampler": "ddim trailing"}
    said = atelier("loras", "merge", "swift:1", "coral:0.5", "--name", "both", "--json")
    assert "steps of its own" in said.error["message"]


def test_fast_without_one_is_fewer_steps_and_a_note(atelier: Atelier) -> None:
    said = atelier("draw", "a mug", "--speed", "fast", "--sampler", "UniPC", "--json").json
    assert said["notes"][0].startswith("Fast: ") or "as few as unipc" in said["notes"][0]
    best = atelier("draw", "a mug", "--speed", "best", "--json").json
    assert best["notes"][0].startswith("Best quality: ")


def test_a_speed_lora_is_not_trained(atelier: Atelier, pictures: Path) -> None:
    said = atelier("train", pictures, "--name", "x", "--kind", "speed", "--trigger", "xq", "--json")
    assert "“speed” is none of subject, character, product, style, quality" in said.error["message"]

"""atelier bases: list, add, get, use, check; and what is made with weights that may not be sold."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bot.commands.bases import report_lines
from bot.policy import Licensed, check_brand
from engine import bases
from engine.catalog import LoraCard
from engine.errors import NotForBrands
from engine.jobs import Drawn
from engine.plans import TRAINED_KINDS, Example, ImagePlan, Kind, LoraRef, LoraStack, TrainPlan
from tests.bot.commands.conftest import Said, png
from tests.checkpoints import pipeline
from tests.fakes.executor import FakeExecutor
from tests.fakes.hub import COMMIT, REPO, Hub, serving

ROOT = Path(__file__).parents[3]
Atelier = Callable[..., Said]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("models")
    pipe = pipeline("sd1", work)
    pipe.save_pretrained(work / "small")
    pipe.to(dtype=torch.float16).save_pretrained(work / "half", variant="fp16")
    for file in (work / "half").rglob("*.fp16.safetensors"):
        (work / "small" / file.relative_to(work / "half")).write_bytes(file.read_bytes())
    (work / "small" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02pickle")
    (work / "small" / "evil.py").write_text("raise SystemExit(9)")
    return work / "small"


def test_the_list_says_what_there_is_and_which_is_drawn_on(atelier: Atelier) -> None:
    said = atelier("bases")
    rows = {line.split()[0 if line[0] != "*" else 1]: line for line in said.out.splitlines()}
    assert {"pocket", "paper"} <= rows.keys()
    assert rows["paper"].startswith("*")
    assert "commercial use allowed" in rows["pocket"]
    assert "GB of GPU memory" in rows["pocket"]
    listed = {base["name"]: base for base in atelier("bases", "list", "--json").json["bases"]}
    pocket = listed["pocket"]
    assert (pocket["licence"], pocket["commercial"], pocket["active"]) == ("Apache-2.0", True, False)
    weights = sum(f.stat().st_size for f in bases.find("pocket").folder.rglob("*.safetensors"))
    assert weights <= pocket["disk"] < weights * 1.2
    assert pocket["needs"]["cpu"]["loras"] > 0


def test_a_broken_base_is_listed_with_the_reason(atelier: Atelier, home: Path) -> None:
    (home / "bases" / "broken").mkdir()
    (home / "bases" / "broken" / "base.toml").write_text("title = ")
    said = atelier("bases")
    assert said.code == 0
    assert "base.toml cannot be read" in said.out


def test_a_folder_is_added_and_used(atelier: Atelier, home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = atelier("bases", "add", model, "--name", "mine", "--licence", "mit")
    assert said.code == 0, said.err
    assert "mine: sd" in said.out
    assert bases.find("mine", home).commercial is True
    assert not list(bases.find("mine", home).folder.rglob("*.bin"))
    assert not list(bases.find("mine", home).folder.rglob("*.py"))
    said = atelier("bases", "use", "mine")
    assert tomllib.loads((home / "settings.toml").read_text()) == {"base": "mine"}
    assert "ATELIER_BASE is set" in said.out
    monkeypatch.delenv("ATELIER_BASE")
    assert next(b for b in atelier("bases", "--json").json["bases"] if b["active"])["name"] == "mine"


def test_using_keeps_the_other_settings(atelier: Atelier, home: Path, model: Path) -> None:
    (home / "settings.toml").write_text("brand_on_non_commercial = true\n[doors.web]\n")
    atelier("bases", "use", "pocket")
    said = tomllib.loads((home / "settings.toml").read_text())
    assert said == {"brand_on_non_commercial": True, "doors": {"web": {}}, "base": "pocket"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("add",), "which one is not said"), (("use",), "which one is not said"), (("list", "x"), "takes no name"),
        (("use", "huge"), "no base model named"), (("use", "paper"), "it lacks unet/config.json"),
        (("add", "nowhere.safetensors"), "no such file"), (("get", "nothing"), "no model of the hub"),
        (("check", "pocket", "--lora", "nowhere.safetensors"), "there is no file"), (("sell",), "is none of"),
        (("add", "x", "--prediction", "noise"), "is none of"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(atelier: Atelier, words: tuple[str, ...], why: str) -> None:
    said = atelier("bases", *words, "--json")
    assert said.code == 2
    assert why in said.error["message"]
    assert said.error["hint"]


# A real download client against a hub on this machine, in a process of its own: it reads its address as it is imported.


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with serving(Hub(model)) as running:
        yield running


def get(hub: Hub, home: Path, *words: str) -> Said:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url, "HOME": str(home / "user"),
           "ATELIER_HOME": str(home), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}  # fmt: skip
    command = [sys.executable, "-m", "bot", "bases", "get", *words, "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def test_the_licence_is_shown_and_nothing_is_fetched_before_it_is_accepted(hub: Hub, tmp_path: Path) -> None:
    said = get(hub, tmp_path, REPO)
    assert said.code == 2, said.err
    assert "openrail" in said.error["message"]
    assert "--accept-licence" in said.error["hint"]
    assert hub.fetched() == []
    assert not (tmp_path / "bases").exists()


def test_a_model_is_fetched_in_half_precision_without_code_or_pickles_and_its_licence_is_recorded(
    hub: Hub, tmp_path: Path
) -> None:
    said = get(hub, tmp_path, REPO, "--accept-licence")
    assert said.code == 0, said.out + said.err
    base = bases.find("small-model", tmp_path)
    base.check_whole()
    assert (base.licence, base.commercial, base.source) == ("openrail", True, f"{REPO}@{COMMIT}")
    assert base.accepted
    fetched = hub.fetched()
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in fetched
    assert not [name for name in fetched if name.endswith((".bin", ".py"))]
    assert "unet/diffusion_pytorch_model.safetensors" not in fetched
    assert not list((tmp_path / "bases" / ".new").iterdir())
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in said.err


def test_a_gated_model_names_the_page_and_the_token(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    said = get(hub, tmp_path, REPO, "--accept-licence")
    assert said.code == 2, said.err
    assert said.error["code"] == "gated"
    assert f"{hub.url}/{REPO}" in said.error["hint"]
    assert "HF_TOKEN" in said.error["hint"]


def test_a_model_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    said = get(hub, tmp_path, "someone/else", "--accept-licence")
    assert said.code == 2, said.err
    assert "no such model" in said.error["message"]


def test_a_licence_that_forbids_selling_is_recorded_so(hub: Hub, tmp_path: Path) -> None:
    hub.licence = "cc-by-nc-4.0"
    assert get(hub, tmp_path, REPO, "--accept-licence", "--name", "nc").code == 0
    assert bases.find("nc", tmp_path).commercial is False


def test_other_bytes_than_the_hub_has_are_thrown_away(hub: Hub, tmp_path: Path) -> None:
    hub.false_hash = "0" * 64
    said = get(hub, tmp_path, REPO, "--accept-licence")
    assert said.code == 2, said.err
    assert "sha256 differs" in said.error["message"]
    assert not list(tmp_path.rglob("*.safetensors*"))
    assert "small-model" not in bases.names(tmp_path)


def test_after_a_break_it_goes_on_where_it_was(model: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(model, tmp_path / "model")
    large = {"weight": torch.ones(15_000_000, dtype=torch.float16)}  # the client keeps what came in pieces of 10 MB
    save_file(large, whole / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    with serving(Hub(whole)) as hub:
        hub.breaks = "diffusion_pytorch_model.fp16.safetensors"
        said = get(hub, tmp_path, REPO, "--accept-licence")
        assert said.code == 3, said.out + said.err
        assert said.error["code"] == "unreachable"
        assert "small-model" not in bases.names(tmp_path)
        before = {name for name in hub.fetched() if not name.endswith(hub.breaks)}
        hub.breaks, asked = "", len(hub.asked)
        said = get(hub, tmp_path, REPO, "--accept-licence")
        assert said.code == 0, said.out + said.err
        again = {path.partition(COMMIT + "/")[2]: span for method, path, span in hub.asked[asked:] if method == "GET"}
    assert not (before - {"model_index.json"}) & set(again)
    assert re.fullmatch(r"bytes=[1-9]\d{3,}-.*", again["unet/diffusion_pytorch_model.fp16.safetensors"])
    got = bases.find("small-model", tmp_path).folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert torch.equal(load_file(got)["weight"], large["weight"])


# What may be made with which weights.

NON_COMMERCIAL = 'licence = "cc-by-nc-4.0"\ncommercial = false'


@pytest.fixture
def unsold(home: Path) -> Path:
    path = home / "bases" / "paper" / "base.toml"
    path.write_text(path.read_text().replace('licence = "Apache-2.0"\ncommercial = true', NON_COMMERCIAL))
    return home


def test_brand_work_on_such_weights_is_refused_and_private_work_is_not(atelier: Atelier, unsold: Path) -> None:
    said = atelier("draw", "a mug", "--lora", "coral:0.8", "--json")
    assert said.code == 2
    assert said.error["code"] == "not_for_brands"
    assert "coral" in said.error["message"]
    assert "brand_on_non_commercial" in said.error["hint"]
    assert atelier("draw", "a mug").code == 0


def test_an_admins_word_allows_it_and_the_recipe_says_so(atelier: Atelier, unsold: Path, tmp_path: Path) -> None:
    from engine.recipes import read_recipe

    (unsold / "settings.toml").write_text("brand_on_non_commercial = true\n")
    said = atelier("draw", "a mug", "--lora", "coral:0.8", "--out", tmp_path / "drawn", "--json")
    assert said.code == 0
    recipe = read_recipe(Path(said.json["pictures"][0]["file"]).read_bytes(), "it")
    assert (recipe["licences"]["base"], recipe["commercial"]) == ("cc-by-nc-4.0", False)


@pytest.mark.parametrize("kind", TRAINED_KINDS)
def test_training_on_them_is_brand_work_by_whatever_name(unsold: Path, kind: Kind) -> None:
    base = bases.find("paper", unsold)
    examples = tuple(Example(f"{k}", png(8, k), "zq") for k in range(4))
    with pytest.raises(NotForBrands, match="cc-by-nc"):
        check_brand(TrainPlan("n", kind, "zq", "paper", examples, 1, 1), base, ())


def card(name: str, kind: Kind, **said: Any) -> LoraCard:
    facts = {"title": name, "trigger": "", "base": "paper", "family": "sd", "rank": 4, "alpha": 4.0}
    speed = {"speed": {"steps": 4, "sampler": "lcm"}} if kind == "speed" else {}
    where = {"folder": Path(name), "shipped": False, "sha256": hashlib.sha256(name.encode()).hexdigest()}
    return LoraCard.model_validate({"name": name, "kind": kind} | facts | where | speed | said)


def drawn_with(*cards: LoraCard, role: Kind = "quality") -> ImagePlan:
    """`role` is what the request calls them all, which a person or an edited recipe may choose."""
    refs = tuple(LoraRef(card.name, card.sha256, 1.0, role) for card in cards)
    return ImagePlan("a mug", "paper", 1, 64, 64, 3, 4.0, "ddim", LoraStack(refs))


@pytest.mark.parametrize(
    ("lora", "is_brand"),
    [
        (card("hero", "character"), True),
        (card("vase", "subject", trigger="vsx"), True),  # a product by another name
        (card("gloss", "quality", trigger="glx"), True),  # calls something
        (card("ours", "quality", pictures=12), True),  # learnt from somebody's pictures
        (card("sharp", "quality"), False),
        (card("lcm", "speed"), False),
    ],
)
def test_what_a_lora_is_decides_and_not_what_the_request_calls_it(unsold: Path, lora: LoraCard, is_brand: bool) -> None:
    base = bases.find("paper", unsold)
    if is_brand:
        with pytest.raises(NotForBrands, match=lora.name):
            check_brand(drawn_with(lora), base, [lora])
    else:
        check_brand(drawn_with(lora), base, [lora])


def test_one_file_under_two_names_is_all_that_either_says(unsold: Path) -> None:
    hero = card("hero", "character")
    again = hero.model_copy(update={"name": "sharp", "kind": "quality"})
    for cards in ([hero, again], [again, hero], []):
        with pytest.raises(NotForBrands):
            check_brand(drawn_with(again), bases.find("paper", unsold), cards)


def test_a_brands_lora_beside_one_that_may_not_be_sold_is_refused_too(home: Path) -> None:
    base = bases.find("paper", home)
    ours, theirs = (
        card("hero", "character", commercial=True, licence="CC0-1.0"),
        card("look", "style", licence="cc-by-nc-4.0"),
    )
    unknown = card("found", "style")
    with pytest.raises(NotForBrands, match="“look” is not licensed for commercial use"):
        check_brand(drawn_with(ours, theirs), base, [ours, theirs])
    check_brand(drawn_with(theirs), base, [theirs])  # of one's own
    check_brand(drawn_with(ours, unknown), base, [ours, unknown])  # nobody said: the recipe alone says so


async def test_the_guard_passes_everything_else_on(home: Path, tmp_path: Path) -> None:
    from engine.catalog import Catalog

    inner = FakeExecutor(Catalog(tmp_path / "none", tmp_path / "own"), home)
    guard = Licensed(inner, lambda name: bases.find(name, home), tuple, False)
    plan = ImagePlan("a mug", "paper", 1, 64, 64, 3, 4.0, "ddim", LoraStack())
    events = [event async for event in guard.run(plan)]
    assert isinstance(events[-1], Drawn)
    assert inner.ended == 1
    assert LoraRef("a", "b", role="style").role == "style"


def test_a_check_draws_twice_and_prints_what_can_be_pasted(home: Path, model: Path, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "ATELIER_HOME": str(home)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bot", "bases", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    assert run("add", str(model), "--name", "small").returncode == 0
    done = run("check", "small", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "bare: alike" in done.stdout
    assert "verdict    the same picture as plain diffusers" in done.stdout
    assert "torch " in done.stdout
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"ours.png", "diffusers.png"}


def test_a_report_that_found_them_apart_says_so() -> None:
    one = {"lora": "x.safetensors", "alike": False, "latents_relative_l2": 0.4, "pixels_max": 90.0,
           "pixels_mean": 3.0,
           "seconds": 1.0, "seconds_diffusers": 1.0}  # fmt: skip
    report = {"base": "b", "family": "sd", "base_sha256": "0" * 64, "licence": "mit", "device": "cpu",
              "dtype": "float32", "prompt": "p", "seed": 1, "size": "64x64", "steps": 3, "sampler": "ddim",
              "guidance": 4.0, "limit": 1e-3,
              "python": "3", "torch": "2", "diffusers": "0", "transformers": "5", "peft": "0", "alike": False,
              "pictures": [one]}  # fmt: skip
    text = "\n".join(report_lines(json.loads(json.dumps(report))))
    assert "with x.safetensors: APART" in text
    assert "another picture" in text

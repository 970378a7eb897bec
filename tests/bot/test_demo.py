from pathlib import Path

import pytest

from bot import demo
from bot.demo import Line, Stage
from bot.message import Reply
from engine import bases
from engine.errors import Fault, Invalid, UnknownBase
from tests.fakes.shelf import make_base, make_catalog
from tests.tiny import tiny_sd

SUBJECTS = ("crab", "robot", "teapot")


def script(tmp_path: Path, seed: int) -> demo.Script:
    return demo.script_for(make_catalog(tmp_path).list(), SUBJECTS, seed)


def test_one_seed_has_one_conversation_and_others_differ(tmp_path: Path) -> None:
    assert script(tmp_path, 3) == script(tmp_path, 3)
    scripts = [script(tmp_path, seed) for seed in range(12)]
    assert len(set(scripts)) == 12
    assert {s.subject for s in scripts} == {"crab", "teapot"}


def test_what_a_shipped_lora_shows_is_not_learnt_again(tmp_path: Path) -> None:
    assert "robot" in {card.word for card in make_catalog(tmp_path).list()}
    assert all(script(tmp_path, seed).subject != "robot" for seed in range(30))


def test_the_conversation_shows_all_that_the_issue_lists(tmp_path: Path) -> None:
    shot, first, second, change, train, alone, stacked = (line.text for line in script(tmp_path, 0).lines)
    assert "product shot" in shot
    assert " style" in shot
    assert first.split()[0] == second.split()[0]
    assert change.startswith("Make the background")
    name = train.rstrip(".").split()[-1]
    assert alone.startswith(name)
    assert stacked.startswith(name)
    assert " style" in stacked


def test_held_out_subjects_are_read_from_the_base(tmp_path: Path) -> None:
    assert demo.held_out(make_base(tmp_path)) == ("backpack", "octopus", "robot", "teapot")


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(Invalid, match="no demo made"):
        demo.prepare(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_second_demo_begins_in_an_empty_folder(tmp_path: Path) -> None:
    home = demo.prepare(tmp_path / "demo")
    (tmp_path / "demo" / "01-old.png").touch()
    assert demo.prepare(tmp_path / "demo") == home
    assert [file.name for file in (tmp_path / "demo").iterdir()] == [demo.MARK]


def test_an_answer_without_a_picture_ends_the_demo_with_a_fault(tmp_path: Path) -> None:
    said: list[str] = []
    stage = Stage(tmp_path, said.append, lambda _: None)
    stage.person(Line("a mug"))
    with pytest.raises(Fault, match="words alone"):
        demo._expected(Line("a mug"), Reply(text="Which one?"))
    assert said == ["\n> a mug"]


def test_a_base_without_loras_draws_learns_and_draws_what_it_learnt() -> None:
    scripts = [demo.plain_script(SUBJECTS, seed) for seed in range(12)]
    assert scripts[3] == demo.plain_script(SUBJECTS, 3)
    assert len(set(scripts)) > 6
    for one in scripts:
        assert [line.drops for line in one.lines] == [False, False, True, False, False]
        name = one.lines[2].text.rstrip(".").split()[-1]
        assert all(line.text.startswith(name) for line in one.lines[3:])


def test_the_demos_home_borrows_a_persons_base_by_a_link(tmp_path: Path) -> None:
    base = tiny_sd(tmp_path / "home")
    assert demo.borrow("tiny-sd", tmp_path / "home", tmp_path / "demo") == tmp_path / "demo"
    assert bases.find("tiny-sd", tmp_path / "demo").fingerprint() == bases.fingerprint(base)
    assert (tmp_path / "demo" / "bases" / "tiny-sd").is_symlink()
    demo.borrow("pocket", tmp_path / "home", tmp_path / "other")
    assert not (tmp_path / "other").exists()  # it is shipped
    with pytest.raises(UnknownBase):
        demo.borrow("huge", tmp_path / "home", tmp_path / "demo")

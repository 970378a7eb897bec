"""Fast and best: which numbers a picture gets, with and without a few-step LoRA, and that the answer says so."""

import hashlib
from pathlib import Path

import pytest
import tomli_w

from bot.conversation import Conversation, Planned, Shot
from bot.interpreter import understand
from bot.pace import Said, paced
from bot.planner import plan_for
from bot.rules.lexicon import Lexicon
from bot.rules.text import plain
from bot.shelf import Shelf
from bot.surgery import with_articles
from bot.tags import with_trigger
from bot.why import panels
from engine.errors import Invalid
from engine.plans import ImagePlan
from tests.bot.talking import Talk, open_shelf


def add_speed(home: Path, name: str = "lcm-paper", **speed: object) -> None:
    """A few-step LoRA beside the shipped ones, of weight 0.9, in 4 steps unless `speed` says otherwise."""
    folder, data = home / "shipped" / name, name.encode()
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(data)
    card = {
        "title": name, "trigger": "", "kind": "speed", "base": "paper", "family": "sd", "rank": 16, "alpha": 16.0,
        "sha256": hashlib.sha256(data).hexdigest(), "weight": 0.9,
        "speed": {"steps": 4, "guidance": 1.0, "sampler": "lcm"} | speed,
    }  # fmt: skip
    (folder / "lora.toml").write_text(tomli_w.dumps(card))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """On a base of 12 steps of dpm++ at guidance 4, without a few-step LoRA."""
    return open_shelf(tmp_path_factory.mktemp("slow"))


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    home = tmp_path_factory.mktemp("quick")
    add_speed(home)
    return open_shelf(home)


def planned(text: str, shelf: Shelf, talk: Conversation | None = None) -> Planned:
    talk = talk or Conversation("t")
    intent = understand(plain(text), (), talk, Lexicon.of(shelf.catalog.list(), shelf.vocabulary))
    found = plan_for(intent, talk, shelf, 7)  # type: ignore[arg-type]
    assert isinstance(found, Planned)
    return found


def after(text: str, shelf: Shelf) -> Conversation:
    found = planned(text, shelf)
    assert isinstance(found.plan, ImagePlan)
    assert found.order is not None
    return Conversation("t").drawn(Shot(found.order, found.plan, (b"png",)))


def numbers(found: Planned) -> tuple[int, float, str]:
    assert isinstance(found.plan, ImagePlan)
    return found.plan.steps, found.plan.guidance, found.plan.sampler


def loras(found: Planned) -> dict[str, float]:
    assert isinstance(found.plan, ImagePlan)
    return {ref.name: ref.weight for ref in found.plan.stack.refs}


FAST = [
    "a quick draft of a fox", "a quick sketch of a fox", "a quick picture of a fox", "draw a fox, fast",
    "quickly draw a fox", "can you draw a fox real quick?", "a rough draft of a fox", "as a draft: a fox",
    "a fox in fast mode", "a fox --speed fast", "a fast preview of a fox",
]  # fmt: skip


@pytest.mark.parametrize("text", FAST)
def test_fast_takes_the_speed_lora_along_with_what_it_was_distilled_for(text: str, quick: Shelf) -> None:
    found = planned(text, quick)
    assert numbers(found) == (4, 1.0, "lcm")
    assert loras(found) == {"crisp": 0.5, "lcm-paper": 0.9}
    assert found.plan.prompt == "crsp a fox"  # type: ignore[union-attr]
    assert found.notes[0] == "Fast: lcm-paper, 4 steps, guidance 1, sampler lcm."


@pytest.mark.parametrize("text", FAST)
def test_without_one_fast_is_fewer_steps_and_said(text: str, slow: Shelf) -> None:
    found = planned(text, slow)
    assert numbers(found) == (8, 4.0, "dpm++")
    assert found.notes[0] == "Fast: 8 steps in place of 12, as Paper has no speed LoRA; details suffer."


@pytest.mark.parametrize("text", ["a fast car", "a quick brown fox", "a fox", "a rough stone house", "a turbo engine"])
def test_a_fast_thing_is_a_thing(text: str, quick: Shelf) -> None:
    found = planned(text, quick)
    assert numbers(found) == (12, 4.0, "dpm++")
    assert text in found.plan.prompt  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    ["a fox in best quality", "the best quality of a fox", "best quality, please: a fox", "a fox, take your time"],
)
def test_best_takes_more_steps_and_no_speed_lora(text: str, quick: Shelf) -> None:
    found = planned(text, quick)
    assert numbers(found) == (24, 4.0, "dpm++")
    assert "lcm-paper" not in loras(found)
    assert "Best quality: 24 steps in place of 12." in found.notes


def test_fast_stays_until_best_is_said_and_comes_when_it_is_said_later(quick: Shelf) -> None:
    talk = after("a quick draft of a fox", quick)
    assert numbers(planned("make it blue", quick, talk)) == (4, 1.0, "lcm")
    best = planned("now in best quality", quick, talk)
    assert numbers(best) == (24, 4.0, "dpm++")
    assert loras(best) == {"crisp": 0.5}
    assert numbers(planned("faster please", quick, after("a fox", quick))) == (4, 1.0, "lcm")


def test_what_is_said_in_numbers_goes_before_what_is_distilled(quick: Shelf, slow: Shelf) -> None:
    assert numbers(planned("a quick draft of a fox with 6 steps and guidance 1.5", quick)) == (6, 1.5, "lcm")
    assert numbers(planned("a quick draft of a fox with Euler a", quick)) == (4, 1.0, "euler a")
    found = planned("a quick draft of a fox with 20 steps", slow)
    assert numbers(found) == (20, 4.0, "dpm++")
    assert "20 steps, as you said" in found.notes[0]


def test_a_speed_lora_that_is_named_is_fast_too_and_one_not_wanted_is_not_put_in(quick: Shelf) -> None:
    assert numbers(planned("a fox with the lcm-paper lora", quick)) == (4, 1.0, "lcm")
    assert numbers(planned("a fox <lora:lcm-paper:1>", quick)) == (4, 1.0, "lcm")
    found = planned("a quick draft of a fox without lcm-paper", quick)
    assert numbers(found) == (8, 4.0, "dpm++")
    assert loras(found) == {"crisp": 0.5}
    bare = planned("a quick draft of a fox without loras", quick)
    assert loras(bare) == {}


@pytest.mark.parametrize(
    ("text", "sampler"),
    [
        ("a fox with DPM++ 2M", "dpm++"), ("a fox, sampler: UniPC", "unipc"), ("a fox using euler_a", "euler a"),
        ("a fox with the euler sampler", "euler"), ("a fox with ddim", "ddim"),
        ("a fox with Euler ancestral", "euler a"),
    ],
)  # fmt: skip
def test_samplers_are_said_as_people_write_them(text: str, sampler: str, slow: Shelf) -> None:
    found = planned(text, slow)
    assert numbers(found) == (12, 4.0, sampler)
    assert found.plan.prompt == "crsp a fox"  # type: ignore[union-attr]


def test_a_sampler_that_there_is_not_is_refused_by_its_whole_name(slow: Shelf) -> None:
    with pytest.raises(Invalid, match=r"there is none named “DPM\+\+ 2M Karras”"):
        planned("a fox with DPM++ 2M Karras", slow)


def test_a_base_that_was_distilled_itself_takes_neither_fewer_nor_more(slow: Shelf) -> None:
    few = slow.base.model_copy(update={"defaults": slow.base.defaults.model_copy(update={"steps": 4})})
    for speed, said in (("fast", "as few as dpm++ can do with"), ("best", "more would not make it better")):
        pace = paced(Said(speed=speed), (), few)  # type: ignore[arg-type]
        assert pace.steps == 4
        assert said in pace.notes[0]


def test_two_speed_loras_in_one_picture_are_refused(tmp_path: Path) -> None:
    add_speed(tmp_path)
    add_speed(tmp_path, "hyper-paper", steps=2, sampler="ddim trailing")
    shelf = open_shelf(tmp_path)
    assert numbers(planned("a quick draft of a fox", shelf)) == (2, 1.0, "ddim trailing")  # the fewest steps
    with pytest.raises(Invalid, match="hyper-paper and lcm-paper each draw in steps of their own"):
        planned("a fox <lora:hyper-paper:1> <lora:lcm-paper:1>", shelf)


def test_a_card_of_kind_speed_without_its_steps_is_left_out(tmp_path: Path) -> None:
    add_speed(tmp_path, steps=0)
    assert "lcm-paper" not in [card.name for card in open_shelf(tmp_path).catalog.list()]


def test_why_leaves_the_speed_lora_where_it_is(quick: Shelf) -> None:
    """Four steps without it would show what four steps are, and nothing of the other LoRAs."""
    found = planned("a quick draft of a fox in terracotta", quick)
    shown = panels(found.plan, "x", quick.catalog)  # type: ignore[arg-type]
    assert [panel.label for panel in shown] == ["the base alone", "without crisp", "without terracotta", "all together"]
    assert all("lcm-paper" in {ref.name for ref in panel.plan.stack.refs} for panel in shown)


async def test_the_answer_says_it(tmp_path: Path) -> None:
    add_speed(tmp_path)
    talk = Talk(tmp_path)
    reply = await talk.say("a quick draft of a fox on teal")
    assert "crisp 0.5: quality; lcm-paper 0.9: fast." in reply.text
    assert reply.text.endswith("Fast: lcm-paper, 4 steps, guidance 1, sampler lcm.")
    recipe = reply.pictures[0].recipe
    assert (recipe["steps"], recipe["guidance"], recipe["sampler"]) == (4, 1.0, "lcm")
    assert "you wished it fast" in (await talk.say("why did you use those?")).text


# Words beside it that were read wrongly before


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("a angry fox", "an angry fox"), ("an red mug", "a red mug"), ("a umbrella", "an umbrella"),
        ("an unicorn", "a unicorn"), ("a hour", "an hour"), ("an european castle", "a european castle"),
        ("a (angry:1.2) fox", "an (angry:1.2) fox"), ("an 8-bit fox", "an 8-bit fox"), ("an LP", "an LP"),
        ("a one-eyed cat", "a one-eyed cat"), ("a unusual cat", "an unusual cat"),
        ("a urban street", "an urban street"),
    ],
)  # fmt: skip
def test_articles_agree_with_what_follows(said: str, right: str) -> None:
    assert with_articles(said) == right
    assert with_articles(right) == right


def test_a_trigger_put_before_a_noun_takes_the_article_along(quick: Shelf) -> None:
    inky = quick.card("inky").model_copy(update={"trigger": "nkyx"})
    assert with_trigger("an octopus", inky) == "a nkyx octopus"
    assert with_trigger("a octopus", inky.model_copy(update={"trigger": "oktx"})) == "an oktx octopus"


@pytest.mark.parametrize(
    ("text", "has_style"),
    [
        ("a bear at midnight", False), ("a bear in a dark midnight", False), ("a fox in midnight", True),
        ("a fox in the midnight style", True), ("a fox in a midnight look", True), ("a fox, midnight 0.6", True),
        ("a bear in midnight at noon", True),
    ],
)  # fmt: skip
def test_a_place_or_time_is_no_lora_that_is_named_after_it(text: str, has_style: bool, slow: Shelf) -> None:
    found = planned(text, slow)
    assert ("midnight" in loras(found)) == has_style
    assert ("midnight" in found.plan.prompt) != has_style  # type: ignore[union-attr]


@pytest.mark.parametrize("thing", ["a banner", "an ad", "a story", "a post", "an Instagram post", "a poster"])
def test_the_brand_comes_where_it_is_named(thing: str, slow: Shelf) -> None:
    assert "terracotta" not in loras(planned(f"{thing} with a lemon", slow))
    assert "terracotta" in loras(planned(f"{thing} with a lemon, on-brand", slow))
    assert "terracotta" in loras(planned(f"{thing} with a lemon for our campaign", slow))


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a gift on a red background with polka dots", "crsp a gift, dotted red background"),
        ("a gift on teal with stripes", "crsp a gift, striped teal background"),
        ("a gift on a red background with white polka dots", "crsp a gift, red background with white polka dots"),
        ("a shirt with polka dots", "crsp a shirt with polka dots"),
    ],
)
def test_dots_on_a_ground_are_its_pattern(text: str, prompt: str, slow: Shelf) -> None:
    assert planned(text, slow).plan.prompt == prompt  # type: ignore[union-attr]

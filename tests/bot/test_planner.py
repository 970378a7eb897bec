import copy
from dataclasses import replace
from pathlib import Path

import pytest

from bot.conversation import Conversation, Planned, Shot
from bot.intent import AskBack
from bot.interpreter import understand
from bot.planner import made_trigger, plan_for
from bot.rules.lexicon import Lexicon
from bot.rules.text import plain
from bot.shelf import Shelf
from engine.errors import Invalid, NameTaken, TooFewPictures, UnknownLora
from engine.plans import ImagePlan, TrainPlan
from tests.bot.talking import open_shelf, pictures


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return open_shelf(tmp_path_factory.mktemp("home"))


def plan(text: str, shelf: Shelf, talk: Conversation | None = None, seed: int = 7) -> Planned | AskBack:
    talk = talk or Conversation("t")
    lexicon = Lexicon.of(shelf.catalog.list(), shelf.vocabulary)
    intent = understand(plain(text), talk.files, talk, lexicon)
    return plan_for(intent, talk, shelf, seed)  # type: ignore[arg-type]


def picture(text: str, shelf: Shelf, talk: Conversation | None = None, seed: int = 7) -> ImagePlan:
    found = plan(text, shelf, talk, seed)
    assert isinstance(found, Planned)
    assert isinstance(found.plan, ImagePlan)
    return found.plan


def after(text: str, shelf: Shelf) -> Conversation:
    """A conversation in which this was drawn."""
    found = plan(text, shelf)
    assert isinstance(found, Planned)
    assert isinstance(found.plan, ImagePlan)
    assert found.order is not None
    return Conversation("t").drawn(Shot(found.order, found.plan, (b"png",) * found.plan.count))


def stack(found: ImagePlan) -> dict[str, float]:
    return {ref.name: ref.weight for ref in found.stack.refs}


def test_equal_requests_make_equal_plans_and_change_nothing(shelf: Shelf) -> None:
    talk = after("our mug on a podium in terracotta", shelf)
    before = copy.deepcopy(talk)
    assert picture("same but on teal", shelf, talk) == picture("same but on teal", shelf, talk)
    assert talk == before


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a red mug", {"crisp": 0.5}),
        ("a red mug without crisp", {}),
        ("a poster with a fox", {"crisp": 0.5}),
        ("a poster with a fox for our campaign", {"terracotta": 0.8, "crisp": 0.5}),
        ("Inky waving", {"inky": 1.0, "crisp": 0.5}),
        ("our mug in midnight", {"midnight": 0.8, "fold-mug": 1.0, "crisp": 0.5}),
        ("Bolt and Inky at the beach, terracotta 0.6", {"terracotta": 0.6, "inky": 1.0, "bolt": 1.0, "crisp": 0.5}),
        ("a fox <lora:midnight:0.3>", {"midnight": 0.3, "crisp": 0.5}),
        ("a fox with no loras", {}),
    ],
)
def test_each_intent_gets_its_weighted_stack(text: str, wanted: dict[str, float], shelf: Shelf) -> None:
    assert stack(picture(text, shelf)) == wanted


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("please make me a nice picture of a red mug", "crsp a red mug"),
        ("Inky at the beach", "nkyx octopus at the beach"),
        ("Inky and Bolt in the snow", "nkyx octopus and bltx robot in the snow"),
        ("a nkyx octopus on a table", "nkyx octopus on a table"),
        ("a fox in our terracotta look", "trrk style crsp a fox"),
        ("our mug on a podium", "a product photo of fmgx mug on a podium"),
        ("a product shot of a apple on teal", "crsp a product photo of an apple, teal background"),
        ("a mug, pixel art, beach", "crsp a mug, beach, pixel art style"),
    ],
)
def test_the_prompt_is_short_and_holds_each_trigger_once(text: str, prompt: str, shelf: Shelf) -> None:
    assert picture(text, shelf).prompt == prompt


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("same but on teal", "crsp a red mug, teal background"),
        ("put it on a beach", "crsp a red mug on a beach"),
        ("make it blue", "crsp a blue mug and a hat at sunset"),
        ("change the mug to a bottle", "crsp a red bottle and a hat at sunset"),
        ("a fox instead", "crsp a fox at sunset"),
        ("remove the hat", "crsp a red mug at sunset"),
        ("add a candle", "crsp a red mug and a hat, a candle at sunset"),
        ("in watercolour", "crsp a red mug and a hat at sunset, watercolor style"),
        ("make the mug bigger", "crsp a red large mug and a hat at sunset"),
        ("replace it with Inky", "nkyx octopus at sunset"),
        ("without crisp", "a red mug and a hat at sunset"),
    ],
)
def test_a_change_keeps_the_seed_and_all_that_was_not_named(text: str, prompt: str, shelf: Shelf) -> None:
    first = "a red mug" if "on" in text.split() else "a red mug and a hat at sunset"
    talk = after(f"{first}, seed 42", shelf)
    found = picture(text, shelf, talk, seed=7)
    assert found.prompt == prompt
    assert found.seed == 42
    assert (found.width, found.height) == (256, 256)


def test_another_one_has_a_new_seed_and_again_with_a_seed_that_one(shelf: Shelf) -> None:
    talk = after("a fox, seed 42", shelf)
    assert picture("another one", shelf, talk, seed=9).seed == 9
    assert picture("again with seed 5", shelf, talk, seed=9).seed == 5
    assert picture("two more", shelf, talk, seed=9).count == 2


def test_one_of_several_is_drawn_on_from_its_own_seed(shelf: Shelf) -> None:
    talk = after("three versions of a fox, seed 42", shelf)
    found = picture("use the second one, on teal", shelf, talk)
    assert (found.seed, found.count) == (43, 1)
    with pytest.raises(Invalid):
        plan("use the fourth one", shelf, talk)


def test_a_style_is_made_stronger_swapped_and_taken_away(shelf: Shelf) -> None:
    talk = after("a fox in terracotta", shelf)
    assert stack(picture("stronger style", shelf, talk))["terracotta"] == 1.0
    assert stack(picture("a bit less terracotta", shelf, talk))["terracotta"] == 0.7
    swapped = picture("in midnight instead", shelf, talk)
    assert "terracotta" not in stack(swapped)
    assert "trrk" not in swapped.prompt
    assert swapped.prompt.startswith("mdnt style")
    assert stack(picture("in pixel art", shelf, talk)) == {"crisp": 0.5}


def test_the_trigger_leaves_with_its_lora(shelf: Shelf) -> None:
    talk = after("Inky at the beach", shelf)
    assert picture("without inky", shelf, talk).prompt == "crsp an octopus at the beach"


def test_sizes_follow_the_words_and_the_base(shelf: Shelf) -> None:
    assert (picture("a fox, wide", shelf).width, picture("a fox, wide", shelf).height) == (384, 256)
    talk = after("a fox", shelf)
    assert picture("bigger", shelf, talk).width == 384
    with pytest.raises(Invalid, match="20x20"):
        plan("a fox 20x20", shelf)
    with pytest.raises(Invalid, match="largest"):
        plan("bigger", shelf, after("a fox 512x512", shelf))


def test_a_picture_that_is_there_is_done_over_at_the_usual_strength(shelf: Shelf) -> None:
    found = picture("apply terracotta to it", shelf, after("a fox, seed 42", shelf))
    assert (found.image, found.strength, found.seed) == (b"png", 0.8, 42)
    assert found.prompt == "trrk style a fox"
    found = picture("turn it into pixel art", shelf, after("Inky on a podium", shelf))
    assert (found.strength, found.prompt) == (0.7, "nkyx octopus on a podium, pixel art style")


def test_a_style_transfer_is_made_stronger_and_weaker(shelf: Shelf) -> None:
    for words, first in (("turn it into pixel art", 0.7), ("apply terracotta to it", 0.8)):
        talk = after("a fox", shelf)
        found = plan(words, shelf, talk)
        assert isinstance(found, Planned)
        assert isinstance(found.plan, ImagePlan)
        assert found.order is not None
        talk = talk.drawn(Shot(found.order, found.plan, (b"png",)))
        assert picture("stronger", shelf, talk).strength == pytest.approx(first + 0.1)
        assert picture("weaker", shelf, talk).strength == pytest.approx(first - 0.1)


@pytest.mark.parametrize(
    "text",
    [
        "draw a mug with the watercolor LoRA",
        "use lora watercolor at 0.8: a mug",
        "a mug in the watercolour lora",
        "a mug with lora watercolor",
    ],
)
def test_a_plain_style_takes_the_place_of_a_lora_that_there_is_not_and_that_is_said(text: str, shelf: Shelf) -> None:
    found = plan(text, shelf)
    assert isinstance(found, Planned)
    assert isinstance(found.plan, ImagePlan)
    assert found.plan.prompt == "crsp a mug, watercolor style"
    assert "is a style that Paper knows, so that was used" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a mug with the oil painting LoRA", "oil painting"),
        ("use lora frobnitz at 0.8: a mug", "frobnitz"),
        ("a mug with the frobnitz lora", "frobnitz"),
    ],
)
def test_another_lora_that_there_is_not_is_refused_by_its_name(text: str, name: str, shelf: Shelf) -> None:
    with pytest.raises(UnknownLora) as unknown:
        plan(text, shelf)
    assert unknown.value.name == name


def test_nothing_to_change_or_to_restyle_is_said(shelf: Shelf) -> None:
    with pytest.raises(Invalid, match="no picture"):
        plan("make it blue", shelf)
    with pytest.raises(Invalid, match="no picture"):
        plan("turn this photo into pixel art", shelf)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("a banner for the summer sale", "subject"),
        ("our mascot in the snow", "lora"),
        ("make it better", "change"),
        ("make it pop more", "change"),
        ("give it a bit more punch", "change"),
    ],
)
def test_what_is_missing_is_asked_for(text: str, missing: str, shelf: Shelf) -> None:
    asked = plan(text, shelf, after("a fox", shelf))
    assert isinstance(asked, AskBack)
    assert asked.missing == missing


def test_what_cannot_be_done_is_said_beside_what_was(shelf: Shelf) -> None:
    found = plan("make it blue and rotate it", shelf, after("a fox", shelf))
    assert isinstance(found, Planned)
    assert "rotate it" in found.notes[0]


def test_unknown_loras_and_wild_weights_are_refused(shelf: Shelf) -> None:
    with pytest.raises(UnknownLora) as unknown:
        plan("a fox in teracotta style", shelf)
    assert unknown.value.near == ("terracotta",)
    for weight in ("50", "nan", "many"):
        with pytest.raises(Invalid):
            plan(f"a fox <lora:terracotta:{weight}>", shelf)


def train(text: str, shelf: Shelf, count: int = 12) -> TrainPlan:
    found = plan(text, shelf, Conversation("t").holding(pictures(count), ()))
    assert isinstance(found, Planned)
    assert isinstance(found.plan, TrainPlan)
    return found.plan


def test_a_training_plan_is_filled_in_from_what_was_said(shelf: Shelf) -> None:
    found = train("train a LoRA on these, call it Crabby, trigger zqx, it is a crab, 200 steps, rank 8", shelf)
    assert (found.name, found.trigger, found.word, found.steps, found.rank) == ("crabby", "zqx", "crab", 200, 8)
    assert {example.caption for example in found.examples} == {"zqx crab"}


def test_a_trigger_is_made_from_the_name_and_means_nothing_yet(shelf: Shelf) -> None:
    found = train("train a character called Dog on these", shelf)
    assert shelf.vocabulary is not None
    assert shelf.vocabulary.unknown(found.trigger)
    assert made_trigger("biscuit", {"bscx"}, shelf.vocabulary) == "bscq"


def test_a_trigger_that_the_base_knows_is_warned_of(shelf: Shelf) -> None:
    found = plan("train these, name pip, trigger castle", shelf, Conversation("t").holding(pictures(12), ()))
    assert isinstance(found, Planned)
    assert any("castle" in note for note in found.notes)


def test_a_training_without_pictures_a_free_name_or_a_free_trigger_is_refused(shelf: Shelf) -> None:
    with pytest.raises(TooFewPictures):
        train("train this dog, call it Bob", shelf, count=2)
    with pytest.raises(NameTaken):
        train("train these, call it inky", shelf)
    with pytest.raises(Invalid, match="trigger"):
        train("train these, call it zed, trigger nkyx", shelf)
    assert isinstance(plan("train these please", shelf, Conversation("t").holding(pictures(12), ())), AskBack)


def test_a_training_on_a_transformer_is_refused_before_any_work(shelf: Shelf) -> None:
    flux = replace(shelf, base=shelf.base.model_copy(update={"family": "flux"}))
    with pytest.raises(Invalid, match="cannot be trained on it yet"):
        train("train these, call it bob", flux)


def test_a_base_without_a_vocabulary_draws_too(tmp_path: Path) -> None:
    full = open_shelf(tmp_path)
    bare = Shelf(full.catalog, full.base, None)
    assert picture("a red fox on teal in pixel art", bare).prompt == "crsp a red fox, teal background, pixel art style"

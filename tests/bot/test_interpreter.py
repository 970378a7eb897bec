import time
from pathlib import Path
from typing import Any

import pytest

from bot.conversation import Conversation, Order, Shot
from bot.intent import NO_NUMBERS, Intent, Reading, Scene
from bot.interpreter import understand
from bot.message import Attachment
from bot.prompts import examples
from bot.rules.lexicon import Lexicon
from bot.rules.text import plain
from engine.plans import MAX_PROMPT, ImagePlan
from tests.fakes.shelf import make_catalog, make_lexicon

MUG = Scene(subject="a red mug", place="on a podium", style="", avoid="")
MUG_PLAN = ImagePlan("a red mug on a podium", "paper", 1, 256, 256, 12, 4.0, "dpm++")
AFTER_A_MUG = Conversation("t", shots=(Shot(Order("draw", MUG, (), NO_NUMBERS), MUG_PLAN, ()),))
NOTHING_YET = Conversation("t")


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Lexicon:
    return make_lexicon(tmp_path_factory.mktemp("home"))


def read(text: str, lexicon: Lexicon, last: bool = False, attached: int = 0) -> Intent:
    files = tuple(Attachment(name=f"{k}.png", data=b"x") for k in range(attached))
    return understand(plain(text), files, AFTER_A_MUG if last else NOTHING_YET, lexicon)


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """Each field of `wanted` that `found` does not hold."""
    if isinstance(wanted, dict):
        return [line for key in wanted for line in differences(wanted[key], found[key], f"{where}.{key}")]
    if isinstance(wanted, list | tuple):
        if len(wanted) != len(found):
            return [f"{where}: {found!r}"]
        return [
            line
            for k, pair in enumerate(zip(wanted, found, strict=True))
            for line in differences(*pair, f"{where}[{k}]")
        ]
    if isinstance(wanted, float):
        return [] if found == pytest.approx(wanted) else [f"{where}: {found!r}"]
    return [] if wanted == found else [f"{where}: {found!r}"]


@pytest.mark.parametrize(
    "example", examples(), ids=lambda example: f"{example['intent']}: {example['text'] or 'no words'}"
)
def test_every_example_is_read_as_it_says(example: dict[str, Any], lexicon: Lexicon) -> None:
    intent = read(example["text"], lexicon, example.get("last", False), example.get("attached", 0))
    assert intent.kind == example["intent"]
    assert differences(example.get("says", {}), intent.model_dump()) == []


def test_every_intent_has_examples() -> None:
    kinds = {
        "draw",
        "brand_asset",
        "character",
        "product_shot",
        "style_transfer",
        "change",
        "train",
        "question",
        "ask_back",
    }
    assert {example["intent"] for example in examples()} == kinds


def test_no_field_of_an_intent_has_a_default_and_the_schema_offers_any_of() -> None:
    schema = Reading.model_json_schema()
    assert "oneOf" not in str(schema)
    for definition in schema["$defs"].values():
        assert definition.get("additionalProperties") is False
        assert set(definition["properties"]) == set(definition["required"])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a red train on a bridge", "draw"),
        ("draw a train station", "draw"),
        ("train on these", "train"),
        ("please train this character", "train"),
        ("how do I train one?", "question"),
    ],
)
def test_the_vehicle_and_the_verb_train_are_told_apart(text: str, kind: str, lexicon: Lexicon) -> None:
    assert read(text, lexicon).kind == kind


@pytest.mark.parametrize(
    "text", ["can you draw a cat?", "could we get a banner with a fox?", "how about a tiger in the forest?"]
)
def test_a_request_put_as_a_question_is_a_request(text: str, lexicon: Lexicon) -> None:
    assert read(text, lexicon).kind in ("draw", "brand_asset")


@pytest.mark.parametrize("text", ["in teracotta style", "with the foo lora", "in our frobnitz style"])
def test_an_unknown_style_is_kept_as_a_wish_and_not_dropped(text: str, lexicon: Lexicon) -> None:
    intent = read(f"a fox {text}", lexicon)
    assert intent.kind in ("draw", "brand_asset")
    assert len(intent.loras) == 1  # type: ignore[union-attr]


def test_a_lora_that_was_just_learnt_is_understood_in_the_next_sentence(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    before = Lexicon.of(catalog.list(), None)
    assert read("Crabby at the beach", before).kind == "draw"
    card = catalog.get("inky").model_copy(update={"name": "crabby", "title": "Crabby"})
    assert read("Crabby at the beach", Lexicon.of((*catalog.list(), card), None)).kind == "character"


def test_a_plain_noun_is_ours_only_when_we_say_so(lexicon: Lexicon) -> None:
    assert read("draw a mug", lexicon).kind == "draw"
    assert read("draw our mug", lexicon).kind == "product_shot"


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a fox ",
        ",",
        "make it ",
        "<lora:",
        "the ",
        "again ",
        "thanks, ",
        "Inky ",
        "it's for ",
        "two of ",
        "as like ",
    ],
)
def test_a_message_of_any_length_is_read_to_the_end(unit: str, lexicon: Lexicon) -> None:
    assert read((unit * MAX_PROMPT)[:MAX_PROMPT], lexicon, last=True).kind


@pytest.mark.parametrize("text", ["1" * 1_500, "drop " + "here " * 300 + "not " * 600])
def test_no_message_holds_up_the_others(text: str, lexicon: Lexicon) -> None:
    began = time.process_time()
    read(text, lexicon)
    assert time.process_time() - began < 1.5  # it was a minute and more


@pytest.mark.parametrize("text", ["two of Inky", "draw two of our mascot Inky waving", "two of our mug on a podium"])
def test_several_of_a_known_one_are_several_pictures(text: str, lexicon: Lexicon) -> None:
    intent = read(text, lexicon)
    assert intent.kind in ("character", "product_shot")
    assert intent.frame.count == 2  # type: ignore[union-attr]
    assert "two" not in intent.scene.subject  # type: ignore[union-attr]


@pytest.mark.parametrize("thing", ["a fox in teh snow", "a cat tattoo", "a bargain"])
def test_a_word_that_ends_like_a_courtesy_stays_whole(thing: str, lexicon: Lexicon) -> None:
    intent = read(f"draw {thing}", lexicon)
    assert f"{intent.scene.subject} {intent.scene.place}".strip() == thing  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", ["square", "tall"])
def test_a_shape_may_stand_between_commas(shape: str, lexicon: Lexicon) -> None:
    intent = read(f"Inky on a table, {shape}, no text pls", lexicon)
    assert (intent.scene.subject, intent.scene.avoid) == ("Inky", "text")  # type: ignore[union-attr]
    assert intent.frame.shape == shape  # type: ignore[union-attr]


def test_more_of_a_quality_is_not_more_of_the_style(lexicon: Lexicon) -> None:
    premium = read("make it look more premium", lexicon, last=True)
    style = read("more style please", lexicon, last=True)
    assert premium.nudges == ()  # type: ignore[union-attr]
    assert "premium" in premium.unread  # type: ignore[union-attr]
    assert [nudge.by for nudge in style.nudges] == [0.2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("which one is nicer?", "taste"),
        ("which do you prefer?", "taste"),
        ("which of them looks best", "taste"),
        ("give me the png", "file"),
        ("send me the file please", "file"),
        ("how can I download it?", "file"),
    ],
)
def test_what_is_asked_of_the_pictures_that_are_there(text: str, topic: str, lexicon: Lexicon) -> None:
    intent = read(text, lexicon, last=True)
    assert (intent.kind, intent.topic) == ("question", topic)  # type: ignore[union-attr]


def test_a_product_that_the_base_does_not_draw_is_ours_with_the(tmp_path: Path) -> None:
    mug = make_catalog(tmp_path).get("fold-mug")
    kettle = mug.model_copy(update={"name": "steamer", "title": "Steamer", "word": "kettle", "aliases": ()})
    other = kettle.model_copy(update={"name": "whistler", "title": "Whistler"})
    sentence = "3 banners with the kettle"
    assert [wish.name for wish in read(sentence, Lexicon.of((kettle, mug), None)).loras] == ["steamer"]  # type: ignore[union-attr]
    assert read(sentence, Lexicon.of((kettle, other), None)).loras == ()  # type: ignore[union-attr]


def test_a_lora_that_is_deleted_is_not_drawn(lexicon: Lexicon) -> None:
    intent = read("delete Inky", lexicon, last=True)
    assert (intent.loras, intent.without) == ((), ("inky",))  # type: ignore[union-attr]

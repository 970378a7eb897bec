"""What is said in a conversation makes sense in a conversation."""

from pathlib import Path

import pytest

from bot.conversation import Conversation
from bot.intent import Draw
from bot.interpreter import understand
from bot.planner import plan_for
from bot.replies import hint_in_chat, stack_said
from bot.rules.lexicon import Lexicon
from bot.shelf import Shelf
from bot.wiring import SHIPPED_LORAS
from engine import bases
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog
from engine.errors import (
    AtelierError,
    DiskFull,
    Invalid,
    NameTaken,
    ShippedName,
    TooFewPictures,
    TrainingDiverged,
    UnknownLora,
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnknownLora("nope"), "“which LoRAs do you have?”"),
        (UnknownLora("inkey", ("inky",)), "Did you mean inky?"),
        (NameTaken("pip"), "“replace it”"),
        (ShippedName("inky"), "never replaced"),
        (TrainingDiverged(3), "“rank 8”"),
        (DiskFull("/data"), "Free some space"),
        (Invalid("size", "0x0 has no pixels", "Say for example --size 256x256."), "Say for example size 256x256."),
        (Invalid("folder", "it cannot be written to", "Name one: --home DIR (or --out DIR)."), "Start Atelier"),
        (TooFewPictures(1, 4), "Add PNG"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_hint_in_chat_names_no_option_and_no_command(error: AtelierError, said: str) -> None:
    hint = hint_in_chat(error)
    assert said in hint
    assert "--" not in hint
    assert "`" not in hint


@pytest.mark.parametrize(
    ("text", "stack"),
    [
        ("a banner with a rose for our campaign", "coral 0.8: our brand"),
        ("a banner with a rose in our brand colours", "coral 0.8: our summer brand"),
        ("a banner with a rose, in the colours of our brand", "coral 0.8: our summer brand"),
        ("an instagram post with a rose in coral", "coral 0.8: our summer brand"),
        ("a banner with a rose, forest style", "forest 0.8: our heritage brand"),
        ("a mug in our heritage look", "forest 0.8: our heritage brand"),
        ("Inky at the beach", "inky 1: the character"),
        ("a packshot of our teapot in coral", "coral 0.8: our summer brand; brewster 1: the product"),
    ],
)
def test_each_shipped_lora_is_said_with_its_own_reason(text: str, stack: str, tmp_path: Path) -> None:
    base = bases.find("pocket")
    shelf = Shelf(Catalog(SHIPPED_LORAS, tmp_path), base, Vocabulary.of(base))
    intent = understand(text, (), Conversation("t"), Lexicon.of(shelf.catalog.list(), shelf.vocabulary))
    assert not isinstance(intent, Draw)
    planned = plan_for(intent, Conversation("t"), shelf, 1)  # type: ignore[arg-type]
    assert stack_said(planned.order.stack) == f"{stack}; crisp 0.5: quality."  # type: ignore[union-attr]

"""Sentences by people who had not seen the rules, read over the shipped LoRAs and Pocket's own words.

`heard_sentences.toml` was unseen once and the rules have been mended by it; `unseen_sentences.toml` never was.
"""

import tomllib
from pathlib import Path

import pytest

from bot.conversation import Conversation
from bot.interpreter import understand
from bot.message import Attachment
from bot.rules.lexicon import Lexicon
from bot.rules.text import plain
from bot.wiring import SHIPPED_LORAS
from engine import bases
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog
from tests.bot.test_interpreter import AFTER_A_MUG, NOTHING_YET


@pytest.mark.parametrize("file", ["heard_sentences.toml", "unseen_sentences.toml"])
def test_nine_of_ten_sentences_are_taken_for_what_they_are(file: str, tmp_path: Path) -> None:
    sentences = tomllib.loads((Path(__file__).parent / file).read_text(encoding="utf-8"))["sentence"]
    lexicon = Lexicon.of(Catalog(SHIPPED_LORAS, tmp_path).list(), Vocabulary.of(bases.find("pocket")))
    wrong: list[str] = []
    for sentence in sentences:
        files = tuple(Attachment(name=f"{k}.png", data=b"x") for k in range(sentence["pictures"]))
        talk: Conversation = AFTER_A_MUG if sentence["after_picture"] else NOTHING_YET
        found = understand(plain(sentence["text"]), files, talk, lexicon).kind
        if found != sentence["intent"]:
            wrong.append(f"{sentence['text']!r} is {sentence['intent']}, was read as {found}")
    assert len(sentences) >= 60
    assert len(wrong) <= len(sentences) // 10, "\n".join(wrong)

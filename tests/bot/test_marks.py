"""Marks in a conversation: choices are made by the picture's own seed, weights go round the reading of the words."""

from pathlib import Path

import pytest

from engine.plans import TrainPlan
from engine.prompts import MARKED
from tests.bot.talking import SEED, Talk

CHOICE = "a {red|blue|green|yellow} mug on a {podium|beach}"


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    return Talk(tmp_path)


async def test_a_choice_is_made_before_the_sentence_is_read(talk: Talk) -> None:
    await talk.say(CHOICE)
    first = talk.picture
    assert "{" not in first.prompt
    assert "|" not in first.prompt
    assert (first.seed, first.syntax) == (SEED, MARKED)
    await talk.say(CHOICE, thread="another")
    assert talk.picture.prompt == first.prompt


async def test_a_seed_that_is_said_is_the_one_that_chooses(talk: Talk) -> None:
    prompts: set[str] = set()
    for seed in range(12):
        await talk.say(f"{CHOICE}, seed {seed}", thread=str(seed))
        assert talk.picture.seed == seed
        before = talk.picture.prompt
        await talk.say(f"{CHOICE}, seed {seed}", thread=f"{seed} again")
        assert talk.picture.prompt == before
        prompts.add(before)
    assert len(prompts) > 3


async def test_a_change_keeps_its_seed_and_chooses_by_it(talk: Talk) -> None:
    await talk.say("a red mug on a podium, seed 5")
    await talk.say("make the background {teal|green|blue|yellow}")
    first = talk.picture
    assert first.seed == 5
    assert "{" not in first.prompt
    await talk.say("a red mug on a podium, seed 5", thread="b")
    await talk.say("make the background {teal|green|blue|yellow}", thread="b")
    assert talk.picture.prompt == first.prompt


async def test_another_one_keeps_the_words_that_were_chosen(talk: Talk) -> None:
    await talk.say(CHOICE)
    before = talk.picture
    await talk.say("another one")
    assert talk.picture.prompt == before.prompt


async def test_a_wildcard_that_there_is_not_is_said(talk: Talk) -> None:
    reply = await talk.say("a __nothing__ on a podium")
    assert "wildcards" in reply.text
    assert not talk.engine.plans


async def test_a_weight_stands_at_its_words_and_stays_over_changes(talk: Talk) -> None:
    await talk.say("a (red:1.4) mug on a podium")
    assert "(red:1.4)" in talk.picture.prompt
    await talk.say("a red mug on a podium", thread="plain")
    plain = talk.picture.prompt
    assert "(" not in plain
    await talk.say("another one")
    assert talk.picture.prompt == plain.replace("red", "(red:1.4)")
    await talk.say("put a (hat:0.7) on it")
    assert "(red:1.4)" in talk.picture.prompt


async def test_the_unknown_word_sentence_counts_no_marks(talk: Talk) -> None:
    plain = await talk.say("a red mug on a podium")
    said = await talk.say("a (red:1.4) mug on a podium", thread="b")
    assert said.text.replace("(red:1.4)", "red").replace(str(talk.picture.seed), "") == plain.text.replace(
        str(talk.picture.seed), ""
    )


async def test_a_weight_out_of_range_is_refused_and_a_ratio_is_none(talk: Talk) -> None:
    reply = await talk.say("a (red:9) mug on a podium")
    assert "weight 9 of “red”" in reply.text
    assert not talk.engine.plans
    await talk.say("a red mug on a podium (16:9)")
    assert ":9)" not in talk.picture.prompt


async def test_a_training_is_asked_for_as_before(talk: Talk) -> None:
    await talk.say("learn a new character (a fox), call it {Rolf|Rolf}", attached=12)
    assert isinstance(talk.plan, TrainPlan)
    assert talk.training.name == "rolf"

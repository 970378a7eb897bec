"""Buttons, sets of pictures over several messages, and the settings of a channel, as a person meets them."""

import itertools
from pathlib import Path

import pytest

from bot.message import Attachment, Inbound, Press, Reply, Verb
from engine.plans import ImagePlan
from tests.bot.talking import SEED, Talk, pictures

NUMBERS = itertools.count()


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    return Talk(tmp_path)


async def press(talk: Talk, verb: Verb, of: str, picture: int = 0, person: str = "p") -> Reply:
    pressed = Press(verb=verb, of=of, picture=picture)
    inbound = Inbound(id=f"press {next(NUMBERS)}", thread="t", person=person, text="", press=pressed)
    *_, last = [reply async for reply in talk.assistant.answer(inbound)]
    return last


async def test_a_picture_says_which_buttons_go_with_it(talk: Talk) -> None:
    reply = await talk.say("Inky at the beach")
    assert reply.actions == ("vary", "seed", "why", "recipe", "train")
    bare = await talk.say("a fox, no LoRAs")
    assert "why" not in bare.actions


async def test_vary_draws_the_picture_under_the_button_with_another_seed(talk: Talk) -> None:
    await talk.say("Inky at the beach, seed 42")
    await talk.say("a red mug, seed 43")
    reply = await press(talk, "vary", "console:0")
    assert reply.pictures
    assert (talk.picture.prompt, talk.picture.seed) == ("nkyx octopus at the beach", SEED)


async def test_the_seed_that_is_kept_is_that_of_the_very_picture(talk: Talk) -> None:
    await talk.say("three pictures of Inky at the beach, seed 42")
    await talk.say("a red mug, seed 7")
    reply = await press(talk, "seed", "console:0", 2)
    assert "Seed 44 stays" in reply.text
    await talk.say("same but on teal")
    assert (talk.picture.seed, talk.picture.count, talk.picture.prompt) == (44, 1, "nkyx octopus, teal background")


async def test_the_recipe_is_all_that_makes_the_picture(talk: Talk) -> None:
    await talk.say("Inky at the beach, seed 42")
    reply = await press(talk, "recipe", "console:0")
    assert "Seed 42" in reply.text
    assert "inky 1 (" in reply.text
    assert talk.picture.prompt in reply.text


async def test_why_draws_the_same_seed_without_each_lora_and_shows_one_sheet(talk: Talk) -> None:
    await talk.say("Inky at the beach in terracotta, seed 42")
    drawn = len(talk.engine.plans)
    reply = await press(talk, "why", "console:0")
    plans = [plan for plan in talk.engine.plans[drawn:] if isinstance(plan, ImagePlan)]
    assert [tuple(ref.name for ref in plan.stack.refs) for plan in plans] == [
        (), ("inky", "terracotta"), ("crisp", "terracotta"), ("crisp", "inky"),
    ]  # fmt: skip
    assert {plan.seed for plan in plans} == {42}
    assert len(reply.pictures) == 1
    assert reply.pictures[0].file.is_file()


async def test_a_button_under_a_forgotten_picture_says_so(talk: Talk) -> None:
    reply = await press(talk, "vary", "console:99")
    assert reply.error is not None
    assert "not among the latest" in reply.text


async def test_stopping_nothing_is_said(talk: Talk) -> None:
    assert (await press(talk, "cancel", "console:0")).text == "There is nothing of yours to stop there."
    assert (await talk.say("never mind")).text == "There is nothing of yours to stop there."


async def test_pictures_gathered_by_buttons_become_a_lora_when_they_are_enough(talk: Talk) -> None:
    await talk.say("three pictures of Inky at the beach, seed 42")
    await talk.say("two pictures of Inky in the snow, seed 50")
    reply = await press(talk, "train", "console:0")
    assert "3 pictures in hand for a new LoRA; 1 more at least" in reply.text
    assert "What shall it be called?" in (await press(talk, "train", "console:1")).text
    reply = await talk.say("call it Pip")
    assert reply.lora is not None
    assert len(talk.training.examples) == 5


async def test_a_set_may_come_over_several_messages(talk: Talk) -> None:
    reply = await talk.say("train a character called Pip", attached=3)
    assert "3 usable pictures: 1 more at least" in reply.text
    reply = await talk.say("", files=_more(3, 6))
    assert reply.lora is not None
    assert len(talk.training.examples) == 6


async def test_a_set_does_not_grow_for_ever(talk: Talk) -> None:
    assert "these 40 pictures" in (await talk.say("", files=_more(0, 40))).text
    assert "these 30 pictures" in (await talk.say("", files=_more(40, 70))).text


@pytest.mark.parametrize("name", ["not", "stop", "red", "Draw"])
async def test_a_word_of_everyday_is_no_name_and_no_trigger(talk: Talk, name: str) -> None:
    assert "What else" in (await talk.say(f'learn a character, its name is "{name}"', attached=5)).text
    assert (await talk.say("call it Pip")).lora is not None
    refused = await talk.say(f"learn a character from these, call it Pop, trigger {name}", attached=5)
    assert refused.error is not None
    assert "many sentences" in refused.text


async def test_dropped_pictures_are_asked_about_and_more_may_follow(talk: Talk) -> None:
    assert "these 5 pictures" in (await talk.say("", attached=5)).text
    assert "these 9 pictures" in (await talk.say("", files=_more(5, 9))).text
    reply = await talk.say("learn a character from them, call it Pip")
    assert reply.lora is not None
    assert len(talk.training.examples) == 9


async def test_a_channel_has_loras_that_are_always_used_until_that_ends(talk: Talk) -> None:
    assert "always terracotta" in (await talk.say("here, always terracotta")).text
    await talk.say("a red mug")
    assert talk.stack == {"terracotta": 0.8, "crisp": 0.5}
    await talk.say("a red mug without terracotta")
    assert talk.stack == {"crisp": 0.5}
    assert "nothing is always used" in (await talk.say("forget the defaults here")).text
    await talk.say("a red mug")
    assert talk.stack == {"crisp": 0.5}


async def test_an_unknown_default_is_refused_by_name(talk: Talk) -> None:
    reply = await talk.say("here, always use terracota")
    assert reply.error is not None
    assert "terracotta" in reply.text


async def test_in_a_training_channel_dropped_pictures_are_a_set(talk: Talk) -> None:
    await talk.say("pictures dropped here are for training")
    assert "called" in (await talk.say("", attached=5)).text
    reply = await talk.say("Pip")
    assert reply.lora is not None


def _more(first: int, end: int) -> tuple[Attachment, ...]:
    return pictures(end)[first:]

"""A picture that is sent to be followed: done where that can be, else said what is missing, and never drawn over."""

from pathlib import Path

import pytest

from bot.conversation import Shot
from bot.message import Inbound
from bot.replies import recipe_said
from bot.rules.following import following
from tests.bot.talking import Talk, pictures
from tests.fakes.shelf import put_adapter, put_control


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    return Talk(tmp_path)


def inbound(text: str, attached: int = 1) -> Inbound:
    return Inbound(id="1", thread="t", person="p", text=text, attachments=pictures(attached))


async def last_shot(talk: Talk) -> Shot:
    found = (await talk.assistant._history.open(inbound(""))).last
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "what", "rest"),
    [
        ("a fox in this pose", "pose", "a fox"),
        ("Draw a robot in the same pose, please", "pose", "Draw a robot, please"),
        ("a knight, in the pose of this picture", "pose", "a knight"),
        ("a castle, follow these edges", "edge", "a castle"),
        ("a castle following the edges of this photo", "edge", "a castle"),
        ("a red mug with these outlines", "edge", "a red mug"),
        ("a room, use this depth map", "depth", "a room"),
        ("use this sketch: a fox on a beach", "sketch", "a fox on a beach"),
        ("a fox from my sketch", "sketch", "a fox"),
        ("Can you use this sketch, please?", "sketch", ""),
        ("the same but in the pose of this picture", "pose", ""),
        ("please draw it in this pose", "pose", ""),
        ("a mug in the look of this picture", "look", "a mug"),
        ("a mug in the style of this photo", "look", "a mug"),
        ("a mug that looks like this poster", "look", "a mug"),
    ],
)
def test_what_is_to_be_followed_is_heard_and_taken_out(text: str, what: str, rest: str) -> None:
    found = following(inbound(text))
    assert found is not None
    assert (found.what, found.rest) == (what, rest)
    assert following(inbound(text, attached=0)) is None


@pytest.mark.parametrize(
    "text",
    [
        "turn this into pixel art", "make the mug blue", "a fox in a heroic pose", "make it look like pixel art",
        "turn this sketch into a watercolor", "a mug with the lines of a poem", "this is inky", "draw a fox like this",
        "learn this style from these pictures, call it mine", "in the style of terracotta",
    ],
)  # fmt: skip
def test_other_words_about_a_picture_are_left_as_they_are(text: str) -> None:
    assert following(inbound(text)) is None


@pytest.mark.parametrize(
    ("text", "kind", "note"),
    [
        ("a fox in this pose", "pose", "I cannot find poses in a photograph"),
        ("a fox, follow these edges", "edge", "It follows the edges of your picture"),
        ("use this sketch: a fox", "sketch", "It follows your sketch"),
    ],
)
async def test_it_is_followed_and_not_drawn_over(talk: Talk, text: str, kind: str, note: str) -> None:
    put_control(talk.home, "net", kind)
    reply = await talk.say(text, attached=1)
    assert note in reply.text
    assert [c.kind for c in talk.picture.controls] == [kind]
    assert talk.picture.image is None
    assert "fox" in talk.picture.prompt
    assert not {"pose", "edges", "sketch"} & set(talk.picture.prompt.split())


async def test_what_is_changed_later_still_follows_it(talk: Talk) -> None:
    put_control(talk.home, "net", "edge")
    await talk.say("a red mug, follow these edges", attached=1)
    controls = talk.picture.controls
    await talk.say("make it blue")
    assert "blue" in talk.picture.prompt
    assert talk.picture.controls == controls
    assert "Follows pictures: edge 1" in recipe_said(await last_shot(talk), talk.shelf)
    await talk.say("draw a fox on a beach")
    assert talk.picture.controls == ()


async def test_a_sketch_without_a_word_is_for_the_last_picture_or_asks_what_to_show(talk: Talk) -> None:
    put_control(talk.home, "net", "sketch")
    assert (await talk.say("use this sketch", attached=1)).text == "What shall it show?"
    await talk.say("Draw a fox")
    assert "fox" in talk.picture.prompt
    assert [c.kind for c in talk.picture.controls] == ["sketch"]
    await talk.say("a castle")
    await talk.say("can you use this sketch, please?", attached=1)
    assert "castle" in talk.picture.prompt
    assert [c.kind for c in talk.picture.controls] == ["sketch"]


async def test_an_answer_joins_what_was_said_before(talk: Talk) -> None:
    put_control(talk.home, "net", "edge")
    assert (await talk.say("a banner, follow these edges", attached=1)).text == "What shall it show?"
    await talk.say("a castle")
    assert "castle" in talk.picture.prompt
    assert talk.picture.width > talk.picture.height  # as a banner is
    assert [c.kind for c in talk.picture.controls] == ["edge"]


async def test_where_none_is_installed_the_reply_says_what_is_missing(talk: Talk) -> None:
    reply = await talk.say("a fox in this pose", attached=1)
    assert "Paper has no ControlNet for it" in reply.text
    assert "atelier controls add FOLDER --kind pose" in reply.text
    assert talk.engine.plans == []


async def test_a_look_is_a_reference_and_the_refusal_of_a_base_is_said(talk: Talk) -> None:
    reply = await talk.say("a fox in the look of this picture", attached=1)
    assert "Paper takes no reference pictures without an IP-Adapter" in reply.text
    assert "atelier references add FILE --encoder FOLDER" in reply.text
    put_adapter(talk.home, "looks")
    reply = await talk.say("a fox in the look of this picture", attached=2)
    assert len(talk.picture.references) == 1
    assert talk.picture.image is None
    assert "Only the first" in reply.text

"""Faces, poses, views, lights, counts and places: the words that a base was taught reach it unharmed."""

from dataclasses import replace

import pytest

from bot.conversation import Conversation, Planned, Shot
from bot.intent import Question
from bot.interpreter import understand
from bot.manners import in_mood, is_manner, kind_of, without_rivals
from bot.planner import plan_for
from bot.replies import answer
from bot.rules.lexicon import Lexicon
from bot.rules.text import plain
from bot.shelf import Shelf
from engine.bases.vocabulary import Vocabulary
from engine.plans import ImagePlan
from tests.bot.talking import open_shelf
from tests.fakes.shelf import VOCABULARY

TAUGHT = VOCABULARY | {
    "backgrounds": [*VOCABULARY["backgrounds"], "space", "shelf", "waves", "rays", "kitchen", "living room", "marble"],
    "styles": [*VOCABULARY["styles"], "comic", "vintage", "paper cut", "pencil sketch", "chalkboard"],
    "words": [*VOCABULARY["words"], "close", "sitting", "standing", "pattern", "wide", "tall"],
    "nouns": VOCABULARY["nouns"] | {"lightning bolt": "thing", "bed": "thing"},
    "expressions": ["happy", "angry", "surprised", "grumpy"],
    "poses": ["waving", "sitting", "standing still", "pointing left", "pointing to the right", "with arms up",
              "holding a red heart", "taking a bow"],
    "views": ["front view", "three-quarter view", "side view", "seen from the side", "seen from above"],
    "lights": ["soft light", "side light", "top light", "back light"],
    "materials": ["matte", "glossy", "glass"], "outfits": ["scarf", "cape"],
    "layouts": ["copy space on the left", "room for text on the right"],
}  # fmt: skip


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return replace(open_shelf(tmp_path_factory.mktemp("home")), vocabulary=Vocabulary.made(TAUGHT))


def planned(text: str, shelf: Shelf, talk: Conversation | None = None) -> Planned:
    talk = talk or Conversation("t")
    lexicon = Lexicon.of(shelf.catalog.list(), shelf.vocabulary)
    found = plan_for(understand(plain(text), talk.files, talk, lexicon), talk, shelf, 7)  # type: ignore[arg-type]
    assert isinstance(found, Planned), found
    return found


def picture(text: str, shelf: Shelf, talk: Conversation | None = None) -> ImagePlan:
    found = planned(text, shelf, talk).plan
    assert isinstance(found, ImagePlan)
    return found


def after(text: str, shelf: Shelf) -> Conversation:
    found = planned(text, shelf)
    assert isinstance(found.plan, ImagePlan)
    assert found.order is not None
    return Conversation("t").drawn(Shot(found.order, found.plan, (b"png",)))


@pytest.mark.parametrize(
    "text",
    [
        "a fox waving",
        "an angry bear with a red scarf",
        "a happy fox sitting on the grass",
        "a sitting cat",
        "a fox with arms up",
        "a fox holding a red heart",
        "a fox pointing left",
        "a fox pointing to the right, side view",
        "a fox taking a bow, seen from the side",
        "a mug from above",
        "a mug seen from above, soft light",
        "a glossy red mug with side light",
        "a matte bottle, three-quarter view, back light",
        "a close-up of a mug",
        "a mug, close-up",
        "a mug, copy space on the left",
        "a mug on the right with copy space on the left",
        "a fox, room for text on the right, on a podium",
        "three apples",
        "four red apples on a table",
        "two foxes",
        "an apple behind a mug",
        "an apple in front of a mug",
        "an apple above a mug",
        "a mug below an apple",
        "an apple to the left of a mug",
        "a fox next to a bear",
        "a pattern of strawberries",
        "a small fox on the left",
        "a large mug in the center",
        "a fox in space",
        "a mug on a shelf",
        "a mug in a kitchen",
        "a bottle on marble",
        "a side view of a mug",
        "a three-quarter view of a bottle",
        "a wide bottle and a tall vase",
    ],
)
def test_what_the_base_was_taught_reaches_the_prompt(text: str, shelf: Shelf) -> None:
    found = picture(text, shelf)
    assert found.count == 1
    said = found.prompt.removeprefix("crsp ")
    assert sorted(said.replace(",", "").split()) == sorted(text.replace(",", "").split())
    assert shelf.vocabulary is not None
    assert shelf.vocabulary.unknown(text) == ()


@pytest.mark.parametrize(
    ("text", "count", "prompt"),
    [
        ("three pictures of apples", 3, "crsp apples"),
        ("two pictures of three apples", 2, "crsp three apples"),
        ("three close-ups of a mug", 3, "crsp close-ups of a mug"),
        ("a product shot of a bottle, three-quarter view, soft light", 1,
         "crsp a product photo of a bottle, three-quarter view, soft light"),
        ("Inky waving, three-quarter view", 1, "nkyx octopus waving, three-quarter view"),
        ("an angry Inky with arms up", 1, "an angry nkyx octopus with arms up"),
    ],
)  # fmt: skip
def test_pictures_are_counted_and_things_are_not(text: str, count: int, prompt: str, shelf: Shelf) -> None:
    found = picture(text, shelf)
    assert (found.count, found.prompt) == (count, prompt)


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("from above", "a red fox from above"),
        ("seen from the side please", "a red fox seen from the side"),
        ("with side light", "a red fox, side light"),
        ("close-up", "a red fox, close-up"),
        ("copy space on the left", "a red fox, copy space on the left"),
        ("make it angry", "an angry red fox"),
        ("make the fox look surprised", "a surprised red fox"),
        ("make it wave", "a red fox waving"),
        ("make it sit", "a red fox sitting"),
        ("in front of a castle", "a red fox in front of a castle"),
        ("in front view and soft light", "a red fox, front view, soft light"),
    ],
)
def test_said_alone_a_manner_is_added_to_the_picture_that_is_there(text: str, prompt: str, shelf: Shelf) -> None:
    found = picture(text, shelf, after("a red fox at the beach, seed 4", shelf))
    assert (found.prompt, found.seed) == (f"crsp {prompt} at the beach", 4)


def test_a_picture_has_one_view_one_light_and_one_face(shelf: Shelf) -> None:
    talk = after("a happy fox, side view, soft light", shelf)
    assert picture("front view", shelf, talk).prompt == "crsp a happy fox, soft light, front view"
    assert picture("with back light", shelf, talk).prompt == "crsp a happy fox, side view, back light"
    assert picture("make it angry", shelf, talk).prompt == "crsp an angry fox, side view, soft light"


def test_what_is_a_manner_and_what_is_not() -> None:
    assert [kind_of(said) for said in ("from above", "soft light", "copy space", "close up", "a fox")] == [
        "view", "light", "room", "distance", None,
    ]  # fmt: skip
    assert is_manner("now with side light and copy space on the right, please")
    assert not is_manner("a fox from above")
    assert without_rivals("front view", "a fox, seen from the side") == "a fox"
    assert without_rivals("a hat", "a fox, side view") == "a fox, side view"
    assert in_mood("sad", "Inky and a fox") == "sad Inky and a fox"
    assert in_mood("sad", "a fox looking happy") == "a fox sad"


def test_a_lora_is_not_meant_by_a_part_of_a_noun(shelf: Shelf) -> None:
    found = picture("a yellow lightning bolt on teal", shelf)
    assert (found.prompt, [ref.name for ref in found.stack.refs]) == (
        "crsp a yellow lightning bolt, teal background", ["crisp"],
    )  # fmt: skip


def test_some_mascot_is_none_of_ours(shelf: Shelf) -> None:
    assert picture("a happy red fox mascot waving", shelf).prompt == "crsp a happy red fox mascot waving"


def test_a_wall_and_dots_are_said_as_the_base_knows_them(shelf: Shelf) -> None:
    knows = replace(shelf, vocabulary=Vocabulary.made(TAUGHT | {"words": [*TAUGHT["words"], "wall"]}))
    assert picture("a mug on a shelf, blue wall", knows).prompt == "crsp a mug on a shelf, blue wall"
    assert picture("a bed, blue background", knows).prompt == "crsp a bed, blue background"


def test_what_can_be_drawn_names_faces_and_poses(shelf: Shelf) -> None:
    question = Question(kind="question", topic="drawable", about="")
    said = answer(question, Conversation("t"), shelf)
    assert "Expressions: happy, angry, surprised, grumpy." in said
    assert "Lights: soft light, side light" in said

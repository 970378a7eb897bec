"""engine/bases/vocabulary.py: a word that the base never saw is named, one that it knows never is."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine import bases
from engine.bases.vocabulary import Vocabulary
from engine.errors import Invalid
from tests.engine.test_bases import MANIFEST

SAID: dict[str, Any] = {
    "nouns": {
        "fox": "animal", "dog": "animal", "cat": "animal", "wolf": "animal", "mouse": "animal", "bus": "vehicle",
        "octopus": "animal", "goldfish": "animal", "blowfish": "animal", "crab": "animal", "sea turtle": "animal",
        "airship": "vehicle", "balloon": "vehicle", "rocket": "vehicle", "fire truck": "vehicle", "sailboat": "vehicle",
        "hot dog": "food", "cherries": "food", "strawberry": "food", "coffee": "food", "cookie": "food",
        "burger": "food",
        "mug": "product", "t-shirt": "product", "glasses": "product", "knife": "product", "perfume bottle": "product",
        "rose": "plant", "cactus": "plant", "leaf": "plant", "person": "people", "astronaut": "people",
    },
    "held_out": ["crab", "sea turtle", "rose"],
    "colours": ["teal", "red", "navy blue", "orange", "rose"],
    "backgrounds": ["plain", "podium", "beach", "city at night", "snow"],
    "styles": ["pixel art", "line drawing", "watercolour", "neon", "stained glass"],
    "held_out_styles": ["stained glass"],
    "words": ["small", "large", "tiny", "happy", "wearing", "hat"],
    "nonce": ["zqx", "wub"],
}  # fmt: skip
NEAR = {
    "zeppelin": ["airship", "balloon", "rocket"],
    "lobster": ["crab", "octopus", "blowfish"],
    "run": ["dog", "fox", "wolf"],
}
WORDS = Vocabulary.made(SAID, NEAR)


def named(prompt: str, *known: str) -> list[str]:
    return [unknown.word for unknown in WORDS.unknown(prompt, known)]


def near(word: str) -> tuple[str, ...]:
    (unknown,) = WORDS.unknown(f"a {word}")
    return unknown.near


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a fox",
        "A FOX, teal background!",
        "two foxes and three wolves, beside a mouse",
        "the mice's cookies; the dog's mug",
        "12 cherries and one cherry",
        "leaves, knives, buses, cacti, people",
        "a hot dog and two hot dogs",
        "hot-dog on a podium",
        "a t-shirt and T-shirts",
        "t shirt",
        "glasses",
        "a perfume bottle in the city at night",
        "navy-blue fox as pixel art",
        "fox in pixel-art style, in watercolour, with neon",
        "Please draw me a beautiful, high quality picture of a small dog",
        "could you make a really nice photo of an astronaut wearing a hat?",
        "I'd like a burger, it's for us",
        "a happy cat isn't a dog, don't you see",
        "zqx fox, wub",
        "a fox (4k, 3d, 8K) 256x256 #1",
        "fox <lora:terracotta:0.8>, see https://example.org/zeppelin",
        "(fox:1.2), [dog], {cat}",
        "an orange cat on a rose background",
        "“fox” – ‘dog’…",
        "a fox’s mug",
    ],
)
def test_words_that_the_base_has_seen_are_never_named(prompt: str) -> None:
    assert named(prompt) == []


@pytest.mark.parametrize(
    ("said", "own"),
    [
        ("a fox in watercolor", "a fox in watercolour"),
        ("Watercolors of a fox", "watercolours of a fox"),
        ("a teal fox, please", "a teal fox, please"),
        ("a zeppelin in the harbor", "a zeppelin in the harbor"),
    ],
)
def test_the_other_spelling_of_a_word_is_the_word(said: str, own: str) -> None:
    assert WORDS.spelt(said) == own
    assert "watercolor" not in named(said)


@pytest.mark.parametrize(
    "said", ["a grey mug", "a watercolour of two greys", "an aeroplane", "grey mugs, watercolours"]
)
def test_british_spelling_is_known_on_pocket(said: str) -> None:
    pocket = Vocabulary.of(bases.find("pocket"))
    assert pocket is not None
    assert pocket.unknown(said) == ()
    assert pocket.unknown(pocket.spelt(said)) == ()
    assert pocket.spelt("grey", ["grey"]) == "grey"


def test_every_word_of_the_vocabulary_is_known_in_every_number_and_case() -> None:
    for noun in WORDS.nouns:
        plural = noun if noun.endswith("s") else f"{noun}s"
        for text in (noun, noun.upper(), plural, f"{noun}'s", f"a {noun},", noun.replace(" ", "-")):
            assert named(text) == [], text
    for text in (*WORDS.shown, *SAID["words"], *SAID["nonce"]):
        assert named(f"a fox, {text}") == [], text


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a zeppelin on teal", ["zeppelin"]),
        ("A Zeppelin, two ZEPPELINS and a zeppelin's hat", ["zeppelin", "zeppelins", "zeppelin's"]),
        ("a fox in a submarine with a violin", ["submarine", "violin"]),
        ("a crab", ["crab"]),
        ("crabs at the beach", ["crabs"]),
        ("a sea turtle", ["sea turtle"]),
        ("a fire", ["fire"]),
        ("a hot fox", ["hot"]),
        ("a fox in stained glass style", ["stained glass"]),
        ("a low-poly fox", ["low-poly"]),
        ("a цеппелин", ["цеппелин"]),
        ("café", ["café"]),
        ("zeppelin zeppelin", ["zeppelin"]),
        ("🦊 on a podium 🙏", ["🦊"]),
    ],
)
def test_words_that_the_base_never_saw_are_named_once_in_order(prompt: str, words: list[str]) -> None:
    assert named(prompt) == words


@pytest.mark.parametrize(
    ("prompt", "known"),
    [
        ("zqx crab on teal", ("zqx", "crab")),
        ("Bloop crabs, the crab's mug", ("bloop crab",)),
        ("bloop-style fox", ("bloop-style",)),
        ("sea turtle bloop", ("bloop", "sea turtle")),
        ("tr0cotta9 fox", ("tr0cotta9",)),
    ],
)
def test_triggers_and_class_words_are_fine_when_said_to_be_known(prompt: str, known: tuple[str, ...]) -> None:
    assert named(prompt) != [] or prompt.startswith("tr0")
    assert named(prompt, *known) == []


def test_a_trigger_covers_its_own_words_alone() -> None:
    assert named("bloop crab in a zeppelin", "bloop", "crab") == ["zeppelin"]


@pytest.mark.parametrize(
    ("word", "neighbours"),
    [
        ("zeppelin", ("airship", "balloon", "rocket")),
        ("Zeppelins", ("airship", "balloon", "rocket")),
        ("zeppelin-like", ("airship", "balloon", "rocket")),
        ("fire", ("fire truck",)),
        ("bottle", ("perfume bottle",)),
        ("asstronaut", ("astronaut",)),
        ("wattercolor", ("watercolour",)),
        ("🦊", ("fox",)),
        ("huge", ("large",)),
    ],
)
def test_neighbours_are_nearest_in_meaning_then_in_spelling(word: str, neighbours: tuple[str, ...]) -> None:
    found = near(word)
    assert found[: len(neighbours)] == neighbours


def test_neighbours_are_only_what_the_base_can_draw() -> None:
    assert near("lobster") == ("octopus", "blowfish")
    assert 1 <= len(near("stained glass")) <= 3


@pytest.mark.parametrize("word", ["crab", "violin", "цеппелин", "quickly", "xylograph", "battleship", "mog"])
def test_a_word_that_nothing_is_near_to_gets_no_neighbours(word: str) -> None:
    assert near(word) == ()


@pytest.mark.parametrize("word", ["ceo", "Woman", "customers", "kids", "women", "team"])
def test_people_are_named_as_people_without_neighbours_on_pocket(word: str) -> None:
    pocket = Vocabulary.of(bases.find("pocket"))
    assert pocket is not None
    (unknown,) = pocket.unknown(f"a happy {word} holding a bunch of flowers")
    assert (unknown.near, unknown.is_person, unknown.is_realism) == ((), True, False)


@pytest.mark.parametrize("word", ["photorealistic", "photo-real", "Realistic", "hyper-realistic"])
def test_photographs_are_named_as_what_they_are_without_neighbours(word: str) -> None:
    (unknown,) = WORDS.unknown(f"a {word} fox")
    assert (unknown.near, unknown.is_person, unknown.is_realism) == ((), False, True)


def test_a_base_that_has_seen_people_draws_them() -> None:
    assert named("two people, a person") == []


def test_a_wall_of_unknown_words_is_answered_with_the_first_of_them() -> None:
    assert len(named(" ".join(f"q{letter}x{other}" for letter in "bcdfghjklm" for other in "bcdfg"))) == 24


def test_a_style_that_is_not_known_is_answered_with_styles() -> None:
    assert set(near("stained glass")) <= set(WORDS.styles)


def test_the_words_lie_beside_the_base(tmp_path: Path) -> None:
    folder = tmp_path / "bases" / "little"
    folder.mkdir(parents=True)
    (folder / "base.toml").write_text(MANIFEST, "utf-8")
    base = bases.find("little", tmp_path)
    assert Vocabulary.of(base) is None
    (folder / "vocabulary.json").write_text(json.dumps(SAID), "utf-8")
    (folder / "near.json").write_text(json.dumps(NEAR), "utf-8")
    found = Vocabulary.of(base)
    assert found is not None
    assert found.unknown("zeppelin") == (("zeppelin", ("airship", "balloon", "rocket")),)


def test_a_broken_vocabulary_is_a_clear_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "bases" / "little"
    folder.mkdir(parents=True)
    (folder / "base.toml").write_text(MANIFEST, "utf-8")
    (folder / "vocabulary.json").write_text('{"nouns": 3}', "utf-8")
    with pytest.raises(Invalid, match="its words cannot be read"):
        Vocabulary.of(bases.find("little", tmp_path))


FURTHER = Vocabulary.made(
    SAID
    | {
        "expressions": ["grumpy"], "poses": ["pointing to the left", "taking a bow"], "views": ["three-quarter view"],
        "lights": ["soft light"], "layouts": ["copy space on the left"], "outfits": {"cape": 3, "rose": 1},
        "nonsense": 7, "mixed": [1, "glossy"],
    }
)  # fmt: skip


def test_words_of_any_further_list_are_known() -> None:
    prompt = "a grumpy fox in a cape pointing to the left, taking a bow, three-quarter view, soft light, glossy"
    assert FURTHER.unknown(f"{prompt}, copy space on the left") == ()
    assert [word.word for word in WORDS.unknown(prompt)] == [
        "grumpy", "cape", "pointing", "bow", "three-quarter", "soft", "light", "glossy",
    ]  # fmt: skip
    assert FURTHER.more["poses"] == ("pointing to the left", "taking a bow")


def test_what_is_held_out_is_not_known_by_a_further_list() -> None:
    assert FURTHER.more["outfits"] == ("cape",)
    assert [word.word for word in FURTHER.unknown("a crab in a cape")] == ["crab"]

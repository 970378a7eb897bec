"""The LoRAs that ship: what their pictures hold fixed, and that they are learnt beside each other as alone."""

import io

from PIL import Image

from engine.pocket.lexicon import held_out, nouns
from engine.pocket.many import each
from engine.pocket.scenes import BUCKETS
from engine.pocket.starters import STARTERS, examples, shares


def test_each_has_a_name_and_a_trigger_of_its_own_and_a_subject_that_can_be_drawn() -> None:
    assert len({s.name for s in STARTERS}) == len({s.trigger for s in STARTERS}) == len(STARTERS)
    subjects = {s.word for s in STARTERS if s.word}
    assert subjects <= set(nouns())
    assert subjects - set(held_out()) == {"fox"}, "one of them is of a kind that the base knows"


def test_captions_tell_what_varies_and_never_who_it_is() -> None:
    inky = next(s for s in STARTERS if s.name == "inky")
    made = examples(inky.lesson, "inkzo octopus", 4, 3)
    assert all("inkzo octopus" in example.caption for example in made)
    assert not any(
        word in example.caption for example in made for word in ("purple octopus", "yellow hat", "[trigger]")
    )
    sizes = {Image.open(io.BytesIO(example.data)).size[::-1] for example in made}
    assert sizes == {BUCKETS[shape] for shape in shares(4)}


def test_equal_seeds_give_equal_pictures() -> None:
    carryall = next(s for s in STARTERS if s.name == "carryall")
    a, b, other = (examples(carryall.lesson, "hagzuv handbag", 4, seed) for seed in (1, 1, 2))
    assert a == b != other


def test_half_of_the_pictures_are_squares() -> None:
    assert dict(shares(12)) == {"square": 6, "portrait": 3, "landscape": 3}


def test_tasks_are_shared_out_among_processes() -> None:
    words = ["a", "bb", "ccc"]
    assert sorted(each(len, words, 2)) == list(each(len, words, 1)) == [1, 2, 3]

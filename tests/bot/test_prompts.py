import pytest

from bot.intent import GENRES
from bot.prompts import filled, load


@pytest.mark.parametrize("genre", GENRES)
def test_every_genre_has_a_template(genre: str) -> None:
    values = {"shown": "a mug on a podium", "subject": "a mug", "place": "on a podium", "style": ""}
    assert filled(genre, values).endswith("a mug on a podium")
    assert filled(genre, values | {"style": "neon"}).endswith("a mug on a podium, neon style")


def test_a_missing_variable_is_an_error() -> None:
    with pytest.raises(KeyError):
        filled("draw", {"shown": "a mug"})


def test_there_is_no_template_that_nothing_uses() -> None:
    assert set(load("templates")) == set(GENRES)

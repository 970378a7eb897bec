"""Words to choose from: by the seed alone, within bounds, and from no file that is not a wildcard's."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Invalid
from engine.wildcards import MAX_FILE, resolved, wildcards

ANIMALS = ["fox", "owl", "{red|blue} crab"]


def lines(name: str) -> list[str]:
    return {"animals": ANIMALS, "self": ["__self__"], "two": ["__two__ __two__"]}[name]


def seen(text: str, seeds: int = 200) -> Counter[str]:
    return Counter(resolved(text, seed, lines) for seed in range(seeds))


def test_one_of_several_is_chosen_each_about_as_often() -> None:
    counts = seen("a {red|blue|} fox", 600)
    assert set(counts) == {"a red fox", "a blue fox", "a  fox"}
    assert all(150 < count < 250 for count in counts.values())


def test_a_weight_says_how_often() -> None:
    counts = seen("{3::a|b}", 1_000)
    assert 680 < counts["a"] < 820
    assert set(seen("{0::a|b}")) == {"b"}
    assert set(seen("{0::a|0::b}")) <= {"a", "b"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{2$$a|b}", {"a, b", "b, a"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("{9$$a|b}", {"a, b", "b, a"}),
        ("{0$$a|b}", {""}),
        ("{1-2$$ + $$a|b}", {"a", "b", "a + b", "b + a"}),
        ("{a|{b|c}d}", {"a", "bd", "cd"}),
        ("x __animals__", {"x fox", "x owl", "x red crab", "x blue crab"}),
        ("{__animals__|mug}", {"fox", "owl", "red crab", "blue crab", "mug"}),
        ("{(a:1.2)|[b]}", {"(a:1.2)", "[b]"}),
        ("{<lora:a:1>|<lora:b:1>}", {"<lora:a:1>", "<lora:b:1>"}),
    ],
)
def test_what_can_come_of_it(text: str, wanted: set[str]) -> None:
    assert set(seen(text)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{a}", "{a}"), ("a {b", "a {b"), ("a} b", "a} b"), ("a | b", "a | b"), ("0.5::a", "0.5::a"), ("{}", "{}"),
        (r"\{a|b\}", "{a|b}"), (r"{a\|b}", "{a|b}"), (r"\__animals__", "__animals__"), (r"\(a\) \\", r"\(a\) \\"),
        ("a __ b", "a __ b"), ("____", "____"), ("2$$ a", "2$$ a"),
    ],
)  # fmt: skip
def test_what_is_no_choice_is_text(text: str, wanted: str) -> None:
    assert resolved(text, 1, lines) == wanted


PINNED = ["a teal blue crab c, d", "a red fox b, a", "a grey blue crab d, a"]


def test_the_same_seed_gives_the_same_words_on_any_machine() -> None:
    text = "a {red|blue|teal|grey} __animals__ {2$$a|b|c|d}"
    assert [resolved(text, seed, lines) for seed in (1, 2, 4_294_967_295)] == PINNED
    assert resolved(text, 1, lines, "negative") != resolved(text, 1, lines)


@given(st.text(st.characters(exclude_characters="{}\\_", exclude_categories=("Cs",))), st.integers(0, 2**32 - 1))
def test_text_without_marks_comes_back_as_it_is(text: str, seed: int) -> None:
    assert resolved(text, seed) == text


@given(st.text(st.sampled_from("{}|\\_$:-0129ab "), max_size=80), st.integers(0, 9))
def test_no_text_breaks_the_reader(text: str, seed: int) -> None:
    with suppress(Invalid):
        assert resolved(text, seed) == resolved(text, seed)


@pytest.mark.parametrize("text", ["__self__", "__two__", "{" * 40 + "a|b" + "}" * 40, "{a|b}" * 501])
def test_choices_without_end_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        resolved(text, 1, lines)


def test_wildcards_are_lines_of_a_file_in_the_home(tmp_path: Path) -> None:
    folder = tmp_path / "wildcards" / "shop"
    folder.mkdir(parents=True)
    (folder / "hair colour.txt").write_text("\ufeff# colours\n red \n\nblue\r\n", encoding="utf-8")
    assert wildcards(tmp_path)("shop/hair colour") == ["red", "blue"]
    said = {resolved("__shop/hair colour__ hair", seed, wildcards(tmp_path)) for seed in range(40)}
    assert said == {"red hair", "blue hair"}


def test_in_prose_underscores_are_text_until_there_is_a_folder(tmp_path: Path) -> None:
    assert resolved("a __big__ {fox|fox}", 1, wildcards(tmp_path, is_prose=True)) == "a __big__ fox"
    (tmp_path / "wildcards").mkdir()
    with pytest.raises(Invalid, match=r"wildcards/big\.txt"):
        resolved("a __big__ fox", 1, wildcards(tmp_path, is_prose=True))


def test_a_wildcard_leads_to_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "wildcards"
    folder.mkdir()
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (folder / "link.txt").symlink_to(secret)
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    os.mkfifo(folder / "pipe.txt")
    (folder / "big.txt").write_bytes(b"a\n" * (MAX_FILE // 2 + 1))
    (folder / "bytes.txt").write_bytes(b"\xff\xfe")
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "folder.txt").mkdir()
    for name in (
        "link",
        "loop",
        "pipe",
        "big",
        "bytes",
        "empty",
        "folder",
        "none",
        "../secret",
        "/etc/passwd",
        "x" * 300,
    ):
        with pytest.raises(Invalid):
            wildcards(tmp_path)(name)
    for text in ("__../secret__", "__/etc/passwd__", "__..__", "__secret.txt__"):
        assert resolved(text, 1, wildcards(tmp_path)) == text
    with pytest.raises(Invalid) as refused:
        wildcards(tmp_path)("none")
    assert str(tmp_path) not in str(refused.value)


def test_choices_that_come_to_too_much_are_refused() -> None:
    with pytest.raises(Invalid, match="come to too much"):
        resolved("{999$$" + "s" * 4_000 + "$$" + "a|" * 1_500 + "a}", 1)

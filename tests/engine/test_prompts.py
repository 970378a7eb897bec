"""Emphasis and BREAK as people write them: what a prompt with marks comes to."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Invalid
from engine.plans import ImagePlan
from engine.prompts import LITERAL, MARKED, Prompt, Span, check, escaped, marked, parts, plain, taken

MARKS = "()[]\\"
prose = st.text(st.characters(exclude_characters=MARKS, exclude_categories=("Cs",))).filter(lambda t: "BREAK" not in t)
hostile = st.text(st.sampled_from("()[]\\: .,12ab-BREAK|{}"), max_size=60)


def spans(text: str) -> list[tuple[str, float]]:
    (only,) = parts(Prompt(text, MARKED))
    return [(span.text, span.weight) for span in only]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a (red) fox", [("a ", 1), ("red", 1.1), (" fox", 1)]),
        ("a (red:1.4) fox", [("a ", 1), ("red", 1.4), (" fox", 1)]),
        ("a (red: 1.4 ) fox", [("a ", 1), ("red", 1.4), (" fox", 1)]),
        ("(red:.5)", [("red", 0.5)]),
        ("(red:0)", [("red", 0.0)]),
        ("a [red] fox", [("a ", 1), ("red", round(1 / 1.1, 6)), (" fox", 1)]),
        ("((a) b)", [("a", 1.21), (" b", 1.1)]),
        ("((a:2) b:1.5)", [("a", 3.0), (" b", 1.5)]),
        ("([a])", [("a", 1.0)]),
        ("(a [b] c:2)", [("a ", 2.0), ("b", round(2 / 1.1, 6)), (" c", 2.0)]),
        (r"a \(red\) fox", [("a (red) fox", 1)]),
        (r"(a \(b\):1.3)", [("a (b)", 1.3)]),
        (r"a\\b \o/ c", [("a\\b \\o/ c", 1)]),
        ("a fox :)", [("a fox :)", 1)]),
        ("a (fox", [("a (fox", 1)]),
        ("a fox:1.2)", [("a fox:1.2)", 1)]),
        ("a (b [c) d]", [("a ", 1), ("b [c", 1.1), (" d]", 1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("a () b", [("a  b", 1)]),
        ("", [("", 1)]),
    ],
)
def test_brackets_become_weights(text: str, wanted: list[tuple[str, float]]) -> None:
    assert spans(text) == [(said, pytest.approx(weight)) for said, weight in wanted]


def test_neighbours_of_one_weight_are_one_span_however_it_was_written() -> None:
    assert spans("((a))(b:1.21)[([c])]") == [("ab", 1.21), ("c", round(1 / 1.1, 6))]
    assert spans("a [(b)] c") == [("a b c", 1)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a fox BREAK a mug", ["a fox", "a mug"]),
        ("a fox, BREAK, a mug", ["a fox,", ", a mug"]),
        ("BREAK a BREAK BREAK b BREAK", ["a", "b"]),
        ("(a BREAK b:1.2)", ["a", "b"]),
        ("a break in BREAKS", ["a break in BREAKS"]),
        ("BREAK", [""]),
    ],
)
def test_break_begins_a_new_part(text: str, wanted: list[str]) -> None:
    assert ["".join(span.text for span in part) for part in parts(Prompt(text, MARKED))] == wanted


def test_a_prompt_of_before_the_marks_is_text_alone() -> None:
    text = r"a (red:1.4) fox \( [b] BREAK"
    assert parts(Prompt(text, LITERAL)) == ((Span(text),),)


@given(prose)
def test_text_without_marks_comes_back_as_it_is(text: str) -> None:
    assert parts(Prompt(text, MARKED)) == ((Span(text),),)


@given(st.text(st.characters(exclude_categories=("Cs",))).filter(lambda t: "BREAK" not in t))
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    assert parts(Prompt(escaped(text), MARKED)) == ((Span(text),),)


@given(hostile)
def test_no_prompt_breaks_the_reader_and_no_letter_is_lost(text: str) -> None:
    found = parts(Prompt(text, MARKED))
    assert found
    assert all(left.weight != right.weight for part in found for left, right in pairwise(part))
    said = "".join(span.text for part in found for span in part)
    assert [c for c in said if c in "ab"] == [c for c in text if c in "ab"]
    plain(Prompt(text, MARKED))


@given(st.text("ab ", min_size=1).filter(str.strip), st.integers(0, 400))
def test_a_weight_as_written_is_the_weight_that_is_read(words: str, hundredths: int) -> None:
    assert spans(f"({words}:{hundredths / 100})") == [(words, hundredths / 100)]


def test_four_thousand_brackets_are_read_in_a_moment() -> None:
    assert spans("(" * 4_000) == [("(" * 4_000, 1)]
    assert spans("(]" * 2_000) == [("(]" * 2_000, 1)]


@pytest.mark.parametrize("text", ["(a:4.1)", "(a:-1)", "(a:99999999)", "(" * 40 + "a" + ")" * 40])
def test_a_weight_out_of_range_is_refused_in_words(text: str) -> None:
    with pytest.raises(Invalid, match=r"the weight .* of “a” is out of range") as refused:
        ImagePlan(text, "b", 1, 8, 8, 1, 1.0, "dpm++", syntax=MARKED)
    assert "0 to 4" in refused.value.hint
    ImagePlan(text, "b", 1, 8, 8, 1, 1.0, "dpm++")  # as text it is what it is
    with pytest.raises(Invalid, match=r"^negative"):
        ImagePlan("a", "b", 1, 8, 8, 1, 1.0, "dpm++", negative=text, syntax=MARKED)
    check("prompt", Prompt("(a:4)", MARKED))


def test_plain_is_the_words_alone() -> None:
    assert plain(Prompt(r"a ((red:1.4)) [big] fox \(ours\) BREAK a mug", MARKED)) == "a red big fox (ours), a mug"


@pytest.mark.parametrize(
    ("text", "bare", "weights"),
    [
        ("a (red:1.3) fox", "a red fox", {"red": 1.3}),
        ("a (big  red: 0.8) fox, (teal:2) sky", "a big red fox, teal sky", {"big red": 0.8, "teal": 2.0}),
        ("a fox (for our shop)", "a fox (for our shop)", {}),
        ("a banner (16:9)", "a banner (16:9)", {}),
        ("a fox (seed: 7)", "a fox (seed: 7)", {}),
        ("a fox (coral:0.8)", "a fox (coral:0.8)", {}),
        (r"a \(red:1.3) fox", r"a \(red:1.3) fox", {}),
    ],
)
def test_a_conversation_takes_weights_out_and_leaves_prose(text: str, bare: str, weights: dict[str, float]) -> None:
    assert taken(text, {"coral"}) == (bare, tuple(Span(words, weight) for words, weight in weights.items()))


def test_weights_are_put_to_their_words_and_to_no_others() -> None:
    said = (Span("red", 1.3), Span("Big fox", 0.5), Span("nowhere", 2))
    assert marked("bored, a red big  fox, red", said) == "bored, a (red:1.3) (big  fox:0.5), red"
    assert marked("a (red:1.3) mug", (Span("red", 1.2),)) == "a (red:1.3) mug"


def test_a_break_is_looked_for_in_five_characters_at_each_place() -> None:
    """No match spans the space around it, so that 4,000 spaces are looked at once each and not 4,000 times."""
    from engine import prompts

    pattern: re.Pattern[str] = vars(prompts)["_BREAK"]
    assert not set("*+{") & set(pattern.pattern)
    assert [match.span() for match in pattern.finditer(" " * 4000 + "BREAK" + " " * 4000)] == [(4000, 4005)]


@pytest.mark.parametrize(
    "text",
    [
        "a BREAK b",
        "a  BREAK\n\nb  ",
        "BREAK a",
        "a BREAK",
        "a BREAK BREAK b",
        "BREAKFAST BREAK (b  BREAK c:1.2) d",
        "  ",
    ],
)
def test_the_space_around_a_break_belongs_to_it(text: str) -> None:
    """As when it was one pattern: \\s*BREAK\\s*."""
    plainly = re.split(r"\s*\bBREAK\b\s*", text.replace("(", "").replace(":1.2)", ""))
    found = ["".join(span.text for span in spans) for spans in parts(Prompt(text, MARKED))]
    assert found == ([part for part in plainly if part.strip()] or [plainly[0]])

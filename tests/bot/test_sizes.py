"""From words for a size or a shape to what is drawn and how large it is delivered."""

from dataclasses import replace

import pytest

from bot.conversation import Conversation, Planned, Shot
from bot.intent import NO_NUMBERS, Frame
from bot.interpreter import understand
from bot.message import Attachment
from bot.planner import plan_for
from bot.replies import numbers_said
from bot.rules.lexicon import Lexicon
from bot.rules.text import plain
from bot.shelf import Shelf
from bot.sizes import cropped, sized
from bot.uploads import Upload
from engine.bases import Base, Deliver
from engine.errors import Invalid
from engine.plans import ImagePlan
from tests.bot.talking import open_shelf, png

BUCKETS = ((256, 256), (224, 288), (288, 224), (192, 336), (336, 192), (432, 144))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """A base of six shapes that delivers four times as large."""
    found = open_shelf(tmp_path_factory.mktemp("home"))
    size = found.base.size.model_copy(update={"multiple": 16, "buckets": BUCKETS})
    base = found.base.model_copy(update={"size": size, "deliver": Deliver(upscale=4)})
    return replace(found, base=base)


@pytest.fixture(scope="module")
def plain_shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return open_shelf(tmp_path_factory.mktemp("home"))


def planned(text: str, shelf: Shelf, talk: Conversation | None = None) -> tuple[ImagePlan, tuple[str, ...], Planned]:
    talk = talk or Conversation("t")
    lexicon = Lexicon.of(shelf.catalog.list(), shelf.vocabulary)
    intent = understand(plain(text), talk.files, talk, lexicon)
    found = plan_for(intent, talk, shelf, 7)  # type: ignore[arg-type]
    assert isinstance(found, Planned), found
    assert isinstance(found.plan, ImagePlan)
    return found.plan, found.notes, found


def after(text: str, shelf: Shelf) -> Conversation:
    plan, _, found = planned(text, shelf)
    assert found.order is not None
    return Conversation("t").drawn(Shot(found.order, plan, (b"png",) * plan.count))


def attached(width: int, height: int) -> Conversation:
    """A conversation with a picture of that size in hand."""
    file = Attachment(name="a.png", data=png(1))
    return Conversation("t").holding((file,), (Upload(file.name, file.data, width, height),))


def frame(**said: object) -> Frame:
    return NO_NUMBERS.model_copy(update=said)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("a fox", (256, 256)),
        ("a fox, square", (256, 256)),
        ("an instagram post with a fox", (256, 256)),
        ("a fox, portrait format", (224, 288)),
        ("a poster with a fox", (224, 288)),
        ("a fox, 4:5", (224, 288)),
        ("a fox in landscape format", (288, 224)),
        ("a fox, 4:3", (288, 224)),
        ("a story with a fox", (192, 336)),
        ("a fox for an instagram story", (192, 336)),
        ("a fox, 9:16", (192, 336)),
        ("a fox, vertical", (192, 336)),
        ("a fox, wide", (336, 192)),
        ("a fox in 16:9", (336, 192)),
        ("a header image with a fox", (336, 192)),
        ("a banner with a fox", (432, 144)),
        ("a fox, panoramic", (432, 144)),
        ("a fox in 3:1", (432, 144)),
    ],
)
def test_words_choose_the_nearest_shape_and_the_file_is_four_times_as_large(
    text: str, size: tuple[int, int], shelf: Shelf
) -> None:
    plan, notes, _ = planned(text, shelf)
    assert (plan.width, plan.height) == size
    assert plan.delivered == (4 * size[0], 4 * size[1])
    assert not notes or "9:7" in notes[0]


@pytest.mark.parametrize(
    ("text", "size", "note"),
    [
        ("a fox for 1080x1920", (192, 336), "Paper delivers 1080x1920 at 768x1344."),
        ("a fox, 1080x1080", (256, 256), "Paper delivers 1080x1080 at 1024x1024."),
        ("a fox, 728x90", (432, 144), "Paper draws no 728x90: its nearest shape is 3:1, delivered at 1728x576."),
        ("a fox, 21:9", (432, 144), "Paper draws no 21:9: its nearest shape is 3:1, delivered at 1728x576."),
        ("a fox, 1:4", (192, 336), "Paper draws no 1:4: its nearest shape is 4:7, delivered at 768x1344."),
        ("a fox, 3840x2160", (336, 192), "Paper delivers 3840x2160 at 1344x768."),
    ],
)
def test_what_is_not_as_asked_for_is_said(text: str, size: tuple[int, int], note: str, shelf: Shelf) -> None:
    plan, notes, _ = planned(text, shelf)
    assert (plan.width, plan.height) == size
    assert notes == (note,)


@pytest.mark.parametrize("text", ["a fox, small file", "a fox at 256 px", "a small file of a fox", "a fox, 256x256"])
def test_a_small_file_is_the_picture_as_drawn(text: str, shelf: Shelf) -> None:
    plan, notes, _ = planned(text, shelf)
    assert (plan.delivered, plan.upscale, notes) == ((256, 256), 1, ())


def test_full_size_is_four_times_as_large_on_any_base(plain_shelf: Shelf) -> None:
    assert planned("a fox", plain_shelf)[0].upscale == 1
    assert planned("a fox in full size", plain_shelf)[0].delivered == (1024, 1024)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("a fox, wide", (384, 256)), ("a banner with a fox", (384, 256)), ("a fox, 9:16", (256, 384)),
        ("a fox, portrait format", (256, 384)), ("a fox, square", (256, 256)),
    ],
)  # fmt: skip
def test_a_base_without_buckets_draws_wide_and_tall_as_it_always_did(
    text: str, size: tuple[int, int], plain_shelf: Shelf
) -> None:
    plan, notes, _ = planned(text, plain_shelf)
    assert (plan.width, plan.height, plan.upscale, notes) == (*size, 1, ())


def test_a_change_keeps_shape_and_file_unless_they_are_what_to_change(shelf: Shelf) -> None:
    talk = after("a story with a fox, small file", shelf)
    kept = planned("make it blue", shelf, talk)[0]
    assert (kept.width, kept.height, kept.upscale) == (192, 336, 1)
    assert planned("in full size", shelf, talk)[0].delivered == (768, 1344)
    for said in ("make it 4x", "upscale it 4x", "make that four times larger"):
        assert planned(said, shelf, talk)[0].delivered == (768, 1344), said
        assert planned(said, shelf, talk)[0].count == 1, said
    wide = planned("as a banner", shelf, talk)[0]
    assert (wide.width, wide.height, wide.upscale) == (432, 144, 1)
    sized_anew = planned("1080x1080 please", shelf, talk)[0]
    assert sized_anew.delivered == (1024, 1024)


def test_bigger_and_smaller_are_the_full_and_the_small_file(shelf: Shelf) -> None:
    full, small = after("a fox", shelf), after("a fox, small file", shelf)
    assert planned("smaller", shelf, full)[0].delivered == (256, 256)
    assert planned("bigger", shelf, small)[0].delivered == (1024, 1024)
    with pytest.raises(Invalid, match="1024x1024 is the largest that Paper draws"):
        planned("bigger", shelf, full)
    with pytest.raises(Invalid, match="256x256 is the smallest"):
        planned("smaller", shelf, small)


def test_a_picture_done_over_keeps_the_shape_and_file_of_what_it_was(shelf: Shelf) -> None:
    found = planned("turn it into pixel art", shelf, after("a fox, 16:9, transparent background", shelf))[0]
    assert (found.width, found.height, found.upscale, found.transparent) == (336, 192, 4, True)


@pytest.mark.parametrize("text", ["in pixel art style", "make it blue", "draw a fox like this"])
def test_an_attached_picture_is_drawn_over_in_the_nearest_shape_and_its_loss_is_said(text: str, shelf: Shelf) -> None:
    plan, notes, _ = planned(text, shelf, attached(800, 450))
    assert (plan.width, plan.height, plan.upscale) == (336, 192, 4)
    assert not any("left out" in note for note in notes)
    _, notes, _ = planned(text, shelf, attached(800, 400))
    assert any("drawn as 7:4, so 12 % of it" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "transparent"),
    [
        ("on a transparent background", True), ("remove the background", True), ("PNG without background", True),
        ("cut it out", True), ("make it blue", False),
    ],
)  # fmt: skip
def test_the_background_goes_and_the_rest_stays(text: str, transparent: bool, shelf: Shelf) -> None:
    plan = planned(text, shelf, after("a red mug on a podium, seed 4", shelf))[0]
    assert (plan.transparent, plan.seed) == (transparent, 4)
    assert "podium" in plan.prompt


def test_it_stays_cut_out_until_it_is_put_somewhere(shelf: Shelf) -> None:
    talk = after("a red mug on a transparent background", shelf)
    assert planned("make it blue", shelf, talk)[0].transparent
    assert not planned("put it on a beach", shelf, talk)[0].transparent
    assert not planned("not transparent", shelf, talk)[0].transparent


def test_the_numbers_say_how_it_is_delivered(shelf: Shelf) -> None:
    plan = planned("a fox on a transparent background, seed 3", shelf)[0]
    assert numbers_said(plan) == "Seed 3, 1024x1024 (drawn at 256x256), transparent background."
    assert numbers_said(planned("a fox, small file, seed 3", shelf)[0]) == "Seed 3, 256x256."


@pytest.mark.parametrize("ratio", ["0:1", "16:", "wide", "1:2:3"])
def test_what_is_no_ratio_is_refused(ratio: str, shelf: Shelf) -> None:
    with pytest.raises(Invalid, match="is not a ratio"):
        sized(frame(ratio=ratio), shelf.base)


@pytest.mark.parametrize("said", [(0, 256), (100_000, 100_000)])
def test_no_pixels_and_far_too_many_are_refused(said: tuple[int, int], shelf: Shelf) -> None:
    with pytest.raises(Invalid, match="pixels"):
        sized(frame(width=said[0], height=said[1]), shelf.base)


def test_nothing_is_cut_off_where_there_are_no_shapes(plain_shelf: Shelf, shelf: Shelf) -> None:
    assert cropped(800, 100, plain_shelf.base) == ""
    assert cropped(800, 100, shelf.base).startswith("The picture is drawn as 3:1, so 62 % of it")


def test_an_order_that_was_stored_before_is_read() -> None:
    old = {"count": 1, "width": 256, "height": 256, "shape": None, "seed": 3, "steps": None}
    assert Frame.model_validate(old) == frame(count=1, width=256, height=256, seed=3)


def test_a_base_says_how_it_delivers(shelf: Shelf, plain_shelf: Shelf) -> None:
    def upscale(base: Base) -> int:
        return sized(NO_NUMBERS, base).upscale

    assert (upscale(shelf.base), upscale(plain_shelf.base)) == (4, 1)


def test_a_banner_that_is_none_is_not_passed_off_as_one(shelf: Shelf) -> None:
    size = shelf.base.size.model_copy(update={"buckets": ((256, 256), (256, 384), (384, 256))})
    few = replace(shelf, base=shelf.base.model_copy(update={"size": size}))
    assert planned("a fox as a banner", few)[1] == (
        "Paper draws no banner: its nearest shape is 3:2, delivered at 1536x1024.",
    )
    assert planned("a fox as a story", few)[1] == ()

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from bot.sheets import ACCENT, FEWEST, PAPER, SIDE, SPACE, THUMB, Credit, Panelled, why_sheet
from bot.why import change, explained, panels, redrawing, without_trigger
from engine import recipes
from engine.bases import Base
from engine.catalog import Catalog, LoraCard
from engine.errors import ChangedLora, Invalid, UnknownLora
from engine.jobs import Trained
from engine.plans import Example, ImagePlan, LoraStack, TrainPlan
from engine.store import Store
from tests.fakes.shelf import make_base, make_catalog


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return make_base(tmp_path)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return make_catalog(tmp_path)


def plan_of(catalog: Catalog, prompt: str, *names: str) -> ImagePlan:
    stack = LoraStack(tuple(catalog.ref(name) for name in names))
    return ImagePlan(prompt, "paper", 3, 256, 192, 7, 4.5, "euler", stack, negative="text", image=b"i", mask=b"m")


def png(colour: str | tuple[int, int, int], width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return {c: n for n, c in image.getcolors(image.width * image.height) or []}.get(colour, 0)


def of(card: LoraCard, trigger: str, word: str = "") -> LoraCard:
    return card.model_copy(update={"kind": "product", "trigger": trigger, "word": word})


def test_the_base_comes_first_then_each_lora_is_left_out_then_the_picture(catalog: Catalog) -> None:
    plan = plan_of(catalog, "crsp trrk fmgx mug on a podium", "terracotta", "fold-mug", "crisp")
    parts = panels(plan, "a.png", catalog)
    assert [(part.label, part.plan.prompt) for part in parts] == [
        ("the base alone", "mug on a podium"),
        ("without crisp", "trrk fmgx mug on a podium"),
        ("without fold-mug", "crsp trrk mug on a podium"),
        ("without terracotta", "crsp fmgx mug on a podium"),
        ("all together", plan.prompt),
    ]
    named = [[ref.name for ref in part.plan.stack.refs] for part in parts]
    assert named == [
        [],
        ["fold-mug", "terracotta"],
        ["crisp", "terracotta"],
        ["crisp", "fold-mug"],
        ["crisp", "fold-mug", "terracotta"],
    ]


def test_nothing_but_the_stack_and_its_triggers_differs(catalog: Catalog) -> None:
    plan = plan_of(catalog, "trrk fmgx mug", "terracotta", "fold-mug")
    for part in panels(plan, "a.png", catalog):
        assert replace(part.plan, prompt=plan.prompt, stack=plan.stack) == plan


def test_of_one_lora_the_base_alone_is_all_that_there_is_to_compare(catalog: Catalog) -> None:
    parts = panels(plan_of(catalog, "a fmgx mug", "fold-mug"), "a.png", catalog)
    assert [(part.label, part.plan.prompt) for part in parts] == [
        ("the base alone", "a mug"),
        ("all together", "a fmgx mug"),
    ]


def test_a_picture_of_the_base_alone_has_nothing_to_take_away(catalog: Catalog) -> None:
    with pytest.raises(Invalid, match=r"^a\.png: the base alone drew it: there is nothing to take away\.$"):
        panels(plan_of(catalog, "a mug"), "a.png", catalog)


def test_a_lora_that_is_gone_or_changed_is_named(catalog: Catalog, tmp_path: Path) -> None:
    plan = plan_of(catalog, "trrk fmgx mug", "terracotta", "fold-mug")
    refs = plan.stack.refs
    changed = replace(plan, stack=LoraStack((refs[0], replace(refs[1], sha256="0" * 64))))
    with pytest.raises(ChangedLora, match="terracotta"):
        panels(changed, "a.png", catalog)
    (tmp_path / "shipped" / "terracotta" / "lora.toml").unlink()
    with pytest.raises(UnknownLora, match="terracotta"):
        panels(plan, "a.png", catalog)


def test_a_base_that_is_another_one_now_is_refused(catalog: Catalog, base: Base, tmp_path: Path) -> None:
    plan = replace(plan_of(catalog, "a fmgx mug", "fold-mug"), image=None, mask=None)
    recipe = recipes.recipe_of(plan, 0, base, recipes.Used({"fold-mug": catalog.get("fold-mug")}), {}).model_dump()
    assert redrawing(recipe, "a.png", base, Store(tmp_path)) == plan
    with pytest.raises(Invalid, match=r"a\.png: the base “paper” is another one now"):
        redrawing(recipe | {"base_sha256": "0" * 64}, "a.png", base, Store(tmp_path))


def test_a_companion_that_is_another_one_now_is_refused(
    catalog: Catalog, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "COMPANIONS", tmp_path)
    plan = replace(plan_of(catalog, "a mug"), image=None, mask=None, upscale=4)
    recipe = recipes.recipe_of(plan, 0, base, recipes.Used({}), {}).model_dump()
    assert redrawing(recipe, "a.png", base, Store(tmp_path)) == plan
    with pytest.raises(Invalid, match=r"a\.png: the upscaler that worked on it is another one now"):
        redrawing(recipe | {"companions": {"upscaler": "0" * 64}}, "a.png", base, Store(tmp_path))
    with pytest.raises(Invalid, match="is another one now"):  # a recipe names nets of ours, and no folder of anybody's
        redrawing(
            recipe | {"companions": {str(tmp_path): recipes.fingerprint(tmp_path)}}, "a.png", base, Store(tmp_path)
        )


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("tepvyr teapot on a podium", "teapot on a podium"),
        ("a photo of TEPVYR teapot", "a photo of teapot"),
        ("a red tepvyr, a teapot", "a red, a teapot"),
        ("a teapot, tepvyr, on a podium", "a teapot, on a podium"),
        ("a teapot, tepvyr", "a teapot"),
        ("tepvyr, a teapot", "a teapot"),
        ("a teapot by tepvyr.", "a teapot by."),
        ("tepvyr tepvyr teapot", "teapot"),
        ("a tepvyr-style teapot", "a style teapot"),
        ("tepvyrs and teapots", "tepvyrs and teapots"),
        ("two  spaces of a teapot", "two  spaces of a teapot"),
        ("a tepvyr at night", "a teapot at night"),
        ("tepvyr", "teapot"),
        ("a Tepvyr", "a teapot"),
    ],
)
def test_a_trigger_leaves_no_trace(catalog: Catalog, prompt: str, left: str) -> None:
    assert without_trigger(prompt, of(catalog.get("crisp"), "tepvyr", "teapot")) == left


@pytest.mark.parametrize(
    ("prompt", "word", "left"),
    [
        ("a zqx octopus, a hat", "octopus", "an octopus, a hat"),
        ("an inkz fox in an hour", "fox", "a fox in an hour"),
        ("An inkz", "fox", "A fox"),
        ("inkz", "", "a picture"),
        ("inkz (1+1)", "", "(1+1)"),
    ],
)
def test_articles_fit_what_follows_now(catalog: Catalog, prompt: str, word: str, left: str) -> None:
    trigger = "zqx" if "zqx" in prompt else "inkz"
    assert without_trigger(prompt, of(catalog.get("crisp"), trigger, word)) == left


def test_a_trigger_that_another_lora_in_the_stack_has_too_stays(catalog: Catalog) -> None:
    card = catalog.get("crisp")
    assert without_trigger("zqx fox", of(card, "zqx"), [of(card, "ZQX")]) == "zqx fox"
    assert without_trigger("zqx two, zqx fox", of(card, "zqx"), [of(card, "zqx two")]) == "zqx two, fox"
    assert without_trigger("zqx two fox", of(card, "zqx two"), [of(card, "zqx")]) == "fox"
    assert without_trigger("a fox", of(card, ""), []) == "a fox"


def test_a_class_word_within_the_trigger_does_not_count_as_said(catalog: Catalog) -> None:
    assert without_trigger("a zqx fox at night", of(catalog.get("crisp"), "zqx fox", "fox")) == "a fox at night"


def test_change_is_the_mean_absolute_difference_in_percent_of_255() -> None:
    assert change(png("black"), png("white")) == 100
    assert change(png("red"), png("red")) == 0
    assert change(png((0, 0, 0)), png((51, 0, 0))) == pytest.approx(20 / 3)
    half = opened(png("black"))
    half.paste((255, 255, 255), (0, 0, 32, 64))
    buffer = io.BytesIO()
    half.save(buffer, "PNG")
    assert change(buffer.getvalue(), png("black")) == 50
    with pytest.raises(ValueError, match="cannot be compared"):
        change(png("red", 64), png("red", 65))


def strip_of(number: int, credits: int = 1, **said: str) -> Image.Image:
    names = ("red", "lime", "blue", "cyan", "magenta", "yellow", "black", "white", "navy", "olive")
    shown = [Panelled(f"panel {k}", said.get("note", "n"), png(names[k], 256, 256)) for k in range(number)]
    credit = Credit("Title", ("said",), (png((1, 2, 3), 100, 100),) * 14)
    return opened(why_sheet(shown, [("prompt", said.get("prompt", "a mug"))], [credit] * credits))


def test_every_panel_is_there_whole_and_the_last_is_framed() -> None:
    sheet = strip_of(10)
    assert sheet.width == strip_of(5).width
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 128)):
        assert count(sheet, colour) == SIDE**2
    assert 0 < count(sheet, (128, 128, 0)) < SIDE**2
    assert count(sheet, ACCENT) > 4 * SIDE * 4 - 100


def test_up_to_twelve_training_pictures_stand_by_each_lora() -> None:
    assert count(strip_of(5, credits=8), (1, 2, 3)) == 8 * 12 * THUMB**2


def test_of_two_panels_the_recipe_stands_beside_them_and_a_long_one_makes_the_sheet_longer() -> None:
    short, long = strip_of(2), strip_of(2, prompt="word " * 700)
    assert short.width == long.width > FEWEST * (SIDE + SPACE)
    assert long.height > short.height + 500
    assert strip_of(2, prompt="x" * 3000).height > short.height + 500
    margin = long.crop((long.width - SPACE, 0, long.width, long.height))
    assert count(margin, PAPER) == margin.width * margin.height


def test_letters_that_the_font_lacks_lose_their_accents() -> None:
    assert strip_of(2, prompt="Zoë – a mug").tobytes() == strip_of(2, prompt="Zoe - a mug").tobytes()
    assert strip_of(2, prompt="Zoe").tobytes() != strip_of(2, prompt="Zo").tobytes()


def test_the_sheet_shows_the_training_pictures_that_can_be_read(catalog: Catalog) -> None:
    examples = tuple(Example(f"{k}.png", png((9, 9, 9 + k)), "zqx") for k in range(4))
    plan = TrainPlan("mine", "subject", "zqx", "paper", examples, seed=1, steps=3)
    card = catalog.add(plan, Trained(b"mine", png("red"), {"family": "sd", "alpha": 16.0}))
    (card.folder / "pictures" / "02.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (card.folder / "pictures" / "03.png").write_bytes(png((9, 9, 11), 9_000, 1))
    assert card.sha256 == hashlib.sha256(b"mine").hexdigest()
    parts = panels(plan_of(catalog, "zqx", "mine"), "a.png", catalog)
    sheet = opened(explained(parts, [png("red"), png("blue")], catalog))
    shown = [count(sheet, (9, 9, 9 + k)) for k in range(4)]
    assert shown == [THUMB**2, 0, 0, THUMB**2]

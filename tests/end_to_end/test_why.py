"""`atelier why` on Pocket and a shipped LoRA."""

from pathlib import Path

from PIL import Image

from engine.recipes import read_recipe
from tests.end_to_end.test_pocket_story import atelier, pixels


def test_the_base_alone_is_drawn_and_shown_beside_the_picture(tmp_path: Path) -> None:
    options = ("--seed", "3", "--steps", "2", "--size", "128", "--upscale", "1")
    (picture,) = atelier(tmp_path, "draw", "a teapot", "--lora", "brewster:1", *options)["pictures"]
    told = atelier(tmp_path, "why", picture["file"], "--out", str(tmp_path / "why.png"))
    assert [(panel["label"], panel["prompt"]) for panel in told["panels"]] == [
        ("the base alone", "a teapot"),
        ("all together", "a tepvyr teapot"),
    ]
    assert told["panels"][0]["change"] > 1
    alone = Path(picture["file"]).with_name("3-2.png")
    assert read_recipe(alone.read_bytes(), alone.name)["loras"] == []
    with Image.open(told["file"]) as sheet:
        shown = sheet.convert("RGB").tobytes()
    row = 3 * 128
    assert pixels(str(alone))[:row] in shown
    assert pixels(picture["file"])[64 * row + 12 : 65 * row - 15] in shown  # within its frame

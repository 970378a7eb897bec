"""why: what each LoRA does to a picture."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from bot.commands.files import check_target, read_file, write_file
from bot.commands.pictures import drawn
from bot.commands.terminal import Terminal
from bot.why import Panel, change, explained, panels, percent, redrawing
from bot.wiring import Studio
from engine.queue import SavedPicture
from engine.recipes import read_recipe


async def why(studio: Studio, picture: Path, out: Path | None, terminal: Terminal) -> None:
    """A sheet of the picture beside what its seed draws without each of its LoRAs; a number says how far apart."""
    data = read_file(picture)
    recipe = read_recipe(data, picture.name)
    plan = redrawing(recipe, picture.name, studio.base(recipe["base"]), studio.store.input, studio.settings.home)
    parts = panels(plan, picture.name, studio.catalog)
    if out:
        check_target(out)
    others = [await _draw(studio, part, terminal) for part in parts[:-1]]
    if not _comparable(data, recipe, others[0]):
        data = (await _draw(studio, parts[-1], terminal)).png
    pngs = [*(other.png for other in others), data]
    png = explained(parts, pngs, studio.catalog)
    file = write_file(out, png) if out else studio.store.save_picture(png, None, "why")
    shown = [_panel_facts(part, png, data) for part, png in zip(parts, pngs, strict=True)]
    for facts in shown[:-1]:
        terminal.note(f"{facts['label']}: mean difference {percent(facts['change'])}")
    terminal.result({"file": str(file), "picture": str(picture), "panels": shown}, [str(file)])


async def _draw(studio: Studio, panel: Panel, terminal: Terminal) -> SavedPicture:
    terminal.note(panel.label)
    (picture,) = await drawn(studio, panel.plan, terminal, None)
    return picture


def _comparable(data: bytes, recipe: dict[str, Any], other: SavedPicture) -> bool:
    """Whether a file can be compared with what is drawn now: of its recipe's size, and by the same means.

    Elsewhere the same recipe draws slightly other pixels, which are not the doing of a LoRA.
    """
    with Image.open(io.BytesIO(data)) as image:
        size = image.size
    larger = recipe.get("upscale", 1)
    return (
        size == (recipe["width"] * larger, recipe["height"] * larger)
        and recipe["made_with"] == other.recipe["made_with"]
    )


def _panel_facts(panel: Panel, png: bytes, whole: bytes) -> dict[str, Any]:
    """What `--json` says of a panel."""
    loras = [{"name": ref.name, "weight": ref.weight} for ref in panel.plan.stack.refs]
    return {"label": panel.label, "loras": loras, "prompt": panel.plan.prompt, "change": round(change(png, whole), 2)}

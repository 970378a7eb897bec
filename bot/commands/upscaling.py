"""upscale PICTURE · upscalers [list] · upscalers add FILE"""

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bot.commands.files import read_file
from bot.commands.pictures import drawn, picture_facts
from bot.commands.terminal import Terminal
from bot.uploads import Upload, check_picture
from bot.wiring import Studio
from engine import upscalers
from engine.errors import Invalid
from engine.plans import MAX_SEED, ImagePlan
from engine.prompts import MARKED
from engine.recipes import plan_from, read_recipe

NONE_YET = "No upscalers of yours; `atelier upscalers add FILE` takes an ESRGAN-type .safetensors file in."


@dataclass(frozen=True, slots=True)
class Enlarging:
    """The options of upscale; None and "" mean "not said"."""

    picture: Path
    scale: int | None = None
    upscaler: str = ""
    detail: float = 0.0
    prompt: str | None = None
    base: str | None = None
    seed: int | None = None
    out: Path | None = None


async def upscale(studio: Studio, wish: Enlarging, terminal: Terminal) -> None:
    """A picture that is there, enlarged; where it is one of ours, its recipe says with what its detail is drawn."""
    data = read_file(wish.picture)
    picture = check_picture(data, wish.picture.name)
    plan = _enlarging(studio, wish, picture, _recipe(data, wish.picture.name))
    shown = await drawn(studio, plan, terminal, wish.out)
    terminal.result({"pictures": [picture_facts(one) for one in shown]}, [str(one.file) for one in shown])


def list_upscalers(studio: Studio, terminal: Terminal) -> None:
    found, broken = upscalers.entries(studio.settings.home)
    facts = [_facts(entry) for entry in found]
    width = max((len(entry.name) for entry in found), default=0)
    lines = [f"{entry.name.ljust(width)}  {entry.layout.scale}x  {entry.layout}" for entry in found]
    for why in broken:
        terminal.note(why)
    terminal.result({"upscalers": facts, "broken": list(broken)}, lines or [NONE_YET])


def add(studio: Studio, file: Path, name: str | None, terminal: Terminal) -> None:
    entry = upscalers.add(file, name, studio.settings.home)
    use = f"Use it: `atelier draw PROMPT --upscaler {entry.name}`."
    terminal.result(_facts(entry), [f"“{entry.name}” is here: {entry.layout}, {entry.layout.scale}x. {use}"])


def _recipe(data: bytes, name: str) -> dict[str, Any] | None:
    """None for somebody else's picture, also where we enlarged it."""
    try:
        recipe = read_recipe(data, name)
    except Invalid:
        return None
    return recipe if recipe["prompt"] else None


def _enlarging(studio: Studio, wish: Enlarging, picture: Upload, recipe: dict[str, Any] | None) -> ImagePlan:
    """`strength` 0: the picture itself is enlarged, and not drawn anew."""
    name, home = wish.upscaler.lower(), studio.settings.home
    times = wish.scale or upscalers.most_of(name, home)
    upscalers.check_gives(name, times, home)
    base = studio.base(wish.base or (recipe["base"] if recipe else None))
    if recipe:
        made = replace(
            plan_from(recipe | {"image": None, "mask": None, "strength": None}, studio.store.input), base=base.name
        )
    else:
        if wish.detail and not (wish.prompt or "").strip():
            todo = "Say what it shows: --prompt TEXT, or leave --detail out."
            raise Invalid("--prompt", "the picture carries no recipe, so nothing says what detail to draw", todo)
        said, seed = base.defaults, secrets.randbelow(MAX_SEED)
        made = ImagePlan("a picture", base.name, seed, 8, 8, said.steps, said.guidance, said.sampler, syntax=MARKED)
        made = replace(made, image=picture.data, strength=0.0, prompt="")
    return replace(
        made,
        prompt=made.prompt if wish.prompt is None else wish.prompt,
        syntax=made.syntax if wish.prompt is None else MARKED,
        seed=made.seed if wish.seed is None else wish.seed,
        width=picture.width,
        height=picture.height,
        image=picture.data,
        strength=0.0,
        upscale=times,
        upscaler=name,
        detail=wish.detail,
        transparent=False,
    )


def _facts(entry: upscalers.Entry) -> dict[str, Any]:
    """What `--json` says of an upscaler."""
    layout = entry.layout
    return {
        "name": entry.name,
        "file": str(entry.file),
        "architecture": layout.architecture,
        "scale": layout.scale,
        "channels": layout.features,
        "blocks": layout.blocks,
    }

"""What made a picture: written into its PNG, read back to draw it again.

Two forms stand in each PNG: ours (JSON, the chunk `atelier`) is complete and is the one read back; `parameters` is the
form that AUTOMATIC1111's web UI writes and most viewers show.
"""

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.bases import Base, fingerprint
from engine.catalog import LoraCard
from engine.controls import Net
from engine.errors import Invalid
from engine.plans import (
    MAX_DELIVERED,
    Control,
    ControlKind,
    EmbeddingRef,
    ImagePlan,
    Kind,
    LoraRef,
    LoraStack,
    Reference,
)  # fmt: skip
from engine.prompts import LITERAL
from engine.references import Adapter

VERSION = "0.2.0"
OURS, A1111 = "atelier", "parameters"
PNG = b"\x89PNG\r\n\x1a\n"
MAX_PICTURE = MAX_DELIVERED  # pixels of a picture from outside
COMPANIONS = Path(__file__).parent / "companions"
NETS = ("upscaler", "matting")  # that a recipe may name
# What Pillow raises at a broken picture, and at one too large:
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
A1111_SAMPLERS = {
    "dpm++": "DPM++ 2M", "euler": "Euler", "euler a": "Euler a", "ddim": "DDIM", "unipc": "UniPC", "lcm": "LCM",
    "euler trailing": "Euler", "ddim trailing": "DDIM",
}  # fmt: skip


class RecipeLora(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)
    name: str
    weight: float
    sha256: str
    role: Kind
    licence: str


class RecipeControl(BaseModel):
    """`image` is the picture's SHA-256, `net` and `sha256` are the ControlNet that read it."""

    model_config = ConfigDict(frozen=True, strict=True)
    kind: ControlKind
    weight: float
    until: float
    image: str
    is_map: bool
    net: str
    sha256: str


class RecipeReference(BaseModel):
    """`image` is the picture's SHA-256, `adapter` and `sha256` are the IP-Adapter that looked at it, if any did."""

    model_config = ConfigDict(frozen=True, strict=True)
    weight: float
    image: str
    adapter: str = ""
    sha256: str = ""


class RecipeEmbedding(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)
    name: str
    trigger: str
    sha256: str


class Recipe(BaseModel):
    """One picture. `image` and `mask` are the SHA-256 of the files it was drawn over.

    It was drawn at `width` x `height` pixels and delivered `upscale` times as large; `companions` names the weights of
    the small nets that worked on it after the base. `syntax` says how its texts are read (engine/prompts.py); a
    recipe that says nothing is from before there were marks. `upscaler` is what enlarged it where that is not the net
    that comes with Atelier, and the hash of its file; `detail` the strength of the tiles drawn over it.
    """

    model_config = ConfigDict(frozen=True, strict=True)
    atelier: str
    prompt: str
    negative: str
    base: str
    base_sha256: str
    family: str
    steps: int
    guidance: float
    sampler: str
    seed: int
    width: int
    height: int
    loras: list[RecipeLora]
    image: str | None
    mask: str | None
    strength: float | None
    licences: dict[str, str]
    commercial: bool
    made_with: dict[str, str | int]
    upscale: int = 1
    transparent: bool = False
    companions: dict[str, str] = {}
    syntax: int = LITERAL
    controls: list[RecipeControl] = []
    references: list[RecipeReference] = []
    embeddings: list[RecipeEmbedding] = []
    upscaler: str = ""
    upscaler_sha256: str = ""
    detail: float = 0.0


def companion_folder(name: str) -> Path:
    """Where the weights of the companion of that name lie."""
    return COMPANIONS / name


@dataclass(frozen=True)
class Used:
    """What a plan named, as it was found: cards of its LoRAs and embeddings, the net of each of its controls, what
    looks at its references where the base does not, and its upscaler.
    """

    cards: dict[str, LoraCard]
    nets: tuple[Net, ...] = ()
    adapter: Adapter | None = None
    upscaler_sha256: str = ""


def recipe_of(plan: ImagePlan, index: int, base: Base, found: Used, made_with: dict[str, str | int]) -> Recipe:
    """The recipe of picture `index` of a plan."""
    cards, nets, adapter = found.cards, found.nets, found.adapter
    used = [cards[ref.name] for ref in (*plan.stack.refs, *plan.embeddings)]
    return Recipe(
        atelier=VERSION, prompt=plan.prompt, negative=plan.negative, base=base.name, base_sha256=base.fingerprint(),
        family=base.family, steps=plan.steps, guidance=plan.guidance, sampler=plan.sampler, seed=plan.seed + index,
        width=plan.width, height=plan.height,
        loras=[RecipeLora(name=r.name, weight=r.weight, sha256=r.sha256, role=r.role, licence=cards[r.name].licence)
               for r in plan.stack.refs],
        image=_digest(plan.image), mask=_digest(plan.mask), strength=plan.strength if plan.image else None,
        licences={"base": base.licence} | {card.name: card.licence for card in used}
                 | {f"control {net.name}": net.licence for net in nets}
                 | ({f"reference {adapter.name}": adapter.licence} if adapter else {}),
        commercial=base.commercial and all(one.commercial for one in (*used, *nets, *((adapter,) if adapter else ()))),
        made_with=made_with,
        upscale=plan.upscale, transparent=plan.transparent,
        companions={name: fingerprint(companion_folder(name)) for name in plan.companions},
        syntax=plan.syntax,
        controls=[RecipeControl(kind=c.kind, weight=c.weight, until=c.until, image=_sha256(c.image), is_map=c.is_map,
                                net=net.name, sha256=fingerprint(net.folder))
                  for c, net in zip(plan.controls, nets, strict=True)],
        references=[RecipeReference(weight=r.weight, image=_sha256(r.image), adapter=adapter.name if adapter else "",
                                    sha256=fingerprint(adapter.folder) if adapter else "") for r in plan.references],
        embeddings=[RecipeEmbedding(name=r.name, trigger=r.trigger, sha256=r.sha256) for r in plan.embeddings],
        upscaler=plan.upscaler, upscaler_sha256=found.upscaler_sha256, detail=plan.detail,
    )  # fmt: skip


def to_png(image: Image.Image, recipe: Recipe) -> bytes:
    """`image` as PNG bytes with both forms of its recipe."""
    info = PngImagePlugin.PngInfo()
    info.add_text(A1111, a1111(recipe))
    info.add_text(OURS, recipe.model_dump_json())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def read_recipe(data: bytes, name: str) -> dict[str, Any]:
    """The recipe in a PNG's metadata as plain data; `Invalid` where there is none that we wrote."""
    return _read(data, name).model_dump()


def plan_from(recipe: dict[str, Any], inputs: Callable[[str], bytes]) -> ImagePlan:
    """The plan that draws the one picture of `recipe` again. `inputs(sha256)` gives the files it was drawn over."""
    r = Recipe.model_validate(recipe)
    refs = tuple(LoraRef(x.name, x.sha256, x.weight, x.role) for x in r.loras)
    return ImagePlan(
        prompt=r.prompt, base=r.base, seed=r.seed, width=r.width, height=r.height, steps=r.steps, guidance=r.guidance,
        sampler=r.sampler, stack=LoraStack(refs), negative=r.negative, image=inputs(r.image) if r.image else None,
        mask=inputs(r.mask) if r.mask else None, strength=0.6 if r.strength is None else r.strength,
        upscale=r.upscale, transparent=r.transparent, syntax=r.syntax, upscaler=r.upscaler, detail=r.detail,
        controls=tuple(Control(c.kind, inputs(c.image), c.weight, c.until, c.is_map) for c in r.controls),
        references=tuple(Reference(inputs(x.image), x.weight) for x in r.references),
        embeddings=tuple(EmbeddingRef(x.name, x.sha256, x.trigger) for x in r.embeddings),
    )  # fmt: skip


def a1111(recipe: Recipe) -> str:
    """The recipe as AUTOMATIC1111's web UI writes it (its modules/infotext_utils.py reads it)."""
    tags = "".join(f" <lora:{x.name}:{x.weight:g}>" for x in recipe.loras)
    fields = {
        "Steps": recipe.steps, "Sampler": A1111_SAMPLERS[recipe.sampler], "CFG scale": f"{recipe.guidance:g}",
        "Seed": recipe.seed, "Size": f"{recipe.width}x{recipe.height}", "Model hash": recipe.base_sha256[:10],
        "Model": recipe.base,
    }  # fmt: skip
    if recipe.sampler.endswith(" trailing"):
        fields["Schedule type"] = "SGM Uniform"
    if recipe.strength is not None:
        fields["Denoising strength"] = f"{recipe.strength:g}"
    if recipe.loras:
        fields["Lora hashes"] = '"' + ", ".join(f"{x.name}: {x.sha256[:12]}" for x in recipe.loras) + '"'
    if recipe.embeddings:
        fields["TI hashes"] = '"' + ", ".join(f"{x.trigger}: {x.sha256[:12]}" for x in recipe.embeddings) + '"'
    if recipe.upscale > 1:
        fields |= {"Postprocess upscale by": f"{recipe.upscale}", "Postprocess upscaler": recipe.upscaler or "Atelier"}
    fields["Version"] = f"atelier {recipe.atelier}"
    lines = [recipe.prompt + tags]
    if recipe.negative:
        lines.append(f"Negative prompt: {recipe.negative}")
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in fields.items())])


def _read(data: bytes, name: str) -> Recipe:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PICTURE:
                raise Image.DecompressionBombError
            image.load()
            text = getattr(image, "text", {}).get(OURS)
    except TOO_LARGE:
        why = f"it has more than {MAX_PICTURE / 1e6:g} megapixels"
        raise Invalid(name, why, "Name a picture as Atelier saved it.") from None
    except BROKEN:
        why = "it is damaged or cut short" if data.startswith(PNG) else "it is not a PNG picture"
        raise Invalid(name, why, "Name a picture that Atelier drew.") from None
    if text is None:
        raise Invalid(
            name, "it carries no recipe", "Name a picture that Atelier drew, not a copy without its metadata."
        )
    try:
        return Recipe.model_validate_json(text)
    except (ValidationError, json.JSONDecodeError):
        raise Invalid(name, "its recipe cannot be read", "Name a picture as Atelier saved it.") from None


def _digest(data: bytes | None) -> str | None:
    return _sha256(data) if data is not None else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Why a picture looks as it does: itself, beside what the same seed draws without each of its LoRAs and without any.

`panels` says what to draw, `explained` makes the sheet of what was drawn; `change` is the number beneath each panel.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

from bot.sheets import MOST_THUMBS, Credit, Panelled, on_paper, why_sheet
from bot.surgery import whole_word, with_articles
from bot.triggers import SUBJECTS
from engine import controls, references, upscalers
from engine.bases import Base, fingerprint
from engine.catalog import PICTURE_SIDE, PICTURES, Catalog, LoraCard
from engine.errors import Invalid
from engine.files import read_bounded
from engine.plans import ImagePlan, LoraRef, LoraStack
from engine.recipes import BROKEN, NETS, TOO_LARGE, companion_folder, plan_from
from engine.store import Store

MAX_THUMBNAIL = 4_000_000  # bytes of a picture of 512 pixels a side, and more
EDGE = " \t\r\n,-"  # what ties a word to its neighbours
NOTE = (
    "Each picture has the seed and settings of the last; a LoRA that is left out takes its trigger word along. "
    "Mean difference: how far red, green and blue of a pixel lie from the last picture's, on average over all pixels; "
    "100 % is black against white."
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the explanation: what it is called, and what draws it."""

    label: str
    plan: ImagePlan


def redrawing(recipe: dict[str, Any], name: str, base: Base, store: Store) -> ImagePlan:
    """The plan that draws the picture `name` again; `Invalid` if what drew it is not as it was then."""
    for why, todo in _changed(recipe, base, store.home):
        raise Invalid(name, why, todo)
    return plan_from(recipe, store.input)


def _changed(recipe: dict[str, Any], base: Base, home: Path) -> Iterator[tuple[str, str]]:
    """What is another one now than when it was drawn, and what to do."""
    if base.fingerprint() != recipe["base_sha256"]:
        why = f"the base “{recipe['base']}” is another one now than when it was drawn"
        yield why, "Bring the earlier base back, or draw its prompt anew."
    for companion, sha256 in recipe.get("companions", {}).items():
        if companion not in NETS or fingerprint(companion_folder(companion)) != sha256:
            why = f"the {companion} that worked on it is another one now"
            yield why, "Draw its prompt anew, or with the Atelier that drew it."
    yield from _followed_others(recipe, base, home)
    upscaler: str = recipe.get("upscaler", "")
    if upscaler and upscalers.sha256_of(upscaler, home) != recipe["upscaler_sha256"]:
        why = f"the upscaler “{upscaler}” is another file now than when it was drawn"
        yield why, "Add the earlier file under that name, or draw its prompt anew."


def _followed_others(recipe: dict[str, Any], base: Base, home: Path) -> Iterator[tuple[str, str]]:
    """The same of what its controls and references were read by."""
    todo = "Bring the earlier one back, or draw its prompt anew."
    for control in recipe.get("controls", ()):
        net = controls.net_for(control["kind"], base, home)
        if fingerprint(net.folder) != control["sha256"]:
            yield (
                f"the ControlNet “{control['net']}” that it followed is not the one that is here now ({net.name})",
                todo,
            )
    for reference in recipe.get("references", ()):
        adapter = references.adapter_for(base, home)
        if reference["sha256"] != (fingerprint(adapter.folder) if adapter else ""):
            yield f"the IP-Adapter “{reference['adapter']}” that looked for it is another one now", todo


def panels(plan: ImagePlan, name: str, catalog: Catalog) -> tuple[Panel, ...]:
    """The base alone, then without each LoRA (where there are several), and last the picture `name` itself.

    Raises `Invalid` for a picture without LoRAs, `UnknownLora` or `ChangedLora` for one that is not as it was.
    """
    refs = tuple(ref for ref in plan.stack.refs if ref.role != "speed")  # which stays: the steps are made for it
    if not refs:
        why = "the base alone drew it: there is nothing to take away"
        raise Invalid(name, why, "Name a picture that was drawn with a LoRA.")
    for ref in plan.stack.refs:
        catalog.weights(ref)
    cards = {ref.name: catalog.pinned(ref) for ref in plan.stack.refs}
    alone = Panel("the base alone", _with_only(plan, (), cards))
    fewer = [Panel(f"without {x.name}", _with_only(plan, [r for r in refs if r is not x], cards)) for x in refs]
    return (alone, *(fewer if len(refs) > 1 else ()), Panel("all together", plan))


def change(picture: bytes, other: bytes) -> float:
    """How far two pictures of one size are apart: mean |a − b| over all pixels and R, G, B, in % of 255.

    It says how much changes, not whether for the better: 0 is the same picture, 100 black against white. What is
    transparent counts as white.
    """
    with Image.open(io.BytesIO(picture)) as a, Image.open(io.BytesIO(other)) as b:
        if a.size != b.size:
            raise ValueError(f"{a.size} and {b.size} cannot be compared pixel by pixel")
        means = ImageStat.Stat(ImageChops.difference(on_paper(a, "white"), on_paper(b, "white"))).mean
    return 100 * sum(means) / len(means) / 255


def explained(parts: Sequence[Panel], drawn: Sequence[bytes], catalog: Catalog) -> bytes:
    """The sheet as PNG bytes. `drawn` holds the encoded picture of each of `parts`, the picture itself last."""
    whole = parts[-1].plan
    notes = [f"mean difference {percent(change(png, drawn[-1]))}" for png in drawn[:-1]] + ["the picture"]
    shown = [Panelled(part.label, note, png) for part, note, png in zip(parts, notes, drawn, strict=True)]
    credits = [_credit(ref, catalog.pinned(ref)) for ref in whole.stack.refs]
    return why_sheet(shown, _facts(whole), credits, NOTE)


def percent(value: float) -> str:
    return f"{value:.0f} %" if value >= 10 else f"{value:.1f} %"


def without_trigger(prompt: str, card: LoraCard, held: Iterable[LoraCard] = ()) -> str:
    """`prompt` without the LoRA's trigger; a subject's class word stands there then, if it is nowhere else.

    What is a trigger of one of `held`, or part of one, stays.
    """
    if not card.trigger:
        return prompt
    kept = [other.trigger for other in held if _named(card.trigger).search(other.trigger)]
    either = "".join(f"{_named(trigger).pattern}|" for trigger in sorted(kept, key=len, reverse=True))
    head, *rest = re.split(rf"({either}(?!))|{_named(card.trigger).pattern}", prompt, flags=re.IGNORECASE)
    named = whole_word(card.word).search(_named(card.trigger).sub("", prompt))
    instead = "" if named or card.kind not in SUBJECTS else card.word
    for stays, tail in zip(rest[::2], rest[1::2], strict=True):
        head = head + stays + tail if stays else _closed(head, instead, tail)
    return head or "a picture"


def _named(trigger: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)", re.IGNORECASE)


def _closed(head: str, instead: str, tail: str) -> str:
    """`head` and `tail` without what stood between them: one space or comma is left, and a fitting article."""
    if instead:
        return _fitting(head, instead) + instead + tail
    before, after = head.rstrip(EDGE), tail.lstrip(EDGE)
    gap = head[len(before) :] + tail[: len(tail) - len(after)]
    if not before or not after or not gap:
        return before + after
    join = ", " if "," in gap else "" if after[0] in ".;:!?)" else " "
    return _fitting(before + join, after) + after


def _fitting(head: str, after: str) -> str:
    """`head` with the article at its end, if it has one there, as `after` wants it."""
    article = re.search(r"\ban? $", head, re.IGNORECASE)
    return head[: article.start()] + with_articles(article[0] + after[:1])[:-1] if article else head


def _with_only(plan: ImagePlan, refs: Sequence[LoraRef], cards: dict[str, LoraCard]) -> ImagePlan:
    """`plan` with these of its LoRAs, and with no other's trigger; one for speed is always among them."""
    refs = [*refs, *(ref for ref in plan.stack.refs if ref.role == "speed")]
    held = [cards[ref.name] for ref in refs]
    prompt = plan.prompt
    for ref in plan.stack.refs:
        if ref not in refs:
            prompt = without_trigger(prompt, cards[ref.name], held)
    return replace(plan, prompt=prompt, stack=LoraStack(tuple(refs)))


def _facts(plan: ImagePlan) -> list[tuple[str, str]]:
    made = (
        f"seed {plan.seed}", f"{plan.width} x {plan.height} pixels", f"{plan.steps} steps of {plan.sampler}",
        f"guidance {plan.guidance:g}", f"base {plan.base}",
        *((f"enlarged to {' x '.join(map(str, plan.delivered))}",) if plan.upscale > 1 else ()),
        *((f"by {plan.upscaler}",) if plan.upscaler else ()),
        *((f"detail {plan.detail:g}",) if plan.detail else ()),
        *(("cut out",) if plan.transparent else ()),
    )  # fmt: skip
    facts = (("prompt", plan.prompt), ("negative", plan.negative), ("made with", " · ".join(made)))
    return [(key, value) for key, value in (*facts, ("drawn over", _over(plan)), ("follows", _followed(plan))) if value]


def _over(plan: ImagePlan) -> str:
    if plan.image is None:
        return ""
    return f"an earlier picture{', under a mask' if plan.mask else ''}, at strength {plan.strength:g}"


def _followed(plan: ImagePlan) -> str:
    said = [f"{control.kind} at {control.weight:g}" for control in plan.controls]
    return " · ".join([*said, *(f"the look of a picture at {one.weight:g}" for one in plan.references)])


def _credit(ref: LoraRef, card: LoraCard) -> Credit:
    said = [f"{card.kind}, called by “{card.trigger}”" if card.trigger else card.kind, f"licence {card.licence}"]
    if card.title.casefold() != card.name:
        said[0] = f"{card.name}: {said[0]}"
    return Credit(f"{card.title} at {ref.weight:g}", tuple(said), tuple(_training_pictures(card)))


def _training_pictures(card: LoraCard) -> list[bytes]:
    """The first twelve, of those that can be read: a folder may hold anything."""
    read = (_small_picture(card, number) for number in range(1, MOST_THUMBS + 1))
    return [picture for picture in read if picture is not None]


def _small_picture(card: LoraCard, number: int) -> bytes | None:
    try:
        data = read_bounded(card.folder / PICTURES / f"{number:02}.png", MAX_THUMBNAIL)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if max(image.size) > PICTURE_SIDE:
                return None
            image.load()
    except (*BROKEN, *TOO_LARGE):
        return None
    return data

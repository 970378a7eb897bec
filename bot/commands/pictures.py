"""draw · draw --again · edit · grid."""

import secrets
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bot import tags
from bot.commands.controls import given, referred
from bot.commands.files import check_target, read_file, read_picture, write_file
from bot.commands.terminal import Terminal
from bot.intent import NO_NUMBERS, Frame
from bot.pace import Said, Wished, has_speed, paced, speed_lora
from bot.sheets import sheet
from bot.sizes import ASPECTS, cropped, sized
from bot.uploads import Upload
from bot.why import redrawing
from bot.wiring import Studio
from engine import upscalers
from engine.bases import Base
from engine.bases.vocabulary import Vocabulary
from engine.catalog import LoraCard
from engine.controls import nets_for
from engine.datasets import no_variant
from engine.errors import Invalid
from engine.jobs import Progress
from engine.plans import MAX_COUNT, MAX_SEED, Control, ImagePlan, LoraRef, LoraStack, Reference, brief, check_range
from engine.prompts import MARKED, Prompt, plain
from engine.queue import Saved, SavedPicture
from engine.recipes import read_recipe
from engine.references import adapter_for
from engine.wildcards import has_choices, resolved, wildcards

MOST_SEEDS, MOST_WEIGHTS = 8, 8
Wanted = list[tuple[LoraCard, tuple[float, ...]]]


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of draw, edit and grid; None and () mean "not said". `size` is in pixels, or a shape, or a ratio."""

    prompt: str
    lora: tuple[str, ...] = ()
    base: str | None = None
    negative: str = ""
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    speed: Wished | None = None
    size: tuple[int, int] | str | None = None
    upscale: Literal[1, 2, 4] | None = None
    upscaler: str = ""
    detail: float = 0.0
    transparent: bool = False
    n: int = 1
    trigger: bool = True
    image: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    control: tuple[str, ...] = ()
    control_map: tuple[str, ...] = ()
    control_until: float | None = None
    reference: tuple[str, ...] = ()
    out: Path | None = None


async def draw(studio: Studio, wish: Wish, terminal: Terminal) -> None:
    plan, notes = plan_of(studio, wish)
    _say(notes, terminal)
    _report(await drawn(studio, plan, terminal, wish.out), notes, terminal)


async def again(studio: Studio, picture: Path, out: Path | None, terminal: Terminal) -> None:
    """The picture of a recipe once more: on the same machine and versions, the same pixels."""
    recipe = read_recipe(read_file(picture), picture.name)
    plan = redrawing(recipe, picture.name, studio.base(recipe["base"]), studio.store)
    _report(await drawn(studio, plan, terminal, out), (), terminal)


async def grid(studio: Studio, wish: Wish, seeds: int, terminal: Terminal) -> None:
    """One prompt over the weights of one LoRA (across) and over seeds (down), as a labelled sheet."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise Invalid("--seeds", f"{brief(seeds)} is out of range", f"Choose from 1 to {MOST_SEEDS}.")
    plan, notes, name, weights = _grid_plan(studio, wish)
    check_range("seed", plan.seed, 0, MAX_SEED - (seeds - 1))
    if wish.out:
        check_target(wish.out)
    _say(notes, terminal)
    pictures: list[list[SavedPicture]] = []
    for weight in weights:
        terminal.note(f"{name} at {weight:g}")
        stack = LoraStack(tuple(replace(ref, weight=weight) if ref.name == name else ref for ref in plan.stack.refs))
        pictures.append([])
        for first in range(0, seeds, MAX_COUNT):
            some = replace(plan, stack=stack, seed=plan.seed + first, count=min(MAX_COUNT, seeds - first))
            pictures[-1] += await drawn(studio, some, terminal, None)
    png = sheet(
        [[column[k].png for column in pictures] for k in range(seeds)],
        [f"{name} {weight:g}" for weight in weights],
        [f"seed {plan.seed + k}" for k in range(seeds)],
        plan.prompt,
    )
    file = write_file(wish.out, png) if wish.out else studio.store.save_picture(png, None, f"grid-{name}")
    shown = [picture_facts(p) for column in pictures for p in column]
    terminal.result({"file": str(file), "pictures": shown} | _noted(notes), [str(file)])


def plan_of(studio: Studio, wish: Wish) -> tuple[ImagePlan, tuple[str, ...]]:
    """The plan that a wish comes to, and what there is to remark on it."""
    base = studio.base(wish.base)
    wish, chosen = _worded(studio, wish)
    prompt, wanted = _wanted(studio, wish, base)
    plan, notes = _plan(studio, wish, base, prompt, wanted)
    return plan, (*chosen, *notes)


async def drawn(studio: Studio, plan: ImagePlan, terminal: Terminal, out: Path | None) -> tuple[SavedPicture, ...]:
    """The pictures of one plan, kept."""
    saved: tuple[SavedPicture, ...] = ()
    async with aclosing(studio.queue.follow(plan, out)) as events:
        async for event in events:
            match event:
                case Progress():
                    terminal.progress(event)
                case Saved(pictures):
                    saved = pictures
                case _:
                    raise TypeError("an image plan ended in something else")
    return saved


def picture_facts(picture: SavedPicture) -> dict[str, Any]:
    """What `--json` says of a picture; width and height are the file's."""
    recipe = picture.recipe
    names = ("seed", "prompt", "negative", "base", "steps", "guidance", "upscale", "transparent", "upscaler", "detail")
    sides = {side: recipe[side] * recipe["upscale"] for side in ("width", "height")}
    loras = [{key: lora[key] for key in ("name", "weight", "sha256")} for lora in recipe["loras"]]
    return {"file": str(picture.file)} | {name: recipe[name] for name in names} | sides | {"loras": loras}


def _grid_plan(studio: Studio, wish: Wish) -> tuple[ImagePlan, tuple[str, ...], str, tuple[float, ...]]:
    base = studio.base(wish.base)
    wish, chosen = _worded(studio, wish)
    prompt, wanted = _wanted(studio, wish, base)
    if not wanted:
        raise Invalid("--lora", "a grid needs a LoRA with its weights", "Say for example --lora coral:0.4,0.8.")
    varied = [(card, weights) for card, weights in wanted if len(weights) > 1] or wanted[:1]
    if len(varied) > 1:
        raise Invalid("--lora", "two LoRAs have several weights", "Vary one, and give the others one weight each.")
    card, weights = varied[0]
    if len(weights) > MOST_WEIGHTS:
        raise Invalid("--lora", f"{len(weights)} weights are too many", f"Give {MOST_WEIGHTS} at the most.")
    for weight in weights:
        LoraRef(card.name, card.sha256, weight)  # each is checked before the first is drawn
    # the varied one is held at a weight above 0, so that its trigger is in the prompt of every column
    held: Wanted = [(c, (1.0,)) if c is card else (c, w) for c, w in wanted]
    light = replace(wish, n=1, upscale=wish.upscale or 1)  # a sheet shows them small
    plan, notes = _plan(studio, light, base, prompt, held)
    return plan, (*chosen, *notes), card.name, weights or (card.weight,)


def _worded(studio: Studio, wish: Wish) -> tuple[Wish, tuple[str, ...]]:
    """The wish with its seed, and with every choice in its texts made by that; and what was chosen."""
    seed = secrets.randbelow(MAX_SEED - MOST_SEEDS) if wish.seed is None else wish.seed
    lines = wildcards(studio.settings.home)
    prompt = resolved(wish.prompt, seed, lines)
    said = (f"by seed {seed}: “{prompt}”",) if has_choices(wish.prompt) and prompt != wish.prompt else ()
    return replace(wish, seed=seed, prompt=prompt, negative=resolved(wish.negative, seed, lines, "negative")), said


def _wanted(studio: Studio, wish: Wish, base: Base) -> tuple[str, Wanted]:
    """The prompt without tags, and the card and weights of each LoRA named by an option or a tag."""
    prompt, tagged = tags.take_tags(wish.prompt)
    wanted: Wanted = []
    for name, weights in [*(tags.read_option(text) for text in wish.lora), *tagged]:
        card = studio.catalog.on(base).get(name)
        if card.family != base.family:
            raise no_variant(card, base, f"it was trained on {card.base}")
        wanted.append((card, weights))
    quick = None if has_speed([card for card, _ in wanted]) else speed_lora(studio.catalog.list(), base)
    return prompt, [*wanted, (quick, ())] if wish.speed == "fast" and quick else wanted


def _plan(studio: Studio, wish: Wish, base: Base, prompt: str, wanted: Wanted) -> tuple[ImagePlan, tuple[str, ...]]:
    """`wish` has its seed by now."""
    catalog = studio.catalog.on(base)
    refs = tuple(catalog.ref(card.name, _one(card, weights)) for card, weights in wanted)
    cards = [card for card, _ in wanted]
    if wish.trigger:
        for card, ref in zip(cards, refs, strict=True):
            prompt = tags.with_trigger(prompt, card) if ref.weight else prompt
    spoken = catalog.spoken(prompt, wish.negative)
    theirs = [*_theirs(cards), *(ref.trigger for ref in spoken)]
    prompt = _own_spelling(base, prompt, theirs)
    image = read_picture(wish.image) if wish.image else None
    wish = _enlarged(studio, wish)
    assert wish.seed is not None
    size = sized(_frame(wish, base, image), base)
    said = Said(wish.speed, wish.steps, wish.guidance, wish.sampler)
    pace = paced(said, (card for card, ref in zip(cards, refs, strict=True) if ref.weight), base)
    plan = ImagePlan(
        prompt=prompt,
        base=base.name,
        seed=wish.seed,
        width=size.width,
        height=size.height,
        steps=pace.steps,
        guidance=pace.guidance,
        sampler=pace.sampler,
        stack=LoraStack(refs),
        negative=wish.negative,
        count=wish.n,
        image=image.data if image else None,
        mask=_mask(wish, image.width, image.height) if image else None,
        strength=0.6 if wish.strength is None else wish.strength,
        upscale=size.upscale,
        transparent=wish.transparent,
        syntax=MARKED,
        controls=_controls(studio, wish, base),
        references=_references(studio, wish, base),
        embeddings=spoken,
        upscaler=wish.upscaler,
        detail=wish.detail,
    )
    left_out = cropped(image.width, image.height, base) if image and wish.size is None else ""
    noted = (*pace.notes, *(note for note in (size.note, left_out) if note))
    return plan, (*noted, *_unknown_words(base, prompt, theirs))


def _controls(studio: Studio, wish: Wish, base: Base) -> tuple[Control, ...]:
    """The pictures to follow. Raises `Invalid`, before anything is loaded, where one of them has no ControlNet."""
    until = wish.control_until
    found = (*given(wish.control, False, until), *given(wish.control_map, True, until))
    if until is not None and not found:
        raise Invalid("--control-until", "there is no control that it belongs to", "Name one with --control KIND:FILE.")
    nets_for(found, base, studio.settings.home)
    return found


def _references(studio: Studio, wish: Wish, base: Base) -> tuple[Reference, ...]:
    """The pictures of how it is to look. Raises `Invalid` where the base wants an IP-Adapter for them, and has none."""
    found = referred(wish.reference)
    if found:
        adapter_for(base, studio.settings.home)
    return found


def _enlarged(studio: Studio, wish: Wish) -> Wish:
    """With the scale that an upscaler which was named gives, where none was said; that there is one is checked now."""
    name, home = wish.upscaler.lower(), studio.settings.home
    times = wish.upscale
    if name and times is None:
        most = upscalers.most_of(name, home)
        times = 4 if most == 4 else 2
    if name and times:
        upscalers.check_gives(name, times, home)
    return replace(wish, upscale=times, upscaler=name)


def _frame(wish: Wish, base: Base, image: Upload | None) -> Frame:
    """The size that was asked for, else that of the picture to start from. A mask's small picture stays small."""
    said: dict[str, object] = {"upscale": wish.upscale}
    match wish.size:
        case str(text) if text in ASPECTS:
            said["shape"] = text
        case str(text):
            said["ratio"] = text
        case (width, height):
            said |= {"width": width, "height": height}
        case _ if image:
            width, height = base.size.fitting(image.width, image.height)
            is_small = wish.mask is not None and image.width * image.height <= width * height
            said |= {
                "width": width,
                "height": height,
                "upscale": wish.upscale or (1 if is_small else base.deliver.upscale),
            }
        case _:
            pass
    return NO_NUMBERS.model_copy(update=said)


def _mask(wish: Wish, width: int, height: int) -> bytes | None:
    if wish.mask is None:
        return None
    mask = read_picture(wish.mask)
    if (mask.width, mask.height) != (width, height):
        found, wanted = f"{mask.width}x{mask.height}", f"{width}x{height}"
        raise Invalid("--mask", f"it is {found} and the picture is {wanted}", "White is redrawn, black stays.")
    return mask.data


def _one(card: LoraCard, weights: tuple[float, ...]) -> float:
    if len(weights) > 1:
        raise Invalid("--lora", f"{card.name} has {len(weights)} weights", "Give one; `atelier grid` compares several.")
    return weights[0] if weights else card.weight


def _own_spelling(base: Base, prompt: str, theirs: list[str]) -> str:
    vocabulary = Vocabulary.of(base)
    return vocabulary.spelt(prompt, theirs) if vocabulary else prompt


def _theirs(cards: list[LoraCard]) -> list[str]:
    """Words that the LoRAs bring along."""
    return [text for card in cards for text in (card.trigger, card.word)]


def _unknown_words(base: Base, prompt: str, theirs: list[str]) -> tuple[str, ...]:
    vocabulary = Vocabulary.of(base)
    unknown = vocabulary.unknown(plain(Prompt(prompt, MARKED)), theirs) if vocabulary else ()
    return tuple(f"no “{u.word}” on {base.title}{'; nearest: ' if u.near else ''}{', '.join(u.near)}" for u in unknown)


def _report(pictures: tuple[SavedPicture, ...], notes: tuple[str, ...], terminal: Terminal) -> None:
    facts = {"pictures": [picture_facts(p) for p in pictures]} | _noted(notes)
    terminal.result(facts, [str(p.file) for p in pictures])


def _noted(notes: tuple[str, ...]) -> dict[str, Any]:
    return {"notes": list(notes)} if notes else {}


def _say(notes: tuple[str, ...], terminal: Terminal) -> None:
    for note in notes:
        terminal.note(note)

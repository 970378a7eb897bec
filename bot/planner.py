"""From an intent to a complete plan: names resolved, weights made numbers, triggers put in, sizes checked.

`plan_for` is pure: it reads the catalog's cards and what is given, draws no number and knows no clock.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TypeVar

from bot.conversation import Chosen, Conversation, Order, Planned, Shot
from bot.intent import (
    BRAND,
    AskBack,
    BrandAsset,
    Change,
    Character,
    Draw,
    Frame,
    Genre,
    LoraWish,
    Nudge,
    ProductShot,
    Scene,
    StyleTransfer,
    Train,
)
from bot.prompts import words
from bot.rules.lexicon import Lexicon
from bot.rules.scenes import read_scene
from bot.rules.text import Text
from bot.shelf import Shelf
from bot.sizes import cropped, sized
from bot.surgery import scene_after, whole_word
from bot.triggers import SUBJECTS, called, prompt_of, spoken, words_of
from bot.uploads import Upload, dataset_of
from engine.bases import Base
from engine.bases.vocabulary import Vocabulary
from engine.catalog import LoraCard
from engine.errors import Invalid, TooFewPictures, UnknownLora
from engine.plans import (
    DEFAULT_RANK,
    DEFAULT_TRAIN_STEPS,
    MAX_COUNT,
    MAX_PROMPT,
    MAX_SEED,
    MAX_WEIGHT,
    PICTURES,
    ImagePlan,
    Kind,
    LoraStack,
    TrainPlan,
    brief,
)
from engine.prompts import MARKED, Prompt, Span, marked, plain
from engine.recipes import read_recipe

Picture = Draw | BrandAsset | Character | ProductShot
Wanted = TypeVar("Wanted", bound=Picture | StyleTransfer | Change)
NO_PICTURE = Invalid("change", "there is no picture yet", "Ask for one first, or attach the one that you mean.")
NOT_SEEN = "I cannot see what an attached picture shows, so I drew over it by your words: say what is in it."
NAMED, IN_PICTURE = "you named it", "in the picture that you attached"
HERE = "always used here"
LORA_STRENGTH, PLAIN_STRENGTH = 0.8, 0.7  # of a style transfer, by what gives the style
ASK_NAME = "What shall the new LoRA be called?"
ASK_SHOW = "What shall it show?"
ASK_CHANGE = "What shall I change: the background, a colour, the style, the size, or something to add or take away?"
RELATED: dict[Genre, tuple[Kind, ...]] = {"character": ("character",), "product_shot": ("product",)}


def plan_for(
    intent: Picture | StyleTransfer | Change | Train, talk: Conversation, shelf: Shelf, seed: int
) -> Planned | AskBack:
    """The plan for an intent; `seed` is used where none was said or kept. Raises UserErrors for what cannot be had."""
    if isinstance(intent, Train):
        return _training(intent, talk, shelf, seed)
    intent, notes = _with_styles_for_loras(intent, shelf)
    match intent:
        case Change():
            found = _changed(intent, talk, shelf, seed)
            return found if isinstance(found, AskBack) else replace(found, notes=(*found.notes, *notes))
        case StyleTransfer():
            order = _transferred(intent, talk, shelf)
            notes = notes if isinstance(order, AskBack) or order.scene.subject else (*notes, NOT_SEEN)
            notes = (*_left_out(talk, intent.frame, shelf.base), *notes)
        case _:
            order = _ordered(intent, talk, shelf)
            notes = (*_left_out(talk, intent.frame, shelf.base), *notes)
    return order if isinstance(order, AskBack) else planned(order, shelf, seed, (*_only_first(talk), *notes))


def _with_styles_for_loras(intent: Wanted, shelf: Shelf) -> tuple[Wanted, tuple[str, ...]]:
    """A LoRA that there is not, but a plain style of that name: the style is used, and that is said."""
    lexicon = Lexicon.of(shelf.catalog.list(), shelf.vocabulary)
    styles = {wish.name: lexicon.canonical(wish.name) for wish in intent.loras if not _is_lora(wish.name, shelf)}
    styles = {name: style for name, style in styles.items() if style in lexicon.base_styles}
    if not styles:
        return intent, ()
    style = next(iter(styles.values()))
    into = (
        {"style": style} if isinstance(intent, Change) else {"scene": intent.scene.model_copy(update={"style": style})}
    )
    loras = tuple(wish for wish in intent.loras if wish.name not in styles)
    notes = (
        f"There is no LoRA named “{name}”; {style} is a style that {shelf.base.title} knows, so that was used."
        for name, style in styles.items()
    )
    return intent.model_copy(update={"loras": loras, **into}), tuple(notes)


def _is_lora(name: str, shelf: Shelf) -> bool:
    try:
        return name == BRAND or bool(shelf.card(name))
    except UnknownLora:
        return False


def _pictures(talk: Conversation) -> int:
    """How many were attached, without their captions."""
    return sum(not file.name.lower().endswith(".txt") for file in talk.files)


def _only_first(talk: Conversation) -> tuple[str, ...]:
    return ("Only the first of the attached pictures was used.",) if talk.uploads and _pictures(talk) > 1 else ()


def planned(order: Order, shelf: Shelf, seed: int, notes: tuple[str, ...] = ()) -> Planned:
    """An order made into a plan."""
    base, frame = shelf.base, order.frame
    size = sized(frame, base)
    if frame.count is not None and not 1 <= frame.count <= MAX_COUNT:
        at_once = f"I draw 1 to {MAX_COUNT} at once, and not {brief(frame.count)}"
        raise Invalid("pictures", at_once, "Ask for some, and then for another one.")
    refs = tuple(shelf.catalog.ref(chosen.name, chosen.weight) for chosen in order.stack)
    cards = {card.name: card for card in shelf.catalog.list()}
    prompt, theirs = prompt_of(order, _spoken_of(order, shelf)), [cards[ref.name].trigger for ref in refs]
    prompt = marked(prompt, order.emphasis)
    plan = ImagePlan(
        prompt=shelf.vocabulary.spelt(prompt, theirs) if shelf.vocabulary else prompt,
        base=base.name,
        seed=seed if frame.seed is None else frame.seed,
        width=size.width,
        height=size.height,
        steps=base.defaults.steps if frame.steps is None else frame.steps,
        guidance=base.defaults.guidance,
        sampler=base.defaults.sampler,
        stack=LoraStack(refs),
        negative=order.scene.avoid,
        count=1 if frame.count is None else frame.count,
        image=order.image,
        strength=order.strength,
        upscale=size.upscale,
        transparent=bool(frame.transparent),
        syntax=MARKED,
    )
    return Planned(plan, replace(order, frame=_as_planned(frame, plan)), (*((size.note,) if size.note else ()), *notes))


def emphasised(found: Planned, spans: tuple[Span, ...], shelf: Shelf) -> Planned:
    """The plan with words said at a weight, `(red:1.3)`, over what an earlier message said of the same words."""
    if not spans or found.order is None or not isinstance(found.plan, ImagePlan):
        return found
    anew = {span.text.lower(): span for span in (*found.order.emphasis, *spans)}
    order = replace(found.order, emphasis=tuple(anew.values()))
    return replace(planned(order, shelf, found.plan.seed), notes=found.notes)


def _spoken_of(order: Order, shelf: Shelf) -> dict[str, LoraCard]:
    """The LoRAs in the stack, and those that are named beside it: none that is a part of a noun, as in a fire truck."""
    cards = shelf.catalog.list()
    lexicon, used = Lexicon.of(cards, shelf.vocabulary), {chosen.name for chosen in order.stack}
    return {card.name: card for card in cards if card.name in used or lexicon.names_alone(card, order.scene.subject)}


def _as_planned(frame: Frame, plan: ImagePlan) -> Frame:
    """The frame that a later change begins with: what came of the words for size and shape, in their place."""
    came = {"width": plan.width, "height": plan.height, "upscale": plan.upscale, "transparent": plan.transparent}
    return frame.model_copy(update=came | {"shape": None, "ratio": None})


# New pictures


def _ordered(intent: Picture, talk: Conversation, shelf: Shelf) -> Order | AskBack:
    genre = intent.kind
    stack = _wished(intent.loras, shelf)
    subject = intent.scene.subject
    stack = stack or _related(genre, subject, talk, shelf)
    if isinstance(stack, AskBack):
        return stack
    subjects = [chosen for chosen in stack if shelf.card(chosen.name).kind in SUBJECTS]
    if not subject and not subjects:
        return AskBack(kind="ask_back", missing="subject", question=ASK_SHOW)
    if genre == "character" and not subjects:
        found = _related(genre, subject, talk, shelf)
        if isinstance(found, AskBack):
            return found
        stack = (*found, *stack)
    stack = _completed(_with_defaults(stack, talk, shelf, intent.without), genre, shelf, intent.without)
    scene = intent.scene.model_copy(update={"subject": subject or subjects[0].name})
    image = talk.uploads[0].data if talk.uploads else None
    stack, strength = _strength(stack, intent.strength, image, shelf)
    frame = intent.frame if image is None else _frame_like(intent.frame, None, talk, shelf.base)
    return Order(genre, scene, stack, frame, image, strength)


def _strength(
    stack: tuple[Chosen, ...], said: float | None, image: bytes | None, shelf: Shelf
) -> tuple[tuple[Chosen, ...], float]:
    """With no picture to start from, a strength is that of the style."""
    if said is None or image is not None:
        return stack, 0.6 if said is None else said
    return tuple(replace(c, weight=said) if shelf.card(c.name).kind == "style" else c for c in stack), 0.6


def _wished(wishes: Iterable[LoraWish], shelf: Shelf) -> tuple[Chosen, ...]:
    """Each LoRA that was asked for, by any of its names; `UnknownLora` where there is none."""
    found: dict[str, Chosen] = {}
    for wish in wishes:
        card = brand_card(shelf) if wish.name == BRAND else shelf.card(wish.name)
        if card is not None:
            weight = card.weight if wish.weight is None else wish.weight
            found.setdefault(card.name, Chosen(card.name, weight, why(card, asked=wish.name != BRAND)))
    return tuple(found.values())


def brand_card(shelf: Shelf) -> LoraCard | None:
    """The style that is meant by "our brand": the one of that alias, else one that says "brand", else the first."""
    styles = shelf.of_kind("style")
    named = [card for card in styles if BRAND in (alias.lower() for alias in card.aliases)]
    said = [
        card for card in styles if any("brand" in text.lower() for text in (*card.aliases, card.summary, card.title))
    ]
    return next(iter((*named, *said, *styles)), None)


def _related(genre: Genre, subject: str, talk: Conversation, shelf: Shelf) -> tuple[Chosen, ...] | AskBack:
    """The LoRA that an unnamed mascot or "our mug" means: the last one used, or the only one, or one of that class."""
    cards = [card for kind in RELATED.get(genre, ()) for card in shelf.of_kind(kind)]
    by_word = [card for card in cards if card.word and whole_word(card.word).search(subject)]
    if genre == "product_shot":
        return (
            tuple(Chosen(card.name, card.weight, f"our {card.word}") for card in by_word[:1])
            if "our " in subject
            else ()
        )
    anonymous = re.search(rf"\b(?:{'|'.join(words('character', 'anonymous'))})\b", subject, re.IGNORECASE)
    if not cards or not anonymous or _is_any(subject, shelf):
        return ()
    used = [chosen.name for shot in reversed(talk.shots) for chosen in shot.order.stack]
    recent = [card for name in used for card in cards if card.name == name]
    if recent or by_word or len(cards) == 1:
        card = (recent or by_word or cards)[0]
        return (Chosen(card.name, card.weight, "our character"),)
    names = " or ".join(card.title for card in cards)
    return AskBack(kind="ask_back", missing="lora", question=f"Which one: {names}?")


def _is_any(subject: str, shelf: Shelf) -> bool:
    """'A knight character', 'a happy red fox mascot': some one, and none of ours."""
    if re.search(r"\bof an?\b|\ban? \w+ (?:character|hero)", subject):
        return True
    roles = "|".join(words("character", "anonymous"))
    between = re.search(rf"\ban?\s+((?:[\w-]+\s+){{1,5}})(?:{roles})\b", subject, re.IGNORECASE)
    nouns = shelf.vocabulary.nouns if shelf.vocabulary else ()
    return between is not None and any(word in nouns for word in between[1].lower().split())


def _with_defaults(
    stack: tuple[Chosen, ...], talk: Conversation, shelf: Shelf, without: Iterable[str]
) -> tuple[Chosen, ...]:
    """Adds what is always used in this channel, where nothing of that kind was named; a LoRA that is gone is left."""
    cards = [card for card in shelf.catalog.list() if card.name in talk.here.always and card.base == shelf.base.name]
    has = {shelf.card(chosen.name).kind for chosen in stack}
    new = [card for card in cards if card.kind not in has and card.name not in without]
    return (*stack, *(Chosen(card.name, card.weight, HERE) for card in new))


def _completed(stack: tuple[Chosen, ...], genre: Genre, shelf: Shelf, without: Iterable[str]) -> tuple[Chosen, ...]:
    """Adds the brand's style to a brand asset and the quality LoRA to everything, less what was not wanted."""
    unwanted = set(without)
    if "all" in unwanted:
        return ()
    has = {shelf.card(chosen.name).kind for chosen in stack}
    extra: list[LoraCard] = []
    brand = brand_card(shelf) if genre == "brand_asset" and "style" not in has else None
    if brand:
        extra.append(brand)
    if "quality" not in has:
        extra += shelf.of_kind("quality")[:1]
    full = (*stack, *(Chosen(card.name, card.weight, why(card, asked=False)) for card in extra))
    return in_order((chosen for chosen in full if chosen.name not in unwanted), shelf)


def in_order(stack: Iterable[Chosen], shelf: Shelf) -> tuple[Chosen, ...]:
    """Style, subject, quality: as the reply says them."""
    order: dict[Kind, int] = {"style": 0, "quality": 2}
    return tuple(sorted(stack, key=lambda chosen: order.get(shelf.card(chosen.name).kind, 1)))


def why(card: LoraCard, asked: bool) -> str:
    """Why a LoRA is in the stack, in a few words: a style that was asked for says what it is ("our summer brand")."""
    if card.kind == "quality":
        return NAMED if asked else "quality"
    if card.kind == "style":
        return (card.summary.partition(":")[0] or NAMED) if asked else BRAND
    return {"character": "the character", "product": "the product", "subject": "the subject"}[card.kind]


# A picture done over in a style


def _transferred(intent: StyleTransfer, talk: Conversation, shelf: Shelf) -> Order | AskBack:
    source = talk.last if not talk.uploads else None
    if not talk.uploads and source is None:
        raise Invalid("style transfer", "there is no picture to start from", "Attach one, or ask for one first.")
    stack = _wished(intent.loras, shelf)
    style = intent.scene.style
    if not style and not any(shelf.card(chosen.name).kind == "style" for chosen in stack):
        names = ", ".join(card.name for card in shelf.of_kind("style"))
        return AskBack(
            kind="ask_back", missing="lora", question=f"In which style: {names}, or a plain one such as pixel art?"
        )
    scene, kept, image = _shown_before(talk, source, shelf)
    words_said = {"subject": intent.scene.subject} if intent.scene.subject and source is None else {}
    scene = scene.model_copy(update={"style": style, **words_said})
    full = {chosen.name: chosen for chosen in (*kept, *stack)}
    stack = (
        () if "all" in intent.without else in_order((c for c in full.values() if c.name not in intent.without), shelf)
    )
    usual = PLAIN_STRENGTH if style and not any(shelf.card(c.name).kind == "style" for c in stack) else LORA_STRENGTH
    frame = _frame_like(intent.frame, source, talk, shelf.base)
    return Order("draw", scene, stack, frame, image, usual if intent.strength is None else intent.strength)


def _shown_before(talk: Conversation, source: Shot | None, shelf: Shelf) -> tuple[Scene, tuple[Chosen, ...], bytes]:
    """What the picture to start from shows, in words and in subjects' LoRAs: by its order, or by its own recipe."""
    if source:
        order = source.order
        return order.scene, tuple(c for c in order.stack if shelf.card(c.name).kind in SUBJECTS), source.pngs[0]
    scene, kept = _scene_of_upload(talk, shelf)
    return scene, kept, talk.uploads[0].data


def _scene_of_upload(talk: Conversation, shelf: Shelf) -> tuple[Scene, tuple[Chosen, ...]]:
    """By the recipe that a picture of ours carries (the upload as checked has lost it); nothing for another picture."""
    file = next((file for file in talk.files if not file.name.lower().endswith(".txt")), None)
    try:
        recipe = read_recipe(file.data, file.name) if file else None
    except Invalid:
        recipe = None
    if recipe is None:
        return Scene(subject="", place="", style="", avoid=""), ()
    cards = {card.name: card for card in shelf.catalog.list() if card.base == shelf.base.name}
    weights = {lora["name"]: lora["weight"] for lora in recipe["loras"] if lora["name"] in cards}
    prompt = plain(Prompt(recipe["prompt"][:MAX_PROMPT], recipe["syntax"]))
    text = Text(words_of(prompt, [cards[name] for name in weights]))
    scene = read_scene(text, Lexicon.of(cards.values(), shelf.vocabulary))
    subjects = (card for name in weights if (card := cards[name]).kind in SUBJECTS)
    return scene, tuple(Chosen(card.name, weights[card.name], IN_PICTURE) for card in subjects)


def _frame_like(frame: Frame, source: Shot | None, talk: Conversation, base: Base) -> Frame:
    """The source's own size, shape and kind of file unless another was asked for."""
    if source:
        plan = source.plan
        seed = plan.seed if frame.seed is None else frame.seed
        frame = frame.model_copy(update=_file_of(frame, plan) | {"seed": seed})
        return frame if _shaped(frame) else frame.model_copy(update={"width": plan.width, "height": plan.height})
    if _shaped(frame):
        return frame
    width, height = _upload_size(talk.uploads[0], base)
    upscale = frame.upscale or base.deliver.upscale
    return frame.model_copy(update={"width": width, "height": height, "upscale": upscale})


def _shaped(frame: Frame) -> bool:
    """Whether a shape or a size was asked for."""
    return bool(frame.shape or frame.ratio or frame.width)


def _file_of(frame: Frame, plan: ImagePlan) -> dict[str, object]:
    """The kind of file: as said, else as it was. A size said in pixels says that, too."""
    upscale = frame.upscale if frame.upscale is not None or frame.width else plan.upscale
    return {"upscale": upscale, "transparent": plan.transparent if frame.transparent is None else frame.transparent}


def _upload_size(upload: Upload, base: Base) -> tuple[int, int]:
    if base.size.buckets:
        return base.size.bucket(upload.width, upload.height)
    scale = base.size.native / min(upload.width, upload.height)
    return base.size.nearest(round(upload.width * scale)), base.size.nearest(round(upload.height * scale))


def _left_out(talk: Conversation, frame: Frame, base: Base) -> tuple[str, ...]:
    """What an attached picture loses where it is drawn over in the base's nearest shape."""
    note = cropped(talk.uploads[0].width, talk.uploads[0].height, base) if talk.uploads and not _shaped(frame) else ""
    return (note,) if note else ()


# The last picture, or an attached one, changed


def _changed(intent: Change, talk: Conversation, shelf: Shelf, seed: int) -> Planned | AskBack:
    if talk.uploads:
        return _changed_upload(intent, talk, shelf, seed)
    shots = talk.shots[:-1] if intent.back else talk.shots
    if not shots:
        raise NO_PICTURE
    shot = shots[-1]
    notes = _unread(intent, shelf)
    if not is_change(intent):
        question = f"{notes[0]} {ASK_CHANGE}" if notes else ASK_CHANGE
        return AskBack(kind="ask_back", missing="change", question=question)
    scene, order = scene_after(intent, shot.order.scene), shot.order
    stack = stack_after(intent, order, shelf)
    stack, scene = _swapped_subjects(stack, scene, order, shelf)
    frame = frame_after(intent, shot)
    strength = _nudged_strength(intent, order) if intent.strength is None else intent.strength
    new = replace(order, genre=_genre_after(order, scene), scene=scene, stack=stack, frame=frame, strength=strength)
    return planned(new, shelf, seed, notes)


def _nudged_strength(intent: Change, order: Order) -> float:
    """'Stronger' is also farther from the picture that was started from."""
    by = sum(nudge.by / 2 for nudge in intent.nudges if nudge.name is None)
    return min(max(round(order.strength + by, 2), 0.1), 1.0)


def is_change(intent: Change) -> bool:
    said = (
        intent.swaps,
        intent.add,
        intent.remove,
        intent.colour,
        intent.loras,
        intent.without,
        intent.nudges,
        intent.reseed,
        intent.which,
        intent.back,
    )
    numbers = any(value is not None for value in intent.frame.model_dump().values())
    return any(said) or numbers or intent.place is not None or intent.style is not None or intent.strength is not None


def _changed_upload(intent: Change, talk: Conversation, shelf: Shelf, seed: int) -> Planned | AskBack:
    """Image-to-image on an attached picture: its subject is not known in words, only what is to become of it."""
    if not is_change(intent):
        return AskBack(kind="ask_back", missing="change", question=ASK_CHANGE)
    before, kept = _scene_of_upload(talk, shelf)
    scene = scene_after(intent, before)
    if intent.colour and not scene.subject:
        scene = scene.model_copy(update={"subject": f"{intent.colour.new} {intent.colour.old}".strip()})
    stack = _completed((*kept, *_wished(intent.loras, shelf)), "draw", shelf, intent.without)
    frame = _frame_like(intent.frame, None, talk, shelf.base)
    order = Order(
        "draw", scene, stack, frame, talk.uploads[0].data, 0.6 if intent.strength is None else intent.strength
    )
    unseen = () if before.subject else (f"{NOT_SEEN} A lower strength keeps more of it.",)
    left_out = _left_out(talk, intent.frame, shelf.base)
    return planned(order, shelf, seed, (*_only_first(talk), *left_out, *unseen, *_unread(intent, shelf)))


def _unread(intent: Change, shelf: Shelf) -> tuple[str, ...]:
    """What could not be used, and where a photograph was wished for, why."""
    unknown = shelf.vocabulary.unknown(intent.unread) if shelf.vocabulary else ()
    why_not = f": {shelf.base.title} draws no photographs" if any(word.is_realism for word in unknown) else ""
    return (f"I could not use “{intent.unread}”{why_not}.",) if intent.unread else ()


def frame_after(intent: Change, shot: Shot) -> Frame:
    """Seed and size are kept unless they were what to change; picture k of a plan has its own seed."""
    said, plan, kept = intent.frame, shot.plan, shot.order.frame
    which = 0 if intent.which is None else (plan.count if intent.which < 0 else intent.which) - 1
    if which >= plan.count:
        raise Invalid(
            "picture", f"there is no picture {which + 1}; the last answer had {plan.count}", "Say which of them."
        )
    seed = None if intent.reseed else (plan.seed + which) % (MAX_SEED + 1)
    count = said.count if said.count is not None else 1 if intent.which is not None or intent.reseed else kept.count
    is_new = said.width is not None or said.ratio is not None or said.shape not in (None, "bigger", "smaller")
    size = {} if is_new else {"width": plan.width, "height": plan.height}
    numbers = {
        "count": count,
        "seed": seed if said.seed is None else said.seed,
        "steps": kept.steps if said.steps is None else said.steps,
    }
    file = _file_of(said, plan) | ({"transparent": False} if intent.place and not said.transparent else {})
    return said.model_copy(update=size | numbers | file)


def stack_after(intent: Change, order: Order, shelf: Shelf) -> tuple[Chosen, ...]:
    """The last stack: a new style takes the old one's place, the rest is added, taken out, or set to another weight."""
    if "all" in intent.without:
        return ()
    wished = _wished(intent.loras, shelf)
    new_style = any(shelf.card(chosen.name).kind == "style" for chosen in wished)
    stays = [c for c in order.stack if not (new_style and shelf.card(c.name).kind == "style")]
    if intent.style is not None and not new_style:  # a plain style instead of the brand's, or none
        stays = [c for c in stays if shelf.card(c.name).kind != "style"]
    merged = {c.name: c for c in stays} | {c.name: c for c in wished}
    for nudge in intent.nudges:
        for name in _nudged(nudge, merged, shelf, is_over=order.image is not None):
            weight = min(max(round(merged[name].weight + nudge.by, 2), 0.0), MAX_WEIGHT)
            merged[name] = replace(merged[name], weight=weight)
    removed = {shelf.card(name).name for name in intent.without}
    return in_order((c for c in merged.values() if c.name not in removed), shelf)


def _nudged(nudge: Nudge, stack: dict[str, Chosen], shelf: Shelf, is_over: bool) -> list[str]:
    """The LoRA meant; one that is not in the stack yet begins at nothing. A picture drawn over needs none."""
    if nudge.name is None:
        names = [name for name in stack if shelf.card(name).kind == "style"]
        if not names and not is_over:
            raise Invalid("style", "the last picture has no style LoRA to make stronger or weaker", "Name one: “in …”.")
        return names
    card = shelf.card(nudge.name)
    if card.name not in stack:
        if nudge.by < 0:
            raise Invalid(card.name, "it is not in the last picture", "Say with which LoRA to draw it.")
        stack[card.name] = Chosen(card.name, card.weight - nudge.by, why(card, asked=True))
    return [card.name]


def _swapped_subjects(
    stack: tuple[Chosen, ...], scene: Scene, order: Order, shelf: Shelf
) -> tuple[tuple[Chosen, ...], Scene]:
    """A subject that is no longer in the words leaves the stack; a newly named one that is in no words joins them."""
    before = {c.name for c in order.stack}
    text = f"{scene.subject} {scene.place}"
    kept: list[Chosen] = []
    for chosen in stack:
        card = shelf.card(chosen.name)
        named = re.search(rf"(?<!\w)(?:{spoken(card)}|{called(card)})(?!\w)", text, re.IGNORECASE)
        was_named = re.search(rf"(?<!\w)(?:{spoken(card)}|{called(card)})(?!\w)", order.scene.subject, re.IGNORECASE)
        if card.kind in SUBJECTS and chosen.name in before and was_named and not named:
            continue
        if card.kind in SUBJECTS and chosen.name not in before and not named:
            scene = scene.model_copy(update={"subject": f"{scene.subject} and {card.title}"})
        kept.append(chosen)
    return tuple(kept), scene


def _genre_after(order: Order, scene: Scene) -> Genre:
    return "draw" if order.genre == "product_shot" and scene.style else order.genre


# Training


def _training(intent: Train, talk: Conversation, shelf: Shelf, seed: int) -> Planned | AskBack:
    """What was not said is chosen here: a slug for the name, a trigger that means nothing yet, a kind."""
    shelf.base.check_trains()
    if (count := _pictures(talk)) < PICTURES[0]:
        raise TooFewPictures(count, PICTURES[0])
    if not intent.name:
        return AskBack(kind="ask_back", missing="name", question=ASK_NAME)
    name = re.sub(r"[^a-z0-9_-]+", "-", intent.name.lower()).strip("-_")
    if is_everyday(name):
        question = f"“{name}” is said in many sentences that do not mean it. What else shall it be called?"
        return AskBack(kind="ask_back", missing="name", question=question)
    shelf.catalog.check_name(name, intent.replace)
    word = intent.word or ""
    kind: Kind = intent.learns or "subject"
    trigger, noted = _trigger(intent, name, shelf)
    data = dataset_of([(file.name, file.data) for file in talk.files], intent.caption, trigger, word)
    plan = TrainPlan(
        name=name,
        kind=kind,
        trigger=trigger,
        base=shelf.base.name,
        examples=data.examples,
        seed=seed,
        word=word,
        steps=DEFAULT_TRAIN_STEPS if intent.steps is None else intent.steps,
        rank=DEFAULT_RANK if intent.rank is None else intent.rank,
        replace=intent.replace,
    )
    return Planned(plan, None, (*noted, *(f"Left out: {reason}." for reason in data.left_out), *data.notes))


def _trigger(intent: Train, name: str, shelf: Shelf) -> tuple[str, tuple[str, ...]]:
    """The trigger that was said, with a warning where the base knows the word; else one made from the name."""
    taken = {card.trigger.lower() for card in shelf.catalog.list() if card.name != name}
    said = re.sub(r"[^\w-]", "", intent.trigger or "").lower()
    if said:
        if is_everyday(said):
            raise Invalid("trigger", f"“{said}” is said in many sentences that do not mean it", "Choose another word.")
        if said in taken:
            raise Invalid("trigger", f"“{said}” is the trigger of another LoRA", "Choose another word.")
        known = is_known(said, shelf.vocabulary)
        return said, (
            f"The base knows the word “{said}” already; a made-up word learns more cleanly.",
        ) if known else ()
    return made_trigger(name, taken, shelf.vocabulary), ()


def is_everyday(word: str) -> bool:
    """Whether a LoRA of this name would come along, or take the word out of the sentence, wherever it stands."""
    said = {*words("style", "no_names"), *words("colours", "plain"), *words("chat", "orders")}
    return word in {*said, *words("chat", "picture_nouns"), *words("chat", "everyday")}


def is_known(word: str, vocabulary: Vocabulary | None) -> bool:
    """Whether the base has a meaning for it."""
    return vocabulary is not None and not vocabulary.unknown(word)


def made_trigger(name: str, taken: Collection[str], vocabulary: Vocabulary | None) -> str:
    """A rare word from the name's letters that means nothing: consonants and an x ("biscuit" → "bscx")."""
    letters = re.sub(r"[^a-z]", "", name)
    bones = (re.sub(r"[aeiouy]", "", letters) or letters or "lr")[:3]
    tries = (f"{bones}{end}" for end in ("x", "q", "zx", "qx", "vx", "xq", *(f"x{n}" for n in range(2, 100))))
    return next(word for word in tries if word not in taken and not is_known(word, vocabulary))

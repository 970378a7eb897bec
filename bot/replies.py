"""Every sentence that we say."""

import hashlib
import re
from collections.abc import Iterable, Sequence

from bot.conversation import Chosen, Conversation, Here, Order, Planned, Shot
from bot.intent import Question
from bot.message import NewLora, Reply, Sent, Shown, Stage, Trouble, Verb
from bot.rules.text import NUMBER
from bot.shelf import Shelf
from bot.surgery import colours, whole_word, with_articles
from bot.triggers import SUBJECTS, called, shown_in, spoken
from engine.bases.vocabulary import UnknownWord, Vocabulary
from engine.catalog import LoraCard
from engine.errors import (
    AtelierError,
    DiskFull,
    Invalid,
    NameTaken,
    NoVariant,
    PartialMatch,
    ShippedName,
    TrainingDiverged,
    UnknownLora,
)
from engine.jobs import Progress, Queued
from engine.plans import ImagePlan, TrainPlan
from engine.queue import SavedPicture

CALM = (
    "Something went wrong on our side, and nothing was changed. Please try again; if "
    "it happens again, report incident {incident}."
)
GREETING = "Hello. Say what to draw, for example “{example}”, or ask what there is."
THANKS = "You are welcome. Say what to change, or what to draw next."
TASTE = (
    "That is yours to say: I do not look at what I draw. Tell me which you like, for example “the second one”, "
    "and what to change."
)
CONCEPT = (
    "A LoRA is a small add-on that has learnt one style, character or product from a few pictures; "
    "{base} draws with it, and its weight says how strongly it shows. A trigger is the made-up word, "
    "such as “{trigger}”, that calls it in the prompt: you say the LoRA's name, and I put the trigger in. "
    "Ask “which LoRAs are there?” or “how do I train one?”."
)
OPTION = re.compile(r"(?<!\w)--([a-z])(?=[^`]*(?:`[^`]*`[^`]*)*$)")  # outside of a command: said without dashes
HINTS: dict[type[AtelierError], str] = {  # those that are said otherwise in a conversation
    ShippedName: "Say another name; those that come with Atelier are never replaced.",
    NameTaken: "Say another name, or “replace it”.",
    TrainingDiverged: "Try a lower rank, for example “rank 8”, or other pictures.",
    DiskFull: "Free some space, and ask again.",
    PartialMatch: "Nothing was taken in; “yes” takes in what fits.",
}
HELP = (
    "I draw pictures with LoRAs and learn new ones. Try: “{example}”; “a product shot of a mug "
    "on a podium”; after a picture “same but on teal”, “another one”, “as a story” or “on a transparent background”; "
    "attach a picture and say “in {style} style”; attach 4 to 30 pictures and say “train a character called Pip”. "
    "Ask “which LoRAs are there?” or “what can you draw?”."
)
HOW_TO_TRAIN = (
    "Attach 4 to 30 pictures (10 or more are better) of one thing or in one "
    "style, and say for example: “train a character called Pip, trigger "
    "pqx, it is a penguin”. Different backgrounds and poses help; a NAME.txt beside "
    "NAME.png is its caption. The trigger is a made-up word; if you "
    "name none, I choose one. It takes a few minutes, and then you use it by name."
)


def progress(event: Progress, intent: str) -> Reply:
    loss = f", loss {event.loss:.4f}" if event.loss is not None else ""
    part = f", picture {event.part} of {event.parts}" if event.parts > 1 else ""
    stage = Stage(
        stage=event.stage,
        step=event.step,
        steps=event.steps,
        part=event.part,
        parts=event.parts,
        loss=event.loss,
        left=event.left,
        preview=event.preview,
        samples=event.samples,
    )
    text = f"{event.stage} {event.step}/{event.steps}{part}{loss}{_left(event.left)}"
    return Reply(text=text, intent=intent, progress=stage, actions=("cancel",))


def queued(event: Queued, steps: int, intent: str) -> Reply:
    """Its place, and how long until it begins as far as that is known."""
    first = "next in line" if event.place == 1 else f"{event.place - 1} go first"
    stage = Stage(stage="queued", step=0, steps=steps, place=event.place, left=event.left)
    return Reply(text=f"queued: {first}{_left(event.left)}", intent=intent, progress=stage, actions=("cancel",))


def _left(seconds: float | None) -> str:
    if seconds is None or seconds < 1:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f", about {f'{minutes} min {rest:02d} s' if minutes else f'{rest} s'} left"


def started(plan: TrainPlan, notes: Sequence[str], intent: str) -> Reply:
    """What was chosen, before the minutes that training takes."""
    word = f" {plan.word}" if plan.word else ""
    text = (
        f"Training “{plan.name}” ({plan.kind}) from {len(plan.examples)} pictures, {plan.steps} "
        f"steps at rank {plan.rank}; "
        f"trigger “{plan.trigger}{word}”."
    )
    stage = Stage(stage="starting", step=0, steps=plan.steps)
    return Reply(text=_joined(text, *notes), intent=intent, progress=stage, actions=("cancel",))


def drawn(planned: Planned, saved: Sequence[SavedPicture], shelf: Shelf, unable: Sequence[str], intent: str) -> Reply:
    """What it shows; the LoRAs, and why; numbers and prompt; what it is `unable` to draw, and notes. A line each."""
    plan, order = planned.plan, planned.order
    assert isinstance(plan, ImagePlan)
    assert order is not None
    numbers = f"{numbers_said(plan)[:-1]}, prompt “{plan.prompt}”."
    lead = shown_said(order, plan.count, shelf, is_sure=not unable)
    hint = "Say “stronger” or “weaker”." if intent == "style_transfer" else ""
    lines = (lead, stack_said(order.stack), numbers, _joined(*unable, *planned.notes, hint))
    text = "\n".join(line for line in lines if line)
    why: tuple[Verb, ...] = ("why",) if plan.stack.refs else ()
    return Reply(text=text, intent=intent, pictures=shown(saved), actions=("vary", "seed", *why, "recipe", "train"))


def shown(saved: Iterable[SavedPicture]) -> tuple[Shown, ...]:
    return tuple(Shown(file=p.file, recipe=p.recipe, sha256=hashlib.sha256(p.png).hexdigest()) for p in saved)


def explained(picture: SavedPicture) -> Reply:
    """The sheet that the Why button asks for."""
    text = "The same seed without each LoRA, and without any; beneath it, what each LoRA was trained on."
    return Reply(text=text, intent="why", pictures=shown([picture]))


def recipe_said(shot: Shot, shelf: Shelf) -> str:
    """All that makes a picture, a line each."""
    plan, made = shot.plan, [f"{ref.name} {ref.weight:g} ({ref.sha256[:12]})" for ref in shot.plan.stack.refs]
    numbers = f"{numbers_said(plan)[:-1]}, {plan.steps} steps, guidance {plan.guidance:g}, sampler {plan.sampler}."
    followed = [f"{control.kind} {control.weight:g}" for control in plan.controls]
    followed += [f"look {reference.weight:g}" for reference in plan.references]
    return "\n".join(
        (f"Prompt: “{plan.prompt}”", numbers, f"LoRAs: {', '.join(made) or 'none'}", f"Base: {shelf.base.title}",
         *((f"Follows pictures: {', '.join(followed)}",) if followed else ()),
         "The PNG carries all of this; `atelier draw --again FILE` draws it anew.")
    )  # fmt: skip


def kept_seed(shot: Shot) -> str:
    return f"Seed {shot.plan.seed} stays. Say what to change: it is drawn with the same seed."


def set_here(here: Here) -> str:
    """How things are done in a channel from now on."""
    always = f"always {_listed(here.always)}" if here.always else "nothing is always used"
    drops = "" if here.trains else " only when you say so"
    return f"Here: {always}; dropped pictures are for training{drops}."


def shown_said(order: Order, count: int, shelf: Shelf, is_sure: bool = True) -> str:
    """'Here is the Brewster teapot on a podium.', in a marketer's words: no trigger, no number."""
    scene, subject = order.scene, order.scene.subject
    for card in (shelf.card(chosen.name) for chosen in order.stack):
        if card.kind in SUBJECTS:
            subject = _titled(subject, card)
    style = f"{scene.style} style" if scene.style else ""
    what = with_articles(shown_in(subject, scene.place) + (f", {style}" if style else ""))
    if not what:
        return "Here is your picture." if count == 1 else f"Here are your {count} pictures."
    if count > 1:
        return f"Here are {count} {'pictures of' if is_sure else 'tries at'} {what}."
    if not is_sure:
        return f"Here is my try at {what}."
    several = re.match(rf"(?:{NUMBER}|some)\s+\w+s\b", what, re.IGNORECASE) and not re.match("(?:one|1) ", what)
    return f"Here {'are' if several else 'is'} {what}."


def _titled(subject: str, card: LoraCard) -> str:
    """The LoRA's title where its name, its trigger or its class word stands: 'Inky', 'the Brewster teapot'."""
    word = re.escape(card.word)
    is_bare = card.kind == "product" and not whole_word(card.word).search(card.title)
    title = f"{card.title} {card.word}" if is_bare else card.title
    article = "the " if card.kind == "product" else ""
    for said in (rf"(?:{spoken(card)}|{called(card)})(?: {word})?", word or "(?!)"):
        pattern = rf"(?<!\w)(?:(?:the|an?|our) )?((?:(?:{'|'.join(colours())}) )?){said}(?!\w)"
        if match := re.search(pattern, subject, re.IGNORECASE):
            return f"{subject[: match.start()]}{article}{match[1]}{title}{subject[match.end() :]}"
    return subject


def stack_said(stack: Sequence[Chosen]) -> str:
    """'terracotta 0.8: our brand; crisp 0.5: quality.'"""
    used = [chosen for chosen in stack if chosen.weight]
    return "; ".join(f"{c.name} {c.weight:g}: {c.why}" for c in used) + "." if used else "No LoRA: the base alone."


def numbers_said(plan: ImagePlan) -> str:
    seeds = f"Seed {plan.seed}" if plan.count == 1 else f"Seeds {plan.seed} to {plan.seed + plan.count - 1}"
    start = f", from the picture at strength {plan.strength:g}" if plan.image else ""
    avoid = f", without: {plan.negative}" if plan.negative else ""
    return f"{seeds}, {size_said(plan)}{start}{avoid}."


def size_said(plan: ImagePlan) -> str:
    """'1024x1024 (drawn at 256x256), transparent background'."""
    drawn_at = f" (drawn at {plan.width}x{plan.height})" if plan.upscale > 1 else ""
    return f"{'x'.join(map(str, plan.delivered))}{drawn_at}{', transparent background' if plan.transparent else ''}"


def unknown_said(unknown: Iterable[UnknownWord], base: str) -> tuple[str, ...]:
    """The words that the base has never seen, with what it can draw instead, and what it never draws."""
    people, real, plain, found = list[str](), list[str](), list[str](), list[str]()
    for word in unknown:
        if word.near:
            found.append(f"No “{word.word}” on {base}; nearest: {', '.join(word.near)}.")
        else:
            (people if word.is_person else real if word.is_realism else plain).append(f"“{word.word}”")
    return (
        *found,
        *([f"{base} does not know {_listed(plain)}."] if plain else []),
        *([f"{base} draws no people ({_listed(people)})."] if people else []),
        *([f"{base} draws no photographs ({_listed(real)})."] if real else []),
    )


def loras_said(unknown: Iterable[UnknownWord], shelf: Shelf) -> tuple[str, ...]:
    """The LoRAs that are what the base does not know: "a teapot" may mean the one that there is."""
    words = {word.word.lower() for word in unknown}
    cards = [card for card in shelf.of_kind(*SUBJECTS) if card.word.lower() in words]
    return tuple(f"{card.title} is {with_articles(f'a {card.word}')}: say its name, and it is drawn." for card in cards)


def _listed(things: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join(part for part in (", ".join(things[:-1]), *things[-1:]) if part)


def learnt(card: LoraCard, planned: Planned, intent: str) -> Reply:
    example = f"a mug in {card.name} style" if card.kind in ("style", "quality") else f"{card.name} at the beach"
    word = f" {card.word}" if card.word else ""
    text = _joined(
        f"“{card.name}” is ready: a {card.kind}, trigger “{card.trigger}{word}”, from {card.pictures} pictures.",
        *planned.notes,
        f"Try it: “{example}”.",
    )
    return Reply(
        text=text, intent=intent, lora=NewLora(name=card.name, kind=card.kind, trigger=card.trigger, folder=card.folder)
    )


def taken_in(card: LoraCard, notes: Sequence[str]) -> Reply:
    """A LoRA file that was dropped is in the catalog, or an embedding."""
    new = NewLora(name=card.name, kind=card.kind, trigger=card.trigger, folder=card.folder)
    if card.what == "embedding":
        count = f"{card.vectors} vector{'' if card.vectors == 1 else 's'}"
        text = _joined(
            f"“{card.name}” is here: an embedding of {count}, licence {card.licence}.",
            *notes,
            f"Write “{card.trigger}” where it shall work: “a mug, {card.trigger}”.",
        )
        return Reply(text=text, intent="import", lora=new)
    example = f"a mug in {card.name} style" if card.kind in ("style", "quality") else f"{card.name} at the beach"
    if card.speed:
        example = "a quick draft of a mug"
        notes = (f"It draws in {card.speed}.", *notes)
    called = f"trigger “{f'{card.trigger} {card.word}'.strip()}”" if card.trigger else "no trigger"
    text = _joined(
        f"“{card.name}” is here: a {card.kind}, {called}, rank {card.rank}, weight {card.weight:g}, "
        f"licence {card.licence}.",
        *notes,
        f"Try it: “{example}”.",
    )
    return Reply(text=text, intent="import", lora=new)


def sent(card: LoraCard, files: Sequence[Sent]) -> Reply:
    """A LoRA's file goes with the answer."""
    size = files[0].size / 1e6
    text = (
        f"Here is “{card.name}”, {size:.1f} MB, for the base {card.base} in AUTOMATIC1111, ComfyUI, InvokeAI, kohya's "
        f"tools and diffusers. Licence: {card.licence}. The .json tells AUTOMATIC1111 its trigger and weight."
    )
    return Reply(text=text, intent="question", files=tuple(files))


def refusal(error: AtelierError, intent: str | None, incident: str | None = None) -> Reply:
    report = f"If it happens again, report incident {incident}." if incident else ""
    hint = hint_in_chat(error)
    trouble = Trouble(code=error.code, message=error.message, hint=hint, incident=incident)
    return Reply(text=_joined(error.message, hint, report), intent=intent, error=trouble)


def hint_in_chat(error: AtelierError) -> str:
    """What to do about it in a conversation, where there are no commands and no options."""
    if (said := HINTS.get(type(error))) is not None:
        return said
    match error:
        case UnknownLora(near=()):
            return "Ask “which LoRAs do you have?”."
        case NoVariant():
            return error.hint  # a command, to be typed as it stands
        case Invalid() if "--home" in error.hint:
            return "Start Atelier with a home folder that it may write to."
        case _:
            return OPTION.sub(r"\1", error.hint)


def fault(incident: str, intent: str | None) -> Reply:
    text = CALM.format(incident=incident)
    return Reply(text=text, intent=intent, error=Trouble(code="internal", message=text, incident=incident))


# Answers to questions: from the catalog, the base and the last picture, and nothing else


def answer(question: Question, talk: Conversation, shelf: Shelf) -> str:
    match question.topic:
        case "lora":
            return _lora(shelf.card(question.about))
        case "drawable":
            return _drawable(question.about, shelf)
        case "last" | "settings" | "reasons" | "file":
            return _of_last(question, talk, shelf)
        case "licence":
            return _licences(question, talk, shelf)
        case _:
            return _in_general(question, shelf)


def _in_general(question: Question, shelf: Shelf) -> str:
    match question.topic:
        case "loras":
            return _loras(shelf)
        case "training":
            return HOW_TO_TRAIN
        case "concept":
            return CONCEPT.format(base=shelf.base.title, trigger=_first_trigger(shelf))
        case "thanks":
            return THANKS
        case "taste":
            return TASTE
        case "greeting":
            return GREETING.format(example=_example(shelf))
        case _:
            return HELP.format(example=_example(shelf), style=_first_style(shelf))


def _example(shelf: Shelf) -> str:
    characters = shelf.of_kind("character")
    return f"draw {characters[0].title} at the beach" if characters else "a red mug on a podium"


def _first_trigger(shelf: Shelf) -> str:
    return next((card.trigger for card in shelf.catalog.list()), "zqx")


def _first_style(shelf: Shelf) -> str:
    return next((card.name for card in shelf.of_kind("style")), "pixel art")


def _loras(shelf: Shelf) -> str:
    cards = shelf.catalog.list()
    if not cards:
        return f"There is no LoRA yet. {HOW_TO_TRAIN}"
    return (
        "There are: "
        + "; ".join(f"{card.name} ({card.kind}{_fit(card, shelf)}): {card.summary or card.title}" for card in cards)
        + "."
    )


def _fit(card: LoraCard, shelf: Shelf) -> str:
    return "" if card.base == shelf.base.name else f", for the base {card.base}"


def _lora(card: LoraCard) -> str:
    word = f" {card.word}" if card.word else ""
    uses = {
        "style": f"say “a mug in {card.name} style”",
        "quality": "it is added to every picture; say “without " + card.name + "” to leave it out",
        "character": f"say “{card.title} at the beach”",
        "product": f"say “a product shot of {card.title}”",
        "subject": f"say “{card.title} at the beach”",
        "speed": f"say “a quick draft of a mug”: it draws in {card.speed}",
    }[card.kind]
    called = f"Trigger “{card.trigger}{word}”" if card.trigger else "No trigger"
    commercial = "commercial use is allowed" if card.commercial else "not for commercial use"
    return _joined(
        f"{card.name} is a {card.kind} LoRA: {card.summary or card.title}.",
        f"To use it, {uses}.",
        f"{called}, usual weight {card.weight:g}, rank {card.rank}, for the base {card.base}"
        + (f", from {card.pictures} pictures." if card.pictures else "."),
        f"Licence {card.licence}: {commercial}.",
        card.provenance,
    )


def _drawable(about: str, shelf: Shelf) -> str:
    vocabulary, title = shelf.vocabulary, shelf.base.title
    if vocabulary is None:
        return f"{title} has no word list: ask for anything, and see."
    if about:
        triggers = [
            word for card in shelf.catalog.list() for word in (card.trigger, card.name, card.title, *card.aliases)
        ]
        unknown = vocabulary.unknown(about, triggers)
        return _joined(*unknown_said(unknown, title)) if unknown else f"Yes, {title} knows “{about}”: just ask."
    kinds: dict[str, list[str]] = {}
    for noun, kind in vocabulary.nouns.items():
        kinds.setdefault(kind, []).append(noun)
    some = "; ".join(f"{kind}: {', '.join(nouns[:5])}" for kind, nouns in kinds.items())
    return _joined(
        f"{title} knows {len(vocabulary.nouns)} things, among them {some}.",
        f"Styles: {', '.join(vocabulary.styles)}.",
        f"Colours and backgrounds: {', '.join(word for word in vocabulary.shown if word not in vocabulary.styles)}.",
        *(f"{kind.replace('_', ' ').capitalize()}: {', '.join(texts)}." for kind, texts in _manners(vocabulary)),
        "What it has never seen, a LoRA can learn.",
    )


def _manners(vocabulary: Vocabulary) -> list[tuple[str, tuple[str, ...]]]:
    """How things can be shown, by kind: expressions, poses, views. A list of nouns says nothing new."""
    return [
        (kind, texts) for kind, texts in vocabulary.more.items() if texts and not set(texts) <= set(vocabulary.nouns)
    ]


def _of_last(question: Question, talk: Conversation, shelf: Shelf) -> str:
    if talk.last is None:
        return "There is no picture in this conversation yet, and I remember none from before it."
    match question.topic:
        case "reasons":
            reasons = [_reason(chosen, shelf) for chosen in talk.last.order.stack if chosen.weight]
            return _joined(*reasons) or stack_said(())
        case "file":
            files = _listed([str(file) for file in talk.last.files])
            where = f"The last picture was saved as {files}." if files else "I do not know where it was saved."
            return _joined(where, "On the page, click it to see it in full size and to download it.")
        case _:
            return _last(question, talk.last, shelf)


def _reason(chosen: Chosen, shelf: Shelf) -> str:
    """Why a LoRA is in the stack, as a sentence."""
    card = shelf.card(chosen.name)
    named = chosen.why in (card.summary.partition(":")[0], "you named it")
    why = {
        "style": (f"you named it ({chosen.why})" if chosen.why != "you named it" else chosen.why)
        if named
        else "it is our brand's style, and you named the brand",
        "quality": "you named it"
        if named
        else f"it is added to every picture for clean edges; say “without {card.name}” to leave it out",
        "character": f"it is {chosen.why}"
        if chosen.why.startswith(("our ", "in "))
        else "it is the character you named",
        "product": f"it is {chosen.why}" if chosen.why.startswith(("our ", "in ")) else "it is the product you named",
        "subject": "it is the subject you named",
        "speed": "you named it" if named else f"you wished it fast: it draws in {card.speed}",
    }[card.kind]
    return f"{card.name} {chosen.weight:g}: {why}."


def _last(question: Question, shot: Shot, shelf: Shelf) -> str:
    about = ""
    if question.about and all(c.name != question.about for c in shot.order.stack):
        about = f"{question.about} was not used."
    plan = shot.plan
    numbers = (
        f"{numbers_said(plan)[:-1]}, {plan.steps} steps, guidance {plan.guidance:g}, "
        f"sampler {plan.sampler}, on {shelf.base.title}."
    )
    return _joined("The last picture:", about, stack_said(shot.order.stack), f"Prompt “{plan.prompt}”.", numbers)


def _licences(question: Question, talk: Conversation, shelf: Shelf) -> str:
    """Of the LoRA asked about, or of the last picture, or of the base."""
    base = shelf.base
    names = [question.about] if question.about else _used(talk.last)
    cards = [shelf.card(name) for name in names]
    parts = [f"{base.title}: {base.licence}", *(f"{card.name}: {card.licence}" for card in cards)]
    free = base.commercial and all(card.commercial for card in cards)
    barred = [
        name for name, open_ in ((base.title, base.commercial), *((c.name, c.commercial) for c in cards)) if not open_
    ]
    verdict = (
        "Commercial use is allowed by all of them."
        if free
        else f"Commercial use is not allowed by {', '.join(barred)}."
    )
    what = "The last picture was made with" if talk.last and not question.about else "Licences:"
    return _joined(
        f"{what} {'; '.join(parts)}.",
        verdict,
        "Drawing costs nothing but this machine's time: no service is paid for.",
    )


def _used(shot: Shot | None) -> list[str]:
    order: Order | None = shot.order if shot else None
    return [chosen.name for chosen in order.stack if chosen.weight] if order else []


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)

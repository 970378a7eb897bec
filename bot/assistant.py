"""The whole product in one function: a message in, replies out, the last of them the only one without `progress`."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from bot import replies, why
from bot.conversation import Conversation, Planned, Shot
from bot.history import History
from bot.intent import BRAND, AskBack, Change, Intent, Question, Setting, StyleTransfer, Train
from bot.interpreter import Interpreter, pictures
from bot.message import Inbound, Press, Reply, Sent
from bot.newcomers import brings_a_lora, parcels, taken_in
from bot.planner import Picture, brand_card, emphasised, followed, plan_for
from bot.presses import ANOTHER, NOTHING_TO_STOP, STOPPED, TRAIN, asks_to_stop, gathered, picked
from bot.rules.answers import completed
from bot.rules.following import Following, answered, following
from bot.shelf import Shelf
from bot.uploads import check_picture
from engine.catalog import LoraCard
from engine.controls import net_for
from engine.errors import AtelierError, Cancelled, Invalid, NameTaken, TooFewPictures, TryLater, UserError
from engine.jobs import Progress, Queued, Ticket
from engine.plans import MAX_COUNT, MAX_PROMPT, MAX_SEED, ImagePlan, Plan, TrainPlan
from engine.prompts import Prompt, Span, plain, taken
from engine.queue import Saved, SavedPicture
from engine.references import adapter_for
from engine.wildcards import Lines, no_files, resolved

log = logging.getLogger(__name__)

EMPTY = Invalid("message", "it is empty", "Say what to draw, for example: a red mug on a podium.")
AGAIN = "again"  # of a picture to follow that comes without a word on what to show
ASK_FOLLOWED = AskBack(kind="ask_back", missing="subject", question="What shall it show?")
Event = Queued | Progress | Saved | LoraCard


class Queue(Protocol):
    """Where plans are run: `JobQueue` for the life of this process, `DurableQueue` beyond it."""

    def follow(self, plan: Plan, out: Path | None = None, ticket: Ticket | None = None) -> AsyncGenerator[Event]: ...
    async def recall(self, key: str) -> Any | None: ...
    async def cancel(self, key: str, owner: str) -> bool: ...
    async def cancel_latest(self, thread: str, owner: str) -> bool: ...
    async def keep(self, png: bytes, stem: str) -> SavedPicture: ...
    async def keep_file(self, data: bytes, name: str) -> Path: ...


def any_seed(_: Inbound) -> int:
    return secrets.randbelow(MAX_SEED - MAX_COUNT)


class Assistant:
    """Holds nothing itself. `draw_seed` gives a message's seed where none was said, `lines` what `__name__` means."""

    def __init__(
        self,
        queue: Queue,
        shelf: Shelf,
        interpreter: Interpreter,
        history: History,
        draw_seed: Callable[[Inbound], int] = any_seed,
        lines: Lines = no_files,
    ) -> None:
        self._queue = queue
        self._shelf = shelf
        self._interpreter = interpreter
        self._history = history
        self._draw_seed = draw_seed
        self._lines = lines

    async def close(self) -> None:
        await self._interpreter.close()

    async def answer(self, inbound: Inbound) -> AsyncGenerator[Reply]:
        """Never raises but on cancel: what goes wrong becomes a reply, and the conversation stays as it was."""
        intent: str | None = None
        try:
            async with aclosing(self._answer(inbound)) as said:
                async for reply in said:
                    intent = reply.intent
                    yield reply
        except (UserError, TryLater, Cancelled) as error:
            yield replies.refusal(error, intent)
        except AtelierError as error:
            yield replies.refusal(error, intent, _incident(inbound))
        except Exception:  # the outermost one: the next message has to work
            yield replies.fault(_incident(inbound), intent)

    async def _answer(self, inbound: Inbound) -> AsyncGenerator[Reply]:
        if (stopped := await self._stopped(inbound)) is not None:
            yield Reply(text=STOPPED if stopped else NOTHING_TO_STOP, intent="cancel")
            return
        _check(inbound)
        talk = await self._history.open(inbound)
        known: Planned | None = await self._queue.recall(inbound.key)
        steps = (
            self._run(known, talk, known.intent, inbound)  # an earlier try came as far as a plan
            if known
            else self._pressed(inbound.press, talk, inbound)
            if inbound.press
            else self._said(talk, inbound)
        )
        async with aclosing(steps) as said:
            async for reply in said:
                yield reply

    async def _stopped(self, inbound: Inbound) -> bool | None:
        """None where nothing was asked to be stopped."""
        if inbound.press and inbound.press.verb == "cancel":
            return await self._queue.cancel(inbound.press.of, inbound.person)
        if asks_to_stop(inbound):
            return await self._queue.cancel_latest(inbound.talk, inbound.person)
        return None

    async def _said(self, talk: Conversation, inbound: Inbound) -> AsyncGenerator[Reply]:
        message = answered(talk.asked, inbound) or completed(talk.asked, inbound)
        if brings_a_lora(message):
            yield await self._taken_in(talk, message)
            return
        if talk.here.trains and pictures(message) and not message.text.strip():
            message = message.model_copy(update={"text": TRAIN})
        if follow := following(message):
            self._check(follow)
        intent, message, seed = await self._read(talk, message)
        try:
            async with aclosing(self._act(intent, talk, message, seed)) as said:
                async for reply in said:
                    yield reply
        except UserError as error:  # what was meant is known by now
            yield replies.refusal(error, intent.kind)

    def _check(self, follow: Following) -> None:
        """Raise `Invalid`, before anything else is asked, where that cannot be followed on this base."""
        if follow.what == "look":
            adapter_for(self._shelf.base, self._shelf.home)
        else:
            net_for(follow.what, self._shelf.base, self._shelf.home)

    async def _read(self, talk: Conversation, message: Inbound) -> tuple[Intent, Inbound, int]:
        """What was meant, the message with its choices (`{a|b}`) made, and the seed that made them.

        It is the picture's own seed: where that is said or kept, and not drawn, the message is read once more with it.
        """
        seed = self._draw_seed(message)
        said, intent = await self._chosen(talk, message, seed)
        if said.text != message.text and (kept := self._seed_for(intent, talk, said, seed)) != seed:
            seed = kept
            said, intent = await self._chosen(talk, message, seed)
        return intent, said, seed

    async def _chosen(self, talk: Conversation, message: Inbound, seed: int) -> tuple[Inbound, Intent]:
        """The message with its choices made by `seed`, and what it means then."""
        said = message.model_copy(update={"text": resolved(message.text, seed, self._lines)})
        bare = said.model_copy(update={"text": self._taken(said.text)[0]})
        if follow := following(bare):
            if not follow.rest and talk.last is None:
                return said, ASK_FOLLOWED
            bare = bare.model_copy(update={"text": follow.rest or AGAIN, "attachments": ()})
        return said, await self._interpreter.read(talk, bare)

    def _taken(self, text: str) -> tuple[str, tuple[Span, ...]]:
        """`(red:1.3)` is read as the word red, and its weight goes round the reading; `(coral:0.8)` is a LoRA's."""
        cards = self._shelf.catalog.list()
        return taken(text, {name.lower() for card in cards for name in (card.name, card.title, *card.aliases)})

    def _seed_for(self, intent: Intent, talk: Conversation, message: Inbound, seed: int) -> int:
        """The seed of the picture that this comes to; `seed` where it is none, or cannot be had."""
        if isinstance(intent, AskBack | Question | Setting | Train):
            return seed
        with suppress(UserError):
            planned = plan_for(intent, _holding(talk, intent, message), self._shelf, seed)
            return planned.plan.seed if isinstance(planned, Planned) else seed
        return seed

    async def _act(self, intent: Intent, talk: Conversation, message: Inbound, seed: int) -> AsyncGenerator[Reply]:
        match intent:
            case AskBack():
                self._history.keep(talk.asking(intent, message))
                yield Reply(text=intent.question, intent=intent.kind)
            case Question(topic="send"):
                yield await self._sent(intent)
            case Question():
                yield Reply(text=replies.answer(intent, talk, self._shelf), intent=intent.kind)
            case Setting():
                yield self._set(intent, talk)
            case _:
                held = _holding(talk, intent, message)
                planned = self._planned(intent, held, talk, message, seed)
                if isinstance(planned, AskBack):
                    self._history.keep(talk.asking(planned, message))
                    yield Reply(text=planned.question, intent=intent.kind)
                else:
                    async with aclosing(self._run(planned, held, intent.kind, message)) as said:
                        async for reply in said:
                            yield reply

    async def _pressed(self, press: Press, talk: Conversation, inbound: Inbound) -> AsyncGenerator[Reply]:
        if press.verb == "train":
            ask, message = gathered(talk, inbound)
            self._history.keep(talk.asking(ask, message))
            yield Reply(text=ask.question, intent="train")
            return
        chosen = picked(talk, press)
        assert chosen.last is not None
        match press.verb:
            case "vary":
                planned = self._planned(ANOTHER, chosen, talk, inbound, self._draw_seed(inbound))
                assert isinstance(planned, Planned)
                steps = self._run(planned, chosen, "change", inbound)
            case "why":
                steps = self._explained(chosen.last, inbound)
            case "seed":
                self._history.keep(chosen)
                yield Reply(text=replies.kept_seed(chosen.last), intent="change")
                return
            case _:
                yield Reply(text=replies.recipe_said(chosen.last, self._shelf), intent="question")
                return
        async with aclosing(steps) as said:
            async for reply in said:
                yield reply

    async def _taken_in(self, talk: Conversation, message: Inbound) -> Reply:
        """A LoRA file that was dropped; what nobody said of it is asked, with the file still in hand."""
        try:
            taken = await asyncio.to_thread(taken_in, message, self._shelf)
        except NameTaken as error:
            ask = AskBack(kind="ask_back", missing="name", question=error.message)
            self._history.keep(talk.asking(ask, message))
            return replies.refusal(error, "import")
        except UserError as error:
            return replies.refusal(error, "import")
        if isinstance(taken, AskBack):
            self._history.keep(talk.asking(taken, message))
            return Reply(text=taken.question, intent="import")
        self._history.keep(talk.settled())
        return replies.taken_in(*taken)

    async def _sent(self, question: Question) -> Reply:
        """The file of a LoRA, and the side-car that goes beside it."""
        card, made = await asyncio.to_thread(parcels, question.about, self._shelf)
        files = [
            Sent(
                name=one.name,
                file=await self._queue.keep_file(one.data, one.name),
                sha256=hashlib.sha256(one.data).hexdigest(),
                size=len(one.data),
            )
            for one in made
        ]
        return replies.sent(card, files)

    def _set(self, setting: Setting, talk: Conversation) -> Reply:
        """Raises `UnknownLora` for what is always to be used and is not there."""
        here = talk.here
        if setting.always is not None:
            brand = brand_card(self._shelf)
            names = (brand.name if brand and name == BRAND else self._shelf.card(name).name for name in setting.always)
            here = replace(here, always=tuple(dict.fromkeys(names)))
        if setting.trains is not None:
            here = replace(here, trains=setting.trains)
        self._history.keep(talk.settled(), here)
        return Reply(text=replies.set_here(here), intent=setting.kind)

    def _planned(
        self,
        intent: Picture | StyleTransfer | Change | Train,
        held: Conversation,
        talk: Conversation,
        message: Inbound,
        seed: int,
    ) -> Planned | AskBack:
        """A name that is taken, or too few pictures: a refusal, and a question too; what is in hand stays there."""
        try:
            planned = plan_for(intent, held, self._shelf, seed)
        except (NameTaken, TooFewPictures) as error:
            missing = "name" if isinstance(error, NameTaken) else "pictures"
            self._history.keep(talk.asking(AskBack(kind="ask_back", missing=missing, question=error.message), message))
            raise
        if isinstance(planned, AskBack):
            return planned
        planned = emphasised(planned, self._taken(message.text)[1], self._shelf)
        if follow := following(message):
            first = follow.pictures[0]
            planned = followed(planned, follow, check_picture(first.data, first.name).data, self._shelf)
        return replace(planned, intent=intent.kind)

    async def _run(self, planned: Planned, talk: Conversation, intent: str, inbound: Inbound) -> AsyncGenerator[Reply]:
        """The job, from its first progress to what was kept of it."""
        plan = planned.plan
        if isinstance(plan, TrainPlan):
            self._history.keep(talk.settled())  # minutes pass: the conversation goes on meanwhile
            yield replies.started(plan, planned.notes, intent)
        ticket = Ticket(inbound.key, inbound.person, inbound.talk, planned)
        async with aclosing(self._queue.follow(plan, ticket=ticket)) as events:
            async for event in events:
                match event:
                    case Queued():
                        yield replies.queued(event, plan.steps, intent)
                    case Progress():
                        yield replies.progress(event, intent)
                    case LoraCard():
                        yield replies.learnt(event, planned, intent)
                    case Saved():
                        yield self._shown(planned, event, talk, intent, inbound)

    async def _explained(self, shot: Shot, inbound: Inbound) -> AsyncGenerator[Reply]:
        """What the same seed draws without each LoRA, a job each, and then the sheet of it all."""
        name = f"picture with seed {shot.plan.seed}"
        parts = why.panels(shot.plan, name, self._shelf.catalog)
        drawn: list[bytes] = []
        for number, part in enumerate(parts[:-1]):
            ticket = Ticket(f"{inbound.key}#{number}", inbound.person, inbound.talk, Planned(part.plan))
            async with aclosing(self._queue.follow(part.plan, ticket=ticket)) as events:
                async for event in events:
                    match event:
                        case Queued():
                            yield replies.queued(event, part.plan.steps, "why")
                        case Progress():
                            step = replace(event, stage=part.label, part=number + 1, parts=len(parts) - 1)
                            yield replies.progress(step, "why")
                        case Saved():
                            drawn.append(event.pictures[0].png)
                        case LoraCard():
                            raise TypeError("an image plan ended in a LoRA")
        sheet = await asyncio.to_thread(why.explained, parts, (*drawn, shot.pngs[0]), self._shelf.catalog)
        yield replies.explained(await self._queue.keep(sheet, "why"))

    def _shown(self, planned: Planned, saved: Saved, talk: Conversation, intent: str, inbound: Inbound) -> Reply:
        plan, order = planned.plan, planned.order
        assert isinstance(plan, ImagePlan)
        assert order is not None
        pngs, files = zip(*((picture.png, picture.file) for picture in saved.pictures), strict=True)
        self._history.keep(talk.drawn(Shot(order, plan, pngs, files, inbound.key)))
        return replies.drawn(planned, saved.pictures, self._shelf, self._unknown(plan, inbound.text), intent)

    def _unknown(self, plan: ImagePlan, said: str) -> tuple[str, ...]:
        """What the prompt says that the base has never seen, as sentences; and that it draws no photographs."""
        if self._shelf.vocabulary is None:
            return ()
        cards = [self._shelf.card(ref.name) for ref in plan.stack.refs]
        known = [text for card in cards for text in (card.trigger, card.word)]
        known += [ref.trigger for ref in plan.embeddings]
        named = self._shelf.vocabulary.unknown(plain(Prompt(plan.prompt, plan.syntax)), known)
        dropped = (word for word in self._shelf.vocabulary.unknown(said, known) if word.is_realism)
        known_by_loras = replies.loras_said(named, self._shelf)
        return (*replies.unknown_said(dict.fromkeys((*named, *dropped)), self._shelf.base.title), *known_by_loras)


def _check(inbound: Inbound) -> None:
    if not inbound.text.strip() and not inbound.attachments and inbound.press is None:
        raise EMPTY
    if len(inbound.text) > MAX_PROMPT:
        raise Invalid("message", f"{len(inbound.text):,} characters are too many", f"Use {MAX_PROMPT:,} at the most.")


def _holding(talk: Conversation, intent: Intent, message: Inbound) -> Conversation:
    """The files in hand: all of them for a training, else the first picture, checked."""
    if isinstance(intent, Train):
        return talk.holding(message.attachments, ())
    if following(message):  # it is not drawn over
        return talk.holding((), ())
    return talk.holding(
        message.attachments, tuple(check_picture(file.data, file.name) for file in pictures(message)[:1])
    )


def _incident(inbound: Inbound) -> str:
    """Logs what went wrong under a fresh id. What the person wrote is not logged."""
    incident = secrets.token_hex(4)
    log.exception("incident %s: message %s on %s", incident, inbound.tag, inbound.platform)
    return incident

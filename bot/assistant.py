"""The whole product in one function: a message in, replies out, the last of them the only one without `progress`."""

import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from bot import replies
from bot.conversation import Conversation, Planned, Shot
from bot.intent import AskBack, Change, Intent, Question, StyleTransfer, Train
from bot.interpreter import Interpreter, pictures
from bot.message import Inbound, Reply
from bot.planner import Picture, plan_for
from bot.rules.answers import completed
from bot.shelf import Shelf
from bot.uploads import check_picture
from engine.catalog import LoraCard
from engine.errors import AtelierError, Invalid, NameTaken, TryLater, UserError
from engine.jobs import Progress
from engine.plans import MAX_COUNT, MAX_PROMPT, MAX_SEED, ImagePlan, TrainPlan
from engine.queue import JobQueue, Saved

log = logging.getLogger(__name__)

THREADS = 100  # conversations that are remembered
EMPTY = Invalid("message", "it is empty", "Say what to draw, for example: a red mug on a podium.")


class Assistant:
    """Holds the conversations of this process; everything else is a value."""

    def __init__(
        self, queue: JobQueue, shelf: Shelf, interpreter: Interpreter, draw_seed: Callable[[], int] | None = None
    ) -> None:
        self._queue = queue
        self._shelf = shelf
        self._interpreter = interpreter
        self._draw_seed = draw_seed or (lambda: secrets.randbelow(MAX_SEED - MAX_COUNT))
        self._talks: OrderedDict[str, Conversation] = OrderedDict()

    async def answer(self, inbound: Inbound) -> AsyncGenerator[Reply]:
        """Never raises but on cancel: what goes wrong becomes a reply, and the conversation stays as it was."""
        intent: Intent | None = None
        talk = self._talks.get(inbound.thread) or Conversation(inbound.thread)
        try:
            _check(inbound)
            message = completed(talk.asked, inbound)
            intent = await self._interpreter.read(talk, message)
            async with aclosing(self._act(intent, talk, message)) as said:
                async for reply in said:
                    yield reply
        except (UserError, TryLater) as error:
            yield replies.refusal(error, intent and intent.kind)
        except AtelierError as error:
            incident = _incident(inbound)
            yield replies.refusal(error, intent and intent.kind, incident)
        except Exception:  # the outermost one: the next message has to work
            incident = _incident(inbound)
            yield replies.fault(incident, intent and intent.kind)

    async def _act(self, intent: Intent, talk: Conversation, message: Inbound) -> AsyncGenerator[Reply]:
        match intent:
            case AskBack():
                self._keep(talk.asking(intent, message))
                yield Reply(text=intent.question, intent=intent.kind)
            case Question():
                yield Reply(text=replies.answer(intent, talk, self._shelf), intent=intent.kind)
            case _:
                held = _holding(talk, intent, message)
                planned = self._planned(intent, held, talk, message)
                if isinstance(planned, AskBack):
                    self._keep(talk.asking(planned, message))
                    yield Reply(text=planned.question, intent=intent.kind)
                else:
                    async with aclosing(self._run(planned, held, intent.kind, message.text)) as said:
                        async for reply in said:
                            yield reply

    def _planned(
        self, intent: Picture | StyleTransfer | Change | Train, held: Conversation, talk: Conversation, message: Inbound
    ) -> Planned | AskBack:
        """A name that is taken is a refusal, and a question too: the pictures stay in hand for the next message."""
        try:
            return plan_for(intent, held, self._shelf, self._draw_seed())
        except NameTaken as error:
            self._keep(talk.asking(AskBack(kind="ask_back", missing="name", question=error.message), message))
            raise

    async def _run(self, planned: Planned, talk: Conversation, intent: str, said: str) -> AsyncGenerator[Reply]:
        """The job, from its first progress to what was kept of it."""
        plan = planned.plan
        if isinstance(plan, TrainPlan):
            yield replies.started(plan, planned.notes, intent)
        async with aclosing(self._queue.follow(plan)) as events:
            async for event in events:
                match event:
                    case Progress():
                        yield replies.progress(event, intent)
                    case LoraCard():
                        self._keep(talk.settled())
                        yield replies.learnt(event, planned, intent)
                    case Saved():
                        yield self._shown(planned, event, talk, intent, said)

    def _shown(self, planned: Planned, saved: Saved, talk: Conversation, intent: str, said: str) -> Reply:
        plan, order = planned.plan, planned.order
        assert isinstance(plan, ImagePlan)
        assert order is not None
        pngs, files = zip(*((picture.png, picture.file) for picture in saved.pictures), strict=True)
        self._keep(talk.drawn(Shot(order, plan, pngs, files)))
        return replies.drawn(planned, saved.pictures, self._shelf, self._unknown(plan, said), intent)

    def _unknown(self, plan: ImagePlan, said: str) -> tuple[str, ...]:
        """What the prompt says that the base has never seen, as sentences; and that it draws no photographs."""
        if self._shelf.vocabulary is None:
            return ()
        cards = [self._shelf.card(ref.name) for ref in plan.stack.refs]
        known = [text for card in cards for text in (card.trigger, card.word)]
        named = self._shelf.vocabulary.unknown(plan.prompt, known)
        dropped = (word for word in self._shelf.vocabulary.unknown(said, known) if word.is_realism)
        return replies.unknown_said(dict.fromkeys((*named, *dropped)), self._shelf.base.title)

    def _keep(self, talk: Conversation) -> None:
        self._talks[talk.thread] = talk
        self._talks.move_to_end(talk.thread)
        if len(self._talks) > THREADS:
            self._talks.popitem(last=False)


def _check(inbound: Inbound) -> None:
    if not inbound.text.strip() and not inbound.attachments:
        raise EMPTY
    if len(inbound.text) > MAX_PROMPT:
        raise Invalid("message", f"{len(inbound.text):,} characters are too many", f"Use {MAX_PROMPT:,} at the most.")


def _holding(talk: Conversation, intent: Intent, message: Inbound) -> Conversation:
    """The files in hand: all of them for a training, else the first picture, checked."""
    if isinstance(intent, Train):
        return talk.holding(message.attachments, ())
    return talk.holding(
        message.attachments, tuple(check_picture(file.data, file.name) for file in pictures(message)[:1])
    )


def _incident(inbound: Inbound) -> str:
    """Logs what went wrong under a fresh id. What the person wrote is not logged."""
    incident = secrets.token_hex(4)
    log.exception("incident %s: message %s of %s", incident, inbound.id, inbound.thread)
    return incident

"""What a pressed button means: the same as something that could have been said, of a certain picture."""

import re

from bot.conversation import Conversation
from bot.intent import NO_NUMBERS, AskBack, Change
from bot.message import Attachment, Inbound, Press
from engine.errors import Invalid
from engine.plans import PICTURES

STOP = re.compile(
    r"(?:please )?(?:stop|cancel|abort|never ?mind|forget it)(?: (?:it|that|this|please|the (?:job|training|drawing)))*"
    r"[.!]*",
    re.IGNORECASE,
)
ANOTHER = Change(
    kind="change", swaps=(), add=(), remove=(), colour=None, place=None, style=None, loras=(), without=(), nudges=(),
    strength=None, reseed=True, which=None, back=False, unread="", frame=NO_NUMBERS,
)  # fmt: skip
LONGEST = 100  # letters of a message that may be no more than a wish to stop
STOPPED = "Stopped."
NOTHING_TO_STOP = "There is nothing of yours to stop there."
TRAIN = "learn a new LoRA from these pictures"
MORE = "{count} in hand for a new LoRA; {more} more at least. Press the button under another, or drop pictures here."
FORGOTTEN = Invalid("picture", "it is not among the latest of this conversation", "Ask for it anew, or attach it.")
NAME = "{count} in hand for a new LoRA. What shall it be called?"


def asks_to_stop(inbound: Inbound) -> bool:
    """In words, and in nothing but these."""
    return len(inbound.text) < LONGEST and not inbound.attachments and bool(STOP.fullmatch(inbound.text.strip()))


def picked(talk: Conversation, press: Press) -> Conversation:
    """The conversation with the picture under the button as its last one."""
    try:
        return talk.picking(press.of, press.picture)
    except LookupError:
        raise FORGOTTEN from None


def gathered(talk: Conversation, inbound: Inbound) -> tuple[AskBack, Inbound]:
    """All pictures of an answer beside those in hand, as a message that waits for more of them, or for a name."""
    assert inbound.press is not None
    try:
        shot = talk.shot_of(inbound.press.of)
    except LookupError:
        raise FORGOTTEN from None
    held = talk.asked.about.attachments if talk.asked and talk.asked.ask.missing in ("pictures", "name") else ()
    new = (Attachment(name=f"{shot.plan.seed + k}.png", data=png) for k, png in enumerate(shot.pngs))
    files = tuple({file.data: file for file in (*held, *new)}.values())
    said = f"{len(files)} picture{'s' if len(files) > 1 else ''}"
    if len(files) < PICTURES[0]:
        ask = AskBack(
            kind="ask_back", missing="pictures", question=MORE.format(count=said, more=PICTURES[0] - len(files))
        )
    else:
        ask = AskBack(kind="ask_back", missing="name", question=NAME.format(count=said))
    return ask, inbound.model_copy(update={"text": TRAIN, "attachments": files, "press": None})

"""An answer to a question of ours, joined to what the question was about."""

from bot.conversation import Asked
from bot.message import Inbound
from bot.prompts import load, words
from bot.rules.acts import is_question, is_training, refers_back, starts_anew
from bot.rules.sending import told_of_a_lora
from bot.rules.text import any_of, compiled, plain, tidy

NAME = (
    r"^(?:(?:please|let's|just|you can|maybe)\s+){0,4}(?:call|name)?\s*(?:it|him|her|them|"
    r"this)?\s*(?:is|as|should be)?\s*[\"']?([\w-]+)[\"']?(?:[\s,]+(?:please|then|instead))*[.!]*$"
)
REPLACE = r"^(?:(?:please|yes|ok(?:ay)?|just)[\s,]+)*(?:replace|overwrite)\b[^.!?]*[.!]*$"
GATHERS = ("pictures", "what", "name")  # questions that more pictures may follow
LONGEST = 12  # words that an answer has
MOST = 60  # files that are gathered, a caption beside each picture; with more than that a new set begins


def completed(asked: Asked | None, message: Inbound) -> Inbound:
    """The message that the question was about, with the answer in it; `message` itself if it is a new request."""
    said = tidy(plain(message.text))
    if asked is None:
        return message
    before = tidy(plain(asked.about.text))
    together = len(asked.about.attachments) + len(message.attachments)
    if message.attachments and asked.ask.missing in GATHERS and not starts_anew(said) and together <= MOST:
        return _gathered(asked, message, said, before)
    is_chat = is_question(said) and asked.ask.missing != "partial"  # there, a mere "yes" is an answer
    if message.attachments or not said or len(said.split()) > LONGEST or is_chat:
        return message
    text = _joined(asked.ask.missing, before, said)
    return (
        message if text is None else message.model_copy(update={"text": text, "attachments": asked.about.attachments})
    )


def _gathered(asked: Asked, message: Inbound, said: str, before: str) -> Inbound:
    """More pictures of a set that comes over several messages: all of them, with the words of both."""
    words_ = before if not said else said if is_training(said) or not before else f"{said}. {before}"
    return message.model_copy(update={"text": words_, "attachments": (*asked.about.attachments, *message.attachments)})


def _joined(missing: str, before: str, said: str) -> str | None:
    new = (starts_anew(said) and not refers_back(said)) or is_training(said)
    match missing:
        case "name":
            if compiled(REPLACE).match(said):
                return f"{before}, replace the old one"
            if not compiled(rf"(?:{any_of(words('chat', 'vague'))}|[\s,.]|\bi don'?t know)+").sub("", said):
                return before  # asked again, with the pictures
            name = compiled(NAME).match(said)
            return f"called {name[1]}; {before}" if name else None
        case "trigger" | "kind" | "partial":
            return None if new else told_of_a_lora(missing, before, said)
        case "what":
            return None if starts_anew(said) and not refers_back(said) else f"{said} {before}".strip()
        case "subject":
            return None if new else f"{before} with {said}" if _is_frame(before) else said
        case "lora":
            roles = any_of(words("character", "anonymous"))
            said = tidy(compiled(r"\b(?:please|the|in|style|use|with|one)\b").sub("", said))
            owner = rf"\b(?:our |my |the |a )?{roles}"
            return (
                None
                if new
                else compiled(owner).sub(said, before, count=1)
                if compiled(owner).search(before)
                else f"{before} in {said}"
            )
        case _:
            return None if new else said


def _is_frame(said: str) -> bool:
    """'a banner for our sale' wants something in it; 'surprise me' does not."""
    return compiled(any_of([*load("words")["brand"]["assets"], *words("product", "marks")])).search(said) is not None

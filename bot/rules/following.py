"""What a picture that came along is for: 'in this pose', 'follow these edges', 'use this sketch', 'in the look of it'.

Nothing of it is read where no picture is attached.
"""

from dataclasses import dataclass, replace
from typing import Literal

from bot.conversation import Asked
from bot.message import Attachment, Inbound
from bot.rules.acts import is_question, is_training
from bot.rules.answers import completed
from bot.rules.text import Text, compiled, plain, tidy
from engine.plans import ControlKind

ENOUGH = 4  # pictures from which on they are a set to learn from
THIS = r"(?:this|that|these|those|the attached|my|our)"
SAME = r"(?:exact(?:ly)?\s+)?(?:same\s+)?"
PICTURE = r"(?:picture|photo(?:graph)?|image|pic|drawing|sketch|painting|poster|one|map)s?"
OF_IT = rf"\s+(?:of|in|from|as in)\s+(?:{THIS}|the)(?:\s+{PICTURE})?"
VERBS = r"us(?:e|ing)|follow(?:ing|s)?|keep(?:ing)?|cop(?:y|ying)|tak(?:e|ing)"
USE = rf"\b(?:please\s+|and\s+|but\s+)?(?:{VERBS}|with|in|by|along|from|after|based on)"
EDGES = r"(?:edges?|outlines?|contours?|lines)(?:\s+map)?"
FORMS: tuple[tuple[ControlKind | Literal["look"], str], ...] = (
    ("pose", rf"{USE}\s+(?:{THIS}|the)\s+{SAME}poses?(?:\s+map)?{OF_IT}\b"),
    ("pose", rf"{USE}\s+(?:exactly\s+)?(?:{THIS}\s+{SAME}|the same\s+)poses?(?:\s+map)?\b"),
    ("edge", rf"{USE}\s+(?:{THIS}|the)\s+{EDGES}{OF_IT}\b"),
    ("edge", rf"{USE}\s+{THIS}\s+{EDGES}\b"),
    ("depth", rf"{USE}\s+(?:{THIS}|the)\s+depths?(?:\s+map)?{OF_IT}\b"),
    ("depth", rf"{USE}\s+{THIS}\s+depths?(?:\s+map)?\b"),
    ("sketch", rf"{USE}\s+{THIS}\s+(?:rough\s+)?(?:sketch|scribble|doodle|line art)(?:\s+of mine)?\b"),
    ("look", rf"\b(?:in|with)\s+the\s+{SAME}(?:look|style|manner|feel)\s+of\s+{THIS}\s+{PICTURE}\b"),
    ("look", rf"\b(?:and\s+)?(?:make it |have it |that |which )?looks?(?:ing)?\s+like\s+{THIS}\s+{PICTURE}\b"),
)
NOTHING = (
    r"(?:please|now|then|but|and|just|instead|again|so|also|can|could|would|you|we|i|want|would like|like|draw|make|do|"
    r"have|show|give|redo|redraw|try|let|me|us|it|that|this|the|a|same|one|thing|picture|image|something|to|be|is|of|for)"
)


@dataclass(frozen=True, slots=True)
class Following:
    """What of the first picture is to be followed, how that was said, and what else was; `pictures` are all of them.

    `rest` is empty where what else was said does not say what to show: “please draw it”.
    """

    what: ControlKind | Literal["look"]
    words: str
    rest: str
    pictures: tuple[Attachment, ...]


def following(message: Inbound) -> Following | None:
    """None where nothing is to be followed, or the pictures are there to learn from."""
    pictures = tuple(one for one in message.attachments if not one.name.lower().endswith(".txt"))
    said = plain(message.text)
    if not 0 < len(pictures) < ENOUGH or is_training(tidy(said)):
        return None
    for what, form in FORMS:
        text = Text(said)
        if match := text.take(form):
            is_more = compiled(rf"\b(?!{NOTHING}\b)\w").search(text.rest) is not None
            return Following(what, match[0].strip(), text.rest if is_more else "", pictures)
    return None


def answered(asked: Asked | None, message: Inbound) -> Inbound | None:
    """The answer to what it shall show or what to change, with the picture to follow; None where that was not asked."""
    if asked is None or asked.ask.missing not in ("subject", "change") or message.attachments or message.press:
        return None
    before, said = following(asked.about), tidy(plain(message.text))
    if before is None or not said or is_question(said) or is_training(said):
        return None
    bare = replace(asked, about=asked.about.model_copy(update={"text": before.rest}))
    text = f"{tidy(completed(bare, message).text)}, {before.words}"
    return message.model_copy(update={"text": text, "attachments": asked.about.attachments})

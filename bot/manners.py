"""How a thing is shown: from where, in which light, with which face, with room for text.

Said alone they are changes of the picture that is there; in a new one they stay in the words of its subject.
"""

import re

from bot.prompts import words

SIDE = r"(?:\s+(?:on|at|to)\s+the\s+(?:left|right|top|bottom)(?:\s+(?:hand\s+)?side)?)?"
KINDS = {
    "view": r"(?:seen\s+)?from\s+(?:above|below|behind|the\s+(?:front|back|side|top))(?!\s+of\b)|"
    r"(?:front|side|back|rear|top|three-quarter|3/4)\s+view",
    "light": r"(?:soft|side|top|back|rim|hard|warm|cold|studio)[\s-]?light(?:ing)?(?!\s+(?:bulb|switch))",
    "room": rf"(?:copy|empty|free|blank|negative)\s+space{SIDE}|"
    rf"(?:room|space)\s+for\s+(?:text|copy|a headline|the headline){SIDE}",
    "distance": r"(?:an?\s+)?close[\s-]?up",
}
GLUE = "\ua78f"  # a letter of no sentence
MANNERS = rf"(?:{'|'.join(KINDS.values())})"


def glued(said: str) -> str:
    """Each manner as one word, so that no rule takes 'on the left' or 'for text' out of it; `loosened` undoes it."""
    return re.sub(
        rf"(?<![\w-]){MANNERS}(?![\w-])", lambda match: match[0].replace(" ", GLUE), said, flags=re.IGNORECASE
    )


def loosened(said: str) -> str:
    return said.replace(GLUE, " ")


def moods() -> str:
    """A pattern for one expression of a face."""
    return rf"(?<!\w)(?:{'|'.join(words('poses', 'moods'))})(?!\w)"


def kind_of(said: str) -> str | None:
    """Which manner these words are, if they are one and nothing else."""
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, said, re.IGNORECASE)), None)


def is_manner(said: str) -> bool:
    """Whether no more is said than how to show what is there: 'from above', 'make it with side light'."""
    before = r"(?:(?:now|but|and|then|please|make|show|draw|do|it|him|her|them|this|that|with|in|as|some|more|the)\s+)*"
    after = r"(?:[\s,]+(?:please|now|instead|again|this time))*[.!?]*"
    more = rf"(?:,?\s+(?:and\s+)?(?:with\s+)?{MANNERS})*"
    return re.fullmatch(rf"{before}{MANNERS}{more}{after}", said, re.IGNORECASE) is not None


def without_rivals(manner: str, subject: str) -> str:
    """`subject` without what it says of the same manner: a picture has one view, one light."""
    kind = kind_of(manner)
    if kind is None:
        return subject
    return re.sub(rf",?\s*(?:\bwith\s+)?(?<!\w)(?:{KINDS[kind]})(?!\w)", "", subject, flags=re.IGNORECASE).strip(" ,")


def in_mood(mood: str, subject: str) -> str:
    """'a red fox', angry → 'a angry red fox': in the place of another mood, or before the noun."""
    replaced, count = re.subn(rf"\b(?:looking\s+)?(?:{moods()})", mood, subject, count=1, flags=re.IGNORECASE)
    if count:
        return replaced
    match = re.match(r"((?:an?|the|some|two|three|four)\s+)?(.*)$", subject, re.IGNORECASE | re.DOTALL)
    head, rest = (match[1] or "", match[2]) if match else ("", subject)
    return f"{head}{mood} {rest}".strip()

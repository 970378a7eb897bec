"""'Send me the file of Inky', 'export coral': a LoRA's file is asked for; and what is said of one that is dropped."""

import re

from bot.intent import Question
from bot.prompts import words
from bot.rules.lexicon import Lexicon, spoken
from bot.rules.text import any_of, compiled

ASKED = r"(?:(?:please|pls)[,\s]+)?(?:(?:can|could|would|will|may) (?:you|i|we) (?:please )?)?"
GIVEN = r"(?:send|give|get|hand|share|export|download|save|have)"
FILE = r"(?:lora|file|lora file|safetensors(?: file)?|weights|weights file|lora's file)"
OURS = r"(?:the |our |my |a )?"
END = r"(?:[\s,]+(?:please|pls|now|for me))*[.!?]*$"
NOT_A_LORA = r"(?:that|this|it|them|picture|image|photo|(?:the|this|that|last) .*(?:picture|image|photo|one))"
NAMED = r"\b(?:call(?:ed)?|named?)\s+(?:(?:it|this|him|her|them)\s+)?(?:\"([^\"]{1,64})\"|([\w-]{1,64}))"
LONGEST = 3  # words of a trigger that is said without "the trigger is", or quotes
NO_TRIGGER = compiled(r"^(?:(?:it|there)(?:'s| has| is)?\s+)?(?:no|none|without|nothing)\b.{0,30}$|^it needs none\W*$")
A_TRIGGER = compiled(
    r"^(?P<said>(?:it'?s|it is|(?:its|the) trigger(?: word)? is|trigger(?: word)?\s*[:=]?|use|say)\s+)?"
    r"(?P<quote>[\"']?)(?P<word>[^\"']{1,64}?)[\"']?[\s.!]*$"
)


YES = compiled(r"^(?:(?:yes|yeah|yep|sure|ok(?:ay)?|please|do it|go ahead|do that|take it(?: in)?)\b[\s,.!]*)+"
               r"(?:without (?:them|those)|in part|then|anyway|the part that fits)?[\s.!]*$")  # fmt: skip
NO = compiled(r"^(?:no|nope|don'?t|do not|leave it|better not|rather not|never mind)\b")
IN_PART, NOT_IN_PART = "Take it in part", "Do not take it in part"


def read_sending(said: str, lexicon: Lexicon) -> Question | None:
    """Only for a LoRA's name, or where it is called a file of something that is no picture."""
    names = {name.lower(): card.name for card in lexicon.cards for name in spoken(card)}
    known = any_of(names) if names else r"(?!)"
    forms = (
        rf"^{ASKED}{GIVEN} (?:me |us )?{OURS}{FILE} (?:of|for|from|called|named) {OURS}(?P<name>{known}){END}",
        rf"^{ASKED}{GIVEN} (?:me |us )?{OURS}(?P<name>{known})(?:'s)? {FILE}{END}",
        rf"^{ASKED}(?:export|download) {OURS}(?P<name>{known})(?: as a file)?{END}",
        rf"^{ASKED}(?:send|export|give) (?:me |us )?{OURS}(?:lora |lora's )?file (?:of|for) (?!{NOT_A_LORA}\b){OURS}"
        rf"(?P<name>[\w-]+){END}",
    )
    for form in forms:
        if match := compiled(form).match(said.strip()):
            name = match["name"]
            return Question(kind="question", topic="send", about=names.get(name.lower(), name))
    return None


def told_of_a_lora(missing: str, before: str, said: str) -> str | None:
    """The message about a dropped LoRA, with the answer in it: its trigger word, or its kind. None if it is none."""
    if compiled(rf"^(?:please\s+)?{any_of(words('chat', 'orders'))}\s").match(said):
        return None
    if missing == "partial":
        return f"{before}. {NOT_IN_PART}" if NO.match(said) else f"{before}. {IN_PART}" if YES.match(said) else None
    if missing == "kind":
        return f"{before}. It is a {said}"
    if NO_TRIGGER.match(said):
        return f"{before}. No trigger"
    match = A_TRIGGER.match(said)
    if match is None or not (match["said"] or match["quote"] or len(match["word"].split()) <= LONGEST):
        return None
    return f'{before}. Trigger "{match["word"]}"'


def name_said(said: str) -> str | None:
    """Only where it is called so: a trigger stands in quotes too."""
    match = compiled(NAMED).search(said)
    return (match[1] or match[2]) if match else None


def accepts_part(said: str) -> bool:
    """Whether the person has said that what does not fit shall be left out."""
    return re.search(rf"(?:^|[.!]\s+){IN_PART}\b", said, re.IGNORECASE) is not None and not declines_part(said)


def declines_part(said: str) -> bool:
    return re.search(rf"\b{NOT_IN_PART}\b", said, re.IGNORECASE) is not None


def says_no_trigger(said: str) -> bool:
    return re.search(r"\b(?:no|without an?|needs no) trigger\b", said, re.IGNORECASE) is not None

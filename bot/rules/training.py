"""What a person says of a LoRA to be learnt: its name, kind, trigger, class word and numbers."""

import re

from bot.intent import Train
from bot.rules.lexicon import LIVING, Lexicon
from bot.rules.text import compiled
from engine.plans import Kind

KIND_WORDS: tuple[tuple[Kind, str], ...] = (
    ("style", r"style|look|aesthetic|branding|brand|house style|illustration style|art style|palette|design language"),
    ("speed", r"speed|few[- ]steps?|turbo|lcm"),
    ("quality", r"quality|sharpness"),
    ("character", r"character|mascot|person|hero|heroine|figure|npc|avatar|face|protagonist|villain"),
    ("product", r"product|products|item|goods|bottle|packaging|merch|merchandise"),
    ("subject", r"subject|object|thing|pet|dog|cat"),
)
NAME = r"(?:\"([^\"]{1,64})\"|'([^']{1,64})'|([\w-]+))"


def read_training(said: str, lexicon: Lexicon) -> Train:
    word = _word(said)
    return Train(
        kind="train",
        name=_name(said),
        learns=_kind(said, word, lexicon),
        trigger=_trigger(said),
        word=word,
        caption=_caption(said),
        steps=_number(r"(\d+)\s+steps|steps\s*[:=]?\s*(\d+)", said),
        rank=_number(r"\brank\s*(?:of|:|=)?\s*(\d+)|(\d+)\s+rank", said),
        replace=compiled(r"\b(?:replace|overwrite|replacing|overwriting|instead of the old|retrain|again)\b").search(
            said
        )
        is not None,
    )


def points_at_pictures(said: str) -> bool:
    """'These', 'the folder', 'my photos': pictures are spoken of, whether or not they are there."""
    return (
        compiled(
            r"\b(?:these|this|those|them|attached|attachments?|uploads?|uploaded|folder|directory|pictures?|photos?|"
            r"images?|pics?|files?|drawings?|scans?|screenshots?)\b|\w/\w"
        ).search(said)
        is not None
    )


def _first(match: re.Match[str] | None) -> str | None:
    return next((group for group in match.groups() if group), None) if match else None


def _name(said: str) -> str | None:
    forms = (
        r"\b(?:call(?:ed)?|named?|names?|title[d]?)\s+(?:it|him|her|this|them|that|the (?:lora|result|"
        rf"style|character|product))?\s*(?:as|is|should be|:|=)?\s*(?:our |the )?{NAME}",
        rf"\b(?:its|his|her|their) name is\s+{NAME}",
        rf"\bname\s*[:=]\s*{NAME}",
        rf"\bsave (?:it )?as\s+(?:the )?{NAME}",
        r"\b(?:lora|model|adapter|character|style|mascot)\s+\"([^\"]+)\"",
        r"\bas\s+\"([^\"]+)\"",
        r"\b(?i:this is|these are|meet|learn|teach you|remember)\s+([A-Z][\w-]+)\b",
        r"\b(?:train|retrain)\s+(?:on\s+)?(?:our\s+|my\s+)?(?:mascot\s+|character\s+)?([A-Z][\w-]+)\b",
        r"\b(?:my|our)\s+[a-z]+,?\s+([A-Z][\w-]+)\b",
        r"\"([^\"]+)\"",
        r"\b(?:of|on|for|about|mascot|character|named)\s+(?:our\s+|my\s+)?([A-Z][a-z][\w-]*)\b",
    )
    for index, form in enumerate(forms):
        flags = 0 if index >= 6 else re.IGNORECASE
        match = re.search(form, said, flags)
        found = _first(match)
        if found and found.lower() not in (
            "it",
            "lora",
            "a",
            "the",
            "trigger",
            "with",
            "please",
            "i",
            "them",
            "these",
            "this",
        ):
            return found
    return None


def _trigger(said: str) -> str | None:
    match = compiled(
        rf"\btrigger(?:ed)?(?:\s*(?:word|token|phrase))?\s*(?:should be|by|is|as|of|:|=|will be|to)?\s*{NAME}"
    ).search(said)
    return _first(match)


def _word(said: str) -> str | None:
    """'it is a crab', 'pictures of my dog', 'class word crab'."""
    stop = (
        r"(?:the|a|an|my|our|this|that|these|style|look|brand|product|character|subject|object|new|it|"
        r"lora|thing|and|called|named|mascot|is|one|image|images|picture|pictures|word|name)"
    )
    noun = (
        rf"((?!{stop}\b)[a-z][\w-]+(?:\s+(?!(?:called|named|and|with|on|in|from|trigger|who|that|which|"
        r"using|please|as|so|at|for|of|lora|here|attached)\b)[a-z][\w-]+)?)"
    )
    forms = (
        rf"\bclass(?:\s*word)?\s*(?:is|:|=|of)?\s*\"?{noun}",
        r"\b(?:it|he|she|this|that)(?:'s| is)\s+(?:just\s+)?an?\s+(?:kind of |sort of |type of |"
        rf"small |little |cute |new )*{noun}",
        rf"\bthey(?:'re| are)\s+(?:all\s+)?(?:of\s+)?(?:an?\s+)?{noun}",
        r"\b(?:of|on|about|learn|teach you|remember|train)\s+(?:my|our|this|the|an?)\s+(?:new |"
        rf"little |own |beloved |old |favourite |favorite |red |blue |green )*{noun}",
        rf"\b(?:these|this|those)\s+(?:are|is)\s+(?:my|our|an?)\s+{noun}",
        rf"\b[A-Z][\w-]+\s+(?:is|the)\s+(?:an?\s+)?{noun}",
    )
    for form in forms:
        match = re.search(form, said) or re.search(form, said[:1].lower() + said[1:])
        if match and match[1].split()[-1] not in (
            "style",
            "look",
            "brand",
            "palette",
            "lora",
            "model",
            "pictures",
            "photos",
            "images",
        ):
            return re.sub(r"(?<=[a-z])'s.*$", "", match[1]).lower()
    return None


def _kind(said: str, word: str | None, lexicon: Lexicon) -> Kind | None:
    for kind, pattern in KIND_WORDS[:4]:
        if compiled(rf"\b(?:{pattern})\b").search(said):
            return kind
    category = lexicon.nouns.get(lexicon.noun(word) or "", "") if word else ""
    return (
        "character"
        if category in LIVING and compiled(r"\b(?:he|she|his|her|him)\b").search(said)
        else "subject"
        if word
        else None
    )


def _caption(said: str) -> str | None:
    match = compiled(r"\bcaption(?:ed|s)?\s*(?:them|each|is|as|:|=|with)*\s*\"([^\"]+)\"").search(said)
    return match[1] if match else None


def _number(pattern: str, said: str) -> int | None:
    found = _first(compiled(pattern).search(said))
    return int(found) if found else None

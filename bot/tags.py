"""LoRAs named in text: `NAME:WEIGHT` in an option, `<lora:NAME:WEIGHT>` in a prompt; and their triggers put in."""

import re

from engine.catalog import LoraCard
from engine.errors import Invalid

HINT = "Write NAME:WEIGHT, for example coral:0.8."
TAG = re.compile(r"\s*<lora:([^<>]*)>", re.IGNORECASE)


def read_option(text: str, what: str = "--lora") -> tuple[str, tuple[float, ...]]:
    """`NAME`, `NAME:0.8` or `NAME:0.4,0.6` → the name and its weights, none where none was said."""
    name, colon, weights = text.partition(":")
    if not name.strip():
        raise Invalid(what, f"“{text}” names no LoRA", HINT)
    return name.strip(), tuple(_number(w, what, text) for w in weights.split(",")) if colon else ()


def take_tags(prompt: str) -> tuple[str, list[tuple[str, tuple[float, ...]]]]:
    """The prompt without its `<lora:…>` tags, and what they named, in order; a tag without a weight stands for 1."""
    found = [read_option(inner, "<lora:…>") for inner in TAG.findall(prompt)]
    return TAG.sub("", prompt).strip(), [(name, weights or (1.0,)) for name, weights in found]


def with_trigger(prompt: str, card: LoraCard) -> str:
    """`prompt` with the LoRA's trigger, once, as captions have it: before the class word, or in front of all."""
    if not card.trigger or _word(card.trigger).search(prompt):
        return prompt
    if card.word and (place := _word(card.word).search(prompt)):
        head = re.sub(
            r"\b([Aa])n? $", r"\1n " if card.trigger[0].lower() in "aeiou" else r"\1 ", prompt[: place.start()]
        )
        return f"{head}{card.trigger} {prompt[place.start() :]}"
    said = f"{card.trigger} {card.word}".strip()
    join = " " if card.kind in ("style", "quality", "speed") else ", "
    return f"{said}{join}{prompt}" if prompt else said


def _word(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)


def _number(text: str, what: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Invalid(what, f"the weight in “{whole}” is not a number", HINT) from None

"""Prompts for text encoders that are language models: one text, read whole, in the words in which it was said."""

import re
from typing import Any

from engine.errors import Invalid
from engine.prompts import Prompt, parts

MARK = re.compile(r"<\|\w+\|>")  # what Qwen's chat templates are made of


def sentence(prompt: Prompt) -> str:
    """The prompt's text. Raises `Invalid` for what these encoders have no notion of: weights, BREAK, chat marks.

    A weight would move hidden states to where these networks were never trained: ComfyUI drops weights in silence here.
    """
    first, *more = parts(prompt)
    if more:
        todo = "Leave it out: the prompt is read as one text."
        raise Invalid("prompt", "this base has no use for BREAK", todo)
    for span in first:
        if span.weight != 1:
            why = f"“{' '.join(span.text.split())[:40]}” has a weight, and this base reads none"
            todo = "Say it in words, such as “very” or “a little”; for plain brackets, write \\( and \\)."
            raise Invalid("prompt", why, todo)
    text = "".join(span.text for span in first)
    if mark := MARK.search(text):
        raise Invalid("prompt", f"{mark[0]} is a mark of the text encoder's own", "Leave it out.")
    return text


def check_length(tokenizer: Any, text: str, most: int) -> None:
    """Raise `Invalid` if `text`, in its template, is more than `most` tokens: nothing is cut."""
    count = len(tokenizer(text, truncation=False, verbose=False).input_ids)
    if count > most:
        why = f"it comes to {count:,} tokens with the base's own frame, and {most:,} are the most that it reads"
        raise Invalid("prompt", why, f"Shorten it by about {(count - most) * 2 // 3 + 1:,} words.")

"""Prompts as people write them: emphasis and BREAK. Plain text work; no tensor, no token.

    (word)  (word:1.2)  [word]      stronger by 1.1, as strong as said, weaker by 1.1; nested ones multiply
    BREAK                           what follows is encoded apart from what stands before it

`\\` before a mark makes it a plain character; so is a bracket without its partner. The marks are AUTOMATIC1111's
(modules/prompt_parser.py: `parse_prompt_attention`), without its schedules (`[from:to:when]`). They stand in plans and
recipes, whose `syntax` says whether a prompt is to be read so at all: those of older pictures are not.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from engine.errors import Invalid

LITERAL, MARKED = 0, 1  # `syntax`: every character is text, in pieces of exactly 75 tokens; or with the marks above
STRONGER = 1.1
WEIGHTS = (0.0, 4.0)
SETTINGS = ("seed", "steps", "strength", "size", "weight", "n", "count", "pictures", "guidance", "cfg")

_MARK = re.compile(r"\\[\\()\[\]]|[(\[\]]|:\s*([+-]?(?:\d{1,9}\.?\d{0,9}|\.\d{1,9}))\s*\)|\)")
_BREAK = re.compile(r"\bBREAK\b")
_EXPLICIT = re.compile(r"(?<!\\)\(([^()\[\]:\\]+):\s*(\d{1,9}\.?\d{0,9}|\.\d{1,9})\s*\)")
_CLOSES = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text for the base, and how it is to be read: `LITERAL` or `MARKED`."""

    text: str
    syntax: int = LITERAL


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a prompt, without its marks, at one strength: 1 is as written."""

    text: str
    weight: float = 1.0


@dataclass(slots=True)
class _Token:
    """A mark or the text between two; on a bracket that opens, `factor` is what its group is multiplied by."""

    text: str
    kind: str = ""  # "(" "[" ")" "]", or "" for text
    factor: float = 1.0


def parts(prompt: Prompt) -> tuple[tuple[Span, ...], ...]:
    """The prompt between its BREAKs, each part as spans; one part at least, empty for an empty prompt.

    Text without a mark comes back as one span of itself. Neighbours of one weight are one span.
    """
    if prompt.syntax == LITERAL:
        return ((Span(prompt.text),),)
    split: list[list[Span]] = [[]]
    for span in _weighted(prompt.text):
        texts = _BREAK.split(span.text)
        for at, text in enumerate(texts):
            text = text.lstrip() if at else text  # what stands around a BREAK belongs to it
            if at:
                split.append([])
            _join(split[-1], replace(span, text=text.rstrip() if at < len(texts) - 1 else text))
    said = [tuple(spans) for spans in split if any(span.text.strip() for span in spans)]
    return tuple(said) or (tuple(split[0]) or (Span(""),),)


def plain(prompt: Prompt) -> str:
    """Its words alone: for those who count words."""
    return ", ".join("".join(span.text for span in spans) for spans in parts(prompt))


def escaped(text: str) -> str:
    """`text` so that a reader of marks takes every bracket and backslash in it as a character."""
    return re.sub(r"[\\()\[\]]", r"\\\g<0>", text)


def check(what: str, prompt: Prompt) -> None:
    """Raise `Invalid` for a weight out of range."""
    low, high = WEIGHTS
    for span in (span for spans in parts(prompt) for span in spans):
        if not low <= span.weight <= high:
            shown = " ".join(span.text.split())[:40]
            todo = f"Choose from {low:g} to {high:g}; what shall not be there belongs into the negative prompt."
            raise Invalid(what, f"the weight {span.weight:.4g} of “{shown}” is out of range", todo)


def taken(text: str, but: Collection[str] = ()) -> tuple[str, tuple[Span, ...]]:
    """For a conversation: the sentence without its `(words:1.2)`, and these.

    Other brackets are prose, and stay; so do `(16:9)`, settings such as `(seed:7)`, and the lower-case names in `but`.
    """
    found: list[Span] = []

    def bare(match: re.Match[str]) -> str:
        words = " ".join(match[1].split())
        if not re.search(r"[^\W\d_]", words) or words.lower() in SETTINGS or words.lower() in but:
            return match[0]
        found.append(Span(words, float(match[2])))
        return words

    return _EXPLICIT.sub(bare, text), tuple(found)


def marked(text: str, spans: Iterable[Span]) -> str:
    """`text` with each of `spans` written as `(words:1.2)` at its first place outside of brackets, if it has one."""
    for span in spans:
        words = r"\s+".join(re.escape(word) for word in span.text.split())
        pattern = re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
        place = next((m for m in pattern.finditer(text) if _is_outside(text, m.start())), None)
        if place:
            text = f"{text[: place.start()]}({place[0]}:{span.weight:g}){text[place.end() :]}"
    return text


def _is_outside(text: str, at: int) -> bool:
    return text.count("(", 0, at) <= text.count(")", 0, at)


def _weighted(text: str) -> list[Span]:
    tokens = _tokens(text)
    _pair(tokens)
    spans: list[Span] = []
    factors = [1.0]
    for token in tokens:
        if token.kind in ("(", "["):
            factors.append(factors[-1] * token.factor)
        elif token.kind:
            factors.pop()
        else:
            _join(spans, Span(token.text, round(factors[-1], 6)))
    return spans


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    for mark in _MARK.finditer(text):
        found.append(_Token(text[at : mark.start()]))
        said = mark[0]
        if said.startswith("\\"):
            found.append(_Token(said[1]))
        else:
            found.append(_Token(said, said[-1] if said.startswith(":") else said))
        at = mark.end()
    return [*found, _Token(text[at:])]


def _pair(tokens: list[_Token]) -> None:
    """Give each pair of brackets its factor; what has no partner becomes text."""
    opened: list[_Token] = []
    waiting = {"(": 0, "[": 0}
    for token in tokens:
        if token.kind in waiting:
            opened.append(token)
            waiting[token.kind] += 1
        elif token.kind and not waiting[_CLOSES[token.kind]]:
            token.kind = ""
        elif token.kind:
            while opened[-1].kind != _CLOSES[token.kind]:
                waiting[opened[-1].kind] -= 1
                opened.pop().kind = ""
            waiting[opened[-1].kind] -= 1
            opened.pop().factor = _factor(token.text)
    for token in opened:
        token.kind = ""


def _factor(closing: str) -> float:
    if closing.startswith(":"):
        return float(closing[1:-1])
    return STRONGER if closing == ")" else 1 / STRONGER


def _join(spans: list[Span], span: Span) -> None:
    """Append; what is of the same weight as the last joins it. Nothing is not appended."""
    if span.text and spans and spans[-1].weight == span.weight:
        spans[-1] = replace(span, text=spans[-1].text + span.text)
    elif span.text:
        spans.append(span)

"""From a prompt to what CLIP makes of it: pieces of 75 tokens, each encoded between its begin and end marks.

Nothing is cut short: the pieces' hidden states are joined along the sequence, as interfaces around Stable Diffusion do.
A textual-inversion embedding takes as many places as it has vectors, where its trigger stands (Gal et al. 2022,
arXiv:2208.01618).
"""

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.errors import Invalid
from engine.prompts import LITERAL, Prompt, Span, parts

BACK = 20  # tokens before the end of a piece, in which it rather ends at a comma (AUTOMATIC1111's default)
MOST = 32  # pieces of one prompt
WORD_END = "</w>"  # at the end of a CLIP token that ends a word


@dataclass(frozen=True, slots=True)
class Word:
    """An embedding in use: `vectors` (n, d) for each encoder, in place of `trigger`. `sha256` is that of its file."""

    trigger: str
    sha256: str
    vectors: tuple[Tensor, ...] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """At most 75 token ids and the weight of each; id -1 - k is the k-th vector of all words, one after another."""

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


def pieces(tokenizer: Any, prompt: Prompt, words: Sequence[Word] = ()) -> list[Piece]:
    """`prompt` in pieces, never cut short; at least one, perhaps empty. `Invalid` for more than `MOST`.

    A piece ends at BREAK, else at the last comma of its last `BACK` tokens, else between two words: a trigger stays
    whole, and so do an embedding's vectors. A `LITERAL` prompt without these has pieces of exactly 75 tokens, in any
    number, as its picture was drawn.
    """
    room = tokenizer.model_max_length - 2
    if prompt.syntax == LITERAL and not words:
        ids = _ids(tokenizer, prompt.text)
        return [_plain(ids[i : i + room]) for i in range(0, max(len(ids), 1), room)]
    found = [piece for spans in parts(prompt) for piece in _cut(tokenizer, spans, room, words)]
    if len(found) > MOST:
        why = f"it comes to {len(found)} pieces of up to {room} tokens, and {MOST} are the most"
        raise Invalid("prompt", why, f"Shorten it to about {MOST * room // 2:,} words, or take BREAKs out.")
    return found


def encoded(
    tokenizer: Any,
    encoder: nn.Module,
    said: Sequence[Piece],
    count: int,
    hidden_of: Callable[[Any], Tensor],
    vectors: Sequence[Tensor] = (),
) -> tuple[Tensor, Any]:
    """`hidden_of` the encoder's output for `count` pieces as (1, 77·count, d), weighted; and that output, as it came.

    `vectors`: those of all words for this encoder, (n, d) each.

    A token of weight w is at e + w (h − e) where h is its hidden state and e that of the empty text at its place. That
    is ComfyUI's way (comfy/sd1_clip.py: `ClipTokenWeightEncoder`), on all families. AUTOMATIC1111's (h · w, then the
    mean of the whole restored: modules/sd_emphasis.py) divides by a mean that can be near 0: Pocket's is 1 % of the
    deviation, and for SDXL that interface advises to leave the mean alone. Here no token moves with another. Weight 0
    empties the word's place, though the words after it have read it. The pooled text is that without weights.
    """
    device = next(encoder.parameters()).device
    ids = padded(tokenizer, said, count).to(device)
    with _speaking(encoder, ids, vectors):
        output = encoder(ids.clamp(min=0), output_hidden_states=True)
    hidden = hidden_of(output)
    if any(weight != 1 for piece in said for weight in piece.weights):
        nothing = encoder(padded(tokenizer, (), 1).to(device), output_hidden_states=True)
        hidden = weighted(hidden, _weights(said, hidden), hidden_of(nothing))
    return hidden.flatten(0, 1)[None], output


def weighted(hidden: Tensor, weights: Tensor, nothing: Tensor) -> Tensor:
    """e + w (h − e), computed in fp32; `hidden` (n, 77, d), `weights` (n, 77), `nothing` (1, 77, d)."""
    e = nothing.float()
    moved = e + weights[..., None] * (hidden.float() - e)
    return torch.where(weights[..., None] == 1, hidden, moved.to(hidden.dtype))


def padded(tokenizer: Any, said: Sequence[Piece], count: int) -> Tensor:
    """(count, 77) ids: each piece between begin and end marks, then padding; missing pieces are empty texts."""
    rows = [*(piece.ids for piece in said), *([()] * (count - len(said)))]
    width, pad = tokenizer.model_max_length, tokenizer.pad_token_id
    framed = [[tokenizer.bos_token_id, *row, tokenizer.eos_token_id] for row in rows]
    return torch.tensor([row + [pad] * (width - len(row)) for row in framed])


def _weights(said: Sequence[Piece], hidden: Tensor) -> Tensor:
    """(n, 77) fp32; marks and padding are as they are."""
    weights = torch.ones(hidden.shape[:2])
    for row, piece in enumerate(said):
        weights[row, 1 : 1 + len(piece.weights)] = torch.tensor(piece.weights)
    return weights.to(hidden.device)


@contextmanager
def _speaking(encoder: nn.Module, ids: Tensor, vectors: Sequence[Tensor]) -> Generator[None]:
    """Inside, the encoder's token table gives the words' vectors where `ids` are below 0.

    An id that is none would be the largest one, at which older configurations of CLIP take the pooled text.
    """
    places = ids < 0
    if not bool(places.any()):
        yield
        return
    rows = torch.cat(tuple(vectors)).to(ids.device)[-1 - ids[places]]

    def put(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[places] = rows.to(output)
        return output

    hook = cast(Any, encoder).get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()


def _cut(tokenizer: Any, spans: Sequence[Span], room: int, words: Sequence[Word]) -> list[Piece]:
    ids: list[int] = []
    tokens: list[str] = []
    weights: list[float] = []
    for span in spans:
        for text, word in _by_words(span.text, words):
            if word is None:
                more = _ids(tokenizer, text)
                tokens += tokenizer.convert_ids_to_tokens(more)
            else:
                first, count = sum(len(words[i].vectors[0]) for i in range(word)), len(words[word].vectors[0])
                more = [-1 - k for k in range(first, first + count)]
                tokens += [*([""] * (count - 1)), WORD_END]
            ids += more
            weights += [span.weight] * len(more)
    found: list[Piece] = []
    at = 0
    while not found or at < len(ids):
        end = at + room
        end = len(ids) if end >= len(ids) else at + _end(tokens[at:end])
        found.append(Piece(tuple(ids[at:end]), tuple(weights[at:end])))
        at = end
    return found


def _by_words(text: str, words: Sequence[Word]) -> list[tuple[str, int | None]]:
    """The text between triggers, and the triggers, each with the index of its word."""
    if not words:
        return [(text, None)]
    order = sorted(range(len(words)), key=lambda i: len(words[i].trigger), reverse=True)
    named = "|".join(f"({re.escape(words[i].trigger)})" for i in order)
    found: list[tuple[str, int | None]] = []
    at = 0
    for match in re.finditer(rf"(?<!\w)(?:{named})(?!\w)", text, re.IGNORECASE):
        found += [(text[at : match.start()], None), (match[0], order[(match.lastindex or 1) - 1])]
        at = match.end()
    return [(part, word) for part, word in (*found, (text[at:], None)) if part]


def _end(tokens: Sequence[str]) -> int:
    """How many of a full piece's tokens it keeps."""
    commas = [i for i in range(max(len(tokens) - BACK, 0), len(tokens)) if tokens[i].removesuffix(WORD_END) == ","]
    words = [i for i, token in enumerate(tokens) if token.endswith(WORD_END)]
    return (commas or words or [len(tokens) - 1])[-1] + 1


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids


def _plain(ids: list[int]) -> Piece:
    return Piece(tuple(ids), (1.0,) * len(ids))

"""From a prompt to what T5 makes of it: one sequence, whole, with the weights that A1111's marks give its words."""

from typing import Any

import torch
from torch import Tensor, nn

from engine.diffusion.prompts import Piece, weighted
from engine.errors import Invalid
from engine.prompts import Prompt, Span, parts

USUAL, MOST = 256, 512  # tokens with the end mark: what shorter texts are filled up to, and the longest


def said(tokenizer: Any, prompt: Prompt) -> Piece:
    """The tokens of `prompt` and the weight of each, without the end mark. `Invalid` where they are more than `MOST`.

    The text is read as one, so that a weight moves no boundary between two tokens; BREAK is a blank, as T5 has no
    pieces. A token has the weight of its last character.
    """
    spans = [span for i, piece in enumerate(parts(prompt)) for span in ((Span(" "),) if i else ()) + piece]
    strengths = [span.weight for span in spans for _ in span.text]
    text = "".join(span.text for span in spans)
    read: Any = tokenizer(text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False)
    if len(read.input_ids) >= MOST:
        why = f"it comes to {len(read.input_ids):,} tokens of T5, and {MOST - 1} are the most that this base reads"
        raise Invalid("prompt", why, f"Shorten it to about {MOST * 2 // 3} words: nothing is cut off without a word.")
    ends: list[int] = [end for _, end in read.offset_mapping]
    return Piece(tuple(read.input_ids), tuple(strengths[end - 1] if end else 1.0 for end in ends))


def length(piece: Piece, usual: int = USUAL) -> int:
    """Of the sequence in which a text is read."""
    return usual if len(piece.ids) < usual else MOST


def encoded(tokenizer: Any, encoder: nn.Module, piece: Piece, count: int) -> Tensor:
    """T5's last hidden states, (1, count, d), weighted as CLIP's are (see `engine.diffusion.prompts.encoded`)."""
    device = next(encoder.parameters()).device
    hidden: Tensor = encoder(_padded(tokenizer, piece, count).to(device))[0]
    if all(weight == 1 for weight in piece.weights):
        return hidden
    nothing: Tensor = encoder(_padded(tokenizer, Piece(), count).to(device))[0]
    weights = torch.ones(1, count)
    weights[0, : len(piece.weights)] = torch.tensor(piece.weights)
    return weighted(hidden, weights.to(device), nothing)


def _padded(tokenizer: Any, piece: Piece, count: int) -> Tensor:
    ids = [*piece.ids, tokenizer.eos_token_id]
    return torch.tensor([ids + [tokenizer.pad_token_id] * (count - len(ids))])

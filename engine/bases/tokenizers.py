"""CLIP's vocabulary, which no checkpoint holds and no library that we install brings along: where it is found here.

It is the same 49,408 tokens for all of Stable Diffusion (Radford et al. 2021, arXiv:2103.00020; MIT licence), so any
base in diffusers' layout has it, and so has the package open_clip_torch. Nothing is ever fetched for it.
"""

import gzip
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import Invalid
from engine.files import read_bounded, reason

PACKED = "bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("open_clip", "clip")  # these bring PACKED along
MOST = 20_000_000  # bytes
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
TODO = (
    "Name one: --tokenizer FOLDER, the `tokenizer` folder of any Stable Diffusion model in diffusers' layout; "
    "or `pip install --no-deps open_clip_torch`, which brings the vocabulary along, and try again."
)


class Words(NamedTuple):
    """Tokens by text, and the merges in order, each of two texts with a space between."""

    tokens: dict[str, int]
    merges: tuple[str, ...]


def find_words(size: int, said: Path | None, bases: tuple[Path, ...]) -> Words:
    """CLIP's vocabulary of `size` tokens: from the folder that was `said`, else from a base, else from a package.

    Raises `Invalid`, which says what to do, where there is none.
    """
    if said is not None:
        for folder in (said, said / "tokenizer"):
            if (words := _read(folder)) is not None and len(words.tokens) == size:
                return words
        raise Invalid("--tokenizer", f"{said} holds no CLIP vocabulary of {size:,} tokens", TODO)
    for folder in (*(base / "tokenizer" for base in bases), *_packages()):
        if (words := _read(folder)) is not None and len(words.tokens) == size:
            return words
    raise Invalid("tokenizer", "the checkpoint holds none, and CLIP's vocabulary is not on this machine", TODO)


def write_words(folder: Path, words: Words, pad: str) -> None:
    """A tokenizer in transformers' layout."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(words.tokens, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in words.merges), "utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        "add_prefix_space": False,
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), "utf-8")


def unpacked(text: str, merges: int = 49_152 - 256 - 2) -> Words:
    """CLIP's own form: a line of version, then merges, of which the first `merges` are used.

    The tokens are 256 bytes, the same at a word's end, one for each merge, and the two marks, in this order.
    """
    lines = tuple(text.split("\n")[1 : merges + 1])
    letters = list(_letters())
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(line.replace(" ", "") for line in lines),
        BEGIN,
        END,
    ]
    return Words({token: i for i, token in enumerate(tokens)}, lines)


def _read(folder: Path) -> Words | None:
    try:
        if (folder / PACKED).is_file():
            with gzip.open(folder / PACKED) as file:
                return unpacked(file.read(MOST).decode())
        if (folder / "vocab.json").is_file():
            merges = read_bounded(folder / "merges.txt", MOST).decode().split("\n")
            tokens: dict[str, int] = json.loads(read_bounded(folder / "vocab.json", MOST))
            return Words(tokens, tuple(line for line in merges if line and not line.startswith("#version")))
        if (folder / "tokenizer.json").is_file():
            model: dict[str, Any] = json.loads(read_bounded(folder / "tokenizer.json", MOST))["model"]
            pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
            return Words(model["vocab"], tuple(pairs))
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        why = reason(error) if isinstance(error, OSError | ValueError) else "it is not as transformers writes it"
        raise Invalid(
            f"tokenizer {folder}", f"it cannot be read ({why})", "Name another: --tokenizer FOLDER."
        ) from None
    return None


def _packages() -> Iterator[Path]:
    """Folders of packages that bring the vocabulary along; they are not imported."""
    for name in PACKAGES:
        if (found := find_spec(name)) is not None:
            yield from (Path(place) for place in found.submodule_search_locations or ())


def _letters() -> Iterator[str]:
    """A printable character for each byte, in CLIP's order: those that are printable in Latin-1, then the others."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    yield from (chr(byte) for byte in shown)
    yield from (chr(256 + i) for i in range(256 - len(shown)))

"""Bytes from anywhere become checked changes of a model's weights, or a `BadLoraFile` that says why not.

Standard library and numpy only. `container` parses the file, `dialects` says what each key names, `kinds` makes changes
of the parts. A key that is not understood refuses the file: leaving it out would draw something else than it says.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadLoraFile
from engine.header import Refused, short
from engine.lora.changes import Change
from engine.lora.container import Container, parse
from engine.lora.dialects import Key, foreign, fused, target, understood
from engine.lora.kinds import Alpha, changes, rows

ENCODERS = ("text_encoder", "text_encoder_2")  # that an embedding has vectors for
EMBEDDINGS = {"emb_params": ENCODERS[0], "clip_l": ENCODERS[0], "clip_g": ENCODERS[1]}
MAX_CHANGED = 2**34  # weights of all layers: FLUX.1 has 12 billion
MAX_VECTORS = 75  # of one embedding: a prompt's piece has no more places


@dataclass(frozen=True, slots=True, eq=False)
class LoraFile:
    """`layers`: each weight's change, by the names of `engine.lora.dialects`; `keys`: the file's own keys of each."""

    layers: dict[str, Change]
    metadata: dict[str, str]
    sha256: str
    dialects: tuple[str, ...] = ()
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @property
    def rank(self) -> int:
        """The largest rank of a layer; 0 where none is factored."""
        return max(change.rank for change in self.layers.values())


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A textual inversion: `vectors` (n, d) for each encoder, for n tokens (Gal et al. 2022, arXiv:2208.01618).

    `token` is the word that a file of diffusers' form names as its only key: `<cat-toy>`.
    """

    vectors: dict[str, NDArray[np.float32]]
    metadata: dict[str, str]
    sha256: str
    token: str = ""

    @property
    def count(self) -> int:
        return len(next(iter(self.vectors.values())))

    def misfit(self, widths: Mapping[str, int]) -> str:
        """Why it does not belong to encoders of these widths, as a clause; "" where it does."""
        made = {name: rows.shape[1] for name, rows in self.vectors.items()}
        if made == dict(widths):
            return ""
        return f"its vectors are {_wide(made)}, and those of this base are {_wide(widths)}"


def _wide(widths: Mapping[str, int]) -> str:
    return " and ".join(f"{widths[name]}" for name in sorted(widths)) + " wide"


def read(data: bytes, name: str) -> LoraFile:
    """Parse a whole file; `name` is what the person calls it in the `BadLoraFile` that a bad one raises."""
    found = read_any(data, name)
    if isinstance(found, Embedding):
        raise BadLoraFile(name, "it is a textual-inversion embedding and no LoRA")
    return found


def read_embedding(data: bytes, name: str) -> Embedding:
    """The same of a textual-inversion file."""
    found = read_any(data, name)
    if isinstance(found, LoraFile):
        raise BadLoraFile(name, "it is a LoRA and no textual-inversion embedding")
    return found


def read_any(data: bytes, name: str) -> LoraFile | Embedding:
    """Whichever of the two it is."""
    try:
        held, sha256 = parse(data), hashlib.sha256(data).hexdigest()
        return _embedding(held, sha256) or _file(held, sha256)
    except Refused as refused:
        raise BadLoraFile(name, str(refused)) from None


def _embedding(held: Container, sha256: str) -> Embedding | None:
    token = _token(held)
    known = EMBEDDINGS | ({token: ENCODERS[0]} if token else {})
    if not set(held.tensors) & set(known):
        return None
    vectors = {known.get(key, ""): _vectors(key, tensor, known) for key, tensor in held.tensors.items()}
    if len(vectors) < len(held.tensors) or len({len(rows) for rows in vectors.values()}) > 1:
        raise Refused("its embeddings are not one for each encoder, all of one length")
    return Embedding(vectors, held.metadata, sha256, token)


def _token(held: Container) -> str:
    """The only key of a file in diffusers' form: a word, and no path in a model. "" for other files."""
    if len(held.tensors) != 1:
        return ""
    (key, tensor), *_ = held.tensors.items()
    return key if key not in EMBEDDINGS and "." not in key and key.strip() and 1 <= tensor.ndim <= 2 else ""


def _vectors(key: str, tensor: NDArray[np.float32], known: Mapping[str, str]) -> NDArray[np.float32]:
    if key not in known:
        raise Refused(f"it holds a textual-inversion embedding, and beside it “{short(key)}”")
    vectors = tensor[None] if tensor.ndim == 1 else tensor
    if vectors.ndim != 2 or len(vectors) > MAX_VECTORS:
        raise Refused(f"“{short(key)}” has shape {tensor.shape}, and {MAX_VECTORS} vectors are the most")
    return vectors


def _file(held: Container, sha256: str) -> LoraFile:
    found = _grouped(held.tensors)
    if not found:
        raise Refused("it holds no layers")
    alphas = _Alphas.of(held.metadata)
    layers: dict[str, Change] = {}
    keys: dict[str, tuple[str, ...]] = {}
    for name, group in found.items():
        parts = {part: held.tensors[key] for part, (key, _) in group.items()}
        _, said = next(iter(group.values()))
        own = tuple(key for key, _ in group.values())
        for weight, change in _spread(changes(name, parts, alphas.at(said.model, said.path))).items():
            if weight in layers:
                raise Refused(f"it changes “{short(weight)}” twice")
            layers[weight], keys[weight] = change, own
    if sum(high * wide for high, wide in (change.shape for change in layers.values())) > MAX_CHANGED:
        raise Refused(f"it changes more than {MAX_CHANGED:,} weights")
    dialects = sorted({said.dialect for group in found.values() for _, said in group.values()})
    return LoraFile(layers, held.metadata, sha256, tuple(dialects), keys)


def _grouped(tensors: Mapping[str, Any]) -> dict[str, dict[str, tuple[str, Key]]]:
    """The file's keys by the weight that they name and their part of it."""
    found: dict[str, dict[str, tuple[str, Key]]] = {}
    for key in tensors:
        said = _understood(key)
        group = found.setdefault(target(said.model, said.path), {})
        if said.part in group or any(said.path != other.path for _, other in group.values()):
            raise Refused(f"it has two tensors for the {said.part} of “{short(said.path)}”")
        group[said.part] = (key, said)
    return found


def _understood(key: str) -> Key:
    if what := foreign(key):
        raise Refused(f"it has {what} (“{short(key)}”), which are not read yet")
    if (said := understood(key)) is None:
        raise Refused(f"it has a key that is not known, “{short(key)}”")
    return said


def _spread(made: Mapping[str, Change]) -> dict[str, Change]:
    """The same changes, those of fused layers as one for each of their layers."""
    found: dict[str, Change] = {}
    for name, change in made.items():
        layer = name.removesuffix(".bias")
        end = name.removeprefix(layer)
        heads = fused(layer)
        if len(heads) == 1:
            found[heads[0][0] + end] = change
        else:
            parts = rows(change, tuple(share for _, share in heads), name)
            found |= {head + end: part for (head, _), part in zip(heads, parts, strict=True)}
    return found


class _Alphas(NamedTuple):
    """What diffusers' `lora_adapter_metadata` says of alpha, by model: one, and others for paths that end so."""

    said: Mapping[str, Any]

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> "_Alphas":
        try:
            said = json.loads(metadata.get("lora_adapter_metadata", "{}"))
            for model in ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"):
                _optional(said.get(f"{model}.lora_alpha"))
                pattern: Mapping[str, Any] = said.get(f"{model}.alpha_pattern") or {}
                for value in pattern.values():
                    _number(value)
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
            raise Refused("its lora_adapter_metadata is not as diffusers writes it") from None
        return cls(said)

    def at(self, model: str, path: str) -> Alpha:
        names = {"": ("unet", "transformer"), "t5": ("text_encoder_3",)}.get(model, (model,))
        for name in names:
            general = _optional(self.said.get(f"{name}.lora_alpha"))
            pattern: Mapping[str, Any] = self.said.get(f"{name}.alpha_pattern") or {}
            ending = (_number(value) for end, value in pattern.items() if f".{path}".endswith(f".{end}"))
            if (alpha := next(ending, general)) is not None:
                return Alpha(alpha, bool(self.said.get(f"{name}.use_rslora")))
        return Alpha(None, any(self.said.get(f"{name}.use_rslora") for name in names))


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError
    return float(value)

"""Bytes from anywhere become checked LoRA factors, or a `BadLoraFile` that says why not.

Standard library and numpy only. The container is safetensors: u64 header length, JSON header, tensor bytes without gaps
(https://github.com/huggingface/safetensors#format). Two dialects of keys are read, of the UNet:
kohya `lora_unet_FLAT.{lora_down.weight,lora_up.weight,alpha}`, and PEFT `unet.DOTTED.{lora_A.weight,lora_B.weight}`,
which diffusers' training scripts write as `{lora.down.weight,lora.up.weight}` too. A key that is not understood
refuses the file: leaving it out would draw something else than the file says.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadLoraFile

MAX_HEADER = 1_000_000
MAX_TENSORS = 5_000
MAX_RANK = 256
MAX_SIDE = 65_536
MAX_VALUE = 1e4  # of a factor, with α/r in it: trained ones stay below 100, and larger ones overflow
ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}

SUFFIXES = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}
FOREIGN = (  # what a key holds that this reader does not take → what that is
    ("hada_", "LoHa factors"),
    ("lokr_", "LoKr factors"),
    ("dora_scale", "a DoRA scale"),
    ("lora_magnitude_vector", "a DoRA scale"),
    ("lora_mid", "Tucker factors of a convolution"),
    ("oft_", "OFT rotations"),
    (".diff", "full weight differences"),
    (".on_input", "IA³ factors"),
    (".w_norm", "norm differences"),
    (".b_norm", "norm differences"),
    ("lora_te", "text-encoder layers"),
    ("text_encoder", "text-encoder layers"),
    ("lora_transformer_", "layers of a transformer model"),
    ("transformer.", "layers of a transformer model"),
    ("diffusion_model.", "layers under ComfyUI's names"),
    ("base_model.model.", "layers under PEFT's bare names"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """ΔW = (alpha / r) · up · down of one layer. `down`: (r, in) or (r, in, k, k); `up`: (out, r) or (out, r, 1, 1)."""

    down: NDArray[np.float32]
    up: NDArray[np.float32]
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class LoraFile:
    """`layers` by flat module path, dots as underscores: "down_blocks_1_attentions_0_…_attn1_to_q"."""

    layers: dict[str, Factors]
    metadata: dict[str, str]
    sha256: str

    @property
    def rank(self) -> int:
        """The largest rank of a layer."""
        return max(factors.rank for factors in self.layers.values())


class _Refused(Exception):
    """Why the file is not taken, as a clause."""


class _Span(NamedTuple):
    """One tensor's place: bytes `start` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read(data: bytes, name: str) -> LoraFile:
    """Parse a whole file; `name` is what the person calls it in the `BadLoraFile` that a bad one raises."""
    try:
        spans, metadata, body = _parse(data)
        layers = _layers({key: _tensor(key, span, body) for key, span in spans.items()}, metadata)
    except _Refused as refused:
        raise BadLoraFile(name, str(refused)) from None
    return LoraFile(layers, metadata, hashlib.sha256(data).hexdigest())


def _parse(data: bytes) -> tuple[dict[str, _Span], dict[str, str], memoryview]:
    """Check the container; tensors' places by key, the metadata, and the bytes that hold the tensors."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or data[8:9] != b"{":
        raise _Refused("it is not a safetensors file")
    if length > MAX_HEADER:
        raise _Refused(f"its header is longer than {MAX_HEADER:,} bytes")
    if 8 + length > len(data):
        raise _Refused("it ends within its header")
    header = _header(data[8 : 8 + length])
    metadata = _metadata(header.pop("__metadata__", {}))
    if len(header) > MAX_TENSORS:
        raise _Refused(f"it has {len(header):,} tensors, and {MAX_TENSORS:,} is the most")
    spans = {key: _span(key, entry) for key, entry in header.items()}
    body = memoryview(data)[8 + length :]
    _check_no_gaps(spans, len(body))
    return spans, metadata, body


def _header(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise _Refused("its header names a key twice")
        return found

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise _Refused("its header is not JSON") from None
    return header  # the text starts with “{”, so it is a dict


def _metadata(said: Any) -> dict[str, str]:
    if not isinstance(said, dict):
        raise _Refused("its metadata is not a table")
    texts: dict[str, str] = {key: value for key, value in said.items() if isinstance(value, str)}  # pyright: ignore
    if len(texts) < len(said):  # pyright: ignore
        raise _Refused("its metadata holds something that is not text")
    return texts


def _span(key: str, entry: Any) -> _Span:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _Refused(f"“{_short(key)}” is not described as a tensor") from None
    if dtype not in tuple(ITEM_BYTES):  # by equality: it may be anything
        raise _Refused(f"“{_short(key)}” is of type {_short(str(dtype))}, and only F16, BF16 and F32 are read")
    if not all(type(number) is int for number in (*shape, start, end)):
        raise _Refused(f"“{_short(key)}” has a shape or a place that is not whole numbers")
    if len(shape) > 4 or not all(1 <= side <= MAX_SIDE for side in shape):
        raise _Refused(f"“{_short(key)}” has an impossible shape, {_short(str(shape))}")
    if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _Refused(f"“{_short(key)}” has another size than its shape says")
    return _Span(dtype, shape, start, end)


def _check_no_gaps(spans: Mapping[str, _Span], size: int) -> None:
    at = 0
    for span in sorted(spans.values(), key=lambda span: span.start):
        if span.start != at:
            raise _Refused("its tensors overlap or leave a gap")
        at = span.end
    if at > size:
        raise _Refused("it is cut short")
    if at < size:
        raise _Refused("bytes follow its last tensor")


def _tensor(key: str, span: _Span, body: memoryview) -> NDArray[np.float32]:
    raw = body[span.start : span.end]
    if span.dtype == "BF16":  # the upper half of a float32
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, "<f2" if span.dtype == "F16" else "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise _Refused(f"“{_short(key)}” holds values that are not numbers")
    return values.reshape(span.shape)


def _layers(tensors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> dict[str, Factors]:
    parts: dict[str, dict[str, NDArray[np.float32]]] = {}
    dotted: dict[str, str] = {}
    for key, tensor in tensors.items():
        path, part = _place(key)
        flat = path.replace(".", "_")
        if part in parts.setdefault(flat, {}) or dotted.setdefault(flat, path) != path:
            raise _Refused(f"it has two tensors for the {part} of “{_short(flat)}”")
        parts[flat][part] = tensor
    if not parts:
        raise _Refused("it holds no layers")
    alphas = _Alphas.of(metadata)
    return {flat: _factors(flat, parts[flat], alphas.at(dotted[flat])) for flat in parts}


def _place(key: str) -> tuple[str, str]:
    """The module path and the part that a key names."""
    for mark, what in FOREIGN:
        if mark in key:
            raise _Refused(f"it has {what} (“{_short(key)}”), which are not read yet")
    for suffix, part in SUFFIXES.items():
        for prefix in ("lora_unet_", "unet."):
            if key.startswith(prefix) and key.endswith(suffix):
                return key.removeprefix(prefix).removesuffix(suffix), part
    raise _Refused(f"it has a key that is not known, “{_short(key)}”")


def _factors(flat: str, parts: Mapping[str, NDArray[np.float32]], stated: float | None) -> Factors:
    layer = f"the layer “{_short(flat)}”"
    if "down" not in parts or "up" not in parts:
        raise _Refused(f"{layer} lacks its {'up' if 'down' in parts else 'down'} half")
    down, up = parts["down"], parts["up"]
    if down.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[2:] != (1,) * (down.ndim - 2):
        raise _Refused(f"{layer} has halves of shapes {down.shape} and {up.shape}")
    rank = down.shape[0]
    if up.shape[1] != rank:
        raise _Refused(f"{layer} has halves of ranks {rank} and {up.shape[1]}")
    if rank > MAX_RANK:
        raise _Refused(f"{layer} has rank {rank}, and {MAX_RANK} is the most")
    alpha = parts.get("alpha")
    if alpha is not None and alpha.size != 1:
        raise _Refused(f"{layer} has more than one alpha")
    scale = float(alpha.flat[0]) if alpha is not None else stated if stated is not None else float(rank)
    if scale == 0:
        raise _Refused(f"{layer} has alpha 0, which some readers take for off and some for its rank")
    if max(_largest(down), _largest(up) * max(abs(scale) / rank, 1)) > MAX_VALUE:
        raise _Refused(f"{layer} holds values beyond ±{MAX_VALUE:,.0f}, which no training arrives at")
    return Factors(down, up, scale)


def _largest(values: NDArray[np.float32]) -> float:
    return float(np.abs(values).max())


class _Alphas(NamedTuple):
    """What diffusers' `lora_adapter_metadata` says of alpha: one for all, and others for paths that end so."""

    general: float | None = None
    ending: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> "_Alphas":
        try:
            said = json.loads(metadata.get("lora_adapter_metadata", "{}"))
            general = said.get("unet.lora_alpha")
            pattern: dict[str, Any] = said.get("unet.alpha_pattern") or {}
            ending = tuple((key, _number(value)) for key, value in pattern.items())
            odd = [option for option in ("use_rslora", "use_dora") if said.get(f"unet.{option}")]
            alphas = cls(None if general is None else _number(general), ending)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise _Refused("its lora_adapter_metadata is not as diffusers writes it") from None
        if odd:
            raise _Refused(f"it was trained with {odd[0]}, which is not read yet")
        return alphas

    def at(self, path: str) -> float | None:
        return next((alpha for end, alpha in self.ending if f".{path}".endswith(f".{end}")), self.general)


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _short(text: str) -> str:
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
    return text if len(text) <= 80 else f"{text[:60]}…{text[-19:]}"

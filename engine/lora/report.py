"""What a file from anywhere is, before anything is drawn with it. Standard library and numpy only, plain data out.

`misfit` is also the rack's question whether a LoRA belongs to the base that is loaded.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from engine.lora.changes import Change, Decomposed, Factors, Hadamard, Kronecker, Rows, kind
from engine.lora.read import Embedding, LoraFile, read_any
from engine.plans import MAX_TRIGGER

Shapes = Mapping[str, tuple[int, int]]

TITLES = {  # what can be told of a file → the family that draws it here or will, and its name
    "sd1": ("sd", "Stable Diffusion 1.x"),
    "sd2": ("sd", "Stable Diffusion 2.x"),
    "sdxl": ("sdxl", "Stable Diffusion XL"),
    "sd3": ("sd3", "Stable Diffusion 3"),
    "flux": ("flux", "FLUX"),
    "": ("", ""),
}
WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # of the text that the UNet attends to
SAID = (  # how `modelspec.architecture` and `ss_base_model_version` begin
    ("stable-diffusion-xl", "sdxl"),
    ("sdxl", "sdxl"),
    ("stable-diffusion-v1", "sd1"),
    ("sd_v1", "sd1"),
    ("sd_1", "sd1"),
    ("stable-diffusion-v2", "sd2"),
    ("sd_v2", "sd2"),
    ("stable-diffusion-3", "sd3"),
    ("sd3", "sd3"),
    ("flux", "flux"),
)
BLOCK = re.compile(r"(text_encoder(?:_2)?|t5)\.|((?:single_)?(?:transformer|down|up)_blocks_\d+|mid_block)_")
MAX_TRIGGERS, MAX_TEXT = 8, 200


@dataclass(frozen=True)
class Report:
    """Plain data, ready for JSON. `what`: "lora" or "embedding".

    `family`: "sd", "sdxl", "sd3", "flux", or "" where it cannot be told; `title` its name, `made_for` the base that the
    file itself names. `kinds` and `ranks`: how many weights are changed so (rank 0: not factored); `alphas`: the α
    that stand for the scale α/r, with rsLoRA's √r in them. `norms`: √Σ‖ΔW‖² of each block at weight 1, of a DoRA
    without its scale. `matched` and `unmatched`: how many weights exist in the base, and which keys of the file name
    none; `refusal`: why it does not load there, "" where it does; all three only where a base was given.
    """

    name: str
    sha256: str
    what: str
    family: str
    title: str
    made_for: str
    dialects: tuple[str, ...] = ()
    kinds: dict[str, int] = field(default_factory=dict[str, int])
    ranks: dict[int, int] = field(default_factory=dict[int, int])
    alphas: tuple[float, ...] = ()
    triggers: tuple[str, ...] = ()
    licence: str = ""
    norms: dict[str, float] = field(default_factory=dict[str, float])
    vectors: int = 0
    matched: int | None = None
    unmatched: tuple[str, ...] = ()
    refusal: str = ""


def inspect(data: bytes, name: str, modules: Shapes | None = None, partial: bool = False) -> Report:
    """Read the file and say what it is. Raises `BadLoraFile` for what cannot be read at all.

    `modules`: the base's weights by the names of `engine.lora.dialects` (`named` makes them of a model's parameters,
    `Rack.shapes` has them), as matrices. `partial`: whether it is well if some of the file fits nothing there.
    """
    file = read_any(data, name)
    if isinstance(file, Embedding):
        return _of_embedding(file, name)
    shapes = {weight: change.shape for weight, change in file.layers.items()}
    known = family(shapes) or _said(file.metadata)
    unmatched = [] if modules is None else [weight for weight in shapes if modules.get(weight) != shapes[weight]]
    return Report(
        name,
        file.sha256,
        "lora",
        *TITLES[known],
        made_for=_first(file.metadata, "ss_sd_model_name", "modelspec.architecture", "ss_base_model_version"),
        dialects=file.dialects,
        kinds=dict(Counter(_kind(weight, change) for weight, change in file.layers.items())),
        ranks=dict(sorted(Counter(change.rank for change in file.layers.values()).items())),
        alphas=tuple(sorted({a for change in file.layers.values() if (a := _alpha(change))})),
        triggers=triggers(file.metadata),
        licence=_licence(file.metadata),
        norms=norms(file),
        matched=None if modules is None else len(shapes) - len(unmatched),
        unmatched=tuple(sorted({key for weight in unmatched for key in file.keys[weight]})),
        refusal="" if modules is None else misfit(shapes, modules, partial),
    )


def misfit(changed: Shapes, modules: Shapes, partial: bool = False) -> str:
    """Why changes of these shapes do not belong to a base with these `modules`, as a clause; "" where they do."""
    made, base = family(changed), family(modules)
    if made and base and made != base:
        return f"it was made for {TITLES[made][1]}, and this is a {TITLES[base][1]}"
    unknown = [key for key in changed if key not in modules]
    if unknown and not (partial and len(unknown) < len(changed)):
        return f"{len(unknown)} of its {len(changed)} layers do not exist there, such as {unknown[0]}"
    for key, found in changed.items():
        if (wanted := modules.get(key, found)) != found:
            return f"its layer {key} is {found[0]}×{found[1]} where {wanted[0]}×{wanted[1]} is needed"
    return ""


def family(shapes: Shapes) -> str:
    """What weights of these names and shapes belong to, one of `TITLES`; "" where they tell nothing."""
    if (found := _transformer(shapes)) is not None:
        return found
    for name, (_, columns) in shapes.items():
        if name.endswith(("attn2_to_k", "attn2_to_v")) and columns in WIDTHS:
            return WIDTHS[columns]
    if any(name.startswith(("text_encoder_2.", "add_embedding")) for name in shapes):
        return "sdxl"
    return ""


def said_family(metadata: Mapping[str, str]) -> str:
    """The family that draws what the metadata names: "sd", "sdxl", …; "" where it names none."""
    return TITLES[_said(metadata)][0]


def triggers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words that wake the LoRA, as its tool noted them: phrases, else the tag that most training captions have."""
    said = [metadata.get(key, "") for key in ("modelspec.trigger_phrase", "trained_words", "trigger_word")]
    words = [word for text in said for word in _several(text)] or [_tag_of_most(metadata)]
    clean = (" ".join(text.split())[:MAX_TEXT] for text in words)
    return tuple(dict.fromkeys(text for text in clean if text.isprintable() and text))[:MAX_TRIGGERS]


def _several(text: str) -> list[str]:
    """The words of a list in JSON; any other text as it is."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [text] if text else []
    return [str(word) for word in cast(list[object], found)] if isinstance(found, list) else [text]


def _tag_of_most(metadata: Mapping[str, str]) -> str:
    """The tag in half of the captions at least; where their number is not said, the one that is there most often."""
    counts: Counter[str] = Counter()
    for tags in _table(metadata, "ss_tag_frequency").values():
        if isinstance(tags, dict):
            for tag, count in cast(dict[str, Any], tags).items():
                if type(count) is int:
                    counts[tag.strip()] += count
    (tag, count), (_, next_count), *_ = [*counts.most_common(2), ("", 0), ("", 0)]
    pictures = metadata.get("ss_num_train_images", "")
    known = int(pictures) if re.fullmatch(r"[0-9]{1,9}", pictures) else 0
    is_everywhere = 2 * count >= known if known else count > next_count
    return tag if is_everywhere and len(tag) <= MAX_TRIGGER else ""


def norms(file: LoraFile) -> dict[str, float]:
    """‖ΔW‖ of each block (Frobenius, over all its weights), by name."""
    squares: dict[str, float] = {}
    for name, change in file.layers.items():
        found = BLOCK.match(name)
        block = (found[1] or found[2]) if found else "rest"
        squares[block] = squares.get(block, 0.0) + _square(change)
    return {block: round(math.sqrt(squares[block]), 6) for block in sorted(squares)}


def _of_embedding(found: Embedding, name: str) -> Report:
    widths = {encoder: vectors.shape[1] for encoder, vectors in found.vectors.items()}
    known = "sdxl" if "text_encoder_2" in widths else WIDTHS.get(widths.get("text_encoder", 0), "")
    vectors = len(next(iter(found.vectors.values())))
    made_for = _first(found.metadata, "ss_sd_model_name", "modelspec.architecture")
    return Report(
        name, found.sha256, "embedding", *TITLES[known], made_for, vectors=vectors, licence=_licence(found.metadata)
    )


def _transformer(shapes: Shapes) -> str | None:
    if any(name.startswith("single_transformer_blocks_") for name in shapes):
        return "flux"
    own = [shape for name, shape in shapes.items() if name.startswith("transformer_blocks_")]
    if not own:
        return None
    return "flux" if any(3072 in shape for shape in own) else "sd3" if any(set(s) & {1536, 2432} for s in own) else ""


def _said(metadata: Mapping[str, str]) -> str:
    said = [metadata.get(key, "").lower() for key in ("modelspec.architecture", "ss_base_model_version")]
    return next((known for start, known in SAID for text in said if text.startswith(start)), "")


def _kind(name: str, change: Change) -> str:
    return "bias" if name.endswith(".bias") else "norm" if change.shape[1] == 1 else kind(change)


def _alpha(change: Change) -> float:
    while isinstance(change, Decomposed | Rows):
        change = change.inner
    if isinstance(change, Factors):
        return float(f"{change.alpha:.6g}")
    return float(f"{change.scale * change.rank:.6g}") if isinstance(change, Hadamard | Kronecker) else 0.0


def _square(change: Change) -> float:
    """‖ΔW‖², without the matrix where it can be had so: ‖BA‖² = tr(BᵀB AAᵀ), ‖A⊗B‖ = ‖A‖‖B‖."""
    if isinstance(change, Decomposed):
        return _square(change.inner)
    if isinstance(change, Factors):
        down, up = (np.float64(x).reshape(len(x), -1) for x in (change.down, change.up))
        return float(((up.T @ up) * (down @ down.T)).sum()) * (change.alpha / change.rank) ** 2
    if isinstance(change, Kronecker):
        left, right = change.sides()
        return _dot(left) * _dot(right) * change.scale**2
    if isinstance(change, Hadamard) and change.cores is None:  # some rows at a time, as it is as large as the weight
        (a, b), (c, d) = change.first, change.second
        step = max(2**22 // change.shape[1], 1)
        starts = range(0, change.shape[0], step)
        return sum(_dot(Hadamard((a[i : i + step], b), (c[i : i + step], d), change.scale).delta()) for i in starts)
    return _dot(change.delta())


def _dot(values: Any) -> float:
    flat = values.ravel()
    return float(np.dot(flat, flat))


def _licence(metadata: Mapping[str, str]) -> str:
    own = str(_table(metadata, "atelier").get("licence", ""))
    return _first(metadata, "modelspec.license", "license", "licence") or own[:MAX_TEXT]


def _first(metadata: Mapping[str, str], *keys: str) -> str:
    found: Iterable[str] = (metadata[key] for key in keys if metadata.get(key) and metadata[key].isprintable())
    return next(iter(found), "")[:MAX_TEXT]


def _table(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]

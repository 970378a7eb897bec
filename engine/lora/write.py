"""Factors become one file that kohya's tools, AUTOMATIC1111, ComfyUI, InvokeAI and diffusers read.

Keys are kohya's (`lora_unet_` + flat path), tensors fp16, alphas fp32 so that they stay exact. Metadata: kohya's
`ss_*`, Stability's `modelspec.*` (https://github.com/Stability-AI/ModelSpec), and all facts as JSON under "atelier".

The other dialect is diffusers' own: `unet.` + dotted path, no alphas, and these in `lora_adapter_metadata`. One file
cannot have both: diffusers refuses alphas beside that table (loaders/peft.py, `_load_lora_adapter`).
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.lora.changes import Factors

Dialect = Literal["kohya", "diffusers"]
DIALECTS: tuple[Dialect, ...] = ("kohya", "diffusers")

ARCHITECTURES = {"sd": "stable-diffusion-v1/lora", "sdxl": "stable-diffusion-xl-v1-base/lora"}
IMPLEMENTATIONS = {"sd": "diffusers", "sdxl": "https://github.com/Stability-AI/generative-models"}
VERSIONS = {"sd": "sd_v1", "sdxl": "sdxl_base_v1-0"}  # AUTOMATIC1111 tells SDXL by the prefix “sdxl_”
SAID = {  # a fact → the keys that repeat it
    "title": ("modelspec.title", "ss_output_name"),
    "trigger": ("modelspec.trigger_phrase",),
    "summary": ("modelspec.description",),
    "licence": ("modelspec.license",),
    "kind": ("modelspec.tags",),
    "created": ("modelspec.date",),
    "resolution": ("modelspec.resolution", "ss_resolution"),
    "base": ("ss_sd_model_name",),
    "steps": ("ss_steps",),
    "seed": ("ss_seed",),
    "pictures": ("ss_num_train_images",),
}
WHOLE_NAMES = (  # parts of a UNet's module paths that have underscores of their own
    "down_blocks", "up_blocks", "mid_block", "transformer_blocks", "to_q", "to_k", "to_v", "to_out", "proj_in",
    "proj_out", "time_emb_proj", "conv_shortcut", "conv_in", "conv_out", "time_embedding", "add_embedding", "linear_1",
    "linear_2", "conv_norm_out",
)  # fmt: skip
IN_A_UNET = re.compile(r"(?:down_blocks|up_blocks|mid_block|conv_in|conv_out|time_embedding|add_embedding)(?:_|$)")
PART = re.compile(rf"(?:{'|'.join(WHOLE_NAMES)})(?=_|$)|[^_]+")
Tensors = dict[str, NDArray[np.float16] | NDArray[np.float32]]


def write(
    layers: Mapping[str, Factors],
    facts: Mapping[str, str],
    dialect: Dialect = "kohya",
    kept: Mapping[str, str] | None = None,
    exact: bool = False,
    scrub: bool = False,
) -> bytes:
    """A safetensors file; the same arguments give the same bytes.

    `layers` by module path, dotted or flat. `facts`: any texts; "family" ("sd" or "sdxl") is needed, those in `SAID`
    are repeated where other programs look. `kept`: metadata that goes along, where we have nothing to say ourselves.
    `exact`: a tensor that fp16 would round stays fp32. `scrub`: no table of tags.
    ValueError for a value that fp16 cannot hold and for paths that look alike, or that diffusers has no name for.
    """
    tensors = _kohya(layers, exact) if dialect == "kohya" else _diffusers(layers, exact)
    body = b"".join(tensor.tobytes() for tensor in tensors.values())
    said = dict(kept or {}) | network(layers) | _metadata(facts, hashlib.sha256(body).hexdigest(), scrub)
    said.pop("lora_adapter_metadata", None)  # of the file that it was
    if dialect == "diffusers":
        said |= {"format": "pt", "lora_adapter_metadata": json.dumps(_adapter(layers))}
    header: dict[str, object] = {}
    at = 0
    for key, tensor in tensors.items():
        dtype = "F16" if tensor.itemsize == 2 else "F32"
        header[key] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    return _framed(header, said, body)


def relabelled(data: bytes, facts: Mapping[str, str], kept: Mapping[str, str], scrub: bool = False) -> bytes:
    """The very tensors of a file that `read` took, whatever they are, with our metadata over `kept`."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    return _framed(header, dict(kept) | _metadata(facts, hashlib.sha256(body).hexdigest(), scrub), body)


def is_in(data: bytes, dialect: Dialect) -> bool:
    """Whether all keys of a file that `read` took are of that dialect, as `write` writes it."""
    length = int.from_bytes(data[:8], "little")
    keys = [key for key in json.loads(data[8 : 8 + length]) if key != "__metadata__"]
    if dialect == "kohya":
        return all(key.startswith(("lora_unet_", "lora_te")) for key in keys)
    peft = (".lora_A.weight", ".lora_B.weight")
    return all(key.startswith(("unet.", "text_encoder")) and key.endswith(peft) for key in keys)


def network(layers: Mapping[str, Factors]) -> dict[str, str]:
    """What kohya's metadata says of the layers themselves."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": _one({factors.rank for factors in layers.values()}),
        "ss_network_alpha": _one({factors.alpha for factors in layers.values()}),
        "ss_network_args": "{}",
    }


def _framed(tensors: Mapping[str, object], said: Mapping[str, str], body: bytes) -> bytes:
    text = json.dumps({"__metadata__": dict(sorted(said.items())), **tensors}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def dotted(flat: str) -> str:
    """ "down_blocks_1_attentions_0_proj_in" → "down_blocks.1.attentions.0.proj_in". ValueError outside a UNet."""
    if not IN_A_UNET.match(flat):
        raise ValueError(f"{flat} is no module of a UNet")
    return ".".join(PART.findall(flat))


def _kohya(layers: Mapping[str, Factors], exact: bool) -> Tensors:
    """By key: what has four bytes a value comes first, so that every tensor begins at a multiple of its item size."""
    flat = {f"lora_unet_{path.replace('.', '_')}": layers[path] for path in sorted(layers)}
    if len(flat) < len(layers):
        raise ValueError("two module paths are the same when their dots are underscores")
    tensors: Tensors = {f"{key}.alpha": np.array(factors.alpha, "<f4") for key, factors in flat.items()}
    for key, factors in flat.items():
        tensors[f"{key}.lora_down.weight"] = _narrow(key, factors.down, exact)
        tensors[f"{key}.lora_up.weight"] = _narrow(key, factors.up, exact)
    return _widest_first(tensors)


def _diffusers(layers: Mapping[str, Factors], exact: bool) -> Tensors:
    tensors: Tensors = {}
    for path in sorted(layers):
        key = f"unet.{path if '.' in path else dotted(path)}"
        tensors[f"{key}.lora_A.weight"] = _narrow(key, layers[path].down, exact)
        tensors[f"{key}.lora_B.weight"] = _narrow(key, layers[path].up, exact)
    return _widest_first(tensors)


def _widest_first(tensors: Tensors) -> Tensors:
    return dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))


def _adapter(layers: Mapping[str, Factors]) -> dict[str, object]:
    """PEFT's LoraConfig as diffusers stores it: the commonest rank and alpha, and each layer that has another."""
    paths = {path if "." in path else dotted(path): factors for path, factors in sorted(layers.items())}
    rank = Counter(factors.rank for factors in paths.values()).most_common(1)[0][0]
    alpha = Counter(factors.alpha for factors in paths.values()).most_common(1)[0][0]
    return {
        "unet.peft_type": "LORA",
        "unet.r": rank,
        "unet.lora_alpha": _whole(alpha),
        "unet.target_modules": list(paths),
        "unet.rank_pattern": {path: factors.rank for path, factors in paths.items() if factors.rank != rank},
        "unet.alpha_pattern": {path: _whole(f.alpha) for path, f in paths.items() if f.alpha != alpha},
    }


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _narrow(key: str, values: NDArray[np.float32], exact: bool) -> NDArray[np.float16] | NDArray[np.float32]:
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if exact and not np.array_equal(half.astype(np.float32), values):
        return values.astype("<f4")
    if not np.isfinite(half).all():
        raise ValueError(f"{key} has values that fp16 cannot hold")
    return half


def _metadata(facts: Mapping[str, str], digest: str, scrub: bool) -> dict[str, str]:
    family, trigger = facts["family"], facts.get("trigger", "")
    said = {key: facts[fact] for fact, keys in SAID.items() if facts.get(fact) for key in keys}
    if trigger and not scrub:  # AUTOMATIC1111 offers the words of this table
        said["ss_tag_frequency"] = json.dumps({f"1_{trigger}": {trigger: 1}}, ensure_ascii=False)
    said |= {
        "atelier": json.dumps(dict(sorted(facts.items())), ensure_ascii=False),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[family],
        "modelspec.implementation": IMPLEMENTATIONS[family],
        "modelspec.hash_sha256": f"0x{digest}",
        "sshs_model_hash": digest,
        "ss_v2": "False",
        "ss_base_model_version": VERSIONS[family],
    }
    return said


def _one(values: set[int] | set[float]) -> str:
    return f"{values.pop():g}" if len(values) == 1 else "Dynamic"

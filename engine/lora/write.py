"""Factors become one file that kohya's tools, AUTOMATIC1111, ComfyUI, InvokeAI and diffusers read.

Keys are kohya's (`lora_unet_` + flat path), tensors fp16, alphas fp32 so that they stay exact. Metadata: kohya's
`ss_*`, Stability's `modelspec.*` (https://github.com/Stability-AI/ModelSpec), and all facts as JSON under "atelier".
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engine.lora.read import Factors

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


def write(layers: Mapping[str, Factors], facts: Mapping[str, str]) -> bytes:
    """A safetensors file; the same layers and facts give the same bytes.

    `layers` by dotted module path. `facts`: any texts; "family" ("sd" or "sdxl") is needed, those in `SAID` are
    repeated where other programs look. ValueError for a value that fp16 cannot hold and for paths that look alike.
    """
    tensors = _tensors(layers)
    body = b"".join(tensor.tobytes() for tensor in tensors.values())
    header: dict[str, object] = {"__metadata__": _metadata(layers, facts, hashlib.sha256(body).hexdigest())}
    at = 0
    for key, tensor in tensors.items():
        dtype = "F16" if tensor.itemsize == 2 else "F32"
        header[key] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def _tensors(layers: Mapping[str, Factors]) -> dict[str, NDArray[np.float16] | NDArray[np.float32]]:
    """By key: alphas first, so that every tensor begins at a multiple of its item size."""
    flat = {f"lora_unet_{path.replace('.', '_')}": layers[path] for path in sorted(layers)}
    if len(flat) < len(layers):
        raise ValueError("two module paths are the same when their dots are underscores")
    tensors: dict[str, NDArray[np.float16] | NDArray[np.float32]] = {
        f"{key}.alpha": np.array(factors.alpha, "<f4") for key, factors in flat.items()
    }
    for key, factors in flat.items():
        tensors[f"{key}.lora_down.weight"] = _half(key, factors.down)
        tensors[f"{key}.lora_up.weight"] = _half(key, factors.up)
    return tensors


def _half(key: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.isfinite(half).all():
        raise ValueError(f"{key} has values that fp16 cannot hold")
    return half


def _metadata(layers: Mapping[str, Factors], facts: Mapping[str, str], digest: str) -> dict[str, str]:
    family, trigger = facts["family"], facts.get("trigger", "")
    said = {key: facts[fact] for fact, keys in SAID.items() if facts.get(fact) for key in keys}
    if trigger:  # AUTOMATIC1111 offers the words of this table
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
        "ss_network_module": "networks.lora",
        "ss_network_dim": _one({factors.rank for factors in layers.values()}),
        "ss_network_alpha": _one({factors.alpha for factors in layers.values()}),
        "ss_network_args": "{}",
    }
    return dict(sorted(said.items()))


def _one(values: set[int] | set[float]) -> str:
    return f"{values.pop():g}" if len(values) == 1 else "Dynamic"

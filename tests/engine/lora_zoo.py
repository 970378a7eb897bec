"""Files as other programs write them, of every dialect and kind, and what each must do to a weight.

Nothing here uses our reader. The names that Stability's UNet code has are counted up block by block, as that code
builds them; each kind's rule derives the change from the file's own tensors in float64. Run as a module, this writes
the tables of docs/loras.md.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.numpy import load, save
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

DOCS = Path(__file__).parents[2] / "docs" / "loras.md"
LEVELS = 2
ENCODERS = ("text_encoder", "text_encoder_2")
BLOCK = "down_blocks.{at}.attentions.0.transformer_blocks.0"


@dataclass(frozen=True)
class Tiny:
    """A UNet of SD 1.x or SDXL with real names, two levels, and its encoders. `at` is the level that attends."""

    family: str
    models: dict[str, Any]
    at: int

    def weight(self, model: str, path: str) -> np.ndarray:
        return self.models[model].get_parameter(own_name(self.models[model], path)).detach().double().numpy()


def tiny(family: str) -> Tiny:
    torch.manual_seed(3)
    more: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    if family == "sdxl":
        more = {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "use_linear_projection": True,
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64,
            "transformer_layers_per_block": 2,
        }  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4, attention_head_dim=4,
        cross_attention_dim=32 if family == "sdxl" else 16, **more,
    )  # fmt: skip
    config = CLIPTextConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    models: dict[str, Any] = {"unet": unet, "text_encoder": CLIPTextModel(config)}
    if family == "sdxl":
        models["text_encoder_2"] = CLIPTextModelWithProjection(config)
    return Tiny(family, {name: model.eval() for name, model in models.items()}, int(family == "sdxl"))


def own_name(model: Any, path: str) -> str:
    """The parameter's name in this version of transformers, which leaves "text_model" out of some classes."""
    names = dict(model.named_parameters())
    return path if path in names else path.removeprefix("text_model.")


# What each kind writes for a weight `base` at random, by part, and what it means: (file's parts in float64, base) → ΔW.

Parts = dict[str, np.ndarray]
Rule = Callable[[Parts, np.ndarray], np.ndarray]


def _draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.3, shape).astype(np.float16)


def _alpha(value: float) -> np.ndarray:
    return np.array(value, np.float16)


def lora(rng: np.random.Generator, base: np.ndarray) -> Parts:
    kernel = base.shape[2:]
    ones = (1,) * len(kernel)
    return {
        "down": _draw(rng, 3, base.shape[1], *kernel),
        "up": _draw(rng, base.shape[0], 3, *ones),
        "alpha": _alpha(1.5),
    }


def lora_means(t: Parts, base: np.ndarray) -> np.ndarray:
    out = np.zeros(base.shape)
    for r in range(len(t["down"])):
        out += np.multiply.outer(t["up"][:, r].reshape(-1), t["down"][r]).reshape(base.shape)
    return out * float(t.get("alpha", len(t["down"]))) / len(t["down"])


def tucker(rng: np.random.Generator, base: np.ndarray) -> Parts:
    ones = (1, 1)
    return {
        "down": _draw(rng, 3, base.shape[1], *ones), "up": _draw(rng, base.shape[0], 3, *ones),
        "mid": _draw(rng, 3, 3, *base.shape[2:]), "alpha": _alpha(2),
    }  # fmt: skip


def tucker_means(t: Parts, base: np.ndarray) -> np.ndarray:
    up, down = t["up"][:, :, 0, 0], t["down"][:, :, 0, 0]
    return np.einsum("oa,abkl,bi->oikl", up, t["mid"], down) * float(t["alpha"]) / len(t["down"])


def loha(rng: np.random.Generator, base: np.ndarray) -> Parts:
    high, wide = base.shape[0], base[0].size
    parts: Parts = {"alpha": _alpha(1)}
    for n in (1, 2):
        parts |= {f"hada_w{n}_a": _draw(rng, high, 2), f"hada_w{n}_b": _draw(rng, 2, wide)}
    return parts


def loha_means(t: Parts, base: np.ndarray) -> np.ndarray:
    one, other = (np.einsum("or,ri->oi", t[f"hada_w{n}_a"], t[f"hada_w{n}_b"]) for n in (1, 2))
    return (one * other * float(t["alpha"]) / len(t["hada_w1_b"])).reshape(base.shape)


def loha_tucker(rng: np.random.Generator, base: np.ndarray) -> Parts:
    parts: Parts = {"alpha": _alpha(1)}
    for n in (1, 2):
        parts |= {
            f"hada_w{n}_a": _draw(rng, 2, base.shape[0]),
            f"hada_w{n}_b": _draw(rng, 2, base.shape[1]),
            f"hada_t{n}": _draw(rng, 2, 2, *base.shape[2:]),
        }
    return parts


def loha_tucker_means(t: Parts, base: np.ndarray) -> np.ndarray:
    one, other = (np.einsum("ijkl,jr,ip->prkl", t[f"hada_t{n}"], t[f"hada_w{n}_b"], t[f"hada_w{n}_a"]) for n in (1, 2))
    return one * other * float(t["alpha"]) / len(t["hada_w1_b"])


def lokr_whole(rng: np.random.Generator, base: np.ndarray) -> Parts:
    high, wide, *kernel = base.shape
    return {"lokr_w1": _draw(rng, 2, 2), "lokr_w2": _draw(rng, high // 2, wide // 2, *kernel), "alpha": _alpha(7)}


def lokr_whole_means(t: Parts, base: np.ndarray) -> np.ndarray:
    w1 = t["lokr_w1"].reshape(2, 2, *(1,) * (base.ndim - 2))
    return np.kron(w1, t["lokr_w2"])  # no rank, so that α means nothing


def lokr(rng: np.random.Generator, base: np.ndarray) -> Parts:
    high, wide = base.shape[0], base[0].size
    return {
        "lokr_w1_a": _draw(rng, 2, 1), "lokr_w1_b": _draw(rng, 1, 2), "lokr_w2_a": _draw(rng, high // 2, 2),
        "lokr_w2_b": _draw(rng, 2, wide // 2), "alpha": _alpha(1.5),
    }  # fmt: skip


def lokr_means(t: Parts, base: np.ndarray) -> np.ndarray:
    w1, w2 = t["lokr_w1_a"] @ t["lokr_w1_b"], t["lokr_w2_a"] @ t["lokr_w2_b"]
    return (np.kron(w1, w2) * float(t["alpha"]) / len(t["lokr_w2_b"])).reshape(base.shape)


def lokr_tucker(rng: np.random.Generator, base: np.ndarray) -> Parts:
    high, wide, *kernel = base.shape
    return {
        "lokr_w1": _draw(rng, 2, 2), "lokr_w2_a": _draw(rng, 2, high // 2), "lokr_w2_b": _draw(rng, 2, wide // 2),
        "lokr_t2": _draw(rng, 2, 2, *kernel), "alpha": _alpha(1),
    }  # fmt: skip


def lokr_tucker_means(t: Parts, base: np.ndarray) -> np.ndarray:
    w2 = np.einsum("ijkl,jr,ip->prkl", t["lokr_t2"], t["lokr_w2_b"], t["lokr_w2_a"])
    return np.kron(t["lokr_w1"][:, :, None, None], w2) * float(t["alpha"]) / len(t["lokr_w2_b"])


def dora_in(rng: np.random.Generator, base: np.ndarray) -> Parts:
    shape = (1, base.shape[1], *(1,) * (base.ndim - 2))
    return lora(rng, base) | {"dora_scale": rng.uniform(0.5, 1.5, shape).astype(np.float16)}


def dora_out(rng: np.random.Generator, base: np.ndarray) -> Parts:
    shape = (base.shape[0], *(1,) * (base.ndim - 1))
    return lora(rng, base) | {"dora_scale": rng.uniform(0.5, 1.5, shape).astype(np.float16)}


def dora_peft(rng: np.random.Generator, base: np.ndarray) -> Parts:
    shape = (base.shape[0],) if base.ndim == 2 else (1, base.shape[0], 1, 1)
    return lora(rng, base) | {"magnitude": rng.uniform(0.5, 1.5, shape).astype(np.float16)}


def dora_in_means(t: Parts, base: np.ndarray) -> np.ndarray:
    merged = base + lora_means(t, base)
    return (
        np.stack(
            [merged[:, i] * t["dora_scale"].flat[i] / np.linalg.norm(merged[:, i]) for i in range(base.shape[1])], 1
        )
        - base
    )


def dora_out_means(t: Parts, base: np.ndarray) -> np.ndarray:
    merged = base + lora_means(t, base)
    scale = t.get("dora_scale", t.get("magnitude"))
    assert scale is not None
    return np.stack([row * scale.flat[i] / np.linalg.norm(row) for i, row in enumerate(merged)]) - base


def whole(part: str) -> Callable[[np.random.Generator, np.ndarray], Parts]:
    return lambda rng, base: {part: _draw(rng, *base.shape)}


def whole_means(t: Parts, base: np.ndarray) -> np.ndarray:
    (values,) = t.values()
    return values


@dataclass(frozen=True)
class Kind:
    """`on`: which weights it is written for: "linear", "conv" or "vector"."""

    write: Callable[[np.random.Generator, np.ndarray], Parts]
    means: Rule
    on: tuple[str, ...] = ("linear", "conv")


KINDS = {
    "LoRA": Kind(lora, lora_means, ("linear",)),
    "LoRA of convolutions": Kind(lora, lora_means, ("conv",)),
    "LoCon with a Tucker core": Kind(tucker, tucker_means, ("conv",)),
    "LoHa": Kind(loha, loha_means),
    "LoHa with Tucker cores": Kind(loha_tucker, loha_tucker_means, ("conv",)),
    "LoKr, whole": Kind(lokr_whole, lokr_whole_means),
    "LoKr, factored": Kind(lokr, lokr_means),
    "LoKr with a Tucker core": Kind(lokr_tucker, lokr_tucker_means, ("conv",)),
    "DoRA by input": Kind(dora_in, dora_in_means),
    "DoRA by output": Kind(dora_out, dora_out_means),
    "DoRA of PEFT": Kind(dora_peft, dora_out_means),
    "full difference": Kind(whole("diff"), whole_means),
    "bias": Kind(whole("diff_b"), whole_means, ("vector",)),
    "norm": Kind(whole("w_norm"), whole_means, ("norm",)),
    "norm's bias": Kind(whole("b_norm"), whole_means, ("norm bias",)),
}
LYCORIS = tuple(kind for kind in KINDS if kind != "DoRA of PEFT")
PEFTS = ("LoRA", "LoRA of convolutions", "DoRA of PEFT")


# How each dialect writes a weight's name and its parts.


def sgm(levels: int = LEVELS, attends: tuple[bool, ...] = (False, True)) -> dict[str, str]:
    """diffusers' modules → the names in Stability's UNet of that many levels, two ResNets each, in building order."""
    names = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "conv_norm_out": "out.0"}
    names |= {f"time_embedding.linear_{i + 1}": f"time_embed.{2 * i}" for i in (0, 1)}
    names |= {f"add_embedding.linear_{i + 1}": f"label_emb.0.{2 * i}" for i in (0, 1)}
    n = 1
    for level in range(levels):
        for i in range(2):
            names[f"down_blocks.{level}.resnets.{i}"] = f"input_blocks.{n}.0"
            names[f"down_blocks.{level}.attentions.{i}"] = f"input_blocks.{n}.1"
            n += 1
        if level < levels - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{n}.0.op"
            n += 1
    for i, name in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        names[f"mid_block.{name}"] = f"middle_block.{i}"
    n = 0
    for level in range(levels):
        attention = attends[::-1][level]
        for i in range(3):
            names[f"up_blocks.{level}.resnets.{i}"] = f"output_blocks.{n}.0"
            names[f"up_blocks.{level}.attentions.{i}"] = f"output_blocks.{n}.1"
            n += 1
        if level < levels - 1:
            names[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{n - 1}.{1 + attention}.conv"
    return names


RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def in_sgm(path: str, family: str, attends: tuple[bool, ...] = ()) -> str:
    attends = attends or ((True, False) if family == "sd" else (False, True))
    names = sgm(len(attends), attends)
    start = max((name for name in names if path == name or path.startswith(f"{name}.")), key=len)
    rest = path[len(start) + 1 :]
    return ".".join(part for part in (names[start], RESNET.get(rest, rest) if "resnets" in start else rest) if part)


KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
PEFT = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
LINEAR = {"down": "lora.down.weight", "up": "lora.up.weight"}
TE = {"sd": "lora_te_", "sdxl": "lora_te1_"}


def kohya(model: str, path: str, part: str, family: str) -> str:
    prefix = {"unet": "lora_unet_", "text_encoder": TE[family], "text_encoder_2": "lora_te2_"}[model]
    return f"{prefix}{path.replace('.', '_')}.{KOHYA.get(part, part)}"


def kohya_sgm(model: str, path: str, part: str, family: str) -> str:
    return kohya(model, in_sgm(path, family) if model == "unet" else path, part, family)


def peft(model: str, path: str, part: str, family: str) -> str:
    return f"{model}.{path}.{PEFT.get(part, part)}"


def peft_bare(model: str, path: str, part: str, family: str) -> str:
    return f"base_model.model.{path}.{PEFT.get(part, part)}"


def diffusers_dotted(model: str, path: str, part: str, family: str) -> str:
    if model != "unet":
        return f"{model}.{path}.lora_linear_layer.{part}.weight"
    return f"{model}.{path}.{LINEAR.get(part, part)}"


def processors(model: str, path: str, part: str, family: str) -> str:
    head, _, last = path.removesuffix(".0").rpartition(".")
    if model != "unet":
        return f"{model}.{head}.to_{last.removesuffix('_proj')}_lora.{part}.weight"
    return f"unet.{head}.processor.{last}_lora.{part}.weight"


def bare_processors(model: str, path: str, part: str, family: str) -> str:
    return processors(model, path, part, family).removeprefix("unet.")


def comfy(model: str, path: str, part: str, family: str) -> str:
    if model == "unet":
        return f"diffusion_model.{in_sgm(path, family)}.{KOHYA.get(part, part)}"
    clip = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}[model]
    return f"text_encoders.{clip}.transformer.{path}.{KOHYA.get(part, part)}"


Write = Callable[[str, str, str, str], str]


@dataclass(frozen=True)
class Dialect:
    write: Write
    families: tuple[str, ...] = ("sd", "sdxl")
    kinds: tuple[str, ...] = LYCORIS
    models: tuple[str, ...] = ("unet", *ENCODERS)
    alpha: bool = True  # in the file beside each layer


DIALECTS = {
    "kohya, diffusers' names": Dialect(kohya),
    "kohya, Stability's names": Dialect(kohya_sgm),
    "ComfyUI (`diffusion_model.`)": Dialect(comfy),
    "PEFT in diffusers (`unet.`)": Dialect(peft, kinds=PEFTS, alpha=False),
    "PEFT, bare names": Dialect(peft_bare, kinds=PEFTS, models=("unet",), alpha=False),
    "diffusers' `.lora.down`": Dialect(diffusers_dotted, kinds=PEFTS[:1], alpha=False),
    "diffusers' attention processors": Dialect(processors, kinds=PEFTS[:1], alpha=False),
    "the same without `unet.`": Dialect(bare_processors, kinds=PEFTS[:1], models=("unet",), alpha=False),
}


# What diffusers 0.42 does with each (SD 1.x, SDXL): "as here"; "scale dropped": it loads a DoRA as a plain LoRA;
# "nothing": it loads without an error and changes no weight; "raises". In this order: LoRA, DoRA, all other kinds.
SAME, DROPPED, NOTHING, RAISES = "as here", "scale dropped", "nothing", "raises"
PARTLY = "as here in the UNet, the encoders' scales lost"
ELSEWHERE = {
    "kohya, diffusers' names": {"sd": (SAME, DROPPED, RAISES), "sdxl": (SAME, DROPPED, RAISES)},
    "kohya, Stability's names": {"sd": (RAISES, RAISES, RAISES), "sdxl": (SAME, DROPPED, RAISES)},
    "ComfyUI (`diffusion_model.`)": {"sd": (RAISES,) * 3, "sdxl": (RAISES,) * 3},
    "PEFT in diffusers (`unet.`)": {"sd": (SAME, PARTLY, ""), "sdxl": (SAME, PARTLY, "")},
    "PEFT, bare names": {"sd": (NOTHING, NOTHING, ""), "sdxl": (NOTHING, NOTHING, "")},
    "diffusers' `.lora.down`": {"sd": (SAME, "", ""), "sdxl": (SAME, "", "")},
    "diffusers' attention processors": {"sd": (SAME, "", ""), "sdxl": (SAME, "", "")},
    "the same without `unet.`": {"sd": (NOTHING, "", ""), "sdxl": (NOTHING, "", "")},
}


def elsewhere(family: str, dialect: str, kind: str) -> str:
    """What diffusers' own `load_lora_weights` makes of it."""
    group = 1 if "DoRA" in kind else 0 if kind in PEFTS else 2
    return ELSEWHERE[dialect][family][group]


def weights(on: Iterable[str], model: str, at: int) -> list[str]:
    """The paths, with their end, of the weights that are written for."""
    block = BLOCK.format(at=at)
    if model != "unet":
        layer = "text_model.encoder.layers.1"
        choice = {
            "linear": [f"{layer}.self_attn.q_proj.weight", f"{layer}.self_attn.out_proj.weight"],
            "vector": [f"{layer}.mlp.fc1.bias"],
            "norm": [f"{layer}.layer_norm1.weight"],
            "norm bias": [f"{layer}.layer_norm2.bias"],
        }
    else:
        choice = {
            "linear": [f"{block}.attn1.to_q.weight", f"{block}.attn2.to_k.weight", f"{block}.attn1.to_out.0.weight"],
            "conv": [
                *(f"down_blocks.0.{path}.weight" for path in ("resnets.1.conv1", "downsamplers.0.conv")),
                *(f"up_blocks.{path}.weight" for path in ("0.upsamplers.0.conv", "1.resnets.2.conv_shortcut")),
                "mid_block.resnets.1.conv2.weight",
            ],
            "vector": [f"{block}.attn1.to_out.0.bias", "mid_block.resnets.0.time_emb_proj.bias"],
            "norm": [f"{block}.norm1.weight", "mid_block.resnets.0.norm1.weight"],
            "norm bias": ["mid_block.attentions.0.norm.bias"],
        }
    return [path for kind in on for path in choice.get(kind, [])]


@dataclass(frozen=True)
class Written:
    """A file, and for each weight that it changes its keys by part."""

    data: bytes
    keys: dict[tuple[str, str], dict[str, str]]
    kind: Kind

    def means(self, zoo: Tiny) -> dict[tuple[str, str], np.ndarray]:
        """Each weight's change in float64, from the file as the safetensors library reads it."""
        held = {key: tensor.astype(np.float64) for key, tensor in load(self.data).items()}
        return {
            (model, path): self.kind.means({part: held[key] for part, key in keys.items()}, zoo.weight(model, path))
            for (model, path), keys in self.keys.items()
        }


def written(zoo: Tiny, dialect: str, kind: str, metadata: Mapping[str, str] | None = None, seed: int = 0) -> Written:
    how, what, rng = DIALECTS[dialect], KINDS[kind], np.random.default_rng(seed)
    tensors: Parts = {}
    keys: dict[tuple[str, str], dict[str, str]] = {}
    for model in how.models:
        for path in weights(what.on, model, zoo.at) if model in zoo.models else []:
            parts = what.write(rng, zoo.weight(model, path))
            if not how.alpha:
                parts.pop("alpha", None)
            module = path.rpartition(".")[0]
            named = {part: how.write(model, module, part, zoo.family) for part in parts}
            keys[model, path] = named
            tensors |= {key: parts[part] for part, key in named.items()}
    return Written(save(tensors, dict(metadata or {"format": "pt"})), keys, what)


def combinations() -> list[tuple[str, str, str]]:
    return [
        (family, dialect, kind) for dialect, how in DIALECTS.items() for family in how.families for kind in how.kinds
    ]


def table() -> str:
    """What is loaded, as Markdown: a row for each kind, a column for each dialect."""
    mark = {True: "yes", False: "–"}
    lines = ["| kind | " + " | ".join(DIALECTS) + " |", "|---" * (len(DIALECTS) + 1) + "|"]
    for kind in KINDS:
        lines.append(f"| {kind} | " + " | ".join(mark[kind in how.kinds] for how in DIALECTS.values()) + " |")
    lines += ["", "| diffusers 0.42 on the same files | LoRA | DoRA | all others |", "|---|---|---|---|"]
    for dialect, families in ELSEWHERE.items():
        pairs = zip(*families.values(), strict=True)
        cells = [one if one == other else f"SD {one}, SDXL {other}" for one, other in pairs]
        lines.append(f"| {dialect} | " + " | ".join(cell or "–" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def metadata(**config: Any) -> dict[str, str]:
    return {"format": "pt", "lora_adapter_metadata": json.dumps(config)}


if __name__ == "__main__":
    head, start, rest = DOCS.read_text().partition("<!-- table -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    DOCS.write_text(head + start + table() + end + tail)

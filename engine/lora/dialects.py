"""What a key of a LoRA file names: one of a model's weights, whoever wrote the file, and which part of its change.

A weight is named by its module path in diffusers' models, dots as underscores: "mid_block_attentions_0_proj_in" of the
UNet or transformer, "text_encoder.encoder_layers_0_mlp_fc1" of an encoder (without the "text_model" that some files and
some versions of transformers put first), and ".bias" after it for a bias. Standard library only.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PARTS = {  # how a key ends → the part of a change
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_A.default.weight": "down",
    "lora_B.default.weight": "up",
    "alpha": "alpha",
    "dora_scale": "dora_scale",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_magnitude_vector.default.weight": "magnitude",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "w_norm",
    "b_norm": "b_norm",
} | {
    name: name
    for name in (
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    )
}  # fmt: skip
PREFIXES = {  # how a key begins → whose layer it is, and the dialect's name
    "lora_unet_": ("", "kohya"),
    "lora_te1_": ("text_encoder", "kohya"),
    "lora_te2_": ("text_encoder_2", "kohya"),
    "lora_te3_": ("t5", "kohya"),
    "lora_te_": ("text_encoder", "kohya"),
    "lora_transformer_": ("", "OneTrainer"),
    "unet.": ("", "PEFT"),
    "transformer.": ("", "PEFT"),
    "text_encoder.": ("text_encoder", "PEFT"),
    "text_encoder_2.": ("text_encoder_2", "PEFT"),
    "text_encoder_3.": ("t5", "PEFT"),
    "model.diffusion_model.": ("", "ComfyUI"),
    "diffusion_model.": ("", "ComfyUI"),
    "text_encoders.clip_l.transformer.": ("text_encoder", "ComfyUI"),
    "text_encoders.clip_g.transformer.": ("text_encoder_2", "ComfyUI"),
    "text_encoders.t5xxl.transformer.": ("t5", "ComfyUI"),
    "clip_l.": ("text_encoder", "OneTrainer"),
    "clip_g.": ("text_encoder_2", "OneTrainer"),
    "t5.": ("t5", "OneTrainer"),
}
ROOTS = ("down_blocks.", "mid_block.", "up_blocks.", "time_embedding.", "add_embedding.", "conv_in.", "conv_out.")
PROCESSOR = re.compile(r"(.+?)(?:\.processor)?\.to_(q|k|v|out)_lora\.(down\.weight|up\.weight|alpha)")
FOREIGN = (  # what a key holds that is not read → what that is
    ("oft_", "OFT rotations"),
    (".on_input", "IA³ factors"),
    (".ia3_", "IA³ factors"),
    (".set_weight", "whole weights in place of a change"),
    (".reshape_weight", "a weight of another shape"),
    (".a1.weight", "GLoRA factors"),
    (".lora_B.bias", "biases within a LoRA"),
    ("lora_unet_lllite", "a ControlNet-LLLite"),
)


class Key(NamedTuple):
    """`model`: "" for the UNet or transformer, else the encoder; `path`: dotted or flat, as written."""

    model: str
    path: str
    part: str
    dialect: str


def understood(key: str) -> Key | None:
    """What `key` names, or None where it is no key of any dialect."""
    prefix = next((p for p in PREFIXES if key.startswith(p)), "")
    model, dialect = PREFIXES.get(prefix, ("", ""))
    rest = key.removeprefix(prefix)
    if rest.startswith("base_model.model."):
        rest, dialect = rest.removeprefix("base_model.model."), dialect or "PEFT, bare names"
        model = model or ("text_encoder" if rest.startswith("text_model.") else "")
    if old := PROCESSOR.fullmatch(rest):
        path, name, end = old.groups()
        return Key(model, f"{path}.{_attention(model, name)}", PARTS.get(f"lora.{end}", "alpha"), "diffusers, old")
    dialect = dialect or ("PEFT, bare names" if rest.startswith(ROOTS) else "")
    path, part = _ending(rest)
    return Key(model, path, part, dialect) if dialect and path and part else None


def foreign(key: str) -> str:
    """What a key is that no dialect here reads, where that is known; else ""."""
    return next((what for mark, what in FOREIGN if mark in key), "")


def target(model: str, path: str) -> str:
    """The weight's name here; see the module's head. A path that is not known to be another's name stays as it is."""
    name = flat(path)
    if model:
        return f"{model}.{_openclip(name.removeprefix('text_model_'))}"
    return _sgm(name)


def fused(name: str) -> tuple[tuple[str, float], ...]:
    """The layers that the layer `name` is made of, each with its share of the rows; itself where it is one."""
    for pattern, heads in FUSED:
        if found := pattern.fullmatch(name):
            total = sum(share for _, share in heads)
            return tuple((found.expand(head), share / total) for head, share in heads)
    for pattern, head in TRANSFORMERS:
        if found := pattern.fullmatch(name):
            return ((found.expand(head), 1.0),)
    return ((name, 1.0),)


def named(model: str, parameters: Iterable[tuple[str, tuple[int, ...]]]) -> Iterator[tuple[str, tuple[int, int]]]:
    """The weights of a model by the names here, with their shapes as matrices (a vector is one column)."""
    for name, shape in parameters:
        path, _, kind = name.rpartition(".")
        if kind in ("weight", "bias") and path and shape:
            columns = 1
            for side in shape[1:]:
                columns *= side
            key = flat(path) if not model else f"{model}.{flat(path).removeprefix('text_model_')}"
            yield key + (".bias" if kind == "bias" else ""), (shape[0], columns)


def flat(path: str) -> str:
    """A module path as kohya's files write it: dots become underscores."""
    return path.replace(".", "_")


def _ending(rest: str) -> tuple[str, str]:
    """The path, and the part that the rest of a key names: the longest ending that is one."""
    words = rest.split(".")
    for count in (3, 2, 1):
        ending = ".".join(words[-count:])
        if len(words) > count and ending in PARTS:
            return ".".join(words[:-count]), PARTS[ending]
    return "", ""


def _attention(model: str, name: str) -> str:
    if model:
        return f"{name}_proj"
    return "to_out.0" if name == "out" else f"to_{name}"


INPUT = re.compile(r"input_blocks_(\d+)_(\d+)_(.+)")
MIDDLE = re.compile(r"middle_block_([012])_(.+)")
OUTPUT = re.compile(r"output_blocks_(\d+)_(\d+)_(.+)")
OUTSIDE = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
}
RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}


def _sgm(name: str) -> str:
    """A UNet layer in the names of Stability's generative-models, where it is one, in diffusers' names.

    Every level there is two ResNets and, but for the last, one that halves: of three input blocks the third. Going up
    a level has three blocks, the last with the layer that doubles behind its attention, where it has one.
    """
    if name in OUTSIDE:
        return OUTSIDE[name]
    if found := INPUT.fullmatch(name):
        level, at = divmod(int(found[1]) - 1, 3)
        if at == 2:
            return f"down_blocks_{level}_downsamplers_0_conv" if found[3] == "op" else name
        return _block(f"down_blocks_{level}", at, found[2], found[3])
    if found := MIDDLE.fullmatch(name):
        at, inner = {"0": (0, "0"), "1": (0, "1"), "2": (1, "0")}[found[1]]
        return _block("mid_block", at, inner, found[2])
    if found := OUTPUT.fullmatch(name):
        level, at = divmod(int(found[1]), 3)
        if found[3] == "conv":
            return f"up_blocks_{level}_upsamplers_0_conv"
        return _block(f"up_blocks_{level}", at, found[2], found[3])
    return name


def _block(block: str, at: int, inner: str, rest: str) -> str:
    if inner == "0":
        return f"{block}_resnets_{at}_{RESNET.get(rest, rest)}"
    return f"{block}_attentions_{at}_{rest}"


RESBLOCK = re.compile(r"(?:model_)?transformer_resblocks_(\d+)_(.+)")
OPENCLIP = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp_c_fc": "mlp_fc1",
    "mlp_c_proj": "mlp_fc2",
    "attn_out_proj": "self_attn_out_proj",
    "attn_in_proj": "self_attn_in_proj",
}


def _openclip(name: str) -> str:
    """An encoder's layer in open_clip's names, where it is one, in transformers' names."""
    if found := RESBLOCK.fullmatch(name):
        return f"encoder_layers_{found[1]}_{OPENCLIP.get(found[2], found[2])}"
    return name


def _table(rows: dict[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), head) for pattern, head in rows.items())


_SINGLE, _DOUBLE = r"single_transformer_blocks_\1_", r"transformer_blocks_\1_"
_QKV = tuple((rf"{_DOUBLE}attn_to_{x}", 1) for x in "qkv")
_ADDED = tuple((rf"{_DOUBLE}attn_add_{x}_proj", 1) for x in "qkv")
FUSED = (  # a fused layer of FLUX.1, Stable Diffusion 3 or open_clip → its layers in diffusers' models, with shares
    (re.compile(r"double_blocks_(\d+)_img_attn_qkv"), _QKV),
    (re.compile(r"double_blocks_(\d+)_txt_attn_qkv"), _ADDED),
    (
        re.compile(r"single_blocks_(\d+)_linear1"),
        (*((rf"{_SINGLE}attn_to_{x}", 1) for x in "qkv"), (rf"{_SINGLE}proj_mlp", 4)),
    ),
    (re.compile(r"joint_blocks_(\d+)_x_block_attn_qkv"), _QKV),
    (re.compile(r"joint_blocks_(\d+)_x_block_attn2_qkv"), tuple((rf"{_DOUBLE}attn2_to_{x}", 1) for x in "qkv")),
    (re.compile(r"joint_blocks_(\d+)_context_block_attn_qkv"), _ADDED),
    (
        re.compile(r"(text_encoder(?:_2)?)\.encoder_layers_(\d+)_self_attn_in_proj"),
        tuple((rf"\1.encoder_layers_\2_self_attn_{x}_proj", 1) for x in "qkv"),
    ),
)
TRANSFORMERS = _table(  # Black Forest Labs' and Stability's names → diffusers'
    {
        r"double_blocks_(\d+)_img_attn_proj": rf"{_DOUBLE}attn_to_out_0",
        r"double_blocks_(\d+)_txt_attn_proj": rf"{_DOUBLE}attn_to_add_out",
        r"double_blocks_(\d+)_img_mlp_0": rf"{_DOUBLE}ff_net_0_proj",
        r"double_blocks_(\d+)_img_mlp_2": rf"{_DOUBLE}ff_net_2",
        r"double_blocks_(\d+)_txt_mlp_0": rf"{_DOUBLE}ff_context_net_0_proj",
        r"double_blocks_(\d+)_txt_mlp_2": rf"{_DOUBLE}ff_context_net_2",
        r"double_blocks_(\d+)_img_mod_lin": rf"{_DOUBLE}norm1_linear",
        r"double_blocks_(\d+)_txt_mod_lin": rf"{_DOUBLE}norm1_context_linear",
        r"single_blocks_(\d+)_linear2": rf"{_SINGLE}proj_out",
        r"single_blocks_(\d+)_modulation_lin": rf"{_SINGLE}norm_linear",
        r"img_in": "x_embedder",
        r"txt_in": "context_embedder",
        r"time_in_in_layer": "time_text_embed_timestep_embedder_linear_1",
        r"time_in_out_layer": "time_text_embed_timestep_embedder_linear_2",
        r"vector_in_in_layer": "time_text_embed_text_embedder_linear_1",
        r"vector_in_out_layer": "time_text_embed_text_embedder_linear_2",
        r"guidance_in_in_layer": "time_text_embed_guidance_embedder_linear_1",
        r"guidance_in_out_layer": "time_text_embed_guidance_embedder_linear_2",
        r"final_layer_linear": "proj_out",
        r"joint_blocks_(\d+)_x_block_attn_proj": rf"{_DOUBLE}attn_to_out_0",
        r"joint_blocks_(\d+)_context_block_attn_proj": rf"{_DOUBLE}attn_to_add_out",
        r"joint_blocks_(\d+)_x_block_mlp_fc1": rf"{_DOUBLE}ff_net_0_proj",
        r"joint_blocks_(\d+)_x_block_mlp_fc2": rf"{_DOUBLE}ff_net_2",
        r"joint_blocks_(\d+)_context_block_mlp_fc1": rf"{_DOUBLE}ff_context_net_0_proj",
        r"joint_blocks_(\d+)_context_block_mlp_fc2": rf"{_DOUBLE}ff_context_net_2",
    }
)

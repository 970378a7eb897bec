"""A person's ControlNets: HOME/controls/NAME/ has control.toml, config.json and the weights as diffusers has them.

What diffusers' folders and single files become one of these by `add`, in one rename or not at all.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import tomli_w
from pydantic import BaseModel, ConfigDict

from engine import bases
from engine.bases import Base
from engine.bases.adding import Terms, Wanted, check_room, convert, read_config, spelt
from engine.bases.header import Header, read_header
from engine.bases.layouts import SINGLE
from engine.errors import Invalid
from engine.files import read_manifest, reading, reason, staged
from engine.plans import Control, ControlKind

MANIFEST, CONFIG, WEIGHTS = "control.toml", "config.json", "diffusion_pytorch_model.safetensors"
LikeWhat = Literal["sd", "sdxl"]
CLASS = "ControlNetModel"
FITTING: dict[str, Any] = {  # what it has in common with its UNet, and what holds where nothing is said
    "in_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 1280,
    "addition_embed_type": None, "projection_class_embeddings_input_dim": None,
}  # fmt: skip
SHARED = (  # of a UNet's configuration, what that of its ControlNet repeats
    *FITTING, "flip_sin_to_cos", "freq_shift", "down_block_types", "only_cross_attention", "downsample_padding",
    "mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps", "attention_head_dim", "num_attention_heads",
    "use_linear_projection", "class_embed_type", "num_class_embeds", "upcast_attention", "resnet_time_scale_shift",
    "transformer_layers_per_block", "addition_time_embed_dim", "encoder_hid_dim", "encoder_hid_dim_type",
)  # fmt: skip
FOLDERS = "Name a ControlNet's folder in diffusers' layout (config.json beside its .safetensors), or its .safetensors."


class Net(BaseModel):
    """One ControlNet: what kind of picture it reads, and bases of which family it was made for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    folder: Path
    kind: ControlKind
    family: LikeWhat
    licence: str
    commercial: bool
    source: str = ""

    def fits(self, base: Base) -> bool:
        """Whether its residuals have the shapes of the base's UNet, and its hints the size of its pictures."""
        if base.family != self.family:
            return False
        own, unet, vae = (read_config(folder / CONFIG) for folder in (self.folder, *_parts(base)))
        scales = 2 ** (len(vae["block_out_channels"]) - 1) == 2 ** (len(_hint_widths(own)) - 1)
        return scales and all(own.get(key, said) == unet.get(key, said) for key, said in FITTING.items())


class _Outline(NamedTuple):
    """What tells one ControlNet's architecture from another's: its widths, how many residuals, and whether it is XL."""

    width: int
    context: int
    outputs: int
    is_xl: bool


def installed(home: Path | None) -> tuple[Net, ...]:
    """Every ControlNet of the home, by name. Raises `Invalid` for one whose control.toml cannot be read."""
    if home is None:
        return ()
    root = home / "controls"
    with reading(root):
        files = sorted(root.glob(f"*/{MANIFEST}"))
    return tuple(_read(file) for file in files)


def nets_for(controls: Iterable[Control], base: Base, home: Path | None) -> tuple[Net, ...]:
    """For each control the ControlNet that reads it. Raises `Invalid`, saying what to add, where there is none."""
    return tuple(net_for(control.kind, base, home) for control in controls)


def net_for(kind: ControlKind, base: Base, home: Path | None) -> Net:
    """The ControlNet of that kind for that base. Raises `Invalid` where there is none."""
    of_kind = [net for net in installed(home) if net.kind == kind]
    if found := next((net for net in of_kind if net.fits(base)), None):
        return found
    why = f"{base.title} has no ControlNet for it"
    if of_kind:
        others = ", ".join(f"{net.name} (made for {net.family})" for net in of_kind)
        why = f"{others} does not fit {base.title}, which is {base.family}"
    todo = f"Add one that was made for the base, `atelier controls add FOLDER --kind {kind}`, or name another --base."
    raise Invalid(f"control {kind}", why, todo)


def add(path: Path, kind: ControlKind, wanted: Wanted, home: Path) -> Net:
    """Take in a folder of diffusers, or a .safetensors file. Raises `Invalid`, `NoRoom`.

    Its weights are read whole once, by a process of their own: what is missing, left over, of another shape or not
    finite refuses it.
    """
    if not path.exists():
        raise Invalid(str(path), "there is no such file or folder", "Check the path.")
    file = path if path.is_file() else _weights(path)
    header = read_header(file)
    config = read_config(path / CONFIG) if path.is_dir() else _config_of(header, file.name, home)
    family = _family(config, path.name)
    name = free_name(wanted.name or path.stem, home / "controls")
    check_room(home, header.size)
    terms = wanted.terms(header.metadata.get("modelspec.license", ""), path.name)
    with staged(name, home / "controls") as folder:
        (folder / CONFIG).write_text(json.dumps(config, indent=1), "utf-8")
        convert("engine.diffusion.control", file, folder)
        (folder / MANIFEST).write_text(tomli_w.dumps(_facts(kind, family, terms)), "utf-8")
    return _read(home / "controls" / name / MANIFEST)


def _facts(kind: ControlKind, family: LikeWhat, terms: Terms) -> dict[str, Any]:
    return {"kind": kind, "family": family, "licence": terms.licence, "commercial": terms.commercial,
            "source": terms.source}  # fmt: skip


def _read(file: Path) -> Net:
    folder = file.parent
    try:
        return Net.model_validate({**read_manifest(file), "name": folder.name, "folder": folder})
    except (OSError, ValueError) as error:
        why = f"its {MANIFEST} cannot be read ({reason(error)})"
        raise Invalid(f"control {folder.name}", why, f"Mend {file}, or remove the folder.") from None


def _weights(folder: Path) -> Path:
    """The file of a folder's weights; of two precisions the larger."""
    for name in (WEIGHTS, WEIGHTS.replace(".safetensors", ".fp16.safetensors")):
        if (folder / name).is_file():
            return folder / name
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
    why = "its weights are a pickle, which can run any code, so it is not opened" if pickled else f"it lacks {WEIGHTS}"
    raise Invalid(folder.name, why, FOLDERS)


def _family(config: Mapping[str, Any], name: str) -> LikeWhat:
    """By the configuration. Raises `Invalid` for what is not a ControlNet that we ask as they are asked."""
    if config.get("_class_name") != CLASS:
        raise Invalid(name, f"it is a {str(config.get('_class_name'))[:60]}, and no {CLASS}", FOLDERS)
    if config.get("global_pool_conditions") or config.get("conditioning_channels", 3) != 3:
        raise Invalid(name, "it reads its pictures in another way than edges, poses, depths and drawings", FOLDERS)
    return "sdxl" if config.get("addition_embed_type") == "text_time" else "sd"


def _config_of(header: Header, name: str, home: Path) -> dict[str, Any]:
    """The configuration of a file that has none: that of the UNet which it is a copy of. Raises `Invalid`."""
    outline = _outline_of(header)
    for unet in _unets(home):
        if outline is not None and outline == _outline(unet):
            shared = {key: unet[key] for key in SHARED if key in unet}
            widths = {"conditioning_embedding_out_channels": _widths_in(header)}
            return {"_class_name": CLASS, **shared, **widths}
    is_lora = any("lora" in key for key in header.tensors)
    what = "a Control-LoRA, which is not drawn with yet" if is_lora else "no ControlNet of SD 1.x, SD 2.x or SDXL"
    raise Invalid(name, f"by its tensors it is {what}", FOLDERS)


def _unets(home: Path) -> Iterator[dict[str, Any]]:
    """The configurations of UNets that a single file may belong to: the known layouts', the installed bases'."""
    yield from (read_config(file) for file in sorted(SINGLE.glob("*/unet.json")))
    folders = (bases.find(name, home).folder / "unet" for name in bases.names(home))
    yield from (read_config(folder / CONFIG) for folder in folders if (folder / CONFIG).is_file())


def _outline(unet: Mapping[str, Any]) -> _Outline:
    said = {key: unet.get(key, usual) for key, usual in FITTING.items()}
    outputs = len(said["block_out_channels"]) * (said["layers_per_block"] + 1)
    is_xl = said["addition_embed_type"] == "text_time"
    return _Outline(said["block_out_channels"][0], said["cross_attention_dim"], outputs, is_xl)


def _outline_of(header: Header) -> _Outline | None:
    """The same of a file, in diffusers' names or in those of the original code (with `control_model.` or without)."""
    shapes = {key.removeprefix("control_model."): entry.shape for key, entry in header.tensors.items()}
    first = shapes.get("conv_in.weight") or shapes.get("input_blocks.0.0.weight")
    context = next((shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight")), None)
    outputs = sum(bool(re.fullmatch(r"(?:controlnet_down_blocks\.\d+|zero_convs\.\d+\.0)\.weight", k)) for k in shapes)
    if first is None or context is None:
        return None
    is_xl = "add_embedding.linear_1.weight" in shapes or "label_emb.0.0.weight" in shapes
    return _Outline(first[0], context, outputs, is_xl)


def _widths_in(header: Header) -> list[int]:
    """Channels of the layers that make a hint small: of the first, then of each that halves it."""
    shapes = {key.removeprefix("control_model."): entry.shape for key, entry in header.tensors.items()}
    ours, theirs = r"controlnet_cond_embedding\.blocks\.(\d+)\.weight", r"input_hint_block\.(\d+)\.weight"
    blocks = {int(m[1]): shape[0] for key, shape in shapes.items() if (m := re.fullmatch(ours, key))}
    hints = {int(m[1]) // 2 - 1: shape[0] for key, shape in shapes.items() if (m := re.fullmatch(theirs, key))}
    if hints:  # the first and the last of them are no blocks
        blocks = {k: width for k, width in hints.items() if -1 < k < max(hints)}
    first = shapes.get("controlnet_cond_embedding.conv_in.weight") or shapes.get("input_hint_block.0.weight")
    return [*(first or (0,))[:1], *(blocks[k] for k in sorted(blocks) if k % 2)]


def _hint_widths(config: Mapping[str, Any]) -> list[int]:
    said = config.get("conditioning_embedding_out_channels") or [16, 32, 96, 256]
    return cast(list[int], said)


def _parts(base: Base) -> tuple[Path, Path]:
    return base.folder / "unet", base.folder / "vae"


def free_name(said: str, root: Path) -> str:
    """`said` as the name of a folder that is not in `root` yet. Raises `Invalid`."""
    name = spelt(said)
    if (root / name).exists():
        raise Invalid("--name", f"there is one named “{name}” in {root.name} already", "Choose another: --name N.")
    return name

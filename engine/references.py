"""A person's IP-Adapters: HOME/references/NAME/ has reference.toml, the adapter, and the encoder that it sees with.

An IP-Adapter lets the UNet of an SD or SDXL base look at a picture (Ye et al. 2023, arXiv:2308.06721).
"""

import shutil
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import BaseModel, ConfigDict

from engine.bases import Base
from engine.bases.adding import Wanted, check_room, read_config
from engine.bases.header import Header, read_header
from engine.controls import free_name
from engine.errors import Invalid
from engine.files import read_manifest, reading, reason, staged

MANIFEST, WEIGHTS, ENCODER = "reference.toml", "ip_adapter.safetensors", "image_encoder"
ENCODED = "model.safetensors"
CLASS = "CLIPVisionModelWithProjection"
FAMILIES = ("sd", "sdxl")  # whose UNets look at pictures by an adapter
ASK = "Name the adapter's .safetensors, and with --encoder the folder of its CLIP vision encoder."
Way = Literal["picture", "patches"]


class Adapter(BaseModel):
    """One IP-Adapter for bases whose UNet reads texts `width` wide.

    `way`: it reads the embedding of the whole picture, or those of its patches ("Plus").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    folder: Path
    way: Way
    width: int
    licence: str
    commercial: bool
    source: str = ""

    def fits(self, base: Base) -> bool:
        if base.family not in FAMILIES:
            return False
        unet = read_config(base.folder / "unet" / "config.json")
        return unet.get("cross_attention_dim", 1280) == self.width


def installed(home: Path | None) -> tuple[Adapter, ...]:
    """Every adapter of the home, by name. Raises `Invalid` for one whose reference.toml cannot be read."""
    if home is None:
        return ()
    root = home / "references"
    with reading(root):
        files = sorted(root.glob(f"*/{MANIFEST}"))
    return tuple(_read(file) for file in files)


def adapter_for(base: Base, home: Path | None) -> Adapter | None:
    """The adapter by which `base` looks at pictures; None for a family that looks at them by itself, or refuses.

    Raises `Invalid`, saying what to add, where an adapter is needed and none fits.
    """
    if base.family not in FAMILIES:
        return None
    found = installed(home)
    if fitting := next((one for one in found if one.fits(base)), None):
        return fitting
    others = f"; {', '.join(one.name for one in found)} is for other bases" if found else ""
    why = f"{base.title} takes no reference pictures without an IP-Adapter, and none that fits is here{others}"
    todo = "Add one that was made for the base, `atelier references add FILE --encoder FOLDER`, or name another --base."
    raise Invalid("reference", why, todo)


def add(path: Path, encoder: Path, wanted: Wanted, home: Path) -> Adapter:
    """Take in an adapter and its encoder, both checked by their headers. Raises `Invalid`, `NoRoom`."""
    if not path.is_file():
        raise Invalid(str(path), "there is no such file", ASK)
    header = read_header(path)
    way, width, sees = _kind(header, path.name)
    weights = _checked(encoder, way, sees)
    name = free_name(wanted.name or path.stem, home / "references")
    check_room(home, header.size + weights.stat().st_size)
    terms = wanted.terms(header.metadata.get("modelspec.license", ""), path.name)
    with staged(name, home / "references") as folder:
        shutil.copyfile(path, folder / WEIGHTS)
        (folder / ENCODER).mkdir()
        shutil.copyfile(encoder / "config.json", folder / ENCODER / "config.json")
        shutil.copyfile(weights, folder / ENCODER / ENCODED)
        said = {"way": way, "width": width, "licence": terms.licence, "commercial": terms.commercial}
        (folder / MANIFEST).write_text(tomli_w.dumps({**said, "source": terms.source}), "utf-8")
    return _read(home / "references" / name / MANIFEST)


def _kind(header: Header, name: str) -> tuple[Way, int, int]:
    """How it reads a picture, how wide the texts are beside which it does, and how wide what it reads is."""
    widths = {entry.shape[1] for key, entry in header.tensors.items() if key.endswith(".to_k_ip.weight")}
    whole, patches = header.shape("image_proj.proj.weight"), header.shape("image_proj.proj_in.weight")
    seen = whole or (patches if header.shape("image_proj.latents") else None)
    if len(widths) != 1 or seen is None or len(seen) != 2:
        todo = "Take the plain one or “Plus”; those that know faces want networks that are not here."
        raise Invalid(name, "it is no IP-Adapter of a kind that we draw with", todo)
    return "picture" if whole else "patches", widths.pop(), seen[1]


def _checked(encoder: Path, way: Way, sees: int) -> Path:
    """The encoder's weights. Raises `Invalid` for what is no CLIP vision encoder, or another than the adapter's."""
    if not encoder.is_dir():
        raise Invalid("--encoder", f"there is no folder {encoder}", ASK)
    config = read_config(encoder / "config.json")
    if CLASS not in (config.get("architectures") or ()):
        raise Invalid("--encoder", f"{encoder.name} is no {CLASS}", ASK)
    weights = encoder / ENCODED
    if not weights.is_file():
        raise Invalid("--encoder", f"it lacks {ENCODED}, and nothing else is opened", ASK)
    read_header(weights)
    wide = config.get("projection_dim", 512) if way == "picture" else config.get("hidden_size", 768)
    if wide != sees:
        why = f"the adapter reads what is {sees} wide, and {encoder.name} gives {wide}: it is another one's encoder"
        raise Invalid("--encoder", why, ASK)
    return weights


def _read(file: Path) -> Adapter:
    folder = file.parent
    try:
        return Adapter.model_validate({**read_manifest(file), "name": folder.name, "folder": folder})
    except (OSError, ValueError) as error:
        why = f"its {MANIFEST} cannot be read ({reason(error)})"
        raise Invalid(f"reference {folder.name}", why, f"Mend {file}, or remove the folder.") from None

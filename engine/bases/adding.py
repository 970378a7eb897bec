"""A person's model becomes a base: a folder in diffusers' layout, or a single-file checkpoint, gets its base.toml.

It is put together under HOME/bases/.new and appears in HOME/bases/NAME by one rename, or not at all.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import tomli_w

from engine import bases
from engine.bases import MANIFEST, Base, Family
from engine.bases.header import Header, read_header
from engine.bases.layouts import SINGLE, Layout, Prediction, layouts, prediction, recognise
from engine.bases.models import Model, Published, licence_of, model_of, published
from engine.bases.tokenizers import find_words, write_words
from engine.errors import BaseTaken, Fault, Invalid, NoRoom
from engine.files import read_bounded, reason, staged

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
INDEX = "model_index.json"  # what a model in diffusers' layout says of itself as a whole
MARGIN = 1_000_000_000  # bytes of disk that are left free
MAX_CONFIG = 2_000_000  # bytes
REFUSED = 3  # exit code of the conversion: the file's fault, and the last line says which
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja",
)  # fmt: skip
PROCESSOR_FILES = (*TOKENIZER_FILES, "preprocessor_config.json", "video_preprocessor_config.json",
                   "processor_config.json", "chat_template.json")  # fmt: skip
NAMED_BY = ("tokenizer.json", "vocab.json", "spiece.model", "preprocessor_config.json")  # one of them has to be there
COMMERCIAL = {  # licences, as model cards name them, that let pictures be sold
    "apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "openrail", "openrail++", "creativeml-openrail-m",
    "bigscience-openrail-m",
}  # fmt: skip
UNKNOWN = "unknown"


class Terms(NamedTuple):
    """What a person may do with a base; `accepted` is the day on which somebody took the licence, or empty."""

    licence: str
    commercial: bool
    source: str
    accepted: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a base is to be added; None and "" are not said."""

    name: str = ""
    licence: str = ""
    commercial: bool | None = None
    tokenizer: Path | None = None
    prediction: Prediction | None = None

    def terms(self, stated: str, source: str, accepted: str = "") -> Terms:
        """The person's word goes before what the file or the model card states; unknown is not commercial."""
        licence = self.licence or stated or UNKNOWN
        free = licence.strip().lower() in COMMERCIAL if self.commercial is None else self.commercial
        return Terms(licence, free, source, accepted)


def add(path: Path, wanted: Wanted, home: Path, single: Path = SINGLE) -> Base:
    """The base made of a folder in diffusers' layout, or of a single-file checkpoint. Raises `Invalid`, `NoRoom`."""
    if not path.exists():
        raise Invalid(str(path), "there is no such file or folder", "Check the path.")
    name = free_name(wanted.name or path.stem, home)
    return add_folder(path, name, wanted, home) if path.is_dir() else add_file(path, name, wanted, home, single)


def add_file(file: Path, name: str, wanted: Wanted, home: Path, single: Path = SINGLE) -> Base:
    """A checkpoint of the original layout, converted by diffusers in a process of its own, without a network."""
    header = read_header(file)
    layout = recognise(header, file.name, layouts(single))
    predicts = prediction(header, file.name, layout, wanted.prediction)
    configs = {part: read_config(layout.folder / f"{part}.json") for part in (*layout.parts, "scheduler")}
    installed = tuple(bases.find(one, home).folder for one in bases.names(home))
    words = find_words(int(configs["text_encoder"]["vocab_size"]), wanted.tokenizer, installed)
    check_room(home, header.size)
    with _staged(name, home) as folder:
        for tokenizer, pad in layout.tokenizers.items():
            write_words(folder / tokenizer, words, pad)
        for part in layout.parts:
            _write_json(folder / part / "config.json", configs[part])
        _write_json(folder / "scheduler" / "scheduler_config.json", _scheduled(configs["scheduler"], header, predicts))
        convert("engine.diffusion.single_file", file, folder)
        native = layout.size.model_copy(update={"native": 512}) if _is_base_of_2(layout, predicts) else layout.size
        terms = wanted.terms(header.metadata.get("modelspec.license", ""), file.name)
        sizes, defaults = native.model_dump(exclude_defaults=True), layout.defaults.model_dump()
        _write_manifest(folder, name, layout.family, terms, {"size": sizes, "defaults": defaults})
    return bases.find(name, home)


def add_folder(folder: Path, name: str, wanted: Wanted, home: Path, terms: Terms | None = None) -> Base:
    """A folder in diffusers' layout, copied (linked where the disk can) under plain names. Raises `Invalid`.

    `terms`: those of the page that it comes from, if it has one.
    """
    index = read_config(folder / INDEX)
    model = model_of(index, folder.name)
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    files = chosen(names, model, folder.name, half=False)
    denoiser = read_config(folder / model.denoiser / "config.json")
    vae = read_config(folder / "vae" / "config.json")
    _check_latents(model, denoiser, vae, folder.name)
    known = published(model.family, folder.name, {**index, **denoiser})
    sizes = _sizes(model, denoiser, vae, known, folder.name)
    for source in files:
        if source.endswith(".safetensors"):
            read_header(folder / source)
        if source.endswith(".index.json"):
            _check_shards(folder / source, files)
    check_room(home, sum((folder / source).stat().st_size for source in files))
    with _staged(name, home) as new:
        for source, target in files.items():
            (new / target).parent.mkdir(parents=True, exist_ok=True)
            _link((folder / source).resolve(), new / target)
        said = terms or wanted.terms(licence_of(known, folder.name), str(folder))
        _write_manifest(new, name, model.family, said, sizes)
    return bases.find(name, home)


def chosen(names: Iterable[str], model: Model, name: str, half: bool) -> dict[str, str]:
    """Of a model's files those that a base needs, each with its name there. Raises `Invalid`, naming what is missing.

    Weights are safetensors alone. Where a part is there in two precisions, `half` takes the smaller one.
    """
    there = set(names)
    files = {file: file for file in (INDEX, "scheduler/scheduler_config.json")}
    for part in model.parts:
        files |= {f"{part}/config.json": f"{part}/config.json"} | _weights(there, part, name, half)
    kinds = ((model.tokenizers, TOKENIZER_FILES), (model.processors, PROCESSOR_FILES))
    for folder, known in ((folder, known) for folders, known in kinds for folder in folders):
        found = [f"{folder}/{file}" for file in known if f"{folder}/{file}" in there]
        if not {f"{folder}/{file}" for file in NAMED_BY} & set(found):
            raise Invalid(name, f"it lacks {folder}/tokenizer.json", "Get the whole model in diffusers' layout.")
        files |= {file: file for file in found}
    if missing := sorted(set(files) - there):
        raise Invalid(name, f"it lacks {', '.join(missing)}", "Get the whole model in diffusers' layout.")
    return files


def free_name(said: str, home: Path) -> str:
    """`said` as the name of a base. Raises `Invalid` for none, `BaseTaken` where there is one."""
    name = spelt(said)
    if name in bases.names(home):
        raise BaseTaken(name)
    return name


def spelt(said: str) -> str:
    """`said` as the name of a folder. Raises `Invalid` where nothing of it can stand in one."""
    name = re.sub(r"[^a-z0-9_-]+", "-", said.lower()).strip("-_")[:64].strip("-_")
    if not NAME.fullmatch(name):
        raise Invalid("--name", f"“{said[:60]}” is no name", "Use letters, digits, - and _.")
    return name


def check_room(home: Path, wanted: int) -> None:
    """Raise `NoRoom` unless so many bytes, and a margin, are free where the home is."""
    folder = next(one for one in (home, *home.parents) if one.exists())
    free = shutil.disk_usage(folder).free
    if wanted + MARGIN > free:
        raise NoRoom(str(home), wanted, free)


def _weights(there: set[str], part: str, model: str, half: bool) -> dict[str, str]:
    """The files of one part's weights: in one file, in shards with their index, or in one file of half precision."""
    stem = f"{part}/{'model' if part.startswith('text') else 'diffusion_pytorch_model'}"
    whole, short, index = f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.json"
    if short in there and (half or (whole not in there and index not in there)):
        return {short: whole}
    if whole in there:
        return {whole: whole}
    if index in there:
        shard = re.compile(re.escape(stem) + r"-\d{5}-of-\d{5}\.safetensors")
        return {index: index} | {file: file for file in sorted(there) if shard.fullmatch(file)}
    pickled = any(file.startswith(f"{part}/") and file.endswith(".bin") for file in there)
    why = f"its {part} is there as a pickle alone, which is not opened" if pickled else f"it lacks {whole}"
    raise Invalid(model, why, "Get the model with its .safetensors files.")


def _check_shards(index: Path, files: Iterable[str]) -> None:
    """Raise `Invalid` unless an index names the shards that lie beside it, and no other file anywhere."""
    part = index.parent.name
    beside = {file.removeprefix(f"{part}/") for file in files if file.startswith(f"{part}/")}
    named = read_config(index).get("weight_map")
    if not isinstance(named, dict) or set(cast(dict[str, Any], named).values()) != {
        file for file in beside if file.endswith(".safetensors")
    }:
        why = "it does not name exactly the .safetensors files beside it"
        raise Invalid(f"{part}/{index.name}", why, "Get the whole model in diffusers' layout.")


def _is_base_of_2(layout: Layout, predicts: Prediction) -> bool:
    return len(layout.predictions) > 1 and predicts == "epsilon"


def _scheduled(config: dict[str, Any], header: Header, predicts: Prediction) -> dict[str, Any]:
    """With what the UNet predicts; a tensor named `ztsnr` says that training ended in pure noise (arXiv:2305.08891)."""
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in header.tensors else {}
    return {**config, "prediction_type": predicts, **zero}


def convert(module: str, file: Path, folder: Path) -> None:
    """Have `module` read the file and fill the folder, in a process of its own; `Invalid` has its last words."""
    words = [sys.executable, "-m", module, str(file.absolute()), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() or ["it ended without a word"]
    if done.returncode == REFUSED:
        raise Invalid(file.name, lines[-1], "Get the file anew, or the folder of the same model in diffusers' layout.")
    if done.returncode:
        raise Fault(f"{file.name} could not be converted", lines[-1][:300])


def _sizes(
    model: Model, denoiser: Mapping[str, Any], vae: Mapping[str, Any], known: Published | None, name: str
) -> dict[str, Any]:
    """Its native size from its configuration; the rest as its layout or its page has it, where that has the same."""
    widths = vae.get("block_out_channels") or vae.get("dim_mult")
    side = denoiser.get("sample_size") or (known.native // 8 if known else 64)
    if not isinstance(widths, list) or not 1 <= len(cast(list[Any], widths)) <= 8 or side not in range(8, 513):
        raise Invalid(name, "its configuration says no size that a picture could have", "Get it anew.")
    scale = 2 ** (len(cast(list[Any], widths)) - 1)
    native = side * scale
    if known:
        stated, defaults = known.size(), {"steps": known.steps, "guidance": known.guidance, "sampler": "euler"}
    else:
        like = [one for one in layouts() if one.family == model.family]
        near = min(like, key=lambda one: abs(one.size.native - native))
        stated, defaults = near.size.model_dump(exclude_defaults=True), near.defaults.model_dump()
    plain = {"native": native, "multiple": scale * 8, "min": max(native // 2, scale * 8), "max": native * 2}
    return {"size": stated if stated["native"] == native else plain, "defaults": defaults}


def _check_latents(model: Model, denoiser: Mapping[str, Any], vae: Mapping[str, Any], name: str) -> None:
    takes, gives = denoiser.get("in_channels"), vae.get("latent_channels") or vae.get("z_dim")
    if not isinstance(gives, int) or takes != gives * model.packing:
        network = "UNet" if model.denoiser == "unet" else "transformer"
        why = f"its {network} takes {takes} channels, its autoencoder gives {gives}: an inpainting or editing model"
        raise Invalid(name, why, "Add the plain model: masks and edits work with it.")


def _write_manifest(folder: Path, name: str, family: Family, terms: Terms, rest: Mapping[str, Any]) -> None:
    facts = {"name": name, "title": name, "family": family, "licence": terms.licence, "commercial": terms.commercial}
    more = {key: value for key, value in (("source", terms.source), ("accepted", terms.accepted)) if value}
    (folder / MANIFEST).write_text(tomli_w.dumps({**facts, **more, **rest}), "utf-8")


@contextmanager
def _staged(name: str, home: Path) -> Generator[Path]:
    """`staged` of a base; `BaseTaken` where another has come under its name meanwhile."""
    with staged(name, home / "bases") as folder:
        yield folder
        if (home / "bases" / name).exists():
            raise BaseTaken(name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def read_config(path: Path) -> dict[str, Any]:
    """A component's configuration, bounded. Raises `Invalid`."""
    try:
        said = json.loads(read_bounded(path, MAX_CONFIG))
    except FileNotFoundError:
        todo = "Name a model in diffusers' layout, or a .safetensors checkpoint."
        raise Invalid(str(path.parent), f"there is no {path.name} in it", todo) from None
    except (OSError, ValueError, RecursionError) as error:
        why = reason(error) if isinstance(error, OSError | ValueError) else "it is nested too deeply"
        raise Invalid(str(path), f"it cannot be read ({why})", "Get it anew.") from None
    if not isinstance(said, dict):
        raise Invalid(str(path), "it holds no configuration", "Get it anew.")
    return cast(dict[str, Any], said)


def _write_json(path: Path, said: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said, indent=1), "utf-8")

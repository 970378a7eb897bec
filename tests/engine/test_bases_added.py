"""engine/bases/adding.py: a checkpoint or a folder becomes a base, with no network and no pickle."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from engine import bases
from engine.bases import adding, hub, memory
from engine.bases.adding import Wanted
from engine.bases.header import read_header
from engine.bases.layouts import SINGLE, layouts, prediction, recognise
from engine.bases.tokenizers import Words, find_words, unpacked, write_words
from engine.diffusion.render import Brush, drawn
from engine.diffusion.resident import Resident
from engine.errors import BaseTaken, BaseTooLarge, Invalid, NoRoom
from tests.checkpoints import TOKENS, layout, pipeline, single, unet_names

ROOT = Path(__file__).parents[2]
KINDS = ("sd1", "sd2", "sdxl")
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One tiny model: its folder, its single file, the layouts that know it, and the base that the file became."""
    work = tmp_path_factory.mktemp(request.param)
    pipe = pipeline(request.param, work)
    pipe.save_pretrained(work / "folder")
    file = single(pipe, work / "My Model v1.safetensors")
    known = layout(pipe, request.param, work / "layouts")
    wanted = Wanted(tokenizer=work / "tokenizer", prediction="epsilon", licence="openrail")
    base = adding.add(file, wanted, work / "home", known)
    return {"kind": request.param, "work": work, "pipe": pipe, "file": file, "layouts": known, "base": base}


def test_a_checkpoint_becomes_a_base_with_the_very_weights(made: dict[str, Any]) -> None:
    base, pipe = made["base"], made["pipe"]
    base.check_whole()
    parts = Resident(base, torch.device("cpu"), torch.float32).parts
    found = {"unet": parts.denoiser, "vae": parts.vae, **dict(zip(PARTS[2:], parts.encoders, strict=False))}
    for name, module in found.items():
        wanted = getattr(pipe, name).state_dict()
        assert module.state_dict().keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in module.state_dict().items()), name


def test_both_layouts_draw_the_same_pixels(made: dict[str, Any]) -> None:
    wanted = Wanted(name="from-folder", licence="openrail")
    folder = adding.add(made["work"] / "folder", wanted, made["work"] / "home")
    pictures = []
    for base in (made["base"], folder):
        resident = Resident(base, torch.device("cpu"), torch.float32)
        brush = Brush("a cat", "", 7, 32, 32, 3, 4.0, "dpm++")
        pictures.append(drawn(resident, brush).tobytes())
    assert pictures[0] == pictures[1]


def test_the_manifest_says_what_it_is_and_whether_it_may_be_sold(made: dict[str, Any]) -> None:
    base = made["base"]
    assert (base.name, base.family) == ("my-model-v1", "sdxl" if made["kind"] == "sdxl" else "sd")
    assert (base.licence, base.commercial, base.source) == ("openrail", True, "My Model v1.safetensors")
    with pytest.raises(BaseTaken):
        adding.add(made["file"], Wanted(), made["work"] / "home", made["layouts"])


def test_conversion_opens_no_socket_and_leaves_nothing_half(made: dict[str, Any], tmp_path: Path) -> None:
    script = f"""
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        sys.stderr.write(f"network: {{event}} {{arguments}}\\n"); raise SystemExit(99)
sys.addaudithook(refuse)
from pathlib import Path
from engine.diffusion.single_file import main
folder = Path({str(tmp_path / "new")!r})
sys.exit(main({str(made["file"])!r}, str(folder)))
"""
    for config in made["base"].folder.glob("*/config.json"):
        target = tmp_path / "new" / config.parent.name / "config.json"
        target.parent.mkdir(parents=True)
        source = made["layouts"] / made["kind"] / f"{config.parent.name}.json"
        target.write_text(source.read_text())
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "user")}  # online, if it could
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bases.fingerprint(tmp_path / "new") == made["base"].fingerprint()
    assert not list((made["work"] / "home" / "bases" / ".new").iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_the_real_architectures_are_known_by_their_keys_and_shapes(kind: str, tmp_path: Path) -> None:
    """Built from our own configuration without memory; how many numbers each has is public knowledge."""
    counts = {
        "sd1": (859_520_964, 83_653_863, 123_060_480, 0),
        "sd2": (865_910_724, 83_653_863, 340_387_840, 0),
        "sdxl": (2_567_463_684, 83_653_863, 123_060_480, 694_659_840),
    }[kind]
    folder = SINGLE / kind
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(json.loads((folder / "unet.json").read_text()))
        vae = AutoencoderKL.from_config(json.loads((folder / "vae.json").read_text()))
        texts = [_text(file) for file in sorted(folder.glob("text_encoder*.json"))]
    found = [sum(p.numel() for p in module.parameters()) for module in (unet, vae, *texts)]
    assert tuple(found) + (0,) * (4 - len(found)) == counts
    names = {"input_blocks.0.0.weight": [320, 4, 3, 3]}
    width = {"sd1": 768, "sd2": 1024}.get(kind)
    if width:
        names["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] = [320, width]
        assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k.weight.shape == (320, width)
    else:
        names |= {"input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": [640, 2048]}
        names |= {"label_emb.0.0.weight": [1280, 2816]}
        assert unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2.to_k.weight.shape == (640, 2048)
    known = next(one for one in layouts() if one.folder.name == kind)
    keys = {f"model.diffusion_model.{name}": shape for name, shape in names.items()}
    header = read_header(sparse(tmp_path / "a.safetensors", keys | {key: [4] for key in known.parts.values()}))
    assert recognise(header, "a", layouts()) == known


def _text(file: Path) -> torch.nn.Module:
    said = json.loads(file.read_text())
    cls = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
    return cls[said["architectures"][0]](CLIPTextConfig(**said))


def sparse(path: Path, shapes: dict[str, list[int]], metadata: dict[str, str] | None = None) -> Path:
    """A whole safetensors file of half precision that takes no disk: its values are a hole of zeros."""
    at, header = 0, {"__metadata__": metadata} if metadata else {}
    for key, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return path


SD1 = {
    "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [320, 768],
    "model.diffusion_model.out.2.weight": [4],
    "first_stage_model.decoder.conv_out.weight": [4],
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": [4],
}


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ({"lora_unet_a.lora_down.weight": [4, 4]}, "it is a LoRA"),
        ({"double_blocks.0.img_attn.qkv.weight": [4, 4]}, "FLUX"),
        ({"model.diffusion_model.joint_blocks.0.x": [4]}, "Stable Diffusion 3"),
        ({"conditioner.embedders.0.model.ln_final.bias": [4]}, "refiner"),
        ({"down_blocks.0.resnets.0.conv1.weight": [4]}, "one part of a model"),
        ({"x": [4]}, "no model that we know"),
        ({**SD1, "model.diffusion_model.input_blocks.0.0.weight": [320, 9, 3, 3]}, "an inpainting checkpoint"),
        ({**SD1, "model.diffusion_model.input_blocks.0.0.weight": [320, 8, 3, 3]}, "edits by instruction"),
        ({k: v for k, v in SD1.items() if "first_stage" not in k}, "without its vae"),
        ({k: v for k, v in SD1.items() if "cond_" not in k and "first" not in k}, "without its vae, text_encoder"),
    ],
)
def test_what_cannot_be_drawn_with_is_refused_by_name(tmp_path: Path, shapes: dict[str, list[int]], why: str) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        adding.add(sparse(tmp_path / "m.safetensors", shapes), Wanted(), tmp_path / "home")
    assert caught.value.hint
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("extra", "metadata", "said", "found"),
    [
        ({}, None, None, None), ({}, None, "v_prediction", "v_prediction"),
        ({"v_pred": [0]}, None, None, "v_prediction"),
        ({}, {"modelspec.prediction_type": "v"}, None, "v_prediction"),
        ({}, {"modelspec.prediction_type": "epsilon"}, None, "epsilon"),
    ],
)  # fmt: skip
def test_what_the_unet_predicts_is_told_by_the_file_or_asked_for(
    tmp_path: Path, extra: dict[str, list[int]], metadata: dict[str, str] | None, said: Any, found: str | None
) -> None:
    header = read_header(sparse(tmp_path / "m.safetensors", {**SD1, **extra}, metadata))
    sd1, sd2 = (next(one for one in layouts() if one.folder.name == name) for name in ("sd1", "sd2"))
    assert prediction(header, "m", sd1, said) == (found or "epsilon")
    if found:
        assert prediction(header, "m", sd2, said) == found
    else:
        with pytest.raises(Invalid, match="does not say which") as caught:
            prediction(header, "m", sd2, said)
        assert "--prediction v_prediction" in caught.value.hint


def test_v_prediction_and_its_zero_ending_reach_the_scheduler(tmp_path: Path) -> None:
    pipe = pipeline("sdxl", tmp_path)
    file = single(pipe, tmp_path / "v.safetensors", v_pred=torch.zeros(1), ztsnr=torch.zeros(1))
    known = layout(pipe, "sdxl", tmp_path / "layouts")
    base = adding.add(file, Wanted(tokenizer=tmp_path / "tokenizer"), tmp_path / "home", known)
    said = json.loads((base.folder / "scheduler" / "scheduler_config.json").read_text())
    assert (said["prediction_type"], said["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert (base.licence, base.commercial) == ("unknown", False)


def test_half_precision_stays_half(tmp_path: Path) -> None:
    pipe = pipeline("sd1", tmp_path).to(torch.float16)
    known = layout(pipe, "sd1", tmp_path / "layouts")
    base = adding.add(
        single(pipe, tmp_path / "h.safetensors"), Wanted(tokenizer=tmp_path / "tokenizer"), tmp_path, known
    )
    entries = read_header(base.folder / "unet" / "diffusion_pytorch_model.safetensors").tensors.values()
    assert {entry.dtype for entry in entries} == {"F16"}


def test_a_checkpoint_that_lacks_a_layer_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    pipe = pipeline("sd1", tmp_path)
    known = layout(pipe, "sd1", tmp_path / "layouts")
    file = single(pipe, tmp_path / "m.safetensors")
    tensors = load_file(file)
    del tensors["model.diffusion_model.middle_block.1.proj_in.weight"]
    save_file(tensors, file)
    with pytest.raises(Invalid, match=r"m\.safetensors") as caught:
        adding.add(file, Wanted(tokenizer=tmp_path / "tokenizer"), tmp_path / "home", known)
    assert "unet is not whole" in str(caught.value)
    assert bases.names(tmp_path / "home") == bases.names()


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("m.ckpt", b"\x80\x02}q\x00.", "a pickle"), ("m.safetensors", b"PK\x03\x04" + b"0" * 40, "a pickle"),
        ("m.safetensors", b"\x80\x04\x95" + b"0" * 40, "a pickle"), ("m.safetensors", b"", "not a safetensors"),
        ("m.safetensors", struct.pack("<Q", 2**62) + b"{" + b"0" * 9, "header is longer"),
        ("m.safetensors", struct.pack("<Q", 999) + b"{}", "ends within its header"),
        ("m.safetensors", struct.pack("<Q", 4) + b"{{{{", "not JSON"),
        ("m.safetensors", struct.pack("<Q", 14) + b'{"a":1,"a":2} ', "names a key twice"),
        ("m.safetensors", struct.pack("<Q", 7) + b'{"a":1}', "not described as a tensor"),
        ("m.safetensors", struct.pack("<Q", 2) + b"{}later", "bytes follow"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_before_any_library_sees_them(
    tmp_path: Path, name: str, data: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "convert", lambda *_: pytest.fail("it was handed on"))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Invalid, match=why):
        adding.add(tmp_path / name, Wanted(), tmp_path / "home")


def test_without_a_vocabulary_it_says_what_to_do(tmp_path: Path) -> None:
    pipe = pipeline("sd1", tmp_path)
    known = layout(pipe, "sd1", tmp_path / "layouts")
    file = single(pipe, tmp_path / "m.safetensors")
    with pytest.raises(Invalid, match="vocabulary is not on this machine") as caught:
        adding.add(file, Wanted(), tmp_path / "home", known)
    assert "--tokenizer FOLDER" in caught.value.hint
    assert "open_clip_torch" in caught.value.hint
    pipe.save_pretrained(tmp_path / "folder")
    adding.add(tmp_path / "folder", Wanted(), tmp_path / "home")  # a base that has it…
    assert adding.add(file, Wanted(), tmp_path / "home", known).name == "m"  # …is enough for the next


def test_clips_own_vocabulary_file_is_unpacked_in_its_order(tmp_path: Path) -> None:
    words = unpacked("version\ni n\nt h\nth e</w>\nunused x", merges=3)
    assert words.merges == ("i n", "t h", "th e</w>")
    assert len(words.tokens) == 256 + 256 + 3 + 2
    assert [words.tokens[t] for t in ("!", "~", "¡", "!</w>", "in", "the</w>", "<|endoftext|>")] == [
        0, 93, 94, 256, 512, 514, 516,
    ]  # fmt: skip
    write_words(tmp_path / "t", words, "!")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "t", local_files_only=True)
    assert tokenizer("the in", add_special_tokens=False).input_ids == [514, words.tokens["i"], words.tokens["n</w>"]]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 515, 516)
    assert tokenizer.model_max_length == 77
    assert find_words(517, tmp_path / "t", ()) == words


def test_a_tokenizer_of_another_size_is_not_taken(tmp_path: Path) -> None:
    write_words(tmp_path / "t", Words({"a": 0}, ()), "a")
    with pytest.raises(Invalid, match="no CLIP vocabulary of 49,408"):
        find_words(49_408, tmp_path / "t", ())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pipeline("sd1", tmp_path).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        ("model_index.json", "there is no model_index.json"), ("unet/config.json", "lacks unet/config.json"),
        ("vae/diffusion_pytorch_model.safetensors", "lacks vae/diffusion"), ("tokenizer", "lacks tokenizer"),
        ("scheduler/scheduler_config.json", "lacks scheduler/"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_whole_is_refused_naming_what_it_lacks(model: Path, lost: str, why: str) -> None:
    import shutil

    shutil.rmtree(model / lost) if (model / lost).is_dir() else (model / lost).unlink()
    with pytest.raises(Invalid, match=why):
        adding.add(model, Wanted(), model.parent / "home")


def test_a_folder_of_half_precision_and_one_of_pickles(model: Path) -> None:
    unet = model / "unet" / "diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    base = adding.add(model, Wanted(name="half"), model.parent / "home")
    Resident(base, torch.device("cpu"), torch.float32)
    (model / "unet" / "diffusion_pytorch_model.fp16.safetensors").rename(model / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(Invalid, match="as a pickle alone"):
        adding.add(model, Wanted(name="pickled"), model.parent / "home")


def test_another_pipeline_and_an_inpainting_folder_are_refused(model: Path) -> None:
    config = model / "unet" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 4', '"in_channels": 9'))
    with pytest.raises(Invalid, match="9 channels"):
        adding.add(model, Wanted(), model.parent / "home")
    index = model / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxFillPipeline"))
    with pytest.raises(Invalid, match="FluxFillPipeline"):
        adding.add(model, Wanted(), model.parent / "home")


def test_the_disk_is_looked_at_first(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "MARGIN", 10**18)
    with pytest.raises(NoRoom, match="is free"):
        adding.add(model, Wanted(), model.parent / "home")
    assert not (model.parent / "home").exists()


def test_memory_is_told_from_the_files_and_a_base_that_cannot_fit_is_not_loaded(model: Path) -> None:
    base = adding.add(model, Wanted(), model.parent / "home")
    pipe = pipeline("sd1", model.parent)
    counts = [sum(p.numel() for p in module.parameters()) for module in (pipe.unet, pipe.vae, pipe.text_encoder)]
    picture = base.size.native**2 * 8 * 12
    assert memory.need(base, gpu=False).bare == sum(counts) * 4 + picture
    assert memory.need(base, gpu=True).bare == sum(counts) * 2 + counts[1] * 2 + picture
    assert memory.need(base, gpu=False).loras == counts[0] * 4
    memory.check_fits(base, False, memory.need(base, False).bare)
    with pytest.raises(BaseTooLarge, match="GB is free") as caught:
        memory.check_fits(base, False, memory.need(base, False).bare - 1)
    assert "smaller base" in caught.value.hint


def test_the_names_here_are_the_original_ones() -> None:
    """Of SDXL's SGM and SD 1's LDM code, as any checkpoint lists them."""
    pipe_keys = unet_names({
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight": torch.zeros(1),
        "up_blocks.0.upsamplers.0.conv.weight": torch.zeros(1), "up_blocks.0.attentions.1.norm.weight": torch.zeros(1),
    })  # fmt: skip
    assert list(pipe_keys) == [
        "input_blocks.3.1.transformer_blocks.0.attn1.to_q.weight", "output_blocks.1.2.conv.weight",
        "output_blocks.1.1.norm.weight",
    ]  # fmt: skip
    assert TOKENS == 514


@pytest.mark.parametrize("sha", ["/../../../..", "", "main", "A" * 40])
def test_a_hub_that_names_no_commit_is_not_followed(sha: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit becomes a part of a path, which is removed at the end."""
    import huggingface_hub

    info = SimpleNamespace(card_data={}, siblings=[], sha=sha)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    with pytest.raises(Invalid, match="names no commit"):
        hub.ask("owner/name")


@pytest.mark.parametrize("where", ["../../../elsewhere.bin", "model-00002-of-00002.safetensors"])
def test_an_index_names_the_files_beside_it_and_no_others(tiny_home: Path, tmp_path: Path, where: str) -> None:
    home = tmp_path
    model = home / "model"
    shutil.copytree(tiny_home / "bases" / "tiny-sd", model)
    part = model / "text_encoder"
    (part / "model.safetensors").rename(part / "model-00001-of-00001.safetensors")
    index = part / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    assert adding.add(model, Wanted(name="whole"), home).name == "whole"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors", "b": where}}))
    with pytest.raises(Invalid, match="does not name exactly"):
        adding.add(model, Wanted(name="other"), home)
    assert not (home / "bases" / "other").exists()

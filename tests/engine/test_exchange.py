"""engine/exchange.py and the two dialects of write.py: what goes out comes back, and diffusers draws the same with it.

What a file says is read here with `safetensors` and by the conventions themselves, never by our own reader.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.numpy import load, save
from safetensors.torch import load_file

from engine import bases, exchange
from engine.catalog import Catalog, LoraCard
from engine.errors import Invalid, NameTaken, WrongBase
from engine.exchange import Wish
from engine.lora.blend import blend, deltas
from engine.lora.changes import Factors
from engine.lora.kinds import MAX_RANK
from engine.lora.read import read
from engine.lora.report import triggers
from engine.lora.write import dotted, write
from engine.plans import LoraRef, LoraStack
from tests.tiny import tiny_sd, tiny_sdxl

PATHS = ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", "mid_block.attentions.0.proj_in", "conv_in")
TRAINED = {  # what kohya's tools write of a training: the person's folders and captions among it
    "ss_output_name": "Neon Night", "ss_base_model_version": "sd_v1", "ss_steps": "1200", "ss_num_train_images": "20",
    "ss_dataset_dirs": json.dumps({"10_private folder": {"n_repeats": 10, "img_count": 20}}),
    "ss_tag_frequency": json.dumps({"10_private folder": {"nghtx": 20, "my aunt Ada": 3, "street": 12}}),
    "ss_training_comment": "for aunt Ada", "modelspec.license": "CC-BY-4.0", "modelspec.description": "neon streets",
}  # fmt: skip
SIDECAR = {
    "description": "streets at night", "sd version": "SD1", "activation text": "nghtx, wet asphalt",
    "negative text": "", "preferred weight": 0.7, "notes": "by hand",
}  # fmt: skip


def factors(rank: int, alpha: float, wide: int = 16, high: int = 8, kernel: tuple[int, ...] = ()) -> Factors:
    rng = np.random.default_rng(rank + wide)
    down = rng.normal(size=(rank, wide, *kernel)).astype("f2").astype("f4")
    up = rng.normal(size=(high, rank, *(1 for _ in kernel))).astype("f2").astype("f4")
    return Factors(down, up, alpha)


def layers() -> dict[str, Factors]:
    """Two ranks, an alpha that is not its rank, a convolution."""
    return {PATHS[0]: factors(4, 4.0), PATHS[1]: factors(4, 1.0), PATHS[2]: factors(2, 2.0, kernel=(3, 3))}


@cache
def trained() -> bytes:
    """`safetensors` writes metadata in another order each time."""
    return a_file(TRAINED)


def a_file(metadata: Mapping[str, str]) -> bytes:
    """As kohya's tools write it."""
    tensors: dict[str, Any] = {}
    for path, one in layers().items():
        key = "lora_unet_" + path.replace(".", "_")
        tensors[f"{key}.lora_down.weight"] = one.down.astype("f2")
        tensors[f"{key}.lora_up.weight"] = one.up.astype("f2")
        tensors[f"{key}.alpha"] = np.array(one.alpha, "f4")
    return save(tensors, dict(metadata))


def said_by(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two bases that read texts of 16 and of 32 values."""
    for name, family, width in (("small", "sd", 16), ("large", "sdxl", 32)):
        folder = tmp_path / "bases" / name
        (folder / "unet").mkdir(parents=True)
        toml = 'title = "{0}"\nfamily = "{1}"\nlicence = "MIT"\ncommercial = true\n[size]\nnative = 64\nmultiple = 8\n'
        more = 'min = 64\nmax = 64\n[defaults]\nsteps = 1\nguidance = 1.0\nsampler = "ddim"\n'
        (folder / "base.toml").write_text(toml.format(name, family) + more)
        (folder / "unet" / "config.json").write_text(json.dumps({"cross_attention_dim": width}))
    return tmp_path


@pytest.fixture
def catalog(home: Path) -> Catalog:
    return Catalog(home / "shipped", home / "loras")


def brought(catalog: Catalog, home: Path, data: bytes, sidecar: bytes | None = None, **wish: Any) -> LoraCard:
    arrival = exchange.arrived(data, "Neon Night.safetensors", sidecar, None, Wish(**wish))
    return exchange.take_in(arrival, exchange.base_for(arrival, bases.find("small", home), home), catalog)


# In


def test_a_file_comes_in_byte_for_byte_with_what_it_says_of_itself(catalog: Catalog, home: Path) -> None:
    card = brought(catalog, home, trained())
    assert (card.folder / "weights.safetensors").read_bytes() == trained()
    assert (card.name, card.title, card.trigger, card.base) == ("neon-night", "Neon Night", "nghtx", "small")
    assert (card.licence, card.summary, card.steps) == ("CC-BY-4.0", "neon streets", 1200)
    assert not card.commercial  # that is for a person to say, and not for a file
    assert catalog.get("neon night") == card


def test_a_side_car_goes_before_the_file_and_the_person_before_both(catalog: Catalog, home: Path) -> None:
    sidecar = json.dumps(SIDECAR).encode()
    card = brought(catalog, home, trained(), sidecar)
    assert (card.trigger, card.weight, card.summary) == ("nghtx, wet asphalt", 0.7, "streets at night")
    card = brought(catalog, home, trained(), sidecar, name="mine", trigger="zqx", kind="product", licence="secret")
    assert (card.trigger, card.kind, card.licence, card.commercial) == ("zqx", "product", "secret", False)


@pytest.mark.parametrize(
    ("said", "trigger"),
    [
        ({"modelspec.trigger_phrase": "pqx penguin"}, "pqx penguin"),
        ({"trained_words": '["abc", "def"]'}, "abc, def"),
        ({"ss_tag_frequency": '{"1_zqx": {"zqx": 1}}'}, "zqx"),
        ({"ss_tag_frequency": '{"a": {"x": 3, "y": 9}, "b": {"x": 8, "y": 1}}', "ss_num_train_images": "11"}, "x"),
        ({"ss_tag_frequency": '{"a": {"x": 3, "y": 4}}', "ss_num_train_images": "11"}, ""),
        ({"ss_tag_frequency": '{"a": {"x": 4, "y": 4}}'}, ""),
        ({"ss_tag_frequency": '{"a": [1], "b": {"x": "9", "y": true}}'}, ""),
        ({"ss_tag_frequency": "[" * 100_000}, ""),
        ({}, ""),
    ],
)
def test_the_trigger_that_metadata_names(said: dict[str, str], trigger: str) -> None:
    assert ", ".join(triggers(said)) == trigger


@pytest.mark.parametrize(
    "sidecar",
    [
        b"", b"null", b"[]", b"\xff\xfe", b"[" * 200_000, b"{" + b" " * 1_000_000 + b"}",
        json.dumps({"activation text": {"a": 1}, "preferred weight": "1e999", "description": 7}).encode(),
        json.dumps({"activation text": "\x1b[2J", "preferred weight": 1e308, "description": "\u202e" * 9}).encode(),
        json.dumps({"activation text": "../../etc/passwd", "preview": "/etc/passwd", "name": "../x"}).encode(),
        b'{"preferred weight": NaN, "description": "\\ud800"}',
        json.dumps({"activation text": "w" * 900_000}).encode(),
    ],
)  # fmt: skip
def test_a_hostile_side_car_neither_stops_nor_steers_an_import(catalog: Catalog, home: Path, sidecar: bytes) -> None:
    card = brought(catalog, home, a_file({}), sidecar)
    assert (card.folder, card.weight) == (home / "loras" / "neon-night", 0.8)
    assert len(card.trigger) <= 64
    assert (card.trigger + card.summary).isprintable()
    assert sorted(path.name for path in (home / "loras").iterdir()) == [".staging", "neon-night"]


@pytest.mark.parametrize("title", ["../../etc", "..", "\x00", "", "C:\\x", "ü" * 300, ".staging", "a/b"])
def test_a_title_that_is_a_path_is_a_name_of_letters(catalog: Catalog, home: Path, title: str) -> None:
    card = brought(catalog, home, a_file({"ss_output_name": title}))
    assert card.folder.parent == home / "loras"
    assert card.folder.is_dir()


def test_a_name_that_is_taken_needs_replace_and_loses_nothing(catalog: Catalog, home: Path) -> None:
    first = brought(catalog, home, trained())
    with pytest.raises(NameTaken):
        brought(catalog, home, a_file({}), name=first.name)
    assert catalog.get(first.name) == first
    assert brought(catalog, home, a_file({}), name=first.name, replace=True).trigger == ""


def test_it_is_for_the_base_whose_text_is_as_wide(catalog: Catalog, home: Path) -> None:
    wide = {PATHS[0]: factors(4, 4.0, wide=32)}
    assert brought(catalog, home, write(wide, {"family": "sdxl"})).base == "large"
    with pytest.raises(WrongBase, match="32 wide and not 16"):
        brought(catalog, home, write(wide, {"family": "sdxl"}), name="x", base="small")
    with pytest.raises(WrongBase, match="made for SDXL"):
        brought(catalog, home, write({PATHS[0]: factors(4, 4.0, wide=2048)}, {"family": "sdxl"}), name="x")
    assert [card.name for card in catalog.list()] == ["neon-night"]


# Out


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_what_goes_out_comes_back_bit_for_bit(catalog: Catalog, home: Path, dialect: Any) -> None:
    card = brought(catalog, home, trained())
    written, _ = exchange.exported(card, trained(), dialect)
    again = brought(catalog, home, written, name="again")
    assert (again.trigger, again.kind, again.weight, again.licence) == (card.trigger, "style", 0.8, "CC-BY-4.0")
    assert (again.title, again.base, again.steps, again.created) == (card.title, card.base, card.steps, card.created)
    back, _ = exchange.exported(again, written, "kohya")
    found, wanted = load(back), load(trained())
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].tobytes() == tensor.tobytes()


def test_a_value_that_fp16_would_round_goes_out_whole(catalog: Catalog, home: Path) -> None:
    fine = Factors(np.full((2, 16), 0.1, "f4"), np.full((8, 2), 0.5, "f4"), 2.0)
    data = write({PATHS[0]: fine}, {"family": "sd"}, exact=True)
    card = brought(catalog, home, data)
    tensors = load(exchange.exported(card, data, "diffusers")[0])
    assert sorted((key.rsplit(".", 2)[1], str(one.dtype)) for key, one in tensors.items()) == [
        ("lora_A", "float32"),
        ("lora_B", "float16"),
    ]


def test_the_metadata_that_other_programs_look_for(catalog: Catalog, home: Path) -> None:
    card = brought(catalog, home, trained(), json.dumps(SIDECAR).encode())
    written, sidecar = exchange.exported(card, trained())
    said = said_by(written)
    minimum = ("ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha")
    assert [said[key] for key in minimum] == ["False", "sd_v1", "networks.lora", "Dynamic", "Dynamic"]
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (said["modelspec.title"], said["modelspec.trigger_phrase"]) == ("Neon Night", "nghtx, wet asphalt")
    length = int.from_bytes(written[:8], "little")
    assert said["modelspec.hash_sha256"] == "0x" + hashlib.sha256(written[8 + length :]).hexdigest()
    assert said["ss_training_comment"] == "for aunt Ada"
    assert "lora_adapter_metadata" not in said
    beside = json.loads(sidecar)
    assert (beside["activation text"], beside["preferred weight"], beside["sd version"]) == (
        "nghtx, wet asphalt", 0.7, "SD1",
    )  # fmt: skip


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_scrubbed_nothing_of_captions_and_folders_is_left(catalog: Catalog, home: Path, dialect: Any) -> None:
    card = brought(catalog, home, trained())
    written, _ = exchange.exported(card, trained(), dialect, scrub=True)
    said = said_by(written)
    assert not any(word in json.dumps(said) for word in ("Ada", "private", "street,", "asphalt"))
    assert not {"ss_tag_frequency", "ss_dataset_dirs", "ss_training_comment"} & said.keys()
    assert (said["ss_network_module"], said["modelspec.trigger_phrase"]) == ("networks.lora", "nghtx")


def test_metadata_that_no_reader_takes_is_refused_and_goes_out_scrubbed(
    catalog: Catalog, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_HEADER", 9_000)
    data = a_file({"ss_datasets": "x" * 9_000})
    card = brought(catalog, home, data)
    with pytest.raises(Invalid, match="longer than other programs read"):
        exchange.exported(card, data)
    read(exchange.exported(card, data, scrub=True)[0], "x")


@pytest.mark.parametrize("maker", [tiny_sd, tiny_sdxl])
def test_every_module_of_a_unet_has_its_path_back(maker: Any, tmp_path: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(maker(tmp_path) / "unet")
    weighted = [name for name, module in unet.named_modules() if hasattr(module, "weight") and "norm" not in name]
    assert len(weighted) > 50
    assert [dotted(name.replace(".", "_")) for name in weighted] == weighted
    with pytest.raises(ValueError, match="no module of a UNet"):
        dotted("text_model_encoder_layers_0_mlp_fc1")


PIPELINES = {"sd": (tiny_sd, StableDiffusionPipeline), "sdxl": (tiny_sdxl, StableDiffusionXLPipeline)}


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_diffusers_draws_the_same(family: str, dialect: Any, catalog: Catalog, home: Path) -> None:
    """Ranks differ and are not α, convolutions too: by hand W + (α/r) B A in every layer is what it has to draw."""
    distance, change = off(family, dialect, catalog, home, (2.0, 2.0))
    assert distance < 2e-4 < 0.05 < change


@pytest.mark.filterwarnings("ignore:The following alpha_pattern")
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_alphas_that_differ_are_drawn_rightly_by_diffusers_in_its_own_dialect_alone(
    family: str, catalog: Catalog, home: Path
) -> None:
    """In kohya's, 0.42.1 drops the alphas of attention layers that differ (get_peft_kwargs); `export` says so."""
    assert off(family, "diffusers", catalog, home, (1.0, 4.0))[0] < 2e-4
    assert off(family, "kohya", catalog, home, (1.0, 4.0))[0] > 1e-3


def off(family: str, dialect: Any, catalog: Catalog, home: Path, alphas: tuple[float, float]) -> tuple[float, float]:
    """How far diffusers' picture with our file is from that of weights changed by hand; and that from the base's."""
    maker, kind = PIPELINES[family]
    folder = maker(home)
    fresh = lambda: kind.from_pretrained(folder, **({"add_watermarker": False} if family == "sdxl" else {}))  # noqa: E731
    pipe, learned = fresh(), {}
    rng = np.random.default_rng(0)
    for path, module in pipe.unet.named_modules():
        if path.endswith(("to_q", "to_k", "to_out.0", "proj_in", "conv1")) and hasattr(module, "weight"):
            (out, *wide), rank = module.weight.shape, 3 if path.endswith("to_q") else 4
            down = rng.normal(0, 0.2, (rank, *wide)).astype("f2").astype("f4")
            up = rng.normal(0, 0.2, (out, rank, *(1 for _ in wide[1:]))).astype("f2").astype("f4")
            learned[path] = Factors(down, up, alphas[path.endswith("to_k")])
            change = (learned[path].alpha / rank) * torch.from_numpy(up.reshape(out, rank) @ down.reshape(rank, -1))
            module.weight.data += change.reshape(module.weight.shape)
    wanted = drawn(pipe)
    data = write(learned, {"family": family})
    card = brought(catalog, home, data, base=folder.name, replace=True)
    (home / "x.safetensors").write_bytes(exchange.exported(card, data, dialect)[0])
    pipe, alone = fresh(), drawn(fresh())
    pipe.load_lora_weights(home, weight_name="x.safetensors")
    return float(np.abs(drawn(pipe) - wanted).max()), float(np.abs(alone - wanted).max())


def drawn(pipe: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    seed = torch.Generator().manual_seed(0)
    made = pipe("a cat", num_inference_steps=2, width=32, height=32, generator=seed, output_type="np")
    return np.asarray(made.images)


def test_alphas_beside_diffusers_table_are_what_diffusers_refuses(home: Path) -> None:
    """Why one file cannot have both."""
    pipe = StableDiffusionPipeline.from_pretrained(tiny_sd(home))
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    one = {path: factors(4, 2.0, *reversed(pipe.unet.get_submodule(path).weight.shape))}
    table = said_by(write(one, {"family": "sd"}, "diffusers"))["lora_adapter_metadata"]
    file = home / "both.safetensors"
    file.write_bytes(save(load(write(one, {"family": "sd"})), {"format": "pt", "lora_adapter_metadata": table}))
    assert load_file(file)
    with pytest.raises(ValueError, match="cannot be specified"):
        pipe.load_lora_weights(home, weight_name=file.name)


# Several into one


def test_a_merge_is_the_sum_of_the_stack() -> None:
    """Against ΔW = Σ w (α/r) B A in float64, and bit for bit against what a stack is drawn with."""
    one, two = layers(), {PATHS[0]: factors(3, 1.5), "up_blocks.0.attentions.0.proj_out": factors(2, 2.0)}
    whole = exchange.merged([(one, 0.8), (two, -0.3)])
    assert {path: f.rank for path, f in whole.items()} == {
        PATHS[0]: 7, PATHS[1]: 4, PATHS[2]: 2, "up_blocks.0.attentions.0.proj_out": 2,
    }  # fmt: skip
    for path, merged in whole.items():
        wanted = sum(
            w * f[path].alpha / f[path].rank * flat(f[path].up) @ flat(f[path].down)
            for f, w in ((one, 0.8), (two, -0.3))
            if path in f
        )
        np.testing.assert_allclose(flat(merged.up) @ flat(merged.down), wanted, rtol=1e-6, atol=1e-6)
    read_back = read(write(whole, {"family": "sd"}, exact=True), "x")
    files = [read(write(f, {"family": "sd"}), "x") for f in (one, two)]
    stack = blend([(deltas(files[0]), 0.8), (deltas(files[1]), -0.3)])
    alone = blend([(deltas(read_back), 1.0)])
    assert stack.keys() == alone.keys()
    for name, delta in stack.items():
        assert torch.equal(delta.down, alone[name].down)
        assert torch.equal(delta.up, alone[name].up)


def flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(values.shape[0], -1).astype(np.float64)


def test_ranks_that_come_to_too_much_are_said_to() -> None:
    big = {PATHS[0]: factors(MAX_RANK - 10, 1.0)}
    with pytest.raises(Invalid, match=f"come to {MAX_RANK + 6} together, and {MAX_RANK} is the most"):
        exchange.merged([(big, 1.0), ({PATHS[0]: factors(16, 1.0)}, 1.0)])


def test_a_merged_stack_is_a_lora_of_the_catalog(catalog: Catalog, home: Path) -> None:
    for name, kind, trigger in (("a", "character", "aaa"), ("b", "style", "bbb")):
        brought(catalog, home, trained(), name=name, kind=kind, trigger=trigger)
    stack = LoraStack((catalog.ref("a", 0.5), catalog.ref("b", 1.5)))
    card, _ = exchange.merge(stack, "both", catalog)
    assert (card.trigger, card.kind, card.rank, card.weight) == ("bbb aaa", "character", 8, 1.0)
    catalog.weights(LoraRef("both", card.sha256))
    with pytest.raises(NameTaken):
        exchange.merge(stack, "both", catalog)
    with pytest.raises(Invalid, match="two LoRAs"):
        exchange.merge(LoraStack((catalog.ref("a"),)), "c", catalog)
    brought(catalog, home, write({PATHS[0]: factors(4, 4.0, wide=32)}, {"family": "sdxl"}), name="wide")
    with pytest.raises(WrongBase):
        exchange.merge(LoraStack((catalog.ref("a"), catalog.ref("wide"))), "c", catalog)


def test_a_file_that_has_those_names_already_keeps_its_tensors_whatever_they_are(catalog: Catalog, home: Path) -> None:
    fine = {PATHS[0]: Factors(np.full((2, 16), 0.1, "f4"), np.full((8, 2), 0.5, "f4"), 2.0)}
    for dialect in ("kohya", "diffusers"):
        data = write(fine, {"family": "sd"}, dialect, exact=True)
        card = brought(catalog, home, data, name=dialect)
        written, _ = exchange.exported(card, data, dialect, scrub=True)
        ends = [8 + int.from_bytes(one[:8], "little") for one in (data, written)]
        assert data[ends[0] :] == written[ends[1] :]
        table = ("lora_adapter_metadata" in said_by(data), "lora_adapter_metadata" in said_by(written))
        assert table == ((dialect == "diffusers"),) * 2


def test_a_class_word_comes_back_as_one_with_the_side_car_beside_and_without(catalog: Catalog, home: Path) -> None:
    said = {"title": "pip", "family": "sd", "trigger": "pqx", "word": "penguin", "kind": "character"}
    card = brought(catalog, home, write({PATHS[0]: factors(4, 4.0)}, said))
    written, sidecar = exchange.exported(card, (card.folder / "weights.safetensors").read_bytes())
    assert json.loads(sidecar)["activation text"] == "pqx penguin"
    for number, beside in enumerate((sidecar, None)):
        again = brought(catalog, home, written, beside, name=f"pip-{number}")
        assert (again.trigger, again.word, again.kind) == ("pqx", "penguin", "character")

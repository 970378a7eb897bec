"""engine/lora/read.py and write.py: what is written is read back, what is malformed is refused with its reason."""

import hashlib
import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadLoraFile
from engine.header import MAX_TENSORS
from engine.lora.changes import Factors
from engine.lora.container import MAX_HEADER
from engine.lora.read import read
from engine.lora.write import write

PATH = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = PATH.replace(".", "_")
KEY = f"lora_unet_{FLAT}"
FACTS = {"family": "sd", "title": "crab", "trigger": "zqx", "base": "pocket", "kind": "subject", "steps": "240"}


def factors(rank: int = 4, wide: int = 6, high: int = 8, alpha: float = 4.0, seed: int = 0) -> Factors:
    rng = np.random.default_rng(seed)
    down, up = (rng.normal(size=shape).astype(np.float16) for shape in ((rank, wide), (high, rank)))
    return Factors(down.astype(np.float32), up.astype(np.float32), alpha)


def packed(tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None, tail: bytes = b"") -> bytes:
    """A safetensors file of arrays, as any other program would write it."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    body = b""
    for key, tensor in tensors.items():
        array = np.asarray(tensor)
        dtype = {"e": "F16", "f": "F32", "H": "BF16", "d": "F64", "l": "I64"}[array.dtype.char]
        header[key] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + array.nbytes],
        }
        body += array.tobytes()
    return framed(json.dumps(header), body + tail)


def framed(header: str, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + body


def pair(key: str = KEY, rank: int = 2) -> dict[str, Any]:
    return {
        f"{key}.lora_down.weight": np.ones((rank, 3), np.float32),
        f"{key}.lora_up.weight": np.ones((5, rank), np.float32),
    }


def reason(data: bytes) -> str:
    with pytest.raises(BadLoraFile) as caught:
        read(data, "given.safetensors")
    assert caught.value.file == "given.safetensors"
    return caught.value.why


def test_what_is_written_is_read_back_with_every_value_and_alpha() -> None:
    layers = {PATH: factors(alpha=0.1), "mid_block.attentions.0.proj_in": factors(rank=8, alpha=8.0, seed=1)}
    file = read(write(layers, FACTS), "crab")
    assert set(file.layers) == {path.replace(".", "_") for path in layers}
    for path, given_factors in layers.items():
        found = file.layers[path.replace(".", "_")]
        np.testing.assert_array_equal(found.down, given_factors.down)
        np.testing.assert_array_equal(found.up, given_factors.up)
        assert found.alpha == pytest.approx(given_factors.alpha)
    assert file.rank == 8


def test_the_same_layers_in_any_order_give_the_same_bytes() -> None:
    layers = {"b.c": factors(), "a.c": factors(seed=1)}
    swapped = dict(reversed(layers.items()))
    first, second = write(layers, FACTS), write(swapped, dict(reversed(FACTS.items())))
    assert first == second
    assert read(first, "x").sha256 == hashlib.sha256(first).hexdigest()


def test_a_written_file_tells_other_programs_what_it_is() -> None:
    data = write({PATH: factors()}, FACTS | {"family": "sdxl"})
    said = read(data, "x").metadata
    assert said["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert said["ss_base_model_version"].startswith("sdxl_")
    assert said["modelspec.trigger_phrase"] == "zqx"
    assert (said["ss_network_module"], said["ss_network_dim"], said["ss_network_alpha"]) == ("networks.lora", "4", "4")
    assert json.loads(said["atelier"])["base"] == "pocket"
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert said["modelspec.hash_sha256"] == f"0x{hashlib.sha256(body).hexdigest()}"


def test_ranks_that_differ_are_said_to_be_dynamic() -> None:
    said = read(write({"a": factors(rank=4), "b": factors(rank=8)}, FACTS), "x").metadata
    assert said["ss_network_dim"] == "Dynamic"


def test_a_written_file_is_one_that_the_safetensors_library_reads() -> None:
    numpy_loader = pytest.importorskip("safetensors.numpy")
    tensors = numpy_loader.load(write({PATH: factors()}, FACTS))
    assert tensors[f"{KEY}.lora_down.weight"].dtype == np.float16
    assert float(tensors[f"{KEY}.alpha"]) == 4.0


def test_a_value_that_half_precision_cannot_hold_is_never_written() -> None:
    huge = Factors(np.full((2, 3), 1e6, np.float32), np.ones((3, 2), np.float32), 2.0)
    with pytest.raises(ValueError, match="fp16"):
        write({PATH: huge}, FACTS)


def test_paths_that_look_alike_when_flat_are_never_written() -> None:
    with pytest.raises(ValueError, match="the same"):
        write({"a.b_c": factors(), "a_b.c": factors()}, FACTS)


def test_a_convolution_keeps_its_kernel() -> None:
    rng = np.random.default_rng(0)
    down, up = rng.normal(size=(4, 6, 3, 3)), rng.normal(size=(8, 4, 1, 1))
    conv = Factors(down.astype(np.float16).astype(np.float32), up.astype(np.float16).astype(np.float32), 4.0)
    assert read(write({"a": conv}, FACTS), "x").layers["a"].down.shape == (4, 6, 3, 3)


@pytest.mark.parametrize(("down", "up"), [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_peft_keys_and_kohya_keys_give_the_same_layers(down: str, up: str) -> None:
    kohya = pair()
    peft = dict(zip((f"unet.{PATH}.{down}.weight", f"unet.{PATH}.{up}.weight"), kohya.values(), strict=True))
    one, other = read(packed(kohya), "k").layers, read(packed(peft), "p").layers
    assert list(one) == list(other) == [FLAT]
    np.testing.assert_array_equal(one[FLAT].up, other[FLAT].up)


def test_a_missing_alpha_is_the_rank() -> None:
    assert read(packed(pair(rank=2)), "x").layers[FLAT].alpha == 2.0


@pytest.mark.parametrize("shape", [(), (1,)])
def test_an_alpha_is_read_as_a_scalar_or_as_one_number(shape: tuple[int, ...]) -> None:
    data = packed(pair() | {f"{KEY}.alpha": np.full(shape, 0.5, np.float16)})
    assert read(data, "x").layers[FLAT].alpha == 0.5


def test_diffusers_metadata_gives_alpha_to_peft_layers() -> None:
    tensors = {}
    for path in ("a.to_q", "b.to_k"):
        tensors[f"unet.{path}.lora_A.weight"] = np.ones((2, 3), np.float32)
        tensors[f"unet.{path}.lora_B.weight"] = np.ones((3, 2), np.float32)
    config = {"unet.r": 2, "unet.lora_alpha": 8, "unet.alpha_pattern": {"to_k": 1.5}}
    layers = read(packed(tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(config)}), "x").layers
    assert (layers["a_to_q"].alpha, layers["b_to_k"].alpha) == (8.0, 1.5)


def test_rslora_divides_alpha_by_the_root_of_the_rank() -> None:
    tensors = {"unet.a.to_q.lora_A.weight": np.ones((4, 3), np.float32), "unet.a.to_q.lora_B.weight": np.ones((3, 4))}
    config = {"unet.lora_alpha": 6, "unet.use_rslora": True}
    data = packed(
        {key: tensor.astype(np.float32) for key, tensor in tensors.items()},
        {"lora_adapter_metadata": json.dumps(config)},
    )
    np.testing.assert_allclose(read(data, "x").layers["a_to_q"].delta(), np.full((3, 3), 4 * 6 / 4**0.5))


@pytest.mark.parametrize("text", ["[]", "{", '{"unet.lora_alpha": "8"}', '{"unet.alpha_pattern": 3}', "[" * 100_000])
def test_diffusers_metadata_of_another_shape_is_refused(text: str) -> None:
    assert "lora_adapter_metadata" in reason(packed(pair(), {"lora_adapter_metadata": text}))


def test_bfloat16_is_read_exactly() -> None:
    values = np.array([[1.0, -2.5, 0.15625]], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    data = packed({f"{KEY}.lora_down.weight": upper, f"{KEY}.lora_up.weight": np.ones((2, 1), np.float16)})
    np.testing.assert_array_equal(read(data, "x").layers[FLAT].down, values)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (f"{KEY}.oft_blocks", "OFT"),
        (f"{KEY}.on_input", "IA³"),
        (f"{KEY}.ia3_l", "IA³"),
        (f"{KEY}.a1.weight", "GLoRA"),
        (f"{KEY}.set_weight", "whole weights"),
        (f"unet.{PATH}.lora_B.bias", "biases"),
        ("lora_unet_lllite_a.down.0.weight", "LLLite"),
        ("emb_params", "textual-inversion"),
        ("model.layers.0.weight", "not known"),
        ("lora_unet_.alpha", "not known"),
        (f"{KEY}.lora_C.weight", "not known"),
    ],
)
def test_a_key_that_is_not_read_refuses_the_file_by_name(key: str, word: str) -> None:
    assert word in reason(packed(pair() | {key: np.ones((2, 3), np.float32)}))


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"dora_scale": (1, 3)}, "nothing that it scales"),
        ({"lora_down.weight": (2, 3), "lora_up.weight": (5, 2), "dora_scale": (1, 4)}, "DoRA scale of shape"),
        ({"lora_down.weight": (2, 3), "lora_up.weight": (5, 2), "diff": (5, 3)}, "two ways"),
        ({"diff": (5,), "w_norm": (5,)}, "two ways"),
        ({"diff_b": (5, 1)}, "bias or a norm"),
        ({"hada_w1_a": (5, 2), "hada_w1_b": (2, 3), "hada_w2_a": (5, 2)}, "lacks its hada_w2_b"),
        ({"hada_w1_a": (5, 2), "hada_w1_b": (2, 3), "hada_w2_a": (4, 2), "hada_w2_b": (2, 3)}, "different shapes"),
        ({"hada_w1_a": (5, 2), "hada_w1_b": (3, 3), "hada_w2_a": (5, 2), "hada_w2_b": (2, 3)}, "ranks 2 and 3"),
        ({"lokr_w1": (2, 2), "lokr_w1_a": (2, 1), "lokr_w2": (2, 2)}, "whole and factored"),
        ({"lokr_w1": (2, 2)}, "lacks its lokr_w2_a"),
        ({"lokr_w1": (2, 2, 1, 1), "lokr_w2": (2, 2)}, "no matrix"),
        ({"lokr_w1": (4000, 1), "lokr_w2": (4000, 40)}, "are the most"),
        ({"lora_mid.weight": (2, 2, 3, 3)}, "lacks its down half"),
        ({"lora_down.weight": (2, 3, 1, 1), "lora_up.weight": (5, 2, 1, 1), "lora_mid.weight": (2, 3, 3, 3)}, "core"),
    ],
)
def test_parts_that_make_no_change_are_refused(parts: dict[str, tuple[int, ...]], word: str) -> None:
    assert word in reason(packed({f"{KEY}.{part}": np.ones(shape, np.float16) for part, shape in parts.items()}))


def test_a_layer_without_its_other_half_is_refused() -> None:
    assert "lacks its up half" in reason(packed({f"{KEY}.lora_down.weight": np.ones((2, 3), np.float32)}))
    assert "lacks its down half" in reason(packed({f"{KEY}.alpha": np.ones((), np.float32)}))
    assert "lacks its down half" in reason(packed({f"{KEY}.lora_up.weight": np.ones((2, 3), np.float32)}))


@pytest.mark.parametrize(
    ("down", "up", "word"),
    [
        ((2, 3), (5, 4), "ranks 2 and 4"),
        ((1_025, 3), (5, 1_025), "1,024 is the most"),
        ((2, 3), (5, 2, 1, 1), "shapes"),
        ((2, 3, 3, 3), (5, 2, 3, 3), "shapes"),
        ((6,), (6,), "shapes"),
        ((2, 3, 1, 1, 1), (5, 2), "impossible shape"),
        ((2, 65_537), (5, 2), "impossible shape"),
    ],
)
def test_shapes_that_make_no_product_are_refused(down: tuple[int, ...], up: tuple[int, ...], word: str) -> None:
    tensors = {f"{KEY}.lora_down.weight": np.ones(down, np.float16), f"{KEY}.lora_up.weight": np.ones(up, np.float16)}
    assert word in reason(packed(tensors))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["lora_down.weight", "alpha"])
def test_values_that_are_not_finite_are_refused(value: float, part: str) -> None:
    tensors = pair() | {f"{KEY}.alpha": np.ones((), np.float32)}
    tensors[f"{KEY}.{part}"] = np.full_like(tensors[f"{KEY}.{part}"], value)
    assert "not numbers" in reason(packed(tensors))


@pytest.mark.parametrize("part", ["lora_down.weight", "lora_up.weight", "alpha"])
def test_values_that_no_training_arrives_at_are_refused(part: str) -> None:
    tensors = pair() | {f"{KEY}.alpha": np.ones((), np.float32)}
    tensors = {key: tensor.astype(np.float32) for key, tensor in tensors.items()}
    tensors[f"{KEY}.{part}"] = np.full_like(tensors[f"{KEY}.{part}"], 1e30)
    assert "values beyond ±10,000" in reason(packed(tensors))


def test_alpha_zero_and_two_alphas_are_refused() -> None:
    assert "alpha 0" in reason(packed(pair() | {f"{KEY}.alpha": np.zeros((), np.float32)}))
    assert "more than one alpha" in reason(packed(pair() | {f"{KEY}.alpha": np.ones(2, np.float32)}))


def test_one_layer_under_two_names_is_refused() -> None:
    twice = pair() | {f"unet.{PATH}.lora_A.weight": np.ones((2, 3), np.float32)}
    assert "two tensors" in reason(packed(twice))


def test_double_precision_is_refused_by_its_name() -> None:
    assert "F64" in reason(packed({f"{KEY}.lora_down.weight": np.ones((2, 3), np.float64)}))


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_an_alpha_of_eight_bytes_is_read_and_a_tensor_of_them_is_not(dtype: type) -> None:
    data = packed(pair() | {f"{KEY}.alpha": np.array(3, dtype)})
    assert read(data, "x").layers[FLAT].alpha == 3.0
    assert "is of type" in reason(packed(pair() | {f"{KEY}.alpha": np.ones((2, 1), dtype)}))
    if dtype is np.float64:
        assert "not numbers" in reason(packed(pair() | {f"{KEY}.alpha": np.array(1e300)}))


def test_bytes_that_are_no_safetensors_file_are_refused() -> None:
    for data in (b"", b"x", b"PK\x03\x04" + b"\0" * 100, b"version https://git-lfs.github.com/spec/v1\n", b"\x80" * 64):
        assert "not a safetensors file" in reason(data)


def test_a_file_cut_anywhere_is_refused() -> None:
    data = write({PATH: factors()}, FACTS)
    for end in range(0, len(data), 37):
        reason(data[:end])
    assert "cut short" in reason(data[:-1])
    assert "bytes follow" in reason(data + b"\0")


def entry(start: int, end: int, shape: str = "[2]") -> str:
    return f'{{"dtype":"F16","shape":{shape},"data_offsets":[{start},{end}]}}'


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ("{" + "[" * 50_000, "not JSON"),
        ('{"a":NaN', "not JSON"),
        (f'{{"a":{entry(0, 4)},"a":{entry(0, 4)}}}', "a key twice"),
        (f'{{"a":{entry(0, 4)},"b":{entry(2, 6)}}}', "overlap"),
        (f'{{"a":{entry(0, 4)},"b":{entry(6, 10)}}}', "gap"),
        (f'{{"a":{entry(-4, 0)}}}', "overlap"),
        (f'{{"a":{entry(0, 8)}}}', "another size"),
        (f'{{"a":{entry(0, 0, "[0, 4]")}}}', "bytes follow"),
        (f'{{"a":{entry(0, 4, "[-1, -2]")}}}', "impossible shape"),
        (f'{{"a":{entry(0, 4, "[true, 2]")}}}', "whole numbers"),
        (f'{{"a":{entry(0, 4, "[2.0]")}}}', "whole numbers"),
        ('{"a":{"dtype":"F16","shape":3,"data_offsets":[0,4]}}', "not described"),
        ('{"a":{"dtype":"F16","shape":[2]}}', "not described"),
        ('{"a":{"dtype":["F16"],"shape":[2],"data_offsets":[0,4]}}', "not known"),
        ('{"a":7}', "not described"),
        ('{"__metadata__":[]}', "not a table"),
        ('{"__metadata__":{"a":1}}', "not text"),
    ],
)
def test_a_malformed_header_is_refused(header: str, word: str) -> None:
    assert word in reason(framed(header, b"\0" * 10))


def test_a_file_without_layers_is_refused() -> None:
    assert "no layers" in reason(framed('{"__metadata__":{"format":"pt"}}'))


def test_a_key_that_cannot_be_printed_is_refused_in_a_sentence_that_can() -> None:
    reason(framed('{"\\ud800\\n":' + entry(0, 4) + "}", b"\0" * 4)).encode()


def test_a_header_beyond_bounds_is_refused_before_it_is_parsed() -> None:
    assert "longer than" in reason(struct.pack("<Q", MAX_HEADER + 1) + b"{" + b" " * 100)
    assert "ends within" in reason(struct.pack("<Q", 1_000) + b"{}")


def test_too_many_tensors_are_refused() -> None:
    many = ",".join(f'"{n}":{entry(4 * n, 4 * n + 4)}' for n in range(MAX_TENSORS + 1))
    assert "is the most" in reason(framed(f"{{{many}}}"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_never_anything_else(data: st.DataObject) -> None:
    damaged = bytearray(write({PATH: factors(rank=1, wide=2, high=2)}, FACTS))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadLoraFile):
        assert read(bytes(damaged), "x").layers


def test_a_tensor_without_numbers_is_refused() -> None:
    assert "impossible shape" in reason(framed('{"a":{"dtype":"F16","shape":[0, 4],"data_offsets":[0,0]}}', b""))

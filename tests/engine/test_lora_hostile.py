"""Files made to harm: more than 500, and none is loaded, none runs, and the base stays as it is."""

import io
import itertools
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from engine.diffusion.rack import Rack
from engine.errors import BadLoraFile, WrongBase
from engine.header import MAX_TENSORS
from engine.lora.blend import deltas
from engine.lora.container import MAX_HEADER
from engine.lora.read import read, read_embedding
from engine.lora.report import inspect
from tests.engine.lora_zoo import KINDS, LYCORIS, Tiny, combinations, tiny, written

RAN: list[str] = []
DIALECT = "kohya, diffusers' names"
OPTIONAL = ("alpha", "dora_scale", "lora_mid.weight", "hada_t1", "hada_t2", "lokr_t2")  # what is left is whole


def run(word: str) -> None:
    RAN.append(word)


class Payload:
    """What a pickle runs when it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return run, ("ran",)


def pickles() -> Iterator[bytes]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        plain = pickle.dumps({"lora_unet_a.alpha": Payload()}, protocol)
        yield plain
        yield struct.pack("<Q", len(plain)) + plain  # a length as safetensors has it, and a pickle for its header
        yield struct.pack("<Q", len(plain) + 1) + b"{" + plain
        yield struct.pack("<Q", 2) + b"{}" + plain  # behind an empty header
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:  # as torch.save writes it
            archive.writestr("archive/data.pkl", plain)
        yield held.getvalue()
        entry = {"lora_unet_a.alpha": {"dtype": "PICKLE", "shape": [len(plain)], "data_offsets": [0, len(plain)]}}
        yield framed(entry, plain)
    held = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(2)}}, held)
    yield held.getvalue()


def framed(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def bombs() -> Iterator[bytes]:
    for length in (2**63, 2**64 - 1, 2**40, MAX_HEADER + 1):
        yield struct.pack("<Q", length) + b"{" + b" " * 64
    for opening in (b"[", b'{"a":', b'{"a":['):
        yield framed(b'{"x":' + opening * 20_000)
    for shape in ([2**31, 2**31], [0], [-1], [65_537, 1], [1] * 9, [2**63], [1.5], ["2"], [True]):
        yield framed({"lora_unet_a.diff": {"dtype": "F16", "shape": shape, "data_offsets": [0, 2]}}, b"\0\0")
    for ends in ([0, 2**62], [-2, 0], [2, 4], [4, 2], [0, 1], ["0", "2"], [0], None, [0, 2, 4]):
        yield framed({"lora_unet_a.diff": {"dtype": "F16", "shape": [1], "data_offsets": ends}}, b"\0\0")
    entry = '{"dtype":"F16","shape":[1],"data_offsets":[0,2]}'
    yield framed(f'{{"lora_unet_a.diff":{entry},"lora_unet_a.diff":{entry}}}'.encode(), b"\0\0")
    one = {"dtype": "F16", "shape": [1]}
    yield framed(
        {f"lora_unet_{i}.diff": one | {"data_offsets": [2 * i, 2 * i + 2]} for i in range(MAX_TENSORS + 1)},
        b"\0\0" * (MAX_TENSORS + 1),
    )


def swollen() -> Iterator[bytes]:
    """Small files that become enormous when they are multiplied out."""
    for w1, w2 in itertools.product((4_000, 60_000), (4_000, 60_000)):  # small factors, an enormous product
        parts = {"lokr_w1": np.ones((w1, 1), np.float16), "lokr_w2": np.ones((1, w2), np.float16)}
        yield save({f"lora_unet_conv_in.{part}": tensor for part, tensor in parts.items()})
        parts = {f"hada_w{n}_{x}": np.ones((w1, 1) if x == "a" else (1, w2), np.float16) for n in (1, 2) for x in "ab"}
        yield save({f"lora_unet_conv_in.{part}": tensor for part, tensor in parts.items()})
    for kernel in (8, 1_024):  # a core that is small, and what it is multiplied out to is not
        shapes = {"lora_down.weight": (1, 65_536, 1, 1), "lora_up.weight": (1, 1, 1, 1)}
        shapes |= {"lora_mid.weight": (1, 1, kernel, kernel)}
        yield save({f"lora_unet_conv_in.{part}": np.ones(shape, np.float16) for part, shape in shapes.items()})
        shapes = {"lokr_w1": (1, 1), "lokr_w2_a": (1, 65_536), "lokr_w2_b": (1_024, 1)}
        shapes |= {"lokr_t2": (1, 1_024, kernel, kernel)}
        yield save({f"lora_unet_conv_in.{part}": np.ones(shape, np.float16) for part, shape in shapes.items()})
    for alpha in ("1e300", "1" + "0" * 400):
        said = {"lora_adapter_metadata": f'{{"unet.lora_alpha": {alpha}}}'}
        parts = {"lora_A": np.ones((1, 4), np.float16), "lora_B": np.zeros((4, 1), np.float16)}
        yield save({f"unet.conv_in.{part}.weight": tensor for part, tensor in parts.items()}, said)
    for rank in (1_025, 2_000, 60_000):
        parts = {"down": np.ones((rank, 1), np.float16), "up": np.ones((1, rank), np.float16)}
        yield save({f"lora_unet_conv_in.lora_{part}.weight": tensor for part, tensor in parts.items()})


def broken(data: bytes) -> Iterator[bytes]:
    """A good file, cut, scratched and spoilt in its values and its parts."""
    for part in range(12):
        yield data[: len(data) * part // 12]
    yield data + b"\0"
    length = int.from_bytes(data[:8], "little")
    for at in range(8, 8 + length, max(length // 20, 1)):
        yield data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :]  # no letter of UTF-8 any more
    tensors = load(data)
    for key, tensor in list(tensors.items())[:8]:
        for value in (np.nan, np.inf, -np.inf):
            yield save(tensors | {key: np.full_like(tensor, value)})
        if not key.endswith(OPTIONAL) and len(tensors) > 1:
            left = {other: t for other, t in tensors.items() if other != key}
            if any(other.rpartition(".")[0].startswith(key.partition(".")[0]) for other in left):
                yield save(left)
        yield save(tensors | {key: tensor[None].repeat(2, 0)})


@pytest.fixture(scope="module")
def zoo() -> Tiny:
    return tiny("sd")


def hostile(zoo: Tiny) -> list[bytes]:
    files = [*pickles(), *bombs(), *swollen()]
    for kind in LYCORIS:
        files += broken(written(zoo, DIALECT, kind).data)
    other = tiny("sdxl")
    wide = [(d, kind) for family, d, kind in combinations() if family == "sdxl" and "linear" in KINDS[kind].on]
    files += [written(other, d, kind).data for d, kind in wide]  # of another base: it attends elsewhere, to wider texts
    return list(dict.fromkeys(files))


def test_none_of_500_hostile_files_is_loaded_or_run_and_the_base_is_untouched(zoo: Tiny) -> None:
    unet, *encoders = zoo.models.values()
    shelf = Rack(unet, tuple(encoders))
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    files = hostile(zoo)
    loaded: list[int] = []
    said: set[str] = set()
    for number, data in enumerate(files):
        try:
            shelf.check("given", "tiny", deltas(read(data, "given")))
            loaded.append(number)
        except (BadLoraFile, WrongBase) as refused:
            said.add(str(refused))
    assert loaded == []
    assert all(sentence and sentence.isprintable() for sentence in said)
    assert RAN == []
    assert len(files) >= 500
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


def test_inspecting_and_reading_as_an_embedding_run_nothing_and_survive_them_too() -> None:
    for data in (*pickles(), *bombs(), *swollen()):
        with pytest.raises(BadLoraFile):
            read_embedding(data, "given")
        with suppress(BadLoraFile):
            assert inspect(data, "given").what == "lora"  # a product that is large, and no base was named
    assert RAN == []


def test_the_pickles_of_this_test_would_run_if_anything_opened_them() -> None:
    pickle.loads(next(pickles()))
    assert RAN == ["ran"]
    RAN.clear()

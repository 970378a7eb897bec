"""ESRGAN-type files: told by keys and shapes, refused where they are hostile; and the nets are the formulas.

The formulas are said anew here, as functions of a file's tensors: after the papers and Real-ESRGAN's description, not
after our modules.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from engine import upscalers
from engine.companions.esrgan import Esrgan
from engine.errors import Invalid

State = dict[str, Tensor]


def rrdb_state(blocks: int = 2, width: int = 8, growth: int = 4, doublings: int = 2, fold: int = 1) -> State:
    """Random tensors under Real-ESRGAN's names."""
    torch.manual_seed(blocks + fold)
    shapes = {"conv_first": (width, 3 * fold * fold), "conv_body": (width, width), "conv_hr": (width, width)}
    shapes |= {f"conv_up{i}": (width, width) for i in range(1, doublings + 1)} | {"conv_last": (3, width)}
    for b in range(blocks):
        for r in (1, 2, 3):
            for c in range(1, 6):
                shapes[f"body.{b}.rdb{r}.conv{c}"] = (growth if c < 5 else width, width + (c - 1) * growth)
    return with_biases(shapes)


def with_biases(shapes: dict[str, tuple[int, int]]) -> State:
    state: State = {}
    for name, (after, before) in shapes.items():
        state[f"{name}.weight"] = torch.randn(after, before, 3, 3) / math.sqrt(9 * before)
        state[f"{name}.bias"] = torch.randn(after) / 10
    return state


def compact_state(convs: int = 3, width: int = 8, scale: int = 4) -> State:
    torch.manual_seed(convs)
    sizes = [(width, 3), *[(width, width)] * convs, (3 * scale * scale, width)]
    state = with_biases({f"body.{2 * i}": size for i, size in enumerate(sizes)})
    return state | {f"body.{2 * i + 1}.weight": torch.rand(width) for i in range(convs + 1)}


def old_names(state: State) -> State:
    """ESRGAN's first files: an nn.Sequential of convolution, trunk, [upsampling, convolution, activation]…, end."""
    doublings = sum(f"conv_up{i}.weight" in state for i in (1, 2, 3))
    blocks = len({key.split(".")[1] for key in state if key.startswith("body.")})
    plain = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
    plain |= {f"conv_up{i}": f"model.{3 * i}" for i in range(1, doublings + 1)}
    plain |= {"conv_hr": f"model.{3 * doublings + 2}", "conv_last": f"model.{3 * doublings + 4}"}
    made: State = {}
    for key, value in state.items():
        name, kind = key.rsplit(".", 1)
        if name.startswith("body."):
            _, block, dense, conv = name.split(".")
            made[f"model.1.sub.{block}.{dense.upper()}.{conv}.0.{kind}"] = value
        else:
            made[f"{plain[name]}.{kind}"] = value
    return made


def second_names(state: State) -> State:
    renamed = {"conv_body": "trunk_conv", "conv_hr": "HRconv", "conv_up1": "upconv1", "conv_up2": "upconv2"}
    made: State = {}
    for key, value in state.items():
        name, kind = key.rsplit(".", 1)
        if name.startswith("body."):
            name = name.replace("body.", "RRDB_trunk.").replace("rdb", "RDB")
        made[f"{renamed.get(name, name)}.{kind}"] = value
    return made


def conv(state: State, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def rrdb_formula(state: State, x: Tensor, doublings: int, fold: int) -> Tensor:
    """(1, 3, h, w) → (1, 3, s·h, s·w)."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // fold, fold, w // fold, fold).permute(0, 1, 3, 5, 2, 4).reshape(n, -1, h // fold, w // fold)
    first = y = conv(state, "conv_first", x)
    for block in range(sum(key.endswith("rdb1.conv1.weight") for key in state)):
        into = y
        for dense in (1, 2, 3):
            start, seen = y, [y]
            for i in range(1, 6):
                z = conv(state, f"body.{block}.rdb{dense}.conv{i}", torch.cat(seen, 1))
                seen.append(torch.where(z < 0, 0.2 * z, z) if i < 5 else z)
            y = seen[-1] * 0.2 + start
        y = y * 0.2 + into
    y = first + conv(state, "conv_body", y)
    for i in range(1, doublings + 1):
        y = F.leaky_relu(conv(state, f"conv_up{i}", y.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return conv(state, "conv_last", F.leaky_relu(conv(state, "conv_hr", y), 0.2))


def compact_formula(state: State, x: Tensor, convs: int, scale: int) -> Tensor:
    y = x
    for i in range(convs + 1):
        y = conv(state, f"body.{2 * i}", y)
        y = torch.where(y < 0, state[f"body.{2 * i + 1}.weight"].view(1, -1, 1, 1) * y, y)
    y = conv(state, f"body.{2 * convs + 2}", y)
    n, _, h, w = y.shape
    y = y.view(n, 3, scale, scale, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 3, h * scale, w * scale)
    return y + x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def saved(state: State, file: Path) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return file


def picture(height: int = 40, width: int = 28) -> Tensor:
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def in_bytes(made: Tensor) -> Tensor:
    return (made[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte()


def apart(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


CASES = [
    (rrdb_state(), 4, lambda s, x: rrdb_formula(s, x, 2, 1)),
    (rrdb_state(blocks=6), 4, lambda s, x: rrdb_formula(s, x, 2, 1)),
    (rrdb_state(fold=2), 2, lambda s, x: rrdb_formula(s, x, 2, 2)),
    (rrdb_state(doublings=1), 2, lambda s, x: rrdb_formula(s, x, 1, 1)),
    (compact_state(), 4, lambda s, x: compact_formula(s, x, 3, 4)),
    (compact_state(convs=5, scale=2), 2, lambda s, x: compact_formula(s, x, 5, 2)),
]
NAMED = ["x4", "6 blocks", "pixel-unshuffle", "x2", "compact", "compact x2"]


@pytest.mark.parametrize(("state", "scale", "formula"), CASES, ids=NAMED)
def test_a_net_is_its_formula_and_its_tiles_leave_no_seam(tmp_path: Path, state, scale: int, formula) -> None:
    net = Esrgan.load(saved(state, tmp_path / "net.safetensors"))
    pixels = picture()
    wanted = in_bytes(formula(state, pixels.permute(2, 0, 1)[None].float() / 255))
    assert net.scale == scale
    assert wanted.float().std() > 20  # a picture, not a flat colour
    whole, tiled = net(pixels), Esrgan(net.net, net.scale, tile=8)(pixels)
    assert whole.shape == (40 * scale, 28 * scale, 3)
    assert apart(whole, wanted) <= 1  # two orders of summing: a rounding may fall the other way
    assert apart(whole, tiled) <= 1
    assert (whole != tiled).float().mean() < 1e-3


@pytest.mark.parametrize("rename", [old_names, second_names])
def test_every_way_of_naming_the_layers_gives_the_same_net(tmp_path: Path, rename) -> None:
    ours, theirs = rrdb_state(), rename(rrdb_state())
    assert not ours.keys() & theirs.keys() - {
        "conv_first.weight",
        "conv_first.bias",
        "conv_last.weight",
        "conv_last.bias",
    }
    one, other = (Esrgan.load(saved(s, tmp_path / f"{i}.safetensors")) for i, s in enumerate((ours, theirs)))
    assert torch.equal(one(picture()), other(picture()))


def test_old_names_of_a_net_that_doubles_once(tmp_path: Path) -> None:
    state = rrdb_state(doublings=1)
    net = Esrgan.load(saved(old_names(state), tmp_path / "a.safetensors"))
    pixels = picture()
    assert apart(net(pixels), in_bytes(rrdb_formula(state, pixels.permute(2, 0, 1)[None].float() / 255, 1, 1))) <= 1


def test_the_progress_is_as_long_as_was_said(tmp_path: Path) -> None:
    for state in (rrdb_state(), rrdb_state(fold=2), compact_state()):
        net = Esrgan.load(saved(state, tmp_path / "a.safetensors"))
        small = Esrgan(net.net, net.scale, tile=16)
        assert sum(small.enlarged(picture(41, 27))) == small.tiles(27, 41)
        assert small(picture(41, 27)).shape == (41 * net.scale, 27 * net.scale, 3)


def test_the_real_sizes_are_told_from_their_shapes() -> None:
    def layout(**sizes: int) -> upscalers.Layout:
        return upscalers.Layout("RRDBNet", 64, sizes.pop("blocks"), 32, 2, **sizes)

    for known in (
        layout(blocks=23),  # RealESRGAN_x4plus
        layout(blocks=6),  # x4plus_anime_6B
        layout(blocks=23, unshuffle=2),  # x2plus
        upscalers.Layout("SRVGGNetCompact", 64, 32, shuffle=4),  # realesr-general-x4v3
        upscalers.Layout("SRVGGNetCompact", 64, 16, shuffle=4),  # realesr-animevideov3
    ):
        shapes = upscalers.expected(known)
        assert upscalers.recognized(shapes, "x")[0] == known
    count = sum(math.prod(shape) for shape in upscalers.expected(layout(blocks=23)).values())
    assert count == 16_697_987  # as is published of RealESRGAN_x4plus


def header_only(file: Path, header: dict, body: int = 0) -> Path:
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * body)
    return file


def nan(state: State) -> State:
    state["conv_hr.bias"][0] = float("nan")
    return state


def without(state: State, key: str) -> State:
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (nan(rrdb_state()), "not numbers"),
        (without(rrdb_state(), "conv_hr.bias"), "lacks conv_hr.bias"),
        (without(rrdb_state(), "body.1.rdb2.conv3.weight"), r"lacks body\.1\.rdb2\.conv3\.weight"),
        (rrdb_state() | {"extra": torch.zeros(1)}, "belongs to no upscaler"),
        (rrdb_state() | {"body.1.rdb1.conv1x1.weight": torch.zeros(4, 8, 1, 1)}, "belongs to no upscaler"),
        (rrdb_state() | {"conv_hr.weight": torch.zeros(8, 8, 5, 5)}, "fits its other layers"),
        (rrdb_state() | {"conv_first.weight": torch.zeros(8, 4, 3, 3)}, "reads 4 channels"),
        (rrdb_state() | {"conv_first.weight": torch.zeros(8)}, "no convolution"),
        (rrdb_state(width=256, blocks=1), "larger than any upscaler"),
        (rrdb_state(doublings=1, fold=2), "as large as it is"),
        (without(compact_state(), "body.1.weight"), "activations"),
        (compact_state() | {"body.8.weight": torch.zeros(7, 8, 3, 3)}, "7 channels"),
        ({"lora_unet_down.lora_up.weight": torch.zeros(4, 4)}, "lacks conv_first"),
        (old_names(rrdb_state()) | {"model.99.weight": torch.zeros(1)}, "upscaler"),
    ],
)
def test_what_is_no_such_net_is_refused_and_not_kept(tmp_path: Path, state: State, why: str) -> None:
    file = saved(state, tmp_path / "bad.safetensors")
    with pytest.raises(Invalid, match=why):
        upscalers.add(file, None, tmp_path / "home")
    assert not (tmp_path / "home" / "upscalers").exists()


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    whole = saved(rrdb_state(), tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    absurd = {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 4]}
    header_only(tmp_path / "huge.safetensors", {"conv_first.weight": absurd})
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04\x95" + b"\0" * 99)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    wide = saved({k: v.double() for k, v in rrdb_state().items()}, tmp_path / "wide.safetensors")
    for file in (*(tmp_path / f"{name}.safetensors" for name in ("cut", "huge", "pickle", "empty")), wide):
        with pytest.raises(Invalid):
            upscalers.read(file)
    with pytest.raises(Invalid, match="cannot be read"):
        upscalers.read(tmp_path / "none.safetensors")
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04" + b"\0" * 99)
    with pytest.raises(Invalid) as refused:
        upscalers.add(tmp_path / "a.pth", None, tmp_path)
    assert "pickle" in refused.value.message
    assert "docs/upscaling.md" in refused.value.hint


def test_a_file_is_kept_byte_for_byte_and_found_by_name(tmp_path: Path) -> None:
    file, home = saved(rrdb_state(), tmp_path / "4x Ultra.safetensors"), tmp_path / "home"
    entry = upscalers.add(file, None, home)
    assert (entry.name, entry.layout.scale) == ("4x-ultra", 4)
    assert entry.file.read_bytes() == file.read_bytes()
    (upscalers.folder(home) / "broken.safetensors").write_bytes(b"no")
    found, broken = upscalers.entries(home)
    assert ([one.name for one in found], len(broken)) == (["4x-ultra"], 1)
    for name in ("4x ultra", "lanczos", "--"):
        with pytest.raises(Invalid, match="--name"):
            upscalers.add(file, name, home)
    for name in ("other", "../home/upscalers/4x-ultra", ""):
        with pytest.raises(Invalid, match="none named"):
            upscalers.find(name, home)
    assert upscalers.read(entry.file).sha256 == upscalers.sha256_of("4x-ultra", home)
    assert np.array_equal(upscalers.read(entry.file).tensors["conv_hr.bias"], rrdb_state()["conv_hr.bias"].numpy())

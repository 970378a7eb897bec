"""The two nets that finish a picture: four times larger and crisp, and its objects without their ground."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.companions import matting, upscaler, weights
from engine.companions.matting import Matte, MatteNet, cut_out, guided, planes
from engine.companions.upscaler import Upscaler, UpscalerNet
from engine.companions.weights import NoWeights
from engine.pocket import cutting, upscaling
from engine.pocket.companions import mush, worn
from engine.pocket.pace import Pace, psnr

MOST = 3_000_000  # bytes
SIX = ((256, 256), (288, 224), (224, 288), (336, 192), (192, 336), (144, 432))  # height, width
SMALL_UPSCALER = {"widths": (16, 8, 8), "blocks": (1, 1, 1), "fine": 8}
SMALL_MATTE = {"widths": (8, 8, 8)}


def discs(n: int, side: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Orange discs on blue, (n, 3, side, side) in 0..1, and their masks (n, 1, side, side), a pixel soft."""
    u = torch.rand(n, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    line = (torch.arange(side) + 0.5) / side
    away = ((line - 0.4 - 0.2 * u[:, 0]) ** 2 + (line[:, None] - 0.4 - 0.2 * u[:, 1]) ** 2).sqrt()
    mask = ((0.2 + 0.1 * u[:, 2] - away) * side + 0.5).clamp(0, 1)[:, None]
    front, back = torch.tensor([0.9, 0.5, 0.1]).view(3, 1, 1), torch.tensor([0.1, 0.2, 0.7]).view(3, 1, 1)
    return mask * front + (1 - mask) * back, mask


def pixels(x: Tensor) -> Tensor:
    return (x * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def saved(folder: Path, part: str) -> Path:
    """A fresh net of the shipped size, saved."""
    torch.manual_seed(1)
    if part == "upscaler":
        weights.save(UpscalerNet(**upscaling.SIZES), upscaling.SIZES, {}, folder)
    else:
        weights.save(MatteNet(**cutting.SIZES), cutting.SIZES, {}, folder)
    return folder


@pytest.mark.parametrize("part", ["upscaler", "matting"])
def test_a_net_weighs_at_most_three_megabytes(tmp_path: Path, part: str) -> None:
    folder = saved(tmp_path / part, part)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MOST


def test_every_shape_comes_out_four_times_as_large(tmp_path: Path) -> None:
    weights.save(UpscalerNet(**SMALL_UPSCALER), SMALL_UPSCALER, {}, tmp_path)
    upscale = Upscaler.load(tmp_path)
    for height, width in (*SIX, (37, 50)):
        assert upscale(torch.zeros(1, height, width, 3, dtype=torch.uint8)).shape == (1, 4 * height, 4 * width, 3)


def test_every_shape_gets_a_mask_of_its_size(tmp_path: Path) -> None:
    weights.save(MatteNet(**SMALL_MATTE), SMALL_MATTE, {}, tmp_path)
    matte = Matte.load(tmp_path)
    for height, width in (*SIX, (37, 50)):
        mask = matte(torch.zeros(1, height, width, 3, dtype=torch.uint8))
        assert mask.shape == (1, height, width)
        assert mask.dtype == torch.float32


@pytest.mark.parametrize("part", ["upscaler", "matting"])
def test_the_same_picture_gives_the_same_result_alone_and_among_others(tmp_path: Path, part: str) -> None:
    folder = saved(tmp_path, part)
    some = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    first, again = (Upscaler.load(folder) if part == "upscaler" else Matte.load(folder) for _ in range(2))
    assert torch.equal(first(some), again(some))
    assert torch.equal(first(some)[1:], first(some[1:]))


def test_a_fresh_upscaler_is_the_bicubic_enlargement() -> None:
    x = discs(1, 32)[0]
    plain = F.interpolate(x, scale_factor=4, mode="bicubic")
    with torch.inference_mode():
        assert torch.allclose(UpscalerNet(**SMALL_UPSCALER)(x), plain, atol=1e-5)


@pytest.mark.parametrize("load", [Upscaler.load, Matte.load])
def test_missing_and_broken_files_are_told_plainly(tmp_path: Path, load) -> None:
    with pytest.raises(NoWeights, match=r"weights\.safetensors is missing") as caught:
        load(tmp_path)
    assert "train" in caught.value.hint
    sizes = SMALL_UPSCALER if load is Upscaler.load else SMALL_MATTE
    net = UpscalerNet(**sizes) if load is Upscaler.load else MatteNet(**sizes)
    weights.save(net, sizes, {}, tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(NoWeights, match="does not fit"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NoWeights, match=r"config\.json is not as it should be"):
        load(tmp_path)


# The cut ------------------------------------------------------------------------------------------------------------


def test_a_cut_keeps_inner_pixels_and_leaves_nothing_of_the_ground() -> None:
    x, mask = discs(1, 128)
    whole = pixels(x)[0]
    cut = cut_out(whole, lambda _: mask[:, 0])
    assert cut.shape == (128, 128, 4)
    inner, outer = mask[0, 0] == 1, F.max_pool2d(mask, 5, 1, 2)[0, 0] == 0
    assert torch.equal(cut[..., :3][inner], whole[inner])
    assert (cut[..., 3][inner] >= 250).all()
    assert (cut[..., 3][outer] == 0).all()
    rim = cut[cut[..., 3] > 25][:, :3].float() / 255
    assert (rim - torch.tensor([0.9, 0.5, 0.1])).abs().max() < 0.12  # orange: no blue is left


def test_a_large_picture_is_cut_along_its_own_edges() -> None:
    x, mask = discs(1, 1024)
    asked: list[tuple[int, ...]] = []

    def coarse(small: Tensor) -> Tensor:
        asked.append(tuple(small.shape))
        return F.avg_pool2d(F.avg_pool2d(mask, 4), 3, 1, 1)[:, 0]

    alpha = cut_out(pixels(x)[0], coarse)[..., 3].float() / 255
    assert asked == [(1, 256, 256, 3)]
    assert (alpha - mask[0, 0]).abs().mean() < 0.002
    soft = ((alpha > 0.1) & (alpha < 0.9)).float().sum()
    plain = F.interpolate(F.avg_pool2d(mask, 4), scale_factor=4, mode="bilinear")
    assert soft < 0.6 * ((plain > 0.1) & (plain < 0.9)).float().sum()


def test_on_a_flat_picture_the_guided_mask_is_the_mask() -> None:
    flat, mask = torch.full((1, 3, 64, 64), 0.5), torch.full((1, 1, 16, 16), 0.7)
    assert torch.allclose(guided(mask, flat[..., :16, :16], flat), torch.tensor(0.7), atol=1e-4)


def test_a_cut_of_all_or_of_nothing_is_no_trouble() -> None:
    whole = pixels(discs(1, 40)[0])[0]
    for value in (0.0, 1.0, 0.5):
        cut = cut_out(whole, lambda small, v=value: torch.full(small.shape[:3], v))
        assert cut.shape == (40, 40, 4)
        assert value != 1 or torch.equal(cut[..., :3], whole)


# The training -------------------------------------------------------------------------------------------------------


def test_wear_keeps_shape_range_and_likeness() -> None:
    torch.manual_seed(0)
    x = discs(16, 64)[0]
    y = worn(x)
    assert y.shape == x.shape
    assert 0 <= float(y.min()) <= float(y.max()) <= 1
    assert 20 < psnr(x, y) < 60
    assert (y == x).flatten(1).all(1).any()  # some come through unhurt


def test_mush_of_no_coarseness_is_the_picture() -> None:
    x = discs(2, 32)[0]
    assert torch.allclose(mush(x, torch.full((2, 1, 1, 1), 1e-4)), x, atol=1e-3)


def test_a_short_training_makes_the_upscaler_better_than_bicubic(tmp_path: Path) -> None:
    torch.manual_seed(0)
    truth = discs(8, 256)[0]
    bank = upscaling.Bank(*(upscaling.whole(x) for x in (F.avg_pool2d(truth, 4)[:, None], truth)))
    setup = upscaling.Setup("cpu", batch=4, crop=32)
    net = UpscalerNet(**SMALL_UPSCALER)
    assert upscaling.fit(net, [bank], Pace(12), setup, tmp_path / "net")
    found = upscaling.measure(Upscaler(net.eval()), [bank])
    assert found["drawn"] > found["drawn_bicubic"]


def test_a_short_training_finds_discs_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, mask = discs(8, 64)
    bank = cutting.Bank(cutting.whole(x[:, None]), cutting.whole(mask[:, 0]))
    setup, net = cutting.Setup("cpu", batch=4, rate=3e-3), MatteNet(**SMALL_MATTE)
    before = cutting.measure(Matte(net), [bank])["drawn_mae"]
    ended = Pace(8, stop=0.0)  # this call is over at once
    assert cutting.fit(net, [bank], ended, setup, tmp_path / "net") is None
    assert (tmp_path / "net.checkpoint").exists()
    steps = cutting.fit(net, [bank], Pace(5), setup, tmp_path / "net")
    assert steps is not None
    assert steps > 1
    assert cutting.measure(Matte(net), [bank])["drawn_mae"] < before / 2


# As shipped ---------------------------------------------------------------------------------------------------------


def shipped(folder: Path) -> dict[str, dict[str, float]]:
    if not (folder / "weights.safetensors").exists():
        pytest.skip(f"{folder.name} is not trained yet")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MOST
    return json.loads((folder / "config.json").read_text())["trained"]


def test_the_shipped_upscaler_beats_bicubic() -> None:
    told = shipped(upscaler.FOLDER)["psnr_db"]
    assert all(told[name] > told[f"{name}_bicubic"] + 1 for name in told if f"{name}_bicubic" in told)
    truth = discs(1, 1024, seed=5)[0]
    small = pixels(F.avg_pool2d(truth, 4))
    ours = planes(Upscaler.load()(small))
    plain = F.interpolate(planes(small), scale_factor=4, mode="bicubic").clamp(0, 1)
    assert psnr(ours, truth) > psnr(plain, truth)


def test_the_shipped_matting_net_finds_objects() -> None:
    told = shipped(matting.FOLDER)["quality"]
    assert told["drawn_iou"] > 0.8
    x, mask = discs(1, 256, seed=5)
    assert ((Matte.load()(pixels(x)) > 0.5) == (mask[:, 0] > 0.5)).float().mean() > 0.98

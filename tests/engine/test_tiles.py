"""A picture enlarged by a person's own file and drawn over in tiles, on tiny bases with random weights."""

import hashlib
import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import recipes, upscalers
from engine.bases import Size
from engine.catalog import Catalog
from engine.companions.esrgan import whole
from engine.diffusion import tiles
from engine.diffusion.resident import Resident
from engine.errors import Invalid
from engine.jobs import Drawn, Progress
from engine.plain import no_bytes, pack, unpack
from engine.plans import ImagePlan
from engine.runners import Runners
from tests.engine.studio import image_plan, png, result
from tests.engine.test_upscalers import rrdb_state, saved

SIZE = Size(native=256, multiple=32, min=128, max=512)


@pytest.fixture
def own(tiny_home: Path, tmp_path: Path) -> str:
    """An upscaler of a person's own, four times."""
    if not (upscalers.folder(tiny_home) / "mine.safetensors").exists():
        upscalers.add(saved(rrdb_state(), tmp_path / "mine.safetensors"), None, tiny_home)
        upscalers.add(saved(rrdb_state(fold=2), tmp_path / "twice.safetensors"), None, tiny_home)
    return "mine"


def drawn(runners: Runners, plan: ImagePlan) -> tuple[Image.Image, dict]:
    made = result(runners.run(plan))
    assert isinstance(made, Drawn)
    return Image.open(io.BytesIO(made.pictures[0].png)), made.pictures[0].recipe


@pytest.mark.parametrize("size", [(1024, 1024), (512, 300), (256, 256), (257, 1000), (100, 90), (2048, 131)])
def test_tiles_cover_a_picture_with_overlaps_of_a_quarter(size: tuple[int, int]) -> None:
    grid = tiles.grid(*size, SIZE)
    for length, side, starts in ((size[0], grid.width, grid.lefts), (size[1], grid.height, grid.tops)):
        assert SIZE.nearest(side) == side  # the base draws it
        assert starts[0] == 0
        assert starts[-1] + side == max(length, side)
        assert all(a + side - b >= side / 4 for a, b in pairwise(starts))
    assert len(grid.places()) == len(grid)


@pytest.mark.parametrize("size", [(64, 80), (45, 33), (20, 70)])
def test_tiles_that_change_nothing_leave_the_picture_as_it_was(
    resident: Resident, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    """No seam, no edge: weights add up to one wherever tiles meet."""
    if resident.base.name != "tiny-sd":
        pytest.skip("arithmetic, the same for each")
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    monkeypatch.setattr(resident, "encode", lambda pixels: pixels)
    monkeypatch.setattr(resident, "decode", lambda pixels: pixels / 2 + 0.5)
    monkeypatch.setattr(tiles, "draw", lambda *_: iter(()))
    brush = tiles.Brush("a cat", "", 1, 32, 32, 2, 3.0, "dpm++")
    steps = tiles.detailed(resident, Image.fromarray(noise), brush, 0.3)
    made = np.asarray(whole(steps))
    assert made.shape == noise.shape
    assert np.abs(made.astype(int) - noise).max() <= 1


def test_detail_is_drawn_by_any_base_and_again_the_same(runners: Runners, base_name: str) -> None:
    plan = image_plan(base_name, upscale=2, upscaler="lanczos", detail=0.5)
    one, recipe = drawn(runners, plan)
    again, _ = drawn(runners, recipes.plan_from(recipe, {}.__getitem__))
    plain, _ = drawn(runners, replace(plan, detail=0.0))
    small, _ = drawn(runners, replace(plan, detail=0.0, upscale=1, upscaler=""))
    assert one.size == (64, 64)
    assert one.tobytes() == again.tobytes() != plain.tobytes()
    assert plain.tobytes() == small.resize((64, 64), Image.Resampling.LANCZOS).tobytes()


def test_every_tile_has_a_seed_of_its_own() -> None:
    seeds = {tiles.seed_of(seed, x, y) for seed in range(4) for x in range(0, 1024, 64) for y in range(0, 1024, 64)}
    assert len(seeds) == 4 * 16 * 16


@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_a_file_enlarges_and_the_recipe_pins_it(runners: Runners, base_name: str, own: str, tiny_home: Path) -> None:
    small, _ = drawn(runners, image_plan(base_name))
    large, recipe = drawn(runners, image_plan(base_name, upscale=4, upscaler=own))
    net = runners._companions.upscaler(own)
    wanted = net(torch.from_numpy(np.array(small)))
    assert large.tobytes() == wanted.numpy().tobytes()
    file = upscalers.folder(tiny_home) / "mine.safetensors"
    assert recipe["upscaler_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert recipe["companions"] == {}
    half, _ = drawn(runners, image_plan(base_name, upscale=2, upscaler=own))
    assert half.tobytes() == Image.fromarray(wanted.numpy()).resize((64, 64), Image.Resampling.BOX).tobytes()


@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_each_tile_is_a_step(runners: Runners, base_name: str, own: str) -> None:
    *steps, _ = runners.run(image_plan(base_name, steps=3, upscale=4, upscaler=own, detail=0.4, count=2))
    told = [(s.part, s.step, s.steps) for s in steps if isinstance(s, Progress)]
    most = told[-1][2]
    tiled = len(tiles.grid(128, 128, runners.resident(base_name).base.size))
    assert most == 3 + runners._companions.upscaler(own).tiles(32, 32) + tiled
    assert told[-1] == (2, most, most)
    assert told == sorted(told)
    assert {step for part, step, _ in told if part == 1} == set(range(1, most + 1))


@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_a_picture_that_is_there_is_enlarged_and_not_drawn(runners: Runners, base_name: str, own: str) -> None:
    source = png((10, 200, 90), (37, 21))
    plan = image_plan(base_name, prompt="", image=source, width=37, height=21, strength=0.0, upscale=4, upscaler=own)
    made, recipe = drawn(runners, plan)
    assert made.size == (148, 84)
    assert runners._resident is None  # the base is not even loaded
    again = recipes.plan_from(recipe, {hashlib.sha256(source).hexdigest(): source}.__getitem__)
    assert again == plan
    detailed, _ = drawn(runners, replace(plan, prompt="a cat", detail=0.5))
    assert detailed.size == (148, 84)
    assert detailed.tobytes() != made.tobytes()


@pytest.mark.parametrize("base_name", ["tiny-sd"])
@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"upscale": 3}, "not 1, 2 or 4"),
        ({"upscaler": "mine"}, "nothing is enlarged"),
        ({"detail": 1.5}, "detail"),
        ({"detail": float("nan")}, "detail"),
        ({"strength": 0.0, "image": None}, "strength"),
        ({"strength": 0.0, "mask": png()}, "mask"),
        ({"strength": 0.0, "count": 2}, "n: at strength 0"),
        ({"prompt": " ", "strength": 0.0, "detail": 0.2}, "prompt"),
        ({"width": 2048, "height": 2048, "upscale": 4}, "megapixels"),
    ],
)
def test_a_plan_is_checked_at_birth(base_name: str, wanted: dict[str, object], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        image_plan(base_name, **({"image": png()} | wanted))


@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_what_an_upscaler_cannot_do_is_said_before_the_first_step(
    catalog: Catalog, tiny_home: Path, base_name: str, own: str
) -> None:
    for name, why in (("other", "none named"), ("twice", "2 times as large, not 4 times")):
        with pytest.raises(Invalid, match=why):
            next(Runners(catalog, tiny_home, torch.device("cpu")).run(image_plan(base_name, upscale=4, upscaler=name)))


@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_the_plan_crosses_the_wire_costs_what_it_does_and_old_recipes_are_read(
    runners: Runners, base_name: str
) -> None:
    plan = image_plan(base_name, upscale=4, upscaler="lanczos", detail=0.5)
    assert unpack(ImagePlan, pack(ImagePlan, plan, lambda _: 0), no_bytes) == plan
    plain = replace(plan, upscale=1, upscaler="", detail=0.0)
    assert plan.work > plain.work * 16 / 2  # sixteen times the pixels, at half the steps
    assert replace(plan, detail=0.0).work == plain.work
    _, recipe = drawn(runners, plain)
    older = {key: value for key, value in recipe.items() if key not in ("upscaler", "upscaler_sha256", "detail")}
    assert recipes.plan_from(older, {}.__getitem__) == plain

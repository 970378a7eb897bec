"""From a picture as drawn to the one that people receive, with small fakes in the companions' place."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from engine import recipes
from engine.catalog import Catalog
from engine.companions.matting import Matte, MatteNet
from engine.companions.upscaler import Upscaler, UpscalerNet
from engine.companions.weights import save
from engine.diffusion.deliver import Companions, on_white, resized, seamless
from engine.errors import Invalid
from engine.jobs import Drawn, Progress
from engine.plans import ImagePlan
from engine.runners import Runners
from tests.engine.studio import image_plan, pixels, png, result
from tests.engine.test_render import digest, mask_png

pytestmark = pytest.mark.parametrize("base_name", ["tiny-sd"])


def enlarged(pixels: Tensor) -> Tensor:
    return pixels.repeat_interleave(4, 1).repeat_interleave(4, 2)


def left_half(pixels: Tensor) -> Tensor:
    mask = torch.zeros(pixels.shape[:3])
    mask[:, :, : pixels.shape[2] // 2] = 1
    return mask


class Shelf:
    """Loads fakes, and says which."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, name: str, folder: Path, device: torch.device) -> object:
        self.loaded.append(name)
        return {"upscaler": enlarged, "matting": left_half}[name]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def runners(catalog: Catalog, tiny_home: Path, shelf: Shelf) -> Runners:
    cpu = torch.device("cpu")
    return Runners(catalog, tiny_home, cpu, Companions(cpu, shelf))  # type: ignore[arg-type]


def drawn(runners: Runners, plan: ImagePlan) -> list[bytes]:
    made = result(runners.run(plan))
    assert isinstance(made, Drawn)
    return [picture.png for picture in made.pictures]


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_nothing_is_loaded_that_no_picture_needs_and_nothing_twice(
    runners: Runners, shelf: Shelf, base_name: str
) -> None:
    drawn(runners, image_plan(base_name))
    assert shelf.loaded == []
    for _ in range(2):
        drawn(runners, image_plan(base_name, upscale=4, count=2))
        drawn(runners, image_plan(base_name, upscale=4, transparent=True))
    assert shelf.loaded == ["upscaler", "matting"]


def test_a_delivered_picture_is_the_drawn_one_four_times_as_large(runners: Runners, base_name: str) -> None:
    (small,) = drawn(runners, image_plan(base_name, width=48))
    (large,) = drawn(runners, image_plan(base_name, width=48, upscale=4))
    assert opened(large).size == (192, 128)
    assert resized(opened(large), (48, 32)).tobytes() == opened(small).tobytes()


def test_the_recipe_says_how_it_was_delivered_and_draws_it_again(runners: Runners, base_name: str) -> None:
    (picture,) = drawn(runners, image_plan(base_name, upscale=4, transparent=True))
    recipe = recipes.read_recipe(picture, "x.png")
    assert (recipe["width"], recipe["upscale"], recipe["transparent"]) == (32, 4, True)
    assert set(recipe["companions"]) == {"upscaler", "matting"}
    assert "Postprocess upscale by: 4" in opened(picture).text["parameters"]  # type: ignore[attr-defined]
    again = recipes.plan_from(recipe, {}.__getitem__)
    assert opened(drawn(runners, again)[0]).tobytes() == opened(picture).tobytes()


def test_a_recipe_from_before_there_was_delivery_is_read(runners: Runners, base_name: str) -> None:
    recipe = recipes.read_recipe(drawn(runners, image_plan(base_name))[0], "x.png")
    older = {name: value for name, value in recipe.items() if name not in ("upscale", "transparent", "companions")}
    plan = recipes.plan_from(older, {}.__getitem__)
    assert (plan.upscale, plan.transparent) == (1, False)


def test_a_transparent_picture_keeps_what_the_mask_holds(runners: Runners, base_name: str) -> None:
    (whole,) = drawn(runners, image_plan(base_name))
    (cut,) = drawn(runners, image_plan(base_name, transparent=True))
    image = opened(cut)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 16))[3] == 255  # type: ignore[index]
    assert image.getpixel((31, 16))[3] == 0  # type: ignore[index]
    assert image.convert("RGB").getpixel((2, 16)) == opened(whole).getpixel((2, 16))


def test_what_was_delivered_is_drawn_over_at_the_size_as_drawn(runners: Runners, base_name: str) -> None:
    (small,) = drawn(runners, image_plan(base_name, seed=9))
    (large,) = drawn(runners, image_plan(base_name, seed=9, upscale=4))
    over_small, over_large = (drawn(runners, image_plan(base_name, image=one, strength=0.5)) for one in (small, large))
    assert pixels(over_small[0]) == pixels(over_large[0])
    (delivered,) = drawn(runners, image_plan(base_name, image=large, strength=0.5, upscale=4))
    assert opened(delivered).size == (128, 128)


def test_a_mask_leaves_the_rest_of_a_delivered_picture_as_it_was(runners: Runners, base_name: str) -> None:
    source = png((200, 90, 40), (128, 128))
    large = opened(mask_png()).resize((128, 128), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    for mask in (buffer.getvalue(), mask_png()):
        plan = image_plan(base_name, image=source, mask=mask, strength=1.0, upscale=4)
        edited, before = (opened(data).convert("RGB") for data in (drawn(runners, plan)[0], source))
        kept, painted = (72, 0, 128, 128), (0, 0, 64, 128)
        assert edited.size == (128, 128)
        assert edited.crop(kept).tobytes() == before.crop(kept).tobytes()
        assert edited.crop(painted).tobytes() != before.crop(painted).tobytes()
    exact = drawn(runners, image_plan(base_name, image=source, mask=buffer.getvalue(), strength=1.0, upscale=4))[0]
    assert opened(exact).crop((64, 0, 128, 128)).tobytes() == opened(source).crop((64, 0, 128, 128)).tobytes()


def test_a_masked_picture_is_drawn_again_from_its_own_metadata(runners: Runners, base_name: str) -> None:
    source, mask = png(size=(128, 128)), mask_png()
    picture = drawn(runners, image_plan(base_name, image=source, mask=mask, upscale=4, transparent=True))[0]
    inputs = {digest(data): data for data in (source, mask)}
    again = recipes.plan_from(recipes.read_recipe(picture, "x.png"), inputs.__getitem__)
    assert opened(drawn(runners, again)[0]).tobytes() == opened(picture).tobytes()


def test_what_the_companions_do_is_a_step_of_its_own(runners: Runners, base_name: str) -> None:
    *steps, _ = runners.run(image_plan(base_name, steps=3, count=2, upscale=4))
    told = [(s.part, s.step, s.steps, s.preview is None) for s in steps if isinstance(s, Progress)]
    assert told == [(k, n, 4, n == 4) for k in (1, 2) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(("wanted", "option"), [({"upscale": 4}, "--upscale 1"), ({"transparent": True}, "--transp")])
def test_a_companion_that_is_not_there_is_said_before_the_first_step(
    catalog: Catalog, tiny_home: Path, base_name: str, wanted: dict[str, object], option: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(recipes, "COMPANIONS", tmp_path)
    with pytest.raises(Invalid) as caught:
        next(Runners(catalog, tiny_home, torch.device("cpu")).run(image_plan(base_name, **wanted)))
    assert option in caught.value.hint
    assert "\n" not in str(caught.value)


def test_the_real_nets_fit(
    catalog: Catalog, tiny_home: Path, base_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With random weights: what they take and give is what delivering asks of them."""
    sizes = {"widths": (8, 8, 8), "blocks": (1, 1, 1), "fine": 8}
    save(UpscalerNet(**sizes), sizes, {}, tmp_path / "upscaler")  # type: ignore[arg-type]
    save(MatteNet((8, 8)), {"widths": (8, 8)}, {}, tmp_path / "matting")
    monkeypatch.setattr(recipes, "COMPANIONS", tmp_path)
    assert Upscaler.load(tmp_path / "upscaler")
    assert Matte.load(tmp_path / "matting")
    runners = Runners(catalog, tiny_home, torch.device("cpu"))
    (picture,) = drawn(runners, image_plan(base_name, upscale=4, transparent=True))
    assert (opened(picture).size, opened(picture).mode) == ((128, 128), "RGBA")


def test_of_another_shape_the_middle_is_taken_and_nothing_is_stretched(base_name: str) -> None:
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste((0, 0, 255), (30, 0, 60, 30))
    assert resized(wide, (10, 10)).getcolors() == [(100, (0, 0, 255))]
    assert resized(wide, (45, 15)).size == (45, 15)


def test_glass_lies_on_white(base_name: str) -> None:
    assert on_white(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert on_white(Image.new("L", (2, 2), 7)).getpixel((0, 0)) == (7, 7, 7)


def test_a_seam_is_soft_within_the_mask_alone(base_name: str) -> None:
    mask = Image.new("L", (64, 8))
    mask.paste(255, (0, 0, 32, 8))
    row = [seamless(mask, 4).getpixel((x, 4)) for x in range(64)]
    assert row[32:] == [0] * 32
    assert row[0] == 255
    assert 0 < row[31] < 200  # type: ignore[operator]
    assert seamless(mask, 1).tobytes() == mask.tobytes()

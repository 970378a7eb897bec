"""Drawing, on every family: what is promised of seeds, weights, sizes, masks and recipes."""

import io
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from engine import bases, recipes
from engine.catalog import Catalog
from engine.diffusion.render import Brush, Canvas, draw
from engine.diffusion.resident import Resident
from engine.errors import Invalid, NoPicture, WrongBase
from engine.jobs import Drawn, Progress, Trained
from engine.plans import SAMPLERS, ImagePlan, LoraStack
from engine.prompts import Prompt
from engine.runners import Runners
from tests.engine.studio import image_plan, pixels, png, result, train_plan


def drawn(runners: Runners, plan: ImagePlan) -> list[bytes]:
    made = result(runners.run(plan))
    assert isinstance(made, Drawn)
    return [picture.png for picture in made.pictures]


def test_a_picture_equals_that_of_plain_diffusers(resident: Resident, base_name: str) -> None:
    """Same weights, prompt, seed and scheduler: the latents of diffusers' own pipeline."""
    own = StableDiffusionXLPipeline if base_name == "tiny-sdxl" else StableDiffusionPipeline
    more = {} if base_name == "tiny-sdxl" else {"safety_checker": None}
    pipe = own.from_pretrained(resident.base.folder, **more)
    pipe.set_progress_bar_config(disable=True)
    wanted = pipe(
        "a cat", negative_prompt="a dog", num_inference_steps=4, guidance_scale=3.0, height=32, width=32,
        output_type="latent", generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip
    *_, last = draw(resident, Brush("a cat", "a dog", 7, 32, 32, 4, 3.0, "dpm++"))
    torch.testing.assert_close(last.latents, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_and_draws_the_same_again(runners: Runners, base_name: str, sampler: str) -> None:
    plan = image_plan(base_name, sampler=sampler)
    first, second = drawn(runners, plan), drawn(runners, plan)
    assert pixels(first[0]) == pixels(second[0])
    assert len(set(pixels(first[0]))) > 8


def test_picture_three_of_four_can_be_drawn_alone(runners: Runners, base_name: str) -> None:
    four = drawn(runners, image_plan(base_name, count=4, seed=10))
    alone = drawn(runners, image_plan(base_name, seed=12))
    assert pixels(four[2]) == pixels(alone[0]) != pixels(four[1])


def test_a_picture_is_drawn_again_from_its_own_metadata(runners: Runners, base_name: str) -> None:
    source, mask = png(), mask_png()
    for plan in (
        image_plan(base_name, negative="a dog", sampler="euler a"),
        image_plan(base_name, image=source, strength=0.5),
        image_plan(base_name, image=source, mask=mask, strength=0.8),
    ):
        picture = drawn(runners, plan)[0]
        again = recipes.plan_from(
            recipes.read_recipe(picture, "x.png"), {digest(d): d for d in (source, mask)}.__getitem__
        )
        assert pixels(drawn(runners, again)[0]) == pixels(picture)


def test_weight_zero_equals_no_lora_and_order_does_not_matter(
    runners: Runners, catalog: Catalog, base_name: str
) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        plan = train_plan(base_name, name=name, seed=seed, prior="none", steps=3)
        made = result(runners.run(plan))
        assert isinstance(made, Trained)
        catalog.add(plan, made)
    one, two = catalog.ref("one", 1.5), catalog.ref("two", -1.0)
    plain = drawn(runners, image_plan(base_name))[0]
    off = drawn(runners, image_plan(base_name, stack=LoraStack((catalog.ref("one", 0.0),))))[0]
    both = [drawn(runners, image_plan(base_name, stack=LoraStack(refs)))[0] for refs in ((one, two), (two, one))]
    assert pixels(off) == pixels(plain)
    assert pixels(both[0]) == pixels(both[1]) != pixels(plain)
    after = drawn(runners, image_plan(base_name))[0]
    assert pixels(after) == pixels(plain)


@pytest.mark.parametrize("shade", [torch.nan, 0.0, 1.0])
@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_nans_and_flat_black_are_the_loras_where_there_are_any_and_else_ours(
    runners: Runners, catalog: Catalog, base_name: str, shade: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = train_plan(base_name, steps=1)
    made = result(runners.run(plan))
    assert isinstance(made, Trained)
    catalog.add(plan, made)
    monkeypatch.setattr(Resident, "decode", lambda *_: torch.full((1, 3, 32, 32), shade))
    with pytest.raises(NoPicture, match="With zed in the stack"):
        drawn(runners, image_plan(base_name, stack=LoraStack((catalog.ref("zed"),))))
    with pytest.raises(FloatingPointError):
        drawn(runners, image_plan(base_name))


def test_a_mask_leaves_the_rest_as_it_was(runners: Runners, base_name: str) -> None:
    source = drawn(runners, image_plan(base_name, seed=9))[0]
    edited = drawn(runners, image_plan(base_name, image=source, mask=mask_png(), strength=1.0))[0]
    a, b = (Image.open(io.BytesIO(data)).convert("RGB") for data in (source, edited))
    kept, painted = (16, 0, 32, 32), (0, 0, 16, 32)
    assert a.crop(kept).tobytes() == b.crop(kept).tobytes()
    assert a.crop(painted).tobytes() != b.crop(painted).tobytes()


def test_strength_decides_how_many_of_the_steps_are_walked(runners: Runners, base_name: str) -> None:
    source = png((10, 200, 30), (32, 32))
    walked = [
        len(list(runners.run(image_plan(base_name, image=source, steps=8, strength=s)))) - 1 for s in (0.01, 0.5, 1.0)
    ]
    assert walked == [1, 4, 8]


def test_a_weak_edit_stays_near_its_source(resident: Resident) -> None:
    """From the same latents and noise, one step of eight leaves more of the source than all eight do."""
    source = torch.ones(resident.latent_shape(32, 32))
    far = []
    for strength in (0.125, 1.0):
        *_, last = draw(resident, Brush("a cat", "", 1, 32, 32, 8, 1.0, "dpm++", Canvas(source, strength)))
        far.append(float((last.latents - source).pow(2).mean()))
    assert far[0] < far[1]


def test_every_step_is_reported_with_a_preview(runners: Runners, base_name: str) -> None:
    *steps, _ = runners.run(image_plan(base_name, count=2, steps=3))
    assert [(s.part, s.step) for s in steps if isinstance(s, Progress)] == [
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
        (2, 2),
        (2, 3),
    ]
    assert all(
        isinstance(s, Progress) and s.preview and Image.open(io.BytesIO(s.preview)).size == (16, 16) for s in steps
    )


def test_a_prompt_longer_than_the_encoder_is_read_to_its_end(resident: Resident) -> None:
    long = "a cat, " * 60
    one, other = resident.texts([Prompt(long + "red"), Prompt(long + "blue")])
    assert one.tokens.shape == other.tokens.shape
    assert one.tokens.shape[1] % 77 == 0
    assert one.tokens.shape[1] > 77
    assert not torch.equal(one.tokens, other.tokens)
    short, negative = resident.texts([Prompt(long), Prompt("")])
    assert short.tokens.shape == negative.tokens.shape


def test_a_lora_for_another_family_is_refused_before_anything_loads(runners: Runners, catalog: Catalog) -> None:
    plan = train_plan("tiny-sd", steps=2, prior="none")
    made = result(runners.run(plan))
    assert isinstance(made, Trained)
    catalog.add(plan, made)
    with pytest.raises(WrongBase, match="trained for sd") as refused:
        next(runners.run(image_plan("tiny-sdxl", stack=LoraStack((catalog.ref("zed", 1.0),)))))
    assert "atelier loras port zed --base tiny-sdxl" in refused.value.hint


def test_a_size_the_base_does_not_draw_is_refused_naming_the_nearest(runners: Runners) -> None:
    with pytest.raises(Invalid) as error:
        next(runners.run(image_plan("tiny-sd", width=33)))
    assert "32x32" in error.value.hint


def test_the_recipe_says_everything_in_both_forms(runners: Runners, tiny_home: Path) -> None:
    data = drawn(runners, image_plan("tiny-sd", negative="blur"))[0]
    recipe = recipes.read_recipe(data, "x.png")
    assert recipe["base_sha256"] == bases.find("tiny-sd", tiny_home).fingerprint()
    assert (recipe["prompt"], recipe["seed"], recipe["licences"]) == ("a cat", 3, {"base": "Apache-2.0"})
    shown = Image.open(io.BytesIO(data)).text["parameters"]  # pyright: ignore
    assert shown.splitlines()[:2] == ["a cat", "Negative prompt: blur"]
    assert "Steps: 4, Sampler: DPM++ 2M, CFG scale: 3, Seed: 3, Size: 32x32" in shown


@pytest.mark.parametrize("data", [b"text", png()])
def test_a_picture_without_a_recipe_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        recipes.read_recipe(data, "x.png")


def mask_png() -> bytes:
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def distance(a: bytes, b: bytes) -> float:
    return sum(abs(x - y) for x, y in zip(pixels(a), pixels(b), strict=True))

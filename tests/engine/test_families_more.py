"""FLUX.2-klein, Qwen-Image, Qwen-Image-Edit and Z-Image: our pictures beside those of diffusers' own pipelines."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers import (
    Flux2KleinPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    ZImagePipeline,
)
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from engine import recipes
from engine.catalog import Catalog
from engine.diffusion import families
from engine.diffusion.families import Conditioning, flux2, qwen, stacked
from engine.diffusion.flow import as_image, packed, sized, unpacked
from engine.diffusion.preview import preview
from engine.diffusion.render import Brush, Canvas, as_pixels, draw
from engine.diffusion.resident import Resident
from engine.errors import Invalid, WrongBase
from engine.jobs import Drawn
from engine.plans import LoraRef, LoraStack
from engine.prompts import MARKED, Prompt
from engine.runners import Runners
from tests.engine.studio import image_plan, result
from tests.tiny_more import tiny_klein, tiny_qwen, tiny_zimage

SAME = 1e-5  # relative L2, float32
WIDTH, HEIGHT, STEPS = 32, 48, 3
ZIMAGE = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
KLEIN = ZIMAGE + "<think>\n\n</think>\n\n"
LAYERS = {  # one layer of the text's side and one of the picture's, where a family has two
    "tiny-klein": ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.attn.to_out"),
    "tiny-qwen": ("transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.add_k_proj"),
    "tiny-zimage": ("layers.0.attention.to_q", "context_refiner.0.feed_forward.w1"),
}


@pytest.fixture(scope="module")
def residents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resident]:
    home = tmp_path_factory.mktemp("more")
    made = [
        *(tiny_klein(home), tiny_klein(home, True, "tiny-distilled"), tiny_zimage(home), tiny_qwen(home)),
        *(tiny_qwen(home, "first"), tiny_qwen(home, "later")),
    ]
    return {base.name: Resident(base, torch.device("cpu"), torch.float32) for base in made}


@pytest.fixture(params=tuple(LAYERS))
def resident(residents: dict[str, Resident], request: pytest.FixtureRequest) -> Resident:
    return residents[request.param]


class Processor(Qwen2VLProcessor):
    """Without the part for video, which needs torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: object) -> type:
        return type(argument)


def told(encoder: Qwen2_5_VLForConditionalGeneration) -> Qwen2_5_VLForConditionalGeneration:
    """Told which tokens are of a picture, as transformers 4 found out by itself; diffusers 0.42 does not tell."""
    own = encoder.forward

    def forward(input_ids: Tensor, **more: Any) -> Any:
        if more.get("pixel_values") is not None:
            more["mm_token_type_ids"] = (input_ids == encoder.config.image_token_id).int()
        return own(input_ids=input_ids, **more)

    encoder.forward = forward
    return encoder


def pipeline(resident: Resident) -> Any:
    """diffusers' own, over the same files."""
    folder, name = resident.base.folder, resident.base.name
    if name in ("tiny-klein", "tiny-distilled"):
        pipe = Flux2KleinPipeline.from_pretrained(folder)
    elif name == "tiny-zimage":
        pipe = ZImagePipeline.from_pretrained(folder)
    else:
        pipe = QwenImagePipeline.from_pretrained(folder) if name == "tiny-qwen" else edits(folder, name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def edits(folder: Path, name: str) -> Any:
    kind = QwenImageEditPipeline if name.endswith("first") else QwenImageEditPlusPipeline
    bare = QwenImagePipeline.from_pretrained(folder)
    processor = Processor(Qwen2VLImageProcessorPil.from_pretrained(folder / "processor"), bare.tokenizer, None)
    return kind(bare.scheduler, bare.vae, told(bare.text_encoder), bare.tokenizer, processor, bare.transformer)


def theirs(pipe: Any, prompt: str, negative: str, guidance: float, images: list[Image.Image], out: str) -> Tensor:
    given: dict[str, Any] = {
        "prompt": prompt, "width": WIDTH, "height": HEIGHT, "num_inference_steps": STEPS, "output_type": out,
        "generator": torch.Generator().manual_seed(7),
    }  # fmt: skip
    if images:
        given["image"] = images if len(images) > 1 or not isinstance(pipe, QwenImageEditPipeline) else images[0]
    if isinstance(pipe, Flux2KleinPipeline):
        assert not negative  # it has none but the empty one
        return pipe(**given, guidance_scale=guidance).images
    if isinstance(pipe, ZImagePipeline):
        return pipe(**given, guidance_scale=guidance, negative_prompt=negative).images
    cfg = {"negative_prompt": negative} if guidance > 1 else {}
    return pipe(**given, true_cfg_scale=guidance, max_sequence_length=1024, **cfg).images


def ours(resident: Resident, prompt: str, negative: str, guidance: float, images: list[Image.Image]) -> Tensor:
    brush = Brush(
        prompt, negative, 7, WIDTH, HEIGHT, STEPS, guidance, "euler", references=tuple(as_pixels(one) for one in images)
    )
    *_, last = draw(resident, brush)
    return last.latents


def as_theirs(resident: Resident, latents: Tensor) -> Tensor:
    """Our latents as the pipeline gives its own: of the autoencoder's scale for klein, packed for Qwen."""
    if resident.base.family == "flux2":
        bn, eps = resident.parts.vae.bn, resident.parts.vae.config.batch_norm_eps
        raw = latents * (bn.running_var[:, None, None] + eps).sqrt() + bn.running_mean[:, None, None]
        return Flux2KleinPipeline._unpatchify_latents(raw)
    if resident.base.family == "qwen":
        return QwenImagePipeline._pack_latents(latents, *latents.shape)
    return latents


def apart(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).norm() / b.norm())


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The pipelines' own warnings are not ours."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    ("name", "negative", "guidance"),
    [
        ("tiny-klein", "", 1.0), ("tiny-klein", "", 3.0), ("tiny-distilled", "", 1.0),
        ("tiny-qwen", "", 1.0), ("tiny-qwen", "a much longer text of what shall not be", 4.0), ("tiny-qwen", "no", 4.0),
        ("tiny-zimage", "", 0.0), ("tiny-zimage", "a much longer text of what shall not be seen " * 2, 3.0),
    ],
)  # fmt: skip
def test_a_picture_equals_that_of_the_pipeline(
    residents: dict[str, Resident], name: str, negative: str, guidance: float
) -> None:
    resident, pipe = residents[name], pipeline(residents[name])
    found = ours(resident, "a cat, red", negative, guidance, [])
    assert apart(as_theirs(resident, found), theirs(pipe, "a cat, red", negative, guidance, [], "latent")) < SAME
    shown = theirs(pipe, "a cat, red", negative, guidance, [], "pt")
    torch.testing.assert_close(resident.decode(found), shown, rtol=0, atol=1e-4)


def test_the_prompt_and_the_guidance_do_matter(resident: Resident) -> None:
    """Else the test above would agree on nothing."""
    one = ours(resident, "a cat", "", 3.0, [])
    assert apart(ours(resident, "a dog", "", 3.0, []), one) > 10 * SAME
    assert apart(ours(resident, "a cat", "", 2.0, []), one) > 10 * SAME


@pytest.mark.parametrize("sizes", [[(70, 66)], [(64, 64), (90, 65)]])
def test_klein_sees_references_as_its_pipeline_does(
    residents: dict[str, Resident], sizes: list[tuple[int, int]]
) -> None:
    resident, images = residents["tiny-klein"], [picture(*size, seed) for seed, size in enumerate(sizes)]
    found = ours(resident, "a cat", "", 2.0, images)
    assert apart(as_theirs(resident, found), theirs(pipeline(resident), "a cat", "", 2.0, images, "latent")) < SAME
    assert apart(ours(resident, "a cat", "", 2.0, []), found) > 1e-3


@pytest.mark.parametrize(("name", "count"), [("tiny-qwen-first", 1), ("tiny-qwen-later", 1), ("tiny-qwen-later", 2)])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_qwen_edits_as_its_pipelines_do(
    residents: dict[str, Resident], monkeypatch: pytest.MonkeyPatch, name: str, count: int, guidance: float
) -> None:
    """With references of 64² and 96² pixels in place of 1024² and 384², on both sides."""
    of = pipeline_qwenimage_edit.calculate_dimensions
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda area, ratio: of(64 * 64, ratio))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 96 * 96)
    monkeypatch.setattr(qwen, "AREA", 64 * 64)
    monkeypatch.setattr(qwen, "LOOK", 96 * 96)
    resident, pipe = residents[name], pipeline(residents[name])
    images = [picture(80, 60, 1), picture(50, 90, 2)][:count]
    found = ours(resident, "make it red", "blurred and without any colour", guidance, images)
    wanted = theirs(pipe, "make it red", "blurred and without any colour", guidance, images, "latent")
    assert apart(as_theirs(resident, found), wanted) < SAME
    other = ours(resident, "make it red", "blurred and without any colour", guidance, [picture(80, 60, 3)] * count)
    assert apart(other, found) > 10 * SAME


@pytest.mark.parametrize("ratio", [0.13, 0.5, 0.75, 1.0, 1.33, 16 / 9, 3.0, 7.9])
def test_references_have_the_pipelines_sizes(ratio: float) -> None:
    for area in (qwen.AREA, qwen.LOOK):
        assert sized(area, ratio, qwen.MULTIPLE) == pipeline_qwenimage_edit_plus.calculate_dimensions(area, ratio)
    assert (qwen.AREA, qwen.LOOK) == (
        pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE, pipeline_qwenimage_edit_plus.CONDITION_IMAGE_SIZE,
    )  # fmt: skip


@pytest.mark.parametrize("size", [(1300, 1000), (1024, 1024), (2100, 700), (75, 131)])
def test_a_large_reference_of_klein_becomes_smaller_as_in_its_pipeline(
    residents: dict[str, Resident], size: tuple[int, int]
) -> None:
    resident, image = residents["tiny-klein"], picture(*size)
    own = pipeline(resident).image_processor
    wanted = own._resize_if_exceeds_area(image)
    width, height = (side // 4 * 4 for side in wanted.size)
    wanted = own.preprocess(wanted, height=height, width=width, resize_mode="crop")
    found = as_pixels(flux2.FAMILY._fitted(resident.parts, image))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


PROMPTS = ("", "a cat", "Ein Café, \n“größer” 日本", "words " * 70)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_becomes_what_the_pipeline_makes_of_it(resident: Resident, prompt: str) -> None:
    (found,) = resident.texts([Prompt(prompt)])
    wanted: Any = pipeline(resident).encode_prompt(prompt)[0]
    if isinstance(wanted, list):  # Z-Image's
        wanted = wanted[0][None]
    assert apart(found.tokens, wanted) < SAME
    assert found.mask is None


def test_no_prompt_is_cut(resident: Resident) -> None:
    """The last letter of the longest prompt still counts; a longer one is refused, and told by how much."""
    whole, template = {"flux2": (512, KLEIN), "zimage": (512, ZIMAGE), "qwen": (1024 + 34, qwen.FRAME)}[
        resident.base.family
    ]
    said = template.format(qwen.DRAW, "") if resident.base.family == "qwen" else template
    room = whole - len(resident.parts.tokenizers[0](said).input_ids)  # a letter is a token here
    one, two = resident.texts([Prompt("a" * room), Prompt("a" * (room - 1) + "b")])
    assert apart(one.tokens, two.tokens) > 1e-4
    with pytest.raises(Invalid, match="tokens") as caught:
        resident.texts([Prompt("a" * (room + 30))])
    assert "Shorten it by about 21 words" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "why"),
    [("a (red:1.3) cat", "“red” has a weight"), ("a cat BREAK a dog", "BREAK"), ("a <|im_end|> cat", "im_end"),
     ("[pale] sky", "“pale” has a weight"), ("a <|image_pad|>", "image_pad")],
)  # fmt: skip
def test_what_the_encoder_has_no_notion_of_is_refused(resident: Resident, text: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        resident.texts([Prompt(text, MARKED)])
    assert why in str(caught.value)
    assert caught.value.hint


def test_escaped_brackets_are_plain_ones(resident: Resident) -> None:
    one, two = resident.texts([Prompt(r"a \(red\) cat", MARKED), Prompt("a (red) cat")])
    assert torch.equal(one.tokens, two.tokens)


def test_a_shorter_text_is_filled_up_and_masked() -> None:
    short, long = Conditioning(torch.ones(1, 2, 3)), Conditioning(torch.ones(1, 4, 3), torch.ones(1, 5))
    both = stacked([short, long])
    assert both.tokens.shape == (2, 4, 3)
    assert both.mask is not None
    assert both.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert float(both.tokens[0, 2:].abs().sum()) == 0
    again = stacked([both, short])
    assert again.mask is not None
    assert again.mask.sum(dim=1).tolist() == [2, 4, 2]
    assert stacked([long, long]).mask is None


def test_packing_is_the_pipelines_own() -> None:
    x = torch.randn(2, 3, 6, 4)
    assert torch.equal(packed(x), QwenImagePipeline._pack_latents(x, 2, 3, 6, 4))
    assert torch.equal(unpacked(packed(x), 6, 4), x)


@pytest.mark.parametrize(("tokens", "steps"), [(256, 4), (4096, 4), (4096, 50), (4300, 4), (4301, 4), (9216, 28)])
def test_the_schedules_shift_of_klein(tokens: int, steps: int) -> None:
    assert flux2.empirical_mu(tokens, steps) == pytest.approx(compute_empirical_mu(tokens, steps), rel=1e-9)


def test_a_picture_is_encoded_as_the_pipeline_does(residents: dict[str, Resident]) -> None:
    pixels = as_pixels(picture(48, 32))
    klein, edit = residents["tiny-klein"], residents["tiny-qwen-later"]
    torch.testing.assert_close(klein.encode(pixels), pipeline(klein)._encode_vae_image(pixels, None))
    wanted = pipeline(edit)._encode_vae_image(pixels.unsqueeze(2), None)[:, :, 0]
    torch.testing.assert_close(edit.encode(pixels), wanted)


def test_painting_over_keeps_what_must_stay_and_changes_the_rest(resident: Resident) -> None:
    latents = resident.encode(as_pixels(picture(WIDTH, HEIGHT)))
    assert latents.shape == resident.latent_shape(WIDTH, HEIGHT)
    keep = torch.zeros(1, 1, *latents.shape[2:])
    keep[..., : latents.shape[3] // 2] = 1
    guidance = resident.base.defaults.guidance

    def over(strength: float, mask: Tensor | None = None) -> Tensor:
        brush = Brush("a cat", "", 5, WIDTH, HEIGHT, 10, guidance, "euler", Canvas(latents, strength, mask))
        *_, last = draw(resident, brush)
        return last.latents

    masked = over(0.8, keep)
    assert torch.equal(masked * keep, latents * keep)
    assert apart(masked * (1 - keep), latents * (1 - keep)) > 0.05
    assert apart(over(0.1), latents) < apart(over(0.9), latents)


def test_a_canvas_and_a_reference_go_together(residents: dict[str, Resident]) -> None:
    resident = residents["tiny-klein"]
    image = as_pixels(picture(64, 64))
    brush = Brush("it", "", 5, 64, 64, 4, 1.0, "euler", Canvas(resident.encode(image), 0.5), references=(image,))
    *_, last = draw(resident, brush)
    assert last.steps == 2
    assert bool(last.latents.isfinite().all())


@pytest.mark.parametrize(
    ("name", "sizes", "why"),
    [
        ("tiny-zimage", [(64, 64)], "takes no reference"), ("tiny-qwen", [(64, 64)], "Qwen-Image itself takes no"),
        ("tiny-qwen-first", [(64, 64)] * 2, "one picture at a time"), ("tiny-klein", [(63, 64)], "63x64 is too small"),
        ("tiny-klein", [(64, 600)], "64x600 is too long"), ("tiny-qwen-later", [(20, 64)], "20x64 is too small"),
    ],
)  # fmt: skip
def test_references_that_cannot_be_taken_are_refused(
    residents: dict[str, Resident], name: str, sizes: list[tuple[int, int]], why: str
) -> None:
    with pytest.raises(Invalid) as caught:
        ours(residents[name], "a cat", "", 1.0, [picture(*size) for size in sizes])
    assert why in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "more", "what"),
    [
        ("tiny-distilled", {"guidance": 3.0}, "guidance"),
        ("tiny-distilled", {"guidance": 1.0, "negative": "fog"}, "negative"),
        ("tiny-zimage", {"guidance": 0.0, "negative": "fog"}, "negative"),
    ],
)
def test_what_would_change_nothing_is_refused(
    residents: dict[str, Resident], name: str, more: dict[str, Any], what: str
) -> None:
    base, family = residents[name].base, residents[name].family
    with pytest.raises(Invalid) as caught:
        family.accepts(base, image_plan(name, **more))
    assert caught.value.what == what
    assert caught.value.hint
    family.accepts(base, image_plan(name, guidance=0.0))


def test_what_counts_is_accepted(residents: dict[str, Resident]) -> None:
    for name in ("tiny-klein", "tiny-zimage", "tiny-qwen"):
        residents[name].family.accepts(residents[name].base, image_plan(name, guidance=3.0, negative="fog"))


def test_a_plan_is_drawn_and_drawn_again_from_its_recipe(resident: Resident, tmp_path: Path) -> None:
    """The whole way: the base is found, whole, accepted, loaded; the picture says how it was made."""
    home = resident.base.folder.parents[1]
    runners = Runners(Catalog(tmp_path / "shipped", tmp_path / "loras"), home, torch.device("cpu"))
    plan = image_plan(resident.base.name, guidance=2.0, sampler="euler", negative="fog")
    made = result(runners.run(plan))
    assert isinstance(made, Drawn)
    png = made.pictures[0].png
    again = result(runners.run(recipes.plan_from(recipes.read_recipe(png, "x.png"), {}.__getitem__)))
    assert isinstance(again, Drawn)
    assert opened(again.pictures[0].png).tobytes() == opened(png).tobytes()


def test_an_edit_base_without_a_picture_draws_as_qwen_image(residents: dict[str, Resident]) -> None:
    resident = residents["tiny-qwen-first"]
    pipe = QwenImagePipeline.from_pretrained(resident.base.folder)
    pipe.set_progress_bar_config(disable=True)
    wanted = theirs(pipe, "a cat", "a dog", 3.0, [], "latent")
    assert apart(as_theirs(resident, ours(resident, "a cat", "a dog", 3.0, [])), wanted) < SAME


def peft(resident: Resident, seed: int = 0) -> bytes:
    """A LoRA in the names that PEFT and diffusers write."""
    generator = torch.Generator().manual_seed(seed)
    modules = dict(resident.parts.denoiser.named_modules())
    tensors: dict[str, Tensor] = {}
    for layer in LAYERS[resident.base.name]:
        out, width = modules[layer].weight.shape
        tensors[f"transformer.{layer}.lora_A.weight"] = torch.randn(4, width, generator=generator) * 0.5
        tensors[f"transformer.{layer}.lora_B.weight"] = torch.randn(out, 4, generator=generator) * 0.5
    return save(tensors)


def test_the_rack_lists_the_weights_of_a_transformer(resident: Resident) -> None:
    for layer in LAYERS[resident.base.name]:
        weight = dict(resident.parts.denoiser.named_parameters())[f"{layer}.weight"]
        assert resident.rack.shapes[layer.replace(".", "_")] == tuple(weight.shape)


def test_a_lora_changes_the_picture_as_in_diffusers_and_comes_out_bit_for_bit(
    resident: Resident, tmp_path: Path
) -> None:
    data = peft(resident)
    before = {name: value.clone() for name, value in resident.parts.denoiser.state_dict().items()}
    bare = ours(resident, "a cat", "", 2.0, [])
    with resident.stacked(LoraStack((LoraRef("one", "0" * 64, 1.0),)), lambda _: data):
        changed = ours(resident, "a cat", "", 2.0, [])
    assert apart(changed, bare) > 1e-3
    after = resident.parts.denoiser.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(ours(resident, "a cat", "", 2.0, []), bare)
    (tmp_path / "one.safetensors").write_bytes(data)
    pipe = pipeline(resident)
    pipe.load_lora_weights(tmp_path, weight_name="one.safetensors")
    assert apart(as_theirs(resident, changed), theirs(pipe, "a cat", "", 2.0, [], "latent")) < SAME


def test_what_a_network_is_given_lies_where_its_latents_lie(resident: Resident) -> None:
    """The scheduler gives times on the CPU, and so would be numbers that a family makes up."""
    family, parts = resident.family, resident.parts
    (cond,) = resident.texts([Prompt("a cat")])
    x = torch.zeros(resident.latent_shape(WIDTH, HEIGHT), device="meta")
    given: list[Any] = []

    class Stub(torch.nn.Module):
        def forward(self, *some: Any, **named: Any) -> Any:
            given.extend((*some, *named.values()))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        family.predict(parts, Stub(), x, torch.tensor(500.0), replace(cond, tokens=cond.tokens.to("meta")), 1.0)
    tensors = [one for some in given for one in (some if isinstance(some, list) else [some]) if torch.is_tensor(one)]
    assert len(tensors) >= 3
    assert {one.device.type for one in tensors} == {"meta"}


def test_a_lora_of_another_family_is_refused(residents: dict[str, Resident]) -> None:
    data = peft(residents["tiny-klein"])
    with (
        pytest.raises(WrongBase),
        residents["tiny-zimage"].stacked(LoraStack((LoraRef("one", "1" * 64, 1.0),)), lambda _: data),
    ):
        pass


def test_a_preview_is_fitted_to_the_autoencoder() -> None:
    """Five channels that hold colour by a known map, and three that hold what a plain colour has not."""
    mix = torch.tensor(
        [[1.0, 0.5, 0], [0, 2, -1], [0.3, 0, 1], [1, 1, 1], [0, 0.2, 0.1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    )

    class Known:
        base = family = parts = SimpleNamespace(preview=None, scale=lambda _: 2)

        def encode(self, pixels: Tensor) -> Tensor:
            return torch.einsum("cr,nrhw->nchw", mix, pixels[..., ::2, ::2]) + 0.7

    for colour in ((200, 60, 90), (30, 40, 220)):
        latents = Known().encode(as_pixels(Image.new("RGB", (16, 16), colour)))
        latents[:, 5:] += torch.randn(1, 3, 8, 8)
        shown = np.asarray(opened(preview(cast(Resident, Known()), latents)), dtype=float)
        np.testing.assert_allclose(shown, np.broadcast_to(colour, shown.shape), atol=6)


def test_every_family_has_a_preview(resident: Resident) -> None:
    latents = torch.randn(resident.latent_shape(WIDTH, HEIGHT))
    assert opened(preview(resident, latents)).size == (latents.shape[3], latents.shape[2])


def opened(data: bytes) -> Image.Image:
    import io

    return Image.open(io.BytesIO(data))


def test_a_reference_is_the_same_picture_again() -> None:
    image = picture(30, 20)
    assert as_image(as_pixels(image)).tobytes() == image.tobytes()


def test_each_family_is_found_by_its_name() -> None:
    found: list[Callable[..., Any]] = [families.find(name).load for name in ("flux2", "qwen", "zimage")]
    assert len(found) == 3

"""IP-Adapters: a base of SD or SDXL looks at a picture as diffusers' own pipelines do, and is as it was afterwards."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from engine import bases, recipes, references
from engine.bases.adding import Wanted
from engine.catalog import Catalog
from engine.diffusion.reference import looking, seen
from engine.diffusion.render import Brush, draw
from engine.diffusion.resident import Resident
from engine.errors import Invalid
from engine.jobs import Drawn
from engine.plans import ImagePlan, Reference
from engine.runners import Runners
from tests.engine.studio import image_plan, pixels, result
from tests.tiny import tiny_sd, tiny_sdxl

SIDE, SEEN, EMBEDDED = 28, 24, 12  # of the encoder: pixels, widths of its patches and of the whole


def picture(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def encoder_folder(folder: Path) -> Path:
    torch.manual_seed(5)
    config = CLIPVisionConfig(
        hidden_size=SEEN, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=SIDE,
        patch_size=14, projection_dim=EMBEDDED,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def adapter_file(base: Path, file: Path, way: str) -> Path:
    """As the paper's own code writes them: image_proj.…, and ip_adapter.N, N odd, for each attention to the text."""
    torch.manual_seed(6)
    unet = UNet2DConditionModel.from_pretrained(base / "unet", use_safetensors=True)
    width = unet.config.cross_attention_dim
    tensors: dict[str, torch.Tensor] = {}
    outs = [m.to_k.weight.shape[0] for name, m in unet.named_modules() if name.endswith("attn2")]
    for number, out in enumerate(outs):
        for part in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{part}.weight"] = torch.randn(out, width) * 0.5
    if way == "picture":
        tensors["image_proj.proj.weight"] = torch.randn(4 * width, EMBEDDED)
        tensors["image_proj.proj.bias"] = torch.randn(4 * width)
        tensors["image_proj.norm.weight"], tensors["image_proj.norm.bias"] = torch.ones(width), torch.zeros(width)
    else:
        tensors |= plus_projection(width)
    save_file(tensors, file)
    return file


def plus_projection(width: int, tokens: int = 5, inner: int = 64) -> dict[str, torch.Tensor]:
    """The Resampler of the paper's code, of four layers: layers.N.0 attends, layers.N.1 feeds forward."""
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, tokens, inner), "proj_in.weight": (inner, SEEN), "proj_in.bias": (inner,),
        "proj_out.weight": (width, inner), "proj_out.bias": (width,), "norm_out.weight": (width,),
        "norm_out.bias": (width,),
    }  # fmt: skip
    layer: dict[str, tuple[int, ...]] = {
        "0.norm1.weight": (inner,), "0.norm1.bias": (inner,), "0.norm2.weight": (inner,), "0.norm2.bias": (inner,),
        "0.to_q.weight": (inner, inner), "0.to_kv.weight": (2 * inner, inner), "0.to_out.weight": (inner, inner),
        "1.0.weight": (inner,), "1.0.bias": (inner,), "1.1.weight": (4 * inner, inner),
        "1.3.weight": (inner, 4 * inner),
    }  # fmt: skip
    shapes |= {f"layers.{number}.{key}": shape for number in range(4) for key, shape in layer.items()}
    return {f"image_proj.{key}": torch.randn(shape) * 0.3 for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("reference")
    encoder_folder(home / "encoder")
    tiny_sd(home)
    tiny_sdxl(home)
    return home


@pytest.fixture(params=["sd", "sdxl"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["picture", "patches"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


def added(home: Path, family: str, way: str) -> references.Adapter:
    name = f"{family}-{way}"
    if not (home / "references" / name).exists():
        file = adapter_file(home / "bases" / f"tiny-{family}", home / f"{name}.safetensors", way)
        references.add(file, home / "encoder", Wanted(licence="MIT"), home)
    return next(one for one in references.installed(home) if one.name == name)


def test_clips_preparation_is_that_of_its_own_processor() -> None:
    processor = CLIPImageProcessorPil(size=SIDE, crop_size=SIDE)
    for size in ((50, 40), (31, 77), (28, 28), (10, 12)):
        wanted = processor(picture(3, size), return_tensors="pt").pixel_values
        torch.testing.assert_close(seen(picture(3, size), SIDE), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("weights", "guidance"), [([1.0], 3.0), ([0.6], 1.0), ([0.7, 1.4], 3.0)])
def test_latents_are_those_of_diffusers(
    home: Path, family: str, way: str, weights: list[float], guidance: float
) -> None:
    adapter = added(home, family, way)
    pipe: Any = (StableDiffusionPipeline if family == "sd" else StableDiffusionXLPipeline).from_pretrained(
        home / "bases" / f"tiny-{family}", **({"safety_checker": None} if family == "sd" else {})
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.register_modules(
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(home / "encoder").eval(),
        feature_extractor=CLIPImageProcessorPil(size=SIDE, crop_size=SIDE),
    )
    state: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in load_file(home / f"{adapter.name}.safetensors").items():
        state[key.partition(".")[0]][key.partition(".")[2]] = tensor
    pipe.unet._load_ip_adapter_weights([state] * len(weights), low_cpu_mem_usage=False)
    pipe.set_ip_adapter_scale(weights)
    looks = [picture(seed) for seed, _ in enumerate(weights)]
    wanted = pipe(
        "a cat", negative_prompt="a dog", num_inference_steps=4, guidance_scale=guidance, height=32, width=32,
        output_type="latent", generator=torch.Generator().manual_seed(7), ip_adapter_image=looks,
    ).images  # fmt: skip
    resident = Resident(bases.find(f"tiny-{family}", home), torch.device("cpu"), torch.float32)
    brush = Brush("a cat", "a dog", 7, 32, 32, 4, guidance, "dpm++")
    *_, bare = draw(resident, brush)
    shown = [Reference(encoded(look), weight) for look, weight in zip(looks, weights, strict=True)]
    with looking(resident, adapter, shown) as net:
        *_, last = draw(resident, brush, net)
    assert float((last.latents - wanted).norm() / wanted.norm()) <= 1e-5
    assert float((bare.latents - wanted).norm() / wanted.norm()) > 1e-3
    *_, after = draw(resident, brush)
    assert torch.equal(after.latents, bare.latents)


def drawn(home: Path, tmp_path: Path, plan: ImagePlan) -> bytes:
    made = result(Runners(Catalog(tmp_path / "a", tmp_path / "b"), home, torch.device("cpu")).run(plan))
    assert isinstance(made, Drawn)
    return made.pictures[0].png


def test_a_picture_with_a_reference_is_drawn_again_from_its_recipe(home: Path, family: str, tmp_path: Path) -> None:
    added(home, family, "picture")
    look = encoded(picture(1))
    plan = image_plan(f"tiny-{family}", references=(Reference(look, 0.8),))
    made = drawn(home, tmp_path, plan)
    recipe = recipes.read_recipe(made, "x.png")
    assert recipe["references"][0]["adapter"].startswith(f"{family}-")
    assert "MIT" in recipe["licences"].values()
    assert pixels(drawn(home, tmp_path, recipes.plan_from(recipe, lambda _: look))) == pixels(made)
    assert pixels(drawn(home, tmp_path, image_plan(f"tiny-{family}"))) != pixels(made)


def test_where_no_adapter_fits_it_says_what_to_add(home: Path, tmp_path: Path) -> None:
    added(home, "sd", "picture")
    with pytest.raises(Invalid, match="takes no reference pictures without an IP-Adapter") as none:
        references.adapter_for(bases.find("pocket"), home)
    assert "atelier references add" in none.value.hint
    assert "for other bases" in str(none.value)


def test_what_is_no_adapter_or_another_ones_encoder_is_refused(home: Path, tmp_path: Path) -> None:
    file = adapter_file(home / "bases" / "tiny-sd", tmp_path / "a.safetensors", "picture")
    faces = tmp_path / "faces.safetensors"
    tensors = load_file(file)
    save_file({key: t for key, t in tensors.items() if "image_proj.proj" not in key}, faces)
    other = encoder_folder(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"projection_dim": 99}))
    (tmp_path / "bare").mkdir()
    for adapter, encoder, why in (
        (faces, home / "encoder", "no IP-Adapter of a kind"),
        (tmp_path / "none.safetensors", home / "encoder", "no such file"),
        (file, tmp_path / "none", "no folder"),
        (file, tmp_path / "bare", "no config.json"),
        (file, home / "bases" / "tiny-sd" / "text_encoder", "is no CLIPVisionModelWithProjection"),
        (file, other, "another one's encoder"),
    ):
        with pytest.raises(Invalid, match=why):
            references.add(adapter, encoder, Wanted(), tmp_path)
    assert references.installed(tmp_path) == ()


def test_an_adapter_that_lacks_weights_is_refused_and_the_base_is_as_it_was(home: Path, tmp_path: Path) -> None:
    file = adapter_file(home / "bases" / "tiny-sd", tmp_path / "a.safetensors", "picture")
    tensors = load_file(file)
    tensors.pop("ip_adapter.1.to_v_ip.weight")
    save_file(tensors, file)
    broken = references.add(file, home / "encoder", Wanted(), tmp_path)
    resident = Resident(bases.find("tiny-sd", home), torch.device("cpu"), torch.float32)
    kinds = {name: type(one) for name, one in resident.parts.denoiser.attn_processors.items()}
    with (
        pytest.raises(Invalid, match="not whole"),
        looking(resident, broken, [Reference(encoded(picture(1)))]),
    ):
        pass
    assert {name: type(one) for name, one in resident.parts.denoiser.attn_processors.items()} == kinds

"""Every dialect and kind of LoRA file does to the weights what its formula says, re-derived without our reader."""

import copy
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from engine.diffusion.rack import Rack
from engine.lora.blend import blend, deltas
from engine.lora.dialects import target
from engine.lora.read import read
from tests.engine import lora_zoo
from tests.engine.lora_zoo import Tiny, Written, combinations, tiny, written


@pytest.fixture(scope="module")
def zoos() -> dict[str, Tiny]:
    return {family: tiny(family) for family in ("sd", "sdxl")}


def rack(zoo: Tiny) -> Rack:
    unet, *encoders = zoo.models.values()
    return Rack(unet, tuple(encoders))


def state(zoo: Tiny) -> dict[tuple[str, str], torch.Tensor]:
    return {
        (model, name): parameter.detach().clone()
        for model, owner in zoo.models.items()
        for name, parameter in owner.named_parameters()
    }


def check_equals(zoo: Tiny, files: list[tuple[Written, float]]) -> None:
    """With these files in, every weight is the base plus the formula's sum; after it, the base to the bit."""
    before = state(zoo)
    wanted = {key: weight.double().numpy() for key, weight in before.items()}
    touched = set[tuple[str, str]]()
    for file, weight in files:
        for (model, path), change in file.means(zoo).items():
            key = model, lora_zoo.own_name(zoo.models[model], path)
            wanted[key] = wanted[key] + weight * change
            touched.add(key)
    loras = [(deltas(read(file.data, "given")), weight) for file, weight in files]
    shelf = rack(zoo)
    for lora, _ in loras:
        shelf.check("given", "tiny", lora)
    with shelf.stacked(blend(loras)):
        during = state(zoo)
    after = state(zoo)
    for key, weight in during.items():
        np.testing.assert_allclose(weight.double().numpy(), wanted[key], rtol=1e-5, atol=1e-5, err_msg=str(key))
        assert torch.equal(weight, before[key]) is (key not in touched), key
        assert torch.equal(after[key].view(torch.int32), before[key].view(torch.int32))
    assert touched


@pytest.mark.parametrize(("family", "dialect", "kind"), combinations())
def test_a_file_changes_the_weights_as_its_formula_says(
    zoos: dict[str, Tiny], family: str, dialect: str, kind: str
) -> None:
    check_equals(zoos[family], [(written(zoos[family], dialect, kind), 1.0)])


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_stack_of_all_kinds_is_the_weighted_sum_of_what_each_does_alone(zoos: dict[str, Tiny], family: str) -> None:
    kinds = lora_zoo.DIALECTS["kohya, Stability's names"].kinds
    files = [(written(zoos[family], "kohya, Stability's names", k, seed=i), 0.7 - 0.2 * i) for i, k in enumerate(kinds)]
    check_equals(zoos[family], [(f, w) for f, w in files if abs(w) > 1e-9])


def of_diffusers(zoo: Tiny, file: Written) -> dict[tuple[str, str], np.ndarray]:
    """The weights after diffusers' own load of the file, fused at weight 1."""
    models = {name: copy.deepcopy(model) for name, model in zoo.models.items()}
    rest: dict[str, Any] = {"vae": None, "scheduler": DDIMScheduler(), "tokenizer": None}
    pipe: Any
    if zoo.family == "sd":
        rest |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipe = StableDiffusionPipeline(**models, **rest)
    else:
        pipe = StableDiffusionXLPipeline(**models, **rest, tokenizer_2=None, add_watermarker=False)
    pipe.load_lora_weights({key: tensor.float() for key, tensor in safetensors.torch.load(file.data).items()})
    pipe.fuse_lora(components=list(models))
    pipe.unload_lora_weights()
    held = {model: getattr(pipe, model) for model in models}
    return {
        (m, path): held[m].get_parameter(lora_zoo.own_name(held[m], path)).detach().double().numpy()
        for m, path in file.keys
    }


def close(a: dict[tuple[str, str], np.ndarray], b: dict[tuple[str, str], np.ndarray]) -> bool:
    return all(np.allclose(a[key], b[key], rtol=1e-5, atol=1e-5) for key in a)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "dialect", "kind"), combinations())
def test_diffusers_loads_a_file_as_we_do_or_otherwise_as_the_table_says(
    zoos: dict[str, Tiny], family: str, dialect: str, kind: str
) -> None:
    zoo, file = zoos[family], written(zoos[family], dialect, kind)
    wanted = lora_zoo.elsewhere(family, dialect, kind)
    if wanted == lora_zoo.RAISES:
        with pytest.raises(ValueError, match=r"Invalid LoRA|renamed|Target modules"):
            of_diffusers(zoo, file)
        return
    found = of_diffusers(zoo, file)
    base = {key: zoo.weight(*key) for key in file.keys}
    if wanted == lora_zoo.NOTHING:
        assert close(found, base)
    elif wanted == lora_zoo.DROPPED:  # kohya's DoRA: the direction without the magnitude
        held = safetensors.torch.load(file.data)
        for key, parts in file.keys.items():
            factors = {part: held[k].double().numpy() for part, k in parts.items() if part != "dora_scale"}
            base[key] = base[key] + lora_zoo.lora_means(factors, base[key])
        assert close(found, base)
    else:
        means = {key: base[key] + change for key, change in file.means(zoo).items()}
        if wanted == lora_zoo.PARTLY:  # transformers' loader does not know the magnitude's key
            assert not close({key: x for key, x in found.items() if key[0] != "unet"}, means)
            found = {key: x for key, x in found.items() if key[0] == "unet"}
        assert close(found, means)


@pytest.mark.parametrize("attends", [(True, True, True, False), (False, True, True)])
def test_every_module_of_the_real_layouts_is_found_under_stabilitys_names(attends: tuple[bool, ...]) -> None:
    """SD 1.x's four levels and SDXL's three, as deep as they are and very thin."""
    down = tuple("CrossAttnDownBlock2D" if does else "DownBlock2D" for does in attends)
    up = tuple("CrossAttnUpBlock2D" if does else "UpBlock2D" for does in attends[::-1])
    more = {} if len(attends) == 4 else {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    unet = UNet2DConditionModel(
        block_out_channels=(4,) * len(attends), down_block_types=down, up_block_types=up, norm_num_groups=2,
        attention_head_dim=2, cross_attention_dim=4, projection_class_embeddings_input_dim=8, **more,
    )  # fmt: skip
    paths = [name for name, module in unet.named_modules() if next(module.parameters(recurse=False), None) is not None]
    assert len(paths) > 200
    for path in paths:
        name = lora_zoo.in_sgm(path, "", attends)
        assert target("", name) == path.replace(".", "_") == target("", path), name


def test_the_page_says_what_is_tested_here() -> None:
    said = lora_zoo.DOCS.read_text()
    assert lora_zoo.table() in said, "run python -m tests.engine.lora_zoo"

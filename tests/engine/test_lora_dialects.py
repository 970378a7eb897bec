"""Every dialect and kind of LoRA file does to the weights what its formula says, re-derived without our reader."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from engine.diffusion.rack import Rack
from engine.lora.blend import blend, deltas
from engine.lora.read import read
from tests.engine import lora_zoo
from tests.engine.lora_zoo import Tiny, Written, combinations, metadata, tiny, written


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
            key = model, lora_zoo._own(zoo.models[model], path)
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

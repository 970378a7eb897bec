"""The rack's promises: what is written in is exact, what is taken out leaves no trace."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from engine.diffusion.render import Brush, draw
from engine.diffusion.resident import Resident
from engine.errors import BadLoraFile, WrongBase
from engine.lora.blend import blend, deltas
from engine.lora.read import read
from engine.plans import LoraRef, LoraStack
from engine.prompts import Prompt
from tests.engine.studio import Bench


def state(resident: Resident) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in resident.parts.denoiser.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k].view(torch.int32), b[k].view(torch.int32)) for k in a)


def latents(resident: Resident) -> torch.Tensor:
    brush = Brush("a cat", "", 1, 32, 32, 2, 3.0, "dpm++")
    *_, last = draw(resident, brush)
    return last.latents


def test_a_stack_changes_the_weights_by_the_weighted_sum_of_its_loras(resident: Resident, bench: Bench) -> None:
    before = state(resident)
    names = bench.lora("one", rank=4), bench.lora("two", rank=7, targets=("to_q", "ff.net.2"))
    stack = LoraStack((bench.ref(names[0], 0.8), bench.ref(names[1], -0.5)))
    with resident.stacked(stack, bench.weights):
        during = state(resident)
    files = {ref.name: read(bench.files[ref.name], ref.name) for ref in stack.refs}
    touched = 0
    for name, weight in before.items():
        key = name.removesuffix(".weight").replace(".", "_")
        wanted = weight.clone()
        for ref in stack.refs:
            if (factors := files[ref.name].layers.get(key)) is not None:
                touched += 1
                rank = factors.down.shape[0]
                wanted += (
                    ref.weight * factors.alpha / rank * torch.from_numpy(factors.up) @ torch.from_numpy(factors.down)
                )
        torch.testing.assert_close(during[name], wanted, rtol=1e-5, atol=1e-5)
    assert touched == sum(len(file.layers) for file in files.values()) > 0


def test_two_loras_add_without_cross_terms(resident: Resident, bench: Bench) -> None:
    files = [deltas(read(bench.files[bench.lora(name)], name)) for name in ("one", "two")]
    both = blend([(files[0], 1.0), (files[1], 1.0)])
    for key, delta in both.items():
        apart = sum(f[key].up @ f[key].down for f in files)
        torch.testing.assert_close(delta.up @ delta.down, apart, rtol=1e-4, atol=1e-5)


def test_the_base_is_bit_identical_after_200_stacks_failures_cancels_and_moves(
    resident: Resident, bench: Bench
) -> None:
    before, rng = state(resident), random.Random(0)
    names = [
        bench.lora(f"lora{i}", rank=rng.choice((1, 4, 16)), targets=rng.choice((("to_q",), ("to_k", "ff.net.2"))))
        for i in range(6)
    ]
    for turn in range(200):
        chosen = rng.sample(names, rng.randint(0, 5))
        stack = LoraStack(tuple(bench.ref(name, rng.uniform(-2, 2)) for name in chosen))
        try:
            with resident.stacked(stack, bench.weights):
                if turn % 8 == 0:
                    steps = draw(resident, Brush("a cat", "", turn, 16, 16, 2, 1.0, "dpm++"))
                    next(steps)
                    if turn % 16 == 0:
                        raise RuntimeError("a failure in mid-picture")
                    steps.close()
        except RuntimeError:
            pass
        if turn % 20 == 0:
            resident.move(torch.device("cpu"))
    assert same(before, state(resident))


def test_a_stack_with_one_bad_member_changes_nothing(resident: Resident, bench: Bench) -> None:
    before = state(resident)
    good = bench.lora("good")
    bench.files["other"] = bench.files[good].replace(b"attn1", b"attnX")
    with pytest.raises(WrongBase), resident.stacked(LoraStack((bench.ref(good), bench.ref("other"))), bench.weights):
        pass
    bench.files["broken"] = bench.files[good][:-8] + b"\x00\x7e" * 4  # fp16 NaN
    with pytest.raises(BadLoraFile), resident.stacked(LoraStack((bench.ref("broken"),)), bench.weights):
        pass
    assert same(before, state(resident))


def test_a_lora_of_another_shape_is_refused_with_the_reason(tiny_home: Path, resident: Resident, bench: Bench) -> None:
    name = bench.lora("wide", targets=("attn2.to_k",))
    file = deltas(read(bench.files[name], name))
    wide = {key: type(d)(torch.cat([d.down, d.down], 1), d.up) for key, d in file.items()}
    with pytest.raises(WrongBase, match="is needed"):
        resident.rack.check("wide", resident.base.name, wide)


def test_the_pristine_state_is_the_base_while_a_stack_is_in(resident: Resident, bench: Bench) -> None:
    before = state(resident)
    with resident.stacked(LoraStack((bench.ref(bench.lora("one")),)), bench.weights):
        assert not same(before, state(resident))
        assert same(before, resident.rack.pristine())


def test_a_stack_still_works_after_the_base_was_moved(resident: Resident, bench: Bench) -> None:
    stack = LoraStack((bench.ref(bench.lora("one")),))
    with resident.stacked(stack, bench.weights):
        first = latents(resident)
    resident.move(torch.device("cpu"))
    with resident.stacked(stack, bench.weights):
        assert torch.equal(first, latents(resident))
    assert not torch.equal(first, latents(resident))


def test_a_lora_of_the_text_encoder_changes_what_texts_mean_while_it_is_in(resident: Resident) -> None:
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    rng = np.random.default_rng(0)
    parts = {"down": rng.normal(size=(2, 16)), "up": rng.normal(size=(32, 2))}
    files = {"voice": save({f"{name}.lora_{part}.weight": x.astype("f4") for part, x in parts.items()})}

    def meaning() -> torch.Tensor:
        return resident.texts((Prompt("a cat"),))[0].tokens.clone()

    bare = meaning()
    with resident.stacked(LoraStack((LoraRef("voice", "a" * 64, 1.0),)), lambda ref: files[ref.name]):
        first = meaning()
    with resident.stacked(LoraStack((LoraRef("voice", "a" * 64, 0.5),)), lambda ref: files[ref.name]):
        second = meaning()
    assert not torch.equal(bare, first)
    assert not torch.equal(first, second)
    assert torch.equal(bare, meaning())
    resident.move(torch.device("cpu"))
    assert torch.equal(bare, meaning())

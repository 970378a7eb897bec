"""Memory modes on the CPU, where it stands for both device and host: the same copies are made, and counted."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from engine import bases
from engine.bases import memory
from engine.bases.memory import MODES, Machine, Mode, Place, Wanted, blocks, choose, precision
from engine.catalog import Catalog
from engine.diffusion import resident as resident_module
from engine.diffusion.offload import Slab, Streamed
from engine.diffusion.rack import Rack
from engine.diffusion.render import Brush, draw
from engine.diffusion.resident import Resident
from engine.diffusion.small import Small, quantised, shrink
from engine.diffusion.waiting import Shelf, Waiting
from engine.errors import BadLoraFile, BaseTooLarge, Invalid, OutOfMemory
from engine.jobs import Drawn
from engine.lora.blend import Delta
from engine.plans import LoraRef, LoraStack
from engine.runners import Runners
from tests.engine.studio import Bench, image_plan, pixels, result, train_plan

CPU = torch.device("cpu")
EXACT: tuple[Mode, ...] = ("pinned", "offload")
GB = 10**9


def held(home: Path, name: str, mode: Mode) -> Resident:
    return Resident(bases.find(name, home), CPU, torch.float32, mode)


def latents(resident: Resident, seed: int = 1, prompt: str = "a cat") -> Tensor:
    *_, last = draw(resident, Brush(prompt, "blurred", seed, 32, 32, 2, 3.0, "dpm++"))
    return last.latents.clone()


def bits(resident: Resident) -> dict[str, Tensor]:
    """All weights of the networks that stacks are written into."""
    networks = (resident.parts.denoiser, *resident.parts.encoders)
    return {f"{i}.{k}": v.clone() for i, net in enumerate(networks) for k, v in net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def three(bench: Bench, base_name: str) -> LoraStack:
    """Two LoRAs of the denoiser of different targets and ranks; a third with a text encoder, a bias and a LoHa."""
    bench.lora("one", rank=4)
    bench.lora("two", rank=7, targets=("to_q", "ff.net.2"), scale=0.2)
    rng = np.random.default_rng(5)

    def part(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.2, shape).astype("f4")

    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_k"
    voice = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    if base_name == "tiny-sdxl":
        voice = voice.replace("_te_", "_te1_")
    bench.files["three"] = save({
        f"{voice}.lora_down.weight": part(2, 16), f"{voice}.lora_up.weight": part(32, 2),
        f"{layer}.hada_w1_a": part(16, 2), f"{layer}.hada_w1_b": part(2, 16),
        f"{layer}.hada_w2_a": part(16, 2), f"{layer}.hada_w2_b": part(2, 16),
        "lora_unet_conv_in.diff_b": part(8),
    })  # fmt: skip
    return LoraStack((bench.ref("one", 0.8), bench.ref("two", -0.5), bench.ref("three", 0.7)))


@pytest.mark.parametrize("mode", EXACT)
def test_a_picture_is_the_same_bit_for_bit_in_every_exact_mode(
    tiny_home: Path, base_name: str, resident: Resident, bench: Bench, mode: Mode
) -> None:
    other, stack = held(tiny_home, base_name, mode), three(bench, base_name)
    assert torch.equal(latents(resident), latents(other))
    with resident.stacked(stack, bench.weights), other.stacked(stack, bench.weights):
        wanted = latents(resident)
        assert torch.equal(wanted, latents(other))
        assert torch.equal(wanted, latents(other)), "a second pass knows the order of the blocks"
        assert torch.equal(resident.decode(wanted), other.decode(wanted))
    assert not torch.equal(wanted, latents(resident))
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(resident.encode(pixels), other.encode(pixels))


@pytest.mark.parametrize("mode", EXACT)
def test_the_bare_base_is_bit_identical_after_50_cycles_and_failures(
    tiny_home: Path, base_name: str, bench: Bench, mode: Mode
) -> None:
    other, stack = held(tiny_home, base_name, mode), three(bench, base_name)
    before = bits(other)
    for turn in range(50):
        weights = tuple(LoraRef(ref.name, ref.sha256, ref.weight * (1 + turn / 50)) for ref in stack.refs)
        try:
            with other.stacked(LoraStack(weights[: 1 + turn % 3]), bench.weights):
                assert not same(before, bits(other))
                if turn % 10 == 0:
                    steps = draw(other, Brush("a cat", "", turn, 16, 16, 2, 1.0, "dpm++"))
                    next(steps)
                    if turn % 20 == 0:
                        raise RuntimeError("a failure in mid-picture")
                    steps.close()
        except RuntimeError:
            pass
    assert same(before, bits(other))


def test_in_mode_pinned_only_weights_that_a_stack_changed_have_a_copy(
    tiny_home: Path, base_name: str, bench: Bench
) -> None:
    other = held(tiny_home, base_name, "pinned")
    assert not other.rack._bare
    with other.stacked(LoraStack((bench.ref(bench.lora("one", targets=("attn1.to_q",))),)), bench.weights):
        pass
    assert other.rack._bare
    assert all(name.endswith("attn1_to_q") for name in other.rack._bare)


def test_weights_that_are_written_some_at_a_time_are_the_same(
    tiny_home: Path, base_name: str, resident: Resident, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, stack = held(tiny_home, base_name, "pinned"), three(bench, base_name)
    monkeypatch.setattr("engine.diffusion.rack.AT_ONCE", 1)
    with resident.stacked(stack, bench.weights), other.stacked(stack, bench.weights):
        assert same(bits(resident), bits(other))


def test_training_takes_its_weights_from_a_pinned_base_and_is_refused_where_they_are_elsewhere(
    tiny_home: Path, base_name: str, resident: Resident
) -> None:
    pinned = held(tiny_home, base_name, "pinned")
    pinned.check_trains()
    ours, theirs = pinned.rack.pristine(), resident.rack.pristine()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for mode in ("offload", "small"):
        with pytest.raises(Invalid, match=f"“{mode}”"):
            held(tiny_home, base_name, mode).check_trains()


# --- streaming -----------------------------------------------------------------------------------------------------


class Stairs(nn.Module):
    """Blocks in a list, and a head outside of it; `breaks` makes the second one fail."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))
        self.head = nn.Linear(8, 8)
        self.order = [0, 1, 2, 3, 4]
        self.breaks = False

    def forward(self, x: Tensor) -> Tensor:
        for i in self.order:
            x = self.blocks[i](x).tanh()
            if self.breaks:
                raise RuntimeError("broken off")
        return self.head(x)


@pytest.fixture
def stairs() -> tuple[Stairs, Streamed, Tensor]:
    torch.manual_seed(0)
    net = Stairs().requires_grad_(False)
    wanted = net(torch.ones(1, 8))
    return net, Streamed(net, CPU).hook(), wanted


def test_each_block_is_brought_once_a_pass_and_foreseen_from_the_second_pass_on(
    stairs: tuple[Stairs, Streamed, Tensor],
) -> None:
    net, streamed, wanted = stairs
    assert torch.equal(net(torch.ones(1, 8)), wanted)
    assert streamed.waits == 5
    whole = sum(-(-p.nbytes // 64) * 64 for p in net.parameters())
    assert streamed.copied == whole
    assert torch.equal(net(torch.ones(1, 8)), wanted)
    assert (streamed.waits, streamed.copied) == (5, 2 * whole)


def test_another_order_than_foreseen_is_right_too(stairs: tuple[Stairs, Streamed, Tensor]) -> None:
    net, streamed, _ = stairs
    net(torch.ones(1, 8))
    net.order = [3, 1, 1, 4]
    plain = Stairs()
    plain.load_state_dict(net.state_dict())
    plain.order = net.order
    for _ in range(3):
        assert torch.equal(net(torch.ones(1, 8)), plain(torch.ones(1, 8)))
    assert streamed.waits > 5


def test_after_any_pass_the_weights_are_at_home_and_a_broken_one_leaves_no_trace(
    stairs: tuple[Stairs, Streamed, Tensor],
) -> None:
    net, streamed, wanted = stairs
    homes = {name: p.data_ptr() for name, p in net.named_parameters()}
    net.breaks = True
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken off"):
            net(torch.ones(1, 8))
        assert homes == {name: p.data_ptr() for name, p in net.named_parameters()}
        assert not streamed._buffers
    net.breaks = False
    assert torch.equal(net(torch.ones(1, 8)), wanted)
    assert homes == {name: p.data_ptr() for name, p in net.named_parameters()}


def test_during_a_pass_there_are_two_blocks_on_the_device_and_no_more(stairs: tuple[Stairs, Streamed, Tensor]) -> None:
    net, streamed, _ = stairs
    seen: set[int] = set()
    for block in net.blocks:
        block.register_forward_pre_hook(lambda module, _: seen.add(module.weight.data_ptr()))
    net(torch.ones(1, 8))
    net(torch.ones(1, 8))
    homes = {block.weight.data_ptr() for block in net.blocks}
    assert not seen & homes
    assert len(seen) <= 4  # two buffers in each pass
    assert max(map(len, streamed._slabs.values())) == 8 * 8 * 4 + 64


def test_a_block_called_from_within_another_does_not_take_its_buffer() -> None:
    class Nested(Stairs):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(super().forward(x))

    class Calls(nn.Module):
        def __init__(self, other: nn.Module) -> None:
            super().__init__()
            self.own = nn.Linear(8, 8)
            self._other = [other]  # not a child

        def forward(self, x: Tensor) -> Tensor:
            return self.own(self._other[0](x))

    torch.manual_seed(0)
    net = Nested()
    net.blocks[1] = Calls(net.blocks[4])
    net.requires_grad_(False)
    wanted = net(torch.ones(1, 8))
    Streamed(net, CPU).hook()
    for _ in range(3):
        assert torch.equal(net(torch.ones(1, 8)), wanted)


def test_a_slab_holds_tensors_of_all_types_and_keeps_what_they_are() -> None:
    tensors = [torch.randn(3, 5), torch.randn(7).bfloat16(), torch.arange(5), torch.tensor(True), torch.randn(0, 4)]
    before = [tensor.clone() for tensor in tensors]
    slab = Slab(tensors, CPU)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(before, tensors, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, slab.copied(), strict=True))
    assert len(slab) == 64 * 4


def test_blocks_are_the_outermost_elements_within_the_limit() -> None:
    sizes = {
        "conv_in.weight": 5,
        "down.0.resnets.0.conv.weight": 40,
        "down.1.attentions.0.blocks.0.q.weight": 100,
        "down.1.attentions.0.blocks.1.q.weight": 100,
        "down.1.attentions.0.proj.weight": 3,
        "down.1.resnets.0.conv.weight": 90,
        "layers.0.ff.net.0.weight": 100,
        "layers.0.attn.weight": 100,
    }
    assert blocks(sizes, 120) == {
        "conv_in.weight": "",
        "down.0.resnets.0.conv.weight": "down.0",
        "down.1.attentions.0.blocks.0.q.weight": "down.1.attentions.0.blocks.0",
        "down.1.attentions.0.blocks.1.q.weight": "down.1.attentions.0.blocks.1",
        "down.1.attentions.0.proj.weight": "",
        "down.1.resnets.0.conv.weight": "down.1.resnets.0",
        "layers.0.ff.net.0.weight": "layers.0",  # its lists are half of it: parts would leave the other half there
        "layers.0.attn.weight": "layers.0",
    }
    assert set(blocks(sizes, 1000).values()) == {"", "down.0", "down.1", "layers.0"}


# --- small ---------------------------------------------------------------------------------------------------------


def test_float8_is_off_by_a_sixteenth_of_a_weight_at_most_and_its_scale_is_exact() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 300) * torch.logspace(-4, 2, 64)[:, None]
    weight[3] = 0
    q, scale = quantised(weight)
    back = q.float() * scale
    assert q.dtype == torch.float8_e4m3fn
    assert torch.equal(torch.log2(scale), torch.log2(scale).round())
    assert bool(((back - weight).abs() <= weight.abs() / 16 + scale * 2**-10).all())
    assert torch.equal((q.to(torch.bfloat16) * scale.to(torch.bfloat16)).float(), back)
    assert not back[3].any()


@pytest.mark.parametrize("layer", [nn.Linear(80, 64), nn.Conv2d(16, 32, 3, stride=2, padding=1)])
def test_a_small_layer_with_a_lora_beside_it_is_one_with_the_lora_in_its_weight(layer: nn.Linear | nn.Conv2d) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 80) if isinstance(layer, nn.Linear) else torch.randn(2, 16, 9, 9)
    small = Small(layer, CPU)
    out, wide = layer.weight.flatten(1).shape
    small.delta = Delta(torch.randn(3, wide) / 9, torch.randn(out, 3) / 9)
    with torch.no_grad():
        layer.weight.copy_(small.weight + (small.delta.up @ small.delta.down).view(layer.weight.shape))
        torch.testing.assert_close(small(x), layer(x), rtol=1e-4, atol=1e-5)
    assert small.weight.shape == layer.weight.shape


def test_a_picture_in_mode_small_is_near_and_a_stack_leaves_nothing(
    tiny_home: Path, base_name: str, resident: Resident, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tolerance is that of float8: a sixteenth of each weight at most, which evens out over a layer's sum."""
    monkeypatch.setattr("engine.diffusion.small.LEAST", 1)
    other, stack = held(tiny_home, base_name, "small"), three(bench, base_name)
    assert sum(isinstance(module, Small) for module in other.parts.denoiser.modules()) > 20
    bare, near = latents(resident), latents(other)
    assert 0 < float((near - bare).norm() / bare.norm()) < 0.1
    with other.stacked(stack, bench.weights), resident.stacked(stack, bench.weights):
        changed, wanted = latents(other), latents(resident)
    assert float((changed - wanted).norm() / wanted.norm()) < 0.1
    assert float((changed - near).norm() / (wanted - bare).norm()) == pytest.approx(1, abs=0.15)
    for _ in range(50):
        with other.stacked(stack, bench.weights):
            pass
    assert torch.equal(near, latents(other))


def test_in_mode_small_a_stack_does_to_float8_weights_what_it_does_to_the_same_weights_in_full(
    tiny_home: Path, base_name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quantised weights put into a full base: what is left between the two is the order of sums."""
    monkeypatch.setattr("engine.diffusion.small.LEAST", 1)
    other, stack = held(tiny_home, base_name, "small"), three(bench, base_name)
    full = held(tiny_home, base_name, "full")
    own = dict(full.parts.denoiser.named_modules())
    for path, layer in other.parts.denoiser.named_modules():
        if isinstance(layer, Small):
            own[path].weight.data.copy_(layer.weight)
    with other.stacked(stack, bench.weights), full.stacked(stack, bench.weights):
        torch.testing.assert_close(latents(other), latents(full), rtol=1e-3, atol=1e-3)


def test_shrinking_halves_twice_what_float32_takes() -> None:
    net = nn.Sequential(nn.Linear(128, 128), nn.LayerNorm(128), nn.Linear(128, 4))
    shrink(net, CPU)
    assert isinstance(net[0], Small)
    assert net[0].q.nbytes + net[0].scale.nbytes == 128 * 128 + 128 * 4
    assert isinstance(net[2], nn.Linear)  # too small to matter


def test_a_rack_knows_small_layers_by_the_names_of_their_weights() -> None:
    net = nn.ModuleDict({"a": nn.Linear(128, 128)})
    shrink(net, CPU)
    rack = Rack(net, device=CPU)
    assert rack.shapes == {"a": (128, 128), "a.bias": (128, 1)}


# --- LoRAs that wait -----------------------------------------------------------------------------------------------


def waiting(numbers: int) -> Waiting:
    return Waiting({"a": Delta(torch.zeros(1, numbers - 16), torch.zeros(16, 1))}, CPU)


def test_loras_are_kept_up_to_a_bound_in_bytes_and_the_one_used_longest_ago_goes() -> None:
    one = waiting(1024).bytes
    shelf, read = Shelf(3 * one), []

    def get(*keys: str) -> None:
        shelf.get([(key, lambda key=key: read.append(key) or waiting(1024)) for key in keys])

    get("a", "b", "c")
    get("a")
    get("d")
    assert read == ["a", "b", "c", "d"]
    assert shelf.bytes == 3 * one
    assert [key in shelf for key in "abcd"] == [True, False, True, True]
    get("a", "b", "c", "d")  # more than there is room for: all are there for this once
    assert shelf.bytes == 3 * one
    shelf.get([("huge", lambda: waiting(1024 * 100))])
    assert "huge" not in shelf
    assert shelf.bytes <= 3 * one


def test_a_cold_file_is_read_on_another_thread_while_the_prompt_is_encoded(resident: Resident, bench: Bench) -> None:
    stack = LoraStack((bench.ref(bench.lora("one")),))
    encoding = threading.Event()
    threads: list[str] = []

    def weights(ref: LoraRef) -> bytes:
        assert encoding.wait(20), "the file is read before the prompt"
        threads.append(threading.current_thread().name)
        return bench.weights(ref)

    with resident.stacked(stack, weights, meanwhile=encoding.set):
        first = latents(resident)
    assert threads[0].startswith("loras")
    encoding.clear()
    with resident.stacked(stack, weights, meanwhile=encoding.set):
        assert torch.equal(first, latents(resident))
    assert not encoding.is_set(), "nothing is read, so nothing is done meanwhile"
    assert len(threads) == 1


def test_texts_that_were_encoded_meanwhile_are_not_taken_for_those_of_a_lora_that_changes_them(
    resident: Resident, bench: Bench, tiny_home: Path, base_name: str
) -> None:
    stack = three(bench, base_name)
    with resident.stacked(stack, bench.weights, meanwhile=lambda: latents(resident)):
        meanwhile = latents(resident)
    fresh = held(tiny_home, base_name, "full")
    with fresh.stacked(stack, bench.weights):
        assert torch.equal(meanwhile, latents(fresh))


def test_a_bad_file_is_an_error_of_the_person_and_the_next_one_is_read(resident: Resident, bench: Bench) -> None:
    good = bench.ref(bench.lora("one"))
    bench.files["bad"] = b"nonsense"
    bad = LoraStack((good, bench.ref("bad")))
    with pytest.raises(BadLoraFile), resident.stacked(bad, bench.weights, meanwhile=lambda: None):
        pass
    with pytest.raises(ZeroDivisionError), resident.stacked(bad, bench.weights, meanwhile=lambda: 1 // 0):
        pass
    with resident.stacked(LoraStack((good,)), bench.weights):
        pass


# --- choices -------------------------------------------------------------------------------------------------------

NEEDS: dict[Mode, Place] = {
    "full": Place(15 * GB, 0), "pinned": Place(9 * GB, 7 * GB), "offload": Place(3 * GB, 12 * GB),
    "small": Place(5 * GB, 2 * GB),
}  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "wanted", "mode"),
    [
        (Machine("cuda", 24 * GB, 64 * GB), "auto", "full"),
        (Machine("cuda", 15 * GB, 0), "auto", "full"),
        (Machine("cuda", 12 * GB, 64 * GB), "auto", "pinned"),
        (Machine("cuda", 8 * GB, 64 * GB), "auto", "offload"),
        (Machine("cuda", 12 * GB, 4 * GB), "auto", "small"),  # the host is too small for a copy
        (Machine("cuda", 8 * GB, 8 * GB), "auto", "small"),
        (Machine("cuda", 2 * GB, 64 * GB), "auto", None),
        (Machine("cuda", 4 * GB, 8 * GB), "auto", None),
        (Machine("cuda", None, None), "auto", "full"),
        (Machine("cuda", 24 * GB, 64 * GB), "offload", "offload"),
        (Machine("cuda", 12 * GB, 64 * GB), "full", None),
        (Machine("cuda", 12 * GB, 64 * GB), "small", "small"),
        (Machine("cpu", 16 * GB), "auto", "full"),
        (Machine("cpu", 8 * GB), "auto", "small"),  # nowhere else to wait
        (Machine("cpu", 16 * GB), "pinned", "pinned"),
        (Machine("mps", 16 * GB), "auto", "full"),
        (Machine("mps", 12 * GB), "auto", None),  # no float8 there
    ],
)
def test_the_mode_is_the_first_exact_one_that_fits(machine: Machine, wanted: Wanted, mode: Mode | None) -> None:
    assert choose(NEEDS, machine, wanted) == mode


@pytest.mark.parametrize(
    ("machine", "wanted", "found"),
    [
        (Machine("cuda"), "bfloat16", "bfloat16"),
        (Machine("cuda", bf16=False), "bfloat16", "float16"),  # Turing
        (Machine("cuda", bf16=False), "float32", "float32"),
        (Machine("cuda"), "float32", "float32"),
        (Machine("mps"), "bfloat16", "bfloat16"),
        (Machine("mps", bf16=False), "bfloat16", "float16"),
        (Machine("cpu"), "bfloat16", "float32"),
    ],
)
def test_the_type_is_what_the_machine_computes_in(machine: Machine, wanted: str, found: str) -> None:
    assert precision(machine, wanted) == found  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_that_is_large_for_what_is_free_is_decoded_in_tiles(
    tiny_home: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = held(tiny_home, "tiny-sd", mode)
    z = torch.randn(1, 4, 64, 64)
    whole = resident.decode(z)
    assert not resident.parts.vae.use_tiling
    monkeypatch.setattr(resident_module, "free_memory", lambda _: 128 * 128 * 8 * 12 - 1)
    tiled = resident.decode(z)
    assert resident.parts.vae.use_tiling
    assert tiled.shape == whole.shape
    monkeypatch.setattr(resident_module, "free_memory", lambda _: 128 * 128 * 8 * 12)
    assert torch.equal(resident.decode(z), whole)


def test_a_decoding_that_finds_no_memory_is_tried_again_in_tiles(
    tiny_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = held(tiny_home, "tiny-sd", "full")
    decode = type(resident.family).to_pixels

    def to_pixels(self: object, parts: object, z: Tensor) -> Tensor:
        if not resident.parts.vae.use_tiling:
            raise torch.OutOfMemoryError("no")
        return decode(self, parts, z)  # pyright: ignore

    monkeypatch.setattr(type(resident.family), "to_pixels", to_pixels)
    assert resident.decode(torch.randn(1, 4, 16, 16)).shape == (1, 3, 32, 32)


def test_runners_take_the_wanted_mode_say_it_in_the_recipe_and_name_a_smaller_one_when_memory_ends(
    tiny_home: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    runners = Runners(catalog, tiny_home, CPU, wanted="offload")
    drawn = result(runners.run(image_plan("tiny-sd")))
    plain = result(Runners(catalog, tiny_home, CPU).run(image_plan("tiny-sd")))
    assert isinstance(drawn, Drawn)
    assert isinstance(plain, Drawn)
    assert drawn.pictures[0].recipe["made_with"]["memory"] == "offload"
    assert plain.pictures[0].recipe["made_with"]["memory"] == "full"
    assert pixels(drawn.pictures[0].png) == pixels(plain.pictures[0].png)
    with pytest.raises(Invalid, match="offload"):
        list(runners.run(train_plan("tiny-sd")))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr("engine.runners.finish", full)
    on_gpu = Machine("cuda", 10**12, 10**12)
    monkeypatch.setattr("engine.runners.machine", lambda _: on_gpu)
    runners = Runners(catalog, tiny_home, CPU)
    with pytest.raises(OutOfMemory) as caught:
        list(runners.run(image_plan("tiny-sd")))
    assert caught.value.mode == "pinned"
    assert "--memory pinned" in caught.value.hint


def test_a_base_that_does_not_fit_in_the_wanted_mode_says_in_which_it_would(tiny_home: Path) -> None:
    base = bases.find("tiny-sdxl", tiny_home)
    table = memory.needs(base, "bfloat16")
    assert table["full"].device > table["pinned"].device > table["offload"].device
    tight = Machine("cuda", table["pinned"].device, 10**12)
    assert memory.mode_for(base, tight) == "pinned"
    with pytest.raises(BaseTooLarge) as caught:
        memory.mode_for(base, tight, "full")
    assert (caught.value.wanted, caught.value.mode) == (table["full"].device, "pinned")
    with pytest.raises(BaseTooLarge) as caught:
        memory.mode_for(base, Machine("cuda", 10**12, 1), "offload")  # the host is too small
    assert (caught.value.wanted, caught.value.gpu, caught.value.mode) == (table["offload"].host, False, "full")
    with pytest.raises(BaseTooLarge) as caught:
        memory.mode_for(base, Machine("cuda", 1, 10**12))
    assert (caught.value.wanted, caught.value.mode) == (min(place.device for place in table.values()), "")
    with pytest.raises(Invalid, match="float8"):
        memory.mode_for(base, Machine("mps", 10**12), "small")


def test_what_streaming_takes_is_what_the_network_streams(tiny_home: Path) -> None:
    """The estimate from the files' headers, against the buffers that the network itself makes."""
    base = bases.find("tiny-sdxl", tiny_home)
    streamed = Streamed(held(tiny_home, "tiny-sdxl", "full").parts.denoiser, CPU)
    own = len(streamed._rest) + 2 * streamed._largest
    assert memory._passing(base.folder, "unet", 4) == pytest.approx(own, rel=0.25)  # slabs are aligned to 64 bytes


@pytest.mark.parametrize(
    ("cuda", "mps", "made_for", "device"),
    [
        (True, False, "float32", "cuda"),
        (True, True, "bfloat16", "cuda"),
        (False, True, "bfloat16", "mps"),
        (False, True, "float32", "cpu"),
        (False, False, "bfloat16", "cpu"),
    ],
)
def test_the_device_is_an_nvidia_gpu_else_apples_for_what_was_made_for_a_gpu_else_the_cpu(
    cuda: bool, mps: bool, made_for: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resident_module.best_device(made_for).type == device

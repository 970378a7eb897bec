"""How fast a stack of three LoRAs is changed, beside every way of diffusers: `python -m benchmarks.switching`.

SDXL's UNet at its real size with random weights; LoRAs of rank 16, 32 and 64 on all of its attention. What each way
makes is compared first. Then: the seconds of a switch from one stack to another, what a forward pass costs with a
stack in, what is compiled anew over random stacks, and what many switches leave behind. `--tiny` does it all on a CPU.
"""

# pyright: basic, reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging
from torch import Tensor, nn

from benchmarks.bench import machine
from engine.bases.layouts import SINGLE
from engine.diffusion.rack import Rack
from engine.lora.blend import Delta, blend
from engine.lora.dialects import flat

RANKS = (16, 32, 64)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
STACKS = ((0.8, 0.6, 0.4), (0.5, -0.3, 1.0))  # weights of the three, before and after a switch
TINY: dict[str, Any] = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 32,
    "attention_head_dim": (2, 4), "transformer_layers_per_block": 1, "sample_size": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "projection_class_embeddings_input_dim": 176, "addition_time_embed_dim": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Lora:
    """Factors by module path: A (r, in) and B (out, r); α = r."""

    name: str
    rank: int
    factors: dict[str, tuple[Tensor, Tensor]]

    def peft(self) -> dict[str, Tensor]:
        """As a file of diffusers has it."""
        ends = ("lora_A", "lora_B")
        return {
            f"unet.{path}.{end}.weight": value
            for path, pair in self.factors.items()
            for end, value in zip(ends, pair, strict=True)
        }

    def deltas(self) -> dict[str, Delta]:
        return {flat(path): Delta(down.float(), up.float()) for path, (down, up) in self.factors.items()}


@dataclass(frozen=True)
class Bench:
    """The network, what it is shown, and how often things are timed."""

    config: dict[str, Any]
    device: str
    dtype: torch.dtype
    loras: list[Lora]
    side: int
    runs: int

    def unet(self) -> UNet2DConditionModel:
        """The same random weights each time."""
        torch.manual_seed(0)
        with torch.device(self.device):
            unet = UNet2DConditionModel.from_config(self.config).to(self.dtype)
        return unet.eval().requires_grad_(False)

    def forward(self, net: nn.Module) -> Tensor:
        """One pass with guidance, on fixed noise."""
        seed = torch.Generator(self.device).manual_seed(1)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=seed, device=self.device, dtype=self.dtype)

        pooled = self.config["projection_class_embeddings_input_dim"] - 6 * self.config["addition_time_embed_dim"]
        more = {"text_embeds": noise(2, pooled), "time_ids": noise(2, 6)}
        text = noise(2, 77, self.config["cross_attention_dim"])
        return net(noise(2, 4, self.side, self.side), 500, text, added_cond_kwargs=more, return_dict=False)[0]

    def seconds(self, work: Callable[[], Any], runs: int | None = None) -> float:
        """Median wall-clock seconds of `work`, the device waited for."""
        taken: list[float] = []
        for _ in range(runs or self.runs):
            self.wait()
            begun = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def new_bench(tiny: bool) -> Bench:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = json.loads((SINGLE / "sdxl" / "unet.json").read_text())
    if tiny:
        config |= TINY
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device("meta"):
        modules = dict(UNet2DConditionModel.from_config(config).named_modules())
    paths = [path for path in modules if ".attn" in path and path.endswith(ATTENTION)]
    loras: list[Lora] = []
    for number, rank in enumerate(RANKS if not tiny else (2, 3, 4)):
        seed = torch.Generator().manual_seed(100 + number)
        factors: dict[str, tuple[Tensor, Tensor]] = {}
        for path in paths:
            out, inner = modules[path].weight.shape
            down = torch.randn(rank, inner, generator=seed) / inner**0.5
            factors[path] = (down, torch.randn(out, rank, generator=seed) * 0.02)
        loras.append(Lora(f"lora{number}", rank, factors))
    return Bench(config, device, dtype, loras, 16 if tiny else 128, 3 if tiny else 10)


# The ways. Each yields a function that brings a stack of weights in.


@contextmanager
def ours(bench: Bench) -> Iterator[tuple[nn.Module, Callable[[tuple[float, ...]], None]]]:
    unet = bench.unet()
    rack = Rack(unet)
    held = [lora.deltas() for lora in bench.loras]
    for lora, layers in zip(bench.loras, held, strict=True):
        rack.check(lora.name, "SDXL", layers)
    inside: list[Any] = []

    def switch(weights: tuple[float, ...]) -> None:
        while inside:
            inside.pop().__exit__(None, None, None)
        inside.append(rack.stacked(blend(list(zip(held, weights, strict=True)))))
        inside[-1].__enter__()

    yield unet, switch


@contextmanager
def layer_by_layer(bench: Bench) -> Iterator[tuple[nn.Module, Callable[[tuple[float, ...]], None]]]:
    """The plain way without drift: each weight from its pristine copy, LoRA after LoRA."""
    unet = bench.unet()
    pristine = {path: unet.get_submodule(path).weight.detach().clone() for path in bench.loras[0].factors}
    held = [
        {path: [part.to(bench.device, bench.dtype) for part in pair] for path, pair in lora.factors.items()}
        for lora in bench.loras
    ]

    def switch(weights: tuple[float, ...]) -> None:
        for path, before in pristine.items():
            change = sum(weight * (lora[path][1] @ lora[path][0]) for lora, weight in zip(held, weights, strict=True))
            unet.get_submodule(path).weight.data.copy_(before + change)

    yield unet, switch


def registered(bench: Bench) -> UNet2DConditionModel:
    unet = bench.unet()
    for lora in bench.loras:
        state = {key: value.to(bench.device, bench.dtype) for key, value in lora.peft().items()}
        unet.load_lora_adapter(state, prefix="unet", adapter_name=lora.name, low_cpu_mem_usage=True)
    return unet


def names(bench: Bench) -> list[str]:
    return [lora.name for lora in bench.loras]


@contextmanager
def reload(bench: Bench) -> Iterator[tuple[nn.Module, Callable[[tuple[float, ...]], None]]]:
    """diffusers: take the LoRAs out, load them again from memory, set their weights."""
    unet = registered(bench)

    def switch(weights: tuple[float, ...]) -> None:
        unet.unload_lora()
        for lora in bench.loras:
            unet.load_lora_adapter(lora.peft(), prefix="unet", adapter_name=lora.name, low_cpu_mem_usage=True)
        unet.to(bench.device, bench.dtype)
        unet.set_adapters(names(bench), list(weights))

    yield unet, switch


@contextmanager
def adapters(bench: Bench) -> Iterator[tuple[nn.Module, Callable[[tuple[float, ...]], None]]]:
    """diffusers: all registered, their weights set; every step pays for them."""
    unet = registered(bench)
    yield unet, lambda weights: unet.set_adapters(names(bench), list(weights))


@contextmanager
def fused(bench: Bench) -> Iterator[tuple[nn.Module, Callable[[tuple[float, ...]], None]]]:
    """diffusers: the same, and fused into the weights."""
    unet = registered(bench)
    inside: list[bool] = []

    def switch(weights: tuple[float, ...]) -> None:
        if inside:
            unet.unfuse_lora()
        unet.set_adapters(names(bench), list(weights))
        unet.fuse_lora(adapter_names=names(bench))
        inside[:] = [True]

    yield unet, switch


@contextmanager
def hotswap(bench: Bench) -> Iterator[tuple[nn.Module, Callable[[tuple[float, ...]], None]]]:
    """diffusers: one LoRA of rank 64 swapped for another in place. It takes no stacks: the weights have no part."""
    unet, last = bench.unet(), bench.loras[-1]
    unet.enable_lora_hotswap(target_rank=last.rank)
    unet.load_lora_adapter(last.peft(), prefix="unet", adapter_name="one")
    unet.to(bench.device, bench.dtype)

    def switch(_: tuple[float, ...]) -> None:
        state = {key: value.to(bench.device, bench.dtype) for key, value in last.peft().items()}
        unet.load_lora_adapter(state, prefix="unet", adapter_name="one", hotswap=True)

    yield unet, switch


WAYS: dict[str, tuple[Callable[[Bench], Any], str]] = {
    "rack": (ours, "nothing"),
    "layer by layer": (layer_by_layer, "nothing"),
    "diffusers: reload + set_adapters": (reload, "every step"),
    "diffusers: registered + set_adapters": (adapters, "every step"),
    "diffusers: + fuse_lora": (fused, "nothing"),
    "diffusers: hotswap (one LoRA)": (hotswap, "every step"),
}


def apart(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    return float(((a - b).square().sum() / b.square().sum()).sqrt())


@torch.no_grad()
def table(bench: Bench) -> list[dict[str, Any]]:
    """A row for each way: seconds of a switch, a pass against the bare network's, how far it is from the rack."""
    bare_unet = bench.unet()
    plain = bench.forward(bare_unet).float()
    truth: Tensor | None = None
    rows: list[dict[str, Any]] = []
    for name, (way, costs) in WAYS.items():
        with way(bench) as (unet, switch):
            turns = [0]

            def change(switch: Any = switch, turns: list[int] = turns) -> None:
                turns[0] += 1
                switch(STACKS[turns[0] % 2])

            change()
            taken = bench.seconds(change)
            switch(STACKS[0])
            made = bench.forward(unet).float()
            if truth is None:
                truth = made
                print(f"the stack changes what the network says by {apart(made, plain):.1e}")
            pairs = [
                (bench.seconds(lambda: bench.forward(bare_unet), 1), bench.seconds(lambda u=unet: bench.forward(u), 1))
                for _ in range(bench.runs)
            ]
        row = {"way": name, "switch_s": taken, "costs": costs, "relative_l2": apart(made, truth)}
        rows.append(row | {"step": statistics.median(b / a for a, b in pairs)})
        print(f"{name}: {taken * 1000:.1f} ms, apart {row['relative_l2']:.1e}", flush=True)
    return rows


@torch.no_grad()
def exactness(bench: Bench, switches: int, cycles: int) -> dict[str, Any]:
    """Whether the base and a stack are the same bits after so many random switches; and what fuse and unfuse leave."""
    unet = bench.unet()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    rack, held, seed = Rack(unet), [lora.deltas() for lora in bench.loras], torch.Generator().manual_seed(3)
    first = blend(list(zip(held, STACKS[0], strict=True)))
    with rack.stacked(first):
        once = {name: value.clone() for name, value in unet.state_dict().items()}
    for _ in range(switches):
        weights = (torch.rand(len(held), generator=seed) * 2 - 1).tolist()
        some = [pair for pair in zip(held, weights, strict=True) if pair[1] > -0.5]
        with rack.stacked(blend(some)):
            pass
    base = all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    with rack.stacked(first):
        stack = all(torch.equal(value, once[name]) for name, value in unet.state_dict().items())
    other = registered(bench)
    for _ in range(cycles):
        other.fuse_lora(adapter_names=names(bench))
        other.unfuse_lora()
    path = next(iter(bench.loras[0].factors))
    left = other.get_submodule(path).base_layer.weight.float() - before[f"{path}.weight"].float()
    drift = float(left.norm() / before[f"{path}.weight"].float().norm())
    return {"switches": switches, "base": base, "stack": stack, "cycles": cycles, "fuse_unfuse_drift": drift}


@torch.no_grad()
def recompiled(bench: Bench, stacks: int, tiny: bool) -> int:
    """Graphs compiled anew over so many random stacks, after the first."""
    from torch._dynamo.utils import counters

    unet = bench.unet()
    rack, held, seed = Rack(unet), [lora.deltas() for lora in bench.loras], torch.Generator().manual_seed(4)
    with rack.stacked(blend(list(zip(held, STACKS[0], strict=True)))):
        pass  # the arenas are there from here on
    torch._dynamo.reset()
    unet.compile_repeated_blocks(**({"backend": "aot_eager"} if tiny else {}))
    bench.forward(unet)
    graphs = counters["stats"]["unique_graphs"]
    for _ in range(stacks):
        count = int(torch.randint(1, len(held) + 1, (1,), generator=seed))
        with rack.stacked(blend([(one, float(torch.rand(1, generator=seed))) for one in held[:count]])):
            bench.forward(unet)
    return counters["stats"]["unique_graphs"] - graphs


def page(rows: list[dict[str, Any]], exact: dict[str, Any], anew: int, stacks: int) -> str:
    free = [row for row in rows if row["costs"] == "nothing" and row["way"].startswith("diffusers")]
    mine, plain = rows[0], rows[1]
    lines = [machine(), "", "| way | a switch, ms | costs | a step | apart from the rack |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['way']} | {r['switch_s'] * 1000:.1f} | {r['costs']} | {r['step']:.3f}× | {r['relative_l2']:.1e} |"
        for r in rows
    ]
    best = min(row["switch_s"] for row in free)
    lines += [
        "",
        f"Against the fastest way of diffusers that costs nothing per step: {best / mine['switch_s']:.0f}×; "
        f"against a merge layer by layer: {plain['switch_s'] / mine['switch_s']:.1f}×.",
        f"After {exact['switches']:,} random switches base and stack are "
        f"{'the same bits' if exact['base'] and exact['stack'] else 'NOT the same bits'}; {exact['cycles']} cycles of "
        f"fuse and unfuse leave {exact['fuse_unfuse_drift']:.1e} of a weight's norm.",
        f"Graphs compiled anew over {stacks:,} random stacks: {anew}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--switches", type=int, help="10,000; 50 if tiny")
    args = parser.parse_args()
    logging.set_verbosity_error()
    bench, stacks = new_bench(args.tiny), 5 if args.tiny else 1_000
    rows = table(bench)
    exact = exactness(bench, args.switches or (50 if args.tiny else 10_000), 5 if args.tiny else 200)
    print(page(rows, exact, recompiled(bench, stacks, args.tiny), stacks))


if __name__ == "__main__":
    main()

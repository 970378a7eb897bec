"""What each memory mode takes and costs, on bases of real size: `python -m benchmarks.memory [--tiny]`.

SDXL, FLUX.2-klein-4B and FLUX.1, built from their configurations with random weights. Under an allocator that is capped
at 8, 12, 16 and 24 GB each draws 1024 px with three LoRAs of rank 16 in every mode that fits, plain diffusers' ways
(LoRAs unmerged, as `set_adapters` leaves them) beside it. A row is printed as soon as it is known; after `--minutes`
no new one is begun.

peak: GB that the allocator held at most; step: seconds of one step with the stack in; switch: a stack in and out;
cold: what LoRAs that lie on the disk add to the time from the request to the end of the first step, its prompt new
both times; apart: relative L2 of the latents to those of the first mode that was run; exact: a fifth of the weights,
spread over the networks, bit for bit as before 50 cycles of stacks.
"""

# pyright: basic, reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportCallIssue=false, reportIncompatibleMethodOverride=false
# ruff: noqa: ARG002

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, Flux2Transformer2DModel, FluxTransformer2DModel, UNet2DConditionModel
from diffusers.hooks import apply_group_offloading
from diffusers.utils import logging
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from benchmarks.bench import machine
from engine.bases import Base, Defaults, Preview, Size
from engine.bases.layouts import SINGLE
from engine.bases.memory import MODES, Mode
from engine.diffusion.families import Conditioning, Family, Parts
from engine.diffusion.families.sdxl import StableDiffusionXL
from engine.diffusion.render import Brush, draw, prompts
from engine.diffusion.resident import Resident
from engine.lora.changes import Factors
from engine.lora.write import write
from engine.plans import LoraRef, LoraStack
from engine.prompts import Prompt

CAPS = (8, 12, 16, 24)  # GB
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
RANK, STEPS, CYCLES = 16, 4, 50
WAYS = ("on the device", "model offload", "group offload")
SCHEDULERS = {"sdxl": json.loads((SINGLE / "sdxl" / "scheduler.json").read_text()),
              "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}}  # fmt: skip


# --- bases of random weights -----------------------------------------------------------------------------------------


def built(make: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    """A network whose matrices are noise of 1/√fan-in, biases 0, gains 1; filled from one pool, as it is quicker."""
    with init_empty_weights(include_buffers=False):
        net = make()
    pool = torch.randn(2**22, generator=torch.Generator().manual_seed(0)).to(dtype)
    made: dict[int, nn.Parameter] = {}
    for module in net.modules():
        for name, empty in list(module._parameters.items()):
            if empty is not None:
                if id(empty) not in made:
                    made[id(empty)] = nn.Parameter(_filled(name, empty.shape, pool), requires_grad=False)
                module._parameters[name] = made[id(empty)]
    return net.eval()


def _filled(name: str, shape: torch.Size, pool: Tensor) -> Tensor:
    if len(shape) < 2:
        return torch.full(shape, float(name != "bias"), dtype=pool.dtype)
    flat, scale = torch.empty(shape.numel(), dtype=pool.dtype), shape[1:].numel() ** -0.5
    for start in range(0, len(flat), len(pool)):
        part = flat[start : start + len(pool)]
        torch.mul(pool[: len(part)], scale, out=part)
    return flat.view(shape)


def _ids(count: int, vocabulary: int, prompt: Prompt, device: torch.device) -> Tensor:
    seed = torch.Generator().manual_seed(sum(map(ord, prompt.text)))
    return torch.randint(3, vocabulary - 3, (1, count), generator=seed).to(device)


class Sdxl(StableDiffusionXL):
    """Stable Diffusion XL; in place of its tokenizers, ids from the prompt's letters."""

    def __init__(self, tiny: bool) -> None:
        self.configs = {
            part: json.loads((SINGLE / "sdxl" / f"{part}.json").read_text())
            for part in ("unet", "vae", "text_encoder", "text_encoder_2")
        }
        if tiny:
            small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                     "projection_dim": 16}  # fmt: skip
            self.configs["text_encoder"] |= small
            self.configs["text_encoder_2"] |= small
            self.configs["vae"] |= {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
            self.configs["unet"] |= {
                "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 32,
                "attention_head_dim": (2, 4), "transformer_layers_per_block": 1, "sample_size": 16,
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "addition_time_embed_dim": 8,
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "projection_class_embeddings_input_dim": 64,
            }  # fmt: skip

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        clip = [CLIPTextConfig(**self.configs[part]) for part in ("text_encoder", "text_encoder_2")]
        return Parts(
            built(lambda: UNet2DConditionModel.from_config(self.configs["unet"]), dtype),
            built(lambda: AutoencoderKL.from_config(self.configs["vae"]), torch.float32),
            (),
            (built(lambda: CLIPTextModel(clip[0]), dtype), built(lambda: CLIPTextModelWithProjection(clip[1]), dtype)),
            SCHEDULERS["sdxl"],
        )

    def chunks(self, parts: Parts, cond: Conditioning) -> int:
        return 1

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        device = next(parts.encoders[0].parameters()).device
        ids = _ids(77, parts.encoders[0].config.vocab_size, prompt, device)
        one, two = (encoder(ids, output_hidden_states=True) for encoder in parts.encoders)
        return Conditioning(torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1), two.text_embeds)


class Flow(Family):
    """FLUX.1 and FLUX.2-klein: transformers that read packed latents, without a second pass."""

    samplers = ("euler",)
    preview = Preview(((0.0,) * 16,) * 3, (0.5,) * 3)

    def __init__(self, two: bool, tiny: bool) -> None:
        self.two, self.channels = two, 32 if two else 16
        heads, layers = (2, (1, 2)) if tiny else (24, (5, 20) if two else (19, 38))
        size = {"num_attention_heads": heads, "num_layers": layers[0], "num_single_layers": layers[1]}
        size |= {"attention_head_dim": 64 if tiny else 128, "in_channels": 4 * self.channels}
        self.text = 32 if tiny else 2560 if two else 4096
        self.net: dict[str, Any] = size | (
            {"joint_attention_dim": 3 * self.text, "guidance_embeds": False, "axes_dims_rope": (16,) * 4}
            if two
            else {"joint_attention_dim": self.text, "pooled_projection_dim": 16 if tiny else 768,
                  "guidance_embeds": True, "axes_dims_rope": (16, 24, 24)}
        )  # fmt: skip
        if not tiny:
            self.net["axes_dims_rope"] = (32,) * 4 if two else (16, 56, 56)
        self.tiny = tiny

    def load(self, folder: Path, dtype: torch.dtype) -> Parts:
        width = 8 if self.tiny else 128
        vae = {
            "latent_channels": self.channels, "block_out_channels": (width, *(width * n for n in (2, 4, 4))),
            "norm_num_groups": min(width, 32), "layers_per_block": 2, "sample_size": 1024,
            "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        }  # fmt: skip
        network = Flux2Transformer2DModel if self.two else FluxTransformer2DModel
        return Parts(
            built(lambda: network(**self.net), dtype),
            built(lambda: AutoencoderKL(**vae), torch.float32),
            (),
            tuple(built(make, dtype) for make in self._encoders()),
            SCHEDULERS["flow"],
        )

    def _encoders(self) -> list[Callable[[], nn.Module]]:
        n = 4 if self.tiny else 36
        if self.two:
            qwen = Qwen3Config(
                hidden_size=self.text, num_hidden_layers=n, intermediate_size=64 if self.tiny else 9728,
                num_attention_heads=2 if self.tiny else 32, num_key_value_heads=2 if self.tiny else 8,
                head_dim=16 if self.tiny else 128, vocab_size=600 if self.tiny else 151936,
            )  # fmt: skip
            return [lambda: Qwen3Model(qwen)]
        clip = CLIPTextConfig(
            hidden_size=16 if self.tiny else 768, intermediate_size=32 if self.tiny else 3072, vocab_size=49408,
            num_hidden_layers=2 if self.tiny else 12, num_attention_heads=2 if self.tiny else 12,
        )  # fmt: skip
        t5 = T5Config(
            d_model=self.text, d_ff=64 if self.tiny else 10240, d_kv=16 if self.tiny else 64, vocab_size=32128,
            num_layers=2 if self.tiny else 24, num_heads=2 if self.tiny else 64, feed_forward_proj="gated-gelu",
        )  # fmt: skip
        return [lambda: CLIPTextModel(clip), lambda: T5EncoderModel(t5)]

    def encode(self, parts: Parts, prompt: Prompt, chunks: int) -> Conditioning:
        device = next(parts.encoders[0].parameters()).device
        ids = _ids(77 if self.tiny else 512, parts.encoders[-1].config.vocab_size, prompt, device)
        if self.two:
            states = parts.encoders[0](ids, output_hidden_states=True, use_cache=False).hidden_states
            return Conditioning(torch.cat([states[len(states) * i // 4] for i in (1, 2, 3)], dim=-1))
        pooled = parts.encoders[0](ids[:, :77]).pooler_output
        return Conditioning(parts.encoders[1](ids).last_hidden_state, pooled)

    def contrasts(self, guidance: float) -> bool:
        return False

    def predict(
        self, parts: Parts, net: nn.Module, x: Tensor, t: Tensor, cond: Conditioning, guidance: float
    ) -> Tensor:
        n, c, high, wide = x.shape
        packed = x.view(n, c, high // 2, 2, wide // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 4 * c)
        axes = 4 if self.two else 3
        places = torch.zeros(high // 2, wide // 2, axes, device=x.device)
        places[..., 1] += torch.arange(high // 2, device=x.device)[:, None]
        places[..., 2] += torch.arange(wide // 2, device=x.device)[None]
        more: dict[str, Any] = {}
        if not self.two:
            more = {"pooled_projections": cond.pooled, "guidance": torch.full((n,), guidance, device=x.device)}
        out = net(
            hidden_states=packed, encoder_hidden_states=cond.tokens, timestep=t.reshape(1).expand(n).to(x) / 1000,
            img_ids=places.reshape(-1, axes), txt_ids=torch.zeros(cond.tokens.shape[1], axes, device=x.device),
            return_dict=False, **more,
        )[0]  # fmt: skip
        return out.view(n, high // 2, wide // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, c, high, wide)


# --- plain diffusers -------------------------------------------------------------------------------------------------


class Plain(Resident):
    """The same networks held by diffusers' and accelerate's ways, LoRAs beside the weights as PEFT has them."""

    def __init__(self, base: Base, device: torch.device, dtype: torch.dtype, way: str, family: Family) -> None:
        super().__init__(base, torch.device("cpu"), dtype, family=family)
        self.device, self.way = device, way
        net = self.parts.denoiser
        for i in range(3):
            config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS), init_lora_weights=False)
            peft.inject_adapter_in_model(config, net, f"lora{i}")
        for layer in net.modules():
            if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
                layer.set_adapter(["lora0", "lora1", "lora2"])
        net.to(dtype).requires_grad_(False)
        if way == "on the device":
            for part in (net, self.parts.vae, *self.parts.encoders):
                part.to(device)
        elif way == "group offload":
            apply_group_offloading(
                net, device, torch.device("cpu"), "leaf_level", use_stream=device.type == "cuda", non_blocking=True
            )
            self.parts.vae.to(device)

    def texts(self, prompts: Any, references: Any = ()) -> Any:
        if self.way == "on the device":
            return super().texts(prompts, references)
        if self.way == "model offload":
            self.parts.denoiser.to("cpu")
        for encoder in self.parts.encoders:
            encoder.to(self.device)
        found = super().texts(prompts, references)
        for encoder in self.parts.encoders:
            encoder.to("cpu")
        if self.way == "model offload":
            self.parts.denoiser.to(self.device)
        return found

    def decode(self, latents: Tensor) -> Tensor:
        if self.way == "model offload":
            self.parts.denoiser.to("cpu")
            self.parts.vae.to(self.device)
        return super().decode(latents)

    @contextmanager
    def stacked(self, *_: Any, **__: Any) -> Iterator[None]:
        yield


# --- measuring -------------------------------------------------------------------------------------------------------


@dataclass
class Subject:
    """One base of real size, and the files of its LoRAs."""

    name: str
    family: Family
    base: Base
    files: dict[str, Path]
    stack: LoraStack
    sizes: tuple[float, float, float]  # GB: denoiser, encoders, autoencoder
    drawn: Tensor | None = None  # the latents of the first mode, to which those of the others are compared

    def weights(self, ref: LoraRef) -> bytes:
        return self.files[ref.name].read_bytes()

    def least(self, mode: str) -> float:
        """GB of weights alone that a mode has on the device: what is beyond the cap need not be tried."""
        net, texts, vae = self.sizes
        return {
            "full": 2 * net + texts + vae, "pinned": net, "offload": 0, "small": net / 2,
            "on the device": net + texts + vae, "model offload": max(net, texts), "group offload": texts,
        }[mode]  # fmt: skip


def subject(name: str, family: Family, folder: Path, dtype: torch.dtype, side: int) -> Subject:
    with torch.device("meta"):
        net = (
            UNet2DConditionModel.from_config(family.configs["unet"])
            if isinstance(family, Sdxl)
            else (Flux2Transformer2DModel if family.two else FluxTransformer2DModel)(**family.net)
        )
        texts = (
            [CLIPTextModel(CLIPTextConfig(**family.configs["text_encoder"])),
             CLIPTextModel(CLIPTextConfig(**family.configs["text_encoder_2"]))]
            if isinstance(family, Sdxl)
            else [make() for make in family._encoders()]
        )  # fmt: skip
    files, refs = {}, []
    for i in range(3):
        rng = np.random.default_rng(i)
        layers = {
            path: Factors(
                rng.normal(0, 0.02, (RANK, module.in_features)).astype("f2").astype("f4"),
                rng.normal(0, 0.02, (module.out_features, RANK)).astype("f2").astype("f4"),
                float(RANK),
            )
            for path, module in net.named_modules()
            if isinstance(module, nn.Linear) and path.endswith(TARGETS)
        }
        files[f"lora{i}"] = folder / f"{name}-{i}.safetensors"
        files[f"lora{i}"].write_bytes(write(layers, {"title": f"lora{i}", "family": "sdxl"}))
        refs.append(LoraRef(f"lora{i}", f"{i}" * 64, 0.5))
    item = dtype.itemsize / 1e9
    base = Base(
        name=name, folder=folder, title=name, family="sdxl", licence="none", commercial=False,
        size=Size(native=side, multiple=16, min=16, max=2048),
        defaults=Defaults(steps=STEPS, guidance=3.5, sampler="euler"),
    )  # fmt: skip
    sizes = _count(net) * item, sum(map(_count, texts)) * item, 0.35
    return Subject(name, family, base, files, LoraStack(tuple(refs)), sizes)


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


class Clock:
    """Row by row: what is printed, how much time is left, and the cap."""

    def __init__(self, minutes: float, device: torch.device) -> None:
        self.ends, self.device = time.monotonic() + 60 * minutes, device
        heads = ("base", "cap", "held by", "peak GB", "step s", "switch s", "cold ms", "apart", "exact", "load s")
        self._print(heads)
        self._print(("---",) * len(heads))

    def _print(self, row: tuple[object, ...]) -> None:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)

    def row(self, name: str, cap: float | None, how: str, measured: tuple[object, ...] | str) -> None:
        cells = measured if isinstance(measured, tuple) else (measured, *("",) * 6)
        self._print((name, cap or "none", how, *cells))

    def is_over(self) -> bool:
        return time.monotonic() > self.ends

    def cap(self, gigabytes: float | None) -> None:
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            whole = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(gigabytes * 1e9 / whole, 1.0) if gigabytes else 1.0)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        begun = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begun


def first_step(held: Resident, it: Subject, prompt: str) -> None:
    """From the request to the end of the first step, as the runner goes."""
    brush = Brush.plain(it.base, prompt, 1)
    with held.stacked(it.stack, it.weights, meanwhile=lambda: held.texts(prompts(held.family, brush))):
        next(draw(held, brush))
        if held.device.type == "cuda":
            torch.cuda.synchronize()


def measured(held: Resident, it: Subject, clock: Clock, loaded: float) -> tuple[object, ...]:
    ours = not isinstance(held, Plain)
    steps: list[float] = []
    first_step(held, it, "to warm up")  # and the LoRAs are read
    with held.stacked(it.stack, it.weights):
        strokes = draw(held, Brush.plain(it.base, "a red bicycle", 1))
        stroke = next(strokes)
        for _ in range(STEPS - 1):
            steps.append(clock.seconds(lambda: next(strokes)))
        stroke = last_of(strokes) or stroke
        pixels = held.decode(stroke.latents)
    assert pixels.shape[-1] == it.base.size.native
    peak = f"{torch.cuda.max_memory_reserved() / 1e9:.2f}" if clock.device.type == "cuda" else "–"
    if not ours:
        return peak, f"{statistics.median(steps):.3f}", "–", "–", "–", "–", f"{loaded:.0f}"
    latents = stroke.latents.float().cpu()
    it.drawn = latents if it.drawn is None else it.drawn
    apart = float((latents - it.drawn).norm() / it.drawn.norm())

    def switch() -> None:
        with held.stacked(it.stack, it.weights):
            pass

    switches = [clock.seconds(switch) for _ in range(3)]
    cold = cold_adds(held, it, clock)
    exact = is_exact(held, switch)
    return (
        peak, f"{statistics.median(steps):.3f}", f"{min(switches):.3f}", f"{cold * 1e3:.0f}", f"{apart:.1e}", exact,
        f"{loaded:.0f}",
    )  # fmt: skip


def last_of(strokes: Iterator[Any]) -> Any:
    last = None
    for last in strokes:  # noqa: B007
        pass
    return last


def cold_adds(held: Resident, it: Subject, clock: Clock) -> float:
    """Seconds, the median of three pairs."""
    apart = []
    for turn in range(3):
        warm = clock.seconds(lambda turn=turn: first_step(held, it, f"warm {turn}"))
        held._loras.clear()
        apart.append(clock.seconds(lambda turn=turn: first_step(held, it, f"cold {turn}")) - warm)
    return statistics.median(apart)


def is_exact(held: Resident, switch: Callable[[], object]) -> str:
    own = [p for net in (held.parts.denoiser, *held.parts.encoders) for p in net.parameters()][::5]
    before = [parameter.detach().cpu().clone() for parameter in own]
    begun, done = time.monotonic(), 0
    while done < CYCLES and time.monotonic() - begun < 20:
        switch()
        done += 1
    same = all(torch.equal(a, b.detach().cpu()) for a, b in zip(before, own, strict=True))
    return f"{'yes' if same else 'NO'}, {done} cycles"


def held_by(it: Subject, how: str, device: torch.device, dtype: torch.dtype) -> Resident:
    if how in MODES:
        mode: Mode = how  # pyright: ignore
        return Resident(it.base, device, dtype, mode, family=it.family)
    return Plain(it.base, device, dtype, how, it.family)


def run(it: Subject, how: str, caps: tuple[float | None, ...], clock: Clock, dtype: torch.dtype) -> None:
    """One way of holding a base under each cap, loaded anew only after it did not fit."""
    held: Resident | None = None
    loaded = 0.0
    for cap in caps:
        if cap and it.least(how) > cap:
            clock.row(it.name, cap, how, "does not fit: its weights alone are more")
            continue
        if clock.is_over():
            clock.row(it.name, cap, how, "not run: no time is left")
            continue
        clock.cap(cap)
        try:
            if held is None:
                begun = time.perf_counter()
                held = held_by(it, how, clock.device, dtype)
                loaded = time.perf_counter() - begun
            clock.row(it.name, cap, how, measured(held, it, clock, loaded))
        except torch.OutOfMemoryError:
            clock.row(it.name, cap, how, "does not fit")
            held = None
    del held
    clock.cap(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="the same on tiny networks, on the CPU too")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only", choices=("sdxl", "klein", "flux"))
    said = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    print(machine(), flush=True)
    families = {"sdxl": Sdxl(said.tiny), "klein": Flow(True, said.tiny), "flux": Flow(False, said.tiny)}
    caps: tuple[float | None, ...] = CAPS if device.type == "cuda" else (None,)
    clock = Clock(said.minutes, device)
    with tempfile.TemporaryDirectory() as folder:
        for name, family in families.items():
            if said.only in (None, name):
                it = subject(name, family, Path(folder), dtype, 64 if said.tiny else 1024)
                for how in (*MODES, *WAYS):
                    run(it, how, caps, clock, dtype)


if __name__ == "__main__":
    main()

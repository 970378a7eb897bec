"""Text to image: a small UNet and text encoder, trained together on cached latents of captioned scenes.

v-prediction (Salimans & Ho 2022, arXiv:2202.00512) with zero terminal SNR (Lin et al. 2023, arXiv:2305.08891) and
min-SNR weights (Hang et al. 2023, arXiv:2303.09556). fp32 master weights, bf16 autocast; what is kept is an exponential
moving average.

`python -m engine.pocket.text_to_image VOCABULARY_SIZE` only fills the compiler's cache, beside another stage.
"""

# diffusers' own annotations are often wrong (`tuple[str]` for four names):
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.pocket.autoencoder import new_autoencoder
from engine.pocket.glyphs import load_atlas
from engine.pocket.pace import Average, Pace, set_rate
from engine.pocket.scenes import Renderer, base_menu, captions, sample
from engine.pocket.tokenizer import LENGTH, encode

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
         "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """Sizes of a training run; `tiny` is for a smoke test on a CPU."""

    device: str = "cuda"
    latents: int = 400_000
    batch: int = 512
    rate: float = 1.2e-3
    compile: bool = True
    save_every: float = 0.2  # of the run

    @staticmethod
    def tiny(device: str) -> "Setup":
        return Setup(device=device, latents=16, batch=4, compile=False, save_every=0.4)


@dataclass(frozen=True)
class Cache:
    """Scaled latents (n, 8, 32, 32) bf16 on the device, and their captions' token ids (n, LENGTH) int16."""

    latents: Tensor
    ids: Tensor


class Painter(nn.Module):
    """UNet and text encoder as one module, which returns the loss of a batch."""

    def __init__(self, vocabulary: int, bos: int, eos: int) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=32, in_channels=8, out_channels=8, block_out_channels=(96, 160, 256), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=256, attention_head_dim=(3, 5, 8), norm_num_groups=32,
        )  # fmt: skip
        self.text = CLIPTextModel(CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
            projection_dim=256, max_position_embeddings=LENGTH, bos_token_id=bos, eos_token_id=eos, pad_token_id=eos,
        ))  # fmt: skip
        alphas = DDPMScheduler(num_train_timesteps=1000, **NOISE).alphas_cumprod
        self.register_buffer("signal", alphas.float(), persistent=False)

    def forward(self, x: Tensor, ids: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Weighted mean of ‖v − v̂‖², v = √ᾱ ε − √(1−ᾱ) x; weights min(SNR, 5) / (SNR + 1), at least 0.05."""
        alpha = self.signal[t].view(-1, 1, 1, 1)
        a, s = alpha.sqrt(), (1 - alpha).sqrt()
        guess = self.unet(a * x + s * noise, t, self.text(ids)[0], return_dict=False)[0]
        error = F.mse_loss(guess.float(), a * noise - s * x, reduction="none").mean((1, 2, 3))
        snr = alpha.flatten() / (1 - alpha.flatten())
        return (error * (snr.clamp(max=5) / (snr + 1)).clamp(min=0.05)).mean()


def latent_means(vae: AutoencoderKL, x: Tensor) -> Tensor:
    return vae.encode(x).latent_dist.mean


@torch.no_grad()
def cache_latents(vae: AutoencoderKL, tokenizer: CLIPTokenizer, setup: Setup, seconds: float) -> Cache:
    """Render, caption and encode scenes until there are enough or the time is over."""
    renderer, menu, generator = (
        Renderer.on(setup.device),
        base_menu(load_atlas()),
        torch.Generator().manual_seed(100_000),
    )
    means = torch.compile(latent_means) if setup.compile else latent_means
    vae = vae.to(memory_format=torch.channels_last)
    shape, begun, done = (setup.latents, 8, 32, 32), time.monotonic(), 0
    latents = torch.empty(shape, dtype=torch.bfloat16, device=setup.device)
    ids = torch.empty(setup.latents, LENGTH, dtype=torch.int16, device=setup.device)
    size = min(512, setup.latents)
    while done + size <= setup.latents and time.monotonic() - begun < seconds:
        scenes = sample(size, menu, generator)
        x = (renderer.draw(scenes) * 2 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
            latents[done : done + size] = means(vae, x) * vae.config.scaling_factor
        ids[done : done + size] = encode(tokenizer, captions(scenes)).to(setup.device)
        done += size
    print(f"latents: {done} in {time.monotonic() - begun:.0f} s", flush=True)
    return Cache(latents[:done], ids[:done])


def train_painter(painter: Painter, cache: Cache, pace: Pace, setup: Setup, checkpoint: Path) -> int:
    """Train by wall clock, from `checkpoint` if there; leaves the average in the painter, returns the steps done."""
    optimizer = torch.optim.AdamW(
        painter.parameters(), lr=setup.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=setup.device != "cpu"
    )
    average = Average(painter.parameters())
    step, first = load_checkpoint(checkpoint, painter, optimizer, average) if checkpoint.exists() else (0, 0.0)
    empty = cache.ids.new_full((LENGTH,), painter.text.config.eos_token_id)
    empty[0] = painter.text.config.bos_token_id
    model = torch.compile(painter, dynamic=False) if setup.compile else painter
    part = saved = first
    while part < 1:
        loss = painter_step(model, cache, empty, setup)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        set_rate(optimizer, setup.rate, step, part, warmup=300)
        optimizer.step()
        average.update(step)
        step += 1
        if step % 10 == 1:
            loss.item()  # waits for the device, so that the clock is true
            part = first + (1 - first) * pace.part()
        if step % 200 == 0:
            rate = setup.batch * step / max(1e-6, time.monotonic() - pace.begun)
            print(f"text to image: step {step}, {part:.0%}, loss {loss.item():.4f}, {rate:.0f} images/s", flush=True)
        if part - saved > setup.save_every and part < 0.9:
            save_checkpoint(checkpoint, painter, optimizer, average, (step, part))
            saved = part
    average.store()
    return step


def painter_step(model: nn.Module, cache: Cache, empty: Tensor, setup: Setup) -> Tensor:
    """The loss of one random batch; a tenth of the captions is dropped, for guidance."""
    rows = torch.randint(len(cache.latents), (setup.batch,), device=setup.device)
    x = cache.latents[rows].float().contiguous(memory_format=torch.channels_last)
    ids = torch.where(torch.rand(setup.batch, 1, device=setup.device) < 0.1, empty, cache.ids[rows]).long()
    t = torch.randint(1000, (setup.batch,), device=setup.device)
    with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
        return model(x, ids, torch.randn_like(x), t)


def save_checkpoint(
    path: Path, painter: Painter, optimizer: torch.optim.Optimizer, average: Average, at: tuple[int, float]
) -> None:
    """Weights, their average and the optimizer's state in one safetensors file; `at` is (steps, part of the run)."""
    tensors = {f"live.{i}": p.detach() for i, p in enumerate(average.live)}
    tensors |= {f"mean.{i}": p for i, p in enumerate(average.mean)}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": torch.as_tensor(value) for name, value in state.items()}
    new = path.with_suffix(".new")
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, new, {"step": str(at[0]), "part": str(at[1])}
    )
    new.replace(path)
    print(
        f"text to image: checkpoint of {sum(p.numel() for p in painter.parameters()) / 1e6:.1f} M parameters",
        flush=True,
    )


def load_checkpoint(
    path: Path, painter: Painter, optimizer: torch.optim.Optimizer, average: Average
) -> tuple[int, float]:
    """Read what `save_checkpoint` wrote; returns (steps, part of the run)."""
    tensors = load_file(path, device=str(next(painter.parameters()).device))
    with torch.no_grad():
        for i, live in enumerate(average.live):
            live.copy_(tensors[f"live.{i}"])
            average.mean[i].copy_(tensors[f"mean.{i}"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, i, key = name.split(".")
            state.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    with safe_open(path, "pt") as file:
        about = file.metadata()
    return int(about["step"]), float(about["part"])


@torch.no_grad()
def fit_preview(vae: AutoencoderKL, cache: Cache) -> tuple[list[list[float]], list[float]]:
    """Least squares from a scaled latent (8) to its 8 × 8 px patch's mean RGB in 0..1: matrix (3, 8) and bias (3)."""
    latents = cache.latents[:256].float()
    pictures = torch.cat([vae.decode(part / vae.config.scaling_factor).sample for part in latents.split(32)])
    rgb = F.avg_pool2d((pictures / 2 + 0.5).clamp(0, 1), 8).permute(0, 2, 3, 1).reshape(-1, 3)
    inputs = F.pad(latents.permute(0, 2, 3, 1).reshape(-1, 8), (0, 1), value=1.0)
    solution = torch.linalg.lstsq(inputs.double().cpu(), rgb.double().cpu()).solution
    return [[round(v, 4) for v in row] for row in solution[:8].T.tolist()], [round(v, 4) for v in solution[8].tolist()]


def assemble(painter: Painter, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """A plain Stable Diffusion pipeline of the trained parts."""
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000, timestep_spacing="trailing", steps_offset=1, **NOISE
    )
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=painter.text, tokenizer=tokenizer, unet=painter.unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def warm(setup: Setup, vocabulary: int) -> None:
    """One step on noise: fills the compiler's cache."""
    painter = Painter(vocabulary, 0, 1).to(setup.device, memory_format=torch.channels_last)
    ids = torch.ones(setup.batch, LENGTH, dtype=torch.int16, device=setup.device)
    cache = Cache(torch.randn(setup.batch, 8, 32, 32, dtype=torch.bfloat16, device=setup.device), ids)
    painter_step(torch.compile(painter, dynamic=False), cache, ids[0], setup).backward()
    vae = new_autoencoder().to(setup.device, memory_format=torch.channels_last)
    x = torch.randn(setup.batch, 3, 256, 256, device=setup.device).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast(setup.device, torch.bfloat16):
        torch.compile(latent_means)(vae, x)


if __name__ == "__main__":
    warm(Setup(), int(sys.argv[1]))

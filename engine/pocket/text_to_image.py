"""Text to image: a small UNet and text encoder, trained together on cached latents of captioned scenes.

v-prediction (Salimans & Ho 2022, arXiv:2202.00512) with zero terminal SNR (Lin et al. 2023, arXiv:2305.08891),
min-SNR weights (Hang et al. 2023, arXiv:2303.09556), and timesteps spread evenly over each batch (Kingma et al. 2021,
arXiv:2107.00630, appendix I.1). fp32 master weights, bf16 autocast; what is kept is an exponential moving average.

Every step trains one shape. The blocks of the UNet are compiled one by one, for any height and width: compiling the
whole network for each of six shapes took more than eight minutes on an H100's host. `compile_blocks` needs no latents,
so another process can make them meanwhile.
"""

# diffusers' own annotations are often wrong (`tuple[str]` for four names):
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import time
from dataclasses import dataclass, field
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
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.pocket import autoencoder
from engine.pocket.autoencoder import CHANNELS, MIX, pick, prepare
from engine.pocket.pace import Average, Course, Pace
from engine.pocket.scenes import BUCKETS, Cast, Scenes, base_menu, captions, sample
from engine.pocket.tokenizer import LENGTH, encode

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
         "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """Sizes of a training run; `tiny` is for a smoke test on a CPU. `drawing`: what the scenes are drawn with."""

    device: str = "cuda"
    drawing: autoencoder.Setup = field(default_factory=autoencoder.Setup)
    latents: int = 450_000
    at_once: int = 512  # scenes drawn together
    writers: int = 8  # processes that write captions
    batch: int = 256
    rate: float = 1e-3
    compile: bool = True

    @staticmethod
    def tiny(device: str) -> "Setup":
        drawing = autoencoder.Setup.tiny(device)
        return Setup(device, drawing, latents=24, at_once=8, writers=0, batch=2, compile=False)


@dataclass(frozen=True)
class Cache:
    """Of one shape: scaled latents (n, 12, h/8, w/8) bf16 on the device, and their token ids (n, LENGTH) int16."""

    latents: Tensor
    ids: Tensor


class Painter(nn.Module):
    """UNet and text encoder as one module, which returns the loss of a batch."""

    def __init__(self, vocabulary: int, bos: int, eos: int) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=32, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(96, 160, 256),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1,
            cross_attention_dim=256, attention_head_dim=(3, 5, 8), norm_num_groups=32,
        )  # fmt: skip
        self.text = CLIPTextModel(CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
            projection_dim=256, max_position_embeddings=LENGTH, bos_token_id=bos, eos_token_id=eos, pad_token_id=eos,
        ))  # fmt: skip
        alphas = DDPMScheduler(num_train_timesteps=1000, **NOISE).alphas_cumprod
        self.register_buffer("signal", alphas.float(), persistent=False)

    @staticmethod
    def new(tokenizer: CLIPTokenizer, folder: Path | None = None) -> "Painter":
        """A painter that knows nothing, or what the base in `folder` knows."""
        painter = Painter(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
        if folder:
            unet = UNet2DConditionModel.from_pretrained(folder / "unet")
            painter.unet.load_state_dict(unet.state_dict())
            painter.text.load_state_dict(CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict())
        return painter

    def forward(self, x: Tensor, ids: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Weighted mean of ‖v − v̂‖², v = √ᾱ ε − √(1−ᾱ) x; weights min(SNR, 5) / (SNR + 1), at least 0.05."""
        alpha = self.signal[t].view(-1, 1, 1, 1)
        a, s = alpha.sqrt(), (1 - alpha).sqrt()
        guess = self.unet(a * x + s * noise, t, self.text(ids)[0], return_dict=False)[0]
        error = F.mse_loss(guess.float(), a * noise - s * x, reduction="none").mean((1, 2, 3))
        snr = alpha.flatten() / (1 - alpha.flatten())
        return (error * (snr.clamp(max=5) / (snr + 1)).clamp(min=0.05)).mean()


# The latents.


@dataclass
class Written(Dataset[Tensor]):
    """Token ids of batches of scenes, each batch sampled anew by its own seed: so any process can write any batch."""

    tokenizer: CLIPTokenizer
    cast: Cast
    shape: str
    sizes: list[int]
    seed: int

    def __len__(self) -> int:
        return len(self.sizes)

    def scenes(self, index: int) -> Scenes:
        generator = torch.Generator().manual_seed(self.seed + index)
        return sample(self.sizes[index], base_menu(), generator, self.shape, self.cast)

    def __getitem__(self, index: int) -> Tensor:
        return encode(self.tokenizer, captions(self.scenes(index))).to(torch.int16)


def cache_latents(folder: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer, setup: Setup, pace: Pace) -> bool:
    """Render, caption and encode scenes, a file for each shape; one that is there is kept. False if time was over."""
    folder.mkdir(exist_ok=True)
    vae = vae.to(memory_format=torch.channels_last)
    for place, (shape, share) in enumerate(MIX.items()):
        if (folder / f"{shape}.safetensors").exists():
            continue
        if pace.over():
            return False
        until = time.monotonic() + pace.seconds * share
        cache = latents_of(shape, vae, tokenizer, setup, (max(1, round(setup.latents * share)), place, until))
        new = folder / f"{shape}.new"
        save_file({"latents": cache.latents, "ids": cache.ids}, new)
        new.replace(new.with_suffix(".safetensors"))
    return True


@torch.no_grad()
def latents_of(
    shape: str, vae: AutoencoderKL, tokenizer: CLIPTokenizer, setup: Setup, wanted: tuple[int, int, float]
) -> Cache:
    """Latents of one shape. `wanted`: how many, a number that its seeds begin with, and until when (monotonic time)."""
    (count, place, until), begun, done = wanted, time.monotonic(), 0
    renderer, cast = autoencoder.world(setup.drawing)
    sizes = [min(setup.at_once, count - start) for start in range(0, count, setup.at_once)]
    written = Written(tokenizer, cast, shape, sizes, 100_000 * (place + 1))
    height, width = BUCKETS[shape]
    latents = torch.empty(count, CHANNELS, height // 8, width // 8, dtype=torch.bfloat16, device=setup.device)
    parts: list[Tensor] = []
    for index, ids in enumerate(in_processes(written, setup.writers)):
        x = (renderer.draw(written.scenes(index)) * 2 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(setup.device.split(":")[0], torch.bfloat16):
            latents[done : done + len(x)] = vae.encode(x).latent_dist.mean * vae.config.scaling_factor
        parts.append(ids)
        done += len(x)
        if time.monotonic() > until:
            break
    print(f"latents: {done} of shape {shape} in {time.monotonic() - begun:.0f} s", flush=True)
    return Cache(latents[:done].clone(), torch.cat(parts).to(setup.device))


def in_processes(written: Written, writers: int) -> "DataLoader[Tensor]":
    """The batches in their order, written ahead by so many processes; by this one if none."""
    if not writers:
        return DataLoader(written, batch_size=None)
    return DataLoader(written, batch_size=None, num_workers=writers, prefetch_factor=4, multiprocessing_context="fork")


def load_latents(folder: Path, device: str) -> dict[str, Cache]:
    """What `cache_latents` wrote."""
    files = {shape: load_file(folder / f"{shape}.safetensors", device=device) for shape in MIX}
    return {shape: Cache(tensors["latents"], tensors["ids"]) for shape, tensors in files.items()}


# The training.


def compile_blocks(painter: Painter, setup: Setup) -> None:
    """Compile the UNet's blocks where they are, by a step on noise of every shape."""
    if not setup.compile:
        return
    prepare()
    torch._dynamo.config.recompile_limit = 64  # blocks of one class share it
    for block in painter.unet.modules():
        if isinstance(block, ResnetBlock2D | BasicTransformerBlock):
            block.compile(dynamic=True)
    empty = empty_caption(painter, setup.device)
    for height, width in BUCKETS.values():
        noise = torch.randn(setup.batch, CHANNELS, height // 8, width // 8, dtype=torch.bfloat16, device=setup.device)
        painter_step(painter, Cache(noise, empty.expand(setup.batch, -1)), empty, setup).backward()
    painter.zero_grad()


def train_painter(painter: Painter, caches: dict[str, Cache], pace: Pace, setup: Setup, checkpoint: Path) -> Course:
    """Train by wall clock, from `checkpoint` if there; leaves the average in the painter."""
    prepare()
    fused = setup.device.startswith("cuda")
    optimizer = torch.optim.AdamW(painter.parameters(), setup.rate, (0.9, 0.99), weight_decay=0.01, fused=fused)
    course = Course("text-to-image", optimizer, Average(painter.parameters()), checkpoint, setup.rate, warmup=500)
    empty = empty_caption(painter, setup.device)
    course.run(lambda: painter_step(painter, caches[pick(MIX)], empty, setup), pace)
    return course


def empty_caption(painter: Painter, device: str) -> Tensor:
    """Token ids of "", (LENGTH,) int16."""
    empty = torch.full((LENGTH,), painter.text.config.eos_token_id, dtype=torch.int16, device=device)
    empty[0] = painter.text.config.bos_token_id
    return empty


def painter_step(painter: Painter, cache: Cache, empty: Tensor, setup: Setup) -> Tensor:
    """The loss of one random batch of one shape; a tenth of the captions is dropped, for guidance."""
    n, device = setup.batch, cache.latents.device
    rows = torch.randint(len(cache.latents), (n,), device=device)
    x = cache.latents[rows].float().contiguous(memory_format=torch.channels_last)
    ids = torch.where(torch.rand(n, 1, device=device) < 0.1, empty, cache.ids[rows]).long()
    t = ((torch.rand(1, device=device) + torch.arange(n, device=device) / n) % 1 * 1000).long().clamp(max=999)
    with torch.autocast(device.type, torch.bfloat16):
        return painter(x, ids, torch.randn_like(x), t)


@torch.no_grad()
def fit_preview(vae: AutoencoderKL, cache: Cache) -> tuple[list[list[float]], list[float]]:
    """Least squares from a scaled latent (12) to its 8 × 8 px patch's mean RGB in 0..1: matrix (3, 12) and bias (3)."""
    latents = cache.latents[:256].float()
    pictures = torch.cat([vae.decode(part / vae.config.scaling_factor).sample for part in latents.split(16)])
    rgb = F.avg_pool2d((pictures / 2 + 0.5).clamp(0, 1), 8).permute(0, 2, 3, 1).reshape(-1, 3)
    inputs = F.pad(latents.permute(0, 2, 3, 1).reshape(-1, CHANNELS), (0, 1), value=1.0)
    solution = torch.linalg.lstsq(inputs.double().cpu(), rgb.double().cpu()).solution
    rows = [[round(v, 4) for v in row] for row in solution.T.tolist()]
    return [row[:CHANNELS] for row in rows], [row[CHANNELS] for row in rows]


def assemble(painter: Painter, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """A plain Stable Diffusion pipeline of the trained parts."""
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000, timestep_spacing="trailing", steps_offset=1, **NOISE
    )
    vae.register_to_config(_name_or_path="pocket")  # else the folder's path is saved with the weights
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=painter.text, tokenizer=tokenizer, unet=painter.unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

"""The whole recipe by wall clock: `python -m engine.pocket --minutes 26`.

Stages, each a file of its own: tokenizer, autoencoder, decoder, the two judges, the two companions, latents, text to
image, card. One that is done is skipped, one that was cut off goes on from its checkpoint. `--seconds N` ends this call
after so long; the same command, given again, goes on. `--tiny` runs them all in minutes on a CPU.
"""

# diffusers' own annotations are often wrong (`tuple[str]` for four names):
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from engine.pocket import autoencoder, card, cutting, evaluator, text_to_image, upscaling
from engine.pocket.pace import Pace
from engine.pocket.tokenizer import READ, add_plain_files, build_tokenizer

SHARES = {
    "autoencoder": 0.16, "decoder": 0.045, "judge": 0.08, "second-judge": 0.07, "upscaler": 0.06, "matting": 0.04,
    "latents": 0.07,
}  # fmt: skip  # of the run; text to image takes the rest
FOLDERS = {"base": "bases/pocket", "judge": "evaluation/judge", "second-judge": "evaluation/second",
           "upscaler": "companions/upscaler", "matting": "companions/matting"}  # fmt: skip
FINISH = 40.0  # seconds that are kept for the card and its sheet
SHEET = (
    ("square", "a red sneaker on a podium, orange background"),
    ("square", "a happy fox waving, in a forest"),
    ("square", "a glossy blue mug with a white band, on a marble table"),
    ("square", "three green apples on a wooden table"),
    ("square", "a surprised robot"),
    ("square", "a cat to the left of a yellow umbrella, plain navy background"),
    ("square", "a perfume bottle in a gray studio"),
    ("square", "an angry orange cat, comic style"),
    ("square", "a rocket in the sky, watercolor style"),
    ("square", "a pattern of pink donuts, plain cream background"),
    ("square", "a rabbit with a red scarf, running, in the snow"),
    ("square", "headphones on a plain purple background"),
    ("square", "a candle above a box, plain teal background"),
    ("square", "a lion in front of a castle, at sunset"),
    ("square", "a frog, sticker style"),
    ("square", "a camera on a shelf"),
    ("square", "a bear sitting on the grass, side view"),
    ("square", "a close-up of a watch, plain black background"),
    ("portrait", "a tall picture of a wine bottle, confetti"),
    ("portrait", "a child dancing on a beach, three-quarter view"),
    ("landscape", "a red car in a city, at night"),
    ("story", "a story of a pink ice cream cone, rays, yellow background"),
    ("wide", "a sailboat at sunset, oil painting style"),
    ("banner", "a wide banner with a green backpack, copy space on the left"),
)


@dataclass(frozen=True)
class Job:
    """One call: what was asked, and until when (of time.monotonic()) it may take."""

    out: Path
    work: Path
    device: str
    tiny: bool
    seconds: float
    stop: float
    last: bool
    base: Path | None
    painting: float | None

    def folder(self, name: str) -> Path:
        return self.out / FOLDERS[name]

    def pace(self, stage: str, part: float = 1.0) -> Pace:
        """Of a stage that goes on where it was cut off, for a part of its share of the time."""
        return Pace(self.seconds * SHARES[stage] * part, stop=self.stop)

    def report(self) -> dict[str, Any]:
        """What the stages have measured, and under "seconds" how long each has taken."""
        found: dict[str, Any] = {"seconds": {}}
        for file in sorted((self.work / "done").glob("*.json")):
            figures = json.loads(file.read_text())
            found["seconds"][file.stem] = figures.pop("seconds")
            found |= figures
        return found

    def wait(self, stage: str) -> None:
        """Until another process has done the stage."""
        if not done(self, stage):
            print(f"waits for {stage}", flush=True)
        while not done(self, stage):
            time.sleep(1)


Figures = dict[str, Any] | None  # what a stage has measured; None if it has to go on in another call


def make_tokenizer(job: Job) -> Figures:
    """Words → tokens. A run from a shipped base takes its tokenizer."""
    if job.base:
        shutil.copytree(job.base / "tokenizer", job.work / "tokenizer", dirs_exist_ok=True)
        words = json.loads((job.base / "vocabulary.json").read_text())["words"]
    else:
        words = build_tokenizer(job.work / "tokenizer", 600 if job.tiny else READ)
    (job.work / "words.json").write_text(json.dumps(words))
    return {"words": len(words)}


def make_autoencoder(job: Job) -> Figures:
    """Pictures ↔ latents. A run from a shipped base takes its autoencoder, and settles it no more."""
    if job.base:
        AutoencoderKL.from_pretrained(job.base / "vae").float().save_pretrained(job.work / "vae")
        (job.work / "done" / "decoder.json").write_text('{"seconds": 0}\n')
        return {}
    return autoencoder.train_autoencoder(job.work / "vae", job.pace("autoencoder"), drawing(job))


def make_decoder(job: Job) -> Figures:
    return autoencoder.settle_decoder(job.work / "vae", job.pace("decoder"), drawing(job))


def make_judge(job: Job) -> Figures:
    """The network that names what a picture shows; trained on drawings and on what the autoencoder makes of them."""
    setup = evaluator.Setup.tiny(job.device) if job.tiny else evaluator.Setup(job.device)
    return judged(job, "judge", setup)


def make_second_judge(job: Job) -> Figures:
    """Another, which only measures."""
    setup = evaluator.Setup.tiny(job.device, "convnext") if job.tiny else evaluator.Setup.second(job.device)
    return judged(job, "second-judge", setup)


def judged(job: Job, stage: str, setup: evaluator.Setup) -> Figures:
    seconds = job.seconds * SHARES[stage]
    ends = time.monotonic() + seconds
    if ends > job.stop:
        return None
    setup = replace(setup, vae=job.work / "vae", work=job.work)
    return {stage: evaluator.train_judge(job.folder(stage), Pace(seconds, ends), setup)}


def make_upscaler(job: Job) -> Figures:
    """Half of the time for drawing, half for learning."""
    pace = job.pace("upscaler", 0.5)
    setup = upscaling.Setup.tiny(job.device) if job.tiny else upscaling.Setup(job.device, job.work / "vae")
    quality = upscaling.train_upscaler(job.folder("upscaler"), pace, replace(setup, seconds=pace.seconds))
    return quality and {"upscaler": quality}


def make_matting(job: Job) -> Figures:
    """As the upscaler."""
    pace = job.pace("matting", 0.5)
    setup = cutting.Setup.tiny(job.device) if job.tiny else cutting.Setup(job.device, job.work / "vae")
    quality = cutting.train_matting(job.folder("matting"), pace, replace(setup, seconds=pace.seconds))
    return quality and {"matting": quality}


def make_latents(job: Job) -> Figures:
    done = text_to_image.cache_latents(
        job.work / "latents", load_vae(job), load_tokenizer(job), painting(job), job.pace("latents")
    )
    return {} if done else None


def make_painter(job: Job) -> Figures:
    """Words → latents; saves the whole base, after every call, finished or not."""
    tokenizer, vae, setup = load_tokenizer(job), load_vae(job), painting(job)
    painter = text_to_image.Painter.new(tokenizer, job.base).to(job.device, memory_format=torch.channels_last)
    text_to_image.compile_blocks(painter, setup)
    job.wait("latents")
    caches = text_to_image.load_latents(job.work / "latents", job.device)
    pace = Pace(job.painting or rest(job), stop=job.stop - FINISH / 4)
    if job.last:
        pace = Pace(1e9, deadline=job.stop - FINISH)
    course = text_to_image.train_painter(painter, caches, pace, setup, job.work / "painter.checkpoint")
    pipeline = text_to_image.assemble(painter.eval(), vae, tokenizer).to(dtype=torch.float16)
    out = job.folder("base")
    for shard in out.glob("unet/*.safetensors*"):
        shard.unlink()
    pipeline.save_pretrained(out, max_shard_size="15MB")
    add_plain_files(out / "tokenizer")
    preview = text_to_image.fit_preview(vae.float(), caches["square"])
    card.write_data(out, json.loads((job.work / "words.json").read_text()), preview)
    scenes = sum(len(cache.latents) for cache in caches.values())
    print(f"text to image: saved after {course.step} steps, {course.part:.1%} of the schedule", flush=True)
    return {"steps": course.step, "batch": setup.batch, "scenes": scenes} if course.part >= 1 else None


def make_card(job: Job) -> Figures:
    """A contact sheet, and the model card."""
    pipeline = StableDiffusionPipeline.from_pretrained(job.folder("base"), torch_dtype=torch.float32).to(job.device)
    pipeline.set_progress_bar_config(disable=True)
    contact_sheet(pipeline, SHEET[:: 5 if job.tiny else 1], 4 if job.tiny else 12, job.work / "sheet.png")
    found = job.report()
    minutes = round(sum(found["seconds"].values()) / 60, 1)
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    millions = sum(p.numel() for part in parts for p in part.parameters()) / 1e6
    card.write_card(
        job.folder("base"), found | {"minutes": minutes, "device": card.machine(), "millions": round(millions, 1)}
    )
    return {}


STAGES: dict[str, Callable[[Job], Figures]] = {
    "tokenizer": make_tokenizer, "autoencoder": make_autoencoder, "decoder": make_decoder, "judge": make_judge,
    "second-judge": make_second_judge, "upscaler": make_upscaler, "matting": make_matting, "latents": make_latents,
    "text-to-image": make_painter, "card": make_card,
}  # fmt: skip


def drawing(job: Job) -> autoencoder.Setup:
    return autoencoder.Setup.tiny(job.device) if job.tiny else autoencoder.Setup(job.device, compile=compiles(job))


def painting(job: Job) -> text_to_image.Setup:
    if job.tiny:
        return text_to_image.Setup.tiny(job.device)
    return text_to_image.Setup(job.device, drawing(job), compile=compiles(job))


def compiles(job: Job) -> bool:
    return not job.tiny and job.device.startswith("cuda")


def load_vae(job: Job) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(job.work / "vae").to(job.device).requires_grad_(False)


def load_tokenizer(job: Job) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(job.work / "tokenizer")


def rest(job: Job) -> float:
    """Seconds of --minutes that the other stages have left."""
    return max(10.0, job.seconds - FINISH - sum(job.report()["seconds"].values()))


def contact_sheet(
    pipeline: StableDiffusionPipeline, asked: tuple[tuple[str, str], ...], steps: int, path: Path, columns: int = 6
) -> None:
    """A picture for each (shape, prompt), seed 0, guidance 4, in tiles of 256 px."""
    tiles: list[Tensor] = []
    for shape, prompt in asked:
        height, width = autoencoder.BUCKETS[shape]
        seed = torch.Generator().manual_seed(0)
        drawn = pipeline(prompt, height, width, steps, guidance_scale=4.0, generator=seed, output_type="pt").images
        drawn = torch.nn.functional.interpolate(drawn.float().cpu(), scale_factor=256 / max(height, width), mode="area")
        tile = torch.ones(3, 256, 256)
        top, left = (256 - drawn.shape[2]) // 2, (256 - drawn.shape[3]) // 2
        tile[:, top : top + drawn.shape[2], left : left + drawn.shape[3]] = drawn[0]
        tiles.append(tile)
    tiles += [torch.ones(3, 256, 256)] * (-len(tiles) % columns)
    rows = [torch.cat(tiles[start : start + columns], 2) for start in range(0, len(tiles), columns)]
    sheet = (torch.cat(rows, 1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    Image.fromarray(sheet.numpy()).save(path)


def done(job: Job, stage: str) -> bool:
    return (job.work / "done" / f"{stage}.json").exists()


def build(job: Job, names: list[str]) -> bool:
    """Run the stages of these names that are not done; False if one has to go on in another call."""
    (job.work / "done").mkdir(parents=True, exist_ok=True)
    for name in names:
        if not done(job, name):
            begun = time.monotonic()
            figures = STAGES[name](job)
            if figures is None:
                print(f"{name}: to be continued", flush=True)
                return False
            seconds = {"seconds": round(time.monotonic() - begun, 1)}
            (job.work / "done" / f"{name}.json").write_text(json.dumps(figures | seconds) + "\n")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.pocket", description="Train Pocket from nothing.")
    parser.add_argument("--minutes", type=float, default=26.0, help="of the whole run, over all its calls")
    parser.add_argument("--out", type=Path, help="for bases/pocket and the others: engine, but for --tiny in --work")
    parser.add_argument("--work", type=Path, default=Path("pocket-work"), help="stages that are done, and checkpoints")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stage", nargs="+", choices=list(STAGES), default=list(STAGES), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of this call, at most")
    parser.add_argument("--painting", type=float, help="seconds of text to image, instead of what is left of --minutes")
    parser.add_argument("--last", action="store_true", help="text to image ends its schedule in this call's --seconds")
    parser.add_argument("--from", dest="base", type=Path, help="a base's folder, whose weights to train on")
    parser.add_argument("--tiny", action="store_true", help="a smoke test: everything, at toy size")
    args = parser.parse_args()
    if args.last and args.seconds == float("inf"):
        parser.error("--last needs --seconds")
    out = args.out or (args.work / "engine" if args.tiny else Path("engine"))
    stop = time.monotonic() + args.seconds
    job = Job(out, args.work, args.device, args.tiny, args.minutes * 60, stop, args.last, args.base, args.painting)
    if build(job, [name for name in STAGES if name in args.stage]):
        print("done", flush=True)


if __name__ == "__main__":
    main()

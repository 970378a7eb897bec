"""The whole recipe by wall clock: `python -m engine.pocket --minutes 20 --out engine/bases/pocket`.

Stages: tokenizer, autoencoder, judge, latents, text to image, folder with card. One that is done is skipped. `--tiny`
runs them all in two minutes on a CPU.
"""

# diffusers' own annotations are often wrong (`tuple[str]` for four names):
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from engine.evaluation.judge import FOLDER as JUDGE
from engine.evaluation.judge import Judge
from engine.pocket import autoencoder, card, text_to_image
from engine.pocket.evaluator import pixels, score, train_judge
from engine.pocket.glyphs import load_atlas
from engine.pocket.pace import Pace
from engine.pocket.scenes import Menu, Scenes, captions, sample
from engine.pocket.tokenizer import add_plain_files, build_tokenizer

SHARES = {
    "autoencoder": 0.15,
    "decoder": 0.06,
    "judge": 0.105,
    "latents": 0.08,
}  # of the run; text to image takes the rest
SHEET = (
    "a red car on a beach",
    "a product photo of a blue mug, teal background",
    "a fox in a forest",
    "a sneaker on a podium, orange background",
    "a fox to the left of a cup, plain navy background",
    "a cat, pixel art style",
    "a cake on a wooden table, pink background",
    "a green watch in a gray studio",
    "a rocket in the sky, watercolor style",
    "a unicorn in a meadow",
    "a burger in a city, sticker style",
    "a guitar at sunset",
    "a small panda in the snow",
    "a camera on a podium, yellow background",
    "a lion, neon style",
    "an owl at night",
    "a yellow umbrella, line drawing style",
    "headphones on a plain purple background",
    "a dinosaur in the desert",
    "a tree, silhouette style, sunset",
    "a turtle underwater",
    "a large pizza, striped green background",
    "a dog and a cat on the grass",
    "a purple lipstick on a white podium",
)


def draw(pipeline: StableDiffusionPipeline, prompts: list[str], steps: int = 12, guidance: float = 4.0) -> Tensor:
    """Pictures (n, 3, 256, 256) in 0..1; prompt i has seed i."""
    parts: list[Tensor] = []
    for start in range(0, len(prompts), 64):
        some = prompts[start : start + 64]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(some))]
        result = pipeline(some, num_inference_steps=steps, guidance_scale=guidance, generator=seeds, output_type="pt")
        parts.append(result.images.float().cpu())
    return torch.cat(parts)


def contact_sheet(pictures: Tensor, path: Path, columns: int = 6) -> None:
    tiles = pixels(pictures)
    rows = len(tiles) // columns
    sheet = tiles.view(rows, columns, 256, 256, 3).permute(0, 2, 1, 3, 4).reshape(rows * 256, columns * 256, 3)
    Image.fromarray(sheet.cpu().numpy()).save(path)


def exam(count: int) -> tuple[Scenes, list[str]]:
    """Single-object prompts that tell everything, of fresh seeds, known nouns and trained styles."""
    known = load_atlas().known
    scenes = sample(
        count,
        Menu(subjects=known, others=known, pair=0.0, tint=0.5, look_share=0.4),
        torch.Generator().manual_seed(700_000),
    )
    scenes.words[:, 0] = 0.0  # full captions
    scenes.words[:, 15:] = 0.5  # no nonce word
    return scenes, captions(scenes)


def measure(pipeline: StableDiffusionPipeline, device: str, count: int) -> dict[str, float]:
    """The base's accuracy, by the judge, on drawn pictures."""
    scenes, prompts = exam(count)
    result = score(Judge.load(JUDGE, device), draw(pipeline, prompts), scenes)
    print(f"base: accuracy {result}", flush=True)
    return result


def stage_autoencoder(out: Path, deadline: float, args: argparse.Namespace, seconds: float) -> AutoencoderKL:
    report = out / "report.json"
    if not (out / "vae").exists():
        setup = autoencoder.Setup.tiny(args.device) if args.tiny else autoencoder.Setup(device=args.device)
        autoencoder.train_autoencoder(out / "vae", Pace(seconds * SHARES["autoencoder"], deadline), setup)
        quality = autoencoder.settle_decoder(out / "vae", Pace(seconds * SHARES["decoder"], deadline), setup)
        note(report, {"autoencoder_psnr_db": round(quality, 2)})
    vae = AutoencoderKL.from_pretrained(out / "vae").to(args.device)
    vae.register_to_config(_name_or_path="pocket")  # else the folder's path is saved with the weights
    return vae


def note(report: Path, figures: dict[str, object]) -> None:
    """Add figures to report.json."""
    old = json.loads(report.read_text()) if report.exists() else {}
    report.write_text(json.dumps(old | figures, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.pocket", description="Train Pocket from nothing.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=Path("engine/bases/pocket"))
    parser.add_argument(
        "--work", type=Path, default=Path("pocket-work"), help="stages that are done, and the checkpoint"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="a smoke test: everything, at toy size")
    args = parser.parse_args()
    build(args)


def build(args: argparse.Namespace) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    seconds, work = args.minutes * 60, args.work
    deadline = time.monotonic() + seconds - (5 if args.tiny else 45)  # the rest is for saving and measuring
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "words.json").exists():
        (work / "words.json").write_text(json.dumps(build_tokenizer(work / "tokenizer")))
    vae = stage_autoencoder(work, deadline, args, seconds)
    if not (work / "judged").exists():
        accuracy = train_judge(JUDGE, Pace(seconds * SHARES["judge"], deadline), args.device, 8 if args.tiny else 256)
        note(work / "report.json", {"judge_accuracy": accuracy})
        (work / "judged").touch()
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    setup = text_to_image.Setup.tiny(args.device) if args.tiny else text_to_image.Setup(device=args.device)
    cache = text_to_image.cache_latents(vae, tokenizer, setup, seconds * SHARES["latents"])
    painter = text_to_image.Painter(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    painter = painter.to(args.device, memory_format=torch.channels_last)
    steps = text_to_image.train_painter(painter, cache, Pace(seconds, deadline), setup, work / "painter.safetensors")
    note(work / "report.json", {"steps": steps, "scenes": len(cache.latents), "minutes": args.minutes})
    finish(args, text_to_image.assemble(painter.eval(), vae, tokenizer), text_to_image.fit_preview(vae, cache))


def finish(args: argparse.Namespace, pipeline: StableDiffusionPipeline, preview: card.Preview) -> None:
    """Save the folder first, then draw, measure and write the card."""
    pipeline.to(dtype=torch.float16).save_pretrained(args.out, max_shard_size="15MB")
    add_plain_files(args.out / "tokenizer")
    pipeline.to(dtype=torch.float32)
    words = json.loads((args.work / "words.json").read_text())
    card.write_data(args.out, words, preview)
    contact_sheet(draw(pipeline, list(SHEET[:6] if args.tiny else SHEET)), args.work / "sheet.png")
    note(args.work / "report.json", {"base_accuracy": measure(pipeline, args.device, 6 if args.tiny else 512)})
    card.write_card(args.out, json.loads((args.work / "report.json").read_text()))


if __name__ == "__main__":
    main()

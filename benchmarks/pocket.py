"""How well does Pocket draw what it is asked? The frozen exam, four seeds a prompt: `python -m benchmarks.pocket`.

The second judge marks, which nobody trained or chose by; the first stands beside it. Three controls: the renderer's own
pictures of the same scenes (what a perfect base would get), the same after the autoencoder (what decoding costs), and
the base's pictures marked by other prompts' truths (what guessing gets). Intervals are bootstrapped over prompts.
Seed k of prompt i is k · 10,000 + i. float32, with TF32 on CUDA.
"""

# pyright: basic, reportPrivateImportUsage=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from benchmarks.bench import interval, machine
from engine import bases
from engine.evaluation.judge import FOLDER, SECOND, Judge, Judgement
from engine.pocket.evaluator import answers, decoded, pixels, shape_of
from engine.pocket.exam import Question, by_shape, load_exam, marks, oracle
from engine.pocket.lexicon import nouns
from engine.pocket.pace import psnr
from engine.pocket.renderer import Renderer
from engine.pocket.scenes import BUCKETS, base_menu, sample

STEPS, GUIDANCE = 12, 4.0
FRESH = 910_000  # seed of the scenes that the autoencoder is measured on
LEAST = 0.60  # of a noun's pictures that must show it
COLUMNS = ("second judge", "first judge", "oracle", "decoded oracle", "shuffled")
Draw = Callable[[np.ndarray], Tensor]  # rows of the exam, all of one shape → pictures (n, 3, h, w) in 0..1


@dataclass(frozen=True)
class Room:
    """What an exam is sat with."""

    exam: list[Question]
    judges: tuple[Judge, Judge]  # the first, the second
    pipeline: StableDiffusionPipeline
    renderer: Renderer
    device: str
    batch: int


def judged(room: Room, draw: Draw, judges: Sequence[Judge]) -> list[Judgement]:
    """What each judge finds in one picture of every question, in the exam's order."""
    order: list[np.ndarray] = []
    parts: list[list[Judgement]] = [[] for _ in judges]
    for _, rows in by_shape(room.exam):
        for start in range(0, len(rows), room.batch):
            some = rows[start : start + room.batch]
            seen = pixels(draw(some))
            order.append(some)
            for judge, found in zip(judges, parts, strict=True):
                found.append(judge(seen))
    back = np.argsort(np.concatenate(order))
    return [Judgement.joined(found)[back] for found in parts]


def drawn(room: Room, rows: np.ndarray, seed: int) -> Tensor:
    """The base's pictures of some questions of one shape."""
    height, width = BUCKETS[room.exam[int(rows[0])].truth.shape]
    some = [room.exam[int(row)].prompt for row in rows]
    seeds = [torch.Generator().manual_seed(seed * 10_000 + int(row)) for row in rows]
    said: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "latent"}
    latents: Any = room.pipeline(some, height=height, width=width, generator=seeds, **said).images
    vae = room.pipeline.vae
    with torch.inference_mode():
        parts = [vae.decode(part / vae.config.scaling_factor).sample for part in latents.split(64)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def rendered(room: Room, rows: np.ndarray) -> Tensor:
    """The renderer's pictures of some questions of one shape."""
    return room.renderer.draw(oracle(room.exam, rows))


def sit(room: Room, seeds: int) -> dict[str, dict[str, np.ndarray]]:
    """Marks by column and name, (prompts, pictures of each), nan where nothing is asked."""
    second = room.judges[1]
    columns: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in COLUMNS}
    mixed = np.random.default_rng(0).permutation(len(room.exam))
    for seed in range(seeds):
        by_first, by_second = judged(room, lambda rows, seed=seed: drawn(room, rows, seed), room.judges)
        columns["first judge"].append(marks(by_first, room.exam))
        columns["second judge"].append(marks(by_second, room.exam))
        columns["shuffled"].append(marks(by_second[mixed], room.exam))
    (plain,) = judged(room, lambda rows: rendered(room, rows), [second])
    (again,) = judged(room, lambda rows: decoded(room.pipeline.vae, rendered(room, rows)), [second])
    columns["oracle"].append(marks(plain, room.exam))
    columns["decoded oracle"].append(marks(again, room.exam))
    return {name: stacked(parts) for name, parts in columns.items()}


def stacked(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Marks of several pictures of each question side by side; a mark that one picture lacks is nan there."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    nothing = np.full(len(next(iter(parts[0].values()))), np.nan)
    return {name: np.stack([part.get(name, nothing) for part in parts], 1) for name in names}


def share(values: np.ndarray) -> dict[str, float]:
    """Of marks (prompts, pictures): the mean over prompts, its 95 % interval, and how many prompts and pictures."""
    asked = values[~np.isnan(values).all(1)]
    if not len(asked):
        return {"prompts": 0, "pictures": 0}
    mean, low, high = interval(np.nanmean(asked, 1))
    return {"mean": mean, "low": low, "high": high, "prompts": len(asked), "pictures": int((~np.isnan(asked)).sum())}


def combinations(room: Room, columns: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """Noun with colour, noun with style, both right: in combinations that training had, and in those it left out."""
    new = np.array([question.new for question in room.exam])
    table: dict[str, dict[str, Any]] = {}
    for head in ("colour", "style"):
        here = np.array([question.section in (head, "new") for question in room.exam])
        table[head] = {
            f"{which}, {name}": share(columns[name][f"{head} and object"][here & chosen])
            for which, chosen in (("seen", ~new), ("new", new))
            for name in ("second judge", "oracle")
            if f"{head} and object" in columns[name]
        }
    return table


def by_noun(room: Room, values: np.ndarray) -> dict[str, tuple[float, int]]:
    """Each noun that is asked alone, in no style → the share of its pictures that show it, and how many there are."""
    table: dict[str, list[float]] = {}
    for question, row in zip(room.exam, values, strict=True):
        if len(question.truth.things) == 1 and question.truth.look == "none" and not question.new:
            table.setdefault(question.truth.things[0].noun, []).extend(row[~np.isnan(row)].tolist())
    return {noun: (float(np.mean(row)), len(row)) for noun, row in sorted(table.items()) if row}


def by_label(room: Room, values: np.ndarray, head: str) -> dict[str, float]:
    """The mean of a head's marks for each of its labels."""
    said = np.array([answers(question.truth).get(head, "") for question in room.exam])
    rows = {label: share(values[said == label]) for label in sorted(set(said.tolist()) - {""})}
    return {label: row["mean"] for label, row in rows.items() if "mean" in row}


def fidelity(room: Room, count: int) -> float:
    """PSNR of the autoencoder in dB on fresh scenes of all shapes that training could have drawn."""
    errors: list[float] = []
    for turn in range(max(1, count // 32)):
        generator = torch.Generator().manual_seed(FRESH + turn)
        pictures = room.renderer.draw(sample(min(32, count), base_menu(), generator, shape_of(turn)))
        errors.append(10 ** (-psnr(decoded(room.pipeline.vae, pictures), pictures) / 10))
    return float(-10 * np.log10(np.mean(errors)))


# Report.


def percent(row: dict[str, float], whole: bool = True) -> str:
    if "mean" not in row:
        return "–"
    return f"{row['mean']:.1%}" + (f" ({row['low']:.1%} … {row['high']:.1%})" if whole else "")


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"{report['machine']}. {report['prompts']} prompts × {report['seeds']} seeds, {STEPS} steps, guidance "
             f"{GUIDANCE:g}; drawn and judged in {report['seconds']:.0f} s.", "",
             "| | " + " | ".join(COLUMNS) + " | prompts |", "|---" * (len(COLUMNS) + 2) + "|"]  # fmt: skip
    for name, row in report["marks"].items():
        cells = " | ".join(percent(row[column], i < 2) for i, column in enumerate(COLUMNS))
        lines.append(f"| {name} | {cells} | {row['second judge']['prompts']} |")
    lines += ["", "| noun and … right | seen together | new together | new / seen | oracle: seen | oracle: new |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for head, row in report["combinations"].items():
        seen, new, *oracles = (row.get(f"{which}, {name}", {}) for name in ("second judge", "oracle")
                               for which in ("seen", "new"))  # fmt: skip
        ratio = f"{new['mean'] / seen['mean']:.2f}" if new.get("mean") and seen.get("mean") else "–"
        lines.append(f"| {head} | {percent(seen)} | {percent(new)} | {ratio} | {percent(oracles[0], False)} | "
                     f"{percent(oracles[1], False)} |")  # fmt: skip
    return "\n".join([*lines, *details(report)]) + "\n"


def details(report: dict[str, Any]) -> list[str]:
    """The report's lines under its tables."""
    weak = sorted((right, noun) for noun, (right, _) in report["nouns"].items() if right < LEAST)
    sorts = ", ".join(f"{sort}s {percent(row)}" for sort, row in report["sorts"].items() if "mean" in row)
    lines = ["", f"Objects by who draws them: {sorts}.", "",
             f"Nouns that fewer than {LEAST:.0%} of their pictures show: {len(weak)} of {len(report['nouns'])}"
             f"{''.join(f', {noun} {right:.0%}' for right, noun in weak)}.", "",
             f"Autoencoder: {report['autoencoder_psnr_db']:.2f} dB on fresh renders.", ""]  # fmt: skip
    for head, row in report["labels"].items():
        lines.append(f"- {head}: " + ", ".join(f"{label} {right:.0%}" for label, right in row.items()))
    return lines


def examine(room: Room, seeds: int) -> dict[str, Any]:
    """Everything that is measured, as plain data."""
    begun = time.monotonic()
    columns = sit(room, seeds)
    names = [name for name in columns["second judge"] if name not in ("first", "second")]
    table = {name: {column: share(columns[column][name]) for column in COLUMNS if name in columns[column]}
             for name in names}  # fmt: skip
    heads = ("background", "style", "colour", "count", "expression", "pose", "view", "light")
    best = columns["second judge"]
    return {
        "machine": machine(), "prompts": len(room.exam), "seeds": seeds, "seconds": time.monotonic() - begun,
        "marks": {name: {column: row.get(column, {"prompts": 0}) for column in COLUMNS} for name, row in table.items()},
        "combinations": combinations(room, columns), "nouns": by_noun(room, best["object"]),
        "labels": {head: by_label(room, best[head], head) for head in heads if head in best},
        "autoencoder_psnr_db": fidelity(room, 256 if len(room.exam) > 100 else 4),
        "sorts": by_sort(room, best["object"]),
    }  # fmt: skip


def by_sort(room: Room, values: np.ndarray) -> dict[str, dict[str, float]]:
    """The object's marks for glyphs, products and characters."""
    sorts = np.array([nouns()[question.truth.things[0].noun] for question in room.exam])
    return {sort: share(values[sorts == sort]) for sort in sorted(set(sorts.tolist()))}


def load_room(args: argparse.Namespace) -> Room:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    exam = load_exam()
    if args.count:
        exam = [exam[int(i)] for i in np.linspace(0, len(exam) - 1, min(args.count, len(exam)))]
    pipeline = StableDiffusionPipeline.from_pretrained(args.base, dtype=torch.float32).to(args.device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.unet.to(memory_format=torch.channels_last)
    judges = (Judge.load(FOLDER, args.device), Judge.load(SECOND, args.device))
    return Room(exam, judges, pipeline, Renderer.on(args.device), args.device, args.batch)


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pocket", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--count", type=int, default=0, help="so many prompts, spread over the exam; 0: all")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256 if cuda else 16)
    parser.add_argument("--base", type=Path, default=bases.SHIPPED / "pocket")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of pocket.json and pocket.md")
    args = parser.parse_args()
    report = examine(load_room(args), args.seeds)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "pocket.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "pocket.md").write_text(page(report))
    print(page(report))


if __name__ == "__main__":
    main()

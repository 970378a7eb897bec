"""Do twelve pictures teach a subject, and does prior preservation stop the leak? `python -m benchmarks.subjects`.

For each held-out subject: twelve pictures from the renderer, `atelier train` with its default settings, once with the
base as prior and once with none, from the same seed. Then, seeds 0–3:
- fidelity: the judge's probability of the subject on prompts with the trigger, on grounds and in styles new to it;
- following: how often the judge finds the ground or style that such a prompt names;
- leak: on prompts without the trigger, the judge's probability of the subject, less that on the bare base's pictures of
  the same prompts and seeds; and drift, 1 − cosine between the judge's embeddings of the two;
- curve: fidelity at the weights 0, 0.5 and 1, on the first of the prompts.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import machine, pictures, pocket, sheet
from engine.bases.vocabulary import Vocabulary
from engine.diffusion.resident import Resident
from engine.evaluation.judge import Judge
from engine.lora.blend import Delta, deltas
from engine.lora.read import read

SEEDS = (0, 1, 2, 3)
SUBJECTS = ("crab", "owl", "backpack", "penguin")
OTHERS = ("fox", "car", "cake", "guitar", "dog")
COLOURS = ("teal", "yellow", "navy", "red", "green")
OTHER_PROMPTS = [f"a {noun}, {colour} background" for noun, colour in zip(OTHERS, COLOURS, strict=True)]
STYLES = ("pixel art", "line drawing", "sticker")
CURVE = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Bench:
    resident: Resident
    judge: Judge
    base: np.ndarray  # the bare base's pictures of OTHER_PROMPTS
    out: Path


def run(*command: str) -> str:
    return subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, text=True).stdout


def learnt(subject: str, prior: str, seed: int, folder: Path) -> tuple[dict[str, Delta], dict[str, Any]]:
    """Train by the command line; the factors, and what it said of itself."""
    words = ("--name", f"{subject}-{prior}", "--kind", "subject", "--trigger", "zqx", "--class", subject)
    said = json.loads(
        run("bot", "--home", str(folder / "home"), "--json", "train", str(folder / subject), *words, "--prior", prior,
            "--seed", str(seed))
    )  # fmt: skip
    weights = (Path(said["folder"]) / "weights.safetensors").read_bytes()
    return deltas(read(weights, said["name"])), said


def asked_of(resident: Resident, folder: Path) -> list[tuple[str, str]]:
    """(what, head): three grounds that no training caption names, and three styles; no training picture has a style."""
    words = Vocabulary.of(resident.base)
    assert words is not None
    said = " ".join(file.read_text() for file in folder.glob("*.txt"))
    places = [place for place in words.backgrounds if place not in said][:3]
    return [*((place, "background") for place in places), *((style, "style") for style in STYLES)]


def measure(bench: Bench, subject: str, seed: int, folder: Path) -> dict[str, dict[str, float]]:
    run("engine.pocket.scenes", "--subject", subject, "-n", "12", "--seed", str(seed), "--out", str(folder / subject))
    asked = asked_of(bench.resident, folder / subject)
    rows: dict[str, dict[str, float]] = {}
    for prior in ("base", "none"):
        file, said = learnt(subject, prior, seed, folder)
        rows[prior] = scores(bench, subject, asked, file, prior) | {"seconds": said["seconds"]}
        print(subject, prior, json.dumps({k: round(v, 4) for k, v in rows[prior].items()}), flush=True)
    return rows


def scores(
    bench: Bench, subject: str, asked: list[tuple[str, str]], file: dict[str, Delta], prior: str
) -> dict[str, float]:
    prompts = [f"a zqx {subject}, {what}" for what, _ in asked]
    drawn = pictures(bench.resident, prompts, SEEDS, [(file, 1.0)])
    sheet(drawn, len(SEEDS) * 2, bench.out / f"{subject}-{prior}.png")
    found, before = bench.judge(drawn), bench.judge(bench.base)
    after = bench.judge(pictures(bench.resident, OTHER_PROMPTS, SEEDS, [(file, 1.0)]))
    follows = [
        found.best(head)[i * len(SEEDS) + k] == what for i, (what, head) in enumerate(asked) for k in range(len(SEEDS))
    ]
    row = {
        "fidelity": float(found.of("object", subject).mean()),
        "following": float(np.mean(follows)),
        "leak": float((after.of("object", subject) - before.of("object", subject)).mean()),
        "drift": float((1 - (after.embedding * before.embedding).sum(1)).mean()),
    }
    if prior == "base":
        for weight in CURVE:
            some = bench.judge(pictures(bench.resident, prompts[:1], SEEDS, [(file, weight)]))
            row[f"at {weight:g}"] = float(some.of("object", subject).mean())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=SUBJECTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/subjects"))
    args = parser.parse_args()
    resident = pocket()
    bench = Bench(resident, Judge.load(), pictures(resident, OTHER_PROMPTS, SEEDS), args.out)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(bench, name, args.seed, Path(folder)) for name in args.subjects]
    print(machine())
    for key in ("fidelity", "following", "leak", "drift", "seconds"):
        kept, free = (np.array([row[prior][key] for row in rows]).mean() for prior in ("base", "none"))
        print(f"{key}: with prior {kept:.4f}, without {free:.4f}, ratio {kept / free:.3f}")
    print("curve:", {weight: round(float(np.mean([r["base"][f"at {weight:g}"] for r in rows])), 4) for weight in CURVE})
    print(f"peak memory of one training: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2:.2f} GB")


if __name__ == "__main__":
    main()

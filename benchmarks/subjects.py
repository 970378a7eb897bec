"""Do twelve pictures teach a subject, and does prior preservation stop the leak? `python -m benchmarks.subjects`.

For each held-out subject: twelve pictures from the renderer, default settings, trained with the base as prior and with
none, from the same seed. Then, seeds 0–3:
- fidelity: the judge's probability of the subject on prompts with the trigger, on grounds and in styles new to it;
- following: how often the judge finds the ground or style that such a prompt names;
- leak: on prompts without the trigger, the judge's probability of the subject, less that on the bare base's pictures of
  the same prompts and seeds; and drift, 1 − cosine between the judge's embeddings of the two.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.bench import machine, pictures, pocket, sheet
from engine.bases.vocabulary import Vocabulary
from engine.diffusion.resident import Resident
from engine.evaluation.judge import Judge
from engine.jobs import Trained
from engine.lora.blend import Delta, deltas
from engine.lora.read import read
from engine.plans import DEFAULT_TRAIN_STEPS, Example, TrainPlan
from engine.training.loop import train

SEEDS = (0, 1, 2, 3)
SUBJECTS = ("crab", "owl", "backpack", "penguin")
OTHERS = ("fox", "car", "cake", "guitar", "tree", "dog", "umbrella", "burger")
STYLES = ("pixel art", "line drawing", "watercolour", "sticker")


def training_pictures(subject: str, seed: int) -> list[tuple[bytes, str]]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "engine.pocket.scenes", "--subject", subject, "-n", "12", "--seed", str(seed)]
        subprocess.run([*command, "--out", folder], check=True)
        files = sorted(Path(folder).glob("*.png"))
        return [(file.read_bytes(), file.with_suffix(".txt").read_text().strip()) for file in files]


def plan_for(subject: str, seed: int, steps: int) -> TrainPlan:
    shown = training_pictures(subject, seed)
    said = tuple(
        Example(f"{i:02}.png", data, text.replace("[trigger]", f"zqx {subject}"))
        for i, (data, text) in enumerate(shown)
    )
    return TrainPlan(subject, "subject", "zqx", "pocket", said, seed, steps, subject)


def learnt(resident: Resident, plan: TrainPlan) -> tuple[dict[str, Delta], float]:
    """The trained factors, and the seconds that it took."""
    *_, last = train(resident, plan, Path("/nonexistent"))
    assert isinstance(last, Trained)
    return deltas(read(last.weights, plan.name)), float(last.facts["seconds"])


def unseen(plan: TrainPlan, places: tuple[str, ...]) -> list[str]:
    """Grounds that no training caption names."""
    said = " ".join(example.caption for example in plan.examples)
    return [place for place in places if place not in said][:4]


def measure(
    resident: Resident, judge: Judge, plan: TrainPlan, base: np.ndarray, out: Path
) -> dict[str, dict[str, float]]:
    words = Vocabulary.of(resident.base)
    assert words is not None
    places = unseen(plan, tuple(words.backgrounds))
    asked = [*((place, "background") for place in places), *((style, "style") for style in STYLES)]
    prompts = [f"a zqx {plan.word}, {what}" for what, _ in asked]
    rows: dict[str, dict[str, float]] = {}
    before = judge(base)
    for prior in ("base", "none"):
        file, seconds = learnt(resident, replace(plan, prior=prior))
        with_trigger = pictures(resident, prompts, SEEDS, [(file, 1.0)])
        sheet(with_trigger, len(SEEDS) * 2, out / f"{plan.name}-{prior}.png")
        found, without = judge(with_trigger), pictures(resident, OTHER_PROMPTS, SEEDS, [(file, 1.0)])
        after = judge(without)
        follows = [
            found.best(head)[i * len(SEEDS) + k] == what
            for i, (what, head) in enumerate(asked)
            for k in range(len(SEEDS))
        ]
        rows[prior] = {
            "fidelity": float(found.of("object", plan.word).mean()),
            "following": float(np.mean(follows)),
            "leak": float((after.of("object", plan.word) - before.of("object", plan.word)).mean()),
            "drift": float((1 - (after.embedding * before.embedding).sum(1)).mean()),
            "seconds": seconds,
        }
        print(plan.name, prior, json.dumps({k: round(v, 4) for k, v in rows[prior].items()}), flush=True)
    return rows


OTHER_PROMPTS = [
    f"a {noun}, {colour} background" for noun, colour in zip(OTHERS, ("teal", "red", "navy", "yellow") * 2, strict=True)
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=SUBJECTS)
    parser.add_argument("--steps", type=int, default=DEFAULT_TRAIN_STEPS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/subjects"))
    args = parser.parse_args()
    resident, judge = pocket(), Judge.load()
    base = pictures(resident, OTHER_PROMPTS, SEEDS)
    rows = [measure(resident, judge, plan_for(name, args.seed, args.steps), base, args.out) for name in args.subjects]
    print(machine())
    for key in ("fidelity", "following", "leak", "drift", "seconds"):
        kept, free = (np.array([row[prior][key] for row in rows]) for prior in ("base", "none"))
        print(f"{key}: with prior {kept.mean():.4f}, without {free.mean():.4f}, ratio {kept.mean() / free.mean():.3f}")


if __name__ == "__main__":
    main()

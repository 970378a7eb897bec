"""Does the quality LoRA earn its place? 200 prompts with and without it, same seeds: `python -m benchmarks.quality`.

It may ship only if sharpness or prompt accuracy rises with a 95 % interval above zero. Sharpness: log of the mean
squared Laplacian of the luminance. Accuracy: the first judge's probability of the object that the prompt names.
"""

import argparse

import numpy as np

from benchmarks.batches import together
from benchmarks.bench import interval, machine, pocket
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog
from engine.evaluation.judge import Judge
from engine.lora.blend import deltas
from engine.lora.read import read
from engine.pocket.backdrops import SAID
from engine.pocket.captions import named
from engine.pocket.starters import ROOT


def prompts(words: Vocabulary, count: int, trigger: str) -> list[tuple[str, str, str]]:
    """(noun, prompt, prompt with the trigger), drawn evenly over nouns and grounds; the same ones at every run."""
    nouns, places = sorted(words.nouns), sorted(SAID)
    picks = np.random.default_rng(7).permutation(len(nouns))[:count]
    rows: list[tuple[str, str, str]] = []
    for k, i in enumerate(map(int, picks)):
        place = SAID[places[k % len(places)]][0].format("teal")
        said = f"{named(nouns[i])}{'' if place.startswith(',') else ' '}{place}"
        rows.append((nouns[i], said, f"{trigger}, {said}"))
    return rows


def sharpness(images: np.ndarray) -> np.ndarray:
    """(n,) log mean squared Laplacian of the luminance in 0..1."""
    grey = images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    laplacian = (
        4 * grey[:, 1:-1, 1:-1] - grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    )
    return np.log((laplacian**2).mean((1, 2)) + 1e-8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--weight", type=float, default=0.5)
    args = parser.parse_args()
    resident, judge, catalog = pocket(), Judge.load(), Catalog(ROOT, ROOT / ".none")
    words, card = Vocabulary.of(resident.base), catalog.get("crisp")
    assert words is not None
    rows = prompts(words, args.n, card.trigger)
    file = deltas(read(catalog.weights(catalog.ref("crisp", 1.0)), "crisp"))
    side, seeds = resident.base.size.native, [0] * len(rows)
    plain = together(resident, [said for _, said, _ in rows], seeds, (side, side))
    crisp = together(resident, [said for _, _, said in rows], seeds, (side, side), [(file, args.weight)])
    print(machine())
    for name, values in (
        ("sharpness", sharpness(crisp) - sharpness(plain)),
        ("accuracy", _right(judge, crisp, rows) - _right(judge, plain, rows)),
    ):
        mean, low, high = interval(values)
        print(
            f"{name}: {mean:+.4f} (95 % interval {low:+.4f} … {high:+.4f}) on {len(rows)} prompts, weight {args.weight}"
        )


def _right(judge: Judge, images: np.ndarray, rows: list[tuple[str, str, str]]) -> np.ndarray:
    found = judge(images)
    return np.array([found.of("object", noun)[i] for i, (noun, _, _) in enumerate(rows)])


if __name__ == "__main__":
    main()

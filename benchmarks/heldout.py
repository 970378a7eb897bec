"""Do twelve pictures teach what the base has never seen? 24 subjects and 6 styles: `python -m benchmarks.heldout`.

For each: twelve pictures from the renderer, the product's own trainer with its default settings, then new scenes, other
seeds than the pictures learnt from: a character in other poses and moods, a product from other angles, on any ground,
in three shapes, and a third of a subject's scenes in a style that no training picture has. The second judge looks:

- recognised: it gives the subject more than 0.5, or more than any other noun; a style is the likeliest of all styles;
- oracle and base: the same of the renderer's own pictures of these scenes, and of the bare base's with the class word;
- follows: how often it finds the ground, mood, pose, view and colour of the scene that the prompt was taken from;
- leak: its probability of what was learnt, less that with the bare base, on prompts without the trigger: of the nearest
  noun that the base knows ("kept": how often that is still recognised), or, for a style, of other things;
- drift: 1 − cosine between its embeddings of other things with the LoRA and without it.
"""

import argparse
import io
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from benchmarks.batches import together
from benchmarks.bench import interval, machine
from bot.sheets import sheet
from engine.evaluation.judge import SECOND, Judge, Judgement
from engine.lora.blend import Delta, deltas
from engine.lora.read import read
from engine.plans import DEFAULT_TRAIN_STEPS, TrainPlan
from engine.pocket.captions import Dice, Told, ground_words, joined, named, tidy
from engine.pocket.evaluator import answers
from engine.pocket.lessons import Lesson, training_set
from engine.pocket.lexicon import held_out, nouns
from engine.pocket.looks import HELD_OUT_STYLES
from engine.pocket.many import best_device, each, learnt, runners
from engine.pocket.scenes import BUCKETS, Scenes, base_menu, told
from engine.pocket.starters import examples, renderer

TRIGGER = "zqx"
PICTURES = 12
SHAPES = {"square": 8, "portrait": 4, "landscape": 4}  # of the new scenes
STYLED = 1 / 3  # of a subject's new scenes
AWAY = 900_000  # seed of the new scenes
HEADS = ("background", "expression", "pose", "view", "colour")
NEAR = {
    "octopus": "jellyfish", "owl": "cat", "robot": "alien", "dragon": "lion", "penguin": "mouse", "teapot": "mug",
    "jar": "can", "lamp": "candle", "crab": "shrimp", "ghost": "skull", "lobster": "shrimp", "beaver": "squirrel",
    "dodo": "duck", "handbag": "purse", "backpack": "suitcase", "lotion bottle": "bottle",
    "roller skate": "ice skate", "hiking boot": "boot", "flying saucer": "rocket", "nesting doll": "teddy bear",
    "lunch box": "box", "oil lamp": "candle", "kitchen timer": "alarm clock", "mammoth": "elephant",
}  # fmt: skip
PLACES = (", plain red background", " on the grass", " on a wooden table", " in the snow")
OTHERS = ("a fox, teal background", "a car, yellow background", "a cupcake, navy background",
          "a guitar, red background", "a bottle on a podium, green background")  # fmt: skip
SEEDS = (0, 1)


@dataclass(frozen=True)
class Pupil:
    """What is to be learnt. `sort`: "character", "product", "glyph" or "style"."""

    name: str
    sort: str
    lesson: Lesson
    seed: int

    @property
    def word(self) -> str:
        return self.lesson.subject or ""


@dataclass(frozen=True)
class How:
    """Where and how long. `work`: folder in which the LoRAs are left, if any."""

    device: str
    steps: int = DEFAULT_TRAIN_STEPS
    work: Path | None = None


@dataclass(frozen=True)
class Work:
    """Pictures (n, h, w, 3) uint8, by shape, of the new scenes: `new`, `oracle`, `bare`; the rest are squares."""

    pupil: Pupil
    seconds: float
    learnt_from: bytes
    scenes: dict[str, list[Told]]
    new: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    oracle: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    bare: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    near: tuple[np.ndarray, np.ndarray] | None = None  # without the LoRA, with it
    others: tuple[np.ndarray, np.ndarray] | None = None


def pupils() -> tuple[Pupil, ...]:
    subjects = [(noun, nouns()[noun], Lesson(noun, identity=i + 1)) for i, noun in enumerate(held_out())]
    styles = [(style, "style", Lesson(look=style)) for style in HELD_OUT_STYLES]
    return tuple(Pupil(*row, seed=1 + i) for i, row in enumerate((*subjects, *styles)))


# Learning and drawing, in a process of its own.


def worked(pupil: Pupil, how: How) -> Work:
    """Teach it, and draw all that is judged."""
    said = f"{TRIGGER} {pupil.word}".strip()
    pictures = examples(pupil.lesson, said, PICTURES, pupil.seed, how.device)
    kind = "style" if pupil.sort == "style" else "subject"
    plan = TrainPlan(slug(pupil), kind, TRIGGER, "pocket", pictures, pupil.seed, how.steps, pupil.word)
    made = learnt(plan, how.device)
    if how.work:
        how.work.mkdir(parents=True, exist_ok=True)
        (how.work / f"{plan.name}.safetensors").write_bytes(made.weights)
    stack = [(deltas(read(made.weights, plan.name)), 1.0)]
    work = Work(pupil, made.facts["seconds"], pictures[0].data, {}, others=other_things(OTHERS, how.device, stack))
    for shape, (scenes, lines) in new_scenes(pupil).items():
        work.scenes[shape] = told(scenes)
        work.oracle[shape] = truth(scenes, how.device)
        work.new[shape] = drawn([line.replace("[trigger]", said) for line in lines], shape, how.device, stack)
        work.bare[shape] = drawn([without_trigger(line, pupil) for line in lines], shape, how.device)
    if pupil.word:
        near = tuple(f"{named(near_noun(pupil))}{place}" for place in PLACES)
        return replace(work, near=other_things(near, how.device, stack))
    return work


def new_scenes(pupil: Pupil) -> dict[str, tuple[Scenes, list[str]]]:
    """By shape, scenes and prompts with `[trigger]`; a style's name the ground too, which its captions leave out."""
    made: dict[str, tuple[Scenes, list[str]]] = {}
    for part, (shape, n) in enumerate(SHAPES.items()):
        seed = AWAY + pupil.seed * len(SHAPES) + part
        scenes, lines = training_set(pupil.lesson, n, seed, shape, STYLED if pupil.word else 1.0)
        if not pupil.word:
            rows = cast(list[list[float]], scenes.words.tolist())
            lines = [
                tidy(joined(line, ground_words(row, Dice(u[::-1]))))
                for line, row, u in zip(lines, told(scenes), rows, strict=True)
            ]
        made[shape] = scenes, lines
    return made


def without_trigger(line: str, pupil: Pupil) -> str:
    return line.replace("[trigger]", pupil.word and named(pupil.word)).strip()


def near_noun(pupil: Pupil) -> str:
    """The noun most like it that the base knows."""
    known, near = base_menu().nouns, NEAR.get(pupil.word, "")
    return near if near in known else known[0]


def truth(scenes: Scenes, device: str) -> np.ndarray:
    """The scenes as the renderer draws them."""
    return (renderer(device).draw(scenes) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def drawn(
    prompts: Sequence[str], shape: str, device: str, stack: Sequence[tuple[dict[str, Delta], float]] = ()
) -> np.ndarray:
    """Pictures of the prompts, prompt k with seed k."""
    height, width = BUCKETS[shape]
    return together(runners(device).resident("pocket"), prompts, range(len(prompts)), (width, height), stack)


def other_things(
    prompts: tuple[str, ...], device: str, stack: Sequence[tuple[dict[str, Delta], float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Squares of the prompts at all SEEDS, without the LoRA and with it."""
    resident, size = runners(device).resident("pocket"), BUCKETS["square"]
    said, seeds = prompts * len(SEEDS), [seed for seed in SEEDS for _ in prompts]
    return bare_things(prompts, device), together(resident, said, seeds, size, stack)


@cache
def bare_things(prompts: tuple[str, ...], device: str) -> np.ndarray:
    said, seeds = prompts * len(SEEDS), [seed for seed in SEEDS for _ in prompts]
    return together(runners(device).resident("pocket"), said, seeds, BUCKETS["square"])


def slug(pupil: Pupil) -> str:
    return pupil.name.replace(" ", "-")


# Judging.


def scores(work: Work, judge: Judge) -> dict[str, Any]:
    """One row of the table; "follows" counts right answers and questions for each head."""
    pupil = work.pupil
    rows = [row for shape in SHAPES for row in work.scenes[shape]]
    new, oracle, bare = (
        Judgement.joined([judge(part[shape]) for shape in SHAPES]) for part in (work.new, work.oracle, work.bare)
    )
    assert work.others is not None
    before, after = (judge(part) for part in work.others)
    row: dict[str, Any] = {
        "name": pupil.name, "sort": pupil.sort, "recognised": float(known(new, pupil).mean()),
        "each": known(new, pupil).astype(int).tolist(), "probability": float(chance(new, pupil).mean()),
        "oracle": float(known(oracle, pupil).mean()), "base": float(known(bare, pupil).mean()),
        "follows": {head: follows(new, rows, head) for head in HEADS},
        "oracle follows": {head: follows(oracle, rows, head) for head in HEADS},
        "leak": float((chance(after, pupil) - chance(before, pupil)).mean()),
        "drift": float((1 - (after.embedding * before.embedding).sum(1)).mean()), "seconds": work.seconds,
    }  # fmt: skip
    if work.near is not None:
        without, with_it = (judge(part) for part in work.near)
        row["leak"] = float((chance(with_it, pupil) - chance(without, pupil)).mean())
        row["near"] = near_noun(pupil)
        row["kept"] = [float(has_noun(part, row["near"]).mean()) for part in (without, with_it)]
    return row


def head_of(pupil: Pupil) -> str:
    return "object" if pupil.word else "style"


def chance(found: Judgement, pupil: Pupil) -> np.ndarray:
    return found.of(head_of(pupil), pupil.name)


def known(found: Judgement, pupil: Pupil) -> np.ndarray:
    """Whether each picture shows what was learnt, (n,) bool."""
    return has_noun(found, pupil.name) if pupil.word else np.array([best == pupil.name for best in found.best("style")])


def has_noun(found: Judgement, noun: str) -> np.ndarray:
    likeliest = found.probability["object"].argmax(1) == found.place("object", noun)
    return (found.of("object", noun) > 0.5) | likeliest


def follows(found: Judgement, rows: Sequence[Told], head: str) -> tuple[int, int]:
    """How many of the scenes' answers for a head are found, and how many there are; a calm face is not asked for."""
    wanted = [(i, answers(row)[head]) for i, row in enumerate(rows) if head in answers(row)]
    wanted = [(i, label) for i, label in wanted if label != "neutral"]
    best = found.best(head)
    return sum(best[i] == label for i, label in wanted), len(wanted)


def share(rows: Iterable[dict[str, Any]], table: str, head: str) -> float:
    pairs = [row[table][head] for row in rows]
    return sum(right for right, _ in pairs) / max(1, sum(asked for _, asked in pairs))


# Telling.


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mean, low, high = interval(np.array([row["recognised"] for row in rows]))
    sorts = {sort: [row for row in rows if row["sort"] == sort] for sort in ("character", "product", "glyph", "style")}
    return {
        "recognised": mean, "interval": [low, high],
        "by sort": {sort: float(np.mean([r["recognised"] for r in some])) for sort, some in sorts.items() if some},
        **{key: float(np.mean([row[key] for row in rows])) for key in ("oracle", "base", "leak", "drift", "seconds")},
        "follows": {head: [share(rows, table, head) for table in ("follows", "oracle follows")] for head in HEADS},
        "kept": [float(np.mean([row["kept"][i] for row in rows if "kept" in row] or [1.0])) for i in (0, 1)],
    }  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]], whole: dict[str, Any]) -> str:
    lines = [
        "| learnt | sort | recognised | oracle | base | ground | colour | mood, pose | leak | drift | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ground, colour, mood, pose = (
            percent(row["follows"][head]) for head in ("background", "colour", "expression", "pose")
        )
        lines.append(
            f"| {row['name']} | {row['sort']} | {row['recognised']:.0%} | {row['oracle']:.0%} | {row['base']:.0%} | "
            f"{ground} | {colour} | {mood}, {pose} | {row['leak']:.4f} | {row['drift']:.3f} | {row['seconds']:.0f} |"
        )
    low, high = whole["interval"]
    kept = " → ".join(f"{part:.0%}" for part in whole["kept"])
    by_sort = ", ".join(f"{sort}s {part:.0%}" for sort, part in whole["by sort"].items())
    heads = ", ".join(f"{head} {new:.0%} ({true:.0%})" for head, (new, true) in whole["follows"].items())
    return "\n".join([
        *lines, "",
        f"Recognised on {whole['recognised']:.1%} of new scenes (95 % interval over what was learnt {low:.1%} … "
        f"{high:.1%}): {by_sort}. Oracle renders {whole['oracle']:.1%}, "
        f"the bare base with the class word {whole['base']:.1%}.",
        f"Followed (oracle renders in brackets): {heads}.",
        f"Without the trigger: leak {whole['leak']:.4f}, drift {whole['drift']:.3f}, the near noun recognised {kept}.",
        "",
    ])  # fmt: skip


def percent(pair: tuple[int, int]) -> str:
    return f"{pair[0] / pair[1]:.0%}" if pair[1] else "–"


def grid(works: Sequence[Work], rows: Sequence[dict[str, Any]], file: Path) -> None:
    """A row for each: a picture learnt from, then the first eight new scenes, none picked."""
    cells = [[work.learnt_from, *(png(picture) for picture in firsts(work.new))] for work in works]
    labels = [f"{row['name']} {row['recognised']:.0%}" for row in rows]
    columns = ["learnt from", "new scenes", *[""] * (len(cells[0]) - 2)]
    image = Image.open(io.BytesIO(sheet(cells, columns, labels))).convert("RGB")
    file.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS).save(file, quality=85)


def firsts(pictures: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [*pictures["square"][:4], *pictures["portrait"][:2], *pictures["landscape"][:2]]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="subjects and styles; all 30 by default")
    parser.add_argument("--steps", type=int, default=DEFAULT_TRAIN_STEPS)
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--processes", type=int, default=1, help="that train beside each other")
    parser.add_argument("--judge", type=Path, default=SECOND)
    parser.add_argument("--work", type=Path, help="folder in which the LoRAs are left")
    parser.add_argument("--out", type=Path, help="folder for heldout.json, heldout.md and heldout-SORT.jpg")
    args = parser.parse_args()
    begun = time.monotonic()
    chosen = [pupil for pupil in pupils() if not args.only or pupil.name in args.only]
    if unknown := set(args.only or ()) - {pupil.name for pupil in pupils()}:
        parser.error(f"not held out: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in pupils())}")
    judge, found = Judge.load(args.judge, args.device), list[tuple[Work, dict[str, Any]]]()
    how = partial(worked, how=How(args.device, args.steps, args.work))
    for work in each(how, chosen, min(args.processes, len(chosen))):
        found.append((work, scores(work, judge)))
        row = found[-1][1]
        print(f"{row['name']}: recognised {row['recognised']:.0%}, oracle {row['oracle']:.0%}, "
              f"trained in {row['seconds']} s, at {time.monotonic() - begun:.0f} s", flush=True)  # fmt: skip
        if args.out:
            write(found, args)  # what there is so far
    found.sort(key=lambda pair: chosen.index(pair[0].pupil))
    rows = [row for _, row in found]
    print(f"{machine()}\n\n{markdown(rows, summary(rows))}")
    if args.out:
        write(found, args)
        for sort in dict.fromkeys(row["sort"] for row in rows):
            some = [pair for pair in found if pair[1]["sort"] == sort]
            grid([work for work, _ in some], [row for _, row in some], args.out / f"heldout-{sort}s.jpg")


def write(found: Sequence[tuple[Work, dict[str, Any]]], args: argparse.Namespace) -> None:
    """heldout.json and heldout.md."""
    rows = [row for _, row in found]
    whole = summary(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    said = {"machine": machine(), "steps": args.steps, "whole": whole, "rows": rows}
    (args.out / "heldout.json").write_text(json.dumps(said, indent=1) + "\n")
    (args.out / "heldout.md").write_text(markdown(rows, whole))


if __name__ == "__main__":
    main()

"""The exam: prompts drawn evenly over the vocabulary before the base was trained, and what a picture of each must show.

python -m engine.pocket.exam        # writes engine/evaluation/exam.json anew, the same as before

A row is one scene of a pool of fresh seeds, told in full. Only what its prompt says is asked of a picture. As the pool
can be drawn again, so can the picture that the words were taken from: the oracle, which a perfect base would equal.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.evaluation.judge import Judgement
from engine.pocket.backdrops import SAID
from engine.pocket.captions import (
    TOLD_LAYOUTS,
    Dice,
    Thing,
    Told,
    ground_words,
    joined,
    one_kind,
    pair,
    tidy,
    with_style,
)
from engine.pocket.cast import TOLD_EXPRESSIONS, TOLD_POSES, TOLD_VIEWS
from engine.pocket.evaluator import answers
from engine.pocket.lexicon import held_out, nouns, unseen
from engine.pocket.looks import STYLES
from engine.pocket.products import LIGHTS, light_words
from engine.pocket.scenes import BUCKETS, Scenes, every_menu, sample, told

FILE = Path(__file__).parent.parent / "evaluation" / "exam.json"
SEED = 700_000  # of the pools, which neither the base nor a judge is trained on
POOL = {name: 20_480 if name == "square" else 4_096 for name in BUCKETS}  # scenes to choose from
ORDERS = ("to the left of", "to the right of", " above ", " below ", " under ", "in front of", " behind ")
SIDES = {"beside": "left or right", "above": "above or below", "behind": "front or behind"}
COLOURS_OF_TWO = ("first_colour", "second_colour")
NOTHING = ("", "", "", ())  # a thing's words: the prompt has them


@dataclass(frozen=True)
class Question:
    """One prompt. `asked`: the heads that it settles, and "order" where it tells which of two things is where.

    `index`: the scene's place in the pool of its shape. `order`: the words for it, while the exam is drawn.
    """

    section: str
    prompt: str
    index: int
    asked: tuple[str, ...]
    truth: Told
    order: str = ""

    @property
    def new(self) -> bool:
        """Whether it combines a noun with a colour or a look that base training left out."""
        return any(combined(self.truth))


def combined(row: Told) -> tuple[bool, bool]:
    """Whether the colour of a thing, and the look, are new to its noun."""
    return (
        any(unseen(thing.noun, colour=thing.colour) for thing in row.things),
        any(unseen(thing.noun, look=row.look) for thing in row.things),
    )


# Words.


def prompt_of(row: Told, words: Sequence[float]) -> tuple[str, str]:
    """A scene told in full, in one of the captions' phrasings, without a meaningless word; and its words of ORDERS."""
    dice = Dice(words)
    text = pair(row, dice) if len(row.things) == 2 else one_kind(row, dice, brief=False)
    order = next((words for words in ORDERS if words in text), "") if len(row.things) == 2 else ""
    text = joined(text, ground_words(row, dice))
    if row.layout in TOLD_LAYOUTS:
        text = f"{text}, {dice.pick(TOLD_LAYOUTS[row.layout])}"
    return tidy(with_style(text, row, dice)), order.strip()


def is_coloured(thing: Thing, prompt: str) -> bool:
    """Whether the prompt names the thing in its colour."""
    forms = (thing.phrase, thing.brief, thing.many)
    bare = [form.removeprefix("a ").removeprefix("an ") for form in forms]
    said = max((form for form in bare if form and form in prompt), key=len, default="")
    return f" {thing.colour} " in f" {said} "


def says(row: Told, head: str, label: str, prompt: str) -> bool:
    """Whether the prompt tells what `answers` says of this head."""
    first = row.things[0]
    match head:
        case "background":
            ways = len(SAID[row.ground])
            forms = [tidy(ground_words(row, Dice([(i + 0.5) / ways]))).strip(", ") for i in range(ways)]
            return any(form and form in prompt for form in forms)
        case "style":
            return label != "none"
        case "colour" | "first_colour":
            return is_coloured(first, prompt)
        case "second_colour":
            return is_coloured(row.things[1], prompt)
        case "relation":
            return label != "none"
        case "count" | "first" | "second":
            return True
        case _:
            return any(words in prompt for words in forms_of(head, label))


def forms_of(head: str, label: str) -> list[str]:
    """How an expression, pose, view or light is put in words."""
    if head == "light":
        return [light_words(label, u) for u in (0.0, 0.9)] if label in LIGHTS else []
    if head == "view":
        products = {"above": ("seen from above", ", from above"), "eye level": ("at eye level", "front view")}
        return list(products.get(label, TOLD_VIEWS.get(label, ())))
    table = TOLD_EXPRESSIONS if head == "expression" else TOLD_POSES
    ways = [way for name, told in table.items() if name.split(" ")[0] == label.split(" ")[0] for way in told]
    return [way.split(" {")[0] for way in ways]


def asked(row: Told, prompt: str, order: str) -> tuple[str, ...]:
    """The heads that a prompt settles."""
    heads = [head for head, label in answers(row).items() if says(row, head, label, prompt)]
    return (*heads, "order") if order else tuple(heads)


# Drawing lots.


@cache
def pool(shape: str) -> Scenes:
    """The scenes of one shape from which the exam is chosen."""
    generator = torch.Generator().manual_seed(SEED + list(BUCKETS).index(shape))
    return sample(POOL[shape], every_menu(), generator, shape)


def candidates() -> list[Question]:
    """What the base may be asked of all pools, shuffled: known nouns, trained styles."""
    out, known = set(held_out()), ("none", *STYLES)
    found: list[Question] = []
    for shape in BUCKETS:
        scenes = pool(shape)
        words: list[list[float]] = scenes.words.tolist()  # pyright: ignore[reportUnknownVariableType]
        for index, (row, dice) in enumerate(zip(told(scenes), words, strict=True)):
            if row.look in known and not out & {thing.noun for thing in row.things}:
                prompt, order = prompt_of(row, dice)
                found.append(Question("", prompt, index, asked(row, prompt, order), row, order))
    return [found[int(i)] for i in torch.randperm(len(found), generator=torch.Generator().manual_seed(SEED))]


def evenly(questions: Sequence[Question], key: Callable[[Question], str], each: int, section: str) -> list[Question]:
    """The first `each` questions of every value of the key; those with the value "" are passed over.

    Counting is asked in its own section only: everywhere else it would be one.
    """
    taken: dict[str, list[Question]] = {}
    for question in questions:
        row = taken.setdefault(key(question), [])
        if len(row) < each:
            heads = tuple(head for head in question.asked if head != "count" or section == "count")
            row.append(replace(question, section=section, asked=heads))
    return [question for value in sorted(taken) if value for question in taken[value]]


def draw_exam() -> list[Question]:
    """All sections, of different scenes each."""
    left = candidates()
    exam: list[Question] = []

    def take(section: str, each: int, key: Callable[[Question], str]) -> None:
        nonlocal left
        chosen = evenly(left, key, each, section)
        gone = {(q.truth.shape, q.index) for q in chosen}
        left = [q for q in left if (q.truth.shape, q.index) not in gone]
        exam.extend(chosen)

    def lone(q: Question) -> bool:
        return len(q.truth.things) == 1 and q.truth.count == 1

    def plain(q: Question) -> bool:
        return lone(q) and q.truth.look == "none" and not q.new

    def of(head: str, q: Question) -> str:
        return answers(q.truth)[head] if head in q.asked else ""

    def new_combination(q: Question) -> str:
        colour, look = combined(q.truth)
        return "colour" if colour and "colour" in q.asked else "style" if look and "style" in q.asked else ""

    take("single", 1, lambda q: q.truth.things[0].noun if plain(q) else "")
    take("colour", 3, lambda q: of("colour", q) if plain(q) else "")
    take("background", 1, lambda q: of("background", q) if plain(q) else "")
    take("style", 4, lambda q: of("style", q) if lone(q) and not q.new else "")
    take("binding", 8, lambda q: q.order if set(COLOURS_OF_TWO) <= set(q.asked) and not q.new else "")
    take("relation", 12, lambda q: q.order if q.truth.look == "none" and not q.new else "")
    take("beside", 12, lambda q: of("relation", q) if not q.order and not q.new else "")
    take("count", 12, lambda q: of("count", q) if q.truth.look == "none" and not q.new else "")
    take("expression", 4, lambda q: of("expression", q) if plain(q) else "")
    take("pose", 3, lambda q: of("pose", q) if plain(q) else "")
    take("view", 4, lambda q: of("view", q) if plain(q) else "")
    take("light", 4, lambda q: of("light", q) if plain(q) else "")
    take("new", 40, lambda q: new_combination(q) if lone(q) else "")
    missing = {noun for noun in nouns() if noun not in held_out()} - {q.truth.things[0].noun for q in exam if plain(q)}
    if missing:
        raise ValueError(f"the pools show no plain {', '.join(sorted(missing))}")
    return exam


# The file.


def as_json(question: Question) -> dict[str, Any]:
    """One row; what is empty is left out."""
    truth = question.truth._asdict() | {"things": [slim(thing) for thing in question.truth.things]}
    words = {"section": question.section, "prompt": question.prompt, "shape": BUCKETS[question.truth.shape],
             "index": question.index, "new": question.new, "asked": question.asked}  # fmt: skip
    return words | {"truth": {name: value for name, value in truth.items() if value != ""}}


def slim(thing: Thing) -> dict[str, str]:
    kept = ("noun", "colour", "expression", "pose", "view", "light")
    return {name: getattr(thing, name) for name in kept if getattr(thing, name)}


def as_text(exam: Sequence[Question]) -> str:
    """JSON, a line for each question."""
    return "[\n" + ",\n".join(json.dumps(as_json(question), ensure_ascii=False) for question in exam) + "\n]\n"


def load_exam(file: Path = FILE) -> list[Question]:
    """The exam as it was drawn, with things that have no words."""
    return [read_row(row) for row in json.loads(file.read_text())]


def read_row(row: dict[str, Any]) -> Question:
    things = tuple(
        Thing(thing["noun"], thing.get("colour", ""), *NOTHING, *(thing.get(k, "") for k in Thing._fields[6:]))
        for thing in row["truth"]["things"]
    )
    said: dict[str, Any] = {name: row["truth"].get(name, "") for name in Told._fields}
    said["things"] = things
    return Question(row["section"], row["prompt"], row["index"], tuple(row["asked"]), Told(**said))


def by_shape(exam: Sequence[Question]) -> Iterator[tuple[str, np.ndarray]]:
    """Each shape with the places of its questions in the exam."""
    shapes = np.array([question.truth.shape for question in exam])
    for shape in BUCKETS:
        if len(rows := (shapes == shape).nonzero()[0]):
            yield shape, rows


def oracle(exam: Sequence[Question], rows: np.ndarray) -> Scenes:
    """The scenes that questions `rows`, which are of one shape, were taken from."""
    return pool(exam[int(rows[0])].truth.shape)[torch.tensor([exam[int(row)].index for row in rows])]


# Marks.


def marks(found: Judgement, exam: Sequence[Question]) -> dict[str, np.ndarray]:
    """What is right in one picture of each question: 1 or 0, nan where it is not asked; (n,) each.

    "object": of lone kinds, the likeliest noun. "pair": of two, both nouns are the likeliest two. "left or right" and
    the others of SIDES: where both are there, which is where. "binding": both are there, each in its colour, wherever.
    "colour and object", "style and object": both at once. The rest: the likeliest label, where the prompt says it.
    """
    rows = [mark(found, i, question) for i, question in enumerate(exam)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names}


def mark(found: Judgement, i: int, question: Question) -> dict[str, bool]:
    """The marks of picture i."""
    truth = answers(question.truth)

    def best(head: str) -> str:
        return found.labels[head][int(found.probability[head][i].argmax())]

    simple = [head for head in question.asked if head not in ("order", "first", "second", *COLOURS_OF_TWO)]
    row = {"pattern" if truth[head] == "pattern" else head: best(head) == truth[head] for head in simple}
    if len(question.truth.things) == 2:
        return row | of_two(found, i, question)
    row["object"] = best("object") == question.truth.things[0].noun
    for head in ("colour", "style"):
        if head in row:
            row[f"{head} and object"] = row[head] and row["object"]
    return row


def of_two(found: Judgement, i: int, question: Question) -> dict[str, bool]:
    """The marks of a picture of two things."""
    things = question.truth.things
    a, b = (found.place("first", thing.noun) for thing in things)
    first, second = found.probability["first"][i], found.probability["second"][i]
    swapped = bool(first[b] * second[a] > first[a] * second[b])
    row = {"pair": set(np.argsort(found.probability["object"][i])[-2:].tolist()) == {a, b}}
    if row["pair"] and "order" in question.asked:
        row[SIDES[question.truth.relation]] = not swapped
    if set(COLOURS_OF_TWO) <= set(question.asked):
        heads = COLOURS_OF_TWO[::-1] if swapped else COLOURS_OF_TWO
        seen = [int(found.probability[head][i].argmax()) for head in heads]
        row["binding"] = row["pair"] and seen == [found.place("first_colour", thing.colour) for thing in things]
    return row


def main() -> int:
    exam = draw_exam()
    FILE.write_text(as_text(exam))
    counts = {name: sum(q.section == name for q in exam) for name in dict.fromkeys(q.section for q in exam)}
    print(f"{len(exam)} prompts: {', '.join(f'{n} {name}' for name, n in counts.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

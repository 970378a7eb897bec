"""Trains the judges on scenes of their own seeds: every noun, style and brand look, held-out ones included.

Drawing is slow and learning fast: scenes are drawn into a bank on the device, a shape at a time, some of them through
the autoencoder, and learnt from there, any shape a step, for about as long as the drawing took; but no scene often, as
nouns are told apart only by who has seen many of each. Numbers and words of the next scenes are made meanwhile on other
threads. A killed run goes on from its last checkpoint.
"""

# diffusers' own annotations are often wrong (`tuple[str]` for four names):
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.evaluation.judge import HEADS, Judge, JudgeNet
from engine.pocket.backdrops import BACKDROPS, COLOURS
from engine.pocket.captions import RELATIONS, Told
from engine.pocket.lexicon import nouns, synonyms
from engine.pocket.looks import COLOURLESS, LOOKS, NOWHERE
from engine.pocket.pace import Average, Pace, set_rate
from engine.pocket.renderer import Renderer
from engine.pocket.scenes import BUCKETS, Cast, Scenes, every_menu, sample, told

# What looks hide beside colours and places: what takes fine lines or shading to see.
FACELESS = ("silhouette", "pixel art", "oil painting", "mosaic", "cross stitch", "stained glass", "halftone")
SHADELESS = (*COLOURLESS, "paper cut")
FEW = 5  # a head that this part of a batch asks weighs as much as one that all of it asks
FIRMER = 2.0  # how much more the nouns weigh than their probabilities need: else 13 heads drown the one that matters
SHIFT = 6  # px
FRESH = 900_000  # seed of the scenes that accuracy is measured on
Targets = dict[str, Tensor]
Labels = dict[str, list[str]]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Setup:
    """Sizes of a training run. `vae`: folder of the autoencoder that `decoded` of the scenes pass. `work`: checkpoint.

    Batch t is drawn from seed + t, so a run that goes on draws what it would have drawn.
    """

    device: str = "cuda"
    net: str = "residual"
    seed: int = 500_000
    batch: int = 256
    drawn: int = 512  # scenes at once: as quick as half of them, as drawing is many small operations
    bank: int = 60_000
    rate: float = 2e-3
    learning: float = 1.0  # seconds for each second of drawing,
    most: int = 12  # but at most so many steps after each batch drawn
    sprites: tuple[int, int] = (6_000, 6_000)  # products and characters drawn beforehand, in at most
    filling: float = 0.2  # of the time; (0, 0) draws each anew
    checked: int = 1536  # fresh scenes that the accuracy is measured on
    vae: Path | None = None
    decoded: float = 0.3
    work: Path | None = None
    save_every: float = 0.2  # of the run

    @staticmethod
    def second(device: str = "cuda") -> "Setup":
        """The judge that only measures: another network, other scenes."""
        return Setup(device=device, net="convnext", seed=600_000)

    @staticmethod
    def tiny(device: str = "cpu", net: str = "residual") -> "Setup":
        return Setup(device=device, net=net, batch=4, drawn=4, bank=64, most=1, sprites=(0, 0), checked=8)


# What is to be said.


def answers(row: Told) -> dict[str, str]:
    """What one scene shows, a label for each head but "object"; a head with nothing to say, or hidden, is left out."""
    first, second = row.things[0], row.things[1] if len(row.things) > 1 else None
    coloured, near = row.look not in COLOURLESS, not second and row.count > 0
    said = {
        "background": row.ground if row.look not in NOWHERE else "",
        "style": row.look,
        "relation": row.relation or "none",
        "expression": first.expression if near and row.look not in FACELESS else "",
        "pose": first.pose if near else "",
        "view": first.view if near and row.look != "silhouette" else "",
        "light": first.light if near and row.look not in SHADELESS else "",
    }
    if second:
        said |= {"first": first.noun, "second": second.noun}
        said |= {"first_colour": first.colour, "second_colour": second.colour} if coloured else {}
    else:
        said |= {"count": str(row.count or "pattern"), "colour": first.colour if coloured else ""}
    return {head: label for head, label in said.items() if label}


@cache
def all_labels() -> Labels:
    """The labels of every head; those of expression, pose, view and light are the ones that scenes are told in."""
    heard: dict[str, set[str]] = {head: set() for head in ("expression", "pose", "view", "light")}
    for row in told(sample(4096, every_menu(), torch.Generator().manual_seed(1))):
        said = answers(row)
        for head, labels in heard.items():
            labels |= {said[head]} if head in said else set()
    things, shades = list(nouns()), list(COLOURS)
    return {
        "object": things, "background": list(BACKDROPS), "style": list(LOOKS), "colour": shades,
        "count": ["1", "2", "3", "4", "pattern"], "relation": ["none", *RELATIONS[1:]], "first": things,
        "second": things, "first_colour": shades, "second_colour": shades,
        **{head: sorted(labels) for head, labels in heard.items()},
    }  # fmt: skip


def targets(rows: Sequence[Told], labels: Labels | dict[str, tuple[str, ...]]) -> Targets:
    """The labels' indices, (n,) each, -100 where there is nothing to say; "object": (n, nouns), 1 for what is there."""
    index = {head: {label: place for place, label in enumerate(names)} for head, names in labels.items()}
    said = [answers(row) for row in rows]
    wanted = {
        head: torch.tensor([index[head][row[head]] if head in row else -100 for row in said]) for head in HEADS[1:]
    }
    things = [(i, index["object"][thing.noun]) for i, row in enumerate(rows) for thing in row.things]
    present = torch.zeros(len(rows), len(labels["object"]))
    present[tuple(torch.tensor(things).T)] = 1.0
    return {"object": present} | wanted


def judge_loss(logits: dict[str, Tensor], wanted: Targets) -> Tensor:
    """Nouns: binary cross-entropy, for their probabilities, and each that is there against all others, for their order.

    Other heads: half the cross-entropy, where they apply.
    """
    there, named = wanted["object"], logits["object"].float()
    absent = named.masked_fill(there > 0, -torch.inf).logsumexp(1, keepdim=True)
    order = (F.softplus(absent - named) * there).sum(1) / there.sum(1).clamp(min=1)
    loss = F.binary_cross_entropy_with_logits(named, there, reduction="none").sum(1).mean() + FIRMER * order.mean()
    for head in HEADS[1:]:
        asked = (wanted[head] >= 0).sum().clamp(min=len(there) / FEW)
        error = F.cross_entropy(logits[head].float(), wanted[head], ignore_index=-100, reduction="sum")
        loss = loss + 0.5 * error / asked
    return loss


def taught(wanted: Targets) -> Targets:
    """Targets to learn from: a lone thing is the first one too, so that its map of attention learns from all scenes."""
    there = wanted["object"]
    return wanted | {"first": torch.where(there.sum(1) == 1, there.argmax(1), wanted["first"])}


# Pictures.


def worn(x: Tensor) -> Tensor:
    """Pictures as a decoder leaves them: some noise and blotches on all, some blur on half; and shifted a little."""
    n, _, high, wide = x.shape
    down, along = torch.randint(2 * SHIFT + 1, (2,)).tolist()
    x = F.pad(x, (SHIFT,) * 4, mode="replicate")[:, :, down : down + high, along : along + wide]
    soft = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    x = torch.where(torch.rand(n, 1, 1, 1, device=x.device) < 0.5, soft, x)
    blotches = F.interpolate(torch.randn(n, 3, 6, 6, device=x.device), size=(high, wide), mode="bilinear")
    strength = torch.rand(2, n, 1, 1, 1, device=x.device)
    return (x + 0.04 * strength[0] * torch.randn_like(x) + 0.02 * strength[1] * blotches).clamp(0, 1)


def pixels(pictures: Tensor) -> Tensor:
    """(n, 3, h, w) in 0..1 → uint8 (n, h, w, 3)."""
    return (pictures * 255).round().byte().permute(0, 2, 3, 1)


@torch.no_grad()
def decoded(vae: AutoencoderKL, pictures: Tensor, exact: bool = True, batch: int = 64) -> Tensor:
    """Pictures (n, 3, h, w) in 0..1 after the autoencoder; on CUDA in bf16 if they need not be exact."""
    parts: list[Tensor] = []
    device = pictures.device.type
    for part in pictures.split(batch):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda" and not exact):
            latents = vae.encode((part * 2 - 1).to(vae.dtype)).latent_dist.mean
            parts.append(vae.decode(latents).sample.float())
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def load_vae(folder: Path | None, device: str) -> AutoencoderKL | None:
    if not folder:
        return None
    vae = AutoencoderKL.from_pretrained(folder).to(device, torch.float32, memory_format=torch.channels_last)
    return vae.eval().requires_grad_(False)


def shape_of(turn: int) -> str:
    """Square every other time, the other shapes in turn."""
    others = [name for name in BUCKETS if name != "square"]
    return others[turn // 2 % len(others)] if turn % 2 else "square"


def ahead(make: Callable[[int], Made], start: int, workers: int = 2) -> Generator[Made]:
    """make(start), make(start + 1), …, in order, made on other threads before they are asked for."""
    turns = count(start)
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque(pool.submit(make, next(turns)) for _ in range(workers + 2))
        while True:
            waiting.append(pool.submit(make, next(turns)))
            yield waiting.popleft().result()


@dataclass
class Bank:
    """Pictures of one shape with their targets, on the device; when it is full the oldest make way."""

    room: int
    pictures: Tensor = field(init=False)
    wanted: Targets = field(init=False)
    put_in: int = field(default=0, init=False)

    def put(self, pictures: Tensor, wanted: Targets) -> None:
        """Pictures (n, 3, h, w) uint8 with their targets; n divides the room."""
        if not self.put_in:
            self.pictures = pictures.new_empty(self.room, *pictures.shape[1:])
            self.wanted = {head: value.new_empty(self.room, *value.shape[1:]) for head, value in wanted.items()}
        place = slice(self.put_in % self.room, self.put_in % self.room + len(pictures))
        self.pictures[place] = pictures
        for head, value in wanted.items():
            self.wanted[head][place] = value
        self.put_in += len(pictures)

    def pick(self, n: int) -> tuple[Tensor, Targets]:
        """n random pictures in 0..1, and their targets."""
        rows = torch.randint(min(self.put_in, self.room), (n,), device=self.pictures.device)
        x = self.pictures[rows].float() / 255
        return x, {head: value[rows] for head, value in self.wanted.items()}


# Training.


class Learner:
    """The network in training, with its optimizer and the average of its weights."""

    def __init__(self, labels: Labels, setup: Setup) -> None:
        torch.manual_seed(setup.seed)
        self.setup, self.step = setup, 0
        net = JudgeNet({head: len(names) for head, names in labels.items()}, setup.net)
        torch.nn.init.constant_(net.heads["object"].bias, -5.0)
        self.net = net.to(setup.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=setup.rate, weight_decay=0.02)
        self.average = Average(net.parameters())

    def learn(self, bank: Bank, part: float) -> Tensor:
        """One step on the bank; the loss."""
        x, wanted = bank.pick(self.setup.batch)
        x = worn(x).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.setup.device.split(":")[0], torch.bfloat16):
            loss = judge_loss(self.net(x)[0], taught(wanted))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        set_rate(self.optimizer, self.setup.rate, self.step, part)
        self.optimizer.step()
        self.average.update(self.step, 0.995)
        self.step += 1
        return loss.detach()

    def save(self, path: Path, turn: int, part: float) -> None:
        """Everything that a run needs to go on, as one safetensors file."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"mean.{i}": value for i, value in enumerate(self.average.mean)}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": torch.as_tensor(value) for name, value in state.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        about = {"step": str(self.step), "turn": str(turn), "part": str(part)}
        save_file({name: value.contiguous() for name, value in tensors.items()}, new, about)
        new.replace(path)

    def load(self, path: Path) -> tuple[int, float]:
        """Read what `save` wrote; returns the batches drawn and the part of the run that is done."""
        tensors = load_file(path, device=self.setup.device)
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        self.average.mean = [tensors[f"mean.{i}"] for i in range(len(self.average.mean))]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, i, key = name.split(".")
                state.setdefault(int(i), {})[key] = value.cpu() if key == "step" else value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        with safe_open(path, "pt") as file:
            about = file.metadata()
        self.step = int(about["step"])
        return int(about["turn"]), float(about["part"])

    @torch.no_grad()
    def finish(self, banks: dict[str, Bank]) -> None:
        """Take the averaged weights, and measure the normalisations' statistics anew with them."""
        self.average.store()
        norms = [layer for layer in self.net.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over what follows
        for turn in range(24 if norms else 0):
            bank = banks.get(shape_of(turn)) or next(iter(banks.values()))
            self.net(worn(bank.pick(self.setup.batch)[0]).contiguous(memory_format=torch.channels_last))


def train_judge(out: Path, pace: Pace, setup: Setup) -> dict[str, dict[str, float]]:
    """Train by wall clock, save fp16 weights and labels into `out`; returns what `judge_accuracy` does."""
    pace.part()  # the clock runs from here on
    labels, renderer = all_labels(), Renderer.on(setup.device)
    learner, vae = Learner(labels, setup), load_vae(setup.vae, setup.device)
    checkpoint = setup.work / f"{setup.net}.safetensors" if setup.work else None
    at = learner.load(checkpoint) if checkpoint and checkpoint.exists() else (0, 0.0)
    cast = None
    if any(setup.sprites):
        cast = renderer.fill(every_menu(), *setup.sprites, pace.seconds * setup.filling, setup.seed)
    studio = Studio(setup, renderer, vae, cast, labels)
    banks = run(learner, studio, pace, at, checkpoint)
    learner.finish(banks)
    save_judge(learner.net, labels, setup.net, out)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return judge_accuracy(Judge.load(out, setup.device), setup.checked, renderer, vae)


@dataclass(frozen=True)
class Studio:
    """Makes batches of pictures with their targets."""

    setup: Setup
    renderer: Renderer
    vae: AutoencoderKL | None
    cast: Cast | None
    labels: Labels

    def make(self, turn: int) -> tuple[Scenes, Targets]:
        """Numbers and words of batch `turn`, on the CPU."""
        generator = torch.Generator().manual_seed(self.setup.seed + turn)
        scenes = sample(self.setup.drawn, every_menu(), generator, shape_of(turn), self.cast)
        return scenes, targets(told(scenes), self.labels)

    def draw(self, scenes: Scenes) -> Tensor:
        """uint8 (n, 3, h, w) on the device; a part of them has passed the autoencoder."""
        pictures = self.renderer.draw(scenes)
        some = int(len(scenes) * self.setup.decoded) if self.vae else 0
        if self.vae and some:
            pictures[:some] = decoded(self.vae, pictures[:some], exact=False)
        return (pictures * 255).round().byte()

    def bank(self, shape: str) -> Bank:
        """An empty one: squares have half of the room, the other shapes share the rest."""
        share = 0.5 if shape == "square" else 0.5 / (len(BUCKETS) - 1)
        return Bank(max(1, int(self.setup.bank * share) // self.setup.drawn) * self.setup.drawn)


def run(
    learner: Learner, studio: Studio, pace: Pace, at: tuple[int, float], checkpoint: Path | None
) -> dict[str, Bank]:
    """Draw, and learn for as long as that took, in turn, until the time is over; `at`: batches drawn, part done."""
    setup, banks, (turn, first) = studio.setup, dict[str, Bank](), at
    saved, each = first, math.inf  # part of the run, seconds of a step
    for scenes, wanted in ahead(studio.make, turn):
        part = first + (1 - first) * pace.part()
        if part >= 1 and banks:
            break
        begun, bank = time.monotonic(), banks.setdefault(scenes.shape, studio.bank(scenes.shape))
        bank.put(studio.draw(scenes), {head: value.to(setup.device) for head, value in wanted.items()})
        loss = learner.learn(bank, part).item()  # waits for the device, so that the clock is true
        drawing, begun = time.monotonic() - begun, time.monotonic()
        steps = max(1, min(setup.most, int(drawing * setup.learning / each)))
        for _ in range(steps - 1):
            loss = learner.learn(banks.get(shape_of(learner.step), bank), part)
        loss, turn = float(loss), turn + 1
        each = (time.monotonic() - begun) / (steps - 1) if steps > 1 else drawing / 4
        if turn % 25 == 0:
            print(f"judge ({setup.net}): {turn} batches, the last drawn in {drawing:.2f} s, "
                  f"{learner.step} steps of {each * 1000:.0f} ms, {part:.0%}, loss {loss:.3f}", flush=True)  # fmt: skip
        if checkpoint and part - saved > setup.save_every:
            learner.save(checkpoint, turn, part)
            saved = part
    return banks


def save_judge(net: JudgeNet, labels: Labels, kind: str, out: Path) -> None:
    """weights.safetensors in fp16, and labels.json with the network's kind and the synonyms."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous().cpu() for name, value in net.state_dict().items()}
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in weights.items()},
        out / "weights.safetensors",
    )
    others = {word: noun for word, noun in synonyms().items() if word != noun}
    (out / "labels.json").write_text(json.dumps({"net": kind} | labels | {"synonyms": others}, indent=0) + "\n")


# Accuracy.


def accuracy(probability: dict[str, np.ndarray], wanted: Targets) -> dict[str, float]:
    """Share of pictures whose likeliest label is the true one, head by head, where there is one.

    "object": of lone kinds. "both": of two things, they are the likeliest two.
    """
    chance = {head: torch.from_numpy(p) for head, p in probability.items()}
    there = wanted["object"]
    lone = there.sum(1) == 1
    top = there.gather(1, chance["object"].topk(2, 1).indices)
    right = {"object": top[lone, 0], "both": (top[~lone].sum(1) == 2).float()}
    for head in HEADS[1:]:
        asked = wanted[head] >= 0
        right[head] = (chance[head].argmax(1) == wanted[head])[asked].float()
    return {head: round(float(hits.mean()), 4) for head, hits in right.items() if len(hits)}


def judge_accuracy(
    judge: Judge, count: int, renderer: Renderer, vae: AutoencoderKL | None = None
) -> dict[str, dict[str, float]]:
    """The judge on fresh scenes of all shapes: "renders", and with an autoencoder "decoded", the same after it."""
    parts: dict[str, list[dict[str, np.ndarray]]] = {"renders": [], "decoded": []}
    truths: list[Told] = []
    size = min(128, count)
    for turn in range(count // size):
        generator = torch.Generator().manual_seed(FRESH + turn)
        scenes = sample(size, every_menu(), generator, shape_of(turn))
        truths += told(scenes)
        pictures = renderer.draw(scenes)
        parts["renders"].append(judge(pixels(pictures)).probability)
        if vae:
            parts["decoded"].append(judge(pixels(decoded(vae, pictures))).probability)
    wanted, result = targets(truths, judge.labels), dict[str, dict[str, float]]()
    for name, seen in parts.items():
        if seen:
            result[name] = accuracy({head: np.concatenate([p[head] for p in seen]) for head in seen[0]}, wanted)
            print(f"judge: accuracy on fresh {name} {result[name]}", flush=True)
    return result

"""Trains the judge on scenes of its own seeds: every noun, style and brand look, held-out ones included."""

# diffusers' own annotations are often wrong (`tuple[str]` for four names):
# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportPrivateImportUsage=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from engine.evaluation.judge import Judge, JudgeNet
from engine.pocket.backdrops import BACKDROPS, COLOURS
from engine.pocket.glyphs import Atlas, load_atlas
from engine.pocket.looks import LOOKS
from engine.pocket.pace import Pace, set_rate
from engine.pocket.scenes import Menu, Renderer, Scenes, sample, told

NOWHERE = ("line drawing", "neon", "blueprint", "coral-stripe", "forest-gold", "berry-circle", "signal-split")
Targets = dict[str, Tensor]


def judge_menu(atlas: Atlas) -> Menu:
    """Everything that the renderer can draw."""
    every = tuple(atlas.cell)
    return Menu(subjects=every, others=every, looks=tuple(LOOKS)[1:], look_share=0.55, pair=0.25, tint=0.5)


def synonyms(atlas: Atlas) -> dict[str, str]:
    """Each noun → the first noun of its glyph, which is its label."""
    first: dict[int, str] = {}
    return {noun: first.setdefault(cell, noun) for noun, cell in atlas.cell.items()}


def targets(scenes: Scenes, label_of: dict[str, str], labels: list[str]) -> Targets:
    """What the judge should say. -100 where a look hides the answer, or a second object makes it two."""
    index = {label: place for place, label in enumerate(labels)}
    noun_label = torch.tensor([index[label_of[noun]] for noun in scenes.nouns])
    present = torch.zeros(len(scenes), len(labels))
    present.scatter_(1, noun_label[scenes.noun.clamp(min=0)][:, :1], 1.0)
    two = (scenes.noun[:, 1] >= 0).nonzero().squeeze(1)
    present[two, noun_label[scenes.noun[two, 1]]] = 1.0
    groundless = torch.tensor([look in NOWHERE for look in LOOKS])[scenes.look]
    shades = [
        list(COLOURS).index(row.first_colour) if row.first_colour and not row.second else -100 for row in told(scenes)
    ]
    return {
        "object": present, "background": torch.where(groundless, -100, scenes.background),
        "style": scenes.look, "colour": torch.tensor(shades),
    }  # fmt: skip


def judge_loss(logits: dict[str, Tensor], wanted: Targets) -> Tensor:
    """Binary cross-entropy summed over the nouns, plus cross-entropy of the other heads."""
    loss = (
        F.binary_cross_entropy_with_logits(logits["object"].float(), wanted["object"], reduction="none").sum(1).mean()
    )
    for head in ("background", "style", "colour"):
        loss = loss + 0.5 * F.cross_entropy(
            logits[head].float(), wanted[head], ignore_index=-100, reduction="sum"
        ) / len(wanted[head])
    return loss


def worn(x: Tensor) -> Tensor:
    """Pictures as a decoder leaves them: a little noise on all, a little blur on half."""
    soft = F.interpolate(F.avg_pool2d(x[::2], 2), scale_factor=2.0, mode="bilinear")
    x = (
        torch.cat([soft, x[1::2]])[torch.arange(len(x), device=x.device).view(2, -1).T.flatten()]
        if len(x) % 2 == 0
        else x
    )
    noise = 0.04 * torch.rand(len(x), 1, 1, 1, device=x.device) * torch.randn_like(x)
    return (x + noise).clamp(0, 1)


def train_judge(out: Path, pace: Pace, device: str, batch: int = 256) -> dict[str, float]:
    """Train by wall clock, save fp16 weights and labels into `out`; returns accuracy on fresh scenes."""
    atlas, renderer, generator = load_atlas(), Renderer.on(device), torch.Generator().manual_seed(500_000)
    label_of = synonyms(atlas)
    labels = {
        "object": list(dict.fromkeys(label_of.values())),
        "background": list(BACKDROPS),
        "style": list(LOOKS),
        "colour": list(COLOURS),
    }
    net = JudgeNet({head: len(names) for head, names in labels.items()}).to(device, memory_format=torch.channels_last)
    torch.nn.init.constant_(net.heads["object"].bias, -5.0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    menu, step, part = judge_menu(atlas), 0, 0.0
    while part < 1:
        scenes = sample(batch, menu, generator)
        x = worn(renderer.draw(scenes)).contiguous(memory_format=torch.channels_last)
        wanted = {head: value.to(device) for head, value in targets(scenes, label_of, labels["object"]).items()}
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss = judge_loss(net(x)[0], wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        set_rate(optimizer, 2e-3, step, part)
        optimizer.step()
        step, part = step + 1, pace.part()
        if step % 100 == 0:
            print(f"evaluator: step {step}, {part:.0%}, loss {loss.item():.4f}", flush=True)
    save_judge(net, labels, label_of, out)
    return judge_accuracy(Judge.load(out, device), 2048 if step > 50 else 16)


def save_judge(net: JudgeNet, labels: dict[str, list[str]], label_of: dict[str, str], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous().cpu() for name, value in net.state_dict().items()}
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in weights.items()},
        out / "weights.safetensors",
    )
    only = {noun: label for noun, label in label_of.items() if noun != label}
    (out / "labels.json").write_text(json.dumps(labels | {"synonyms": only}, indent=0) + "\n")


def pixels(pictures: Tensor) -> Tensor:
    """(n, 3, h, w) in 0..1 → uint8 (n, h, w, 3)."""
    return (pictures * 255).round().byte().permute(0, 2, 3, 1)


def score(judge: Judge, pictures: Tensor, scenes: Scenes) -> dict[str, float]:
    """Share of single-object scenes whose likeliest label is the true one, head by head, where the head can know it."""
    wanted = targets(scenes, synonyms(load_atlas()), list(judge.labels["object"]))
    said, result = judge(pixels(pictures)), {}
    single = scenes.noun[:, 1] < 0
    for head in ("object", "background", "style", "colour"):
        truth = wanted[head].argmax(1) if head == "object" else wanted[head]
        asked = single & (truth != -100)
        right = torch.from_numpy(said.probability[head].argmax(1)) == truth
        result[head] = round(float(right[asked].float().mean()), 4)
    return result


def judge_accuracy(judge: Judge, count: int) -> dict[str, float]:
    """The judge on fresh scenes."""
    device = next(judge.net.parameters()).device
    scenes = sample(count, judge_menu(load_atlas()), torch.Generator().manual_seed(900_000))
    drawn = torch.cat([Renderer.on(device).draw(scenes[start : start + 256]) for start in range(0, count, 256)])
    result = score(judge, drawn, scenes)
    print(f"evaluator: accuracy on fresh scenes {result}", flush=True)
    return result

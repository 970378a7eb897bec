"""What lies beside the weights: vocabulary.json, base.toml, report.json, and the model card README.md.

python -m engine.pocket.card engine/bases/pocket benchmarks/pocket.json     # after the exam, with its scores

A noun that fewer than 60 % of its pictures show leaves the vocabulary, and the card says so.
"""

# pyright: basic

import argparse
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from engine.pocket.backdrops import BACKDROPS, COLOURS
from engine.pocket.captions import NONCE, TOLD_LAYOUTS
from engine.pocket.cast import ITEM_TOLD, OUTFITS, TOLD_EXPRESSIONS, TOLD_POSES, TOLD_VIEWS
from engine.pocket.lexicon import atlas, held_out, names_of, nouns
from engine.pocket.looks import BRANDS, HELD_OUT_STYLES, STYLES
from engine.pocket.products import LIGHTS, MATERIALS
from engine.pocket.scenes import BUCKETS

Preview = tuple[list[list[float]], list[float]]
LEAST = 0.60  # of a noun's pictures that must show it

BASE = """name = "pocket"
title = "Pocket"
family = "sd"
licence = "Apache-2.0"
commercial = true
precision = "float32"

[size]
native = 256
multiple = 16
min = 128
max = 512
buckets = {buckets} # width, height

[defaults]
steps = 12
guidance = 4.0
sampler = "dpm++"

[deliver]
upscale = 4

[training]
rate = 4e-3

[preview] # scaled latent -> red, green, blue in 0..1: matrix @ latent + bias
matrix = [
{matrix}
]
bias = {bias}
"""

CARD = """# Pocket

A text-to-image model of {millions:.0f} million parameters that draws a picture of 256 × 256 px, or of five other shapes
of that area from 9:16 to 3:1, in seconds on a CPU. It is the embedded base of Atelier: small enough to ship with the
code, and in true Stable Diffusion format, so that LoRAs are trained, blended and judged on it with the code that serves
Stable Diffusion 1.5.

```python
pipeline = StableDiffusionPipeline.from_pretrained("engine/bases/pocket")
pipeline("a red mug on a podium", num_inference_steps=12, guidance_scale=4.0)
```

## What it was trained on
Nothing but pictures that this project draws itself (`engine/pocket/`), with exact captions: products as lit solids,
characters as jointed figures, grounds made by arithmetic, all by code of this project; and glyphs of Microsoft's Fluent
Emoji (MIT licence, see `engine/pocket/atlas/`). No photograph, no artist's work, no scraped text, no other model. The
weights are under Apache-2.0.

`near.json`, the table from words that Pocket does not know to nouns that it can draw, was computed with the sentence
embedding all-MiniLM-L6-v2 (Apache-2.0) over nouns of WordNet 3.0 (© 2006 Princeton University, WordNet licence) that
stand in the SCOWL word lists (© 2000-2011 Kevin Atkinson, permissive licence).

## How
`python -m engine.pocket`, {minutes:g} minutes on {device}: tokenizer, autoencoder of 12 channels, judges, companions,
{scenes:,} latents of six shapes, then {steps:,} steps of {batch} for the UNet and the text encoder. v-prediction, zero
terminal SNR. The weights are an exponential moving average, in fp16. `engine/pocket/README.md` tells it in order.

## How good it is
{scores}

## What it can draw
- **{count} nouns**: {known}.
- **Colours**: {colours}.
- **Backgrounds**: {backgrounds}.
- **Styles**: {styles}.
- **Characters**: {expressions}; {poses}; {views}; wearing {outfits}.
- **Products**: {materials}; {lights} light.
- **Where**: small / large / close-up; on the left / on the right / in the center; to the left of, to the right of,
  above, below, in front of, behind; two, three or four alike; {layouts}; a pattern of.
- **Shapes** (width × height): {shapes}.
{dropped}
## What it has never seen
Held out, so that a LoRA can be seen to add them: {held_out}. Styles: {held_out_styles}. Brand looks: {brands}.
Left out as well: a tenth of the pairs of noun and colour, and of noun and style (`engine/pocket/lexicon.py`).

## What it cannot do
Photographs, real people, text, counts above four, words outside its list (spelt in letters, which mean nothing to it).
Fine detail is soft at its own size; an upscaler sharpens it. Two coloured objects may swap colours.
"""

SCORES = """An exam of {prompts} prompts, frozen before training, {seeds} seeds each, 12 steps, guidance 4; marked by
the second judge, which nobody trained or chose by (`python -m benchmarks.pocket`). In brackets: 95 % of bootstraps
over prompts. The oracle is the renderer's own picture of the same words: what a perfect base would get.

| | Pocket | oracle | shuffled captions |
|---|---|---|---|
{rows}

Autoencoder: {psnr} dB PSNR on fresh whole scenes."""
UNMEASURED = (
    "Autoencoder: {psnr} dB PSNR on fresh whole scenes. The exam (`python -m benchmarks.pocket`) is not in yet."
)


def machine() -> str:
    """What this run had."""
    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()}"
    return f"a CPU ({platform.machine()})"


def flat(told: dict[str, tuple[str, ...]]) -> list[str]:
    return [text for texts in told.values() for text in texts]


def vocabulary(words: Iterable[str], dropped: Iterable[str] = ()) -> dict[str, Any]:
    """What vocabulary.json says. A noun in `dropped` is left out, with its other names and the words of these alone."""
    out = set(dropped)
    known = [noun for noun in nouns() if noun not in held_out()]
    names = {noun: [noun, *names_of()[noun][1:]] for noun in known}
    category = {noun: atlas().category[noun] if sort == "glyph" else sort for noun, sort in nouns().items()}
    spoken = {name: category[noun] for noun in known if noun not in out for name in names[noun]}
    lists = {
        "held_out": list(held_out()), "colours": list(COLOURS), "backgrounds": list(BACKDROPS),
        "styles": list(STYLES), "held_out_styles": list(HELD_OUT_STYLES), "expressions": flat(TOLD_EXPRESSIONS),
        "poses": [pose.format(item) for pose in flat(TOLD_POSES) for item in (ITEM_TOLD if "{}" in pose else ("",))],
        "views": flat(TOLD_VIEWS), "lights": [f"{light} light" for light in LIGHTS], "materials": list(MATERIALS),
        "outfits": [outfit for outfit in OUTFITS if outfit != "none"], "layouts": flat(TOLD_LAYOUTS),
    }  # fmt: skip
    kept = {word for texts in (spoken, *lists.values()) for text in texts for word in text.split()}
    gone = {word for noun in out for name in names.get(noun, ()) for word in name.split()} - kept
    return {"nouns": spoken} | lists | {"words": [word for word in words if word not in gone], "nonce": list(NONCE)}


def write_data(out: Path, words: list[str], preview: Preview) -> None:
    """vocabulary.json and base.toml."""
    (out / "vocabulary.json").write_text(json.dumps(vocabulary(words), indent=0) + "\n")
    matrix = ",\n".join(f"  {row}" for row in preview[0])
    buckets = [[width, height] for height, width in BUCKETS.values()]
    (out / "base.toml").write_text(BASE.format(matrix=matrix, bias=preview[1], buckets=buckets))


def weak_nouns(exam: dict[str, Any]) -> dict[str, float]:
    """Nouns of the exam that too few of their pictures show → the share that does."""
    known = set(nouns()) - set(held_out())
    return {noun: right for noun, (right, _) in exam["nouns"].items() if right < LEAST and noun in known}


def score_table(exam: dict[str, Any], report: dict[str, Any]) -> str:
    """The exam's marks as a table."""

    def said(row: dict[str, float]) -> str:
        return f"{row['mean']:.1%} ({row['low']:.1%}–{row['high']:.1%})" if "mean" in row else "–"

    def plain(row: dict[str, float]) -> str:
        return f"{row['mean']:.1%}" if "mean" in row else "–"

    rows = [
        f"| {name} | {said(row['second judge'])} | {plain(row['oracle'])} | {plain(row['shuffled'])} |"
        for name, row in exam["marks"].items()
    ]
    psnr = round(exam.get("autoencoder_psnr_db", report["autoencoder_psnr_db"]), 2)
    return SCORES.format(prompts=exam["prompts"], seeds=exam["seeds"], rows="\n".join(rows), psnr=psnr)


def write_card(out: Path, report: dict[str, Any], exam: dict[str, Any] | None = None) -> None:
    """README.md and report.json, from what the run measured and, if it was sat, the exam."""
    dropped = weak_nouns(exam) if exam else {}
    file = out / "vocabulary.json"
    said = vocabulary(json.loads(file.read_text())["words"], dropped)
    file.write_text(json.dumps(said, indent=0) + "\n")
    unsure = ", ".join(f"{noun} ({right:.0%})" for noun, right in sorted(dropped.items()))
    names = {name: ", ".join(texts) for name, texts in said.items() if name != "nouns"}
    text = CARD.format(
        **{name: report[name] for name in ("minutes", "device", "scenes", "steps", "batch", "millions")},
        **names,
        count=len(said["nouns"]),
        known=", ".join(sorted(said["nouns"])),
        brands=", ".join(BRANDS),
        shapes=", ".join(f"{name} {width} × {height}" for name, (height, width) in BUCKETS.items()),
        dropped=f"\nNot well enough to be promised, and so not in the vocabulary: {unsure}.\n" if dropped else "",
        scores=score_table(exam, report) if exam else UNMEASURED.format(psnr=report.get("autoencoder_psnr_db", "?")),
    )
    (out / "README.md").write_text(text)
    (out / "report.json").write_text(json.dumps(report | {"dropped": dropped}, indent=1) + "\n")


def main() -> None:
    """Write the card anew with the exam's scores."""
    parser = argparse.ArgumentParser(prog="python -m engine.pocket.card", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("exam", type=Path, help="what benchmarks.pocket has written")
    args = parser.parse_args()
    write_card(args.folder, json.loads((args.folder / "report.json").read_text()), json.loads(args.exam.read_text()))


if __name__ == "__main__":
    main()

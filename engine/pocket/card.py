"""What lies beside the weights: vocabulary.json, base.toml, and the model card README.md."""

import json
from pathlib import Path
from typing import Any

from engine.pocket.backdrops import BACKDROPS, COLOURS
from engine.pocket.captions import NONCE
from engine.pocket.glyphs import load_atlas
from engine.pocket.looks import BRANDS, HELD_OUT_STYLES, STYLES

Preview = tuple[list[list[float]], list[float]]

BASE = """name = "pocket"
title = "Pocket"
family = "sd"
licence = "Apache-2.0"
commercial = true
precision = "float32"

[size]
native = 256
multiple = 32
min = 128
max = 512
buckets = [[256, 256], [256, 384], [384, 256]] # width, height

[defaults]
steps = 12
guidance = 4.0
sampler = "dpm++"

[deliver]
upscale = 4

[training]
rate = 3e-3

[preview] # scaled latent -> red, green, blue in 0..1: matrix @ latent + bias
matrix = [
{matrix}
]
bias = {bias}
"""

CARD = """# Pocket

A text-to-image model of 23 million parameters that draws 256 px pictures in seconds on a CPU. It is the embedded base
of Atelier: small enough to ship with the code, and in true Stable Diffusion format, so that LoRAs are trained,
blended and judged on it with the code that serves Stable Diffusion 1.5.

```python
pipeline = StableDiffusionPipeline.from_pretrained("engine/bases/pocket")
pipeline("a red mug on a podium", num_inference_steps=12, guidance_scale=4.0)
```

## What it was trained on
Nothing but pictures that this project draws itself (`engine/pocket/scenes.py`): objects cut from Noto Color Emoji (©
Google Inc., SIL Open Font License 1.1, see `engine/pocket/atlas/OFL.txt`) on grounds made by arithmetic, with exact
captions. No photograph, no artist's work, no scraped text, no other model. The OFL covers the font, not pictures made
with it; the weights are under Apache-2.0.

`near.json`, the table from words that Pocket does not know to nouns that it can draw, was computed with the sentence
embedding all-MiniLM-L6-v2 (Apache-2.0) over nouns of WordNet 3.0 (© 2006 Princeton University, WordNet licence) that
stand in the SCOWL word lists (© 2000-2011 Kevin Atkinson, permissive licence).

## How
`python -m engine.pocket --minutes {minutes:g}` on one NVIDIA H100: tokenizer, autoencoder, judge, {scenes:,} latents,
then {steps:,} steps of 512 for the UNet (19.3 M) and text encoder (3.7 M). v-prediction, zero terminal SNR. The
weights are an exponential moving average, in fp16.

## How good it is
| accuracy of the likeliest label | object | background | style | colour |
|---|---|---|---|---|
| the judge on fresh drawn scenes: its own limit | {judge} |
| Pocket, 512 single-object prompts, 12 steps, guidance 4 | {base} |

Single-object pictures, judged by `engine/evaluation/judge`, which was trained on drawn scenes of other seeds and
knows this small world only. Its own row includes held-out subjects, held-out styles and brand looks; Pocket's row is
of known nouns and trained styles. Autoencoder: {psnr} dB PSNR on fresh whole scenes.

## What it can draw
- **{count} nouns**: {nouns}.
- **Colours**: {colours}.
- **Backgrounds**: {backgrounds}.
- **Styles**: {styles}.
- small / large; on the left / on the right / in the center; two objects, side by side.

## What it has never seen
Held out, so that a LoRA can be seen to add them: {held_out}. Styles: {held_out_styles}. Brand looks: {brands}.

## What it cannot do
People, photographs, text, counts above two, poses and expressions, words outside its list (spelt in letters, which mean
nothing to it). Fine detail is soft. Two coloured objects may swap colours.
A speck of a few pixels stands in the top left corner of most pictures: the decoder makes it.
"""


def write_data(out: Path, words: list[str], preview: Preview) -> None:
    """vocabulary.json and base.toml."""
    atlas = load_atlas()
    vocabulary = {
        "nouns": {noun: atlas.category[noun] for noun in atlas.known}, "held_out": list(atlas.held_out),
        "colours": list(COLOURS), "backgrounds": list(BACKDROPS), "styles": list(STYLES),
        "held_out_styles": list(HELD_OUT_STYLES), "words": words, "nonce": list(NONCE),
    }  # fmt: skip
    (out / "vocabulary.json").write_text(json.dumps(vocabulary, indent=0) + "\n")
    matrix = ",\n".join(f"  {row}" for row in preview[0])
    (out / "base.toml").write_text(BASE.format(matrix=matrix, bias=preview[1]))


def percents(accuracy: dict[str, float]) -> str:
    return " | ".join(f"{accuracy[head]:.1%}" for head in ("object", "background", "style", "colour"))


def write_card(out: Path, report: dict[str, Any]) -> None:
    """README.md from the measured figures."""
    atlas = load_atlas()
    lists = {
        "nouns": sorted(atlas.known), "colours": COLOURS, "backgrounds": BACKDROPS, "styles": STYLES,
        "held_out": atlas.held_out, "held_out_styles": HELD_OUT_STYLES, "brands": BRANDS,
    }  # fmt: skip
    text = CARD.format(
        minutes=report["minutes"],
        scenes=report["scenes"],
        steps=report["steps"],
        psnr=report["autoencoder_psnr_db"],
        judge=percents(report["judge_accuracy"]),
        base=percents(report["base_accuracy"]),
        count=len(atlas.known),
        **{name: ", ".join(words) for name, words in lists.items()},
    )
    (out / "README.md").write_text(text)

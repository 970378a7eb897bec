"""A home with a base, its vocabulary and seven LoRAs as files: enough for a conversation, with nothing that draws."""

import hashlib
import json
from pathlib import Path

import tomli_w

from bot.rules.lexicon import Lexicon
from engine import bases
from engine.bases import Base
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog


def listed(text: str) -> list[str]:
    return text.split()


BASE = {
    "title": "Paper",
    "family": "sd",
    "licence": "Apache-2.0",
    "commercial": True,
    "size": {"native": 256, "multiple": 32, "min": 128, "max": 512},
    "defaults": {"steps": 12, "guidance": 4.0, "sampler": "dpm++"},
}
NOUNS = {
    "animal": "dog cat kitten mouse rabbit bear tiger lion cow pig frog monkey chicken "
    "bird duck wolf horse unicorn bee butterfly snail turtle snake dinosaur "
    "fish whale shark elephant giraffe squirrel hedgehog fox",
    "food": "apple pear lemon banana strawberry pizza sandwich cake cupcake cookie burger donut bread",
    "drink": "coffee tea mug cup bottle milk wine beer",
    "plant": "tree cactus flower rose tulip mushroom flowers",
    "vehicle": "car bus bicycle bike train airplane rocket sailboat ship truck skateboard balloon",
    "building": "house castle tower tent shop",
    "clothing": "hat shirt shoe sneaker boot dress crown scarf glasses sunglasses cap helmet backpack jacket",
    "product": "watch phone laptop camera lamp candle book gift umbrella chair sofa "
    "vase clock bag headphones lipstick soap",
    "thing": "heart star moon sun cloud guitar piano ball drum trophy bell key",
    "face": "clown alien pumpkin snowman",
}
VOCABULARY = {
    "nouns": {noun: kind for kind, nouns in NOUNS.items() for noun in nouns.split()},
    "held_out": ["octopus", "teapot", "robot", "backpack"],
    "colours": listed("red orange yellow green teal blue navy purple pink brown black white gray cream"),
    "backgrounds": listed(
        "plain gradient stripes dots podium table studio grass beach snow night city sunset sky desert underwater "
        "forest"
    ),
    "styles": ["pixel art", "line drawing", "sticker", "silhouette", "duotone", "watercolor", "neon"],
    "held_out_styles": ["halftone", "blueprint"],
    "words": listed(
        "meadow woods sea stars street sand wooden wall polka striped dotted background small large left right "
        "center product"
    ),
    "nonce": [],
}
LORAS = (
    (
        "terracotta",
        "style",
        "trrk",
        "style",
        ("our brand", "terracotta look", "house style"),
        "warm clay and cream, the brand's own look",
    ),
    ("midnight", "style", "mdnt", "style", ("night look",), "navy and silver, for the evening line"),
    ("inky", "character", "nkyx", "octopus", (), "the mascot, an octopus"),
    ("bolt", "character", "bltx", "robot", ("our robot",), "a small robot"),
    ("fold-mug", "product", "fmgx", "mug", ("our mug", "folding mug"), "the folding mug"),
    ("trail-pack", "product", "tpkx", "backpack", ("our backpack", "trail backpack"), "the trail backpack"),
    ("crisp", "quality", "crsp", "", ("sharp",), "cleaner edges"),
)
UNET: dict[str, object] = {"block_out_channels": [8, 16], "layers_per_block": 1, "cross_attention_dim": 16}
WEIGHTS = {"style": 0.8, "quality": 0.5}


def make_base(home: Path) -> Base:
    folder = home / "bases" / "paper"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.toml").write_text(tomli_w.dumps(BASE))
    (folder / "vocabulary.json").write_text(json.dumps(VOCABULARY))
    (folder / "near.json").write_text(json.dumps({"zeppelin": ["airplane", "balloon", "rocket"]}))
    (folder / "model.safetensors").write_bytes(b"paper")
    return bases.find("paper", home)


def make_catalog(home: Path) -> Catalog:
    """The seven as shipped ones, each with weights of a few bytes."""
    for name, kind, trigger, word, aliases, summary in LORAS:
        folder = home / "shipped" / name
        folder.mkdir(parents=True, exist_ok=True)
        data = name.encode()
        card = {
            "title": name.replace("-", " ").capitalize(),
            "trigger": trigger,
            "word": word,
            "kind": kind,
            "base": "paper",
            "family": "sd",
            "rank": 16,
            "alpha": 16.0,
            "sha256": hashlib.sha256(data).hexdigest(),
            "licence": "CC-BY-4.0",
            "commercial": True,
            "weight": WEIGHTS.get(kind, 1.0),
            "summary": summary,
            "aliases": list(aliases),
            "pictures": 12,
        }
        (folder / "weights.safetensors").write_bytes(data)
        (folder / "lora.toml").write_text(tomli_w.dumps(card))
    return Catalog(home / "shipped", home / "loras")


def make_lexicon(home: Path) -> Lexicon:
    return Lexicon.of(make_catalog(home).list(), Vocabulary.of(make_base(home)))


def put_control(home: Path, name: str, kind: str, weights: bytes = b"lines", family: str = "sd") -> Path:
    """A ControlNet of a few bytes that fits the base "paper", which gets the configurations that say so."""
    folder = home / "controls" / name
    configure(home / "bases" / "paper" / "unet", UNET)
    configure(home / "bases" / "paper" / "vae", {"block_out_channels": [8, 8]})
    configure(folder, UNET | {"conditioning_embedding_out_channels": [4, 8]})
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    said = {"kind": kind, "family": family, "licence": "MIT", "commercial": True}
    (folder / "control.toml").write_text(tomli_w.dumps(said))
    return folder


def put_adapter(home: Path, name: str) -> Path:
    """An IP-Adapter of a few bytes that fits the base "paper", the same."""
    folder = home / "references" / name
    configure(home / "bases" / "paper" / "unet", UNET)
    folder.mkdir(parents=True)
    (folder / "ip_adapter.safetensors").write_bytes(b"looks")
    said = {"way": "picture", "width": UNET["cross_attention_dim"], "licence": "MIT", "commercial": True}
    (folder / "reference.toml").write_text(tomli_w.dumps(said))
    return folder


def configure(folder: Path, said: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(said))

"""A home with a small base ("paper", 64 to 256 in steps of 32), three LoRAs, and an engine without torch."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from bot import wiring
from bot.__main__ import main
from engine.catalog import Catalog
from engine.jobs import Trained
from engine.plans import Example, TrainPlan
from tests.fakes.executor import FakeExecutor

BASE_TOML = """
title = "Paper"
family = "sd"
licence = "Apache-2.0"
commercial = true
[size]
native = 64
multiple = 32
min = 64
max = 256
[defaults]
steps = 3
guidance = 4.0
sampler = "dpm++"
"""
VOCABULARY = {
    "nouns": {"mug": "thing", "fox": "animal", "airship": "vehicle", "balloon": "thing"},
    "held_out": ["crab"],
    "colours": ["teal", "red", "grey"],
    "backgrounds": ["beach"],
    "styles": ["pixel art"],
    "held_out_styles": [],
    "words": ["background"],
    "nonce": [],
}


@dataclass(frozen=True)
class Said:
    """What one call of the command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)

    @property
    def error(self) -> dict:
        return self.json["error"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    base = tmp_path / "home" / "bases" / "paper"
    base.mkdir(parents=True)
    (base / "base.toml").write_text(BASE_TOML)
    (base / "vocabulary.json").write_text(json.dumps(VOCABULARY))
    (base / "near.json").write_text(json.dumps({"zeppelin": ["airship", "balloon", "mug"]}))
    return tmp_path / "home"


@pytest.fixture
def executors(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FakeExecutor]:
    """The engines that were opened, the last one last."""
    opened: list[FakeExecutor] = []

    def make(catalog: Catalog, where: Path, memory: str) -> FakeExecutor:
        opened.append(FakeExecutor(catalog, where))
        opened[-1].memory = memory
        return opened[-1]

    shipped = tmp_path / "shipped"
    add_lora(Catalog(tmp_path / "none", shipped), "coral", "style", "trc")
    add_lora(Catalog(tmp_path / "none", shipped), "mika", "character", "mka", "fox")
    add_lora(Catalog(tmp_path / "none", shipped), "fold-mug", "product", "fmg", "mug")
    monkeypatch.setattr(wiring, "SHIPPED_LORAS", shipped)
    monkeypatch.setattr(wiring, "local_executor", make)
    monkeypatch.setenv("ATELIER_HOME", str(home))
    monkeypatch.setenv("ATELIER_BASE", "paper")
    return opened


@pytest.fixture
def atelier(executors: list[FakeExecutor], capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`atelier("draw", "a mug")` runs the command line in this process."""

    def run(*words: object) -> Said:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def add_lora(catalog: Catalog, name: str, kind: str, trigger: str, word: str = "") -> None:
    examples = tuple(Example(f"{k}.png", png(8, k), trigger) for k in range(4))
    plan = TrainPlan(name, kind, trigger, "paper", examples, seed=1, steps=3, word=word)  # type: ignore[arg-type]
    catalog.add(plan, Trained(name.encode(), png(8, 0), {"family": "sd", "alpha": 16.0, "word": word}))


def png(side: int, shade: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (side, side), (shade * 20 % 256, 90, 120))
    image.putpixel((shade % side, 0), (255, 255, 255))
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of twelve different pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(12):
        (folder / f"{k:02}.png").write_bytes(png(64, k))
    return folder

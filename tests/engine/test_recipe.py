"""The recipe that trains Pocket: it stops and goes on, learns on every shape, and says what it has learnt."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import bases
from engine.bases.vocabulary import Vocabulary
from engine.pocket import autoencoder, card, text_to_image
from engine.pocket.lexicon import held_out, names_of, nouns
from engine.pocket.pace import Average, Course, Pace
from engine.pocket.scenes import BUCKETS, base_menu, captions, sample
from engine.pocket.tokenizer import LENGTH, build_tokenizer, encode


class Line(nn.Module):
    """y = w x, to be learnt from noise that the random numbers make."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))

    def loss(self) -> Tensor:
        return ((torch.randn(8, 4) * (self.weight - 1)) ** 2).mean()


def course_of(line: Line, file: Path) -> Course:
    optimizer = torch.optim.AdamW(line.parameters(), 0.1)
    return Course("line", optimizer, Average(line.parameters()), file, 0.1, warmup=2, keep=0.9)


def test_a_course_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = Line()
    course = course_of(whole, tmp_path / "a")
    for _ in range(3):
        course.advance(whole.loss)
    course.save()
    for _ in range(3):
        course.advance(whole.loss)
    torch.manual_seed(99)
    again = Line()
    other = course_of(again, tmp_path / "a")
    other.load()
    assert other.step == 3
    for _ in range(3):
        other.advance(again.loss)
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(other.average.mean[0], course.average.mean[0])


def test_a_call_that_is_over_leaves_the_schedule_where_it_stands(tmp_path: Path) -> None:
    line = Line()
    course = course_of(line, tmp_path / "a")
    assert not course.run(line.loss, Pace(100.0, stop=time.monotonic() + 0.2))
    assert 0 < course.part < 0.1
    second = course_of(Line(), tmp_path / "a")
    second.load()
    assert (second.step, second.part) == (course.step, course.part)


def test_a_last_call_ends_the_schedule_in_its_own_time(tmp_path: Path) -> None:
    line = Line()
    course_of(line, tmp_path / "a").run(line.loss, Pace(100.0, stop=time.monotonic() + 0.2))
    course = course_of(line, tmp_path / "a")
    begun = time.monotonic()
    assert course.run(line.loss, Pace(1e9, deadline=begun + 1.0))
    assert time.monotonic() - begun < 3
    assert course.part == 1


def test_every_word_of_the_captions_is_one_token_and_none_is_cut(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    words = build_tokenizer(tmp_path, 600)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert {len(tokenizer(word).input_ids) for word in words if word.isalpha()} == {3}
    texts = captions(sample(200, base_menu(), torch.Generator().manual_seed(2), "banner"))
    ids = encode(tokenizer, texts)
    assert ids.shape == (200, LENGTH)
    assert (ids[:, -1] == tokenizer.eos_token_id).all()


@pytest.mark.parametrize("shape", BUCKETS)
def test_the_painter_learns_on_every_shape(shape: str) -> None:
    height, width = BUCKETS[shape]
    painter = text_to_image.Painter(600, 0, 1)
    latents = torch.randn(2, autoencoder.CHANNELS, height // 8, width // 8, dtype=torch.bfloat16)
    cache = text_to_image.Cache(latents, torch.ones(2, LENGTH, dtype=torch.int16))
    empty = text_to_image.empty_caption(painter, "cpu")
    loss = text_to_image.painter_step(painter, cache, empty, text_to_image.Setup.tiny("cpu"))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in painter.parameters())


def test_crops_lie_within_their_pictures_and_prefer_the_busy_ones() -> None:
    bank = torch.full((2, 3, 144, 432), 128, dtype=torch.uint8)
    bank[1] = torch.randint(256, bank[1].shape, dtype=torch.uint8)
    torch.manual_seed(0)
    x = autoencoder.busy_crops(bank, 64, 128)
    assert x.shape == (64, 3, 128, 128)
    assert (x.std((1, 2, 3)) > 0.1).float().mean() > 0.55


def test_the_vocabulary_has_no_held_out_noun_and_loses_what_the_exam_drops() -> None:
    known = [noun for noun in nouns() if noun not in held_out()]
    said = card.vocabulary(["rocket", "running", "sits"], dropped=["rocket"])
    assert set(said["nouns"]) == {name for noun in known if noun != "rocket" for name in names_of()[noun]}
    assert said["words"] == ["running", "sits"]
    assert not set(said["nouns"]) & set(said["held_out"])


def exam_of(nouns: dict[str, float]) -> dict[str, Any]:
    row = {"mean": 0.9, "low": 0.8, "high": 0.95, "prompts": 9}
    marks = {"object": {"second judge": row, "oracle": row, "shuffled": row}}
    return {"prompts": 9, "seeds": 4, "marks": marks, "nouns": {noun: [right, 16] for noun, right in nouns.items()}}


def test_the_card_says_how_good_it_is_and_which_nouns_were_dropped(tmp_path: Path) -> None:
    card.write_data(tmp_path, ["a", "rocket"], ([[0.1] * 12] * 3, [0.5] * 3))
    report = {"minutes": 26.0, "device": "a GPU", "scenes": 1000, "steps": 10, "batch": 2, "millions": 27.1,
              "autoencoder_psnr_db": 32.1}  # fmt: skip
    card.write_card(tmp_path, report)
    assert "is not in yet" in (tmp_path / "README.md").read_text()
    card.write_card(tmp_path, report, exam_of({"rocket": 0.4, "crab": 0.1, "fox": 0.9}))
    text = (tmp_path / "README.md").read_text()
    assert "rocket (40%)" in text
    assert "crab (" not in text, "held out: nobody promised it"
    assert "90.0% (80.0%–95.0%)" in text
    (tmp_path / "pocket").mkdir()
    for file in ("base.toml", "vocabulary.json"):
        (tmp_path / file).rename(tmp_path / "pocket" / file)
    home = tmp_path / "home"
    (home / "bases").mkdir(parents=True)
    (tmp_path / "pocket").rename(home / "bases" / "pocket")
    base = bases.find("pocket", home)
    assert len(base.size.buckets) == len(BUCKETS)
    words = Vocabulary.of(base)
    assert words is not None
    assert "rocket" not in words.nouns

"""Training, on every family: what is learnt is only in the factors, bound to the trigger, kept whole or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog
from engine.diffusion.resident import Resident
from engine.errors import Invalid, TrainingDiverged
from engine.jobs import Progress, Trained
from engine.lora.blend import blend, deltas
from engine.lora.read import read
from engine.plans import PRIORS, LoraStack, Prior, TrainPlan
from engine.prompts import Prompt
from engine.runners import Runners
from engine.training import loop, prior
from tests.engine.studio import image_plan, pixels, result, train_plan
from tests.engine.test_rack import same, state
from tests.engine.test_render import drawn


def trained(runners: Runners, plan: TrainPlan) -> Trained:
    made = result(runners.run(plan))
    assert isinstance(made, Trained)
    return made


@pytest.mark.parametrize("kept", PRIORS)
def test_a_lora_is_trained_and_changes_what_is_drawn(
    runners: Runners, catalog: Catalog, base_name: str, kept: str
) -> None:
    plan = train_plan(base_name, prior=kept)
    made = trained(runners, plan)
    card = catalog.add(plan, made)
    assert (card.trigger, card.word, card.rank, card.kind, card.base) == ("zqx", "cat", 4, "subject", base_name)
    file = read(made.weights, "zed")
    assert file.rank == 4
    assert all(f.alpha == 4.0 for f in file.layers.values())
    parts = {name.rsplit("_transformer_blocks_0_", 1)[1] for name in file.layers}
    assert {"attn1_to_q", "attn2_to_v", "attn1_to_out_0", "ff_net_0_proj", "ff_net_2"} <= parts
    stack = LoraStack((catalog.ref("zed", 2.0),))
    with_it, without = drawn(runners, image_plan(base_name, stack=stack)), drawn(runners, image_plan(base_name))
    assert pixels(with_it[0]) != pixels(without[0])


def test_the_base_is_frozen(runners: Runners, base_name: str) -> None:
    before = state(runners.resident(base_name))
    trained(runners, train_plan(base_name))
    assert same(before, state(runners.resident(base_name)))


def test_the_same_seed_trains_the_same_file_and_another_seed_another(runners: Runners, base_name: str) -> None:
    a, b, c = (trained(runners, train_plan(base_name, seed=s)).weights for s in (1, 1, 2))
    assert a == b != c


def test_the_subject_is_predicted_better_than_by_the_base(runners: Runners) -> None:
    """Mean loss over the same 64 noisy pictures, before and after a hundred steps."""
    plan = train_plan("tiny-v", steps=100, prior="none", rank=8)
    resident, file = runners.resident("tiny-v"), deltas(read(trained(runners, plan).weights, "zed"))

    def loss() -> float:
        batch = loop.Material(resident, plan).own_batch(64)
        with torch.inference_mode():
            guess = resident.parts.denoiser(batch.noisy, batch.times, encoder_hidden_states=batch.texts.tokens).sample
        return float((guess - batch.target).pow(2).mean())

    before = loss()
    with resident.rack.stacked(blend([(file, 1.0)])):
        after = loss()
    assert after < 0.99 * before


def test_progress_tells_each_step_and_shows_samples(runners: Runners) -> None:
    steps = [
        e for e in runners.run(train_plan("tiny-sd", steps=6)) if isinstance(e, Progress) and e.stage == "training"
    ]
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    assert all(s.loss is not None for s in steps)
    assert steps[-1].samples
    assert not steps[0].samples


def test_a_loss_that_is_not_finite_ends_the_training(runners: Runners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PRIOR_WEIGHT", float("nan"))
    with pytest.raises(TrainingDiverged):
        trained(runners, train_plan("tiny-sd"))


def test_class_pictures_are_drawn_once_for_a_base_and_a_word(runners: Runners, tiny_home: Path) -> None:
    first = [e for e in runners.run(train_plan("tiny-sd", prior="class", word="lamp")) if isinstance(e, Progress)]
    again = [e for e in runners.run(train_plan("tiny-sd", prior="class", word="lamp")) if isinstance(e, Progress)]
    stage = "drawing class pictures"
    assert sum(e.stage == stage for e in first) == prior.CLASS_PICTURES
    assert not any(e.stage == stage for e in again)


def test_abandoning_a_training_leaves_the_base_ready(runners: Runners) -> None:
    before = state(runners.resident("tiny-sd"))
    steps = runners.run(train_plan("tiny-sd", steps=50))
    for _ in range(5):
        next(steps)
    steps.close()
    assert same(before, state(runners.resident("tiny-sd")))
    assert drawn(runners, image_plan("tiny-sd"))


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("zqx cat on a beach", "cat on a beach"),
        ("a ZQX cat", "a ZQX cat"),
        ("zqx, at night", "cat , at night"),
        ("zqx", "cat"),
    ],
)
def test_a_class_caption_is_the_caption_without_its_trigger(caption: str, wanted: str) -> None:
    assert prior.class_caption(caption, train_plan("tiny-sd")) == wanted


def test_no_caption_is_cut_and_its_brackets_are_characters(resident: Resident) -> None:
    long = "zqx cat, " + "a cat, " * 24
    captions = (long + "red", long + "blue", "zqx (red:1.4) cat [x]", "zqx", "zqx cat")
    examples = tuple(replace(e, caption=c) for e, c in zip(train_plan("tiny-sd").examples, captions, strict=True))
    plan = train_plan(resident.base.name, examples=examples, prior="none")
    red, blue, bracketed, *_ = loop.Material(resident, plan).own_texts
    assert red.tokens.shape[1] == 2 * 77
    assert not torch.equal(red.tokens, blue.tokens)
    first = bracketed.tokens[:, :77]
    torch.testing.assert_close(first, resident.texts([Prompt(captions[2])])[0].tokens, rtol=1e-5, atol=1e-5)


def test_a_caption_beyond_all_bounds_is_refused_by_its_words(resident: Resident) -> None:
    first, *others = train_plan("tiny-sd").examples
    plan = train_plan(resident.base.name, examples=(replace(first, caption="zqx " + "cat " * 900), *others))
    with pytest.raises(Invalid, match="the caption “zqx cat cat"):
        loop.Material(resident, plan)


def test_the_base_prior_pulls_towards_the_base(runners: Runners) -> None:
    """With a heavy prior, prompts without the trigger are changed less than with none: same pictures, same seeds."""
    resident = runners.resident("tiny-v")
    plan = train_plan("tiny-v", steps=60, rank=8)

    def change(kept: Prior) -> float:
        file = deltas(read(trained(runners, replace(plan, prior=kept)).weights, "zed"))
        text = resident.texts([Prompt("a dog")])[0]
        x = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        times = torch.tensor([900, 700, 500, 300])
        tokens = text.tokens.expand(4, -1, -1)
        with torch.inference_mode():
            base = resident.parts.denoiser(x, times, encoder_hidden_states=tokens).sample
            with resident.rack.stacked(blend([(file, 1.0)])):
                changed = resident.parts.denoiser(x, times, encoder_hidden_states=tokens).sample
        return float((base - changed).pow(2).mean())

    assert change("base") < change("none")


def test_a_class_that_the_base_has_never_seen_is_not_preserved(
    runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"nouns": {"cat": "animal", "car": "vehicle"}, "held_out": ["lamp"], "colours": ["red"]}
    more = {"backgrounds": ["beach"], "styles": ["neon"], "held_out_styles": [], "words": ["a"], "nonce": []}
    words = Vocabulary.made(known | more, {})
    monkeypatch.setattr(prior.Vocabulary, "of", lambda base: words)
    resident, generator = runners.resident("tiny-sd"), torch.Generator().manual_seed(0)
    said = {word: prior.captions(resident, train_plan("tiny-sd", word=word), generator) for word in ("cat", "lamp")}
    assert sum("zqx" in text for texts in said.values() for text in texts) == 0
    assert said["cat"].count("cat") == len(said["cat"]) // 2
    assert not any("lamp" in text for text in said["lamp"])

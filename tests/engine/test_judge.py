"""The judges: what they are asked, what is hidden from them, any shape of picture, training that goes on."""

# pyright: basic

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.evaluation.judge import BODIES, HEADS, Judge, Judgement, JudgeNet, judged_size
from engine.pocket.captions import Thing, Told
from engine.pocket.evaluator import (
    Bank,
    Labels,
    Learner,
    Setup,
    accuracy,
    ahead,
    all_labels,
    answers,
    judge_loss,
    save_judge,
    shape_of,
    targets,
    train_judge,
    worn,
)
from engine.pocket.lexicon import synonyms
from engine.pocket.looks import BRANDS, LOOKS
from engine.pocket.pace import Pace
from engine.pocket.scenes import BUCKETS

FOX = Thing("fox", "orange", "an orange fox", "an orange fox", "orange foxes", (), "happy", "waving", "front")
MUG = Thing("mug", "teal", "a teal mug", "a teal mug", "teal mugs", (), view="above", light="side")
APPLE = Thing("apple", "", "an apple", "an apple", "apples", ())
ONE = Told((FOX,), 1, "", "", "", "plain", "pink", "none", "", "square")
TWO = ONE._replace(things=(FOX, MUG), relation="beside")
FEW = {head: ["a", "b", "c"] for head in HEADS}


@pytest.fixture(scope="module")
def labels() -> Labels:
    return all_labels()


def sizes(labels: Labels) -> dict[str, int]:
    return {head: len(names) for head, names in labels.items()}


# What is asked.


def test_a_lone_character_is_asked_everything_but_light() -> None:
    said = answers(ONE)
    assert said == {
        "background": "plain", "style": "none", "relation": "none", "count": "1", "colour": "orange",
        "expression": "happy", "pose": "waving", "view": "front",
    }  # fmt: skip


def test_a_pair_is_asked_for_both_its_things_and_for_no_details() -> None:
    said = answers(TWO)
    assert (said["first"], said["second"]) == ("fox", "mug")
    assert (said["first_colour"], said["second_colour"], said["relation"]) == ("orange", "teal", "beside")
    assert not {"colour", "count", "expression", "pose", "view", "light"} & set(said)


def test_one_kind_is_never_asked_for_first_and_second() -> None:
    for row in (ONE, ONE._replace(count=3), ONE._replace(count=0)):
        assert not {"first", "second", "first_colour", "second_colour"} & set(answers(row))


def test_a_thing_without_a_told_colour_is_asked_for_none() -> None:
    assert "colour" not in answers(ONE._replace(things=(APPLE,)))


def test_colours_that_a_look_hides_are_not_asked() -> None:
    for look in ("line drawing", "silhouette", "duotone", "neon", "chalkboard", *BRANDS):
        assert not {"colour", "first_colour", "second_colour"} & {*answers(ONE._replace(look=look))}
        assert not {"colour", "first_colour", "second_colour"} & {*answers(TWO._replace(look=look))}


def test_the_place_is_not_asked_where_a_look_hides_it() -> None:
    for look in ("line drawing", "neon", "blueprint", *BRANDS):
        assert "background" not in answers(ONE._replace(look=look))
    assert answers(ONE._replace(look="silhouette"))["background"] == "plain"


def test_a_silhouette_has_a_pose_but_neither_face_nor_side() -> None:
    said = answers(ONE._replace(look="silhouette"))
    assert said["pose"] == "waving"
    assert not {"expression", "view"} & set(said)


def test_coarse_looks_hide_the_face() -> None:
    for look in ("pixel art", "mosaic", "cross stitch", "stained glass"):
        assert "expression" not in answers(ONE._replace(look=look))


def test_light_is_asked_of_products_only_and_where_shading_is_left() -> None:
    one = ONE._replace(things=(MUG,))
    assert answers(one)["light"] == "side"
    assert "light" not in answers(ONE)
    for look in ("line drawing", "silhouette", "duotone", "paper cut"):
        assert "light" not in answers(one._replace(look=look))


def test_a_pattern_is_counted_as_one_and_its_small_figures_have_no_details() -> None:
    said = answers(ONE._replace(count=0, layout="pattern"))
    assert said["count"] == "pattern"
    assert not {"expression", "pose", "view"} & set(said)


def test_targets_are_indices_with_gaps_and_all_nouns_at_once(labels: Labels) -> None:
    wanted = targets([ONE, TWO], labels)
    assert wanted["first"].tolist() == [-100, labels["first"].index("fox")]
    assert wanted["colour"].tolist() == [labels["colour"].index("orange"), -100]
    assert wanted["object"].sum(1).tolist() == [1, 2]
    assert wanted["object"][1, labels["object"].index("mug")] == 1


def test_labels_cover_every_look_and_every_head(labels: Labels) -> None:
    assert set(labels) == set(HEADS)
    assert labels["style"] == list(LOOKS)
    assert all(len(set(names)) == len(names) > 1 for names in labels.values())


def test_a_perfect_guess_is_right_everywhere_and_hidden_answers_cost_nothing(labels: Labels) -> None:
    wanted = targets([ONE, TWO], labels)
    sure = {head: torch.nn.functional.one_hot(wanted[head].clamp(min=0), size).float()
            for head, size in sizes(labels).items() if head != "object"} | {"object": wanted["object"]}  # fmt: skip
    assert set(accuracy({head: p.numpy() for head, p in sure.items()}, wanted).values()) == {1.0}
    logits = {head: 40 * p - 20 for head, p in sure.items()}
    assert judge_loss(logits, wanted) < 1e-4


# The networks.


@pytest.mark.parametrize("net", BODIES)
@pytest.mark.parametrize("size", [*BUCKETS.values(), (64, 64), (512, 512)])
def test_pictures_of_any_shape_are_judged(net: str, size: tuple[int, int]) -> None:
    judge = Judge(JudgeNet(sizes(FEW), net).eval().requires_grad_(False), {h: tuple(n) for h, n in FEW.items()}, {})
    found = judge(np.random.default_rng(0).integers(0, 255, (2, *size, 3), np.uint8))
    assert set(found.probability) == set(HEADS)
    assert found.embedding.shape == (2, 384)
    assert np.allclose(np.linalg.norm(found.embedding, axis=1), 1, atol=1e-5)
    assert np.allclose(found.probability["style"].sum(1), 1, atol=1e-5)


def test_a_picture_keeps_its_shape_and_is_judged_at_one_area() -> None:
    for height, width in BUCKETS.values():
        assert judged_size(height, width) == judged_size(4 * height, 4 * width) == (height, width)
    high, wide = judged_size(600, 900)
    assert abs(high * wide / 256**2 - 1) < 0.1
    assert abs(wide / high - 1.5) < 0.1


def test_judgements_are_joined_and_picked_by_rows() -> None:
    labels: dict[str, tuple[str, ...]] = {head: ("a", "b") for head in HEADS}  # noqa: C420
    one, two = (Judgement(labels, {"z": "b"}, {head: np.full((2, 2), p) for head in HEADS}, np.zeros((2, 4)))
                for p in (0.1, 0.9))  # fmt: skip
    whole = Judgement.joined([one, two])
    assert len(whole) == 4
    assert whole[[3, 0]].of("object", "z").tolist() == [0.9, 0.1]


@pytest.mark.parametrize("net", BODIES)
def test_what_is_saved_is_small_and_judges_the_same(net: str, labels: Labels, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = JudgeNet(sizes(labels), net).eval()
    save_judge(trained, labels, net, tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10e6
    judge = Judge.load(tmp_path)
    pictures = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    with torch.no_grad():
        wanted = trained(pictures.permute(0, 3, 1, 2) / 255)[0]["style"].softmax(1)
    assert np.allclose(judge(pictures).probability["style"], wanted.numpy(), atol=2e-3)
    word, noun = next((word, noun) for word, noun in synonyms().items() if word != noun)
    assert judge(pictures).of("object", word).tolist() == judge(pictures).of("object", noun).tolist()


# Training.


def test_numbers_come_in_order_however_many_threads_make_them() -> None:
    rows = ahead(lambda turn: turn * turn, 3)
    assert [next(rows) for _ in range(5)] == [9, 16, 25, 36, 49]
    rows.close()


def test_half_of_the_batches_are_square_and_every_shape_comes() -> None:
    shapes = [shape_of(turn) for turn in range(20)]
    assert shapes.count("square") == 10
    assert set(shapes) == set(BUCKETS)


def test_a_full_bank_forgets_the_oldest() -> None:
    bank = Bank(4)
    for value in (1, 2, 3):
        bank.put(torch.full((2, 3, 8, 8), value, dtype=torch.uint8), {"style": torch.full((2,), value)})
    assert set(bank.pick(64)[1]["style"].tolist()) == {2, 3}


def test_the_second_judge_has_another_network_and_other_scenes() -> None:
    assert Setup.second().net != Setup().net
    assert Setup.second().seed - Setup().seed >= 100_000


def test_worn_pictures_keep_their_size_and_range() -> None:
    x = worn(torch.rand(3, 3, 144, 432))
    assert x.shape == (3, 3, 144, 432)
    assert 0 <= x.min() <= x.max() <= 1


@pytest.mark.parametrize("net", BODIES)
def test_a_run_goes_on_where_it_was_killed(net: str, tmp_path: Path) -> None:
    setup, bank = replace(Setup.tiny("cpu", net), batch=2), Bank(2)
    wanted = {head: torch.zeros(2, dtype=torch.long) for head in HEADS} | {"object": torch.zeros(2, 3)}
    bank.put(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), wanted)
    learner, other = Learner(FEW, setup), Learner(FEW, replace(setup, seed=1))
    for _ in range(2):
        learner.learn(bank, 0.1)
    learner.save(tmp_path / "x.safetensors", 7, 0.25)
    assert other.load(tmp_path / "x.safetensors") == (7, 0.25)
    assert other.step == 2
    for mine in (learner, other):
        torch.manual_seed(5)
        mine.learn(bank, 0.3)
        mine.finish({"square": bank})
    a, b = learner.net.state_dict(), other.net.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_tiny_run_ends_with_a_judge_that_loads_and_without_a_checkpoint(tmp_path: Path) -> None:
    setup = replace(Setup.tiny(), work=tmp_path / "work", checked=4)
    measured = train_judge(tmp_path / "judge", Pace(0.1), setup)
    assert set(measured) == {"renders"}
    assert {"object", "background", "style"} <= set(measured["renders"])
    assert Judge.load(tmp_path / "judge").labels["background"][0] == "plain"
    assert not list((tmp_path / "work").glob("*"))

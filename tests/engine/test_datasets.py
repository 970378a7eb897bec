"""engine/datasets.py and the variants of a LoRA: what it was trained from is kept in versions, each picture once, and a
LoRA is trained from it again for another base."""

import hashlib
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from engine import bases
from engine.bases import Base
from engine.catalog import Catalog
from engine.datasets import Datasets, ported
from engine.errors import Invalid, NameTaken, UnknownLora
from engine.jobs import Trained
from engine.plans import Example, LoraRef, LoraStack, TrainPlan
from engine.queue import JobQueue
from engine.runners import Runners
from engine.store import Store
from tests.engine.studio import image_plan, pixels, png, result, train_plan
from tests.engine.test_render import drawn
from tests.fakes.executor import FakeExecutor

FACTS = {"family": "sd", "alpha": 4.0}
PLAN = train_plan("tiny-sd", name="zoe")
MADE = Trained(b"for tiny-sd", png(), FACTS)


def base_of(tiny_home: Path, name: str) -> Base:
    return bases.find(name, tiny_home)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def inputs(store: Store) -> set[str]:
    return {path.name for path in (store.home / "inputs").iterdir()}


def test_a_version_lists_pictures_by_their_content(store: Store) -> None:
    said = Datasets(store).keep(PLAN)
    file = store.home / "datasets" / "zoe" / "v1.toml"
    assert said == {"dataset": "zoe/v1", "dataset_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    listed = tomllib.loads(file.read_text())
    digests = [hashlib.sha256(one.data).hexdigest() for one in PLAN.examples]
    assert [one["sha256"] for one in listed["pictures"]] == digests
    assert [one["caption"] for one in listed["pictures"]] == [one.caption for one in PLAN.examples]
    assert (listed["trigger"], listed["word"]) == ("zqx", "cat")
    assert inputs(store) == set(digests)


def test_only_what_is_new_is_stored(store: Store) -> None:
    kept = Datasets(store)
    kept.keep(PLAN)
    assert (
        kept.keep(replace(PLAN, steps=9, rank=8, base="tiny-sdxl", seed=1))["dataset"] == "zoe/v1"
    )  # a recipe's affair
    before = inputs(store)
    more = replace(PLAN, examples=(*PLAN.examples, Example("new.png", png((1, 2, 3)), "zqx cat, asleep")))
    assert kept.keep(more)["dataset"] == "zoe/v2"
    assert inputs(store) - before == {hashlib.sha256(png((1, 2, 3))).hexdigest()}
    other = replace(PLAN, examples=(replace(PLAN.examples[0], caption="zqx cat, awake"), *PLAN.examples[1:]))
    assert kept.keep(other)["dataset"] == "zoe/v3"
    assert kept.keep(PLAN)["dataset"] == "zoe/v1"


async def test_a_lora_names_its_dataset_its_recipe_and_its_base(store: Store, tiny_home: Path) -> None:
    catalog = Catalog(store.home / "shipped", store.home / "loras")
    async for _ in JobQueue(FakeExecutor(catalog, tiny_home), store, catalog).follow(PLAN):
        pass
    said = tomllib.loads((store.home / "loras" / "zoe" / "lora.toml").read_text())
    assert (said["dataset"], said["base"]) == ("zoe/v1", "tiny-sd")
    assert (said["rank"], said["steps"], said["seed"], said["prior"]) == (PLAN.rank, PLAN.steps, PLAN.seed, PLAN.prior)
    assert Datasets(store).examples(catalog.get("zoe")) == PLAN.examples


@pytest.mark.parametrize("harm", ["list", "picture", "version"])
def test_a_dataset_that_is_not_as_it_was_is_refused(store: Store, harm: str) -> None:
    catalog = Catalog(store.home / "shipped", store.home / "loras")
    said = Datasets(store).keep(PLAN)
    card = catalog.add(PLAN, replace(MADE, facts=FACTS | said))
    if harm == "list":
        (store.home / "datasets" / "zoe" / "v1.toml").write_text('trigger = "zqx"\npictures = []\n')
    elif harm == "picture":
        (store.home / "inputs" / hashlib.sha256(PLAN.examples[2].data).hexdigest()).unlink()
    else:
        card = card.model_copy(update={"dataset": "../../zoe/v1"})
    with pytest.raises(Invalid, match="dataset") as refused:
        Datasets(store).examples(card)
    assert refused.value.hint


def test_a_lora_from_before_there_were_datasets_has_the_copies_beside_it(store: Store) -> None:
    catalog = Catalog(store.home / "shipped", store.home / "loras")
    card = catalog.add(PLAN, MADE)
    found = Datasets(store).examples(card)
    assert [one.caption for one in found] == [one.caption for one in PLAN.examples]
    assert [pixels(one.data) for one in found] == [pixels(one.data) for one in PLAN.examples]
    with pytest.raises(Invalid, match="are not here"):
        Datasets(store).examples(catalog.take_in("bare", card.model_dump(), b"x", None))


# Variants


def variant(plan: TrainPlan = PLAN, base: str = "tiny-sdxl", **more: object) -> TrainPlan:
    return replace(plan, base=base, variant=True, **more)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def both(catalog: Catalog) -> Catalog:
    """“zoe” for tiny-sd, and her variant for tiny-sdxl."""
    catalog.add(PLAN, replace(MADE, facts=FACTS | {"title": "Zoe the cat", "aliases": ["our cat"]}))
    catalog.add(variant(), Trained(b"for tiny-sdxl", png(), FACTS | {"family": "sdxl"}))
    return catalog


def test_one_name_means_the_variant_for_the_base(both: Catalog, tiny_home: Path) -> None:
    for name in ("tiny-sd", "tiny-sdxl"):
        on = both.on(base_of(tiny_home, name))
        assert [card.base for card in on.list()] == [name]
        assert on.get("our cat").base == name
        assert on.weights(on.ref("zoe")) == f"for {name}".encode()
    assert both.on(base_of(tiny_home, "tiny-v")).get("zoe").base == "tiny-sd"  # the nearest: of the same family
    assert [card.base for card in both.variants("zoe")] == ["tiny-sd", "tiny-sdxl"]
    assert both.get("zoe").base == "tiny-sd"


def test_a_pinned_file_is_found_whichever_base_is_in_use(both: Catalog, tiny_home: Path) -> None:
    pinned = LoraRef("zoe", hashlib.sha256(b"for tiny-sdxl").hexdigest())
    assert both.on(base_of(tiny_home, "tiny-sd")).weights(pinned) == b"for tiny-sdxl"
    assert both.pinned(pinned).base == "tiny-sdxl"


def test_what_a_variant_may_not_take_the_place_of(both: Catalog) -> None:
    with pytest.raises(Invalid, match="has a variant for tiny-sdxl already"):
        both.check_plan(variant())
    with pytest.raises(Invalid, match="is for tiny-sd already"):
        both.check_plan(variant(base="tiny-sd", replace=True))
    with pytest.raises(UnknownLora):
        both.check_plan(variant(name="nobody"))
    with pytest.raises(NameTaken):
        both.check_plan(PLAN)
    both.add(variant(replace=True), Trained(b"anew", png(), FACTS | {"family": "sdxl"}))
    assert {card.sha256 for card in both.variants("zoe")} == {
        hashlib.sha256(data).hexdigest() for data in (b"for tiny-sd", b"anew")
    }


def test_a_lora_that_comes_with_atelier_has_variants_of_ones_own(tmp_path: Path, tiny_home: Path) -> None:
    Catalog(tmp_path / "none", tmp_path / "shipped").add(PLAN, MADE)
    catalog = Catalog(tmp_path / "shipped", tmp_path / "own")
    card = catalog.add(variant(), Trained(b"for tiny-sdxl", png(), FACTS | {"family": "sdxl"}))
    assert card.folder == tmp_path / "own" / "zoe@tiny-sdxl"
    assert catalog.on(base_of(tiny_home, "tiny-sdxl")).get("zoe") == card
    assert catalog.get("zoe").shipped


def test_a_folder_for_another_base_than_its_card_says_is_left_out(both: Catalog) -> None:
    (both.own / "zoe@tiny-sdxl").rename(both.own / "zoe@elsewhere")
    assert [card.base for card in both.variants("zoe")] == ["tiny-sd"]


def test_a_port_is_the_same_recipe_and_dataset_on_another_base(both: Catalog, tiny_home: Path) -> None:
    card, other = both.get("zoe"), base_of(tiny_home, "tiny-v")
    assert ported(card, other, PLAN.examples, None, False) == replace(PLAN, base="tiny-v", variant=True)
    assert ported(card, other, PLAN.examples, 7, True).steps == 7


def test_a_ported_lora_draws_where_the_first_one_does_not(catalog: Catalog, tiny_home: Path, runners: Runners) -> None:
    plan = train_plan("tiny-sd", steps=2, prior="none")
    made = result(runners.run(plan))
    assert isinstance(made, Trained)
    first = catalog.add(plan, made)
    again = ported(first, base_of(tiny_home, "tiny-sdxl"), plan.examples, 3, False)
    made = result(runners.run(again))
    assert isinstance(made, Trained)
    card = catalog.add(again, made)
    assert (card.name, card.family, card.trigger, card.steps) == ("zed", "sdxl", first.trigger, 3)
    ref = catalog.on(base_of(tiny_home, "tiny-sdxl")).ref("zed", 2.0)
    stacked = image_plan("tiny-sdxl", stack=LoraStack((ref,)))
    assert pixels(drawn(runners, stacked)[0]) != pixels(drawn(runners, image_plan("tiny-sdxl"))[0])


def test_a_base_that_cannot_be_trained_for_is_refused(tiny_home: Path) -> None:
    flux = base_of(tiny_home, "tiny-sd").model_copy(update={"name": "flow", "family": "flux"})
    with pytest.raises(Invalid, match="cannot be trained on it yet"):
        flux.check_trains()

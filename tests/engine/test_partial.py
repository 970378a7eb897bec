"""A LoRA of which a part exists in the base: not without the person's word, and then as if the rest were not in it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from engine import bases, exchange
from engine.catalog import Catalog, LoraCard
from engine.diffusion.resident import Resident
from engine.errors import PartialMatch, WrongBase
from engine.exchange import Wish
from engine.plans import LoraStack
from engine.runners import Runners
from tests.engine.studio import image_plan, pixels
from tests.engine.test_render import drawn

THERE = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
NOWHERE = "lora_unet_down_blocks_3_attentions_0_transformer_blocks_0_attn1_to_q"


def lora(*names: str, wide: int = 16, high: int = 16) -> bytes:
    tensors: dict[str, Any] = {}
    for name in names:
        rng = np.random.default_rng(len(name))
        tensors[f"{name}.lora_down.weight"] = rng.normal(size=(2, wide)).astype("f2")
        tensors[f"{name}.lora_up.weight"] = rng.normal(size=(high, 2)).astype("f2")
    return save(tensors)


def brought(catalog: Catalog, home: Path, data: bytes, **wish: Any) -> LoraCard:
    arrival = exchange.arrived(data, "x.safetensors", None, None, Wish(**wish))
    return exchange.take_in(arrival, exchange.base_for(arrival, bases.find("tiny-sd", home), home), catalog)


def test_what_a_base_has_is_read_off_its_files_as_the_rack_sees_it(resident: Resident) -> None:
    assert exchange.modules_of(resident.base) == dict(resident.rack.shapes)


def test_it_is_refused_until_the_person_says_so(catalog: Catalog, tiny_home: Path) -> None:
    with pytest.raises(PartialMatch) as refused:
        brought(catalog, tiny_home, lora(THERE, NOWHERE))
    assert (refused.value.missing, refused.value.changed) == (1, 2)
    assert NOWHERE.removeprefix("lora_unet_") in refused.value.message
    assert "--partial" in refused.value.hint
    assert catalog.list() == ()
    card = brought(catalog, tiny_home, lora(THERE, NOWHERE), partial=True)
    assert (card.left_out, catalog.get("x")) == (1, card)
    assert brought(catalog, tiny_home, lora(THERE), partial=True, name="whole").left_out == 0


def test_what_fits_nowhere_or_in_no_shape_stays_refused(catalog: Catalog, tiny_home: Path) -> None:
    for data in (lora(NOWHERE), lora(THERE, NOWHERE, high=8)):
        with pytest.raises(WrongBase):
            brought(catalog, tiny_home, data, partial=True, base="tiny-sd")


def test_it_draws_what_its_part_alone_draws(runners: Runners, catalog: Catalog, tiny_home: Path) -> None:
    brought(catalog, tiny_home, lora(THERE, NOWHERE), partial=True, name="part")
    brought(catalog, tiny_home, lora(THERE), name="alone")
    one, two = (
        drawn(runners, image_plan("tiny-sd", stack=LoraStack((catalog.ref(name, 2.0),))))[0]
        for name in ("part", "alone")
    )
    bare = drawn(runners, image_plan("tiny-sd"))[0]
    assert pixels(one) == pixels(two) != pixels(bare)


def test_a_card_that_says_nothing_of_it_lets_nothing_through(
    runners: Runners, catalog: Catalog, tiny_home: Path
) -> None:
    card = brought(catalog, tiny_home, lora(THERE, NOWHERE), partial=True)
    said = card.folder / "lora.toml"
    said.write_text(said.read_text().replace("left_out = 1", "left_out = 0"))
    with pytest.raises(WrongBase, match="do not exist there") as refused:
        drawn(runners, image_plan("tiny-sd", stack=LoraStack((catalog.ref("x", 1.0),))))
    assert "training pictures are not here" in refused.value.hint

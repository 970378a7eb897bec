"""Products: equal for equal seeds, whole in the frame from everywhere, one identity from all sides, exact words."""

import re
from dataclasses import fields, replace

import pytest
import torch

from engine.pocket.backdrops import COLOURS
from engine.pocket.products import (
    LABELS,
    LID_NOUN,
    LIGHTS,
    MADE_OF,
    MATERIALS,
    Products,
    draw_products,
    identity,
    paint,
    sample_products,
    told,
)
from engine.pocket.solids import KINDS, build, design

FIXED = ("kind", "shape", "material", "colour", "accent", "lid", "label")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_equal_seeds_make_equal_products_and_pictures() -> None:
    one, two, other = (sample_products(5, seeded(seed)) for seed in (1, 1, 2))
    for field in fields(Products):
        assert torch.equal(getattr(one, field.name), getattr(two, field.name))
    assert not torch.equal(one.shape, other.shape)
    first, second = draw_products(one, 32), draw_products(two, 32)
    assert torch.equal(first.rgb, second.rgb)
    assert torch.equal(first.alpha, second.alpha)
    assert torch.equal(first.shadow, second.shadow)


def test_a_picture_does_not_depend_on_what_is_drawn_beside_it() -> None:
    products = sample_products(4, seeded(), kind="mug")
    alone = draw_products(products.rows(torch.tensor([2])), 64)
    torch.testing.assert_close(draw_products(products, 64).rgb[2:3], alone.rgb, atol=2e-2, rtol=0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_stays_in_the_frame_from_every_side(kind: str) -> None:
    products = sample_products(8, seeded(3), kind=kind)
    low, high = torch.deg2rad(torch.tensor([5.0, 50.0]))
    products = replace(products, elevation=torch.linspace(float(low), float(high), 8))
    sprite = draw_products(products, 64)
    for layer in (sprite.rgb, sprite.alpha, sprite.shadow):
        assert layer.isfinite().all()
        assert layer.min() >= 0
        assert layer.max() <= 1
    border = torch.cat([sprite.alpha[..., :2, :].flatten(1), sprite.alpha[..., -2:, :].flatten(1),
                        sprite.alpha[..., :2].flatten(1), sprite.alpha[..., -2:].flatten(1)], 1)  # fmt: skip
    assert border.max() == 0
    share = (sprite.alpha > 0.2).float().mean((1, 2, 3))
    assert share.min() > 0.04
    assert share.max() < 0.70
    assert (sprite.shadow.amax((1, 2, 3)) > 0.1).all()


def test_the_solid_fills_its_part_of_the_frame() -> None:
    sprite = draw_products(sample_products(len(KINDS), seeded(5)), 64)
    for alpha in sprite.alpha[:, 0] > 0.2:
        tall, wide = alpha.any(1).sum(), alpha.any(0).sum()
        assert 44 <= max(int(tall), int(wide)) <= 58


@pytest.mark.parametrize("seed", [7, 8, 11])
def test_an_identity_keeps_shape_and_paint_while_camera_and_light_vary(seed: int) -> None:
    products = sample_products(4, seeded(seed), **identity(seed))
    for name in FIXED:
        column = getattr(products, name)
        assert torch.equal(column, column[:1].expand_as(column))
    assert (products.azimuth.diff() != 0).all()
    kind = list(KINDS)[int(products.kind[0])]
    solid = build(design(kind, products.shape))
    point = (torch.rand(1, 3, 200, generator=seeded()) - 0.5).expand(4, -1, -1)
    albedo = paint(products, solid, point).albedo
    torch.testing.assert_close(albedo, albedo[:1].expand_as(albedo))


def test_identities_differ_and_may_be_held() -> None:
    assert len({int(torch.as_tensor(identity(seed)["kind"])) for seed in range(len(KINDS))}) > 8
    mug = identity(7, kind="mug", colour="teal")
    assert list(KINDS)[int(torch.as_tensor(mug["kind"]))] == "mug"
    assert list(COLOURS)[int(torch.as_tensor(mug["colour"]))] == "teal"


def test_held_columns_are_held_and_materials_suit_their_kind() -> None:
    products = sample_products(40, seeded(), light="side", label="band", colour="navy")
    assert (products.light == LIGHTS.index("side")).all()
    assert (products.colour == list(COLOURS).index("navy")).all()
    names = list(KINDS)
    for kind, material in zip(products.kind, products.material, strict=True):
        assert MATERIALS[int(material)] in MADE_OF[names[int(kind)]]


def test_captions_name_what_is_there_and_nothing_else() -> None:
    products = sample_products(200, seeded(4))
    names, hues = list(KINDS), list(COLOURS)
    for row, text in enumerate(told(products)):
        kind = names[int(products.kind[row])]
        allowed = {hues[int(products.colour[row])]}
        label = LABELS[int(products.label[row])]
        if label != "none":
            allowed.add(hues[int(products.accent[row])])
            assert hues[int(products.accent[row])] in text
        if kind in LID_NOUN and LID_NOUN[kind] in text:
            allowed.add(hues[int(products.lid[row])])
        said = {hue for hue in hues if re.search(rf"\b{hue}\b", text)}
        assert said <= allowed
        assert hues[int(products.colour[row])] in said
        assert kind in text
        assert ("stripes" in text) == (label == "stripes")
        stuff = {"metallic": "metal", "shiny": "glossy"}
        materials = {stuff.get(word, word) for word in re.findall(r"matte|glossy|shiny|metal|glass|ceramic", text)}
        assert materials == {MATERIALS[int(products.material[row])]}
        assert not re.search(r"\ba [aeio]", text)
        assert ("above" in text.replace("light from above", "").replace("lit from above", "")) == (
            products.elevation[row] > torch.deg2rad(torch.tensor(34.0))
        )

"""Training pictures: in their own shape, at the base's native area, of a middle that is whole."""

import io

import pytest
import torch
from PIL import Image

from engine.bases import Size
from engine.jobs import Trained
from engine.plans import PRIORS
from engine.runners import Runners
from engine.training.dataset import alike, latents_of, shape_for
from engine.training.loop import Material
from tests.engine.studio import png, train_plan

POCKET = Size(native=256, multiple=16, min=128, max=512)


@pytest.mark.parametrize(
    ("picture", "shape"),
    [
        ((900, 900), (256, 256)),
        ((224, 288), (224, 288)),
        ((1080, 1920), (192, 336)),
        ((1920, 1080), (336, 192)),
        ((4000, 100), (512, 128)),  # wider than the base draws
    ],
)
def test_a_picture_is_learnt_in_its_own_shape(picture: tuple[int, int], shape: tuple[int, int]) -> None:
    assert shape_for(*picture, POCKET) == shape


def test_pictures_of_one_shape_go_together(runners: Runners) -> None:
    resident = runners.resident("tiny-sd")
    files = [png(size=size) for size in ((40, 40), (30, 60), (44, 44))]
    latents = latents_of(resident, files, torch.Generator().manual_seed(0))
    assert [views.shape[0] for views in latents] == [4, 4, 4]
    assert latents[1].shape[2] > latents[1].shape[3]
    assert alike(latents) == [[0, 2], [1]]


def test_a_step_is_made_of_one_shape_and_every_picture_has_its_turn(runners: Runners) -> None:
    plan = train_plan("tiny-sd")
    wide = tuple(_stretched(example.data) for example in plan.examples[:2])
    mixed = tuple(type(e)(e.name, wide[i] if i < len(wide) else e.data, e.caption) for i, e in enumerate(plan.examples))
    material = Material(runners.resident("tiny-sd"), train_plan("tiny-sd", examples=mixed))
    groups = [material.group() for _ in range(40)]
    assert {tuple(group) for group in groups} == {(0, 1), (2, 3, 4)}
    assert len({material.own_batch(4, group).noisy.shape[2:] for group in groups}) == 2


def _stretched(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((90, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kept", PRIORS)
def test_wide_pictures_are_learnt_under_every_prior(runners: Runners, kept: str) -> None:
    plan = train_plan("tiny-sdxl", prior=kept, steps=2)
    wide = tuple(type(e)(e.name, _stretched(e.data), e.caption) for e in plan.examples)
    *_, last = runners.run(train_plan("tiny-sdxl", prior=kept, steps=2, examples=wide))
    assert isinstance(last, Trained)

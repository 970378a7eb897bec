"""ControlNets: the same picture as diffusers' own pipelines draw, from files that are read strictly."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    MultiControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from engine import bases, controls, recipes
from engine.bases.adding import Wanted
from engine.diffusion.control import Guide, Nets, hint_of
from engine.diffusion.edges import canny
from engine.diffusion.render import Brush, Canvas, as_pixels, draw
from engine.diffusion.resident import Resident
from engine.errors import Invalid
from engine.jobs import Drawn
from engine.plans import Control, ImagePlan, Plan, Reference
from engine.runners import Runners
from engine.store import Store
from engine.wire import message
from tests.controls import control_folder, control_net, original_names
from tests.engine.studio import image_plan, pixels, png, result
from tests.tiny import tiny_sd, tiny_sdxl

PIPES: dict[str, Any] = {"sd": StableDiffusionControlNetPipeline, "sdxl": StableDiffusionXLControlNetPipeline}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both families, with a ControlNet for edges and one for depths each."""
    home = tmp_path_factory.mktemp("control")
    for made in (tiny_sd(home), tiny_sdxl(home)):
        for seed, kind in enumerate(("edge", "depth")):
            source = control_folder(made, home / "downloads" / f"{made.name}-{kind}", seed)
            controls.add(source, kind, Wanted(licence="MIT"), home)  # pyright: ignore
    return home


@pytest.fixture(params=["sd", "sdxl"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def opened(home: Path, family: str) -> Resident:
    return Resident(bases.find(f"tiny-{family}", home), torch.device("cpu"), torch.float32)


def hint(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def pipeline(home: Path, family: str, nets: list[Any]) -> Any:
    more = {} if family == "sdxl" else {"safety_checker": None}
    net = MultiControlNetModel(nets) if len(nets) > 1 else nets[0]
    pipe = PIPES[family].from_pretrained(home / "bases" / f"tiny-{family}", controlnet=net, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize(
    ("kinds", "weights", "until"),
    [(("edge",), [1.0], [1.0]), (("edge",), [0.6], [0.5]), (("edge", "depth"), [0.8, 1.5], [1.0, 0.3])],
)
def test_latents_are_those_of_diffusers(
    home: Path, family: str, kinds: tuple[str, ...], weights: list[float], until: list[float], guidance: float
) -> None:
    base = home / "bases" / f"tiny-{family}"
    nets = [control_net(base, seed) for seed, _ in enumerate(kinds)]
    hints = [hint(seed) for seed, _ in enumerate(kinds)]
    several = len(kinds) > 1
    wanted = pipeline(home, family, nets)(
        "a cat", image=hints if several else hints[0], negative_prompt="a dog", num_inference_steps=4,
        guidance_scale=guidance, height=32, width=32, output_type="latent",
        generator=torch.Generator().manual_seed(7), controlnet_conditioning_scale=weights if several else weights[0],
        control_guidance_end=until if several else until[0],
    ).images  # fmt: skip
    resident = opened(home, family)
    asked = [
        Control(k, encoded(h), w, u, is_map=True)  # pyright: ignore
        for k, h, w, u in zip(kinds, hints, weights, until, strict=True)
    ]
    found = controls.nets_for(asked, resident.base, home)
    guides = Nets(torch.device("cpu")).guides(asked, found, (32, 32), torch.float32)
    brush = Brush("a cat", "a dog", 7, 32, 32, 4, guidance, "dpm++", guides=guides)
    *_, last = draw(resident, brush)
    assert apart(last.latents, wanted) <= 1e-5
    *_, without = draw(resident, Brush("a cat", "a dog", 7, 32, 32, 4, guidance, "dpm++"))
    assert apart(without.latents, wanted) > 1e-3


def test_until_is_a_part_of_the_steps_that_are_walked(home: Path) -> None:
    """Over a picture at strength 0.5, two of four steps are walked; until 0.5 reaches the first of these."""
    resident = opened(home, "sd")
    asked: list[int] = []

    class Heard(torch.nn.Module):
        def forward(self, x: torch.Tensor, *args: Any, **more: Any) -> Any:
            asked.append(len(x))
            return net(x, *args, **more)

    net = control_net(resident.base.folder)
    guide = Guide(Heard(), torch.rand(1, 3, 32, 32), 1.0, 0.5)
    canvas = Canvas(resident.encode(as_pixels(hint(1))), 0.5)
    list(draw(resident, Brush("a cat", "", 7, 32, 32, 4, 3.0, "dpm++", canvas, guides=(guide,))))
    assert asked == [2]  # once, with both halves of the guidance


def plan_with(family: str, **said: Any) -> ImagePlan:
    return image_plan(f"tiny-{family}", **said)


def drawn(home: Path, tmp_path: Path, plan: ImagePlan) -> bytes:
    from engine.catalog import Catalog

    made = result(Runners(Catalog(tmp_path / "a", tmp_path / "b"), home, torch.device("cpu")).run(plan))
    assert isinstance(made, Drawn)
    return made.pictures[0].png


def test_a_controlled_picture_is_drawn_again_from_its_recipe(home: Path, family: str, tmp_path: Path) -> None:
    first, second = encoded(hint(1)), encoded(hint(2))
    plan = plan_with(family, controls=(Control("edge", first, 1.5), Control("depth", second, 0.7, 0.5)))
    picture = drawn(home, tmp_path, plan)
    assert pixels(picture) != pixels(drawn(home, tmp_path, plan_with(family)))
    recipe = recipes.read_recipe(picture, "x.png")
    said = [(c["kind"], c["weight"], c["until"], c["net"]) for c in recipe["controls"]]
    assert said == [("edge", 1.5, 1.0, f"tiny-{family}-edge"), ("depth", 0.7, 0.5, f"tiny-{family}-depth")]
    assert recipe["licences"][f"control tiny-{family}-edge"] == "MIT"
    store = Store(tmp_path)
    for data in plan.inputs:
        store.save_input(data)
    again = recipes.plan_from(recipe, store.input)
    assert again.controls == plan.controls
    assert pixels(drawn(home, tmp_path, again)) == pixels(picture)


def test_a_recipe_from_before_there_were_controls_is_read(home: Path, tmp_path: Path) -> None:
    recipe = recipes.read_recipe(drawn(home, tmp_path, plan_with("sd")), "x.png")
    del recipe["controls"], recipe["references"]
    assert recipes.plan_from(recipe, lambda _: b"").controls == ()


def test_a_plan_with_controls_crosses_the_wire(tmp_path: Path) -> None:
    plan = plan_with("sd", controls=(Control("pose", png(), 0.5, 0.4, True),), references=(Reference(png(), 1.0),))
    store = Store(tmp_path)
    assert store.unpack(Plan, store.pack(Plan, plan)) == plan
    assert message({"run": 1}, Plan, plan).count(png()) == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (lambda: Control("edges", png()), "none of the kind"),  # pyright: ignore
        (lambda: Control("edge", b"GIF89a"), "not a picture"),
        (lambda: Control("edge", b""), "not a picture"),
        (lambda: Control("edge", png(), float("nan")), "out of range"),
        (lambda: Control("edge", png(), 2.5), "out of range"),
        (lambda: Control("edge", png(), 1.0, 0.0), "out of range"),
        (lambda: Reference(b"text"), "not a picture"),
        (lambda: Reference(png(), -1.0), "out of range"),
        (lambda: plan_with("sd", controls=(Control("edge", png()),) * 4), "out of range"),
        (lambda: plan_with("sd", references=(Reference(png()),) * 5), "out of range"),
    ],
)
def test_a_control_is_checked_at_birth(said: Any, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        said()


def test_a_control_costs_half_a_step_more_while_it_counts() -> None:
    bare = plan_with("sd").work
    assert plan_with("sd", controls=(Control("edge", png(), until=0.5),)).work == pytest.approx(bare * 1.25)


def test_what_is_not_there_or_fits_another_family_says_how_to_add_it(home: Path, tmp_path: Path) -> None:
    pocket = bases.find("pocket")
    with pytest.raises(Invalid, match="has no ControlNet for it") as none:
        controls.net_for("pose", pocket, home)
    assert "atelier controls add" in none.value.hint
    with pytest.raises(Invalid, match="does not fit"):
        controls.net_for("edge", pocket, home)
    other = tmp_path / "home"
    tiny_sd(other)
    controls.add(home / "downloads" / "tiny-sdxl-edge", "edge", Wanted(), other)
    with pytest.raises(Invalid, match="made for sdxl"):
        drawn(other, tmp_path, plan_with("sd", controls=(Control("edge", png()),)))


def test_a_base_without_an_adapter_takes_no_references_and_says_so(home: Path, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="takes no reference pictures without an IP-Adapter"):
        drawn(home, tmp_path, plan_with("sd", references=(Reference(png()),)))


# Files


@pytest.mark.parametrize(("family", "layout"), [("sd", "original"), ("sd", "diffusers"), ("sdxl", "diffusers")])
def test_a_single_file_becomes_the_same_net(tmp_path: Path, family: str, layout: str) -> None:
    """The original layout, as the paper's own code writes it, and diffusers' names without a configuration."""
    base = (tiny_sd if family == "sd" else tiny_sdxl)(tmp_path)
    net = control_net(base, 3, (4, 6, 8, 12))
    file = tmp_path / "some canny.safetensors"
    named = original_names(net) if layout == "original" else net.state_dict()
    save_file({key: tensor.contiguous().clone() for key, tensor in named.items()}, file)
    made = controls.add(file, "edge", Wanted(), tmp_path)
    assert (made.name, made.family, made.licence, made.commercial) == ("some-canny", family, "unknown", False)
    kept = load_file(made.folder / controls.WEIGHTS)
    assert kept.keys() == net.state_dict().keys()
    assert all(torch.equal(kept[key], tensor) for key, tensor in net.state_dict().items())


def test_the_original_layout_of_sdxl_which_diffusers_does_not_convert_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "canny.safetensors"
    named = original_names(control_net(tiny_sdxl(tmp_path), 3, (4, 6, 8, 12)))
    save_file({key: tensor.contiguous().clone() for key, tensor in named.items()}, file)
    with pytest.raises(Invalid, match="Missing key") as refused:
        controls.add(file, "edge", Wanted(), tmp_path)
    assert "in diffusers' layout" in refused.value.hint


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda t: t.pop("conv_in.bias"), "Missing key"),
        (lambda t: t.update({"extra.weight": torch.zeros(2)}), "Unexpected key"),
        (lambda t: t.update({"conv_in.bias": torch.full((8,), float("nan"))}), "no number"),
    ],
)
def test_weights_that_are_not_whole_are_refused(home: Path, tmp_path: Path, spoil: Any, why: str) -> None:
    source = control_folder(home / "bases" / "tiny-sd", tmp_path / "source")
    tensors = load_file(source / controls.WEIGHTS)
    spoil(tensors)
    save_file(tensors, source / controls.WEIGHTS)
    with pytest.raises(Invalid, match=why):
        controls.add(source, "edge", Wanted(), tmp_path)
    assert controls.installed(tmp_path) == ()
    assert not any((tmp_path / "controls" / ".new").iterdir())


def test_what_is_no_control_net_is_refused_for_what_it_is(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "lora.safetensors"
    save_file({"lora_controlnet.up": torch.zeros(4, 4)}, other)
    pickled = tmp_path / "net.safetensors"
    pickled.write_bytes(pickle.dumps({"a": 1}))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"")
    for path, why in (
        (home / "bases" / "tiny-sd" / "unet", "no ControlNetModel"),
        (other, "Control-LoRA"),
        (pickled, "pickle"),
        (folder, "pickle"),
        (tmp_path / "nothing", "no such file"),
    ):
        with pytest.raises(Invalid, match=why):
            controls.add(path, "edge", Wanted(), tmp_path)


def test_a_net_whose_file_changed_is_refused(home: Path, tmp_path: Path) -> None:
    tiny_sd(tmp_path)
    net = controls.add(home / "downloads" / "tiny-sd-edge", "edge", Wanted(), tmp_path)
    (net.folder / controls.WEIGHTS).write_bytes(b"")
    with pytest.raises(Invalid, match="not as they were"):
        drawn(tmp_path, tmp_path, plan_with("sd", controls=(Control("edge", png()),)))


# What a ControlNet reads


def test_edges_of_a_square_are_one_closed_line() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[10:30, 10:30] = 255
    found = canny(pixels) > 0
    rows = found.sum(1)
    assert set(rows[12:28]) == {2}  # a line on the left, one on the right, each a pixel wide
    inside = np.zeros_like(found)
    inside[9:31, 9:31] = True
    assert not found[~inside].any()
    assert not found[12:28, 12:28].any()


def test_a_slow_change_is_no_edge_and_a_weak_edge_counts_only_beside_a_strong_one() -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    assert not canny(ramp).any()
    step = np.zeros((40, 40, 3), np.uint8)
    step[:, 20:] = 40  # |Gx| = 160: between the thresholds
    assert not canny(step).any()
    step[:5, 20:] = 120
    assert (canny(step)[8:] > 0).any(1).all()


def test_a_drawing_is_light_on_dark_and_a_map_is_what_it_is() -> None:
    paper = Image.new("RGB", (32, 32), "white")
    paper.putpixel((5, 6), (0, 0, 0))
    seen = hint_of(Control("sketch", encoded(paper)), (32, 32))
    assert (seen.getpixel((5, 6)), seen.getpixel((0, 0))) == ((255, 255, 255), (0, 0, 0))
    board = Image.eval(paper, lambda value: 255 - value)
    assert hint_of(Control("sketch", encoded(board)), (32, 32)) == board
    noise = hint(5)
    for kind in ("pose", "depth"):
        assert hint_of(Control(kind, encoded(noise)), (32, 32)).tobytes() == noise.tobytes()
    for kind in ("edge", "sketch"):
        assert hint_of(Control(kind, encoded(paper), is_map=True), (32, 32)).tobytes() == paper.tobytes()


def test_a_map_is_dark_where_it_is_transparent() -> None:
    glass = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert hint_of(Control("pose", encoded(glass)), (16, 16)).getextrema() == ((0, 0),) * 3

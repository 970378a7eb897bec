"""Stable Diffusion 3.5 and FLUX.1, tiny and random: what diffusers' own pipelines draw; prompts, refusals and LoRAs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from torch import Tensor

from engine import bases
from engine.diffusion import compare, t5
from engine.diffusion.compare import Task
from engine.diffusion.render import Brush, Canvas, draw
from engine.diffusion.resident import Resident
from engine.errors import Invalid, WrongBase
from engine.jobs import Drawn
from engine.plans import LoraRef, LoraStack
from engine.prompts import LITERAL, MARKED, Prompt
from engine.runners import Runners
from tests.engine.studio import image_plan, png, result, train_plan
from tests.tiny import tiny_flux, tiny_sd3

pytestmark = pytest.mark.filterwarnings("ignore")
BASES = ("tiny-sd3", "tiny-sd3-no-t5", "tiny-flux", "tiny-schnell")
WIDTH, HEIGHT, SEED = 48, 32, 7  # 24 x 16 latents


@pytest.fixture(scope="module")
def flow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny_sd3(home)
    tiny_sd3(home, "tiny-sd3-no-t5", t5=False, shifts=True)
    tiny_flux(home)
    tiny_flux(home, "tiny-schnell", guides=False)
    return home


@pytest.fixture(params=BASES)
def base_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def resident(flow_home: Path, base_name: str) -> Resident:
    return Resident(bases.find(base_name, flow_home), torch.device("cpu"), torch.float32)


def is_flux(resident: Resident) -> bool:
    return resident.base.family == "flux"


def guidance_of(resident: Resident) -> float:
    return 1.0 if resident.base.name == "tiny-schnell" else 3.0


def ours(resident: Resident, prompt: str = "a red cat", negative: str | None = None, **more: Any) -> Tensor:
    given: dict[str, Any] = {"steps": 4, "guidance": guidance_of(resident), "sampler": "euler"} | more
    said = negative if negative is not None else "" if is_flux(resident) else "a dog"
    *_, last = draw(resident, Brush(prompt, said, SEED, WIDTH, HEIGHT, **given))
    return last.latents


def theirs(resident: Resident, kind: str, prompt: str = "a red cat", **more: Any) -> Tensor:
    """The latents of the pipeline of that kind ("", "Img2Img", "Inpaint"), loaded by diffusers from the same folder."""
    name = "Flux" if is_flux(resident) else "StableDiffusion3"
    absent = {} if "no-t5" not in resident.base.name else {"text_encoder_3": None, "tokenizer_3": None}
    pipe: Any = getattr(diffusers, f"{name}{kind}Pipeline").from_pretrained(resident.base.folder, **absent)
    pipe.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": guidance_of(resident)}
    if is_flux(resident):
        given["max_sequence_length"] = 256 if resident.base.name == "tiny-schnell" else 512
    else:
        given["negative_prompt"] = "a dog"
    given |= {"height": HEIGHT, "width": WIDTH, "generator": torch.Generator().manual_seed(SEED)} | more
    latents: Tensor = pipe(prompt, output_type="latent", **given).images
    return pipe._unpack_latents(latents, HEIGHT, WIDTH, pipe.vae_scale_factor) if is_flux(resident) else latents


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_a_picture_has_the_latents_of_plain_diffusers(resident: Resident) -> None:
    assert apart(ours(resident), theirs(resident, "")) <= 1e-5


@pytest.mark.parametrize("base_name", ["tiny-sd3", "tiny-flux"])
def test_guidance_is_that_of_diffusers_and_does_something(resident: Resident) -> None:
    """FLUX's is an input of the network; without any, Stable Diffusion 3 does without the negative prompt."""
    drawn = [ours(resident, guidance=guidance) for guidance in (1.0, 3.0, 5.5)]
    for guidance, latents in zip((1.0, 5.5), drawn[::2], strict=True):
        assert apart(latents, theirs(resident, "", guidance_scale=guidance)) <= 1e-5
    assert apart(drawn[0], drawn[1]) > 1e-4 < apart(drawn[1], drawn[2])


@pytest.mark.parametrize("base_name", ["tiny-sd3", "tiny-sd3-no-t5"])
def test_a_negative_prompt_is_read(resident: Resident) -> None:
    assert apart(ours(resident, negative=""), theirs(resident, "", negative_prompt="")) <= 1e-5
    assert apart(ours(resident, negative=""), ours(resident)) > 1e-4


def test_the_size_moves_the_noise_schedule_where_the_base_says_so(resident: Resident) -> None:
    def sigmas(shape: tuple[int, ...]) -> Tensor:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(resident.parts.scheduler)
        scheduler.set_timesteps(**resident.family.timing(resident.parts, 4, shape))
        return scheduler.sigmas

    small, large = sigmas((1, 16, 16, 16)), sigmas((1, 16, 128, 128))
    assert torch.equal(small, large) is not bool(resident.parts.scheduler["use_dynamic_shifting"])


def painted(seed: int = 1) -> Tensor:
    return torch.randn(1, 16, HEIGHT // 2, WIDTH // 2, generator=torch.Generator().manual_seed(seed))


def test_over_a_picture_it_has_the_latents_of_diffusers(resident: Resident) -> None:
    latents = painted()
    mine = ours(resident, canvas=Canvas(latents, 0.5))
    assert apart(mine, theirs(resident, "Img2Img", image=latents, strength=0.5)) <= 1e-5
    assert apart(mine, ours(resident, canvas=Canvas(painted(2), 0.5))) > 0.1


def test_under_a_mask_it_has_the_latents_of_diffusers_and_keeps_what_must_stay(resident: Resident) -> None:
    latents = painted()
    keep = torch.ones(1, 1, HEIGHT // 2, WIDTH // 2)
    keep[..., 4:12, 8:16] = 0
    mine = ours(resident, canvas=Canvas(latents, 0.75, keep))
    kept = keep.expand_as(latents).bool()
    assert torch.equal(mine[kept], latents[kept])
    assert not torch.isclose(mine[~kept], latents[~kept]).any(-1).all()
    mask = 1 - keep.repeat_interleave(2, -1).repeat_interleave(2, -2)
    wanted = theirs(
        resident, "Inpaint", image=latents, mask_image=mask, masked_image_latents=latents, strength=0.75
    )  # of transformers that take 16 channels the last is unread
    assert apart(mine, wanted) <= 1e-5


@pytest.fixture
def runners(flow_home: Path, catalog: Any) -> Runners:
    return Runners(catalog, flow_home, torch.device("cpu"))


def test_whole_plans_are_drawn_over_pictures_and_under_masks(runners: Runners, base_name: str) -> None:
    guidance = 1.0 if base_name == "tiny-schnell" else 3.0
    for more in (
        {},
        {"image": png(), "strength": 0.5},
        {"image": png(), "mask": png((255, 255, 255)), "strength": 0.8},
    ):
        plan = image_plan(base_name, sampler="euler", guidance=guidance, **more)
        made = result(runners.run(plan))
        assert isinstance(made, Drawn)
        assert made.pictures[0].recipe["family"] in ("sd3", "flux")


# Prompts


def read(resident: Resident, text: str, syntax: int = MARKED) -> tuple[Tensor, Tensor | None]:
    cond = resident.texts([Prompt(text, syntax)])[0]
    return cond.tokens, cond.pooled


def t5_hidden(resident: Resident, text: str, length: int) -> Tensor:
    """(1, length, d), by transformers' own padding."""
    tokenizer, encoder = resident.parts.tokenizers[-1], resident.parts.encoders[-1]
    ids = tokenizer(text, padding="max_length", max_length=length, return_tensors="pt").input_ids
    with torch.inference_mode():
        return encoder(ids)[0]


@pytest.mark.parametrize(("base_name", "length"), [("tiny-sd3", 256), ("tiny-flux", 512), ("tiny-schnell", 256)])
def test_a_weight_moves_the_words_tokens_of_t5_away_from_the_empty_text_and_no_others(
    resident: Resident, length: int
) -> None:
    tokens, _ = read(resident, "a (red:1.5) cat")
    plain, nothing = t5_hidden(resident, "a red cat", length), t5_hidden(resident, "", length)
    names = resident.parts.tokenizers[-1].convert_ids_to_tokens(resident.parts.tokenizers[-1]("a red cat").input_ids)
    red = [i for i, name in enumerate(names) if "red" in name]
    wanted = plain.clone()
    wanted[:, red] = nothing[:, red] + 1.5 * (plain[:, red] - nothing[:, red])
    torch.testing.assert_close(tokens[:, -length:], wanted, rtol=1e-5, atol=1e-5)
    assert len(red) == 1
    assert not torch.allclose(wanted, plain, atol=1e-4)


@pytest.mark.parametrize("base_name", ["tiny-sd3"])
def test_a_weight_moves_clips_tokens_too(resident: Resident) -> None:
    plain, ours = read(resident, "a red cat")[0][:, :77], read(resident, "a (red:1.5) cat")[0][:, :77]
    assert (plain != ours).any(-1)[0].nonzero().flatten().tolist() == [2, 3, 4]  # a letter is a token there


def test_marks_that_say_nothing_change_no_bit(resident: Resident) -> None:
    for text in ("a (red:1) cat", "a ([red]) cat"):
        for one, other in zip(read(resident, text), read(resident, "a red cat"), strict=True):
            assert one is not None
            assert other is not None
            assert torch.equal(one, other)


@pytest.mark.parametrize("base_name", ["tiny-sd3", "tiny-flux"])
def test_a_weight_within_a_word_moves_no_boundary(resident: Resident) -> None:
    tokenizer = resident.parts.tokenizers[-1]
    said = t5.said(tokenizer, Prompt("the (c:2)at, BREAK red", MARKED))
    assert list(said.ids) == tokenizer("the cat, red").input_ids[:-1]
    assert said.weights == (1.0,) * len(said.ids)  # “▁cat” is one token, and its last letter is unweighted
    assert t5.said(tokenizer, Prompt("the c(at:2), red", MARKED)).weights.count(2.0) == 1


def test_a_trigger_behind_clips_77_tokens_is_read(resident: Resident) -> None:
    """By CLIP in a second piece (Stable Diffusion 3), and by T5, whose sequence grows to 512 where it has to."""
    one, other = ("a cat, " * 30 + word for word in ("zqx", "zqy"))
    first, second = read(resident, one)[0], read(resident, other)[0]
    assert first.shape == second.shape
    assert apart(first, second) > 1e-4
    assert apart(ours(resident, one, syntax=MARKED), ours(resident, other, syntax=MARKED)) > 1e-6


@pytest.mark.parametrize("base_name", ["tiny-sd3"])
def test_both_lengths_grow_together_so_that_a_short_negative_prompt_fits(resident: Resident) -> None:
    """Each of CLIP's pieces alone, its 32 channels filled up to T5's 40; behind them T5's 512."""
    long = "dog " * 100 + "cat"  # 101 words, 301 letters for CLIP, 202 for T5, whose words have a blank each
    ids = resident.parts.tokenizers[0](long, add_special_tokens=False).input_ids
    rows = [ids[i : i + 75] for i in range(0, len(ids), 75)]
    assert len(rows) >= 4
    hidden: list[Tensor] = []
    first: list[Tensor] = []
    for row in rows:
        framed = torch.tensor([[0, *row, 1] + [1] * (75 - len(row))])
        with torch.inference_mode():
            both: list[Any] = [e(framed, output_hidden_states=True) for e in resident.parts.encoders[:2]]
        hidden.append(torch.cat([*(out.hidden_states[-2] for out in both), torch.zeros(1, 77, 8)], dim=-1))
        first = first or [out.text_embeds for out in both]
    wanted = torch.cat([*hidden, t5_hidden(resident, long, 512)], dim=1)
    tokens, pooled = read(resident, long, LITERAL)
    torch.testing.assert_close(tokens, wanted, rtol=1e-5, atol=1e-5)
    assert pooled is not None
    torch.testing.assert_close(pooled, torch.cat(first, dim=-1), rtol=1e-5, atol=1e-5)
    short = resident.texts([Prompt("a dog"), Prompt(long)])[0]
    assert short.tokens.shape == tokens.shape
    assert torch.isfinite(ours(resident, long, syntax=LITERAL)).all()


@pytest.mark.parametrize("base_name", ["tiny-sd3", "tiny-flux", "tiny-schnell"])
def test_more_than_t5_reads_is_refused_and_nothing_is_cut(resident: Resident) -> None:
    fits, too_long = "x" * 510, "x" * 511  # a blank before them and an end mark behind
    assert read(resident, fits)[0].shape[1] >= 512
    with pytest.raises(Invalid, match="511 are the most") as caught:
        read(resident, too_long)
    assert "Shorten it" in caught.value.hint


@pytest.mark.parametrize("base_name", ["tiny-sd3"])
def test_t5s_sequence_grows_where_t5_alone_needs_it(resident: Resident) -> None:
    text = "x " * 140  # 140 tokens of CLIP, two pieces; 280 of T5, with a blank each
    tokens, _ = read(resident, text)
    torch.testing.assert_close(tokens[:, -512:], t5_hidden(resident, text, 512), rtol=1e-5, atol=1e-5)
    assert tokens.shape[1] == 4 * 77 + 512


# Refusals


@pytest.mark.parametrize(
    ("base_name", "more", "why"),
    [
        ("tiny-flux", {"negative": "a dog"}, "no negative prompt"),
        ("tiny-schnell", {"negative": "a dog"}, "no negative prompt"),
        ("tiny-schnell", {"guidance": 3.5}, "without guidance"),
    ],
)
def test_flux_says_what_it_does_not_read_before_it_is_loaded(
    runners: Runners, base_name: str, more: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "resident", lambda _: pytest.fail("it was loaded"))
    with pytest.raises(Invalid, match=why):
        result(runners.run(image_plan(base_name, **{"sampler": "euler", "guidance": 1.0} | more)))


@pytest.mark.parametrize("base_name", ["tiny-schnell"])
def test_no_guidance_may_be_written_as_0_and_as_1(resident: Resident) -> None:
    assert torch.equal(ours(resident, guidance=0.0), ours(resident, guidance=1.0))


@pytest.mark.parametrize("base_name", ["tiny-sd3", "tiny-flux"])
def test_training_is_refused_before_the_base_is_loaded(
    runners: Runners, base_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "resident", lambda _: pytest.fail("it was loaded"))
    with pytest.raises(Invalid, match="cannot be trained on it yet"):
        result(runners.run(train_plan(base_name)))


# LoRAs: file's keys → what they change, by parameter and rows, re-derived here from Black Forest Labs' module layout.

Rows = tuple[str, slice]
FUSED: dict[str, list[Rows]] = {  # a hidden width of 32: q, k and v have 32 rows each, the single block's MLP 128
    "lora_unet_double_blocks_1_img_attn_qkv": [
        (f"transformer_blocks.1.attn.to_{x}", slice(32 * i, 32 * i + 32)) for i, x in enumerate("qkv")
    ],
    "lora_unet_double_blocks_0_txt_attn_qkv": [
        (f"transformer_blocks.0.attn.add_{x}_proj", slice(32 * i, 32 * i + 32)) for i, x in enumerate("qkv")
    ],
    "lora_unet_single_blocks_1_linear1": [
        *((f"single_transformer_blocks.1.attn.to_{x}", slice(32 * i, 32 * i + 32)) for i, x in enumerate("qkv")),
        ("single_transformer_blocks.1.proj_mlp", slice(96, 224)),
    ],
    "lora_unet_double_blocks_0_img_mlp_2": [("transformer_blocks.0.ff.net.2", slice(0, 32))],
    "lora_unet_single_blocks_0_linear2": [("single_transformer_blocks.0.proj_out", slice(0, 32))],
}
JOINT: dict[str, list[Rows]] = {  # Stable Diffusion 3's, of width 16
    "lora_unet_joint_blocks_0_x_block_attn_qkv": [
        (f"transformer_blocks.0.attn.to_{x}", slice(16 * i, 16 * i + 16)) for i, x in enumerate("qkv")
    ],
    "lora_unet_joint_blocks_0_x_block_attn2_qkv": [
        (f"transformer_blocks.0.attn2.to_{x}", slice(16 * i, 16 * i + 16)) for i, x in enumerate("qkv")
    ],
    "lora_unet_joint_blocks_1_context_block_attn_qkv": [
        (f"transformer_blocks.1.attn.add_{x}_proj", slice(16 * i, 16 * i + 16)) for i, x in enumerate("qkv")
    ],
    "lora_unet_joint_blocks_0_context_block_mlp_fc1": [("transformer_blocks.0.ff_context.net.0.proj", slice(0, 64))],
}
PEFT: dict[str, list[Rows]] = {
    f"transformer.{path}": [(path, slice(None))]
    for path in (
        "transformer_blocks.0.attn.to_out.0",
        "transformer_blocks.1.attn.to_q",
        "transformer_blocks.0.ff.net.2",
    )
}


def file_of(resident: Resident, layers: dict[str, list[Rows]], rank: int = 3) -> bytes:
    rng, kohya = np.random.default_rng(5), not next(iter(layers)).startswith("transformer.")
    weights = dict(resident.parts.denoiser.named_parameters())
    tensors: dict[str, np.ndarray] = {}
    for key, rows in layers.items():
        high, wide = sum(len(weights[f"{path}.weight"]) for path, _ in rows), weights[f"{rows[0][0]}.weight"].shape[1]
        down, up = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
        tensors[f"{key}.{down}.weight"] = rng.normal(0, 0.3, (rank, wide)).astype("f4")
        tensors[f"{key}.{up}.weight"] = rng.normal(0, 0.3, (high, rank)).astype("f4")
        if kohya:
            tensors[f"{key}.alpha"] = np.array(1.5, "f4")
    return save(tensors)


def meant(file: bytes, layers: dict[str, list[Rows]]) -> dict[str, np.ndarray]:
    """ΔW by parameter, (α/r) B A in float64, cut by rows; α is the rank where there is none."""
    held = {key: value.astype(np.float64) for key, value in load(file).items()}
    found: dict[str, np.ndarray] = {}
    for key, rows in layers.items():
        down = next(held[k] for k in held if k.startswith(f"{key}.") and ("lora_down" in k or "lora_A" in k))
        up = next(held[k] for k in held if k.startswith(f"{key}.") and ("lora_up" in k or "lora_B" in k))
        change = float(held.get(f"{key}.alpha", np.array(len(down)))) / len(down) * up @ down
        found |= {f"{path}.weight": change[cut] for path, cut in rows}
    return found


def state(resident: Resident) -> dict[str, Tensor]:
    modules = (resident.parts.denoiser, *resident.parts.encoders)
    return {f"{i}.{name}": p.detach().clone() for i, m in enumerate(modules) for name, p in m.named_parameters()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key].view(torch.int32), b[key].view(torch.int32)) for key in a)


@pytest.mark.parametrize(
    ("base_name", "layers"),
    [("tiny-flux", FUSED), ("tiny-flux", PEFT), ("tiny-sd3", JOINT), ("tiny-sd3", PEFT)],
    ids=["flux-kohya", "flux-peft", "sd3-kohya", "sd3-peft"],
)
def test_a_lora_is_its_formula_changes_the_picture_and_leaves_no_trace(
    resident: Resident, layers: dict[str, list[Rows]]
) -> None:
    file, bare = file_of(resident, layers), ours(resident)
    before, wanted = state(resident), meant(file, layers)
    with resident.stacked(LoraStack((LoraRef("one", "a" * 64, 0.8),)), lambda _: file):
        during, drawn = state(resident), ours(resident)
    for name, weight in before.items():
        change = 0.8 * wanted[name[2:]] if name.startswith("0.") and name[2:] in wanted else 0.0
        np.testing.assert_allclose(during[name].double(), weight.double().numpy() + change, rtol=1e-5, atol=1e-5)
        assert torch.equal(during[name], weight) is (isinstance(change, float)), name
    assert apart(drawn, bare) > 1e-4
    assert same_bits(state(resident), before)
    assert torch.equal(ours(resident), bare)


@pytest.mark.parametrize(("base_name", "at"), [("tiny-flux", 1), ("tiny-sd3", 2)])
def test_a_lora_of_t5_changes_what_texts_mean_while_it_is_in(resident: Resident, at: int) -> None:
    encoder = resident.parts.encoders[at]
    path = "encoder.block.0.layer.0.SelfAttention.q"
    high, wide = dict(encoder.named_parameters())[f"{path}.weight"].shape
    rng, key = np.random.default_rng(0), "lora_te3_" + path.replace(".", "_")
    shapes = {"lora_down": (2, wide), "lora_up": (high, 2)}
    file = save({f"{key}.{part}.weight": rng.normal(size=shape).astype("f4") for part, shape in shapes.items()})
    bare, before = read(resident, "a cat")[0].clone(), state(resident)
    with resident.stacked(LoraStack((LoraRef("voice", "b" * 64),)), lambda _: file):
        assert apart(read(resident, "a cat")[0], bare) > 1e-4
    assert torch.equal(read(resident, "a cat")[0], bare)
    resident.move(torch.device("cpu"))
    assert same_bits(state(resident), before)


@pytest.mark.parametrize("base_name", ["tiny-flux"])
def test_a_lora_of_another_family_is_refused(resident: Resident) -> None:
    tensors = {"down": np.ones((2, 16), "f4"), "up": np.ones((16, 2), "f4")}
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    file = save({f"{key}.lora_{part}.weight": value for part, value in tensors.items()})
    with pytest.raises(WrongBase), resident.stacked(LoraStack((LoraRef("sd", "c" * 64),)), lambda _: file):
        pass


# `bases check`


@pytest.fixture
def check(flow_home: Path, tmp_path: Path) -> Callable[[str, bytes | None], dict[str, Any]]:
    def run(name: str, file: bytes | None) -> dict[str, Any]:
        if file is not None:
            (tmp_path / "one.safetensors").write_bytes(file)
        lora = str(tmp_path / "one.safetensors") if file is not None else None
        return compare.compare(Task(name, str(flow_home), lora, str(tmp_path / "out"), steps=3))

    return run


@pytest.mark.parametrize("base_name", ["tiny-sd3", "tiny-flux"])
def test_bases_check_draws_what_diffusers_draws_with_and_without_a_lora(
    resident: Resident, check: Callable[[str, bytes | None], dict[str, Any]]
) -> None:
    report = check(resident.base.name, file_of(resident, PEFT))
    assert report["alike"]
    for picture in report["pictures"]:
        assert picture["latents_relative_l2"] < 1e-4
        assert picture["pixels_max"] <= 1
    assert report["pictures"][1]["change"] > 1e-3


@pytest.mark.parametrize("base_name", ["tiny-flux"])
def test_bases_check_tells_another_picture_apart(
    resident: Resident, check: Callable[[str, bytes | None], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = compare._noise
    monkeypatch.setattr(compare, "_noise", lambda *given: noise(*given) * 1.1)
    assert not check(resident.base.name, None)["alike"]

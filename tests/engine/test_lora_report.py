"""What is said of a file, who is refused, and the names of transformers, split as their fused layers are."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from safetensors.numpy import save

from engine.diffusion.rack import Rack
from engine.errors import BadLoraFile, WrongBase
from engine.lora.blend import blend, deltas
from engine.lora.dialects import named
from engine.lora.read import read, read_embedding
from engine.lora.report import inspect
from tests.engine.lora_zoo import Tiny, tiny, written

KOHYA = "kohya, diffusers' names"


@pytest.fixture(scope="module")
def zoo() -> Tiny:
    return tiny("sdxl")


def shelf(zoo: Tiny) -> Rack:
    unet, *encoders = zoo.models.values()
    return Rack(unet, tuple(encoders))


def test_a_report_says_what_a_file_is_and_is_ready_for_json(zoo: Tiny) -> None:
    said = {
        "modelspec.trigger_phrase": "zqx cat", "modelspec.license": "CC-BY-4.0",
        "ss_sd_model_name": "sd_xl_base.safetensors", "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    }  # fmt: skip
    file = written(zoo, KOHYA, "LoRA", said)
    report = inspect(file.data, "cat", shelf(zoo).shapes)
    assert (report.what, report.family, report.title) == ("lora", "sdxl", "Stable Diffusion XL")
    assert (report.made_for, report.triggers, report.licence) == ("sd_xl_base.safetensors", ("zqx cat",), "CC-BY-4.0")
    assert (report.dialects, report.kinds, report.ranks, report.alphas) == (("kohya",), {"LoRA": 7}, {3: 7}, (1.5,))
    assert (report.matched, report.unmatched, report.refusal) == (7, (), "")
    squares = {key: float((change**2).sum()) for key, change in file.means(zoo).items()}
    for block, model in (
        ("down_blocks_1", "unet"),
        ("text_encoder", "text_encoder"),
        ("text_encoder_2", "text_encoder_2"),
    ):
        wanted = sum(square for (owner, _), square in squares.items() if owner == model) ** 0.5
        assert report.norms[block] == pytest.approx(wanted, rel=1e-5)
    assert json.loads(json.dumps(asdict(report)))["name"] == "cat"


@pytest.mark.parametrize("kind", ["LoHa", "LoHa with Tucker cores", "LoKr, factored", "full difference", "norm"])
def test_the_norms_of_every_kind_are_those_of_its_whole_change(zoo: Tiny, kind: str) -> None:
    file = written(zoo, KOHYA, kind)
    total = sum(float((change**2).sum()) for change in file.means(zoo).values())
    assert sum(n**2 for n in inspect(file.data, "x").norms.values()) == pytest.approx(total, rel=1e-4)


def test_the_tag_that_most_captions_have_is_the_trigger_where_no_phrase_is_said(zoo: Tiny) -> None:
    said = {"ss_tag_frequency": json.dumps({"10_private": {"zqx dog": 3, "grass": 2}, "2_\x1b[31m": {"zqx dog": 1}})}
    assert inspect(written(zoo, KOHYA, "LoRA", said).data, "x").triggers == ("zqx dog",)
    for odd in ("[]", "{", "[" * 50_000):
        assert inspect(written(zoo, KOHYA, "LoRA", {"ss_tag_frequency": odd}).data, "x").triggers == ()


@pytest.mark.parametrize(
    ("width", "family", "title"),
    [(768, "sd", "Stable Diffusion 1.x"), (1024, "sd", "Stable Diffusion 2.x"), (2048, "sdxl", "Stable Diffusion XL")],
)
def test_the_width_of_the_text_tells_the_family(width: int, family: str, title: str) -> None:
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    data = save(
        {f"{name}.lora_down.weight": np.ones((2, width), "f2"), f"{name}.lora_up.weight": np.ones((320, 2), "f2")}
    )
    report = inspect(data, "x")
    assert (report.family, report.title) == (family, title)
    module = name.removeprefix("lora_unet_")
    other = {module: (320, 2048 if width != 2048 else 768)}
    assert "it was made for" in inspect(data, "x", other).refusal


def test_a_partial_match_is_an_error_until_it_is_asked_for_and_no_match_always_is(zoo: Tiny) -> None:
    file = written(zoo, KOHYA, "LoRA")
    unet_only, nothing = Rack(zoo.models["unet"]), {"conv_in": (1, 1)}
    report = inspect(file.data, "x", unet_only.shapes)
    assert "4 of its 7 layers do not exist there" in report.refusal
    assert (report.matched, len(report.unmatched)) == (3, 12)
    assert all(key.startswith("lora_te") for key in report.unmatched)
    assert inspect(file.data, "x", unet_only.shapes, partial=True).refusal == ""
    assert "7 of its 7" in inspect(file.data, "x", nothing, partial=True).refusal
    changes = deltas(read(file.data, "x"))
    with pytest.raises(WrongBase, match="4 of its 7"):
        unet_only.check("x", "tiny", changes)
    unet_only.check("x", "tiny", changes, partial=True)
    before = zoo.models["unet"].state_dict()
    held = {name: tensor.clone() for name, tensor in before.items()}
    with unet_only.stacked(blend([(changes, 1.0)])):
        moved = [
            name for name, tensor in zoo.models["unet"].state_dict().items() if not torch.equal(tensor, held[name])
        ]
    assert len(moved) == 3


def test_half_precision_is_rounded_once() -> None:
    """W0 and the whole sum meet in float32, so that the live weight is the nearest bfloat16 to the formula's."""
    half = tiny("sdxl")
    for model in half.models.values():
        model.to(torch.bfloat16)
    file = written(half, KOHYA, "LoHa")
    wanted = {key: half.weight(*key) + change for key, change in file.means(half).items()}
    with shelf(half).stacked(blend([(deltas(read(file.data, "x")), 1.0)])):
        for key, weight in wanted.items():
            nearest = torch.from_numpy(weight).float().bfloat16().double().numpy()
            live = half.weight(*key)
            assert (live == nearest).mean() > 0.99  # float32's own rounding may tip a tie
            np.testing.assert_allclose(live, nearest, rtol=2**-7)


@pytest.mark.parametrize(
    ("tensors", "family", "vectors"),
    [
        ({"emb_params": (4, 768)}, "sd", 4),
        ({"emb_params": (768,)}, "sd", 1),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "sdxl", 2),
    ],
)
def test_an_embedding_is_read_and_reported_and_no_lora(
    tensors: dict[str, tuple[int, ...]], family: str, vectors: int
) -> None:
    data = save({key: np.ones(shape, "f2") for key, shape in tensors.items()})
    report = inspect(data, "x")
    assert (report.what, report.family, report.vectors) == ("embedding", family, vectors)
    held = read_embedding(data, "x")
    assert held is not None
    assert {v.shape[0] for v in held.vectors.values()} == {vectors}
    with pytest.raises(BadLoraFile, match="embedding and no LoRA"):
        read(data, "x")


@pytest.mark.parametrize(
    "tensors", [{"emb_params": (76, 8)}, {"emb_params": (2, 8), "other": (2, 8)}, {"clip_l": (2, 8), "clip_g": (3, 8)}]
)
def test_an_odd_embedding_is_refused(tensors: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(BadLoraFile):
        inspect(save({key: np.ones(shape, "f2") for key, shape in tensors.items()}), "x")


# FLUX.1's fused layers as Black Forest Labs has them → diffusers' layers, rows in order.
FLUX = {
    "double_blocks.0.img_attn.qkv": [f"transformer_blocks.0.attn.to_{x}" for x in "qkv"],
    "double_blocks.0.txt_attn.qkv": [f"transformer_blocks.0.attn.add_{x}_proj" for x in "qkv"],
    "double_blocks.0.img_attn.proj": ["transformer_blocks.0.attn.to_out.0"],
    "double_blocks.0.txt_attn.proj": ["transformer_blocks.0.attn.to_add_out"],
    "double_blocks.0.img_mlp.0": ["transformer_blocks.0.ff.net.0.proj"],
    "double_blocks.0.txt_mlp.2": ["transformer_blocks.0.ff_context.net.2"],
    "double_blocks.0.img_mod.lin": ["transformer_blocks.0.norm1.linear"],
    "single_blocks.0.linear1": [
        *(f"single_transformer_blocks.0.attn.to_{x}" for x in "qkv"), "single_transformer_blocks.0.proj_mlp",
    ],
    "single_blocks.0.linear2": ["single_transformer_blocks.0.proj_out"],
    "single_blocks.0.modulation.lin": ["single_transformer_blocks.0.norm.linear"],
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
}  # fmt: skip


def flux_parts(kind: str, rng: np.random.Generator, high: int, wide: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A change of (high, wide) as the file writes it, by the end of its keys, and as a matrix."""
    a, b, c, d = (rng.normal(0, 0.3, shape).astype("f4") for shape in ((high, 2), (2, wide), (high, 2), (2, wide)))
    if kind == "LoRA":
        return {"lora_up.weight": a, "lora_down.weight": b}, a @ b
    if kind == "difference":
        return {"diff": a @ b}, a @ b
    if kind == "LoKr":
        left, right = b[:1, :2].copy(), rng.normal(0, 0.3, (high, wide // 2)).astype("f4")
        return {"lokr_w1": left, "lokr_w2": right}, np.kron(left, right)
    return {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}, (a @ b) * (c @ d)


@pytest.mark.parametrize("style", ["kohya", "BFL", "PEFT", "OneTrainer"])
@pytest.mark.parametrize("kind", ["LoRA", "LoHa", "LoKr", "difference"])
def test_a_file_for_flux_is_read_into_the_layers_of_diffusers_model(style: str, kind: str) -> None:
    torch.manual_seed(0)
    model = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=12, pooled_projection_dim=12, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    base = {name: tensor.clone() for name, tensor in model.named_parameters()}
    names = FLUX if style in ("kohya", "BFL") else {path: [path] for paths in FLUX.values() for path in paths}
    rng, tensors, wanted = np.random.default_rng(0), dict[str, np.ndarray](), dict[str, np.ndarray]()
    for path, targets in names.items():
        weights = [base[f"{target}.weight"] for target in targets]
        high, wide = sum(len(weight) for weight in weights), weights[0].shape[1]
        parts, change = flux_parts(kind, rng, high, wide)
        if style == "PEFT":
            parts = {k.replace("lora_up", "lora_B").replace("lora_down", "lora_A"): v for k, v in parts.items()}
        flat = path.replace(".", "_")
        start = {"kohya": f"lora_unet_{flat}", "BFL": f"diffusion_model.{path}", "PEFT": f"transformer.{path}"}
        tensors |= {f"{start.get(style, f'lora_transformer_{flat}')}.{part}": v for part, v in parts.items()}
        for target, weight in zip(targets, weights, strict=True):
            wanted[target], change = change[: len(weight)], change[len(weight) :]
        assert len(change) == 0
    data = save(tensors)
    report = inspect(data, "x", dict(named("", ((n, tuple(p.shape)) for n, p in model.named_parameters()))))
    assert (report.family, report.refusal, report.matched) == ("flux", "", len(wanted))
    rack = Rack(model)
    with rack.stacked(blend([(deltas(read(data, "x")), 1.0)])):
        for path, change in wanted.items():
            live = model.get_parameter(f"{path}.weight").detach().numpy()
            np.testing.assert_allclose(live, base[f"{path}.weight"].detach().numpy() + change, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.named_parameters())


def test_the_names_of_stable_diffusion_3_are_those_of_diffusers_model() -> None:
    model = SD3Transformer2DModel(
        sample_size=8, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=12,
        caption_projection_dim=16, pooled_projection_dim=12, out_channels=4, pos_embed_max_size=8,
    )  # fmt: skip
    modules = dict(named("", ((name, tuple(p.shape)) for name, p in model.named_parameters())))
    block = "lora_unet_joint_blocks_0"
    paths = {f"{block}_{side}_attn_qkv": (48, 16) for side in ("x_block", "context_block")}
    paths |= {f"{block}_{side}_attn_proj": (16, 16) for side in ("x_block", "context_block")}
    paths |= {f"{block}_{side}_mlp_fc1": (64, 16) for side in ("x_block", "context_block")}
    paths |= {f"{block}_{side}_mlp_fc2": (16, 64) for side in ("x_block", "context_block")}
    data = save({f"{path}.diff": np.ones(shape, "f4") for path, shape in paths.items()})
    report = inspect(data, "x", modules)
    assert (report.matched, report.refusal) == (12, "")


def test_fused_rows_that_cannot_be_shared_out_are_refused() -> None:
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    data = save({f"{name}.lora_down.weight": np.ones((2, 8), "f4"), f"{name}.lora_up.weight": np.ones((25, 2), "f4")})
    with pytest.raises(BadLoraFile, match="25 rows"):
        read(data, "x")


def test_an_encoder_in_open_clips_names_is_read_with_its_joined_projection_split() -> None:
    name = "lora_te2_transformer_resblocks_3"
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(12, 2)).astype("f4"), rng.normal(size=(2, 4)).astype("f4")
    tensors = {f"{name}_attn_in_proj.lora_up.weight": up, f"{name}_attn_in_proj.lora_down.weight": down}
    tensors |= {f"{name}_mlp_c_fc.lora_up.weight": up, f"{name}_mlp_c_fc.lora_down.weight": down}
    layers = read(save(tensors), "x").layers
    head = "text_encoder_2.encoder_layers_3"
    for i, x in enumerate("qkv"):
        found = layers[f"{head}_self_attn_{x}_proj"].delta()
        np.testing.assert_allclose(found, up[4 * i : 4 * i + 4] @ down, rtol=1e-6)
    np.testing.assert_allclose(layers[f"{head}_mlp_fc1"].delta(), up @ down, rtol=1e-6)

"""Textual inversions in use: what plain diffusers encodes with them, and what it does not do: weights, long prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.numpy import save
from safetensors.torch import save_file

from engine import bases, exchange
from engine.catalog import Catalog, LoraCard
from engine.diffusion.families import Conditioning
from engine.diffusion.prompts import Word, pieces
from engine.diffusion.resident import Resident
from engine.errors import BadLoraFile, Invalid, WrongBase
from engine.exchange import Wish
from engine.jobs import Drawn
from engine.lora.read import read, read_embedding
from engine.plans import EmbeddingRef
from engine.prompts import LITERAL, MARKED, Prompt
from engine.recipes import plan_from
from engine.runners import Runners
from tests.engine.studio import image_plan, pixels, result
from tests.engine.test_render import drawn

N = 3
Files = Callable[..., bytes]
rng = np.random.default_rng(1)
ONE, TWO = (rng.normal(size=(N, 16)).astype("f4") for _ in range(2))


def file_for(base: str) -> bytes:
    return save({"clip_l": ONE, "clip_g": TWO} if base == "tiny-sdxl" else {"emb_params": ONE})


def ref(trigger: str = "mytok") -> EmbeddingRef:
    return EmbeddingRef("my-tok", "0" * 64, trigger)


def said(resident: Resident, text: str, data: bytes, trigger: str = "mytok", syntax: int = MARKED) -> Conditioning:
    with resident.speaking([ref(trigger)], lambda _: data):
        return resident.texts([Prompt(text, syntax)])[0]


def plain_diffusers(resident: Resident, text: str, token: str, tmp_path: Path) -> tuple[torch.Tensor, Any]:
    """Its own pipeline, with `load_textual_inversion`."""
    if resident.base.name != "tiny-sdxl":
        pipe: Any = StableDiffusionPipeline.from_pretrained(resident.base.folder, safety_checker=None)
        save_file({"emb_params": torch.from_numpy(ONE)}, tmp_path / "x.safetensors")
        pipe.load_textual_inversion(tmp_path / "x.safetensors", token=token)
    else:
        pipe = StableDiffusionXLPipeline.from_pretrained(resident.base.folder)
        for rows, tokenizer, encoder in (
            (ONE, pipe.tokenizer, pipe.text_encoder),
            (TWO, pipe.tokenizer_2, pipe.text_encoder_2),
        ):
            pipe.load_textual_inversion(
                {token: torch.from_numpy(rows)}, token=token, tokenizer=tokenizer, text_encoder=encoder
            )
    with torch.inference_mode():
        found = pipe.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    return found[0], found[2] if resident.base.name == "tiny-sdxl" else None


@pytest.mark.parametrize("text", ["a photo of mytok", "mytok, by night", "a mytok and a mytok cat"])
def test_it_encodes_what_plain_diffusers_does(resident: Resident, base_name: str, text: str, tmp_path: Path) -> None:
    tokens, pooled = plain_diffusers(resident, text, "mytok", tmp_path)
    found = said(resident, text, file_for(base_name))
    torch.testing.assert_close(found.tokens, tokens, rtol=1e-5, atol=1e-5)
    if pooled is not None:
        assert found.pooled is not None
        torch.testing.assert_close(found.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_in_any_case_as_a_word_of_its_own_and_nowhere_else(resident: Resident, base_name: str) -> None:
    data = file_for(base_name)
    assert torch.equal(said(resident, "a MyTok", data).tokens, said(resident, "a mytok", data).tokens)
    with torch.inference_mode():
        for text in ("a mytoken", "a tok"):
            assert torch.equal(said(resident, text, data).tokens, resident.texts([Prompt(text, MARKED)])[0].tokens)
    plain = resident.texts([Prompt("a mytok", MARKED)])[0]  # after the block it is a word like others
    assert not torch.equal(said(resident, "a mytok", data).tokens, plain.tokens)


def test_a_weight_moves_its_places_alone(resident: Resident, base_name: str) -> None:
    data = file_for(base_name)
    one, two = (said(resident, text, data).tokens[0] for text in ("a mytok b", "a (mytok:1.5) b"))
    empty = resident.texts([Prompt("", MARKED)])[0].tokens[0]
    places = range(2, 2 + N)  # after the begin mark and the letter
    for i in range(77):
        wanted = empty[i] + 1.5 * (one[i] - empty[i]) if i in places else one[i]
        torch.testing.assert_close(two[i], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("before", range(70, 76))
@pytest.mark.parametrize("syntax", [LITERAL, MARKED])
def test_it_is_never_split_across_pieces(resident: Resident, before: int, syntax: int) -> None:
    word = Word("mytok", "0", (torch.zeros(N, 16), torch.zeros(N, 16)))
    text = " ".join("x" * before) + " mytok y"
    found = pieces(resident.parts.tokenizers[0], Prompt(text, syntax), [word])
    with_vectors = [[i for i in piece.ids if i < 0] for piece in found]
    assert [row for row in with_vectors if row] == [[-1, -2, -3]]
    assert sum(len(piece.ids) for piece in found) == before + N + 1
    assert all(len(piece.ids) <= 75 for piece in found)


def test_two_words_have_their_own_vectors(resident: Resident) -> None:
    words = [Word("aa", "0", (torch.zeros(2, 16),)), Word("aa-b", "1", (torch.zeros(1, 16),))]
    (found,) = pieces(resident.parts.tokenizers[0], Prompt("aa-b aa"), words)
    assert found.ids == (-3, -1, -2)


def test_letters_that_only_match_in_another_case_are_no_fault(resident: Resident) -> None:
    word = Word("sks", "0", (torch.zeros(1, 16),))
    (found,) = pieces(resident.parts.tokenizers[0], Prompt("\u017fk\u017f"), [word])  # ſ is s, to a reader of any case
    assert found.ids == (-1,)


# From a file to a picture


def brought(catalog: Catalog, home: Path, data: bytes, label: str = "Easy.safetensors", **wish: Any) -> LoraCard:
    arrival = exchange.arrived(data, label, None, None, Wish(**wish))
    base = exchange.base_for(arrival, bases.find("tiny-sd", home), home)
    return exchange.take_in(arrival, base, catalog)


@pytest.mark.parametrize(
    ("tensors", "base", "trigger"),
    [
        ({"emb_params": ONE}, "tiny-sd", "Easy"),
        ({"clip_l": ONE, "clip_g": TWO}, "tiny-sdxl", "Easy"),
        ({"<cat-toy>": ONE[0]}, "tiny-sd", "<cat-toy>"),
        ({"<cat-toy>": ONE}, "tiny-sd", "<cat-toy>"),
    ],
)
def test_a_file_becomes_an_entry_of_its_own_sort(
    catalog: Catalog, tiny_home: Path, tensors: dict[str, Any], base: str, trigger: str
) -> None:
    card = brought(catalog, tiny_home, save(tensors))
    count = 1 if next(iter(tensors.values())).ndim == 1 else N
    assert (card.what, card.vectors, card.base, card.trigger, card.name) == ("embedding", count, base, trigger, "easy")
    assert (card.folder / "weights.safetensors").read_bytes() == save(tensors)
    assert catalog.list() == ()
    assert catalog.entries() == catalog.embeddings() == (card,)
    with pytest.raises(Invalid, match="is an embedding and no LoRA"):
        catalog.get("easy")
    on = catalog.on(bases.find(base, tiny_home))
    assert on.spoken(f"a cat, {trigger.upper()}.", "") == (EmbeddingRef("easy", card.sha256, trigger),)
    assert on.spoken("easygoing", "") == ()


def test_it_is_refused_where_its_vectors_do_not_fit(catalog: Catalog, tiny_home: Path) -> None:
    with pytest.raises(WrongBase, match="768 wide"):
        brought(catalog, tiny_home, save({"emb_params": np.ones((2, 768), "f4")}))
    with pytest.raises(WrongBase, match="16 and 16"):
        brought(catalog, tiny_home, save({"emb_params": ONE}), base="tiny-sdxl")
    assert catalog.entries() == ()


def test_a_word_that_calls_something_else_already_is_refused(catalog: Catalog, tiny_home: Path) -> None:
    brought(catalog, tiny_home, save({"emb_params": ONE}))
    with pytest.raises(Invalid, match="that of easy already"):
        brought(catalog, tiny_home, save({"emb_params": TWO}), name="other", trigger="EASY")
    assert brought(catalog, tiny_home, save({"emb_params": TWO}), name="other", trigger="another").trigger == "another"


@pytest.mark.parametrize("base_name", ["tiny-sd", "tiny-sdxl"])
def test_a_picture_is_drawn_with_it_and_again_from_its_recipe(
    runners: Runners, catalog: Catalog, tiny_home: Path, base_name: str
) -> None:
    card = brought(catalog, tiny_home, file_for(base_name), "Easy.safetensors", licence="CC-BY-NC-4.0")
    spoken = catalog.spoken("a cat, easy", "")
    plan = image_plan(base_name, prompt="a cat, easy", syntax=MARKED, embeddings=spoken)
    made = result(runners.run(plan))
    assert isinstance(made, Drawn)
    recipe = made.pictures[0].recipe
    assert recipe["embeddings"] == [{"name": "easy", "trigger": "Easy", "sha256": card.sha256}]
    assert (recipe["licences"]["easy"], recipe["commercial"]) == ("CC-BY-NC-4.0", False)
    again = plan_from(recipe, lambda _: b"")
    assert pixels(drawn(runners, again)[0]) == pixels(made.pictures[0].png)
    assert pixels(drawn(runners, image_plan(base_name, prompt="a cat, easy", syntax=MARKED))[0]) != pixels(
        made.pictures[0].png
    )


def test_one_for_another_family_is_refused_before_anything_loads(
    runners: Runners, catalog: Catalog, tiny_home: Path
) -> None:
    brought(catalog, tiny_home, save({"emb_params": ONE}))
    plan = image_plan("tiny-sdxl", prompt="easy", embeddings=catalog.spoken("easy"))
    with pytest.raises(Invalid, match="embedding easy"):
        next(runners.run(plan))
    assert catalog.on(bases.find("tiny-sdxl", tiny_home)).spoken("easy") == ()


def test_a_lora_is_no_embedding_and_a_key_that_is_a_path_is_none() -> None:
    for data in (save({"emb_params": ONE}), save({"sks": ONE})):
        with pytest.raises(BadLoraFile, match="no LoRA"):
            read(data, "x")
    for tensors in ({"unet.conv_in": ONE}, {"a": ONE, "b": ONE}, {"sks": np.ones((1, 2, 3), "f4")}):
        with pytest.raises(BadLoraFile):
            read_embedding(save(tensors), "x")

"""What the base reads of a prompt: re-derived here from the encoders, without our pieces."""

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

from engine import bases, recipes
from engine.diffusion.families import Conditioning
from engine.diffusion.prompts import BACK, MOST, pieces
from engine.diffusion.render import Brush, draw
from engine.diffusion.resident import Resident
from engine.errors import Invalid
from engine.jobs import Drawn
from engine.plans import ImagePlan
from engine.prompts import LITERAL, MARKED, Prompt
from engine.recipes import Recipe, plan_from
from engine.runners import Runners
from tests.engine.studio import image_plan, pixels, result

CAT = "a cat, "  # five tokens of the tiny tokenizer, which has one for each letter
SYNTAXES = (LITERAL, MARKED)


def read(resident: Resident, text: str, syntax: int = MARKED) -> Conditioning:
    return resident.texts([Prompt(text, syntax)])[0]


def rows(resident: Resident, pieces_of_ids: list[list[int]]) -> Tensor:
    """(1, 77·n, d): each piece of ids alone through each encoder, as plain diffusers frames one."""
    is_xl = len(resident.parts.encoders) == 2
    found: list[Tensor] = []
    for ids in pieces_of_ids:
        each: list[Tensor] = []
        for tokenizer, encoder in zip(resident.parts.tokenizers, resident.parts.encoders, strict=True):
            end = tokenizer.eos_token_id
            framed = torch.tensor([[tokenizer.bos_token_id, *ids, end] + [end] * (75 - len(ids))])
            with torch.inference_mode():
                out: Any = encoder(framed, output_hidden_states=True)
            each.append(out.hidden_states[-2] if is_xl else out.last_hidden_state)
        found.append(torch.cat(each, -1))
    return torch.cat(found, 1)


def ids_of(resident: Resident, text: str) -> list[int]:
    return resident.parts.tokenizers[0](text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("text", ["a cat", "", "a" * 75, CAT * 15, "a red mug, on a podium. 3/4 view - teal!"])
def test_one_piece_without_marks_is_bit_for_bit_what_plain_diffusers_encodes(
    resident: Resident, base_name: str, text: str, syntax: int
) -> None:
    own = StableDiffusionXLPipeline if base_name == "tiny-sdxl" else StableDiffusionPipeline
    more = {} if base_name == "tiny-sdxl" else {"safety_checker": None}
    pipe = own.from_pretrained(resident.base.folder, **more)
    with torch.inference_mode():
        wanted = pipe.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    ours = read(resident, text, syntax)
    assert torch.equal(ours.tokens, wanted[0])
    assert ours.pooled is None or torch.equal(ours.pooled, wanted[2])


def test_pocket_reads_a_prompt_without_marks_as_it_always_did() -> None:
    pocket = Resident(bases.find("pocket"), torch.device("cpu"), torch.float32)
    tokenizer, encoder = pocket.parts.tokenizers[0], pocket.parts.encoders[0]
    for text in ("a red mug on a podium", "zqx crab, teal background - flat vector!", ""):
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        with torch.inference_mode():
            wanted = encoder(ids)[0]
        for syntax in SYNTAXES:
            assert torch.equal(read(pocket, text, syntax).tokens, wanted)


def test_a_long_prompt_is_its_pieces_side_by_side(resident: Resident) -> None:
    text = CAT * 40 + "zqx"  # 203 tokens
    ids = ids_of(resident, text)
    ours = read(resident, text)
    assert len(ids) == 203
    torch.testing.assert_close(ours.tokens, rows(resident, [ids[:75], ids[75:150], ids[150:]]), rtol=1e-5, atol=1e-5)
    if ours.pooled is not None:
        first = read(resident, CAT * 15).pooled
        assert first is not None
        torch.testing.assert_close(ours.pooled, first)


def test_a_trigger_at_token_120_changes_the_picture_which_plain_diffusers_cuts_off(
    resident: Resident, base_name: str
) -> None:
    without = CAT * 24
    with_trigger = without + "zqx"
    assert len(ids_of(resident, without)) == 120
    ours = [
        list(draw(resident, Brush(text, "", 7, 32, 32, 2, 3.0, "dpm++", syntax=MARKED)))[-1].latents
        for text in (without, with_trigger)
    ]
    assert not torch.equal(*ours)
    own = StableDiffusionXLPipeline if base_name == "tiny-sdxl" else StableDiffusionPipeline
    more = {} if base_name == "tiny-sdxl" else {"safety_checker": None}
    pipe = own.from_pretrained(resident.base.folder, **more)
    pipe.set_progress_bar_config(disable=True)
    theirs = [
        pipe(text, num_inference_steps=2, height=32, width=32, output_type="latent",
             generator=torch.Generator().manual_seed(7)).images
        for text in (without, with_trigger)
    ]  # fmt: skip
    assert torch.equal(*theirs)


def test_prompt_and_negative_are_of_one_length_whichever_is_longer(resident: Resident) -> None:
    for texts in ((CAT * 40, ""), ("", CAT * 40), ("a BREAK b BREAK c", CAT * 20)):
        one, other = resident.texts([Prompt(text, MARKED) for text in texts])
        assert one.tokens.shape == other.tokens.shape
        assert one.tokens.shape[1] == 3 * 77
    short = resident.texts([Prompt("a cat", MARKED), Prompt(CAT * 40, MARKED)])[0]
    torch.testing.assert_close(short.tokens, rows(resident, [ids_of(resident, "a cat"), [], []]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("base_name", ["tiny-sd"])
@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("a" * 75, [75]),
        ("a" * 76, [75, 1]),  # one word of 76 tokens: it must be cut
        ("a " * 75, [75]),
        ("a " * 76, [75, 1]),
        ("aaa " * 26, [75, 3]),
        ("a " + "bbb " * 26, [73, 6]),  # not within a word
        ("a " * 60 + ", " + "bbb " * 10, [61, 30]),  # at a comma near the end
        ("a " * (74 - BACK) + ", " + "b " * 30, [75, 10]),  # not at one farther from it
        ("a " * (75 - BACK) + ", " + "bbb " * 10, [76 - BACK, 30]),
        ("a " * 74 + ", b", [75, 1]),
        ("a " * 75 + ", b", [75, 2]),
        ("a BREAK b", [1, 1]),
        ("a " * 76 + "BREAK b", [75, 1, 1]),
    ],
)
def test_where_pieces_end(resident: Resident, text: str, lengths: list[int]) -> None:
    found = pieces(resident.parts.tokenizers[0], Prompt(text, MARKED))
    assert [len(piece.ids) for piece in found] == lengths
    whole = [i for piece in found for i in piece.ids]
    assert whole == ids_of(resident, text.replace("BREAK", ""))


@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_a_trigger_is_in_one_piece_wherever_it_stands(resident: Resident) -> None:
    trigger = ids_of(resident, "zqxzqx")
    for before in range(60, 85):
        found = pieces(resident.parts.tokenizers[0], Prompt("a " * before + "zqxzqx b, c", MARKED))
        assert any(str(trigger)[1:-1] in str(list(piece.ids)) for piece in found)


@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_more_pieces_than_there_may_be_are_refused_in_words(resident: Resident) -> None:
    read(resident, " BREAK ".join("a" * MOST))
    with pytest.raises(Invalid, match="33 pieces") as refused:
        read(resident, " BREAK ".join("a" * (MOST + 1)))
    assert "Shorten it" in refused.value.hint
    read(resident, "a " * 75 * (MOST + 1), LITERAL)  # a picture that was drawn so is drawn so again


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.3, 4.0])
def test_a_weight_moves_its_own_tokens_away_from_those_of_the_empty_text(resident: Resident, weight: float) -> None:
    """e + w (h − e) at the word, in float64, and everything else as it was."""
    plain = rows(resident, [ids_of(resident, "a red cat")]).double()
    nothing = rows(resident, [[]]).double()
    wanted = plain.clone()
    where = slice(2, 5)  # after the begin mark and “a”: r, e, d
    wanted[:, where] = nothing[:, where] + weight * (plain[:, where] - nothing[:, where])
    ours = read(resident, f"a (red:{weight}) cat").tokens
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=1e-5)
    others = [i for i in range(77) if not 2 <= i < 5]
    assert torch.equal(ours[:, others], plain[:, others].float())


def test_a_weight_of_one_and_balanced_brackets_change_no_bit(resident: Resident) -> None:
    plain = read(resident, "a red cat")
    for text in ("a (red:1) cat", "a ([red]) cat", "((a [[red]] cat:1):1.0)".replace("[[red]]", "red")):
        assert torch.equal(read(resident, text).tokens, plain.tokens)


def test_weights_hold_in_the_second_piece_and_leave_the_pooled_text(resident: Resident) -> None:
    text = CAT * 15 + "a (red:1.5) cat"
    plain, ours = read(resident, CAT * 15 + "a red cat"), read(resident, text)
    differs = (ours.tokens != plain.tokens).any(-1)[0].nonzero().flatten().tolist()
    assert differs == [77 + 2, 77 + 3, 77 + 4]
    assert ours.pooled is None or plain.pooled is None or torch.equal(ours.pooled, plain.pooled)


@pytest.mark.parametrize("base_name", ["tiny-sd"])
def test_a_recipe_of_before_the_marks_is_read_as_it_was(resident: Resident) -> None:
    """Its brackets are characters, and its pieces have 75 tokens each, in the middle of a word or not."""
    text = "a (red:1.4) [cat] BREAK " + "bbb, " * 30
    ids = ids_of(resident, text)
    wanted = rows(resident, [ids[i : i + 75] for i in range(0, len(ids), 75)])
    old = plan_from(old_recipe(text), {}.__getitem__)
    assert (old.syntax, old.prompt) == (LITERAL, text)
    torch.testing.assert_close(read(resident, old.prompt, old.syntax).tokens, wanted, rtol=1e-5, atol=1e-5)
    new: ImagePlan = image_plan("tiny-sd", prompt="a (red:1.4) cat", syntax=MARKED)
    assert new.syntax == MARKED


def old_recipe(prompt: str) -> dict[str, Any]:
    """As version 0.2.0 wrote it into a picture: without `syntax`."""
    recipe = Recipe(
        atelier="0.2.0", prompt=prompt, negative="", base="tiny-sd", base_sha256="0", family="sd", steps=4,
        guidance=3.0, sampler="dpm++", seed=3, width=32, height=32, loras=[], image=None, mask=None, strength=None,
        licences={}, commercial=True, made_with={},
    ).model_dump()  # fmt: skip
    del recipe["syntax"]
    return recipe


def test_a_new_recipe_draws_its_marks_again(runners: Runners, base_name: str) -> None:
    def picture(plan: ImagePlan) -> bytes:
        made = result(runners.run(plan))
        assert isinstance(made, Drawn)
        return made.pictures[0].png

    plan = image_plan(base_name, prompt="a (red:2) cat", negative="[dog]", steps=2, syntax=MARKED)
    first = picture(plan)
    again = recipes.plan_from(recipes.read_recipe(first, "x.png"), {}.__getitem__)
    assert again == plan
    assert pixels(picture(again)) == pixels(first)
    assert pixels(picture(image_plan(base_name, prompt="a (red:2) cat", negative="[dog]", steps=2))) != pixels(first)

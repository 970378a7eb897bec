"""A LoRA file dropped into a conversation is taken in, and one that is asked for is sent."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from bot.message import Attachment, Inbound
from bot.rules.sending import read_sending
from bot.uploads import is_lora
from engine.errors import NoVariant
from engine.store import Store
from tests.bot.talking import Talk, png
from tests.fakes.shelf import make_lexicon

KEY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def a_file(seed: int = 0, metadata: dict[str, str] | None = None) -> bytes:
    rng = np.random.default_rng(seed)
    tensors = {
        f"{KEY}.lora_down.weight": rng.normal(size=(4, 16)).astype("f2"),
        f"{KEY}.lora_up.weight": rng.normal(size=(8, 4)).astype("f2"),
        f"{KEY}.alpha": np.array(2.0, "f4"),
    }
    return save(tensors, metadata or {})


def dropped(*files: bytes, name: str = "Neon Night.safetensors") -> tuple[Attachment, ...]:
    return tuple(Attachment(name=name, data=data) for data in files)


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    return Talk(tmp_path)


async def test_a_dropped_file_is_asked_about_and_then_used(talk: Talk) -> None:
    data = a_file()
    reply = await talk.say("", files=dropped(data))
    assert "What is its trigger word?" in reply.text
    reply = await talk.say("nghtx")
    assert reply.text.startswith("What does “neon-night” show")
    reply = await talk.say("a style")
    assert reply.lora is not None
    card = talk.shelf.card("neon-night")
    assert (card.trigger, card.kind, card.base, card.weight) == ("nghtx", "style", "paper", 0.8)
    assert (card.folder / "weights.safetensors").read_bytes() == data
    await talk.say("a mug in neon-night style")
    assert talk.stack["neon-night"] == 0.8
    assert "nghtx" in talk.picture.prompt


@pytest.mark.parametrize(
    ("answer", "trigger"),
    [
        ("nghtx", "nghtx"),
        ("It's nghtx.", "nghtx"),
        ("the trigger word is neon night of the city", "neon night of the city"),
        ('"neon night of the city"', "neon night of the city"),
        ("trigger: NGHT_x", "NGHT_x"),
    ],
)
async def test_how_a_trigger_is_answered(talk: Talk, answer: str, trigger: str) -> None:
    await talk.say("it's a style", files=dropped(a_file()))
    await talk.say(answer)
    assert talk.shelf.card("neon-night").trigger == trigger


async def test_what_is_said_with_it_is_not_asked(talk: Talk) -> None:
    text = "this is a style, trigger zqx, call it Dusk"
    assert (await talk.say(text, files=dropped(a_file()))).lora is not None
    card = talk.shelf.card("dusk")
    assert (card.trigger, card.kind) == ("zqx", "style")


async def test_what_the_file_and_its_side_car_say_is_not_asked(talk: Talk) -> None:
    beside = json.dumps({"activation text": "qqx", "preferred weight": 0.6}).encode()
    files = (
        *dropped(a_file(metadata={"modelspec.tags": "product"})),
        Attachment(name="Neon Night.json", data=beside),
        Attachment(name="look.png", data=png(3)),
    )
    reply = await talk.say("", files=files)
    card = talk.shelf.card("neon-night")
    assert (card.trigger, card.kind, card.weight) == ("qqx", "product", 0.6)
    assert (card.folder / "preview.png").is_file()
    assert "licence unstated" in reply.text


@pytest.mark.parametrize("answer", ["none", "it has none", "no trigger", "It needs none."])
async def test_one_without_a_trigger_says_nothing_in_the_prompt(talk: Talk, answer: str) -> None:
    await talk.say("it's a character", files=dropped(a_file()))
    reply = await talk.say(answer)
    assert "no trigger" in reply.text
    await talk.say("neon-night on a podium")
    assert talk.stack["neon-night"] == 1.0
    assert "Neon night" in talk.picture.prompt


@pytest.mark.parametrize(
    "text", ["draw inky at the beach", "two pictures of Inky", "a banner for our sale, please draw it"]
)
async def test_something_else_that_is_said_then_is_no_trigger(talk: Talk, text: str) -> None:
    await talk.say("it's a character", files=dropped(a_file()))
    reply = await talk.say(text)
    assert reply.intent != "import"
    assert reply.lora is None


async def test_a_name_that_is_taken_is_asked_about_with_the_file_in_hand(talk: Talk) -> None:
    text = "a style, trigger aab, call it dusk"
    await talk.say(text, files=dropped(a_file()))
    again = await talk.say(text, files=dropped(a_file()))  # the very file, once more
    assert again.error is None
    reply = await talk.say(text, files=dropped(a_file(1)))
    assert reply.error is not None
    assert reply.error.code == "name_taken"
    assert "“replace it”" in reply.text
    reply = await talk.say("call it dawn")
    assert reply.lora is not None
    assert talk.shelf.card("dusk").sha256 != talk.shelf.card("dawn").sha256


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (dropped(a_file()[:-4]), "cut short"),
        (dropped(b"PK\x03\x04 not a LoRA"), "not a safetensors file"),
        (dropped(a_file(), a_file(1)), "it has 2 LoRA files"),
    ],
)
async def test_what_is_no_lora_is_refused_and_nothing_is_kept(
    talk: Talk, files: tuple[Attachment, ...], said: str
) -> None:
    before = talk.shelf.catalog.list()
    reply = await talk.say("a style, trigger zqx", files=files)
    assert reply.error is not None
    assert said in reply.error.message
    assert talk.shelf.catalog.list() == before


async def test_a_file_that_is_asked_for_is_sent_with_its_side_car(talk: Talk) -> None:
    data = a_file()
    await talk.say("a style, trigger zqx, call it Dusk", files=dropped(data))
    reply = await talk.say("send me the file of Dusk")
    assert [sent.name for sent in reply.files] == ["dusk.safetensors", "dusk.json"]
    lora, sidecar = (sent.file.read_bytes() for sent in reply.files)
    assert {key: one.tobytes() for key, one in load(lora).items()} == {k: v.tobytes() for k, v in load(data).items()}
    assert json.loads(sidecar)["activation text"] == "zqx"
    store = Store(talk.home)
    assert [store.export(sent.sha256) for sent in reply.files] == [sent.file for sent in reply.files]
    assert store.export("0" * 64) is None
    assert store.export("../inputs") is None
    assert (await talk.say("export dusk")).files == reply.files


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("send me the file of inky", "inky"),
        ("Could you please send me the LoRA file for Inky?", "inky"),
        ("export terracotta", "terracotta"),
        ("export our mug as a file please", "fold-mug"),
        ("download the trail pack", "trail-pack"),
        ("give me inky's safetensors", "inky"),
        ("can I have the terracotta file?", "terracotta"),
        ("send me the lora file of zorro", "zorro"),
        ("send me the file", None),
        ("send me the file of the picture", None),
        ("give me inky on a beach", None),
        ("save inky", None),
        ("send inky to the moon", None),
    ],
)
def test_how_a_file_is_asked_for(text: str, name: str | None, tmp_path: Path) -> None:
    asked = read_sending(text, make_lexicon(tmp_path))
    assert (asked and asked.about) == name


async def test_a_few_step_lora_is_asked_nothing_and_makes_quick_drafts(talk: Talk) -> None:
    reply = await talk.say("", files=dropped(a_file(), name="Hyper-SD15-8steps-lora.safetensors"))
    assert "It draws in 8 steps, guidance 1, sampler ddim trailing." in reply.text
    assert "Try it: “a quick draft of a mug”." in reply.text
    await talk.say("a quick draft of a mug")
    assert talk.stack["hyper-sd15-8steps-lora"] == 1.0
    assert (talk.picture.steps, talk.picture.sampler) == (8, "ddim trailing")


async def test_a_speed_lora_that_says_no_steps_is_told_by_the_person(talk: Talk) -> None:
    reply = await talk.say("a speed lora, no trigger", files=dropped(a_file(), name="swift.safetensors"))
    assert "how many steps it draws in is not said" in reply.text
    reply = await talk.say("a speed lora, no trigger, 6 steps", files=dropped(a_file(), name="swift.safetensors"))
    assert "It draws in 6 steps, guidance 1, sampler lcm." in reply.text


def test_what_a_lora_file_is_told_by() -> None:
    assert is_lora("x.bin", a_file())
    assert is_lora("x.SAFETENSORS", b"")
    assert not is_lora("x.png", png(1))
    assert not is_lora("x.json", b'{"activation text": "x"}')
    assert not is_lora("x.bin", b"\xff" * 8 + b"{")


def test_an_answer_that_was_stored_before_there_were_files_is_read() -> None:
    from bot.message import Reply

    assert Reply.model_validate({"text": "x"}).files == ()
    assert Inbound(id="1", thread="t", person="p", text="").press is None


# A part that does not fit; embeddings


NOWHERE = "lora_unet_down_blocks_3_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture
def partial(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> tuple[Attachment, ...]:
    """A file of which the base has one weight of two."""
    name = KEY.removeprefix("lora_unet_")
    monkeypatch.setattr("engine.exchange.modules_of", lambda _: {name: (8, 16)})
    tensors = load(a_file())
    tensors |= {key.replace(KEY, NOWHERE): value for key, value in tensors.items()}
    return dropped(save(tensors))


@pytest.mark.parametrize("yes", ["yes", "Yes please!", "ok, go ahead", "sure, take it in part"])
async def test_a_part_that_fits_is_taken_in_on_a_yes(talk: Talk, partial: tuple[Attachment, ...], yes: str) -> None:
    reply = await talk.say("this is a style, trigger zqx, call it Dusk", files=partial)
    assert "1 of the 2 weights" in reply.text
    assert "Say yes or no" in reply.text
    assert reply.lora is None
    reply = await talk.say(yes)
    assert reply.lora is not None
    assert "down_blocks_3" in reply.text
    assert (talk.shelf.card("dusk").left_out, talk.shelf.card("dusk").trigger) == (1, "zqx")


@pytest.mark.parametrize("no", ["no", "no, leave it", "don't"])
async def test_a_no_leaves_it_out_and_says_so(talk: Talk, partial: tuple[Attachment, ...], no: str) -> None:
    await talk.say("this is a style, trigger zqx, call it Dusk", files=partial)
    reply = await talk.say(no)
    assert reply.error is not None
    assert reply.error.code == "partial_match"
    assert "Nothing was taken in" in reply.text
    assert not [card for card in talk.shelf.catalog.entries() if card.name == "dusk"]
    assert (await talk.say("yes")).lora is not None  # a change of mind


async def test_a_lora_that_is_there_for_another_base_says_how_to_have_it_here(talk: Talk) -> None:
    talk.engine.breaks_with = NoVariant("inky", "paper", "it was trained for sdxl", True)
    reply = await talk.say("draw inky at the beach")
    assert "`atelier loras port inky --base paper`" in reply.text


async def test_a_new_request_is_no_answer_to_it(talk: Talk, partial: tuple[Attachment, ...]) -> None:
    await talk.say("this is a style, trigger zqx, call it Dusk", files=partial)
    await talk.say("draw a mug")
    assert talk.picture.prompt


async def test_a_dropped_embedding_is_taken_in_and_used_by_its_word(talk: Talk) -> None:
    data = save({"emb_params": np.ones((2, 16), "f4")})
    reply = await talk.say("", files=dropped(data, name="qqzemb.safetensors"))
    assert reply.lora is not None
    assert "embedding of 2 vectors" in reply.text
    await talk.say("a mug on a table, qqzemb")
    assert [one.name for one in talk.picture.embeddings] == ["qqzemb"]
    assert "qqzemb" in talk.picture.prompt
    reply = await talk.say("send me the lora file of qqzemb")
    assert [file.name for file in reply.files] == ["qqzemb.safetensors", "qqzemb.json"]

import subprocess
import sys
from pathlib import Path

import pytest

from bot.message import Attachment
from engine.errors import OutOfMemory, TrainingDiverged
from tests.bot.talking import SEED, Talk, pictures


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    return Talk(tmp_path)


async def test_a_picture_comes_with_its_stack_and_why(talk: Talk) -> None:
    reply = await talk.say("a product shot of our mug on a podium in terracotta")
    assert reply.intent == "product_shot"
    assert (
        "terracotta 0.8: warm clay and cream, the brand's own look; fold-mug 1: the product; crisp 0.5: quality."
        in reply.text
    )
    assert reply.pictures[0].file.is_file()
    assert reply.pictures[0].recipe["seed"] == SEED


async def test_a_brand_asset_says_our_brand(talk: Talk) -> None:
    reply = await talk.say("an on-brand Instagram post with a rose")
    assert "terracotta 0.8: our brand; crisp 0.5: quality." in reply.text


async def test_a_whole_conversation_changes_one_thing_after_the_other(talk: Talk) -> None:
    await talk.say("Inky at the beach, seed 42")
    await talk.say("same but on teal")
    assert (talk.picture.seed, talk.picture.prompt) == (42, "nkyx octopus, teal background")
    await talk.say("in our terracotta look")
    assert talk.stack == {"terracotta": 0.8, "inky": 1.0, "crisp": 0.5}
    await talk.say("another one")
    assert talk.picture.seed == SEED
    await talk.say("undo that")
    assert talk.picture.seed == 42
    reply = await talk.say("which LoRA did you use and why?")
    assert "terracotta 0.8" in reply.text
    assert reply.pictures == ()


async def test_twelve_pictures_become_a_lora_that_the_next_sentence_uses(talk: Talk) -> None:
    reply = await talk.say("train a character called Pip, it is a penguin", attached=12)
    assert reply.lora is not None
    assert (reply.lora.name, reply.lora.kind) == ("pip", "character")
    assert "Try it" in reply.text
    assert [r.progress.loss for r in talk.replies if r.progress and r.progress.step] == [0.5, 0.25, 0.5 / 3]
    reply = await talk.say("Pip at the beach in terracotta")
    assert talk.stack == {"terracotta": 0.8, "pip": 1.0, "crisp": 0.5}
    assert (
        f"{reply.pictures[0].recipe['prompt']}" == f"trrk style {talk.shelf.card('pip').trigger} penguin at the beach"
    )


async def test_a_question_of_ours_is_answered_in_the_next_message(talk: Talk) -> None:
    assert (await talk.say("", attached=12)).intent == "ask_back"
    assert (await talk.say("train them please")).text == "What shall the new LoRA be called?"
    assert (await talk.say("dunno, whatever you like")).text == "What shall the new LoRA be called?"
    assert (await talk.say("Momo")).lora is not None
    assert talk.training.name == "momo"
    assert (await talk.say("our mascot in the snow")).text == "Which one: Bolt or Inky?"
    await talk.say("Inky please")
    assert talk.picture.prompt == "nkyx octopus in the snow"
    await talk.say("an on-brand poster for the summer sale")
    await talk.say("an umbrella")
    assert talk.picture.prompt == "trrk style crsp an umbrella"


async def test_a_new_request_is_no_answer(talk: Talk) -> None:
    await talk.say("", attached=1)
    await talk.say("draw a fox")
    assert talk.picture.image is None


async def test_an_attached_picture_is_done_over_and_changed(talk: Talk) -> None:
    await talk.say("turn this picture of a dog into pixel art", attached=1)
    assert talk.picture.image is not None
    assert (talk.picture.prompt, talk.picture.strength) == ("a dog, pixel art style", 0.7)
    await talk.say("in midnight at strength 0.4", attached=1)
    assert (talk.stack["midnight"], talk.picture.strength) == (0.8, 0.4)
    reply = await talk.say("make the background teal", attached=2)
    assert talk.picture.prompt == "crsp teal background"
    assert "Only the first" in reply.text


async def test_an_attached_picture_of_ours_is_known_by_its_recipe(talk: Talk) -> None:
    first = await talk.say("a product shot of our mug on a podium in terracotta")
    file = Attachment(name="mug.png", data=first.pictures[0].file.read_bytes())
    reply = await talk.say("in midnight style", files=(file,))
    assert reply.intent == "style_transfer"
    assert talk.picture.prompt == "mdnt style fmgx mug on a podium"
    assert (talk.stack, talk.picture.strength) == ({"midnight": 0.8, "fold-mug": 1.0}, 0.8)
    assert reply.text.endswith("Say “stronger” or “weaker”.")
    await talk.say("make the background teal", files=(file,))
    assert talk.picture.prompt == "fmgx mug on a podium, teal background"


async def test_an_attached_picture_that_nobody_described_is_asked_about(talk: Talk) -> None:
    assert "say what is in it" in (await talk.say("in midnight style", attached=1)).text
    assert "say what is in it" not in (await talk.say("turn this photo of a mug into pixel art", attached=1)).text


async def test_people_and_photographs_are_named_as_what_is_not_drawn(talk: Talk) -> None:
    reply = await talk.say("a photorealistic portrait of our CEO holding a bunch of flowers")
    assert "Paper draws no people (“ceo”). Paper draws no photographs (“photorealistic”)." in reply.text
    assert reply.text.startswith("Here is my try at a CEO holding a bunch of flowers.\n")
    assert "Paper draws no photographs" in (await talk.say("make it look realistic")).text
    assert "Paper does not know “frobnitz” and “quux”." in (await talk.say("a frobnitz and a quux")).text


async def test_each_lora_is_answered_for_when_asked_why(talk: Talk) -> None:
    await talk.say("an on-brand banner with Inky")
    reply = await talk.say("why did you use those?")
    assert reply.text == (
        "terracotta 0.8: it is our brand's style, and you named the brand. inky 1: it is the character you named. "
        "crisp 0.5: it is added to every picture for clean edges; say “without crisp” to leave it out."
    )
    await talk.say("our mug in midnight")
    assert "midnight 0.8: you named it" in (await talk.say("why those?")).text


async def test_the_last_picture_answers_for_its_seeds_and_its_file(talk: Talk) -> None:
    assert "no picture" in (await talk.say("where is my picture saved?")).text
    reply = await talk.say("two versions of a fox, seed 42")
    assert "Seeds 42 to 43" in (await talk.say("what were the seeds?")).text
    where = (await talk.say("where is my picture saved?")).text
    assert all(str(shown.file) in where for shown in reply.pictures)


@pytest.mark.parametrize("text", ["thanks!", "thank you so much", "perfect, thanks", "Looks great!"])
async def test_thanks_are_not_met_with_hello(text: str, talk: Talk) -> None:
    await talk.say("a fox")
    assert "You are welcome" in (await talk.say(text)).text


@pytest.mark.parametrize(
    ("text", "lead"),
    [
        ("a product shot of our mug on a podium", "Here is the Fold mug on a podium."),
        ("Inky at the beach in terracotta", "Here is Inky at the beach."),
        ("a blue trail backpack on a table", "Here is the blue Trail pack backpack on a table."),
        ("two versions of a fox in watercolor", "Here are 2 pictures of a fox, watercolor style."),
        ("an apple on teal", "Here is an apple, teal background."),
    ],
)
async def test_a_picture_is_led_by_a_plain_sentence(text: str, lead: str, talk: Talk) -> None:
    first, stack, numbers = (await talk.say(text)).text.split("\n")
    assert first == lead
    assert "crisp 0.5: quality." in stack
    assert numbers.startswith("Seed")
    assert f"prompt “{talk.picture.prompt}”" in numbers


async def test_an_unknown_word_is_named_with_neighbours(talk: Talk) -> None:
    reply = await talk.say("a zeppelin at the beach")
    assert "No “zeppelin” on Paper; nearest: airplane, balloon, rocket." in reply.text
    assert reply.pictures


async def test_a_lora_makes_its_word_known(talk: Talk) -> None:
    assert "No “" not in (await talk.say("Inky at the beach")).text


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "invalid", "empty"),
        ("x" * 4_001, "invalid", "4,001 characters"),
        ("a fox <lora:nope:1>", "unknown_lora", "nope"),
        ("a fox in teracotta style", "unknown_lora", "Did you mean terracotta?"),
        ("a fox <lora:terracotta:nan>", "invalid", "out of range"),
        ("a fox 0x0", "invalid", "size"),
        ("a fox 100000x100000", "invalid", "size"),
        (f"a fox, seed 1{'0' * 400}", "invalid", "seed: a number of 401 digits is out of range"),
        (f"a fox in 1{'0' * 400} steps", "invalid", "steps: a number of 401 digits is out of range"),
        (f"a fox 1{'0' * 400}x256", "invalid", "size: a number of 401 digitsx256"),
        (f"1{'0' * 400} versions of a fox", "invalid", "and not a number of 401 digits"),
        ("a fox \udcff", "invalid", "not text in UTF-8"),
        ("five versions of a fox", "invalid", "1 to 4"),
        ("twelve pictures of a fox", "invalid", "and not 12"),
        ("make it blue", "invalid", "no picture"),
    ],
)
async def test_what_cannot_be_had_is_said_and_the_next_message_works(
    text: str, code: str, words: str, talk: Talk
) -> None:
    reply = await talk.say(text)
    assert reply.error is not None
    assert reply.error.code == code
    assert words in reply.text
    assert (await talk.say("a fox")).pictures


async def test_a_text_file_named_png_is_refused(talk: Talk) -> None:
    reply = await talk.say("in pixel art", files=(Attachment(name="a.png", data=b"hello"),))
    assert reply.error is not None
    assert "a.png" in reply.text


async def test_bad_and_repeated_training_pictures_are_left_out_and_named(talk: Talk) -> None:
    files = (*pictures(5), Attachment(name="zz.png", data=pictures(1)[0].data), Attachment(name="zzz.png", data=b"x"))
    reply = await talk.say("train these, name zed", files=files)
    assert reply.lora is not None
    assert "zz.png" in reply.text
    assert "zzz.png" in reply.text


async def test_a_taken_name_is_refused_before_training(talk: Talk) -> None:
    reply = await talk.say("train these, name inky", attached=12)
    assert reply.error is not None
    assert "inky" in reply.text
    assert talk.engine.plans == []


@pytest.mark.parametrize(("said", "name"), [("replace it", "pip"), ("yes, replace it please", "pip"), ("Momo", "momo")])
async def test_a_taken_name_is_answered_with_another_or_with_replace_it(said: str, name: str, talk: Talk) -> None:
    await talk.say("train a character called Pip, it is a penguin", attached=12)
    assert "“replace it”" in (await talk.say("train a character called Pip, it is a puffin", attached=5)).text
    assert (await talk.say(said)).lora is not None
    assert (talk.training.name, talk.training.word, len(talk.training.examples)) == (name, "puffin", 5)


async def test_pictures_that_were_missing_come_in_the_next_message(talk: Talk) -> None:
    assert (await talk.say("train a new lora called Pip, it is a penguin")).intent == "ask_back"
    assert (await talk.say("", attached=6)).lora is not None
    assert (talk.training.name, talk.training.word) == ("pip", "penguin")


async def test_no_room_says_what_to_do(talk: Talk) -> None:
    talk.engine.breaks_with = OutOfMemory("draw it")
    reply = await talk.say("a fox")
    assert reply.error is not None
    assert reply.error.hint in reply.text
    assert reply.error.incident is None


@pytest.mark.parametrize("fault", [ValueError("a secret detail"), TrainingDiverged(3)])
async def test_a_fault_of_ours_is_one_calm_sentence_with_an_incident(
    fault: Exception, talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    talk.engine.breaks_with = fault
    reply = await talk.say("a fox, very private")
    assert reply.error is not None
    assert reply.error.incident is not None
    assert reply.error.incident in reply.text
    assert reply.error.incident in caplog.text
    assert "secret" not in reply.text
    assert "very private" not in caplog.text
    talk.engine.breaks_with = None
    assert (await talk.say("a fox")).pictures


async def test_a_failed_change_leaves_the_last_picture_as_it_was(talk: Talk) -> None:
    await talk.say("a red mug, seed 42")
    talk.engine.breaks_with = ValueError()
    await talk.say("make it blue")
    talk.engine.breaks_with = None
    await talk.say("on a podium")
    assert talk.picture.prompt == "crsp a red mug on a podium"


async def test_threads_do_not_meet(talk: Talk) -> None:
    await talk.say("a fox", thread="one")
    assert (await talk.say("make it blue", thread="two")).error is not None


async def test_leaving_in_the_middle_ends_the_job(talk: Talk) -> None:
    from bot.message import Inbound

    replies = talk.assistant.answer(Inbound(id="1", thread="t", person="p", text="a fox"))
    await anext(replies)
    await replies.aclose()
    assert talk.engine.ended == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("which LoRAs are there?", "terracotta (style)"),
        ("what is inky?", "octopus"),
        ("what can you draw?", "pixel art"),
        ("can you draw zeppelins?", "No “zeppelins”"),
        ("can you draw foxes?", "Yes"),
        ("how do I train a style?", "4 to 30 pictures"),
        ("is terracotta free for commercial use?", "CC-BY-4.0"),
        ("which seed was that?", "no picture"),
        ("help", "Try"),
        ("hello", "Hello"),
        ("what is a LoRA?", "add-on"),
        ("what does a trigger word do?", "made-up word"),
        ("can you draw people?", "draws no people"),
    ],
)
async def test_questions_are_answered_from_what_there_is(text: str, words: str, talk: Talk) -> None:
    reply = await talk.say(text)
    assert reply.intent == "question"
    assert words in reply.text
    assert talk.engine.plans == []


def test_importing_the_assistant_brings_no_torch() -> None:
    code = "import sys, bot.assistant; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_caption_beside_the_picture_is_not_a_second_picture(talk: Talk) -> None:
    picture, caption = pictures(1)[0], Attachment(name="00.txt", data=b"a penguin")
    assert "Only the first" not in (await talk.say("draw it in terracotta style", files=(picture, caption))).text
    assert "Only the first" in (await talk.say("draw it in terracotta style", attached=2)).text


async def test_a_word_that_only_a_lora_knows_names_the_lora(talk: Talk) -> None:
    card = next(card for card in talk.shelf.of_kind("product") if talk.shelf.vocabulary.unknown(card.word))  # type: ignore[union-attr]
    reply = await talk.say(f"a giant {card.word} in the snow and a {card.word} beside it, no LoRAs")
    assert f"{card.title} is a {card.word}: say its name, and it is drawn." in reply.text

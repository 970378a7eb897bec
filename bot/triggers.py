"""From an order to the words that go to the base: the template of its genre, and each LoRA's trigger in it once.

A name stands in an order where its trigger goes; a LoRA that leaves the stack takes its trigger along.
"""

import re
from collections.abc import Iterable, Mapping

from bot.conversation import Order
from bot.prompts import filled, words
from bot.surgery import whole_word, with_articles
from engine.catalog import LoraCard
from engine.plans import Kind

SUBJECTS: tuple[Kind, ...] = ("subject", "character", "product")
PREPOSITION = re.compile(
    r"(?:on|in|at|under|inside|against|near|by|over|beneath|into|amid|before|with|underwater)\b", re.IGNORECASE
)


def prompt_of(order: Order, cards: Mapping[str, LoraCard]) -> str:
    """The words that go to the base: the template of the genre, each LoRA's trigger in it once.

    Beside a subject's LoRA the quality LoRA works by its weights alone.
    """
    scene, subject = order.scene, order.scene.subject
    used = [cards[chosen.name] for chosen in order.stack if chosen.weight]
    bound: dict[str, str] = {}
    for index, card in enumerate(card for card in used if card.kind in SUBJECTS):
        mark = f"\x00{index}\x00"  # so that one trigger is not looked for in another
        subject = _bind(subject, card, mark)
        bound[mark] = _phrase(card)
    subject = _unbind(subject, cards.values())
    for mark, phrase in bound.items():
        subject = re.sub(rf"(?:\b[Aa]n?\s+)?{mark}", phrase, subject)
    prompt = filled(
        order.genre,
        {"shown": shown_in(subject, scene.place), "subject": subject, "place": scene.place, "style": scene.style},
    )
    ahead = [
        _phrase(card)
        for card in used
        if card.kind not in SUBJECTS and card.trigger and not whole_word(card.trigger).search(prompt)
        if not (bound and card.kind == "quality")  # its word in front of a subject's trigger breaks the subject
    ]
    return with_articles(" ".join([*ahead, prompt]).strip()) or "a picture"


def words_of(prompt: str, cards: Iterable[LoraCard]) -> str:
    """The way back: a prompt without triggers, a subject's LoRA under its own name."""
    for card in cards:
        trigger = rf"(?<!\w){called(card)}(?: {re.escape(card.word)})?(?!\w)"
        prompt = re.sub(trigger, card.title if card.kind in SUBJECTS else "", prompt, flags=re.IGNORECASE)
    return " ".join(prompt.split())


def _phrase(card: LoraCard) -> str:
    """The trigger as training captions have it: with the class word that it is bound to."""
    return f"{card.trigger} {card.word}".strip() or card.title


def spoken(card: LoraCard) -> str:
    said = sorted({card.name, card.name.replace("-", " "), card.title, *card.aliases}, key=len, reverse=True)
    return "|".join(re.escape(name) for name in said)


def called(card: LoraCard) -> str:
    """Its trigger as a pattern; one without a trigger is called by none."""
    return re.escape(card.trigger) or "(?!)"


def _bind(subject: str, card: LoraCard, mark: str) -> str:
    """Put `mark` for the trigger: where the trigger stands, or the LoRA's name, or its class word, else in front."""
    at = r"(?<!\w)(?:our |my |the )?(?:{})(?!\w)"
    for said in (
        rf"{called(card)}(?: {re.escape(card.word)})?",
        spoken(card),
        re.escape(card.word) if card.word else r"(?!)",
    ):
        bound, count = re.subn(at.format(said), mark, subject, count=1, flags=re.IGNORECASE)
        if count:
            return bound
    anonymous = "|".join(words("character", "anonymous"))
    bound, count = re.subn(
        rf"(?<!\w)(?:our |my |the |an? )?(?:{anonymous})(?!\w)", mark, subject, count=1, flags=re.IGNORECASE
    )
    return bound if count and card.kind == "character" else f"{mark} {subject}".strip()


def _unbind(subject: str, cards: Iterable[LoraCard]) -> str:
    """The name of a LoRA that is out of the stack is a plain word for its class again."""
    for card in (card for card in cards if card.kind in SUBJECTS):
        plain = f"a {card.word}" if card.word else card.title
        subject = re.sub(rf"(?<!\w)(?:an? )?(?:{spoken(card)})(?!\w)", plain, subject, flags=re.IGNORECASE)
    return subject


def shown_in(subject: str, place: str) -> str:
    """Subject and place as one phrase: 'a mug on a podium', 'a mug, teal background'."""
    if not place:
        return subject
    return f"{subject} {place}".strip() if PREPOSITION.match(place) else f"{subject}, {place}".strip(", ")

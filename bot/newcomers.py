"""LoRA files in a conversation: one that is dropped is taken in, one that is asked for is sent."""

from contextlib import suppress
from pathlib import PurePath
from typing import NamedTuple

from bot.intent import AskBack
from bot.message import Attachment, Inbound
from bot.rules.lexicon import Lexicon
from bot.rules.sending import accepts_part, declines_part, name_said, says_no_trigger
from bot.rules.text import plain, tidy
from bot.rules.training import read_training
from bot.shelf import Shelf
from bot.uploads import check_picture, is_lora
from engine import exchange
from engine.catalog import LoraCard
from engine.errors import Invalid, NameTaken, PartialMatch, UnknownLora
from engine.exchange import Arrival, Wish
from engine.plans import LoraRef

ASK_TRIGGER = "“{name}” is a LoRA of {layers} layers, rank {rank}. What is its trigger word? Say “none” if it has none."
ASK_PARTIAL = "{said} Shall I take “{name}” in without them? Say yes or no."
ASK_KIND = "What does “{name}” show: a style, a character, a product, a subject, quality, or speed?"


class Parcel(NamedTuple):
    """A file to send."""

    name: str
    data: bytes


def brings_a_lora(message: Inbound) -> bool:
    return any(is_lora(file.name, file.data) for file in message.attachments)


def taken_in(message: Inbound, shelf: Shelf) -> AskBack | tuple[LoraCard, tuple[str, ...]]:
    """The card of the LoRA in the message, and what there is to say of it; or a question about what nobody said.

    The same file under its own name is not taken in twice: a message that is answered again finds it there. Raises
    `BadLoraFile`, `WrongBase`, `NameTaken`, `Invalid`.
    """
    arrival = _arrival(message, shelf)
    if arrival.trigger is None:  # an embedding has one
        question = ASK_TRIGGER.format(name=arrival.name, layers=len(arrival.file.layers), rank=arrival.file.rank)
        return AskBack(kind="ask_back", missing="trigger", question=question)
    if arrival.kind is None and arrival.embedding is None:
        return AskBack(kind="ask_back", missing="kind", question=ASK_KIND.format(name=arrival.name))
    base = exchange.base_for(arrival, shelf.base, shelf.home)
    try:
        card = exchange.take_in(arrival, base, shelf.catalog)
    except PartialMatch as error:
        if declines_part(tidy(plain(message.text))):
            raise
        question = ASK_PARTIAL.format(said=error.message, name=arrival.name)
        return AskBack(kind="ask_back", missing="partial", question=question)
    except NameTaken:
        with suppress(UnknownLora):
            card = shelf.catalog.entry(arrival.name)
            if card.sha256 == arrival.file.sha256:
                return card, ()
        raise
    elsewhere = () if base.name == shelf.base.name else (f"It is for the base {base.title}, which is not in use here.",)
    return card, (*arrival.told.notes, *exchange.omission(arrival, card, base), *elsewhere)


def _arrival(message: Inbound, shelf: Shelf) -> Arrival:
    files = [file for file in message.attachments if is_lora(file.name, file.data)]
    if len(files) > 1:
        raise Invalid("message", f"it has {len(files)} LoRA files", "Send one at a time.")
    said = tidy(plain(message.text))
    told = read_training(said, Lexicon.of(shelf.catalog.list(), shelf.vocabulary))
    wish = Wish(
        name=exchange.slug(name) if (name := name_said(said)) else None,
        kind=told.learns,
        trigger="" if says_no_trigger(said) else told.trigger,
        replace=told.replace,
        partial=accepts_part(said),
        steps=told.steps,
    )
    others = [file for file in message.attachments if file is not files[0]]
    return exchange.arrived(files[0].data, files[0].name, _sidecar(files[0], others), _preview(others), wish)


def _sidecar(lora: Attachment, others: list[Attachment]) -> bytes | None:
    name = PurePath(lora.name).with_suffix(".json").name.lower()
    return next((file.data for file in others if file.name.lower() == name), None)


def _preview(others: list[Attachment]) -> bytes | None:
    for file in others:
        with suppress(Invalid):
            return check_picture(file.data, file.name).data
    return None


def parcels(name: str, shelf: Shelf) -> tuple[LoraCard, tuple[Parcel, ...]]:
    """The file of a LoRA as other programs take it, and its side-car. Raises `UnknownLora` and what reading it does."""
    card = shelf.catalog.entry(name)
    written, sidecar = exchange.exported(card, shelf.catalog.weights(LoraRef(card.name, card.sha256)))
    return card, (Parcel(f"{card.name}.safetensors", written), Parcel(f"{card.name}.json", sidecar))

"""loras [list] · loras show NAME."""

from typing import Any

from bot.commands.terminal import Terminal
from bot.wiring import Studio
from engine.catalog import LoraCard

NONE_YET = "No LoRAs yet; `atelier train` makes one."


def card_facts(card: LoraCard) -> dict[str, Any]:
    """What `--json` says of a LoRA."""
    names = ("name", "folder", "trigger", "kind", "base", "rank", "sha256")
    return {name: getattr(card, name) for name in names} | {"folder": str(card.folder)}


def list_loras(studio: Studio, terminal: Terminal) -> None:
    cards = studio.catalog.list()
    columns = [(card.name, card.kind, card.trigger, card.base) for card in cards]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    lines = [
        "  ".join([*(text.ljust(width) for text, width in zip(texts, widths, strict=True)), card.summary]).rstrip()
        for card, texts in zip(cards, columns, strict=True)
    ]
    terminal.result({"loras": [card_facts(card) for card in cards]}, lines or [NONE_YET])


def show_lora(studio: Studio, name: str, terminal: Terminal) -> None:
    card = studio.catalog.get(name)
    lines = [f"{key:<11} {value}" for key, value in card.model_dump().items() if value not in (None, "", ())]
    terminal.result(card_facts(card), lines)

"""loras [list] · show NAME · inspect FILE · import FILE · export NAME · merge NAME:W… (port: see training)."""

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bot import tags
from bot.commands.files import check_target, write_file
from bot.commands.terminal import Terminal
from bot.uploads import check_picture
from bot.wiring import Studio
from engine import exchange
from engine.bases import Base
from engine.catalog import MAX_WEIGHTS, Catalog, LoraCard
from engine.errors import Invalid, UserError, WrongBase
from engine.exchange import Arrival, Wish
from engine.files import read_bounded
from engine.lora.report import inspect as inspect_file
from engine.lora.write import Dialect
from engine.plans import LoraRef, LoraStack

NONE_YET = "No LoRAs yet; `atelier train` makes one, `atelier loras import` takes one in."
MAX_PREVIEW = 20_000_000  # bytes
PREVIEWS = (".preview.png", ".png", ".jpg", ".jpeg", ".webp")
NOT_FOR_ALL = (
    "Its alpha is not its rank: a program that does not read lora_adapter_metadata draws it at another strength. "
    "--format kohya has its alphas where the others look."
)
NOT_FOR_DIFFUSERS = (
    "Its layers have different alphas, of which diffusers loses some when it reads kohya's names (0.42 does). For "
    "diffusers, export it with --format diffusers."
)
SHOWN = 200  # characters of a line of metadata


@dataclass(frozen=True, slots=True)
class Shipment:
    """The arguments of export."""

    name: str
    dialect: Dialect
    out: Path
    scrub: bool
    replace: bool


def card_facts(card: LoraCard) -> dict[str, Any]:
    """What `--json` says of a LoRA."""
    names = ("name", "folder", "trigger", "kind", "base", "rank", "sha256")
    return {name: getattr(card, name) for name in names} | {"folder": str(card.folder)}


def here(studio: Studio) -> Catalog:
    """The catalog as names mean it on the base in use."""
    try:
        return studio.catalog.on(studio.base())
    except UserError:  # a base that is not there is no reason not to show what is
        return studio.catalog


def sort(card: LoraCard) -> str:
    return card.what if card.what == "embedding" else card.kind


def list_loras(studio: Studio, terminal: Terminal) -> None:
    catalog = here(studio)
    cards = catalog.entries()
    of = {card.name: [one.base for one in catalog.variants(card.name)] for card in cards}
    columns = [(card.name, sort(card), card.trigger, ", ".join(of[card.name])) for card in cards]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    lines = [
        "  ".join([*(text.ljust(width) for text, width in zip(texts, widths, strict=True)), card.summary]).rstrip()
        for card, texts in zip(cards, columns, strict=True)
    ]
    shown = [card_facts(card) | {"what": card.what, "bases": of[card.name]} for card in cards]
    terminal.result({"loras": shown}, lines or [NONE_YET])


def show_lora(studio: Studio, name: str, terminal: Terminal) -> None:
    card = here(studio).entry(name)
    lines = [f"{key:<11} {value}" for key, value in card.model_dump().items() if value not in (None, "", ())]
    terminal.result(card_facts(card), lines)


async def inspect(studio: Studio, source: str, terminal: Terminal) -> None:
    """What a file is, without taking it in."""
    arrival = await fetched(source, Wish())
    facts = report(arrival, studio)
    for note in arrival.told.notes:
        terminal.note(note)
    said = {name: value for name, value in facts.items() if value not in (None, "", [], {}) and name != "metadata"}
    lines = [f"{name:<11} {_listed(value)}" for name, value in said.items()]
    terminal.result(facts, [*lines, *(f"  {key} = {text}" for key, text in facts["metadata"].items())])


def _listed(value: Any) -> str:
    many = cast(list[Any], value) if isinstance(value, list) else [value]
    return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in many)


def report(arrival: Arrival, studio: Studio) -> dict[str, Any]:
    """What `inspect` says: of the file, of what is told of it, and of the bases here that it fits."""
    file, told, seen = arrival.file, arrival.told, inspect_file(arrival.data, arrival.label)
    fitting = exchange.fitting_bases(arrival, studio.settings.home)
    return {
        "file": arrival.label,
        "what": seen.what,
        "size": len(arrival.data),
        "sha256": file.sha256,
        "dialect": ", ".join(seen.dialects),
        "family": seen.family or told.family,
        "made_for": told.base or file.metadata.get("ss_sd_model_name", "")[:SHOWN],
        "fits": [base.name for base in fitting],
        "layers": len(file.layers),
        "vectors": seen.vectors,
        "left_out": {base.name: missing for base in fitting if (missing := _missing(arrival, base))},
        "kinds": seen.kinds,
        "rank": [rank for rank in seen.ranks if rank],
        "alpha": list(seen.alphas),
        "norms": seen.norms,
        "title": told.title,
        "trigger": arrival.trigger or "" if arrival.embedding else told.trigger,
        "kind": told.kind,
        "weight": told.weight,
        "licence": told.licence or "unstated",
        "summary": told.summary,
        "metadata": {
            key: text[:SHOWN] for key in exchange.MATTERS if (text := file.metadata.get(key)) and text != "None"
        },
    }


def _missing(arrival: Arrival, base: Base) -> list[str]:
    """The weights that would be left out there."""
    try:
        return list(exchange.left_out(arrival, base))
    except WrongBase:
        return list(arrival.file.layers)


async def take_in(studio: Studio, source: str, wish: Wish, terminal: Terminal) -> None:
    """A file, or an https address, becomes a LoRA of the catalog."""
    if wish.name is not None:
        studio.catalog.check_name(wish.name, wish.replace)
    arrival = await fetched(source, wish)
    base = exchange.base_for(arrival, studio.base(), studio.settings.home)
    card = exchange.take_in(arrival, base, studio.catalog)
    notes = [*arrival.told.notes, *exchange.omission(arrival, card, base), *gaps(arrival, card)]
    for note in notes:
        terminal.note(note)
    by = f"--lora {card.name}:{card.weight:g}" if card.what == "lora" else f"atelier draw 'a mug, {card.trigger}'"
    terminal.note(f"{card.name} is here, for the base {card.base}. Try: {by}")
    terminal.result(card_facts(card) | {"notes": notes}, [str(card.folder)])


def gaps(arrival: Arrival, card: LoraCard) -> list[str]:
    """What neither the file nor the person said, as sentences."""
    return [
        *([f"It draws in {card.speed}: `--speed fast` takes it along."] if card.speed else []),
        *([] if card.trigger or card.speed else ["No trigger word is known; --trigger names one."]),
        *([] if arrival.kind or arrival.embedding else [f"Taken for a {card.kind}; --kind says what it is."]),
        *([] if card.licence != "unstated" else ["Its licence is not stated, so it does not count as commercial."]),
    ]


def send_out(studio: Studio, shipment: Shipment, terminal: Terminal) -> None:
    """The file, and AUTOMATIC1111's side-car beside it."""
    card = here(studio).entry(shipment.name)
    beside = shipment.out.with_suffix(".json")
    if shipment.out.suffix.lower() != ".safetensors":
        raise Invalid("--out", f"“{shipment.out.name}” does not end in .safetensors", "Other programs go by that.")
    for target in (shipment.out, beside):
        check_target(target)
        if target.exists() and not shipment.replace:
            raise Invalid("--out", f"there is a file {target} already", "Name another, or say --replace.")
    data = studio.catalog.weights(LoraRef(card.name, card.sha256))
    written, sidecar = exchange.exported(card, data, shipment.dialect, shipment.scrub)
    write_file(beside, sidecar)
    write_file(shipment.out, written)
    notes = warnings(shipment.dialect, card, data)
    for note in notes:
        terminal.note(note)
    facts = {
        "name": card.name,
        "format": shipment.dialect,
        "file": str(shipment.out),
        "sidecar": str(beside),
        "size": len(written),
        "sha256": hashlib.sha256(written).hexdigest(),
        "scrubbed": shipment.scrub,
        "notes": notes,
    }
    terminal.result(facts, [str(shipment.out), str(beside)])


def warnings(dialect: Dialect, card: LoraCard, data: bytes) -> list[str]:
    """Which programs will draw an exported file at another strength."""
    if dialect == "diffusers":
        return [NOT_FOR_ALL] if exchange.unlike_rank(card, data) else []
    return [NOT_FOR_DIFFUSERS] if exchange.has_many_alphas(card, data) else []


def merge(studio: Studio, said: Sequence[str], name: str, replace: bool, terminal: Terminal) -> None:
    """A stack saved as one LoRA."""
    wanted = [tags.read_option(text, "merge") for text in said]
    for text, (_, weights) in zip(said, wanted, strict=True):
        if len(weights) > 1:
            raise Invalid("merge", f"“{text}” has several weights", tags.HINT)
    catalog = here(studio)
    stack = LoraStack(tuple(catalog.ref(lora, *weights) for lora, weights in wanted))
    card, notes = exchange.merge(stack, name, catalog, replace)
    for note in notes:
        terminal.note(note)
    terminal.result(card_facts(card) | {"notes": list(notes)}, [str(card.folder)])


# What is read


async def fetched(source: str, wish: Wish) -> Arrival:
    """The file of that path or address, with what lies beside a path. Raises `Invalid`, `BadLoraFile`, `NoAnswer`."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        from bot.commands.download import download  # aiohttp takes a moment to import

        label, data = await download(source, MAX_WEIGHTS)
        return exchange.arrived(data, label, None, None, wish)
    data, path = _read(source)
    sidecar, preview = beside(path)
    return exchange.arrived(data, path.name, sidecar, preview, wish)


def _read(source: str) -> tuple[bytes, Path]:
    try:
        path = Path(source).expanduser()
        return read_bounded(path, MAX_WEIGHTS), path
    except (FileNotFoundError, RuntimeError):  # ~ with the name of no user
        raise Invalid(source, "there is no such file", "Check the path.") from None
    except ValueError as error:
        raise Invalid(source, str(error), "Name one .safetensors file.") from None
    except OSError as error:
        raise Invalid(source, f"it cannot be read ({error.strerror})", "Check who may read it.") from None


def beside(path: Path) -> tuple[bytes | None, bytes | None]:
    """The side-car and a preview picture of the same name; a link, or what is no picture, is not looked at."""
    sidecar = _neighbour(path.with_suffix(".json"), exchange.MAX_SIDECAR + 1)
    for suffix in PREVIEWS:
        if data := _neighbour(path.with_suffix(suffix), MAX_PREVIEW):
            with suppress(Invalid):
                return sidecar, check_picture(data, path.name).data
    return sidecar, None


def _neighbour(path: Path, most: int) -> bytes | None:
    """The file, or as much of it as is asked for; None for none, and for a link, which may lead anywhere."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return None

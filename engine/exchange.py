"""LoRA and embedding files from elsewhere become entries of the catalog, and entries become files for elsewhere.

What a file says of itself stands in its metadata (kohya's `ss_*`, Stability's `modelspec.*`, SimpleTuner's
`trained_words`, our own "atelier") and in AUTOMATIC1111's side-car, a JSON file of the same name beside it. All of it
is other people's text: it fills a card, is shown, and decides nothing else. A file itself goes into the catalog as it
came, byte for byte, so that its hash is the one that its maker published.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np

from engine import bases
from engine.bases import Base
from engine.bases.header import read_header
from engine.catalog import DEFAULT_WEIGHTS, Catalog, LoraCard
from engine.errors import Invalid, PartialMatch, WrongBase
from engine.files import read_bounded, reason
from engine.lora.changes import Factors
from engine.lora.container import MAX_HEADER
from engine.lora.dialects import named
from engine.lora.kinds import MAX_RANK
from engine.lora.read import ENCODERS, Embedding, LoraFile, read, read_any
from engine.lora.report import misfit, said_family, triggers
from engine.lora.write import IN_A_UNET, Dialect, is_in, network, relabelled, write
from engine.plans import KINDS, MAX_STEPS, MAX_TRIGGER, MAX_WEIGHT, Kind, LoraStack, check_range
from engine.sampling import FLOW_SAMPLERS, Speed, recognised, sampler_named, samplers_of

MAX_SIDECAR = 1_000_000  # bytes
MAX_CONFIG = 100_000  # bytes of a base's unet/config.json
SPEAKING = ("sd", "sdxl")  # families whose prompts may name embeddings
LONGEST = 1_000  # characters of a line that is kept
PERMISSIVE = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "bsd-3-clause")  # licences that allow commercial use
NETWORK = (
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
    "lora_adapter_metadata",
    "format",
)
MATTERS = (  # metadata that `inspect` shows
    "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args",
    "ss_output_name", "ss_sd_model_name", "ss_resolution", "ss_steps", "ss_epoch", "ss_num_train_images",
    "modelspec.title", "modelspec.author", "modelspec.date", "modelspec.architecture", "modelspec.resolution",
    "modelspec.license", "modelspec.trigger_phrase", "modelspec.tags", "modelspec.description", "trained_words",
    "software",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """What a file and its side-car say; "" and None for what they do not. `notes` are sentences for the person."""

    title: str = ""
    trigger: str = ""
    word: str = ""
    kind: Kind | None = None
    base: str = ""
    family: str = ""
    licence: str = ""
    summary: str = ""
    created: str = ""
    weight: float | None = None
    steps: int = 0
    speed: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person says of a LoRA that comes in; None is "not said". It goes before what the file says."""

    name: str | None = None
    kind: Kind | None = None
    trigger: str | None = None
    licence: str | None = None
    base: str | None = None
    replace: bool = False
    partial: bool = False  # take in the part that fits, and leave the rest out
    steps: int | None = None  # these three: of a speed LoRA, how it draws
    guidance: float | None = None
    sampler: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A LoRA file in hand, not yet in any catalog: what it is called, its bytes, what they hold and what is told.

    Of a textual inversion, `embedding` is what it holds, and `file` has no layers.
    """

    label: str
    data: bytes
    file: LoraFile
    told: Told
    preview: bytes | None = None
    wish: Wish = field(default_factory=Wish)
    embedding: Embedding | None = None

    @property
    def trigger(self) -> str | None:
        """What calls it; "" where the person said that nothing does, or it is for speed; None where nobody said.

        An embedding's is in its place in the prompt: its file's name, where no other is said.
        """
        if self.embedding:
            return self.wish.trigger or self.embedding.token or PurePath(self.label).stem or self.name
        if self.wish.trigger is None and self.kind == "speed":
            return ""
        return self.wish.trigger if self.wish.trigger is not None else self.told.trigger or None

    @property
    def kind(self) -> Kind | None:
        return self.wish.kind or self.told.kind or ("speed" if self.speed(is_flow=False) else None)

    def speed(self, is_flow: bool) -> Speed | None:
        """What its names tell of the steps it was distilled for; None for a LoRA that is not known as such."""
        names = (self.told.speed, PurePath(self.label).stem, self.told.title)
        return next((speed for name in names if name and (speed := recognised(name, is_flow))), None)

    @property
    def name(self) -> str:
        return self.wish.name or slug(self.told.title) or slug(PurePath(self.label).stem) or "lora"


# In


def arrived(data: bytes, label: str, sidecar: bytes | None, preview: bytes | None, wish: Wish) -> Arrival:
    """Read a file whole. Raises `BadLoraFile`; a side-car that is none is left out, with a note."""
    found = read_any(data, label)
    embedding = found if isinstance(found, Embedding) else None
    file = LoraFile({}, found.metadata, found.sha256) if isinstance(found, Embedding) else found
    return Arrival(label, data, file, told_by(file, sidecar), preview, wish, embedding)


def told_by(file: LoraFile, sidecar: bytes | None = None) -> Told:
    """The side-car goes before the file: it is what a person wrote by hand, after the training."""
    said = file.metadata
    ours = _table(said.get("atelier", ""))
    beside, notes = _sidecar(sidecar)
    spoken = beside.get("activation text") or ours.get("trigger") or ", ".join(triggers(said))
    word = _line(ours.get("word"))[:MAX_TRIGGER]
    trigger, more = _fitting(_line(spoken).removesuffix(f" {word}" if word else ""))  # our side-car says both
    kind = next(
        (k for k in (ours.get("kind"), *re.split(r"[,\s]+", said.get("modelspec.tags", ""))) if k in KINDS), None
    )
    weight = beside.get("preferred weight") or ours.get("weight")
    return Told(
        title=_line(ours.get("title") or said.get("modelspec.title") or said.get("ss_output_name")),
        trigger=trigger,
        word=word,
        kind=cast(Kind | None, kind),
        base=_line(ours.get("base")),
        family=family_in(said, str(beside.get("sd version") or "")),
        licence=_line(ours.get("licence") or said.get("modelspec.license")),
        summary=_line(beside.get("description") or ours.get("summary") or said.get("modelspec.description")),
        created=_line(ours.get("created") or said.get("modelspec.date")),
        weight=_weight(weight),
        steps=_whole(said.get("ss_steps")),
        speed=_line(ours.get("speed")),
        notes=(*notes, *([f"Its other trigger words do not fit: {more}"] if more else [])),
    )


def family_in(said: Mapping[str, str], version: str = "") -> str:
    """The family that the metadata names, or the side-car's `version` ("SD1", "SDXL"); else ""."""
    return said_family(said) or {"sd1": "sd", "sdxl": "sdxl"}.get(version.strip().lower(), "")


def pairs(file: LoraFile) -> Iterator[tuple[str, Factors]]:
    """Its plain LoRA layers, which have a rank and an alpha; other kinds have neither."""
    for name, layer in file.layers.items():
        if isinstance(layer, Factors):
            yield name, layer


def all_pairs(file: LoraFile, name: str) -> dict[str, Factors]:
    """Its layers, where all are plain LoRA layers of the UNet. `Invalid` else."""
    found = dict(pairs(file))
    if len(found) < len(file.layers) or not all(IN_A_UNET.match(layer) for layer in found):
        why = "it has more than plain LoRA layers of the UNet, which can neither be renamed nor joined yet"
        raise Invalid(f"LoRA {name}", why, "Export it under the names that it came with.")
    return found


def context_width(file: LoraFile) -> int | None:
    """The width of the text that its cross-attention reads: 768 in SD 1.x, 2048 in SDXL. None if it changes none."""
    widths = (factors.down.shape[1] for name, factors in pairs(file) if re.search(r"attn2_to_[kv]$", name))
    return next(widths, None)


def fits(file: LoraFile, base: Base) -> bool:
    """Whether the base reads text of the width that the file was made for; yes where either does not say."""
    wanted, given = context_width(file), _width_of(base)
    return wanted is None or given is None or wanted == given


def fitting_bases(arrival: Arrival, home: Path | None) -> tuple[Base, ...]:
    return tuple(base for base in (bases.find(name, home) for name in bases.names(home)) if not _unlike(arrival, base))


def base_for(arrival: Arrival, usual: Base, home: Path | None) -> Base:
    """The base that it is for: the one that was named, the one that its file names, the usual one, another that fits.

    Raises `WrongBase` where none fits, or the named one does not; `UnknownBase`.
    """
    if arrival.wish.base is not None:
        named = bases.find(arrival.wish.base, home)
        if why := _unlike(arrival, named):
            raise WrongBase(arrival.name, named.name, why)
        return named
    fitting = {base.name: base for base in (usual, *fitting_bases(arrival, home)) if not _unlike(arrival, base)}
    if not fitting:
        raise WrongBase(arrival.name, usual.name, _unlike(arrival, usual))
    alike = [base.name for base in fitting.values() if base.family == arrival.told.family]
    wanted = (arrival.told.base, usual.name, *alike, *fitting)
    return fitting[next(name for name in wanted if name in fitting)]


def take_in(arrival: Arrival, base: Base, catalog: Catalog) -> LoraCard:
    """Put it into the catalog; or raise, and nothing is changed: `NameTaken`, `ShippedName`, `WrongBase`, `Invalid`,
    and `PartialMatch` where nobody has said that what does not fit shall be left out.
    """
    missing = left_out(arrival, base)
    if missing and not arrival.wish.partial:
        raise PartialMatch(arrival.name, base.name, len(missing), len(arrival.file.layers), missing[:3])
    told, kind = arrival.told, arrival.kind or "style"
    speed = _speed(arrival, base) if kind == "speed" else None
    rank = 0 if arrival.embedding else arrival.file.rank
    alphas = Counter(factors.alpha for _, factors in pairs(arrival.file)) or Counter([float(rank)])
    licence = _line(arrival.wish.licence) or told.licence or "unstated"
    said: dict[str, Any] = {
        "title": told.title or arrival.name.replace("-", " ").replace("_", " ").capitalize(),
        "trigger": arrival.trigger or "",
        "word": told.word,
        "kind": kind,
        "base": base.name,
        "family": base.family,
        "rank": rank,
        "alpha": alphas.most_common(1)[0][0],
        "licence": licence,
        "commercial": _line(arrival.wish.licence).lower() in PERMISSIVE,  # by the word of a person, not of a file
        "weight": DEFAULT_WEIGHTS.get(kind, 1.0) if told.weight is None else told.weight,
        "summary": told.summary,
        "steps": told.steps,
        "provenance": f"Imported from {_line(PurePath(arrival.label).name)}.",
        "left_out": len(missing),
        "speed": speed,
    } | ({"created": told.created} if told.created else {})
    if arrival.embedding:
        said |= _of_embedding(arrival, base, catalog)
    return _added(catalog, arrival.name, said, arrival.data, arrival.preview, arrival.wish.replace)


def left_out(arrival: Arrival, base: Base) -> tuple[str, ...]:
    """The weights that a LoRA changes and the base does not have. Raises `WrongBase` where the rest does not fit.

    () for a base whose files do not say what it has: the rack asks again when it is drawn with.
    """
    modules = modules_of(base)
    shapes = {name: change.shape for name, change in arrival.file.layers.items()}
    if not modules or not shapes or not misfit(shapes, modules):
        return ()
    if why := misfit(shapes, modules, partial=True):
        raise WrongBase(arrival.name, base.name, why)
    return tuple(name for name in shapes if name not in modules)


def modules_of(base: Base) -> dict[str, tuple[int, int]]:
    """What `Rack.shapes` has of that base, from the headers of its files alone; {} where these cannot be read."""
    found: dict[str, tuple[int, int]] = {}
    if base.family not in SPEAKING:
        return found
    try:
        for model in ("unet", *ENCODERS):
            for path in sorted((base.folder / model).glob("*.safetensors")):
                tensors = read_header(path).tensors.items()
                found |= named("" if model == "unet" else model, ((key, entry.shape) for key, entry in tensors))
    except Invalid:
        return {}
    return found


def omission(arrival: Arrival, card: LoraCard, base: Base) -> tuple[str, ...]:
    """What was left out of a LoRA that came in in part, as a sentence."""
    if not card.left_out:
        return ()
    such = ", ".join(left_out(arrival, base)[:3])
    count = f"{card.left_out} of its {len(arrival.file.layers)} weights do not exist in {base.title}"
    return (f"{count} and are left out, such as {such}.",)


def _of_embedding(arrival: Arrival, base: Base, catalog: Catalog) -> dict[str, Any]:
    """What its card says beside all that a LoRA's does. Raises `Invalid` for a trigger that is another's."""
    assert arrival.embedding is not None
    trigger = arrival.trigger or ""
    for card in catalog.entries():
        if card.name != arrival.name and card.family == base.family and card.trigger.lower() == trigger.lower():
            why = f"“{trigger}” is that of {card.name} already"
            raise Invalid("trigger", why, "Choose another word for it: --trigger T.")
    return {"what": "embedding", "vectors": arrival.embedding.count, "family": base.family, "weight": 1.0, "word": ""}


def _speed(arrival: Arrival, base: Base) -> Speed:
    """How a speed LoRA draws on that base: as the person says, else as its names tell. `Invalid` if neither does."""
    wish, known = arrival.wish, samplers_of(base.folder)
    is_flow = known == FLOW_SAMPLERS
    told = arrival.speed(is_flow)
    steps = wish.steps if wish.steps is not None else told and told.steps
    if not steps:
        why = "how many steps it draws in is not said, and its name does not tell"
        raise Invalid(f"LoRA {arrival.name}", why, "Say it, for example --kind speed --steps 4.")
    check_range("steps", steps, 1, MAX_STEPS)
    sampler = sampler_named(wish.sampler) if wish.sampler else told.sampler if told else known[0] if is_flow else "lcm"
    if sampler not in known:
        why = f"{base.title} cannot be drawn with “{sampler}”"
        raise Invalid(f"LoRA {arrival.name}", why, f"Say --sampler with one of {', '.join(known)}.")
    guidance = wish.guidance if wish.guidance is not None else told.guidance if told else None if is_flow else 1.0
    try:
        return Speed(steps=steps, guidance=guidance, sampler=sampler)
    except ValueError as error:
        raise Invalid(f"LoRA {arrival.name}", reason(error), "Say other numbers.") from None


# Out


def exported(card: LoraCard, data: bytes, dialect: Dialect = "kohya", scrub: bool = False) -> tuple[bytes, bytes]:
    """The file that other programs read, and AUTOMATIC1111's side-car to lie beside it as JSON.

    The tensors are the catalog's bit for bit; where they have those names already, whatever they are. Without `scrub`
    the metadata that came with the file goes along; with it only what is needed to use the file does: no captions,
    folder names, tag frequencies, comments or paths.
    """
    if card.what == "embedding":
        return data, sidecar_of(card)
    file = read(data, card.name)
    facts = {
        "title": card.title, "trigger": card.trigger, "word": card.word, "kind": card.kind, "base": card.base,
        "family": card.family, "licence": card.licence, "summary": card.summary, "created": card.created,
        "weight": f"{card.weight:g}", "steps": str(card.steps or ""), "pictures": str(card.pictures or ""),
        "speed": str(card.speed or ""),
    }  # fmt: skip
    facts = {name: text for name, text in facts.items() if text}
    kept = {key: text for key, text in file.metadata.items() if not scrub or key in NETWORK}
    if dialect == "kohya":
        kept.pop("lora_adapter_metadata", None)  # beside alphas, diffusers refuses it
    if is_in(data, dialect):
        written = relabelled(data, facts, network(dict(pairs(file))) | kept, scrub)
    else:
        written = write(all_pairs(file, card.name), facts, dialect, kept, exact=True, scrub=scrub)
    if int.from_bytes(written[:8], "little") > MAX_HEADER:
        why = "what it says of its training is longer than other programs read"
        raise Invalid(f"LoRA {card.name}", why, "Export it with --scrub, which leaves that out.")
    return written, sidecar_of(card)


def sidecar_of(card: LoraCard) -> bytes:
    """As AUTOMATIC1111's card editor writes it (ui_edit_user_metadata.py)."""
    said = {
        "description": card.summary,
        "sd version": {"sd": "SD1", "sdxl": "SDXL"}.get(card.family, "Unknown"),
        "activation text": f"{card.trigger} {card.word}".strip() if card.trigger else "",
        "preferred weight": card.weight,
        "negative text": "",
        "notes": f"Licence: {card.licence}. Made for the base {card.base}.",
    }
    return json.dumps(said, indent=4, ensure_ascii=False).encode()


def unlike_rank(card: LoraCard, data: bytes) -> bool:
    """Whether a layer's alpha is not its rank: in diffusers' names only `lora_adapter_metadata` says so."""
    return card.what == "lora" and any(factors.alpha != factors.rank for _, factors in pairs(read(data, "")))


def has_many_alphas(card: LoraCard, data: bytes) -> bool:
    return card.what == "lora" and len({factors.alpha for _, factors in pairs(read(data, ""))}) > 1


# Several into one


def merged(stack: Sequence[tuple[Mapping[str, Factors], float]]) -> dict[str, Factors]:
    """ΔW = Σ wᵢ (αᵢ/rᵢ) Bᵢ Aᵢ as one LoRA at weight 1: the factors side by side, rank = α = Σ rᵢ.

    Exact, in the same order and arithmetic as a stack that is drawn with. `Invalid` where the ranks come to too much.
    """
    parts: dict[str, list[tuple[Factors, float]]] = {}
    for layers, weight in stack:
        for name, factors in layers.items():
            parts.setdefault(name, []).append((factors, weight))
    whole: dict[str, Factors] = {}
    for name, row in parts.items():
        rank = sum(factors.rank for factors, _ in row)
        if rank > MAX_RANK:
            why = f"their ranks come to {rank} together, and {MAX_RANK} is the most that a file may have"
            raise Invalid("merge", why, "Leave one out; a stack in a prompt has no such limit.")
        downs = [factors.down for factors, _ in row]
        if len({down.shape[1:] for down in downs}) > 1:
            raise Invalid("merge", f"their layers {name} are of different shapes", "Merge LoRAs of one base.")
        ups = [factors.up * (factors.alpha / factors.rank) * weight for factors, weight in row]
        whole[name] = Factors(np.concatenate(downs), np.concatenate(ups, axis=1), float(rank))
    return whole


def merge(stack: LoraStack, name: str, catalog: Catalog, replace: bool = False) -> tuple[LoraCard, tuple[str, ...]]:
    """Save a stack as one LoRA; its card, and what there is to say. Raises `WrongBase`, `Invalid`, `NameTaken`, …"""
    catalog.check_name(name, replace)
    if len(stack.refs) < 2:
        raise Invalid(
            "merge", "it takes two LoRAs or more", "Write NAME:WEIGHT for each, for example coral:0.8 inky:1."
        )
    cards = [catalog.get(ref.name) for ref in stack.refs]
    for card in (card for card in cards if card.kind == "speed"):
        why = f"{card.name} draws in steps of its own, which a merged file could not say"
        raise Invalid("merge", why, "Leave it out; --speed fast adds it to any picture.")
    for card in cards[1:]:
        if card.base != cards[0].base:
            raise WrongBase(card.name, cards[0].base, f"it was made for {card.base}, unlike {cards[0].name}")
    files = {ref: read(catalog.weights(ref), ref.name) for ref in stack.refs}
    layers = merged([(all_pairs(file, ref.name), ref.weight) for ref, file in files.items()])
    trigger, left_out = _fitting(" ".join(_phrase(card) for card in sorted(cards, key=_is_subject)), " ")
    licences = {card.licence for card in cards}
    said: dict[str, Any] = {
        "title": name.replace("-", " ").replace("_", " ").capitalize(),
        "trigger": trigger,
        "kind": next((card.kind for card in cards if _is_subject(card)), cards[0].kind),
        "base": cards[0].base,
        "family": cards[0].family,
        "rank": max(factors.rank for factors in layers.values()),
        "alpha": max(factors.alpha for factors in layers.values()),
        "licence": licences.pop()
        if len(licences) == 1
        else "; ".join(f"{c.name}: {c.licence}" for c in cards)[:LONGEST],
        "commercial": all(card.commercial for card in cards),
        "weight": 1.0,
        "left_out": max(card.left_out for card in cards),
        "summary": f"{', '.join(f'{ref.name} {ref.weight:g}' for ref in stack.refs)} in one",
        "provenance": "Merged from " + ", ".join(f"{r.name}:{r.weight:g} ({r.sha256[:12]})" for r in stack.refs) + ".",
    }
    facts = {fact: str(said[fact]) for fact in ("title", "trigger", "kind", "base", "family", "licence", "summary")}
    try:
        data = write(layers, facts | {"weight": "1"}, exact=True)
        read(data, name)  # what we would not take in again is not kept
    except ValueError as error:
        raise Invalid("merge", str(error), "Use lower weights.") from None
    notes = (f"Its trigger is long enough without {left_out}: say that in the prompt.",) if left_out else ()
    return _added(catalog, name, said, data, None, replace), notes


def _is_subject(card: LoraCard) -> bool:
    return card.kind in ("subject", "character", "product")


def _phrase(card: LoraCard) -> str:
    return f"{card.trigger} {card.word}".strip() if card.trigger else ""


# Small parts


def slug(text: str) -> str:
    """A name that a folder can have; "" where nothing of it can stand in one."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.casefold()).strip("-_")[:64]


def _added(
    catalog: Catalog, name: str, said: Mapping[str, Any], data: bytes, preview: bytes | None, replace: bool
) -> LoraCard:
    try:
        return catalog.take_in(name, said, data, preview, replace)
    except ValueError as error:
        raise Invalid(f"LoRA {name}", reason(error), "Say it shorter, on one line.") from None


def _sidecar(data: bytes | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    if data is None:
        return {}, ()
    if len(data) > MAX_SIDECAR:
        return {}, (f"Its side-car was not read: it is larger than {MAX_SIDECAR:,} bytes.",)
    said = _json(data)
    if not isinstance(said, dict):
        return {}, ("Its side-car was not read: it is no table in JSON.",)
    return cast(dict[str, Any], said), ()


def _fitting(text: Any, between: str = ", ") -> tuple[str, str]:
    """As many of its parts as a trigger has room for, and the rest."""
    parts = [part for part in (_line(text).split() if between == " " else re.split(r"\s*,\s*", _line(text))) if part]
    kept: list[str] = []
    while parts and len(between.join([*kept, parts[0]])) <= MAX_TRIGGER:
        kept.append(parts.pop(0))
    return between.join(kept), between.join(parts)


def _line(text: Any) -> str:
    """Somebody's text as one printable line of at most 1,000 characters; "" for what is no text."""
    if not isinstance(text, str):
        return ""
    plain = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * LONGEST])
    return " ".join(plain.split())[:LONGEST]


def _weight(said: Any) -> float | None:
    """A strength to begin with; AUTOMATIC1111 writes 0 for "not said"."""
    try:
        weight = float(said)
        check_range("weight", weight, -MAX_WEIGHT, MAX_WEIGHT)
    except (TypeError, ValueError, OverflowError, Invalid):
        return None
    return weight or None


def _whole(said: str | None) -> int:
    return int(said) if said and re.fullmatch(r"[0-9]{1,9}", said) else 0


def _json(text: str | bytes) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _table(text: str) -> dict[str, Any]:
    said = _json(text)
    return cast(dict[str, Any], said) if isinstance(said, dict) else {}


def _width_of(base: Base, part: str = "unet", key: str = "cross_attention_dim") -> int | None:
    try:
        said = _json(read_bounded(base.folder / part / "config.json", MAX_CONFIG))
    except (OSError, ValueError):
        return None
    width = cast(dict[str, Any], said).get(key) if isinstance(said, dict) else None
    return width if type(width) is int else None


def _unlike(arrival: Arrival, base: Base) -> str:
    """Why the base reads texts that the file was not made for, as a clause; "" where it does, and where it cannot be
    told."""
    if arrival.embedding is None:
        return "" if fits(arrival.file, base) else _other_width(arrival.file, base)
    if base.family not in SPEAKING:
        return f"{base.title} reads no embeddings"
    given = {encoder: width for encoder in ENCODERS if (width := _width_of(base, encoder, "hidden_size"))}
    return arrival.embedding.misfit(given) if given else ""


def _other_width(file: LoraFile, base: Base) -> str:
    made = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}.get(context_width(file) or 0, "another model")
    return f"it was made for {made}, whose text is {context_width(file)} wide and not {_width_of(base)}"

"""The LoRAs there are: cards read from folders, and the one way in for a new one.

A folder NAME holds lora.toml (the card), weights.safetensors, preview.png and pictures/NN.png with their captions.
`shipped` is read-only; `own` takes what is trained here. A LoRA appears whole, by one rename, or not at all.

A LoRA may be there for several bases: NAME@BASE is its variant for BASE, retrained from the same dataset. One name
means the variant for the base in use (`Catalog.on`). A textual-inversion embedding is an entry too, of its own sort.
"""

import hashlib
import io
import logging
import os
import re
import secrets
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from engine.bases import Base
from engine.errors import BadLoraFile, ChangedLora, Invalid, NameTaken, ShippedName, UnknownLora, UnlikeItsCard
from engine.files import is_left_over, read_bounded, read_manifest, reading, reason, sync_folder, write_synced, writing
from engine.jobs import Trained
from engine.plans import MAX_TRIGGER, MAX_WEIGHT, EmbeddingRef, Kind, LoraRef, Prior, TrainPlan
from engine.sampling import Speed

log = logging.getLogger(__name__)

MANIFEST, WEIGHTS, PREVIEW, PICTURES = "lora.toml", "weights.safetensors", "preview.png", "pictures"
STAGING = ".staging"
OF_A_BASE = "@"  # between a LoRA's name and the base that a variant of it is for
SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SHA256 = r"[0-9a-f]{64}"
PICTURE_SIDE = 512
MAX_WEIGHTS = 1_000_000_000  # bytes
DEFAULT_WEIGHTS: dict[Kind, float] = {"style": 0.8, "quality": 0.5}  # the other kinds: as trained
SAID_BY_TRAINER = ("family", "alpha", "word", "final_loss", "seconds", "title", "summary", "aliases", "weight",
                   "licence", "commercial", "provenance", "job", "dataset", "dataset_sha256")  # fmt: skip
KEPT_IN_A_VARIANT = ("title", "summary", "aliases", "weight")


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it is not one line of printable text")
    return text


Line = Annotated[str, AfterValidator(_one_line), Field(max_length=1_000)]
Word = Annotated[Line, Field(max_length=MAX_TRIGGER)]


class LoraCard(BaseModel):
    """What there is to know of a LoRA before its weights are read. `weight` is the strength to begin with.

    One that was trained here is `dataset` (NAME/vN, with the sha256 of what that lists), `base`, and as the recipe
    `rank`, `steps`, `seed` and `prior`. `left_out`: how many of its weights do not exist in its base, and are left out
    by the word of whoever took it in. `what` an "embedding" is: `vectors` in place of its trigger, in a prompt.
    `speed`, of the kind of that name alone, says the steps that it draws in.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    folder: Path
    shipped: bool
    title: Line
    trigger: Word
    word: Word = ""
    kind: Kind
    base: Line
    family: Line
    rank: int
    alpha: float
    sha256: str = Field(pattern=f"^{SHA256}$")
    licence: Line = "unstated"
    commercial: bool = False
    weight: float = Field(default=0.8, ge=-MAX_WEIGHT, le=MAX_WEIGHT)
    summary: Line = ""
    aliases: tuple[Line, ...] = ()
    steps: int = 0
    seed: int = 0
    prior: Prior = "none"
    created: Line = ""
    pictures: int = 0
    provenance: Line = ""
    final_loss: float | None = None
    seconds: float | None = None
    job: str = Field(default="", max_length=300)  # the one that trained it
    dataset: Line = ""
    dataset_sha256: Line = ""
    left_out: int = Field(default=0, ge=0)
    what: Literal["lora", "embedding"] = "lora"
    vectors: int = 0
    speed: Speed | None = None

    @model_validator(mode="after")
    def _says_its_speed(self) -> "LoraCard":
        if (self.kind == "speed") != (self.speed is not None):
            raise ValueError("a LoRA of kind speed, and no other, says its steps and sampler in [speed]")
        return self


class Catalog:
    """`shipped` and `own` need not exist. A shipped name hides an own one: it cannot be taken or replaced.

    `base`: whose variants names mean. Without one they mean the entry that has the bare name.
    """

    def __init__(self, shipped: Path, own: Path, base: Base | None = None) -> None:
        self.shipped = shipped
        self.own = own
        self._base = base
        self._read: dict[Path, tuple[object, LoraCard | None]] = {}

    def on(self, base: Base) -> "Catalog":
        """The same, for this base."""
        view = Catalog(self.shipped, self.own, base)
        view._read = self._read
        return view

    def entries(self) -> tuple[LoraCard, ...]:
        """LoRAs and embeddings, one for each name, by name; a broken folder is logged once and left out."""
        found: dict[str, list[LoraCard]] = {}
        for card in self._all():
            found.setdefault(card.name, []).append(card)
        return tuple(min(found[name], key=self._distance) for name in sorted(found))

    def list(self) -> tuple[LoraCard, ...]:
        """Every usable LoRA by name, its variant for the base."""
        return tuple(card for card in self.entries() if card.what == "lora")

    def embeddings(self) -> tuple[LoraCard, ...]:
        """Every textual-inversion embedding of the base's family, by name."""
        fits = (card for card in self.entries() if self._base is None or card.family == self._base.family)
        return tuple(card for card in fits if card.what == "embedding")

    def variants(self, name: str) -> tuple[LoraCard, ...]:
        """All there are under this very name, the nearest to the base first."""
        return tuple(sorted((card for card in self._all() if card.name == name), key=self._distance))

    def get(self, name: str) -> LoraCard:
        """By name, title or alias, in any case; `UnknownLora` offers near names, `Invalid` says it of an embedding."""
        card = self.entry(name)
        if card.what == "embedding":
            todo = f"Write its trigger, {card.trigger}, where it shall work in the prompt."
            raise Invalid(card.name, "it is an embedding and no LoRA", todo)
        return card

    def entry(self, name: str) -> LoraCard:
        """The same, of LoRAs and embeddings alike."""
        cards = self.entries()
        wanted = _key(name)
        for said in (_names, _other_names):  # a name before another's alias
            for card in cards:
                if wanted in said(card):
                    return card
        raise UnknownLora(name, _near(wanted, cards))

    def ref(self, name: str, weight: float | None = None) -> LoraRef:
        """A pinned reference; without `weight`, at the strength that the card recommends."""
        card = self.get(name)
        return LoraRef(card.name, card.sha256, card.weight if weight is None else weight, card.kind)

    def spoken(self, *texts: str) -> tuple[EmbeddingRef, ...]:
        """The embeddings whose triggers stand in a prompt, pinned."""
        refs = (EmbeddingRef(card.name, card.sha256, card.trigger) for card in self.embeddings())
        return tuple(ref for ref in refs if any(ref.pattern.search(text) for text in texts))

    def pinned(self, ref: LoraRef | EmbeddingRef) -> LoraCard:
        """The card of the very file that `ref` pins, whichever base it is for; that of the name where there is none."""
        same = (card for card in self.variants(ref.name) if card.sha256 == ref.sha256)
        return next(same, None) or self.entry(ref.name)

    def weights(self, ref: LoraRef | EmbeddingRef) -> bytes:
        """The very file that `ref` pins; `UnknownLora` if it is gone, `ChangedLora` if it is another now."""
        card = self.pinned(ref)
        try:
            data = read_bounded(card.folder / WEIGHTS, MAX_WEIGHTS)
        except FileNotFoundError:
            raise UnknownLora(ref.name) from None
        except (OSError, ValueError) as error:
            raise BadLoraFile(ref.name, reason(error)) from error
        found = hashlib.sha256(data).hexdigest()
        if found != ref.sha256:
            raise (UnlikeItsCard if card.sha256 == ref.sha256 else ChangedLora)(ref.name, ref.sha256, found)
        return data

    def check_name(self, name: str, replace: bool = False) -> None:
        """Raise unless a LoRA may be added as `name`: ask before training, as `add` does again after it."""
        if not SLUG.fullmatch(name):
            why = f"“{name}” is not a name that a folder can have"
            raise Invalid("name", why, "Use 1 to 64 of a–z, 0–9, - and _, beginning with a letter or a digit.")
        if os.path.lexists(self.shipped / name):  # a link that leads nowhere has the name too
            raise ShippedName(name)
        if not replace and os.path.lexists(self.own / name):
            raise NameTaken(name)

    def check_plan(self, plan: TrainPlan) -> None:
        """Raise unless what is trained so may be added."""
        if not plan.variant:
            self.check_name(plan.name, plan.replace)
            return
        there = self.variants(plan.name)
        if not there:
            raise UnknownLora(plan.name)
        same = [card for card in there if card.base == plan.base]
        if any(card.folder.name == plan.name for card in same):
            raise Invalid("base", f"“{plan.name}” is for {plan.base} already", "Name another base: --base NAME.")
        if same and not plan.replace:
            todo = "Say --replace to put a new one in its place."
            raise Invalid("base", f"“{plan.name}” has a variant for {plan.base} already", todo)

    def made_by(self, job: str, name: str) -> LoraCard | None:
        """The LoRA `name` if this very job has trained it already."""
        return next((card for card in self.variants(name) if job and card.job == job), None)

    def add(self, plan: TrainPlan, trained: Trained) -> LoraCard:
        """Put a finished LoRA in. `NameTaken`, `Invalid` or `DiskFull` leave the catalog as it was.

        `trained.facts` fill the card: family and alpha, and whatever else `SAID_BY_TRAINER` names. A variant is called
        what the LoRA is called that there is.
        """
        self.check_plan(plan)
        card = _card(plan, trained, self.own / folder_of(plan))
        if plan.variant:
            first = self.variants(plan.name)[0]
            card = card.model_copy(update={name: getattr(first, name) for name in KEPT_IN_A_VARIANT})
        files = {WEIGHTS: trained.weights, PREVIEW: trained.preview}
        for number, example in enumerate(plan.examples, 1):
            files[f"{PICTURES}/{number:02}.png"] = _small(example.data)
            files[f"{PICTURES}/{number:02}.txt"] = example.caption.encode()
        self._put(card, files, plan.replace)
        return card

    def take_in(
        self, name: str, said: Mapping[str, Any], weights: bytes, preview: bytes | None, replace: bool = False
    ) -> LoraCard:
        """Put in a LoRA that was not trained here; `said` fills its card.

        Raises what `add` does, and ValueError for what no card can hold; all is as it was then.
        """
        self.check_name(name, replace)
        fixed = {
            "name": name,
            "folder": self.own / name,
            "shipped": False,
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        now = datetime.now(UTC).isoformat(timespec="seconds")
        card = LoraCard.model_validate({"created": now, **said, **fixed})
        self._put(card, {WEIGHTS: weights} | ({PREVIEW: _small(preview)} if preview else {}), replace)
        return card

    def _put(self, card: LoraCard, files: Mapping[str, bytes], replace: bool) -> None:
        folder = card.folder.name
        with writing(self.own), self._staged(folder) as staged:
            _fill(staged, card, files)
            self._move_in(staged, folder, replace)

    def sweep(self) -> None:
        """Away with what a killed process left half-made; a LoRA that was being replaced then is put back."""
        for left in filter(is_left_over, (self.own / STAGING).glob("*")):
            name = left.name.rpartition("-")[0]
            if left.suffix == ".old" and not os.path.lexists(self.own / name):
                left.rename(self.own / name)
            shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _staged(self, name: str) -> Generator[Path]:
        staged = self.own / STAGING / f"{name}-{secrets.token_hex(4)}"
        try:
            (staged / PICTURES).mkdir(parents=True)
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _move_in(self, staged: Path, name: str, replace: bool) -> None:
        """The last step, after which the LoRA is there; an earlier one of the name waits aside until then."""
        target, aside = self.own / name, staged.with_name(f"{staged.name}.old")
        if replace and os.path.lexists(target):
            target.rename(aside)
        try:
            staged.rename(target)
        except OSError as error:
            if os.path.lexists(aside):
                aside.rename(target)
            if target.exists() and not replace:  # someone took the name meanwhile
                raise NameTaken(name) from error
            raise
        sync_folder(self.own)
        shutil.rmtree(aside, ignore_errors=True)

    def _all(self) -> Iterator[LoraCard]:
        found = {card.folder.name: card for root in (self.own, self.shipped) for card in self._cards(root)}
        yield from (found[name] for name in sorted(found))

    def _distance(self, card: LoraCard) -> tuple[bool, bool, bool, str]:
        """What comes first is nearest to the base; else the one that has the bare name."""
        base, family = (self._base.name, self._base.family) if self._base else (card.base, card.family)
        return card.base != base, card.family != family, card.folder.name != card.name, card.base

    def _cards(self, root: Path) -> Iterator[LoraCard]:
        with reading(root):
            inside = sorted(root.iterdir()) if root.is_dir() else []
        for folder in inside:
            if folder.is_dir() and not folder.name.startswith("."):
                card = self._card_of(folder)
                if card is not None:
                    yield card

    def _card_of(self, folder: Path) -> LoraCard | None:
        """The folder's card, read anew only when its manifest or its weights have changed."""
        stamp = (_stamp(folder / MANIFEST), _stamp(folder / WEIGHTS))
        known = self._read.get(folder)
        if known is None or known[0] != stamp:
            known = self._read[folder] = (stamp, _read_card(folder, shipped=folder.parent == self.shipped))
        return known[1]


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when the file does: inode and time; zeros while there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def _read_card(folder: Path, shipped: bool) -> LoraCard | None:
    try:
        said = read_manifest(folder / MANIFEST)
        name, _, base = folder.name.partition(OF_A_BASE)
        if not SLUG.fullmatch(name):
            raise ValueError("the folder's name is not one that a LoRA can have")
        if not (folder / WEIGHTS).is_file():
            raise ValueError(f"it has no {WEIGHTS}")
        card = LoraCard.model_validate({**said, "name": name, "folder": folder, "shipped": shipped})
        if base and card.base != base:
            raise ValueError(f"its folder is for the base {base}, and its card for {card.base}")
        return card
    except (OSError, ValueError) as error:
        log.warning("left out of the catalog: %s: %s", folder, reason(error))
        return None


def folder_of(plan: TrainPlan) -> str:
    """What the folder is called of the LoRA that is trained so."""
    return f"{plan.name}{OF_A_BASE}{plan.base}" if plan.variant else plan.name


def _card(plan: TrainPlan, trained: Trained, folder: Path) -> LoraCard:
    plain = plan.name.replace("-", " ").replace("_", " ")
    known: dict[str, Any] = {
        "title": plain.capitalize(),
        "trigger": plan.trigger,
        "word": plan.word,
        "kind": plan.kind,
        "base": plan.base,
        "rank": plan.rank,
        "alpha": plan.rank,
        "weight": DEFAULT_WEIGHTS.get(plan.kind, 1.0),
        "summary": f"{plan.kind} from {len(plan.examples)} pictures" + (f" of a {plan.word}" if plan.word else ""),
        "steps": plan.steps,
        "seed": plan.seed,
        "prior": plan.prior,
        "pictures": len(plan.examples),
        "provenance": f"Trained with Atelier from {len(plan.examples)} pictures, which lie in {PICTURES}/.",
    }
    known |= {key: trained.facts[key] for key in SAID_BY_TRAINER if key in trained.facts}
    fixed = {
        "name": plan.name,
        "folder": folder,
        "shipped": False,
        "sha256": hashlib.sha256(trained.weights).hexdigest(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return LoraCard.model_validate(known | fixed)


def _fill(folder: Path, card: LoraCard, files: Mapping[str, bytes]) -> None:
    said = card.model_dump(mode="json", exclude={"name", "folder", "shipped"}, exclude_none=True)
    for name, data in ({MANIFEST: tomli_w.dumps(said).encode()} | dict(files)).items():
        write_synced(folder / name, data)
    sync_folder(folder / PICTURES)
    sync_folder(folder)


def _small(data: bytes) -> bytes:
    """The picture as a PNG of at most 512 pixels a side, without metadata."""
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    picture.info.clear()
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip().casefold())


def _names(card: LoraCard) -> set[str]:
    return {_key(card.name)}


def _other_names(card: LoraCard) -> set[str]:
    return {_key(said) for said in (card.title, *card.aliases)}


def _near(wanted: str, cards: tuple[LoraCard, ...]) -> tuple[str, ...]:
    """Up to three names: those that are close in spelling, then those that begin or go on alike."""
    said = {key: card.name for card in cards for key in _other_names(card) | _names(card)}
    close = get_close_matches(wanted, said, n=3, cutoff=0.6)
    alike = [key for key in sorted(said) if len(wanted) > 1 and (wanted in key or wanted.startswith(key))]
    return tuple(dict.fromkeys(said[key] for key in (*close, *alike)))[:3]

"""What LoRAs were trained from, in versions: a LoRA is a dataset version, a recipe and a base.

HOME/datasets/NAME/vN.toml lists the pictures by their content, with the captions, the trigger and the class word. The
pictures themselves lie where all given pictures do (HOME/inputs/SHA256), each once. What has not changed since is the
version that there is, and no new one.
"""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from engine.bases import Base
from engine.catalog import PICTURES, LoraCard
from engine.errors import Invalid, NoVariant, UserError
from engine.files import read_bounded, reading, reason, write_whole, writing
from engine.plans import Example, TrainPlan
from engine.store import SHA256, Store

VERSION = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}/v[1-9][0-9]{0,6}")
MAX_LIST = 1_000_000  # bytes
MAX_PICTURE = 50_000_000  # bytes


def _digest(text: str) -> str:
    if not SHA256.fullmatch(text):
        raise ValueError("it is no sha256")
    return text


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    sha256: Annotated[str, AfterValidator(_digest)]
    caption: str


class Listed(BaseModel):
    """One version: `sha256` of a picture is that of its PNG as it was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    trigger: str
    word: str = ""
    pictures: tuple[Entry, ...] = Field(min_length=1)


class Datasets:
    """HOME/datasets, with its pictures in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.home / "datasets"

    def keep(self, plan: TrainPlan) -> dict[str, str]:
        """What the card says of it: the version that holds what the plan trains on, and the sha256 of its list."""
        pictures = tuple(
            Entry(name=one.name, sha256=self._store.save_input(one.data), caption=one.caption) for one in plan.examples
        )
        listed = Listed(trigger=plan.trigger, word=plan.word, pictures=pictures)
        data = tomli_w.dumps(listed.model_dump(mode="json")).encode()
        folder = self._folder / plan.name
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            numbers = self._numbers(folder)
            for number in reversed(numbers):
                if (folder / f"v{number}.toml").read_bytes() == data:
                    break
            else:
                number = max(numbers, default=0) + 1
                write_whole(folder / f"v{number}.toml", data)
        return {"dataset": f"{plan.name}/v{number}", "dataset_sha256": hashlib.sha256(data).hexdigest()}

    def examples(self, card: LoraCard) -> tuple[Example, ...]:
        """What a LoRA was trained on: its dataset version, else the smaller copies beside it.

        Raises `Invalid` where neither is there, or no longer as it was.
        """
        if card.dataset:
            return self._of_version(card)
        if found := _beside(card):
            return found
        todo = "`atelier train FOLDER` trains a new one from pictures."
        raise Invalid(f"LoRA {card.name}", "the pictures that it was trained from are not here", todo)

    def _of_version(self, card: LoraCard) -> tuple[Example, ...]:
        what, todo = f"dataset {card.dataset}", "Put its files back, or train a new one: `atelier train FOLDER`."
        try:
            if not VERSION.fullmatch(card.dataset):
                raise ValueError(f"the card of {card.name} names no version as NAME/vN")
            data = read_bounded(self._folder / f"{card.dataset}.toml", MAX_LIST)
            if hashlib.sha256(data).hexdigest() != card.dataset_sha256:
                raise ValueError(f"it has changed since {card.name} was trained")
            listed = _read(data)
        except (OSError, ValueError) as error:
            raise Invalid(what, f"it cannot be read ({reason(error)})", todo) from None
        return tuple(Example(one.name, self._picture(what, one), one.caption) for one in listed.pictures)

    def _picture(self, what: str, entry: Entry) -> bytes:
        try:
            return self._store.input(entry.sha256)
        except Invalid as error:
            raise Invalid(what, f"{entry.name} is missing: {error.why}", error.todo) from None

    @staticmethod
    def _numbers(folder: Path) -> list[int]:
        found = (re.fullmatch(r"v([1-9][0-9]{0,6})\.toml", path.name) for path in folder.iterdir())
        return sorted(int(match[1]) for match in found if match)


def ported(card: LoraCard, base: Base, examples: Sequence[Example], steps: int | None, replaced: bool) -> TrainPlan:
    """The same LoRA for another base: its dataset and its recipe, `steps` apart where they are said."""
    base.check_trains()
    return TrainPlan(
        name=card.name,
        kind=card.kind,
        trigger=card.trigger,
        base=base.name,
        examples=tuple(examples),
        seed=card.seed,
        steps=card.steps if steps is None else steps,
        word=card.word,
        prior=card.prior,
        rank=card.rank,
        replace=replaced,
        variant=True,
    )


def has_pictures(card: LoraCard) -> bool:
    """Whether there is something that it could be trained anew from."""
    return bool(card.dataset) or any((card.folder / PICTURES).glob("*.png"))


def no_variant(card: LoraCard, base: Base, why: str) -> UserError:
    """That an entry of the catalog is not there for this base, and what to do."""
    if card.what == "embedding":
        return Invalid(f"embedding {card.name}", why, "Draw on the base that it was made for, or leave its word out.")
    return NoVariant(card.name, base.name, why, has_pictures(card))


def _beside(card: LoraCard) -> tuple[Example, ...]:
    folder = card.folder / PICTURES
    with reading(folder):
        paths = sorted(folder.glob("*.png")) if folder.is_dir() else []
    try:
        read = [(path, read_bounded(path, MAX_PICTURE), _caption(path.with_suffix(".txt"))) for path in paths]
    except (OSError, ValueError) as error:
        raise Invalid(f"pictures of {card.name}", reason(error), f"Look into {folder}.") from None
    return tuple(Example(path.name, data, text) for path, data, text in read)


def _caption(path: Path) -> str:
    return read_bounded(path, MAX_LIST).decode().strip()


def _read(data: bytes) -> Listed:
    try:
        return Listed.model_validate(tomllib.loads(data.decode()))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

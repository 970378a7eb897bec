"""The only reader of the environment, and of the settings file.

A value comes from an argument, else from the environment (`ATELIER_DOORS__SLACK__BOT_TOKEN`), else from settings.toml
in the home, else it is the default. Only the home itself is not looked for in the file that lies in it.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import urlsplit

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from engine.bases.memory import Wanted
from engine.errors import Invalid
from engine.files import read_manifest, reason, sync_folder, writing

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "YES",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
FILE = "settings.toml"
PREFIX, INSIDE = "ATELIER_", "__"
HOME, BASE = "~/.atelier", "pocket"
SECRET = re.compile(r"token|secret|key|password", re.IGNORECASE)  # in the name of what nobody is shown
BY_HAND = "Mend it by hand, or move it away and run `atelier init`."
Section = TypeVar("Section", bound=BaseModel)


def is_url(text: str) -> bool:
    """Whether something can be POSTed to it."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname and parts.port != 0)
            and not re.search(r"\s", text)
        )
    except ValueError:  # a port of letters, half an IPv6 address
        return False


def _url(text: str) -> str:
    if not is_url(text):
        raise ValueError("it is no http or https address")
    return text


class Llm(BaseModel):
    """The language model that reads messages: any server that has OpenAI's chat completions; some want no key."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: Annotated[str, AfterValidator(_url)]
    model: Annotated[str, Field(min_length=1)]
    key: SecretStr = SecretStr("")


class Settings(BaseSettings):
    """`home` is the one folder that is written to; `base` the base drawn on when none is named; `memory` the mode in
    which a base is held (docs/memory.md).

    `brand_on_non_commercial`: the admin's word that brand work may be made with weights not for commercial use.

    `doors` holds the sections as they were said, secrets and all: `door` checks one. Raises `Invalid`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=INSIDE,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    home: Path = Path(HOME)
    base: str = BASE
    doors: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)
    llm: Llm | None = None
    brand_on_non_commercial: bool = False
    memory: Wanted = "auto"

    def __init__(self, home: Path | str | None = None, **given: Any) -> None:
        found = find_home(home)
        try:
            super().__init__(home=found, **given)
        except ValidationError as error:
            raise _invalid(error, found / FILE, (), (*fields_of(Settings), *fields_of(Llm))) from None
        except SettingsError:
            todo = f"Say one value a variable, for example {PREFIX}DOORS{INSIDE}SLACK{INSIDE}BOT_TOKEN."
            raise Invalid("environment", f"{PREFIX}DOORS is no table in JSON", todo) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del env_settings, dotenv_settings, file_secret_settings
        said = read_settings(init_settings()["home"] / FILE)
        return init_settings, _Environment(settings_cls), InitSettingsSource(settings_cls, said)

    @classmethod
    def bare(cls, home: Path | None = None) -> "Settings":
        """Home and base alone, where the rest cannot be read."""
        return cls.model_construct(home=find_home(home), base=os.environ.get(f"{PREFIX}BASE") or BASE)

    @property
    def file(self) -> Path:
        return self.home / FILE

    def door(self, name: str, model: type[Section]) -> Section:
        """The section of a door as its platform's model takes it. Raises `Invalid`, in which no secret is named."""
        said = self.doors.get(name, {})
        try:
            return model.model_validate(said)
        except ValidationError as error:
            raise _invalid(error, self.file, ("doors", name), fields_of(model), tuple(secrets_in(said))) from None


class _Environment(EnvSettingsSource):
    """As pydantic reads it, but only what looks like a list or a table is JSON: a token of digits stays text."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        if not value.lstrip().startswith(("[", "{")):
            raise ValueError("it is no list and no table")
        return super().decode_complex_value(field_name, field, value)


def find_home(home: Path | str | None = None) -> Path:
    """The home as an absolute path: this one, else the environment's, else the default."""
    said = Path(home or os.environ.get(f"{PREFIX}HOME") or HOME)
    try:
        return said.expanduser().absolute()
    except RuntimeError:
        raise Invalid("home", f"there is no user as in {said}", "Name a folder: --home DIR.") from None


def read_settings(file: Path) -> dict[str, Any]:
    """What the file says, unchecked; nothing where there is none. Raises `Invalid`."""
    try:
        said = read_manifest(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise Invalid(str(file), f"it cannot be read ({reason(error)})", BY_HAND) from None
    if "home" in said:
        todo = f"Remove that line, and name the home by --home DIR or {PREFIX}HOME."
        raise Invalid(str(file), "home cannot be set in it, as it lies in the home itself", todo)
    return said


def write_settings(file: Path, said: Mapping[str, Any]) -> None:
    """Put the file there whole, for its owner's eyes alone. Raises `DiskFull`, or `Invalid` without write access."""
    with writing(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".settings-")  # has mode 0600 from its birth
        try:
            with os.fdopen(handle, "wb") as out:
                tomli_w.dump(said, out)
                out.flush()
                os.fsync(out.fileno())
            Path(draft).replace(file)
            sync_folder(file.parent)
        finally:
            Path(draft).unlink(missing_ok=True)


def masked(said: Any, is_secret: bool = False) -> Any:
    """The same with every secret unreadable, as it may be shown."""
    if isinstance(said, Mapping | list | tuple):
        shown = [(name, masked(value, hidden)) for name, value, hidden in _parts(said, is_secret)]
        return dict(shown) if isinstance(said, Mapping) else [value for _, value in shown]
    return "…" if is_secret and said else said


def secrets_in(said: Any, is_secret: bool = False) -> Iterator[str]:
    """Every secret in it."""
    if isinstance(said, Mapping | list | tuple):
        for _, value, hidden in _parts(said, is_secret):
            yield from secrets_in(value, hidden)
    elif is_secret and said:
        yield str(said)


def _parts(said: Any, is_secret: bool) -> Iterator[tuple[str, Any, bool]]:
    """What a table or a list holds: its name, itself, and whether it is a secret."""
    if isinstance(said, Mapping):
        for name, value in cast(Mapping[str, Any], said).items():
            yield name, value, is_secret or bool(SECRET.search(name))
    else:
        yield from (("", value, is_secret) for value in said)


def fields_of(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(model.model_fields)


def _invalid(
    error: ValidationError, file: Path, at: tuple[str, ...], known: tuple[str, ...], hidden: tuple[str, ...] = ()
) -> Invalid:
    """What is wrong as one sentence for each value, and what to do about the first."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    paths = [(*at, *(str(part) for part in detail["loc"])) for detail in details]
    variables = [PREFIX + INSIDE.join(path).upper() for path in paths]
    is_set = [variable in os.environ for variable in variables]
    names = [v if set_there else ".".join(path) for v, set_there, path in zip(variables, is_set, paths, strict=True)]
    why = "; ".join(f"{name} {_why(d['type'], d['msg'])}" for name, d in zip(names, details, strict=True))
    for secret in hidden:
        why = why.replace(secret, "…")
    what = "settings" if any(is_set) else str(file)
    return Invalid(what, why, _todo(details[0]["type"], paths[0][-1], variables[0], known))


def _why(kind: str, said: str) -> str:
    plain = {"missing": "is missing", "extra_forbidden": "is no setting", "dict_type": "is no table"}
    return plain.get(kind) or f"is not right: {said.removeprefix('Value error, ')}"


def _todo(kind: str, name: str, variable: str, known: tuple[str, ...]) -> str:
    if kind == "missing":
        return f"Set it there, or as {variable}; `atelier init` asks for it."
    if kind == "extra_forbidden":
        near = get_close_matches(name, known, n=1)
        return f"Did you mean {near[0]}?" if near else f"Remove it; there are {', '.join(known)}."
    return "Correct it there, or run `atelier init`."


def choose_base(file: Path, name: str) -> str | None:
    """Make `name` the base of the settings file; the environment variable that goes before it, if one is set."""
    write_settings(file, {**read_settings(file), "base": name})
    return f"{PREFIX}BASE" if os.environ.get(f"{PREFIX}BASE") else None


def go_online() -> None:
    """Take `stay_offline` back for the model hub's library, which has not been imported yet."""
    os.environ.update(dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "0"))


def stay_offline() -> None:
    """Tell the model libraries never to call home. They read this once, so it comes before they are imported."""
    os.environ.update(OFFLINE)

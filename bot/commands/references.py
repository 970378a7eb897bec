"""references [list] · references add FILE --encoder FOLDER."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.commands.terminal import Terminal
from bot.wiring import Studio
from engine import references
from engine.bases.adding import Wanted
from engine.errors import Invalid
from engine.references import Adapter

NONE_YET = "No IP-Adapters yet; `atelier references add FILE --encoder FOLDER` takes one in."


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of references; None and "" are not said."""

    what: str
    path: Path | None
    encoder: Path | None = None
    as_name: str = ""
    licence: str = ""
    commercial: bool | None = None


def references_command(studio: Studio, said: Request, terminal: Terminal) -> None:
    match said.what:
        case "add" if said.path is None or said.encoder is None:
            raise Invalid("references add", "it takes an adapter and its encoder, and one is not said", references.ASK)
        case "add":
            assert said.path is not None
            assert said.encoder is not None
            wanted = Wanted(said.as_name, said.licence, said.commercial)
            made = references.add(said.path, said.encoder, wanted, studio.settings.home)
            sold = "may be sold" if made.commercial else "not for commercial use as far as we know"
            line = (
                f"{made.name} looks at pictures for bases with texts {made.width} wide; licence {made.licence}, {sold}."
            )
            terminal.result(_facts(made), [line, "Use it: atelier draw PROMPT --reference FILE"])
        case _ if said.path is not None:
            raise Invalid("references list", f"it takes no name (“{said.path}”)", "`atelier references` lists all.")
        case _:
            found = references.installed(studio.settings.home)
            lines = [f"{one.name}  texts {one.width} wide  {one.licence}" for one in found]
            terminal.result({"references": [_facts(one) for one in found]}, lines or [NONE_YET])


def _facts(adapter: Adapter) -> dict[str, Any]:
    return adapter.model_dump() | {"folder": str(adapter.folder)}

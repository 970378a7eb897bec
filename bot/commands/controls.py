"""controls [list] · controls add FOLDER --kind KIND; and the options of draw and edit that name pictures to follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.commands.files import read_picture
from bot.commands.terminal import Terminal
from bot.wiring import Studio
from engine import controls
from engine.bases.adding import Wanted
from engine.controls import Net
from engine.errors import Invalid
from engine.plans import CONTROLS, Control, ControlKind, Reference

NONE_YET = "No ControlNets yet; `atelier controls add FOLDER --kind edge` takes one in."
KINDS: dict[str, ControlKind] = {kind: kind for kind in CONTROLS}


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of controls; None and "" are not said."""

    what: str
    path: Path | None
    kind: str | None = None
    as_name: str = ""
    licence: str = ""
    commercial: bool | None = None


def controls_command(studio: Studio, said: Request, terminal: Terminal) -> None:
    match said.what:
        case "add" if said.path is None:
            raise Invalid("controls add", "which one is not said", "Name a folder in diffusers' layout, or a file.")
        case "add" if said.kind is None:
            raise Invalid("--kind", "it is not said", f"Say what it reads: {', '.join(CONTROLS)}.")
        case "add":
            _add(studio, said, terminal)
        case _ if said.path is not None:
            raise Invalid("controls list", f"it takes no name (“{said.path}”)", "`atelier controls` lists all.")
        case _:
            nets = controls.installed(studio.settings.home)
            terminal.result({"controls": [_facts(net) for net in nets]}, _rows(nets) or [NONE_YET])


def given(options: Sequence[str], is_map: bool, until: float | None) -> tuple[Control, ...]:
    """`--control KIND:FILE[:WEIGHT]` as controls. Raises `Invalid`."""
    option = "--control-map" if is_map else "--control"
    made: list[Control] = []
    for text in options:
        kind, _, rest = text.partition(":")
        if kind.strip().lower() not in KINDS or not rest:
            why = f"“{text}” does not begin with a kind ({', '.join(CONTROLS)}) and a file"
            raise Invalid(option, why, f"Say for example {option} edge:room.jpg:0.8.")
        file, weight = _weighted(rest)
        data = read_picture(file).data
        made.append(Control(KINDS[kind.strip().lower()], data, weight, 1.0 if until is None else until, is_map))
    return tuple(made)


def referred(options: Sequence[str]) -> tuple[Reference, ...]:
    """`--reference FILE[:WEIGHT]` as references. Raises `Invalid`."""
    files = [_weighted(text) for text in options]
    return tuple(Reference(read_picture(file).data, weight) for file, weight in files)


def _weighted(text: str) -> tuple[Path, float]:
    """`FILE:0.8` as a file and its weight: a number behind the last colon is one."""
    file, _, last = text.rpartition(":")
    try:
        weight = float(last)
    except ValueError:
        return Path(text), 1.0
    return (Path(file), weight) if file else (Path(text), 1.0)


def _add(studio: Studio, said: Request, terminal: Terminal) -> None:
    assert said.path is not None
    assert said.kind is not None
    terminal.note(f"Reading {said.path} whole, to see that nothing is missing.")
    wanted = Wanted(said.as_name, said.licence, said.commercial)
    net = controls.add(said.path, KINDS[said.kind], wanted, studio.settings.home)
    sold = "may be sold" if net.commercial else "not for commercial use as far as we know"
    line = f"{net.name} reads {net.kind} for {net.family} bases; licence {net.licence}, {sold}."
    terminal.result(_facts(net), [line, f"Use it: atelier draw PROMPT --control {net.kind}:FILE"])


def _facts(net: Net) -> dict[str, Any]:
    return net.model_dump() | {"folder": str(net.folder)}


def _rows(nets: Sequence[Net]) -> list[str]:
    columns = [(net.name, net.kind, net.family, net.licence) for net in nets]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    return ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in columns]

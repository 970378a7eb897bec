"""Loads `prompts/`: word lists for the rules, templates per intent, examples. Data, and no Python, stands there."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "prompts"


@cache
def load(name: str) -> dict[str, Any]:
    """The table in `prompts/NAME.toml`."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def words(section: str, name: str) -> tuple[str, ...]:
    """One word list of words.toml; the longest entries come first, as a pattern has to try them first."""
    return tuple(sorted(load("words")[section][name], key=len, reverse=True))


def filled(genre: str, values: Mapping[str, str]) -> str:
    """The template of `genre` with `values`: parts with an empty variable fall out. KeyError for an unknown one."""
    return ", ".join(part for template in load("templates")[genre]["parts"] if (part := _part(template, values)))


def _part(template: str, values: Mapping[str, str]) -> str:
    fields = [field for _, field, _, _ in Formatter().parse(template) if field]
    return template.format_map(values) if all(map(values.__getitem__, fields)) else ""


def examples() -> Sequence[dict[str, Any]]:
    """Every few-shot example: text, what is there (last picture, attachments), and the intent that it means."""
    files = sorted((FOLDER / "examples").glob("*.toml"))
    return [example for file in files for example in tomllib.loads(file.read_text(encoding="utf-8"))["example"]]

"""What the documents name exists."""

import re
from pathlib import Path

import pytest

from bot.__main__ import _parser
from bot.commands.terminal import DONE, INTERRUPTED, LATER, MISTAKE, OURS
from engine.errors import AtelierError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BAD_INPUT = (ROOT / "docs" / "bad-input.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "NOTICE", *sorted((ROOT / "docs").glob("*.md"))]


def help_of(command: str, capsys: pytest.CaptureFixture[str], *part: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        _parser().parse_args([command, *part, "--help"])
    return capsys.readouterr().out


def test_the_readmes_make_targets_exist() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE))
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named >= {"demo", "run"}
    assert named <= made


def test_the_readmes_commands_and_their_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(r"`atelier ([a-z]+)([^`]*)`", README)
    assert {command for command, _ in rows} >= {"draw", "edit", "grid", "train", "loras", "chat", "demo", "doctor"}
    for command, rest in rows:
        part = re.match(r" ([a-z]+)\b", rest)  # `loras import`: a command of a command
        known = help_of(command, capsys, *(part.groups() if part else ()))
        assert all(option in known for option in re.findall(r"--?[a-z]+", rest)), (command, rest)


def test_the_readmes_exit_codes_are_the_programs() -> None:
    said = re.search(r"Exit codes: ([^.]*)\.", README.replace("\n", " "))
    assert said
    assert [int(code) for code in re.findall(r"\b\d+\b", said[1])] == [DONE, MISTAKE, LATER, OURS, INTERRUPTED]


def test_every_code_in_the_table_of_bad_input_is_one_of_ours() -> None:
    def below(error: type[AtelierError]) -> list[type[AtelierError]]:
        return [error, *(deeper for child in error.__subclasses__() for deeper in below(child))]

    codes = {error.code.fget(error.__new__(error)) for error in below(AtelierError)}  # type: ignore[attr-defined]
    named = set(re.findall(r"^\|[^|]*\| \d+ \| `([a-z_]+)`", BAD_INPUT, re.MULTILINE))
    assert named
    assert named <= codes


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert all((document.parent / target).exists() for target in targets)


def test_the_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert "NAME" in text  # placeholders are left out below
    named = re.findall(r"(?<![\w/])((?:bot|engine)/[\w/]+(?:\.py|/))", text)
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing

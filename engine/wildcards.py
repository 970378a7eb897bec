"""Words to choose from in a prompt, chosen before there is a plan: what a plan and a recipe hold is the choice.

    {a|b}  {0.7::a|b}               one of these; a weight says how often
    {2$$a|b|c}  {1-2$$ and $$a|b}   several of them, joined by “, ” or by what stands between the $$
    __animals__                     a line of wildcards/animals.txt in the home

`\\` before a mark makes it a plain character; so is a brace without its partner, and a pair without a bar. The marks
are sd-dynamic-prompts' (docs/SYNTAX.md).
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import Invalid
from engine.files import read_bounded

MAX_DEPTH = 16
MAX_CHOICES = 500  # that one prompt may ask for, wildcards within wildcards included
MAX_CHARACTERS = 20_000  # of a prompt while it is being resolved
MAX_FILE, MAX_LINES = 1_000_000, 20_000
FOLDER = "wildcards"

_CHOICE = re.compile(r"\\[\\{}|_]|[{}|]|__(?P<file>[^\W_](?:[\w /-]{0,60}?[^\W_])?)__")
_SEVERAL = re.compile(r"\s*(\d{1,3})(?:\s*-\s*(\d{1,3}))?\s*\$\$")
_SEPARATOR = re.compile(r"([^{}|$]*)\$\$")
_OFTEN = re.compile(r"\s*(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})::")

Lines = Callable[[str], Sequence[str]]


def no_files(name: str) -> Sequence[str]:
    """For `resolved`, where there is no folder of wildcards."""
    raise Invalid(f"__{name}__", "there are no wildcards here", "Write the words themselves: {a|b}.")


def wildcards(home: Path, is_prose: bool = False) -> Lines:
    """What `__NAME__` stands for: the lines of wildcards/NAME.txt in the home, less the empty ones and `# remarks`.

    A name has letters, digits, “-”, “_”, “/” and spaces, so it leads nowhere else; nor does a link in the folder. In
    prose (`is_prose`) `__bold__` is bold, as long as the home has no such folder.
    """
    folder = home / FOLDER

    def lines(name: str) -> Sequence[str]:
        file = folder.joinpath(*name.split("/")).with_suffix(".txt")
        what = f"__{name}__"
        if is_prose and not folder.is_dir():
            return [f"\\{what}"]
        try:
            if not file.resolve().is_relative_to(folder.resolve()):
                raise FileNotFoundError
            text = read_bounded(file, MAX_FILE).decode("utf-8-sig")
        except (OSError, RuntimeError):
            todo = "Write one possibility a line into such a file, or \\__ for the characters themselves."
            raise Invalid(what, f"there is no {FOLDER}/{name}.txt in the home", todo) from None
        except ValueError as error:
            why = "it is not text in UTF-8" if isinstance(error, UnicodeError) else str(error)
            raise Invalid(what, why, f"Mend {FOLDER}/{name}.txt.") from None
        found = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if not 1 <= len(found) <= MAX_LINES:
            raise Invalid(what, f"its file has {len(found):,} lines", f"Give it 1 to {MAX_LINES:,}.")
        return found

    return lines


def has_choices(text: str) -> bool:
    """Whether anything in it may be up to the seed."""
    return any(mark[0] == "{" or mark["file"] for mark in _CHOICE.finditer(text))


def resolved(text: str, seed: int, lines: Lines = no_files, stream: str = "") -> str:
    """`text` with every choice made, by `seed` alone: the same seed gives the same words, on any machine.

    `stream` keeps two texts of one seed apart (prompt and negative). Text without a mark comes back as it is. Raises
    `Invalid` for a wildcard that there is not, and for choices without end.
    """
    return _Chooser(random.Random(f"{seed} {stream}"), lines).text(text, 0)


class _Chooser:
    def __init__(self, dice: random.Random, lines: Lines) -> None:
        self._dice = dice
        self._lines = lines
        self._left = MAX_CHOICES

    def text(self, text: str, depth: int) -> str:
        if depth > MAX_DEPTH or len(text) > MAX_CHARACTERS:
            raise Invalid("prompt", "its choices go on without end", "Nest fewer, and let no wildcard name itself.")
        ends = _groups(text)
        said: list[str] = []
        at = 0
        while mark := _CHOICE.search(text, at):
            said.append(text[at : mark.start()])
            at = mark.end()
            if mark["file"]:
                said.append(self.text(self._pick(list(self._lines(mark["file"])), 1)[0], depth + 1))
            elif mark.start() in ends:
                at = ends[mark.start()] + 1
                said.append(self._group(text[mark.end() : at - 1], depth + 1))
            else:
                said.append(_character(mark[0]))
        return "".join((*said, text[at:]))

    def _group(self, inner: str, depth: int) -> str:
        several = _SEVERAL.match(inner)
        join, rest = ", ", inner[several.end() :] if several else inner
        if several and (separator := _SEPARATOR.match(rest)):
            join, rest = separator[1], rest[separator.end() :]
        options = _options(rest)
        if not several and len(options) < 2:
            return f"{{{self.text(inner, depth)}}}"
        low = int(several[1]) if several else 1
        high = int(several[2] or low) if several else 1
        count = min(low, high) + int(self._dice.random() * (abs(high - low) + 1)) if low != high else low
        chosen = [self.text(option, depth) for option in self._pick(options, count)]
        if sum(map(len, chosen)) + len(join) * len(chosen) > MAX_CHARACTERS:
            raise Invalid("prompt", "its choices come to too much", f"Keep it under {MAX_CHARACTERS:,} characters.")
        return join.join(chosen)

    def _pick(self, options: list[str], count: int) -> list[str]:
        """`count` of them, none twice, in the order in which they were drawn; each as often as its weight says."""
        self._left -= 1
        if self._left < 0:
            raise Invalid("prompt", f"it asks for more than {MAX_CHOICES} choices", "Let no wildcard name itself.")
        weighed = [_weighed(option) for option in options]
        drawn: list[str] = []
        for _ in range(min(count, len(weighed))):
            place = self._dice.random() * math.fsum(weight for weight, _ in weighed)
            at = 0
            while at < len(weighed) - 1 and place >= weighed[at][0]:
                place -= weighed[at][0]
                at += 1
            drawn.append(weighed.pop(at)[1])
        return drawn


def _weighed(option: str) -> tuple[float, str]:
    """`0.7::red` → how often, and what."""
    often = _OFTEN.match(option)
    return (float(often[1]), option[often.end() :].strip()) if often else (1.0, option.strip())


def _character(mark: str) -> str:
    """A mark that stands for itself; two backslashes are left to who reads emphasis."""
    return mark[1] if mark[0] == "\\" and mark[1] != "\\" else mark


def _groups(text: str) -> dict[int, int]:
    """Where each brace that has a partner opens, and where it closes."""
    opened: list[int] = []
    ends: dict[int, int] = {}
    for mark in _CHOICE.finditer(text):
        if mark[0] == "{":
            opened.append(mark.start())
        elif mark[0] == "}" and opened:
            ends[opened.pop()] = mark.start()
    return ends


def _options(inner: str) -> list[str]:
    """`inner` at its own bars, and not at those of braces within."""
    ends = _groups(inner)
    options: list[str] = []
    begin = at = 0
    while mark := _CHOICE.search(inner, at):
        at = ends[mark.start()] + 1 if mark.start() in ends else mark.end()
        if mark[0] == "|":
            options.append(inner[begin : mark.start()])
            begin = at
    return [*options, inner[begin:]]

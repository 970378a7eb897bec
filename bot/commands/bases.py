"""bases [list] · bases add PATH_OR_ID · bases get ID · bases use NAME · bases check NAME."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.commands.terminal import Terminal
from bot.settings import choose_base, go_online
from bot.wiring import Studio
from engine import bases
from engine.bases import Base, adding, hub, memory
from engine.bases.adding import Wanted
from engine.bases.layouts import Prediction
from engine.errors import AtelierError, Fault, Invalid


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of bases; None and "" are not said."""

    what: str
    name: str | None
    as_name: str = ""
    licence: str = ""
    commercial: bool | None = None
    tokenizer: Path | None = None
    prediction: Prediction | None = None
    accept_licence: bool = False
    lora: Path | None = None
    out: Path | None = None

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.as_name, self.licence, self.commercial, self.tokenizer, self.prediction)


def bases_command(studio: Studio, said: Request, terminal: Terminal) -> int | None:
    """Exit code 2 where a check found the two pictures apart."""
    if said.what == "list":
        if said.name is not None:
            raise Invalid("bases list", f"it takes no name (“{said.name}”)", "`atelier bases` lists all.")
        return list_bases(studio, terminal)
    if said.name is None:
        todo = (
            "Say a folder, a .safetensors file or OWNER/NAME."
            if said.what in ("add", "get")
            else "See `atelier bases`."
        )
        raise Invalid(f"bases {said.what}", "which one is not said", todo)
    match said.what:
        case "add" if not hub.is_repo(said.name):
            add_base(studio, Path(said.name), said.wanted, terminal)
        case "add" | "get":
            get_base(studio, said.name, said, terminal)
        case "use":
            use_base(studio, said.name, terminal)
        case _:
            return check_base(studio, said.name, said.lora, said.out, terminal)
    return None


def list_bases(studio: Studio, terminal: Terminal) -> None:
    found = [(name, _found(studio, name)) for name in bases.names(studio.settings.home)]
    active = studio.settings.base.strip().lower()
    rows = [_row(name, base, name == active) for name, base in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    facts = [base_facts(b, name == active) if isinstance(b, Base) else {"name": name, "error": b.message}
             for name, b in found]  # fmt: skip
    terminal.result({"bases": facts}, lines)


def add_base(studio: Studio, path: Path, wanted: Wanted, terminal: Terminal) -> None:
    if path.is_file():
        terminal.note(f"Adding {path}; a large checkpoint takes some minutes.")
    _tell(adding.add(path, wanted, studio.settings.home), terminal)


def get_base(studio: Studio, repo: str, said: Request, terminal: Terminal) -> None:
    """Download it; only with the person's word for its licence, which is shown first."""
    name = adding.free_name(said.as_name or repo.rpartition("/")[2], studio.settings.home)
    go_online()
    offer = hub.ask(repo)
    terms = said.wanted.terms(offer.licence, repo)
    terminal.note(f"{repo}: licence {terms.licence}, {_sold(terms.commercial)}; {offer.page}")
    if not said.accept_licence:
        todo = f"Read it at {offer.page}, then say the same with --accept-licence."
        raise Invalid("licence", f"{repo} is under “{terms.licence}”, which nobody has accepted yet", todo)
    terminal.note(f"Downloading it as {name}.")
    _tell(hub.get(offer, said.wanted, studio.settings.home, terminal.note), terminal)


def use_base(studio: Studio, name: str, terminal: Terminal) -> None:
    base = studio.base(name)
    base.check_whole()
    overriding = choose_base(studio.settings.file, base.name)
    lines = [f"{base.title} is drawn on from now on; a service that runs takes it when it starts next."]
    if overriding:
        lines.append(f"But {overriding} is set, and goes before settings.toml: unset it.")
    terminal.result({"base": base.name, "settings": str(studio.settings.file), "overridden_by": overriding}, lines)


def check_base(studio: Studio, name: str, lora: Path | None, out: Path | None, terminal: Terminal) -> int | None:
    """Our picture beside plain diffusers', in a process of its own; the report to paste."""
    base = studio.base(name)
    if lora is not None and not lora.is_file():
        raise Invalid("--lora", f"there is no file {lora}", "Name a .safetensors file.")
    task = {"base": base.name, "home": str(studio.settings.home), "lora": str(lora.absolute()) if lora else None,
            "out": str(out) if out else None}  # fmt: skip
    terminal.note("Drawing twice, with our pipeline and with plain diffusers.")
    words = [sys.executable, "-m", "engine.diffusion.compare", json.dumps(task)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise Fault("the comparison did not end", (done.stderr.strip().splitlines() or ["it was killed"])[-1][:300])
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if error := report.get("error"):
        raise Invalid(f"check {name}", error["message"].rstrip("."), error["hint"])
    terminal.result(report, report_lines(report))
    return None if report["alike"] else 2


def report_lines(report: dict[str, Any]) -> list[str]:
    """What a person pastes."""
    libraries = ", ".join(f"{name} {report[name]}" for name in ("python", "torch", "diffusers", "transformers", "peft"))
    lines = [
        f"base       {report['base']} ({report['family']}), sha256 {report['base_sha256'][:12]}, {report['licence']}",
        f"machine    {report['device']}, {report['dtype']}; {libraries}",
        f"picture    “{report['prompt']}”, seed {report['seed']}, {report['size']}, {report['steps']} steps of "
        f"{report['sampler']}, guidance {report['guidance']:g}",
    ]
    for one in report["pictures"]:
        name = f"with {one['lora']}" if one["lora"] else "bare"
        verdict = "alike" if one["alike"] else "APART"
        lines.append(
            f"{name}: {verdict}; latents {one['latents_relative_l2']:.1e} apart (limit {report['limit']:g}), pixels "
            f"{one['pixels_max']:g} at most, {one['pixels_mean']:.4f} in the mean, of 255; {one['seconds']:.2f} s, "
            f"diffusers {one['seconds_diffusers']:.2f} s"
        )
    said = "the same picture as plain diffusers" if report["alike"] else "another picture than plain diffusers"
    return [*lines, f"verdict    {said}"]


def base_facts(base: Base, active: bool) -> dict[str, Any]:
    """What `--json` says of a base; bytes."""
    facts = {
        name: getattr(base, name) for name in ("name", "title", "family", "licence", "commercial", "source", "accepted")
    }
    needs = {kind: memory.need(base, gpu)._asdict() for kind, gpu in (("gpu", True), ("cpu", False))}
    modes = {mode: place._asdict() for mode, place in memory.needs(base, base.precision).items()}
    where = {"folder": str(base.folder), "disk": memory.disk(base.folder)}
    return facts | where | {"needs": needs, "modes": modes, "active": active}


def _row(name: str, base: Base | AtelierError, active: bool) -> tuple[str, ...]:
    mark = "*" if active else " "
    if isinstance(base, AtelierError):
        return mark, name, "?", "", base.message, "", ""
    size = f"{memory.disk(base.folder) / 1e9:.2f} GB"
    return mark, name, base.family, size, base.licence, _sold(base.commercial), f"needs {memory.said(base)}"


def _found(studio: Studio, name: str) -> Base | AtelierError:
    """A base whose manifest or whose files cannot be read is listed with the reason."""
    try:
        base = studio.base(name)
        memory.need(base, gpu=False)
    except AtelierError as error:
        return error
    return base


def _sold(commercial: bool) -> str:
    return "commercial use allowed" if commercial else "not for commercial use"


def _tell(base: Base, terminal: Terminal) -> None:
    lines = [
        f"{base.name}: {base.family}, {memory.disk(base.folder) / 1e9:.2f} GB",
        f"Licence {base.licence}, {_sold(base.commercial)}.",
        f"It needs {memory.said(base)}.",
        f"`atelier bases use {base.name}` draws on it.",
        f"`atelier bases check {base.name}` compares it with plain diffusers.",
    ]
    if base.licence == adding.UNKNOWN:
        file = base.folder / bases.MANIFEST
        lines.insert(
            2, f"No licence is stated, so it counts as not for commercial use; {file} says it, if you know better."
        )
    terminal.result(base_facts(base, False), lines)

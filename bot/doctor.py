"""What works on this machine, and what to do about the rest. It ends with a picture drawn, which settles most of it."""

import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from bot.settings import SECRET, Llm, Settings, is_url, read_settings, secrets_in
from bot.wiring import Studio, door_names
from engine import bases
from engine.bases import memory
from engine.errors import AtelierError, Invalid
from engine.files import reading
from engine.plans import ImagePlan
from engine.queue import Saved

DISK_LOW_GB, MEMORY_LOW_GB = 1.0, 2.0
FOR_A_GPU = "black-forest-labs/FLUX.2-klein-4B"  # docs/bases.md says why


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok` is None where it is only told; `todo` says how to mend what is not ok."""

    what: str
    ok: bool | None
    found: str
    todo: str = ""


async def examine(studio: Studio, trouble: Invalid | None = None) -> tuple[Finding, ...]:
    """`trouble` is what the settings could not be read for; the studio then has the bare ones."""
    with reading(studio.settings.home):
        findings = [look(studio) for look in (_python, _torch, _machine, _gpu, _memory, _home, _disk, _loras)]
        findings.append(_settings(studio.settings, trouble))
    findings += [_door(name, studio.settings) for name in sorted(studio.settings.doors)]
    findings += [await _model(llm)] if (llm := studio.settings.llm) else []
    return (*findings, await _drawing(studio))


def can_draw(findings: tuple[Finding, ...]) -> bool:
    return findings[-1].ok is True


def as_data(findings: tuple[Finding, ...]) -> dict[str, object]:
    return {"can_draw": can_draw(findings), "findings": [asdict(finding) for finding in findings]}


def as_lines(findings: tuple[Finding, ...]) -> list[str]:
    marks = {True: "ok", False: "no", None: "  "}
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{marks[finding.ok]}  {finding.what:<8} {finding.found}")
        if finding.todo:
            lines.append(f"    {'':<8} → {finding.todo}")
    return lines


def _python(_: Studio) -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("python", good, platform.python_version(), "" if good else "Install Python 3.11 or newer.")


def _torch(_: Studio) -> Finding:
    names = ("torch", "diffusers", "transformers", "safetensors")
    try:
        found = ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        return Finding("torch", False, f"{error.name} is not installed", "Run `make clean run`, or `pip install .`.")
    return Finding("torch", True, found)


def _machine(_: Studio) -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    enough = pages >= MEMORY_LOW_GB
    found = f"{platform.system()} {platform.machine()}, {cores} cores, {pages:.0f} GB of memory"
    return Finding("machine", enough, found, "" if enough else "Training takes about 2 GB; close other programs.")


def _gpu(studio: Studio) -> Finding:
    try:
        asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return Finding("gpu", None, "no NVIDIA GPU; drawing on the CPU")
    found = "; ".join(done.stdout.strip().splitlines())
    if "+cpu" in version("torch"):
        return Finding("gpu", False, f"{found}, but torch is the CPU build", "Run `make run TORCH=cuda`.")
    only_pocket = bases.names(studio.settings.home) == bases.names()
    todo = f"It can draw with more than Pocket: `atelier bases get {FOR_A_GPU} --name klein`." if only_pocket else ""
    return Finding("gpu", True, found, todo)


def _memory(studio: Studio) -> Finding:
    """What the base takes in each memory mode, on a GPU or, where there is none, of this machine's memory."""
    try:
        base, wanted = studio.base(), studio.settings.memory
        if not _has_gpu():
            free, takes = memory.free_memory(), memory.need(base, gpu=False).bare
            enough = free is None or takes <= free
            known = "?" if free is None else f"{free / 1e9:.1f} GB"
            found = f"mode {wanted}; {base.name} takes {takes / 1e9:.1f} GB, and {known} is free"
            return Finding("memory", enough, found, "" if enough else "Close other programs, or take a smaller base.")
        modes = memory.needs(base, base.precision).items()
    except AtelierError as error:
        return Finding("memory", None, error.message)
    each = ", ".join(f"{mode} {place.device / 1e9:.1f}" for mode, place in modes)
    return Finding("memory", None, f"mode {wanted}; GB of the GPU that {base.name} takes: {each}")


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None and "+cpu" not in version("torch")


def _home(studio: Studio) -> Finding:
    home = studio.settings.home
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    good = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    todo = "" if good else "Name another folder: --home DIR, or ATELIER_HOME."
    return Finding("home", good, f"{home} {'can' if good else 'cannot'} be written", todo)


def _disk(studio: Studio) -> Finding:
    home = studio.settings.home
    free = shutil.disk_usage(next(folder for folder in (home, *home.parents) if folder.exists())).free / 1e9
    good = free >= DISK_LOW_GB
    return Finding("disk", good, f"{free:.1f} GB free under {home}", "" if good else "Free some space, or move --home.")


def _loras(studio: Studio) -> Finding:
    """Reads each weights file against the hash on its card."""
    cards = studio.catalog.list()
    broken: list[str] = []
    for card in cards:
        try:
            studio.catalog.weights(studio.catalog.ref(card.name))
        except AtelierError:
            broken.append(card.name)
    if broken:
        return Finding(
            "loras", False, f"not as their cards say: {', '.join(broken)}", "Put these files back, or train anew."
        )
    return Finding("loras", True, f"{len(cards)} readable")


def _settings(settings: Settings, trouble: Invalid | None) -> Finding:
    if trouble:
        return Finding("settings", False, trouble.message, trouble.hint)
    file = settings.file
    if not file.exists():
        return Finding("settings", None, f"no {file}: all as it comes", "`atelier init` asks and writes it.")
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077 and any(secrets_in(read_settings(file))):
        found = f"{file} holds secrets, and others on this machine may read it (mode {mode:o})"
        return Finding("settings", False, found, f"chmod 600 {shlex.quote(str(file))}")
    return Finding("settings", True, str(file))


def _door(name: str, settings: Settings) -> Finding:
    """What its platform says of a door's section; and that what is to be an address is one."""
    known = door_names()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        todo = f"Did you mean {near[0]}?" if near else f"Remove [doors.{name}]; there are {', '.join(known)}."
        return Finding(name, False, "there is no door of that name", todo)
    try:
        settings.door(name, import_module(f"bot.platforms.{name}").Settings)
    except Invalid as error:
        return Finding(name, False, error.message, error.hint)
    if wrong := list(_wrong(f"doors.{name}", settings.doors[name])):
        return Finding(name, False, "; ".join(wrong), f"Correct it in {settings.file}, or run `atelier init`.")
    return Finding(name, True, "its settings are sound")


def _wrong(at: str, said: Mapping[str, Any]) -> Iterator[str]:
    for key, value in said.items():
        if isinstance(value, Mapping):
            yield from _wrong(f"{at}.{key}", cast(Mapping[str, Any], value))
        elif key.endswith("_url") and value and not is_url(str(value)):
            yield f"{at}.{key} is no http or https URL"
        elif value in ("", []) and SECRET.search(key):
            yield f"{at}.{key} is empty"


async def _model(llm: Llm) -> Finding:
    from bot.llm import check

    why = await check(llm)
    named = f"{llm.model} at {llm.base_url}"
    if why:
        return Finding(
            "llm", False, f"{named}: {why}", "Until it answers, rules read messages; `atelier init` mends it."
        )
    return Finding("llm", True, f"{named} answers")


async def _drawing(studio: Studio) -> Finding:
    """The smallest picture that the base draws, one step."""
    try:
        base = studio.base()
        side = base.size.min
        plan = ImagePlan("a test", base.name, 0, side, side, 1, 1.0, base.defaults.sampler)
        made_with = await _drawn(studio, plan)
    except AtelierError as error:
        return Finding("drawing", False, error.message, error.hint)
    mode = f", memory mode {made_with['memory']}" if made_with.get("memory", "full") != "full" else ""
    threads = "1 thread" if made_with["threads"] == 1 else f"{made_with['threads']} threads"
    return Finding("drawing", True, f"{base.title} draws on {made_with['device']}, {threads}{mode}")


async def _drawn(studio: Studio, plan: ImagePlan) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        async with aclosing(studio.queue.follow(plan, Path(folder))) as events:
            async for event in events:
                if isinstance(event, Saved):
                    return event.pictures[0].recipe["made_with"]
    raise TypeError("a drawing ended without a picture")

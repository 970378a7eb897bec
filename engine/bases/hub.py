"""A model of the Hugging Face hub becomes a base. The one place that uses a network, and only when a person says `get`.

Safetensors and configuration alone are fetched, never code and never a pickle. What has arrived stays in
HOME/bases/.new until all of it has, so that a second try goes on where the first one broke off.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from engine.bases import Base
from engine.bases.adding import INDEX, UNKNOWN, Wanted, add_folder, check_room, chosen, free_name, read_config
from engine.bases.models import model_of
from engine.errors import Gated, Invalid, Unreachable
from engine.files import NEW, writing

REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Offer:
    """What the hub says of a model at one commit: `files` by name with their bytes (0: not said), and some's sha256."""

    repo: str
    commit: str
    licence: str
    page: str
    files: dict[str, int]
    hashes: dict[str, str]


def is_repo(said: str) -> bool:
    """Whether it has the form OWNER/NAME, and is no path that is there."""
    return bool(REPO.fullmatch(said)) and not Path(said).exists()


def ask(repo: str) -> Offer:
    """What the hub says of `repo`. Raises `Invalid` (there is none), `Gated`, `Unreachable`."""
    if not REPO.fullmatch(repo):
        raise Invalid("get", f"“{repo[:60]}” is no model of the hub", "Say OWNER/NAME, as its page has it.")
    import huggingface_hub as library

    hub: Any = library
    api = hub.HfApi()
    page = f"{api.endpoint}/{repo}"
    with _told(repo, page):
        info = api.model_info(repo, files_metadata=True)
    card: Any = info.card_data or {}
    names = card.get("license_name") if card.get("license") in (None, "other") else card.get("license")
    licence = ", ".join(names) if isinstance(names, list) else str(names or UNKNOWN)  # pyright: ignore
    files = {str(file.rfilename): int(file.size or 0) for file in info.siblings or ()}
    hashes = {str(f.rfilename): str(f.lfs.sha256) for f in info.siblings or () if f.lfs}
    if not re.fullmatch(r"[0-9a-f]{40}", str(info.sha)):  # it becomes part of a path
        raise Invalid(repo, "the hub names no commit of it", "Check HF_ENDPOINT, which is asked in the hub's place.")
    return Offer(repo, str(info.sha), licence, page, files, hashes)


def get(offer: Offer, wanted: Wanted, home: Path, note: Note) -> Base:
    """Download what a base needs of the model, and make it one. Raises `Gated`, `Unreachable`, `NoRoom`, `Invalid`.

    Whoever calls this has the person's word for the licence.
    """
    name = free_name(wanted.name or offer.repo.partition("/")[2], home)
    if INDEX not in offer.files:
        todo = "Download its .safetensors checkpoint yourself, and `atelier bases add FILE`."
        raise Invalid(offer.repo, "it has no diffusers layout", todo)
    folder = home / "bases" / NEW / f"{offer.repo.replace('/', '--')}-{offer.commit[:12]}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    model = model_of(_index(offer, folder), offer.repo)
    files = chosen(offer.files, model, offer.repo, half=True)
    missing = [file for file in files if not (folder / file).exists()]
    check_room(home, sum(offer.files[file] for file in missing))
    for number, file in enumerate(files, 1):
        if file in missing:
            note(f"{number}/{len(files)} {file} ({offer.files[file] / 1e6:,.1f} MB)")
            _fetched(offer, file, folder)
    said = wanted.terms(offer.licence, f"{offer.repo}@{offer.commit}", datetime.now(UTC).date().isoformat())
    base = add_folder(folder, name, wanted, home, said)
    with writing(folder):
        shutil.rmtree(folder)
    return base


def _index(offer: Offer, folder: Path) -> dict[str, Any]:
    """What the model is made of; a page in its place is not kept, so that the next try asks anew."""
    file = _fetched(offer, INDEX, folder)
    try:
        return read_config(file)
    except Invalid:
        file.unlink()
        raise


def _fetched(offer: Offer, file: str, folder: Path) -> Path:
    """FOLDER/FILE, whole: what an earlier try left of it is gone on from (the library's own download begins anew)."""
    import huggingface_hub as library
    from huggingface_hub import file_download

    hub, download, path = cast(Any, library), cast(Any, file_download), folder / file
    if path.exists():
        return path
    part = path.with_name(f"{path.name}.part")
    with _told(offer.repo, offer.page), writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as out:
            url, size = hub.hf_hub_url(offer.repo, file, revision=offer.commit), offer.files[file] or None
            headers = library.utils.build_hf_headers()
            download.http_get(url, out, resume_size=part.stat().st_size, headers=headers, expected_size=size)
        _check_hash(part, file, offer)
        part.replace(path)
    return path


def _check_hash(part: Path, file: str, offer: Offer) -> None:
    """Raise `Invalid`, and throw the file away, where the hub says another sha256 of it."""
    wanted = offer.hashes.get(file)
    if wanted is None:
        return
    with part.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != wanted:
        part.unlink()
        raise Invalid(file, "what arrived is not what the hub has: its sha256 differs", "Ask again.")


@contextmanager
def _told(repo: str, page: str) -> Generator[None]:
    """Turn what the hub's library raises inside into ours."""
    import huggingface_hub.errors as library

    errors: Any = library
    try:
        yield
    except errors.GatedRepoError:
        raise Gated(repo, page) from None
    except errors.RepositoryNotFoundError:
        todo = f"Check the name at {page}; for a private one set HF_TOKEN."
        raise Invalid(repo, "there is no such model, or it is private", todo) from None
    except errors.HfHubHTTPError as error:
        if getattr(error.response, "status_code", 0) in (401, 403):
            raise Gated(repo, page) from None
        raise Unreachable(repo, _brief(error)) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HTTPError) as error:
        raise Unreachable(repo, _brief(error)) from None
    except OSError as error:
        if error.errno is None:  # a download that ended before its end
            raise Unreachable(repo, _brief(error)) from None
        raise


def _brief(error: Any) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__

"""A model hub on this machine: what huggingface_hub asks for, of one folder; it can be gated, or break off."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPO, COMMIT = "someone/small-model", "a" * 40


class Hub:
    """`asked` has each request's method, path and Range. With `breaks` a file of that name stops half-way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, str]] = []
        self.licence = "openrail"
        self.gated = False
        self.breaks = ""
        self.false_hash = ""
        self.url = ""

    def info(self) -> dict[str, Any]:
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        names = [self.entry(file) for file in files]
        card = {"license": self.licence}
        return {"id": REPO, "modelId": REPO, "sha": COMMIT, "cardData": card, "gated": self.gated, "siblings": names,
                "tags": [], "private": False, "downloads": 0, "likes": 0}  # fmt: skip

    def entry(self, file: Path) -> dict[str, Any]:
        size, found = file.stat().st_size, self.false_hash or hashlib.sha256(file.read_bytes()).hexdigest()
        lfs = {"lfs": {"sha256": found, "size": size, "pointerSize": 134}} if file.suffix == ".safetensors" else {}
        return {"rfilename": file.relative_to(self.folder).as_posix(), "size": size} | lfs

    def fetched(self) -> list[str]:
        """The files whose bytes were asked for."""
        marker = f"/resolve/{COMMIT}/"
        return [path.partition(marker)[2] for method, path, _ in self.asked if method == "GET" and marker in path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        file = self.hub.folder / path.partition(f"/{REPO}/resolve/{COMMIT}/")[2]
        if path.startswith(f"/api/models/{REPO}"):
            self.send(json.dumps(self.hub.info()).encode(), {"Content-Type": "application/json"})
        elif not path.startswith(f"/{REPO}/"):
            self.refuse("RepoNotFound", 404)
        elif not file.is_file():
            self.refuse("EntryNotFound", 404)
        elif self.hub.gated:
            self.refuse("GatedRepo", 403)
        else:
            self.give(file)

    def refuse(self, code: str, status: int) -> None:
        self.send(b"", {"X-Error-Code": code, "X-Error-Message": "no"}, status)

    def give(self, file: Path) -> None:
        data = file.read_bytes()
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        half = (len(data) - start) // 2 if file.name == self.hub.breaks else None
        self.send(data[start:], headers, 206 if asked else 200, half)

    def send(self, body: bytes, headers: dict[str, str], status: int = 200, half: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:half])
            self.close_connection = half is not None


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

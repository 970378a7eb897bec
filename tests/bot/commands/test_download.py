"""bot/commands/download.py: https alone, public addresses alone, and no more than asked for."""

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from bot.commands.download import NoAnswer, download, is_public
from engine.errors import Invalid


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111"])
def test_what_anyone_reaches_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "2002:7f00:1::",
     "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "fec0::1", "::7f00:1", "::ffff:0:7f00:1", "", "x"],
)  # fmt: skip
def test_what_only_we_reach_is_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/x", "begins with http://"),
        ("ftp://example.com/x", "begins with ftp://"),
        ("https://127.0.0.1/x", "on this machine"),
        ("https://[::1]/x", "on this machine"),
        ("https://[::ffff:10.0.0.1]/x", "on this machine"),
        ("https://192.168.0.1:8443/x", "on this machine"),
        ("https://me:secret@example.com/x", "a name or a password"),
        ("https://127。0。0。1/x", "other letters"),
        ("https://①27.0.0.1/x", "other letters"),
        ("https://%31%32%37.0.0.1/x", "other letters"),
        ("https://", "names no server"),
        ("https://[/x", "names no server"),
        ("https://example.com:99999/x", "names no server"),
    ],
)
async def test_addresses_that_are_not_fetched(url: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        await download(url, 100)


@pytest.mark.parametrize("found", [["10.0.0.5"], ["1.1.1.1", "127.0.0.1"], ["::1"]])
async def test_a_public_name_of_a_private_place_is_not_fetched(found: list[str]) -> None:
    async def look_up(_host: str, _port: int) -> list[str]:
        return found

    with pytest.raises(Invalid, match="on this machine or its network"):
        await download("https://files.example/x", 100, look_up)


async def test_a_number_that_a_name_server_reads_as_an_address_is_judged() -> None:
    """http://2130706433/ is 127.0.0.1 to many a client."""
    with pytest.raises((Invalid, NoAnswer)):
        await download("https://2130706433/x", 100)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=files.example -addext subjectAltName=DNS:files.example"
    subprocess.run(["openssl", *words.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return key, cert


ANSWERS: dict[str, tuple[int, dict[str, str]]] = {  # what is asked for → status and headers
    "good": (200, {"Content-Disposition": 'attachment; filename="../a.st"'}),
    "packed": (200, {"Content-Encoding": "gzip"}),
    "inside": (302, {"Location": "https://127.0.0.1/secret"}),
    "plain": (302, {"Location": "http://files.example/good"}),
    "round": (302, {"Location": "/round"}),
    "login": (401, {}),
    "nothing": (404, {}),
}


async def answer(request: web.Request) -> web.StreamResponse:
    if (what := request.match_info["what"]) in ANSWERS:
        status, headers = ANSWERS[what]
        return web.Response(body=b"x" * 100, status=status, headers=headers)
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1_000):
        await response.write(b"x" * 10_000)
    return response


@asynccontextmanager
async def serving(pems: tuple[Path, Path]) -> AsyncIterator["Site"]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pems[1], pems[0])
    app = web.Application()
    app.router.add_get("/{what}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield Site(runner.addresses[0][1], ssl.create_default_context(cafile=str(pems[1])))
    finally:
        await runner.cleanup()


class Site:
    """A server with a certificate of its own, which stands for one on the internet."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self.port, self.trust = port, trust

    async def get(self, what: str, most: int = 1_000) -> tuple[str, bytes]:
        async def look_up(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        once = iter([True])  # the server itself counts as public; nothing that it leads to does
        url = f"https://files.example:{self.port}/{what}"
        return await download(url, most, look_up, lambda _: next(once, what == "round"), self.trust)


async def test_a_file_is_fetched_and_its_name_is_a_label(pems: tuple[Path, Path]) -> None:
    async with serving(pems) as site:
        assert await site.get("good") == ("a.st", b"x" * 100)
        assert await site.get("good", most=100) == ("a.st", b"x" * 100)


@pytest.mark.parametrize(
    ("what", "most", "why"),
    [
        ("good", 99, "larger than 99 bytes"),
        ("endless", 50_000, "larger than 50,000 bytes"),
        ("inside", 1_000, "127.0.0.1 is on this machine"),
        ("plain", 1_000, "begins with http://"),
        ("round", 1_000, "leads on more than 5 times"),
        ("packed", 1_000, "sends it packed"),
        ("login", 1_000, "wants a login"),
        ("nothing", 1_000, "answers 404"),
    ],
)
async def test_what_a_server_may_not_do(pems: tuple[Path, Path], what: str, most: int, why: str) -> None:
    async with serving(pems) as site:
        with pytest.raises(Invalid, match=why):
            await site.get(what, most)


async def test_a_certificate_that_is_not_trusted_is_no_answer(pems: tuple[Path, Path]) -> None:
    async with serving(pems) as site:
        site.trust = ssl.create_default_context()
        with pytest.raises(NoAnswer, match="certificate is not trusted"):
            await site.get("good")

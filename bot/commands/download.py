"""A LoRA file from the web: https only, from a public address, no more bytes than a LoRA may have.

The name is looked up once and the connection goes to the very addresses that were judged, so that a name which points
elsewhere a moment later leads nowhere else. A redirect is judged as a new address is.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from engine.errors import Invalid, TryLater

MOST_HOPS = 5
WAIT = aiohttp.ClientTimeout(total=3_600, connect=20, sock_read=60)
REDIRECTS = (301, 302, 303, 307, 308)
NAMED = re.compile(r"""filename="?([^";]+)"?""", re.IGNORECASE)
GLOBAL = ipaddress.ip_network("2000::/3")  # what is given out of IPv6 (RFC 4291); elsewhere lie ways into IPv4
LookUp = Callable[[str, int], Awaitable[list[str]]]


@dataclass(eq=False)
class NoAnswer(TryLater):
    """The other side cannot be reached, or broke off."""

    host: str
    why: str

    @property
    def message(self) -> str:
        return f"{self.host} did not hand the file over: {self.why}."

    @property
    def hint(self) -> str:
        return "Try again later, or download it in a browser and import the file."


class Pinned(AbstractResolver):
    """Looks a name up, and lets nothing but public addresses through."""

    def __init__(self, look_up: LookUp, is_allowed: Callable[[str], bool]) -> None:
        self._look_up, self._is_allowed = look_up, is_allowed

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002
    ) -> list[ResolveResult]:
        found = await self._look_up(host, port)
        for address in found:
            if not self._is_allowed(address):
                raise _private(host)
        return [
            ResolveResult(hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                          family=socket.AF_INET6 if ":" in address else socket.AF_INET)
            for address in found
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is held."""


def is_public(address: str) -> bool:
    """Whether anyone on the internet would get to the same place: not this machine, not its network."""
    try:
        said = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = getattr(said, "ipv4_mapped", None) or getattr(said, "sixtofour", None)
    if said.version == 6 and inner is None and said not in GLOBAL:
        return False
    return said.is_global and not said.is_multicast and (inner is None or is_public(str(inner)))


async def look_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[4][0]) for place in found]


async def download(
    url: str,
    most: int,
    look_up: LookUp = look_up,
    is_allowed: Callable[[str], bool] = is_public,
    trust: ssl.SSLContext | None = None,
) -> tuple[str, bytes]:
    """(what the file is called, its bytes). `Invalid` for what we do not fetch, `NoAnswer` for what does not come."""
    connector = aiohttp.TCPConnector(
        resolver=Pinned(look_up, is_allowed), use_dns_cache=False, ssl=trust or ssl.create_default_context()
    )
    async with aiohttp.ClientSession(connector=connector, timeout=WAIT, cookie_jar=aiohttp.DummyCookieJar(),
                                     auto_decompress=False, trust_env=False) as session:  # fmt: skip
        for _ in range(MOST_HOPS):
            host = _checked(url, is_allowed)
            try:
                async with session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer:
                    if answer.status in REDIRECTS and "Location" in answer.headers:
                        url = urljoin(url, answer.headers["Location"])
                        continue
                    return _name(answer), await _body(answer, host, most)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise NoAnswer(host, _why(error)) from None
    raise Invalid("address", f"it leads on more than {MOST_HOPS} times", "Copy the address of the file itself.")


def _checked(url: str, is_allowed: Callable[[str], bool]) -> str:
    """The host; addresses that are numbers are judged here, as no name is looked up for them."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", None
    if parts is None or not host:
        raise Invalid("address", "it names no server", "Copy the address of the file, which begins with https://.")
    if not re.fullmatch(r"[a-z0-9.:_-]+", host):  # a client would make a plain address of "①27。0。0。1"
        raise Invalid("address", "its server's name has other letters than a-z", "Give the name as it is looked up.")
    if parts.scheme != "https":
        raise Invalid("address", f"it begins with {parts.scheme[:20]}://", "Only https:// is fetched.")
    if parts.username is not None or parts.password is not None:
        raise Invalid("address", "it holds a name or a password", "Download it in a browser and import the file.")
    if (":" in host or re.fullmatch(r"[0-9.]+", host)) and not is_allowed(host):
        raise _private(host)
    return host


async def _body(answer: aiohttp.ClientResponse, host: str, most: int) -> bytes:
    if answer.status in (401, 403):
        todo = "Log in there, download it in a browser, and import the file."
        raise Invalid("address", f"{host} wants a login for it", todo)
    if answer.status != 200:
        raise Invalid("address", f"{host} answers {answer.status}", "Check it in a browser.")
    too_large = Invalid("address", f"the file there is larger than {most:,} bytes", "Name a LoRA, not a whole model.")
    if (answer.content_length or 0) > most:
        raise too_large
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Invalid("address", f"{host} sends it packed", "Download it in a browser and import the file.")
    kept = bytearray()
    async for chunk in answer.content.iter_chunked(1 << 20):
        kept += chunk
        if len(kept) > most:
            raise too_large
    return bytes(kept)


def _name(answer: aiohttp.ClientResponse) -> str:
    """The last part of what the server calls it: a label, and never a path."""
    said = NAMED.search(answer.headers.get("Content-Disposition", ""))
    whole = said[1] if said else unquote(answer.url.path)
    return re.split(r"[/\\]", whole)[-1][:200] or "download.safetensors"


def _private(host: str) -> Invalid:
    todo = "Only files on the open internet are fetched; import a file of your own by its path."
    return Invalid("address", f"{host} is on this machine or its network", todo)


def _why(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "it took too long"
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLError() | aiohttp.ClientSSLError():
            return "its certificate is not trusted"
        case aiohttp.ClientConnectorError() | socket.gaierror():
            return "it cannot be reached"
        case _:
            return "the connection broke off"

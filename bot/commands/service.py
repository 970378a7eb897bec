"""run: the service, until it is told to stop."""

import asyncio
import resource
import signal
from contextlib import suppress
from ipaddress import ip_address

from bot.commands.terminal import Terminal
from bot.wiring import Studio, open_service
from engine.errors import Invalid

HANDLES = 65_536


async def serve(studio: Studio, host: str, port: int, terminal: Terminal) -> None:
    _take_handles()
    service = await open_service(studio)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with service.open(host, port) as at:
            shown = f"[{host}]" if ":" in host else host
            doors = ", ".join(sorted(service.doors))
            terminal.note(f"Atelier is at http://{shown}:{at}/ (doors: {doors}). Ctrl-C ends it.")
            if not _is_loopback(host):
                terminal.note("Whoever reaches this address may draw: put a proxy that knows people before it.")
            await stop.wait()
            terminal.note("Closing. What is unfinished is taken up at the next start.")
    except OSError as error:
        raise Invalid(
            "--port", f"{host}:{port} cannot be listened at ({error.strerror})", "Name another: --port N."
        ) from error


def _take_handles() -> None:
    """As many open files as we may have, up to `HANDLES`: each page and each connection is one, and 1,024 are usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = HANDLES if hard == resource.RLIM_INFINITY else min(hard, HANDLES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

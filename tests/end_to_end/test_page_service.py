"""The page before the whole service (desk, database, queue, worker process; only the engine is a quick one)."""

import asyncio
import base64
import json
import re
import shutil
import signal
import sys
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.bot.talking import pictures

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
from playwright.async_api import Page, async_playwright, expect  # noqa: E402

from tests.end_to_end.test_page import DROP, WIDTHS  # noqa: E402

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")


@asynccontextmanager
async def service(home: Path, port: int = 0) -> AsyncGenerator[tuple[str, asyncio.subprocess.Process]]:
    """The service as a process of its own; its address."""
    words = ("-m", "tests.fakes.service", "--home", str(home), "run", "--port", str(port))
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while not (found := re.search(r"http://\S+?(?=/)", line := (await process.stderr.readline()).decode())):
                assert line, "the service ended before it had an address"
        yield found[0], process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


@asynccontextmanager
async def browsing(width: int, address: str) -> AsyncGenerator[Page]:
    async with async_playwright() as engine:
        browser = await engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        person = await browser.new_context(viewport={"width": width, "height": 844}, base_url=address)
        page = await person.new_page()
        page.set_default_timeout(20_000)
        await page.goto("/")
        yield page
        await browser.close()


async def say(page: Page, text: str) -> None:
    box = page.get_by_label("Message", exact=True)
    await box.fill(text)
    await box.press("Enter")


@pytest.mark.parametrize("width", WIDTHS)
async def test_a_picture_why_a_training_and_its_use_with_a_reload_in_the_middle(width: int, tmp_path: Path) -> None:
    async with service(tmp_path) as (address, _), browsing(width, address) as page:
        await say(page, "Inky at the beach, seed 42")
        await expect(page.get_by_text("Here is Inky at the beach.")).to_be_visible()
        await page.get_by_role("button", name="Why?").click()
        await expect(page.get_by_text("The same seed without each LoRA")).to_be_visible()
        files = [[file.name, base64.b64encode(file.data).decode()] for file in pictures(12)]
        await page.evaluate(DROP, [files])
        await say(page, "train a character called Pip, trigger pqx, it is a penguin, 100 steps")
        await expect(page.get_by_text("training", exact=False).first).to_be_visible()
        await page.reload()
        await expect(page.get_by_text("“pip” is ready", exact=False)).to_be_visible()
        await expect(page.get_by_text("Here is Inky at the beach.")).to_have_count(1)
        await say(page, "Pip at the beach")
        await expect(page.get_by_text("Here is Pip at the beach.")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_a_service_that_dies_in_mid_picture_has_the_picture_after_its_next_start(tmp_path: Path) -> None:
    async with service(tmp_path) as (address, first), browsing(1280, address) as page:
        port = int(address.rpartition(":")[2])
        await say(page, "Inky at the beach, 60 steps, seed 42")
        await expect(page.locator(".job")).to_contain_text("of 60")
        with urllib.request.urlopen(f"{address}/health") as health:
            worker = json.load(health)["worker"]["pid"]
        first.kill()
        await first.wait()
        async with service(tmp_path, port):
            await expect(page.get_by_text("Here is Inky at the beach.")).to_be_visible()
            assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE

"""The page in a real browser, before a studio that answers at once: what a person does, at a desk and on a phone."""

import asyncio
import base64
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from bot.platforms.web import Settings, open_door
from tests.fakes.house import LORAS, FakeStudio, png

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
from playwright.async_api import Page, Route, async_playwright, expect  # noqa: E402

CHROMIUM = shutil.which("chromium")
WIDTHS = (1280, 390)
SCRIPT = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'
DROP = """([files]) => {
    const bring = new DataTransfer();
    for (const [name, text] of files) {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        bring.items.add(new File([bytes], name, { type: "image/png" }));
    }
    for (const kind of ["dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: bring, bubbles: true, cancelable: true }));
}"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")


@dataclass
class Desk:
    """A person before the page, and the studio behind it; `faults` is what the browser complained of."""

    page: Page
    studio: FakeStudio
    faults: list[str] = field(default_factory=list)

    async def say(self, text: str) -> None:
        box = self.page.get_by_label("Message", exact=True)
        await box.fill(text)
        await box.press("Enter")

    async def fits(self) -> None:
        assert await self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await self.page.evaluate("document.getElementById('scroller').scrollWidth <= scroller.clientWidth")

    async def button(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def shelf(self) -> None:
        """Open it where it is a drawer."""
        if await self.page.locator("#open-shelf").is_visible():
            await self.button("LoRAs")


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
async def desk(width: int) -> AsyncGenerator[Desk]:
    studio = FakeStudio()
    studio.door = open_door(Settings(), studio)
    site = web.Application()
    studio.door.mount(site, studio)
    runner = web.AppRunner(site, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with async_playwright() as engine:
        browser = await engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        viewport = {"width": width, "height": 844}
        person = await browser.new_context(viewport=viewport, base_url=f"http://{host}:{port}")
        page = await person.new_page()
        page.set_default_timeout(10_000)
        desk = Desk(page, studio)
        page.on("console", lambda said: desk.faults.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: desk.faults.append(str(error)))
        await page.goto("/")
        yield desk
        await browser.close()
    await studio.close()
    await runner.cleanup()
    assert desk.faults == []


async def test_a_picture_is_asked_for_seen_coming_and_asked_about(desk: Desk) -> None:
    page, studio = desk.page, desk.studio
    await expect(page.get_by_role("heading", name="What shall we draw?")).to_be_visible()
    await expect(page.locator(".example")).to_have_count(3)
    await desk.fits()
    studio.gate.clear()
    await desk.say("a red mug on a podium")
    await expect(page.locator(".bubble")).to_have_text("a red mug on a podium")
    await expect(page.get_by_alt_text("Preview of the picture so far")).to_be_visible()
    await expect(page.locator(".job")).to_contain_text("step 6 of 12")
    assert await page.locator("progress").evaluate("(bar) => bar.value") == pytest.approx(0.5)
    await expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    await desk.fits()
    studio.gate.set()
    picture = page.get_by_alt_text("a red mug")
    await expect(picture).to_be_visible()
    assert await picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == studio.size
    await desk.fits()
    await desk.button("Why?")
    await expect(page.get_by_text("Terracotta, as you asked for our brand")).to_be_visible()
    press = studio.taken[-1].press
    assert press
    assert (press.verb, press.of, press.picture) == ("why", studio.taken[0].key, 0)
    await page.get_by_role("button", name="The picture: open full size").click()
    await expect(page.get_by_role("dialog", name="Picture in full size")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_twelve_dropped_pictures_are_trained_on_and_what_was_learnt_is_used(desk: Desk) -> None:
    page, studio = desk.page, desk.studio
    files = [[f"pip-{k}.png", base64.b64encode(png(k)).decode()] for k in range(12)]
    await page.evaluate(DROP, [files])
    await expect(page.locator("#tray img")).to_have_count(12)
    await desk.button("Remove pip-11.png")
    await expect(page.locator("#tray img")).to_have_count(11)
    await page.evaluate(DROP, [files[11:]])
    await desk.fits()
    studio.gate.clear()
    await desk.say("train a character called Pip")
    await expect(page.locator(".job")).to_contain_text("step 600 of 1200 · loss 0.0840")
    await expect(page.locator(".job")).to_contain_text("about 60 s left")
    await expect(page.locator(".job")).to_contain_text("from 12 pictures, 1200 steps; trigger “pqx”")
    await expect(page.get_by_alt_text("Sample 1")).to_be_visible()
    await expect(page.locator("#tray img")).to_have_count(0)
    await desk.fits()
    studio.gate.set()
    await expect(page.get_by_text("Pip is learnt, from 12 pictures.")).to_be_visible()
    assert [file.data for file in studio.taken[0].attachments] == [png(k) for k in range(12)]
    await expect(page.locator("#cards .card")).to_have_count(4)
    await desk.button("Use it")
    box = page.get_by_label("Message", exact=True)
    await expect(box).to_have_value("Pip")
    await box.press_sequentially(" at the beach")
    await box.press("Enter")
    await expect(page.locator(".frame img")).to_be_visible()
    assert studio.taken[1].text == "Pip at the beach"
    await desk.fits()


async def test_a_reload_in_the_middle_comes_back_with_everything_and_goes_on(desk: Desk) -> None:
    page, studio = desk.page, desk.studio
    await desk.say("which LoRAs are there?")
    await expect(page.get_by_text("Inky, the mascot")).to_be_visible()
    studio.gate.clear()
    await desk.say("a red mug")
    await expect(page.locator(".job")).to_contain_text("step 6 of 12")
    await page.reload()
    await expect(page.locator(".bubble")).to_have_text(["which LoRAs are there?", "a red mug"])
    await expect(page.get_by_text("Inky, the mascot")).to_be_visible()
    await expect(page.locator(".job")).to_contain_text("step 6 of 12")
    studio.gate.set()
    await expect(page.locator(".frame img")).to_be_visible()
    await page.goto("about:blank")
    await page.goto("/")  # without the conversation in the address
    await expect(page.locator(".frame img")).to_be_visible()
    await expect(page.locator(".turn")).to_have_count(2)
    assert len(studio.taken) == 2


async def test_a_job_can_be_cancelled_and_a_refusal_looks_like_one(desk: Desk) -> None:
    page, studio = desk.page, desk.studio
    studio.gate.clear()
    await desk.say("a red mug")
    await desk.button("Cancel")
    await expect(page.get_by_text("Cancelled; nothing was drawn.")).to_be_visible()
    press = studio.taken[1].press
    assert press
    assert (press.verb, press.of) == ("cancel", studio.taken[0].key)
    await desk.say("nobody at the beach")
    await expect(page.locator(".trouble")).to_contain_text("There is no LoRA called “nobody”.")
    await expect(page.locator(".trouble")).to_contain_text("Did you mean Inky?")
    await desk.fits()


async def test_a_message_is_shown_at_once_and_sent_again_as_the_same_one_until_it_arrives(desk: Desk) -> None:
    page, studio = desk.page, desk.studio
    arrived: list[str] = []

    async def lose(route: Route) -> None:
        """The first is answered busy, the second arrives though its sender never hears of it, the third passes."""
        arrived.append(route.request.post_data_json["id"])
        if len(arrived) == 1:
            await route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": {}})
        elif len(arrived) == 2:
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    await page.route("**/api/chat", lose)
    await desk.say("which LoRAs are there?")
    await expect(page.locator(".bubble")).to_have_count(1)
    await expect(page.locator(".state")).to_contain_text("trying again")
    await expect(page.locator(".state")).to_have_text("")
    async with asyncio.timeout(10):
        while len(arrived) < 3:
            await asyncio.sleep(0.05)
    await expect(page.get_by_text("Inky, the mascot")).to_have_count(1)
    await expect(page.locator(".turn")).to_have_count(1)
    assert len(set(arrived)) == len(studio.taken) == 1
    assert all("429" in fault or "ERR_FAILED" in fault for fault in desk.faults)
    desk.faults.clear()  # the browser's own lines about those two


async def test_another_tab_of_the_conversation_sees_it_and_a_new_conversation_does_not(desk: Desk) -> None:
    page = desk.page
    other = await page.context.new_page()
    await other.goto(page.url)
    await desk.say("which LoRAs are there?")
    await expect(other.locator(".bubble")).to_have_text("which LoRAs are there?")
    await expect(other.get_by_text("Inky, the mascot")).to_be_visible()
    first = page.url
    await page.get_by_role("button", name="New").click()
    await expect(page.locator(".turn")).to_have_count(0)
    await expect(page.get_by_role("heading", name="What shall we draw?")).to_be_visible()
    assert page.url != first
    await page.go_back()
    await expect(page.locator(".bubble")).to_have_text("which LoRAs are there?")


async def test_a_script_in_a_name_is_only_words(desk: Desk) -> None:
    page, studio = desk.page, desk.studio
    await page.goto("about:blank")  # what it was loading is there no more
    studio.loras = [LORAS[0].model_copy(update=dict.fromkeys(("title", "summary", "licence", "trigger"), SCRIPT))]
    await page.goto("/")
    await desk.shelf()
    await expect(page.locator(".card-title")).to_have_text(SCRIPT)
    await page.get_by_role("button", name="Details of").click()
    await expect(page.locator("#details-title")).to_have_text(SCRIPT)
    await expect(page.locator(".training img")).to_have_count(4)
    await page.get_by_role("button", name="Use it").click()
    await expect(page.get_by_label("Message", exact=True)).to_have_value(SCRIPT)
    await desk.say(f"nobody {SCRIPT}")
    await expect(page.locator(".bubble")).to_have_text(f"nobody {SCRIPT}")
    await expect(page.locator(".trouble")).to_be_visible()
    assert await page.evaluate("window.hacked") is None
    assert await page.locator("script").count() == 1
    await desk.fits()


async def test_the_shelf_is_reached_by_keyboard_and_puts_a_name_where_one_writes(desk: Desk) -> None:
    page = desk.page
    box = page.get_by_label("Message", exact=True)
    await box.fill("a mug in style")
    await box.evaluate("(box) => box.setSelectionRange(8, 8)")
    if page.viewport_size and page.viewport_size["width"] < 1000:
        assert not await page.locator("#shelf").is_visible()
        await page.get_by_role("button", name="LoRAs", exact=True).press("Enter")
        await expect(page.get_by_role("button", name="Close the shelf")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="LoRAs", exact=True)).to_be_focused()
        await page.keyboard.press("Enter")
    await page.locator(".card-use").first.press("Enter")
    await expect(box).to_have_value("a mug in Terracotta style")
    await expect(box).to_be_focused()


async def test_every_control_has_a_name_and_every_picture_words(desk: Desk) -> None:
    page = desk.page
    await desk.say("four pictures of Inky")
    await expect(page.locator(".frame img")).to_have_count(4)
    await expect(page.get_by_role("button", name="Train from these")).to_have_count(1)
    await page.get_by_role("button", name="Vary, picture 3").click()
    await expect(page.locator(".frame img")).to_have_count(5)
    press = desk.studio.taken[-1].press
    assert press
    assert (press.verb, press.picture) == ("vary", 2)
    nameless = """() => [...document.querySelectorAll("button, textarea, input, a, dialog")].filter((node) =>
        !(node.ariaLabel || node.textContent.trim() || node.labels?.length || node.getAttribute("aria-labelledby")))
        .map((node) => node.outerHTML)"""
    assert await page.evaluate(nameless) == []
    assert await page.evaluate("[...document.images].filter((image) => !image.hasAttribute('alt')).length") == 0
    await desk.fits()

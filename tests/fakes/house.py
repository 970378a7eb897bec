"""A house and an inbox without a database, and a small studio that answers in them with pictures that Pillow draws."""

import asyncio
import colorsys
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from bot.message import Door, Full, Inbound, NewLora, OnShelf, Reply, Said, Shown, Stage, Trouble, Verb

LORAS = (
    OnShelf(
        name="terracotta",
        title="Terracotta",
        kind="style",
        trigger="trrk",
        summary="Warm clay and cream: the brand's own look.",
        weight=0.8,
        licence="Apache-2.0",
        commercial=True,
        shipped=True,
    ),
    OnShelf(
        name="inky",
        title="Inky",
        kind="character",
        trigger="nkyx",
        summary="The mascot, an octopus.",
        weight=1.0,
        licence="Apache-2.0",
        commercial=True,
        shipped=True,
    ),
    OnShelf(
        name="fold-mug",
        title="Fold Mug",
        kind="product",
        trigger="fmgx",
        summary="The folding mug of the spring line.",
        weight=1.0,
        licence="CC-BY-NC-4.0",
        commercial=False,
        shipped=False,
    ),
)
BUTTONS: tuple[Verb, ...] = ("vary", "seed", "why", "recipe", "train")


def png(seed: int, size: int = 64, blur: float = 0.0) -> bytes:
    """A disc before two halves, in colours that follow from `seed`; `size` pixels a side."""

    def colour(turn: float, light: float) -> tuple[int, ...]:
        return tuple(int(255 * part) for part in colorsys.hls_to_rgb((seed * 0.381 + turn) % 1, light, 0.45))

    image = Image.new("RGB", (size, size), colour(0, 0.82))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, size * 0.64, size, size), fill=colour(0.04, 0.7))
    draw.ellipse((size * 0.26, size * 0.24, size * 0.74, size * 0.72), fill=colour(0.45, 0.5))
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur * size))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class FakeHouse:
    """Satisfies `House` and, called, `Receive`. `room` is how many messages it takes before it is `Full`."""

    def __init__(self, loras: Iterable[OnShelf] = LORAS, room: int = 1_000) -> None:
        self.loras = list(loras)
        self.room = room
        self.taken: list[Inbound] = []
        self.answers: dict[str, Reply] = {}
        self.pictures: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}

    async def __call__(self, inbound: Inbound, hold: float = 0.0) -> bool:
        await asyncio.sleep(0)
        if any(inbound.key == taken.key for taken in self.taken):
            return False
        if len(self.taken) >= self.room:
            raise Full(7.2)
        self.taken.append(inbound)
        return True

    async def past(self, thread: str) -> tuple[Said, ...]:
        return tuple(
            Said(inbound=inbound, reply=self.answers.get(inbound.key))
            for inbound in self.taken
            if inbound.thread == thread
        )

    async def picture(self, sha256: str) -> bytes | None:
        return self.pictures.get(sha256)

    async def file(self, sha256: str) -> bytes | None:
        return self.files.get(sha256)

    def shelf(self) -> tuple[OnShelf, ...]:
        return tuple(self.loras)

    def preview(self, name: str) -> bytes | None:
        return png(sum(name.encode())) if name in {lora.name for lora in self.loras} else None

    def training_pictures(self, name: str) -> tuple[bytes, ...]:
        return tuple(png(sum(name.encode()) + k) for k in range(4))

    def shown(self, seed: int, size: int = 64) -> Shown:
        """A picture that is kept from now on."""
        data = png(seed, size)
        sha256 = hashlib.sha256(data).hexdigest()
        self.pictures[sha256] = data
        recipe = {"seed": seed, "width": size, "height": size, "prompt": "a red mug", "steps": 12}
        return Shown(file=Path("/secret/place") / f"{sha256}.png", recipe=recipe, sha256=sha256)


class FakeStudio(FakeHouse):
    """A house that answers through its `door`.

    Pictures take some `pace` seconds a step; while `gate` is closed, a job waits at its middle.
    """

    door: Door
    pace = 0.02
    size = 512

    def __init__(self, loras: Iterable[OnShelf] = LORAS) -> None:
        super().__init__(loras)
        self.gate = asyncio.Event()
        self.gate.set()
        self.jobs: dict[str, asyncio.Task[None]] = {}
        self.cancelled: set[str] = set()

    async def __call__(self, inbound: Inbound, hold: float = 0.0) -> bool:
        is_new = await super().__call__(inbound, hold)
        if is_new:
            self.jobs[inbound.key] = asyncio.create_task(self._answer(inbound))
        return is_new

    async def close(self) -> None:
        for job in self.jobs.values():
            job.cancel()
        await asyncio.gather(*self.jobs.values(), return_exceptions=True)

    async def _answer(self, inbound: Inbound) -> None:
        text = inbound.text.lower()
        if inbound.press:
            reply = await self._pressed(inbound)
        elif text.startswith("train"):
            reply = await self._trained(inbound)
        elif "which" in text:
            reply = Reply(text="There are\nTerracotta, our look\nInky, the mascot", intent="question")
        elif "nobody" in text:
            trouble = Trouble(
                code="unknown_lora", message="There is no LoRA called “nobody”.", hint="Did you mean Inky?"
            )
            reply = Reply(text=trouble.message, error=trouble)
        else:
            reply = await self._drawn(inbound, 4 if "four" in text else 1)
        self.answers[inbound.key] = reply
        await self.door.post(inbound, reply, None)

    async def _pressed(self, inbound: Inbound) -> Reply:
        press = inbound.press
        assert press
        match press.verb:
            case "cancel":
                self.cancelled.add(press.of)
                self.gate.set()
                return Reply(text="Stopped.", intent="cancel")
            case "why":
                return Reply(text="Terracotta, as you asked for our brand; nothing else.", intent="question")
            case "recipe":
                return Reply(text="seed 7\nsteps 12\nprompt a red mug", intent="question")
            case "train":
                return Reply(text="What shall it be called?", intent="ask_back")
            case _:
                return await self._drawn(inbound, 1)

    async def _drawn(self, inbound: Inbound, count: int) -> Reply:
        for place in (3, 1):
            stage = Stage(stage="queued", step=0, steps=0, place=place, left=4.0 * place)
            await self._say(inbound, Reply(text="waiting", progress=stage))
        for step in range(1, 13):
            if step == 7:
                await self.gate.wait()
            if inbound.key in self.cancelled:
                return Reply(text="Cancelled; nothing was drawn.", intent="draw")
            preview = png(len(self.taken), 64, (13 - step) / 60) if step > 2 else None
            stage = Stage(stage="drawing", step=step, steps=12, left=(12 - step) * 0.5, preview=preview)
            await self._say(inbound, Reply(text=f"drawing {step}/12", intent="draw", progress=stage))
        pictures = tuple(self.shown(len(self.taken) + k, self.size) for k in range(count))
        said = "Here is your picture." if count == 1 else f"Here are your {count} pictures."
        lines = (said, "terracotta 0.8: our brand.", f"Seed {len(self.taken)}, 512x512, prompt “{inbound.text}”.")
        return Reply(text="\n".join(lines), intent="draw", pictures=pictures, actions=BUTTONS)

    async def _trained(self, inbound: Inbound) -> Reply:
        chosen = f"Training “pip” (character) from {len(inbound.attachments)} pictures, 1200 steps; trigger “pqx”."
        await self._say(inbound, Reply(text=chosen, progress=Stage(stage="starting", step=0, steps=1200)))
        for step in range(100, 1300, 100):
            if step == 700:
                await self.gate.wait()
            samples = (png(step, 96, 0.02), png(step + 1, 96, 0.02)) if step % 300 == 0 else ()
            stage = Stage(
                stage="training",
                step=step,
                steps=1200,
                loss=0.21 / (1 + step / 400),
                left=(1200 - step) / 10,
                samples=samples,
            )
            await self._say(inbound, Reply(text=f"training {step}/1200", intent="train", progress=stage))
        pip = LORAS[1].model_copy(
            update={"name": "pip", "title": "Pip", "trigger": "pqx", "summary": "A penguin.", "shipped": False}
        )
        self.loras.append(pip)
        lora = NewLora(name="pip", kind="character", trigger="pqx", folder=Path("/secret/loras/pip"))
        said = f"Pip is learnt, from {len(inbound.attachments)} pictures. Say for example: Pip at the beach."
        return Reply(text=said, intent="train", lora=lora)

    async def _say(self, inbound: Inbound, reply: Reply) -> None:
        await self.door.post(inbound, reply, None)
        await asyncio.sleep(self.pace)

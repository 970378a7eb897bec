"""Each kind of plan and the generator that carries it out: Progress…, then its Result."""

import io
import platform
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from PIL import Image, ImageFilter

from engine import bases, recipes
from engine.bases import memory
from engine.bases.memory import Wanted
from engine.catalog import Catalog
from engine.diffusion.deliver import Companions, delivered, on_white, resized
from engine.diffusion.preview import preview
from engine.diffusion.render import Brush, Canvas, Stroke, as_pixels, draw, finish
from engine.diffusion.resident import Resident, best_device, machine
from engine.errors import NoPicture, OutOfMemory, WrongBase
from engine.jobs import Drawn, Event, Picture, Progress
from engine.plans import ImagePlan, Plan, TrainPlan
from engine.prompts import Prompt
from engine.training.loop import train


class Runners:
    """Loads a base at its first plan and keeps it; one base is held at a time, in the memory mode that is wanted."""

    def __init__(
        self,
        catalog: Catalog,
        home: Path,
        device: torch.device | None = None,
        companions: Companions | None = None,
        wanted: Wanted = "auto",
    ) -> None:
        self._catalog = catalog
        self._home = home
        self._given = device
        self._device = device or best_device("float32")
        self._wanted: Wanted = wanted
        self._resident: Resident | None = None
        self._companions = companions or Companions(self._device)

    def run(self, plan: Plan) -> Generator[Event]:
        """Checks what can be checked at once, before the first step."""
        try:
            match plan:
                case ImagePlan():
                    yield from self._render(plan)
                case TrainPlan():
                    resident = self.resident(plan.base)
                    resident.check_trains()
                    yield from train(resident, plan, self._home)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory("draw that" if isinstance(plan, ImagePlan) else "train that", self._less()) from error

    def resident(self, name: str) -> Resident:
        base = bases.find(name, self._home)
        if self._resident is None or self._resident.base != base:
            base.check_whole()
            self._resident = None  # the old one goes before the new one comes
            self._device = self._given or best_device(base.precision)
            here = machine(self._device)
            mode = memory.mode_for(base, here, self._wanted)
            dtype: torch.dtype = getattr(torch, memory.precision(here, base.precision))
            self._resident = Resident(base, self._device, dtype, mode)
        return self._resident

    def _less(self) -> str:
        """The memory mode that takes less than the one that the base is held in; "" where there is none."""
        if self._resident is None:
            return ""
        return memory.smaller(self._resident.base, machine(self._device), self._resident.mode) or ""

    def _render(self, plan: ImagePlan) -> Generator[Event]:
        base = bases.find(plan.base, self._home)
        base.check_size(plan.width, plan.height)
        cards = {ref.name: self._catalog.get(ref.name) for ref in plan.stack.refs}
        for card in cards.values():
            if card.family != base.family:
                raise WrongBase(
                    card.name, base.name, f"it was trained for {card.family} ({card.base}), not {base.family}"
                )
        self._companions.check(plan)
        resident = self.resident(plan.base)
        drawing = Drawing(plan)
        canvas = drawing.canvas(resident)
        pictures: list[Picture] = []
        with resident.stacked(plan.stack, self._catalog.weights, lambda: _read(resident, plan)):
            for k in range(plan.count):
                stroke: Stroke | None = None
                for stroke in draw(resident, _brush(plan, k, canvas)):
                    shown = preview(resident, stroke.clean)
                    yield drawing.progress(k, stroke.step, stroke.steps, shown)
                assert stroke is not None  # a plan has one step at least
                image = delivered(_finished(resident, stroke, plan), plan, self._companions, drawing.over())
                if plan.companions:
                    yield drawing.progress(k, stroke.steps + 1, stroke.steps, None)
                recipe = recipes.recipe_of(plan, k, base, cards, made_with(self._device, resident.mode))
                pictures.append(Picture(recipes.to_png(image, recipe), recipe.model_dump()))
        yield Drawn(tuple(pictures))


@dataclass(frozen=True)
class Drawing:
    """What a plan's pictures are drawn over, and how far they are."""

    plan: ImagePlan

    def canvas(self, resident: Resident) -> Canvas | None:
        """The latents of the picture to start from, which is brought to the plan's size; None for a blank."""
        plan, size = self.plan, (self.plan.width, self.plan.height)
        if plan.image is None:
            return None
        latents = resident.encode(as_pixels(_opened(plan.image, size)))
        keep = None
        if plan.mask is not None:
            grown = _mask(plan.mask, size).filter(
                ImageFilter.MaxFilter(5)
            )  # so that the seam lies in what is repainted
            small = grown.resize((latents.shape[3], latents.shape[2]), Image.Resampling.BOX)
            keep = 1 - (as_pixels(small)[:, :1] / 2 + 0.5).round().to(latents.device)
        return Canvas(latents, plan.strength, keep)

    def over(self) -> tuple[Image.Image, Image.Image] | None:
        """Of inpainting: what is painted over, and the mask, both of the delivered size."""
        plan = self.plan
        if plan.image is None or plan.mask is None:
            return None
        return _opened(plan.image, plan.delivered), _mask(plan.mask, plan.delivered)

    def progress(self, k: int, step: int, steps: int, shown: bytes | None) -> Progress:
        """Step `step` of picture `k`; what the companions do to it is one step more than its `steps`."""
        whole = steps + bool(self.plan.companions)
        return Progress("drawing", step, whole, k + 1, self.plan.count, preview=shown)


def _brush(plan: ImagePlan, k: int, canvas: Canvas | None) -> Brush:
    """How picture `k` of a plan is drawn."""
    return Brush(
        plan.prompt, plan.negative, plan.seed + k, plan.width, plan.height, plan.steps, plan.guidance, plan.sampler,
        canvas, plan.syntax,
    )  # fmt: skip


def _finished(resident: Resident, stroke: Stroke, plan: ImagePlan) -> Image.Image:
    """The picture; NaNs that LoRAs bring about are for the person to mend, others are a fault of ours."""
    try:
        return finish(resident, stroke.latents)
    except FloatingPointError:
        if not plan.stack.refs:
            raise
        raise NoPicture(tuple(ref.name for ref in plan.stack.refs)) from None


def _read(resident: Resident, plan: ImagePlan) -> None:
    """Encode the prompts now, so that they are known when the picture is drawn."""
    texts = (plan.negative, plan.prompt) if resident.family.contrasts(plan.guidance) else (plan.prompt,)
    resident.texts([Prompt(text, plan.syntax) for text in texts])


def made_with(device: torch.device, mode: str) -> dict[str, str | int]:
    """What a picture's pixels depend on beside its recipe."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "device": name,
        "threads": torch.get_num_threads(),
        "memory": mode,
    }


def _opened(data: bytes, size: tuple[int, int]) -> Image.Image:
    """The picture on white at that size; of one in another shape the middle."""
    with Image.open(io.BytesIO(data)) as image:
        return resized(on_white(image), size)


def _mask(data: bytes, size: tuple[int, int]) -> Image.Image:
    """The same of a mask, which keeps its hard edge where it becomes larger: what is black stays so."""
    with Image.open(io.BytesIO(data)) as image:
        return resized(image.convert("L"), size, Image.Resampling.NEAREST)

"""Each kind of plan and the generator that carries it out: Progress…, then its Result."""

import io
import platform
from collections.abc import Generator
from pathlib import Path

import diffusers
import torch
from PIL import Image, ImageFilter

from engine import bases, recipes
from engine.catalog import Catalog
from engine.diffusion.preview import preview
from engine.diffusion.render import Brush, Canvas, Stroke, as_pixels, draw, finish
from engine.diffusion.resident import Resident
from engine.errors import NoPicture, OutOfMemory, WrongBase
from engine.jobs import Drawn, Event, Picture, Progress
from engine.plans import ImagePlan, Plan, TrainPlan
from engine.training.loop import train


class Runners:
    """Loads a base at its first plan and keeps it; one base is held at a time."""

    def __init__(self, catalog: Catalog, home: Path, device: torch.device | None = None) -> None:
        self._catalog = catalog
        self._home = home
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._resident: Resident | None = None

    def run(self, plan: Plan) -> Generator[Event]:
        """Checks what can be checked at once, before the first step."""
        try:
            match plan:
                case ImagePlan():
                    yield from self._render(plan)
                case TrainPlan():
                    yield from train(self.resident(plan.base), plan, self._home)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory("draw that" if isinstance(plan, ImagePlan) else "train that") from error

    def resident(self, name: str) -> Resident:
        base = bases.find(name, self._home)
        if self._resident is None or self._resident.base != base:
            base.check_whole()
            self._resident = None  # the old one goes before the new one comes
            dtype = torch.float32 if self._device.type == "cpu" else getattr(torch, base.precision)
            self._resident = Resident(base, self._device, dtype)
        return self._resident

    def _render(self, plan: ImagePlan) -> Generator[Event]:
        base = bases.find(plan.base, self._home)
        base.check_size(plan.width, plan.height)
        cards = {ref.name: self._catalog.get(ref.name) for ref in plan.stack.refs}
        for card in cards.values():
            if card.family != base.family:
                raise WrongBase(
                    card.name, base.name, f"it was trained for {card.family} ({card.base}), not {base.family}"
                )
        resident = self.resident(plan.base)
        source = _opened(plan.image, plan)
        mask = _opened(plan.mask, plan)
        canvas = _canvas(resident, plan, source, mask)
        pictures: list[Picture] = []
        with resident.stacked(plan.stack, self._catalog.weights):
            for k in range(plan.count):
                brush = Brush(
                    plan.prompt,
                    plan.negative,
                    plan.seed + k,
                    plan.width,
                    plan.height,
                    plan.steps,
                    plan.guidance,
                    plan.sampler,
                    canvas,
                )
                stroke: Stroke | None = None
                for stroke in draw(resident, brush):
                    yield Progress(
                        "drawing", stroke.step, stroke.steps, k + 1, plan.count, preview=preview(resident, stroke.clean)
                    )
                assert stroke is not None  # a plan has one step at least
                image = _finished(resident, stroke, plan)
                if source is not None and mask is not None:
                    image = Image.composite(image, source.convert("RGB"), mask.convert("L"))
                recipe = recipes.recipe_of(plan, k, base, cards, made_with(self._device))
                pictures.append(Picture(recipes.to_png(image, recipe), recipe.model_dump()))
        yield Drawn(tuple(pictures))


def _finished(resident: Resident, stroke: Stroke, plan: ImagePlan) -> Image.Image:
    """The picture; NaNs that LoRAs bring about are for the person to mend, others are a fault of ours."""
    try:
        return finish(resident, stroke.latents)
    except FloatingPointError:
        if not plan.stack.refs:
            raise
        raise NoPicture(tuple(ref.name for ref in plan.stack.refs)) from None


def made_with(device: torch.device) -> dict[str, str | int]:
    """What a picture's pixels depend on beside its recipe."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "device": name,
        "threads": torch.get_num_threads(),
    }


def _opened(data: bytes | None, plan: ImagePlan) -> Image.Image | None:
    """The picture at the plan's size; a source of another size is scaled to it."""
    if data is None:
        return None
    image = Image.open(io.BytesIO(data)).convert("RGB")
    size = (plan.width, plan.height)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _canvas(resident: Resident, plan: ImagePlan, source: Image.Image | None, mask: Image.Image | None) -> Canvas | None:
    if source is None:
        return None
    latents = resident.encode(as_pixels(source))
    keep = None
    if mask is not None:
        grown = mask.convert("L").filter(ImageFilter.MaxFilter(5))  # so that the seam lies in what is repainted
        small = grown.resize((latents.shape[3], latents.shape[2]), Image.Resampling.BOX)
        keep = 1 - (as_pixels(small)[:, :1] / 2 + 0.5).round().to(latents.device)
    return Canvas(latents, plan.strength, keep)

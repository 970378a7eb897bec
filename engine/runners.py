"""Each kind of plan and the generator that carries it out: Progress…, then its Result."""

import io
import platform
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from engine import bases, controls, recipes, references
from engine.bases.memory import check_fits
from engine.catalog import Catalog
from engine.diffusion.control import Guide, Nets
from engine.diffusion.deliver import Companions, delivered, on_white, resized
from engine.diffusion.preview import preview
from engine.diffusion.reference import looking
from engine.diffusion.render import Brush, Canvas, Stroke, as_pixels, draw, finish
from engine.diffusion.resident import Resident, free_memory
from engine.errors import Invalid, NoPicture, OutOfMemory, WrongBase
from engine.jobs import Drawn, Event, Picture, Progress
from engine.plans import ImagePlan, Plan, Reference, TrainPlan
from engine.training.loop import train

MAX_REFERENCE = 1_048_576  # pixels of a reference picture as a base reads it


class Runners:
    """Loads a base at its first plan and keeps it; one base is held at a time."""

    def __init__(
        self, catalog: Catalog, home: Path, device: torch.device | None = None, companions: Companions | None = None
    ) -> None:
        self._catalog = catalog
        self._home = home
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._resident: Resident | None = None
        self._companions = companions or Companions(self._device)
        self._nets = Nets(self._device)

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
            self._nets = Nets(self._device)
            self._resident = None  # the old one goes before the new one comes
            check_fits(base, self._device.type == "cuda", free_memory(self._device))
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
        self._companions.check(plan)
        nets = controls.nets_for(plan.controls, base, self._home)
        adapter = references.adapter_for(base, self._home) if plan.references else None
        resident = self.resident(plan.base)
        drawing = Drawing(plan)
        canvas = drawing.canvas(resident)
        shown_to_it = () if adapter else tuple(_reference(one) for one in plan.references)
        guides = self._nets.guides(plan.controls, nets, (plan.width, plan.height), resident.dtype)
        pictures: list[Picture] = []
        with (
            resident.stacked(plan.stack, self._catalog.weights),
            looking(resident, adapter, plan.references) as net,
        ):
            for k in range(plan.count):
                stroke: Stroke | None = None
                for stroke in draw(resident, _brush(plan, k, canvas, shown_to_it, guides), net):
                    shown = preview(resident, stroke.clean)
                    yield drawing.progress(k, stroke.step, stroke.steps, shown)
                assert stroke is not None  # a plan has one step at least
                image = delivered(_finished(resident, stroke, plan), plan, self._companions, drawing.over())
                if plan.companions:
                    yield drawing.progress(k, stroke.steps + 1, stroke.steps, None)
                recipe = recipes.recipe_of(plan, k, base, cards, made_with(self._device), (nets, adapter))
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


def _brush(
    plan: ImagePlan, k: int, canvas: Canvas | None, references: tuple[Tensor, ...], guides: tuple[Guide, ...]
) -> Brush:
    """How picture `k` of a plan is drawn."""
    return Brush(
        plan.prompt, plan.negative, plan.seed + k, plan.width, plan.height, plan.steps, plan.guidance, plan.sampler,
        canvas, plan.syntax, references, guides,
    )  # fmt: skip


def _reference(reference: Reference) -> Tensor:
    """The picture in its own shape, of at most a megapixel. Raises `Invalid` for a weight: a family reads it whole."""
    if reference.weight != 1:
        why = f"this base reads the whole picture, and cannot count it {reference.weight:g} times"
        raise Invalid("weight of the reference", why, "Leave it out.")
    with Image.open(io.BytesIO(reference.image)) as opened:
        image = on_white(opened)
    scale = min((MAX_REFERENCE / (image.width * image.height)) ** 0.5, 1)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return as_pixels(resized(image, size))


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


def _opened(data: bytes, size: tuple[int, int]) -> Image.Image:
    """The picture on white at that size; of one in another shape the middle."""
    with Image.open(io.BytesIO(data)) as image:
        return resized(on_white(image), size)


def _mask(data: bytes, size: tuple[int, int]) -> Image.Image:
    """The same of a mask, which keeps its hard edge where it becomes larger: what is black stays so."""
    with Image.open(io.BytesIO(data)) as image:
        return resized(image.convert("L"), size, Image.Resampling.NEAREST)

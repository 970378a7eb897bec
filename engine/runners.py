"""Each kind of plan and the generator that carries it out: Progress…, then its Result."""

import io
import platform
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import diffusers
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from engine import bases, controls, recipes, references
from engine.bases import Base, memory
from engine.bases.memory import Wanted
from engine.catalog import Catalog, LoraCard
from engine.datasets import no_variant
from engine.diffusion import families
from engine.diffusion.control import Guide, Nets
from engine.diffusion.deliver import Companions, Steps, delivered, on_white, resized
from engine.diffusion.preview import preview
from engine.diffusion.reference import looking
from engine.diffusion.render import Brush, Canvas, Stroke, as_pixels, draw, finish, prompts
from engine.diffusion.resident import Resident, best_device, machine
from engine.diffusion.tiles import detailed, grid
from engine.errors import Invalid, NoPicture, OutOfMemory, WrongBase
from engine.jobs import Drawn, Event, Picture, Progress
from engine.plans import ImagePlan, Plan, Reference, TrainPlan
from engine.recipes import Used
from engine.training.loop import train

MAX_REFERENCE = 1_048_576  # pixels of a reference picture as a base reads it


@dataclass(frozen=True)
class Eyes:
    """What a picture is drawn by beside its prompt: the network to ask, if it is not the base's own, the references
    that the base reads itself, and its controls.
    """

    net: nn.Module | None = None
    references: tuple[Tensor, ...] = ()
    guides: tuple[Guide, ...] = ()


BLIND = Eyes()


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
        self._companions = companions or Companions(self._device, home=home)
        self._nets = Nets(self._device)

    def run(self, plan: Plan) -> Generator[Event]:
        """Checks what can be checked at once, before the first step."""
        try:
            match plan:
                case ImagePlan():
                    yield from self._render(plan)
                case TrainPlan():
                    bases.find(plan.base, self._home).check_trains()
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
            self._nets = Nets(self._device)
            here = machine(self._device)
            mode = memory.mode_for(base, here, self._wanted)
            dtype: torch.dtype = getattr(torch, memory.precision(here, base.precision))
            self._resident = Resident(base, self._device, dtype, mode)
        return self._resident

    @contextmanager
    def _spoken_to(self, resident: Resident, plan: ImagePlan, cards: dict[str, LoraCard]) -> Generator[None]:
        """The base with the plan's LoRAs and embeddings in, inside the block."""
        in_part, weights = {card.name for card in cards.values() if card.left_out}, self._catalog.weights
        with ExitStack() as held:
            held.enter_context(resident.speaking(plan.embeddings, weights))
            try:
                read = partial(_read, resident, plan)
                held.enter_context(resident.stacked(plan.stack, weights, in_part, meanwhile=read))
            except WrongBase as error:
                raise no_variant(cards[error.name], resident.base, error.why) from None
            yield

    def _less(self) -> str:
        """The memory mode that takes less than the one that the base is held in; "" where there is none."""
        if self._resident is None:
            return ""
        return memory.smaller(self._resident.base, machine(self._device), self._resident.mode) or ""

    def _render(self, plan: ImagePlan) -> Generator[Event]:
        base = bases.find(plan.base, self._home)
        if plan.draws:
            base.check_size(plan.width, plan.height)
        if plan.samples:
            base.check_whole()
            families.find(base.family).accepts(base, plan)
        cards = {ref.name: self._catalog.pinned(ref) for ref in (*plan.stack.refs, *plan.embeddings)}
        for card in cards.values():
            if card.family != base.family:
                raise no_variant(card, base, f"it was trained for {card.family} ({card.base}), not {base.family}")
        self._companions.check(plan)
        nets = controls.nets_for(plan.controls, base, self._home)
        used = Used(
            cards, nets, references.adapter_for(base, self._home) if plan.references else None,
            self._companions.upscaler_sha256(plan),
        )  # fmt: skip
        if not plan.samples:  # the base is not asked, so it is not loaded
            yield from self._finished(plan, base, used, self._drawing(plan, base))
            return
        resident = self.resident(plan.base)
        guides = self._nets.guides(plan.controls, nets, (plan.width, plan.height), resident.dtype)
        with (
            self._spoken_to(resident, plan, cards),
            looking(resident, used.adapter, plan.references) as net,
        ):
            shown = () if used.adapter else tuple(_reference(one) for one in plan.references)
            yield from self._finished(plan, base, used, self._drawing(plan, base, resident, Eyes(net, shown, guides)))

    def _drawing(self, plan: ImagePlan, base: Base, resident: Resident | None = None, eyes: Eyes = BLIND) -> "Drawing":
        tiles = len(grid(*plan.delivered, base.size)) if plan.detail else 0
        return Drawing(plan, resident, self._companions.tiles(plan) + tiles, eyes)

    def _finished(self, plan: ImagePlan, base: Base, used: Used, drawing: "Drawing") -> Generator[Event]:
        """Each of the plan's pictures, drawn where it is to be drawn, and then delivered."""
        canvas = drawing.canvas()
        pictures: list[Picture] = []
        for k in range(plan.count):
            image = yield from drawing.picture(k, canvas)
            done = 0
            steps = delivered(image, plan, self._companions, partial(drawing.detailed, k), drawing.over())
            while True:
                try:
                    done += next(steps)
                except StopIteration as end:
                    image = end.value
                    break
                yield drawing.after(k, done)
            if plan.companions:
                yield drawing.after(k, drawing.tiles + 1)
            recipe = recipes.recipe_of(plan, k, base, used, made_with(self._device, drawing.memory))
            pictures.append(Picture(recipes.to_png(image, recipe), recipe.model_dump()))
        yield Drawn(tuple(pictures))


@dataclass
class Drawing:
    """What a plan's pictures are drawn over, and how far they are; `tiles` is how many steps come after each of them.

    `resident` is None where the base is not asked.
    """

    plan: ImagePlan
    resident: Resident | None
    tiles: int
    eyes: Eyes = BLIND
    strokes: int = 0  # steps of a picture before it is delivered, known once it is drawn

    @property
    def memory(self) -> str:
        """The mode that the base is held in; "" where it is not asked."""
        return self.resident.mode if self.resident else ""

    def canvas(self) -> Canvas | None:
        """The latents of the picture to start from, which is brought to the plan's size; None for a blank."""
        plan, size = self.plan, (self.plan.width, self.plan.height)
        if plan.image is None or self.resident is None or not plan.draws:
            return None
        latents = self.resident.encode(as_pixels(_opened(plan.image, size)))
        keep = None
        if plan.mask is not None:
            grown = _mask(plan.mask, size).filter(
                ImageFilter.MaxFilter(5)
            )  # so that the seam lies in what is repainted
            small = grown.resize((latents.shape[3], latents.shape[2]), Image.Resampling.BOX)
            keep = 1 - (as_pixels(small)[:, :1] / 2 + 0.5).round().to(latents.device)
        return Canvas(latents, plan.strength, keep)

    def picture(self, k: int, canvas: Canvas | None) -> Generator[Event, None, Image.Image]:
        """Picture `k` as drawn, or the one to start from where none is to be drawn."""
        plan = self.plan
        if not plan.draws:
            assert plan.image is not None
            return _opened(plan.image, (plan.width, plan.height))
        assert self.resident is not None
        stroke: Stroke | None = None
        for stroke in draw(self.resident, _brush(plan, k, canvas, self.eyes), self.eyes.net):
            self.strokes = stroke.steps
            yield self._progress(k, stroke.step, preview(self.resident, stroke.clean))
        assert stroke is not None  # a plan has one step at least
        with _blaming(plan):
            return finish(self.resident, stroke.latents)

    def detailed(self, k: int, image: Image.Image) -> Steps:
        """Picture `k`, enlarged, with the detail that the plan asks for."""
        assert self.resident is not None
        with _blaming(self.plan):
            brush = _brush(self.plan, k, eyes=Eyes(references=self.eyes.references))
            return (yield from detailed(self.resident, image, brush, self.plan.detail))

    def over(self) -> tuple[Image.Image, Image.Image] | None:
        """Of inpainting: what is painted over, and the mask, both of the delivered size."""
        plan = self.plan
        if plan.image is None or plan.mask is None:
            return None
        return _opened(plan.image, plan.delivered), _mask(plan.mask, plan.delivered)

    def after(self, k: int, done: int) -> Progress:
        """Picture `k` is drawn, and so many of the steps that follow are done."""
        return self._progress(k, self.strokes + done, None)

    def _progress(self, k: int, step: int, shown: bytes | None) -> Progress:
        """What the companions do to a picture is one step more."""
        whole = self.strokes + self.tiles + bool(self.plan.companions)
        stage = "drawing" if self.plan.draws else "enlarging"
        return Progress(stage, step, whole, k + 1, self.plan.count, preview=shown)


def _brush(plan: ImagePlan, k: int, canvas: Canvas | None = None, eyes: Eyes = BLIND) -> Brush:
    """How picture `k` of a plan is drawn."""
    return Brush(
        plan.prompt, plan.negative, plan.seed + k, plan.width, plan.height, plan.steps, plan.guidance, plan.sampler,
        canvas, plan.syntax, eyes.references, eyes.guides,
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


@contextmanager
def _blaming(plan: ImagePlan) -> Generator[None]:
    """NaNs that LoRAs bring about are for the person to mend, others are a fault of ours."""
    try:
        yield
    except FloatingPointError:
        if not plan.stack.refs:
            raise
        raise NoPicture(tuple(ref.name for ref in plan.stack.refs)) from None


def _read(resident: Resident, plan: ImagePlan) -> None:
    """Encode the prompts now, so that they are known when it is drawn; but those that are read with pictures."""
    if plan.references and resident.family.sees:
        return
    resident.texts(prompts(resident.family, _brush(plan, 0)))


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

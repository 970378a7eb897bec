"""The trainer: LoRA on a frozen base, DreamBooth's loss (reconstruction plus prior preservation).

    L = E ‖v̂(z_t, t, c) − v‖²  +  λ E ‖v̂(z_t, t, c⁻) − v̂_base(z_t, t, c⁻)‖²

(Ruiz et al. 2022, arXiv:2208.12242, eq. 2). c is a caption with the trigger, c⁻ one without. The trainee borrows the
base's pristine weights by reference: it adds only its factors to what is in memory, and a LoRA stack that is being
drawn with does not touch it.
"""

import io
import math
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import peft
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from engine.diffusion.families import Conditioning, stacked
from engine.diffusion.render import Brush, drawn
from engine.diffusion.resident import Resident
from engine.errors import Invalid, TrainingDiverged
from engine.jobs import Event, Progress, Trained
from engine.lora.changes import Factors
from engine.lora.write import write
from engine.plans import TrainPlan
from engine.prompts import MARKED, Prompt, escaped
from engine.training import prior
from engine.training.dataset import alike, latents_of

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")  # attention and feed-forward
OWN, KEPT = 4, 4  # pictures of the subject, and of all else, in one step
PRIOR_WEIGHT = 1.0  # λ
WARMUP = 10
Predict = Callable[[nn.Module, Tensor, Tensor, Conditioning], Tensor]  # network, latents, timesteps, texts
SAMPLES = 3  # times that a sample picture is drawn on the way


@dataclass(frozen=True)
class Batch:
    """Part of one step: noisy latents, timesteps, texts, and what is to be predicted."""

    noisy: Tensor
    times: Tensor
    texts: Conditioning
    target: Tensor


class Material:
    """What steps are made of: latents and texts, encoded once, and the one generator that picks among them."""

    def __init__(self, resident: Resident, plan: TrainPlan) -> None:
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.schedule: Any = DDPMScheduler.from_config(resident.parts.scheduler)
        self.device = resident.device
        encoded = latents_of(resident, [e.data for e in plan.examples], self.generator)
        self.own = [views.to(self.device) for views in encoded]
        self.kept: list[Tensor] = []  # class pictures, if the prior is "class"
        self._alike = alike(self.own)
        said = [e.caption for e in plan.examples]
        without = prior.captions(resident, plan, self.generator)
        texts = _texts(resident, (*said, *without))
        self.own_texts, self.kept_texts = texts[: len(said)], texts[len(said) :]

    def group(self) -> list[int]:
        """Which pictures a step is made of: all of one shape, the shapes as often as there are pictures of them."""
        if len(self._alike) == 1:
            return self._alike[0]
        first = self._picks(len(self.own), 1)[0]
        return next(group for group in self._alike if first in group)

    def own_batch(self, count: int, among: list[int] | None = None) -> Batch:
        """Pictures of the subject, with what the noise schedule makes the target; of one group, if none is given."""
        which = self._of(among or self.group(), count)
        return self._reconstruction(self._views(self.own, which), [self.own_texts[i] for i in which])

    def class_batch(self, count: int) -> Batch:
        which = self._picks(len(self.kept), count)
        return self._reconstruction(self._views(self.kept, which), self.kept_texts[:1] * count)

    def base_batch(self, count: int, among: list[int], net: nn.Module, predict: Predict) -> Batch:
        """Prompts without the trigger, on noisy pictures of a group; the target is what the bare base predicts."""
        which = self._of(among, count)
        said = self._picks(len(self.kept_texts), count)
        noisy, times, _ = self._noised(self._views(self.own, which))
        texts = stacked([self.kept_texts[i] for i in said])
        with torch.no_grad(), bare(net):
            target = predict(net, noisy, times, texts)
        return Batch(noisy, times, texts, target)

    def _picks(self, among: int, count: int) -> list[int]:
        return [int(i) for i in torch.randint(0, among, (count,), generator=self.generator)]

    def _of(self, among: list[int], count: int) -> list[int]:
        return [among[i] for i in self._picks(len(among), count)]

    def _views(self, latents: list[Tensor], which: list[int]) -> Tensor:
        views = self._picks(len(latents[which[0]]), len(which))
        return torch.stack([latents[i][v] for i, v in zip(which, views, strict=True)])

    def _noised(self, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps = self.schedule.config["num_train_timesteps"]
        times = torch.randint(0, steps, (len(clean),), generator=self.generator).to(self.device)
        noise = torch.randn(clean.shape, generator=self.generator).to(self.device)
        return self.schedule.add_noise(clean, noise, times), times, noise

    def _reconstruction(self, clean: Tensor, texts: list[Conditioning]) -> Batch:
        noisy, times, noise = self._noised(clean)
        velocity = self.schedule.config["prediction_type"] == "v_prediction"
        target = self.schedule.get_velocity(clean, noise, times) if velocity else noise
        return Batch(noisy, times, stacked(texts), target)


def _texts(resident: Resident, captions: tuple[str, ...]) -> list[Conditioning]:
    """Each caption whole, in as many pieces as the longest has, as a prompt of these words is: brackets are characters.

    Raises `Invalid` for one that is too long.
    """
    try:
        return [_plain(text) for text in resident.texts([Prompt(escaped(said), MARKED) for said in captions])]
    except Invalid as error:
        longest = max(captions, key=len)
        raise Invalid(f"the caption “{longest[:40]}…”", error.why, "Shorten it.") from None


def train(resident: Resident, plan: TrainPlan, home: Path) -> Generator[Event]:
    """Progress…, then Trained. The base is frozen throughout; a loss that is not finite raises `TrainingDiverged`."""
    resident.base.check_trains()
    started = time.monotonic()
    yield Progress("reading the pictures", 0, plan.steps)
    material = Material(resident, plan)
    if plan.prior == "class":
        kept = yield from prior.class_latents(resident, plan, home)
        material.kept = [views.to(resident.device) for views in kept]
    trainee = _trainee(resident, plan)
    recent: deque[float] = deque(maxlen=20)
    sample = b""
    for step, loss in enumerate(_descent(resident, plan, trainee, material), 1):
        recent.append(loss)
        if step % max(plan.steps // SAMPLES, 1) == 0 or step == plan.steps:
            sample = _sample(resident, plan, trainee)
        shown = (sample,) if sample else ()
        yield Progress("training", step, plan.steps, loss=sum(recent) / len(recent), samples=shown)
    facts = {
        "family": resident.base.family,
        "alpha": float(plan.rank),
        "word": plan.word,
        "final_loss": round(sum(recent) / len(recent), 6),
        "seconds": round(time.monotonic() - started, 1),
    }
    yield Trained(_file(plan, trainee, facts), sample, facts)


def _descent(resident: Resident, plan: TrainPlan, trainee: nn.Module, material: Material) -> Generator[float]:
    """AdamW on the factors alone; yields the subject's loss after each of the plan's steps."""
    factors = [p for p in trainee.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(factors, lr=resident.base.training.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, plan.steps))
    for step in range(1, plan.steps + 1):
        own, total = _losses(resident, plan, trainee, material)
        if not math.isfinite(float(total.detach())):
            raise TrainingDiverged(step)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(factors, 1.0)
        optimizer.step()
        schedule.step()
        yield own


class bare:
    """The trainee without its factors, inside the block: the base."""

    def __init__(self, module: nn.Module) -> None:
        self._layers = [m for m in module.modules() if isinstance(m, BaseTunerLayer)]

    def __enter__(self) -> None:
        for layer in self._layers:
            layer.enable_adapters(False)

    def __exit__(self, *_: object) -> None:
        for layer in self._layers:
            layer.enable_adapters(True)


def _losses(resident: Resident, plan: TrainPlan, trainee: nn.Module, material: Material) -> tuple[float, Tensor]:
    """The subject's own loss as a number, and the whole loss to descend."""

    def predict(net: nn.Module, noisy: Tensor, times: Tensor, texts: Conditioning) -> Tensor:
        return resident.family.predict(resident.parts, net, noisy, times, texts, 1.0).float()

    among = material.group()
    batches = [material.own_batch(OWN, among)]
    with torch.autocast(resident.device.type, torch.bfloat16, enabled=resident.device.type == "cuda"):
        if plan.prior == "base":
            batches.append(material.base_batch(KEPT, among, trainee, predict))
        elif plan.prior == "class":
            batches.append(material.class_batch(KEPT))
        each = torch.cat([_errors(trainee, batch, predict) for batch in _together(batches)])
    own = each[:OWN].mean()
    return float(own.detach()), own + PRIOR_WEIGHT * each[OWN:].mean() if len(batches) > 1 else own


def _together(batches: list[Batch]) -> list[Batch]:
    """One batch of all, if their pictures are of one shape: class pictures need not be."""
    if len({batch.noisy.shape[1:] for batch in batches}) > 1:
        return batches
    noisy, times, target = (torch.cat([getattr(b, name) for b in batches]) for name in ("noisy", "times", "target"))
    return [Batch(noisy, times, stacked([b.texts for b in batches]), target)]


def _errors(trainee: nn.Module, batch: Batch, predict: Predict) -> Tensor:
    """(n,) mean squared error of each picture's prediction, fp32."""
    return (predict(trainee, batch.noisy, batch.times, batch.texts) - batch.target).pow(2).flatten(1).mean(1)


def _plain(text: Conditioning) -> Conditioning:
    """The same as ordinary tensors, so that gradients may pass beside them."""
    return Conditioning(text.tokens.clone(), None if text.pooled is None else text.pooled.clone())


def _trainee(resident: Resident, plan: TrainPlan) -> nn.Module:
    """A second UNet over the base's pristine tensors, with trainable factors: A random, B zero, α = r."""
    with torch.device("meta"):
        unet = cast(nn.Module, UNet2DConditionModel.from_config(resident.parts.denoiser.config))
    unet.load_state_dict(resident.rack.pristine(), assign=True)
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        config = peft.LoraConfig(r=plan.rank, lora_alpha=plan.rank, target_modules=list(TARGETS))
        peft.inject_adapter_in_model(config, unet)
    for layer in unet.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.to(resident.device)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return unet.train()


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a tenth."""
    warm = min((step + 1) / WARMUP, 1.0)
    return warm * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def _sample(resident: Resident, plan: TrainPlan, trainee: nn.Module) -> bytes:
    prompt = f"{plan.trigger} {plan.word}".strip()
    if plan.kind in ("style", "quality") and not plan.word:
        prompt = plan.examples[0].caption
    buffer = io.BytesIO()
    drawn(resident, Brush.plain(resident.base, prompt, plan.seed), trainee).save(buffer, "PNG")
    return buffer.getvalue()


def _file(plan: TrainPlan, trainee: nn.Module, facts: dict[str, Any]) -> bytes:
    factors = peft.get_peft_model_state_dict(trainee)
    state = {key: value.detach().float().cpu().numpy() for key, value in factors.items()}
    ends = (".lora_A.weight", ".lora_B.weight")
    names = sorted(key.removesuffix(ends[0]) for key in state if key.endswith(ends[0]))
    layers = {name: Factors(state[name + ends[0]], state[name + ends[1]], float(plan.rank)) for name in names}
    about = {"title": plan.name, "trigger": plan.trigger, "word": plan.word, "kind": plan.kind, "base": plan.base}
    return write(layers, about | {"family": str(facts["family"]), "steps": str(plan.steps), "seed": str(plan.seed)})

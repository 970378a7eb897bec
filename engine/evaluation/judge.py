"""The judge: a small network that looks at a picture and names what it shows, in the words of the embedded base.

It was trained on drawn scenes of other seeds than the base, held-out subjects and looks included. It knows that world
only: of photographs it knows nothing. There are two, of different shapes and seeds: the first is for anyone to ask, the
second only measures, and chooses nothing.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "judge"
SECOND = Path(__file__).parent / "second"
HEADS = (
    "object", "background", "style", "colour", "count", "relation", "first", "second", "first_colour", "second_colour",
    "expression", "pose", "view", "light",
)  # fmt: skip
SLOTS = {"first": "noun", "second": "noun", "first_colour": "shade", "second_colour": "shade"}
SMALL = ("expression", "pose", "view", "light")  # heads that read the finer map, too
SIDE = 256  # px: a picture is judged at SIDE² pixels, whatever its shape
STEP = 16  # px: sides are multiples of it
EMBEDDING = 384
SOUGHT, DETAIL = 4, 256  # maps of attention on the finer map, and what is made of what they find
BATCH = 64


@dataclass(frozen=True)
class Judgement:
    """What n pictures show. `probability[head]`: (n, labels of that head) fp32; `embedding`: (n, 384), unit length.

    `object` has one independent probability for each noun; the other heads sum to 1 over their labels, and mean
    something only where there is something to say: `expression` for characters, `first` and `second` for two kinds.
    """

    labels: dict[str, tuple[str, ...]]
    synonyms: dict[str, str]
    probability: dict[str, np.ndarray]
    embedding: np.ndarray

    def __len__(self) -> int:
        return len(self.embedding)

    def __getitem__(self, rows: np.ndarray | Sequence[int] | slice) -> "Judgement":
        some = {head: p[rows] for head, p in self.probability.items()}
        return Judgement(self.labels, self.synonyms, some, self.embedding[rows])

    @staticmethod
    def joined(parts: Sequence["Judgement"]) -> "Judgement":
        """One judgement of the pictures of several, which are of one judge."""
        one = parts[0]
        every = {head: np.concatenate([part.probability[head] for part in parts]) for head in one.probability}
        return Judgement(one.labels, one.synonyms, every, np.concatenate([part.embedding for part in parts]))

    def place(self, head: str, label: str) -> int:
        """The column of a label; a synonym has the column of the noun that looks the same."""
        return self.labels[head].index(self.synonyms.get(label, label))

    def of(self, head: str, label: str) -> np.ndarray:
        """Probability of one label in every picture, (n,)."""
        return self.probability[head][:, self.place(head, label)]

    def best(self, head: str) -> list[str]:
        """The likeliest label of every picture."""
        return [self.labels[head][index] for index in self.probability[head].argmax(1)]


class Block(nn.Module):
    """Two 3 × 3 convolutions and a way round them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])
        self.around = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.around(x) + self.norms[1](self.second(y)))


@dataclass(frozen=True)
class Body:
    """Two halves of a network: (n, 3, h, w) → (n, `fine`, h / 16, w / 16) → (n, `channels`, h / 32, w / 32)."""

    first: nn.Module
    second: nn.Module
    fine: int
    channels: int


def residual_body() -> Body:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    channels = 32
    for width in (64, 96, 160):
        layers += [Block(channels, width, 2), Block(width, width, 1)]
        channels = width
    return Body(nn.Sequential(*layers), nn.Sequential(Block(160, 256, 2), Block(256, 256, 1)), 160, 256)


class Wide(nn.Module):
    """A 7 × 7 convolution of each channel, then two layers at each place (Liu et al. 2022, arXiv:2201.03545).

    It is normalised over batches, not channels: a run of minutes learns faster so, and no axis has to move.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, channels, 7, padding=3, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.think = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1)
        )
        self.share = nn.Parameter(torch.full((channels, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.share * self.think(self.norm(self.look(x)))


def convnext_body() -> Body:
    def stage(before: int, width: int, depth: int) -> list[nn.Module]:
        halved = [nn.BatchNorm2d(before), nn.Conv2d(before, width, 2, 2)] if before != width else []
        return [*halved, *(Wide(width) for _ in range(depth))]

    first = [nn.Conv2d(3, 64, 4, 4), nn.BatchNorm2d(64), *stage(64, 64, 2), *stage(64, 128, 2), *stage(128, 224, 3)]
    return Body(nn.Sequential(*first), nn.Sequential(*stage(224, 288, 2), nn.BatchNorm2d(288)), 224, 288)


BODIES = {"residual": residual_body, "convnext": convnext_body}


class JudgeNet(nn.Module):
    """(n, 3, h, w) in 0..1 → logits of each head, and the penultimate layer (n, 384). Any size from 64 px on.

    What is where is kept by the means of 3 × 3 parts of a thinned map. The two things of a pair are looked for by a map
    of attention each, and named by one classifier: a thing looks the same on either side. Faces, limbs and light are
    small: what tells of them is looked for on the finer map.
    """

    def __init__(self, sizes: dict[str, int], net: str = "residual") -> None:
        super().__init__()
        body = BODIES[net]()
        self.first, self.second, channels = body.first, body.second, body.channels
        self.thin = nn.Conv2d(channels, 48, 1)
        self.even = nn.BatchNorm1d(2 * channels + 9 * 48)  # means, maxima and parts are of unlike sizes
        self.embed = nn.Linear(2 * channels + 9 * 48, EMBEDDING)
        self.seek = nn.Sequential(nn.Conv2d(body.fine + 2, 64, 1), nn.ReLU(), nn.Conv2d(64, SOUGHT, 1))
        self.detail = nn.Sequential(nn.Linear(SOUGHT * body.fine, DETAIL), nn.BatchNorm1d(DETAIL), nn.ReLU())
        width = {head: EMBEDDING + DETAIL if head in SMALL else EMBEDDING for head in sizes}
        self.heads = nn.ModuleDict({h: nn.Linear(width[h], size) for h, size in sizes.items() if h not in SLOTS})
        self.attend = nn.Sequential(nn.Conv2d(channels + 2, 64, 1), nn.ReLU(), nn.Conv2d(64, 2, 1))
        self.inspect = nn.Sequential(nn.Linear(channels, 224), nn.ReLU())
        self.slots = nn.ModuleDict({name: nn.Linear(224, sizes[head]) for head, name in SLOTS.items()})

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        fine = self.first(2 * x - 1)
        y = self.second(fine)
        grid = F.adaptive_avg_pool2d(F.relu(self.thin(y)), 3).flatten(1)
        embedding = F.relu(self.embed(self.even(torch.cat([y.mean((2, 3)), y.amax((2, 3)), grid], 1))))
        small = torch.cat([embedding, self.detail(_looked(self.seek, fine).flatten(1))], 1)
        logits = {head: layer(small if head in SMALL else embedding) for head, layer in self.heads.items()}
        things = self.inspect(_looked(self.attend, y))
        for head, name in SLOTS.items():
            logits[head] = self.slots[name](things[:, int(head.startswith("second"))])
        return logits, embedding


def _looked(attend: nn.Module, y: Tensor) -> Tensor:
    """What stands where each of s maps of attention looks: (n, c, h, w) → (n, s, c)."""
    weights = attend(torch.cat([y, _coordinates(y)], 1)).flatten(2).float().softmax(2).to(y.dtype)
    return torch.einsum("nsp,ncp->nsc", weights, y.flatten(2))


def _coordinates(y: Tensor) -> Tensor:
    """x and y of every place in -1..1, (n, 2, h, w)."""
    n, _, rows, columns = y.shape
    down, along = (torch.linspace(-1, 1, k, device=y.device, dtype=y.dtype) for k in (rows, columns))
    return torch.stack([along.expand(rows, columns), down[:, None].expand(rows, columns)]).expand(n, 2, rows, columns)


def judged_size(height: int, width: int) -> tuple[int, int]:
    """The size at which a picture is judged: about SIDE² pixels, the same shape, sides multiples of STEP."""
    scale = SIDE / math.sqrt(height * width)
    high, wide = (max(4, int(side * scale / STEP + 1e-6)) * STEP for side in (height, width))
    return high, wide


@dataclass(frozen=True)
class Judge:
    """A trained network with its labels."""

    net: JudgeNet
    labels: dict[str, tuple[str, ...]]
    synonyms: dict[str, str]

    @staticmethod
    def load(folder: Path = FOLDER, device: str = "cpu") -> "Judge":
        """Read weights.safetensors (fp16) and labels.json, which says which network it is."""
        known = json.loads((folder / "labels.json").read_text())
        labels = {head: tuple(known[head]) for head in HEADS}
        net = JudgeNet({head: len(names) for head, names in labels.items()}, known["net"])
        net.load_state_dict({name: value.float() for name, value in load_file(folder / "weights.safetensors").items()})
        return Judge(net.eval().requires_grad_(False).to(device), labels, known["synonyms"])

    def __call__(self, images: np.ndarray | Tensor) -> Judgement:
        """Judge uint8 pictures (n, h, w, 3) of any one size; they keep their shape."""
        device = next(self.net.parameters()).device
        pictures = torch.as_tensor(images)
        parts = [self._part(pictures[i : i + BATCH].to(device)) for i in range(0, len(pictures), BATCH)]
        logits = {head: torch.cat([part[0][head] for part in parts]) for head in HEADS}
        chance = {head: value.sigmoid() if head == "object" else value.softmax(1) for head, value in logits.items()}
        embedding = F.normalize(torch.cat([part[1] for part in parts]))
        return Judgement(
            self.labels, self.synonyms, {head: p.cpu().numpy() for head, p in chance.items()}, embedding.cpu().numpy()
        )

    def _part(self, pictures: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        x = pictures.permute(0, 3, 1, 2).float() / 255
        size = judged_size(x.shape[2], x.shape[3])
        if x.shape[2:] != size:
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        return self.net(x)

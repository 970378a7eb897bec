"""The judge: a small network that looks at a picture and names what it shows, in the words of the embedded base.

It was trained on drawn scenes of other seeds than the base, held-out subjects and looks included. It knows that world
only: of photographs it knows nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "judge"
HEADS = ("object", "background", "style", "colour")


@dataclass(frozen=True)
class Judgement:
    """What n pictures show. `probability[head]`: (n, labels of that head) fp32; `embedding`: (n, 384), unit length.

    `object` has one independent probability for each noun; the other heads sum to 1 over their labels.
    """

    labels: dict[str, tuple[str, ...]]
    synonyms: dict[str, str]
    probability: dict[str, np.ndarray]
    embedding: np.ndarray

    def of(self, head: str, label: str) -> np.ndarray:
        """Probability of one label in every picture, (n,)."""
        return self.probability[head][:, self.labels[head].index(self.synonyms.get(label, label))]

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


class JudgeNet(nn.Module):
    """(n, 3, 256, 256) in 0..1 → logits of each head, and the penultimate layer (n, 384)."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 32
        for width in (64, 96, 160, 256):
            layers += [Block(channels, width, 2), Block(width, width, 1)]
            channels = width
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.body = nn.Sequential(*layers)
        self.embed = nn.Linear(2 * channels, 384)
        self.heads = nn.ModuleDict({head: nn.Linear(384, size) for head, size in sizes.items()})

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        y = self.body(self.stem(2 * x - 1))
        embedding = F.relu(self.embed(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1)))
        return {head: layer(embedding) for head, layer in self.heads.items()}, embedding


@dataclass(frozen=True)
class Judge:
    """The trained network with its labels."""

    net: JudgeNet
    labels: dict[str, tuple[str, ...]]
    synonyms: dict[str, str]

    @staticmethod
    def load(folder: Path = FOLDER, device: str = "cpu") -> "Judge":
        """Read weights.safetensors (fp16) and labels.json."""
        known = json.loads((folder / "labels.json").read_text())
        labels = {head: tuple(known[head]) for head in HEADS}
        net = JudgeNet({head: len(names) for head, names in labels.items()})
        net.load_state_dict({name: value.float() for name, value in load_file(folder / "weights.safetensors").items()})
        return Judge(net.eval().requires_grad_(False).to(device), labels, known["synonyms"])

    def __call__(self, images: np.ndarray | Tensor) -> Judgement:
        """Judge uint8 pictures (n, h, w, 3); other sizes than 256 px are resized."""
        device = next(self.net.parameters()).device
        x = torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float() / 255
        if x.shape[-2:] != (256, 256):
            x = F.interpolate(x, size=(256, 256), mode="bilinear", antialias=True)
        parts: list[tuple[dict[str, Tensor], Tensor]] = [self.net(x[i : i + 64]) for i in range(0, len(x), 64)]
        logits = {head: torch.cat([part[0][head] for part in parts]) for head in HEADS}
        chance = {head: value.sigmoid() if head == "object" else value.softmax(1) for head, value in logits.items()}
        embedding = F.normalize(torch.cat([part[1] for part in parts]))
        return Judgement(
            self.labels, self.synonyms, {head: p.cpu().numpy() for head, p in chance.items()}, embedding.cpu().numpy()
        )

"""How a small net lies on disk: weights.safetensors in fp16, and config.json with its sizes and how it was trained."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import nn

from engine.errors import UserError

WEIGHTS, CONFIG = "weights.safetensors", "config.json"


@dataclass(eq=False)
class NoWeights(UserError):
    """The net's folder is not there, or not as it should be."""

    what: str
    folder: str
    why: str

    @property
    def message(self) -> str:
        return f"The {self.what} cannot be loaded from {self.folder}: {self.why}."

    @property
    def hint(self) -> str:
        return "Install Atelier anew, or train the net: engine/pocket/README.md says how."


def save(net: nn.Module, sizes: dict[str, Any], trained: dict[str, Any], folder: Path) -> None:
    """Write both files. `sizes` are the net's keyword arguments; `trained` says on what, and with what result."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().half().contiguous().cpu() for name, value in net.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"sizes": sizes, "trained": trained}, indent=1) + "\n")


def sizes_of(what: str, folder: Path) -> dict[str, Any]:
    """The keyword arguments of the net in `folder`. Raises NoWeights."""
    for file in (WEIGHTS, CONFIG):
        if not (folder / file).is_file():
            raise NoWeights(what, str(folder), f"{file} is missing")
    try:
        return json.loads((folder / CONFIG).read_text())["sizes"]
    except (ValueError, KeyError) as error:
        raise NoWeights(what, str(folder), f"{CONFIG} is not as it should be") from error


def fill(net: nn.Module, what: str, folder: Path) -> None:
    """Read the weights of `folder` into the net, ready to be used and not to learn. Raises NoWeights."""
    try:
        net.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
    except (SafetensorError, RuntimeError) as error:
        raise NoWeights(what, str(folder), f"{WEIGHTS} does not fit the net") from error
    net.eval().requires_grad_(False)

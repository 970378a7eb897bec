"""What a running plan says of itself: Progress…, then one Result."""

import hashlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """Step `step` of `steps` of picture `part` of `parts`; `preview` is a small PNG of the picture as it stands.

    In training, `loss` is the mean of the last steps and `samples` are PNGs drawn with the LoRA so far. `left`: seconds
    to the end, as far as can be told from the pace until now.
    """

    stage: str
    step: int
    steps: int
    part: int = 1
    parts: int = 1
    preview: bytes | None = None
    loss: float | None = None
    samples: tuple[bytes, ...] = ()
    left: float | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """It waits: `place` 1 is the next one; `left` is in seconds, None where no pace is known yet."""

    place: int
    left: float | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """For whom a plan is run. One `key`, one job; `memo` is kept with it and given back when it is asked for again."""

    key: str
    owner: str
    thread: str
    memo: object = None

    @property
    def tag(self) -> str:
        """What stands for the key in a log, as the key may open more than a log should."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished picture: PNG bytes that carry their recipe, and the same recipe as plain data."""

    png: bytes
    recipe: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drawn:
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """A LoRA file as bytes, not yet in any catalog, and what its card will say of how it was made."""

    weights: bytes
    preview: bytes
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


Result = Drawn | Trained
Event = Progress | Result

"""The error tree, sorted by who must act.

`UserError`: the person can mend it, so the reply is its `hint`. `TryLater`: no room now. Else the fault is ours.
Each is a dataclass of plain fields (so it survives a process border); `str()` is the sentence, `hint` says what to do.
"""

from dataclasses import dataclass


class AtelierError(Exception):
    """`str()` says what is wrong in one sentence; `hint` says what to do about it."""

    @property
    def code(self) -> str:
        """The name a program can match on: `UnknownLora` → `unknown_lora`."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))

    @property
    def message(self) -> str:
        return ""

    @property
    def hint(self) -> str:
        return ""

    def __str__(self) -> str:
        return self.message


class UserError(AtelierError):
    """The person can fix it."""


class TryLater(AtelierError):
    """No room, memory or disk now; the same request may pass later."""


class Cancelled(AtelierError):
    """The person stopped it."""

    @property
    def message(self) -> str:
        return "Stopped; nothing was kept."


@dataclass(eq=False)
class Invalid(UserError):
    """One value that we cannot take: what it is for, what was said, and what would do."""

    what: str
    why: str
    todo: str = ""

    @property
    def message(self) -> str:
        return f"{self.what}: {self.why}."

    @property
    def hint(self) -> str:
        return self.todo


@dataclass(eq=False)
class UnknownLora(UserError):
    name: str
    near: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        return f"There is no LoRA named “{self.name}”."

    @property
    def hint(self) -> str:
        if self.near:
            return f"Did you mean {', '.join(self.near)}?"
        return "`atelier loras` lists what there is."


@dataclass(eq=False)
class UnknownBase(UserError):
    name: str
    near: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        return f"There is no base model named “{self.name}”."

    @property
    def hint(self) -> str:
        return f"Installed here: {', '.join(self.near)}."


@dataclass(eq=False)
class DuplicateLora(UserError):
    names: tuple[str, ...]

    @property
    def message(self) -> str:
        return f"A LoRA is named twice in one stack: {', '.join(self.names)}."

    @property
    def hint(self) -> str:
        return "Name each LoRA once, with the weight that you want."


@dataclass(eq=False)
class WrongBase(UserError):
    """A LoRA made for another base, or whose weights do not fit this one."""

    name: str
    base: str
    why: str

    @property
    def message(self) -> str:
        return f"The LoRA “{self.name}” does not fit the base “{self.base}”: {self.why}."

    @property
    def hint(self) -> str:
        return "Draw on the base that it was trained for, or leave it out."


@dataclass(eq=False)
class NoVariant(WrongBase):
    """A LoRA of the catalog that is there for another base; `is_portable`: its training pictures are here."""

    is_portable: bool = False

    @property
    def hint(self) -> str:
        if self.is_portable:
            return f"Leave it out, or retrain it there: `atelier loras port {self.name} --base {self.base}`."
        return "Draw on the base that it was trained for, or leave it out; its training pictures are not here."


@dataclass(eq=False)
class PartialMatch(UserError):
    """A LoRA file of which a part exists in the base: `missing` of the `changed` weights do not, such as `such`."""

    name: str
    base: str
    missing: int
    changed: int
    such: tuple[str, ...]

    @property
    def message(self) -> str:
        return (
            f"{self.missing} of the {self.changed} weights that “{self.name}” changes do not exist in the base "
            f"“{self.base}”, such as {', '.join(self.such)}."
        )

    @property
    def hint(self) -> str:
        return "`atelier loras import FILE --partial` takes it in without them."


@dataclass(eq=False)
class BadLoraFile(UserError):
    file: str
    why: str

    @property
    def message(self) -> str:
        return f"“{self.file}” cannot be used as a LoRA: {self.why}."

    @property
    def hint(self) -> str:
        return "Get the file anew, or train the LoRA again."


@dataclass(eq=False)
class ChangedLora(UserError):
    """The file under this name is not the one that the plan or the recipe pinned."""

    name: str
    wanted: str
    found: str

    @property
    def message(self) -> str:
        return f"The LoRA “{self.name}” has changed since: {self.wanted[:12]} was used, {self.found[:12]} is here now."

    @property
    def hint(self) -> str:
        return "Put the earlier file back to draw the same picture, or ask for a new one."


@dataclass(eq=False)
class UnlikeItsCard(ChangedLora):
    """The catalog's own file is not the one that its card pins (`wanted`)."""

    @property
    def message(self) -> str:
        return f"The LoRA “{self.name}” is not as its card says: its file is {self.found[:12]}, not {self.wanted[:12]}."

    @property
    def hint(self) -> str:
        return "Put the file back that the card was written for, or train the LoRA again."


@dataclass(eq=False)
class NoPicture(UserError):
    """With these LoRAs the base computes no picture but NaNs, or one flat colour."""

    loras: tuple[str, ...]

    @property
    def message(self) -> str:
        return f"With {', '.join(self.loras)} in the stack no picture came out, but values that are none."

    @property
    def hint(self) -> str:
        return "Use lower weights, or leave one out."


@dataclass(eq=False)
class NameTaken(UserError):
    name: str

    @property
    def message(self) -> str:
        return f"There is a LoRA named “{self.name}” already."

    @property
    def hint(self) -> str:
        return "Choose another --name, or say --replace to put the new one in its place."


@dataclass(eq=False)
class ShippedName(NameTaken):
    """The name of a LoRA that comes with Atelier: nothing takes its place."""

    @property
    def hint(self) -> str:
        return "Choose another --name; those that come with Atelier are never replaced."


@dataclass(eq=False)
class TooFewPictures(UserError):
    """`good` usable pictures where `needed` are; `left_out` names each other file with the reason."""

    good: int
    needed: int
    left_out: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        said = f"{self.good} usable picture{'' if self.good == 1 else 's'}"
        return f"{said}: {self.needed - self.good} more at least; 10 is better."

    @property
    def hint(self) -> str:
        return f"Left out: {'; '.join(self.left_out)}." if self.left_out else "Add PNG, JPEG or WebP pictures."


@dataclass(eq=False)
class TrainingDiverged(AtelierError):
    """A loss that is not finite: nothing is kept."""

    step: int

    @property
    def message(self) -> str:
        return f"The training loss stopped being a number at step {self.step}, so it was ended; nothing was kept."

    @property
    def hint(self) -> str:
        return "Try a lower --rank or other pictures; if it happens again, report it with the pictures."


@dataclass(eq=False)
class DiskFull(TryLater):
    folder: str

    @property
    def message(self) -> str:
        return f"No space is left under {self.folder}; nothing half-written was kept."

    @property
    def hint(self) -> str:
        return "Free some space, or name another folder with --home, and ask again."


@dataclass(eq=False)
class NoRoom(TryLater):
    """Too little disk for what is about to be written; `wanted` and `free` in bytes."""

    folder: str
    wanted: int
    free: int

    @property
    def message(self) -> str:
        return f"It takes {self.wanted / 1e9:.1f} GB under {self.folder}, and {self.free / 1e9:.1f} GB is free."

    @property
    def hint(self) -> str:
        return "Free some space, or name another folder with --home DIR, and ask again."


@dataclass(eq=False)
class OutOfMemory(TryLater):
    """`mode`: the memory mode that takes less than the one it happened in, where there is one."""

    what: str
    mode: str = ""

    @property
    def message(self) -> str:
        return f"There was not enough memory to {self.what}."

    @property
    def hint(self) -> str:
        smaller = f" Memory mode “{self.mode}” takes less: --memory {self.mode}." if self.mode else ""
        return f"Ask for a smaller picture or fewer at once, or try again when the machine is less busy.{smaller}"


@dataclass(eq=False)
class BaseTooLarge(TryLater):
    """A base that does not fit into the memory that is free; `wanted` and `free` in bytes.

    `mode`: the memory mode in which it would fit, where there is one.
    """

    name: str
    wanted: int
    free: int
    gpu: bool
    mode: str = ""

    @property
    def message(self) -> str:
        kind = "GPU memory" if self.gpu else "memory"
        sizes = f"about {self.wanted / 1e9:.1f} GB of {kind}, and {self.free / 1e9:.1f} GB is free"
        return f"The base “{self.name}” needs {sizes}, so it is not loaded."

    @property
    def hint(self) -> str:
        if self.mode:
            return f"It fits in memory mode “{self.mode}”: --memory {self.mode}, or --memory auto."
        return "Close other programs, or draw on a smaller base; `atelier bases` says what each needs."


@dataclass(eq=False)
class BaseTaken(UserError):
    name: str

    @property
    def message(self) -> str:
        return f"There is a base named “{self.name}” already."

    @property
    def hint(self) -> str:
        return "Choose another: --name NAME."


@dataclass(eq=False)
class Gated(UserError):
    """A model whose owner gives it to those alone who have accepted its terms on its page."""

    repo: str
    page: str

    @property
    def message(self) -> str:
        return f"{self.repo} is only given to accounts that have accepted its terms."

    @property
    def hint(self) -> str:
        return f"Accept them at {self.page}, make a token that may read it, and set HF_TOKEN to it; then ask again."


@dataclass(eq=False)
class Unreachable(TryLater):
    what: str
    why: str

    @property
    def message(self) -> str:
        return f"{self.what} cannot be reached ({self.why})."

    @property
    def hint(self) -> str:
        return "Try again later: what has arrived is kept, and the rest follows."


@dataclass(eq=False)
class NotForBrands(UserError):
    """Brand work on weights whose licence leaves commercial use out, in a house whose admin has not allowed it."""

    base: str
    licence: str
    loras: tuple[str, ...]

    @property
    def message(self) -> str:
        said = f"“{self.base}” is not licensed for commercial use ({self.licence})"
        return f"{said}, so brand work ({', '.join(self.loras)}) is not made with it here."

    @property
    def hint(self) -> str:
        return "Use another base; or an admin sets `brand_on_non_commercial = true` in settings.toml."


@dataclass(eq=False)
class Busy(TryLater):
    """So many jobs wait already that no more are taken."""

    waiting: int

    @property
    def message(self) -> str:
        return f"{self.waiting} jobs are waiting already, so no more are taken just now."

    @property
    def hint(self) -> str:
        return "Ask again in a few minutes."


@dataclass(eq=False)
class HomeInUse(UserError):
    """Another service runs on this home."""

    home: str

    @property
    def message(self) -> str:
        return f"Another Atelier service runs on {self.home} already."

    @property
    def hint(self) -> str:
        return "Stop that one first, or name another home with --home DIR."


class WorkerDied(AtelierError):
    """The process that draws ended in the middle of a plan."""

    @property
    def message(self) -> str:
        return "The engine stopped in the middle of it, each time that it was tried."

    @property
    def hint(self) -> str:
        return "Ask for less at once; if it happens again, report it with what you asked for."


class WorkerHung(WorkerDied):
    """The process that draws took no step for so long that it was ended."""

    @property
    def message(self) -> str:
        return "The engine did not move any more, each time that it was tried."


@dataclass(eq=False)
class Fault(AtelierError):
    """A mistake of ours, of whatever kind, as it is told to the person; the log has the rest."""

    kind: str
    said: str

    @property
    def message(self) -> str:
        return f"Something failed that should not: {self.kind}{f' ({self.said})' if self.said else ''}."

    @property
    def hint(self) -> str:
        return "The fault is ours, not yours. Ask once more; if it comes back, report it with the lines above."

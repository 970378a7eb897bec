"""How long a picture takes, and what three LoRAs add to it: `python -m benchmarks.speed`."""

import statistics
import time

from benchmarks.bench import machine, pocket
from engine.catalog import Catalog
from engine.diffusion.render import Brush, draw, finish
from engine.diffusion.resident import Resident
from engine.plans import LoraStack
from engine.pocket.starters import ROOT

RUNS = 20


def seconds(resident: Resident, catalog: Catalog, stack: LoraStack, seed: int) -> float:
    """One whole picture: stack in, 12 steps with guidance, decoded, stack out."""
    said, size = resident.base.defaults, resident.base.size.native
    started = time.perf_counter()
    with resident.stacked(stack, catalog.weights):
        *_, last = draw(resident, Brush("a red mug on a podium", "", seed, size, size, 12, said.guidance, said.sampler))
        finish(resident, last.latents)
    return time.perf_counter() - started


def main() -> None:
    resident, catalog = pocket(), Catalog(ROOT, ROOT / ".none")
    none, three = LoraStack(), LoraStack(tuple(catalog.ref(name, 0.7) for name in ("coral", "inky", "brewster")))
    for stack in (none, three):
        seconds(resident, catalog, stack, 0)
    pairs = [(seconds(resident, catalog, none, i), seconds(resident, catalog, three, i)) for i in range(RUNS)]
    bare = statistics.median(a for a, _ in pairs)
    ratio = statistics.median(b / a for a, b in pairs)
    print(machine())
    best = min(a for a, _ in pairs)
    print(f"a 256 px picture of 12 steps with guidance: median {bare:.2f} s of {RUNS}, {best:.2f} s at best")
    print(f"the same with three LoRAs, switch included: {ratio:.3f}× (median of {RUNS} pairs, interleaved)")


if __name__ == "__main__":
    main()

"""Many LoRAs at once: worker processes, each with its own copy of the base, share one machine.

A single training leaves most of a GPU idle, as its steps are small: several beside each other keep it busy.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from engine.catalog import Catalog
from engine.jobs import Trained
from engine.plans import TrainPlan
from engine.runners import Runners

Task = TypeVar("Task")
Made = TypeVar("Made")
NOWHERE = Path("none")  # of other catalogs and homes: what is shipped is enough


@cache
def runners(device: str) -> Runners:
    """This process's own, with its base loaded once."""
    return Runners(Catalog(NOWHERE, NOWHERE), NOWHERE, torch.device(device))


def learnt(plan: TrainPlan, device: str) -> Trained:
    """The plan carried out by the product's own trainer."""
    *_, last = runners(device).run(plan)
    assert isinstance(last, Trained)
    return last


def each(work: Callable[[Task], Made], tasks: Sequence[Task], processes: int) -> Iterator[Made]:
    """`work` on every task, in that many processes, as they are finished; a task that raises ends it all.

    `work` is a function of a module, tasks and what is made are plain data. With one process it is this one.
    """
    if processes <= 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
        jobs = [pool.submit(work, task) for task in tasks]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"

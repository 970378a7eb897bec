"""LoRAs wait in page-locked host memory, within a bound in bytes, and a cold one is read while a prompt is encoded."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from engine.diffusion.offload import Slab
from engine.lora.blend import Delta
from engine.lora.changes import on


class Waiting:
    """One LoRA's changes at weight 1, their factors in one piece of host memory."""

    def __init__(self, deltas: Mapping[str, Delta], device: torch.device) -> None:
        self.deltas = deltas
        self.slab = Slab([part for d in deltas.values() for part in (d.down, d.up)], device, lock=False)
        self.bytes = len(self.slab) + sum(map(_bytes, deltas.values()))

    def there(self) -> Mapping[str, Delta]:
        """The same on the device, brought in one copy."""
        if self.slab.device.type == "cpu":
            return self.deltas
        parts = self.slab.copied()
        rows = zip(self.deltas.items(), parts[::2], parts[1::2], strict=True)
        return {name: Delta(down, up, delta.others) for (name, delta), down, up in rows}


class Shelf:
    """The LoRAs used last, as many as `limit` bytes hold. One that is larger than that is used, and not kept.

    `get` is for one thread; files are read on a thread of its own.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._items: OrderedDict[str, Waiting] = OrderedDict()
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loras")

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def get(
        self, wanted: Sequence[tuple[str, Callable[[], Waiting]]], meanwhile: Callable[[], object] | None = None
    ) -> list[Waiting]:
        """What stands under these keys, read by their functions where it is not here; `meanwhile` is called, then.

        Raises what they raise, after all of them have ended.
        """
        found = {key: self._items[key] for key, _ in wanted if key in self._items}
        reading: dict[str, Future[Waiting]] = {}
        for key, read in wanted:
            if key not in found and key not in reading:
                reading[key] = self._reader.submit(read)
        try:
            if reading and meanwhile:
                meanwhile()
        finally:
            wait(reading.values())
        found |= {key: future.result() for key, future in reading.items()}
        for key, _ in wanted:
            self._keep(key, found[key])
        for key in reading:
            self._reader.submit(found[key].slab.lock)  # after its first use has been asked for: locking takes a while
        return [found[key] for key, _ in wanted]

    def clear(self) -> None:
        self._items.clear()
        self.bytes = 0

    def _keep(self, key: str, item: Waiting) -> None:
        if key not in self._items:
            self._items[key] = item
            self.bytes += item.bytes
        self._items.move_to_end(key)
        while self.bytes > self.limit:
            _, gone = self._items.popitem(last=False)
            self.bytes -= gone.bytes


def _bytes(delta: Delta) -> int:
    """Of what is not of low rank."""
    sizes: list[int] = []

    def count(values: Any) -> Any:
        if isinstance(values, Tensor):
            sizes.append(values.numel() * values.element_size())
        return values

    for change, _ in delta.others:
        on(change, count)
    return sum(sizes)

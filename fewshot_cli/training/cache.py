"""The feature cache: activations at the cut, computed once per image.

Items live in memory while the budget lasts, then in a memory-mapped file, and what fits in neither is
computed again at each use. All three give the same values: what is computed again is rounded to the
storage type as well.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fewshot_cli.detectors.chain import Activations
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.temporary import temporary_file

Note = TypeVar("Note")
Compute = Callable[[Sequence[int]], tuple[Activations, list[Note]]]
"""Item numbers → (activations with those items along dimension 0, one note per item)."""

CHUNK = 8
"""Items computed together. One fixed size, because features must not depend on their neighbours."""
DISK_RESERVE = 1 << 30
"""Bytes of disk that the memory-mapped file leaves free."""


class FeatureCache(Generic[Note]):
    """Activations and a small note for each of `count` items.

    Args:
        compute: the frozen prefix.
        count: number of items.
        memory: bytes of memory that activations may take.
        disk: bytes that the memory-mapped file may take; it is nameless, so a kill leaves nothing behind.
        folder: where that file is made.
        dtype: storage type of floating-point activations; integers keep theirs.
        device: where batches are wanted, and where the memory part lives.
        kept: the items worth storing, the first of them first; None: all.
    """

    def __init__(
        self,
        compute: Compute[Note],
        count: int,
        *,
        memory: int,
        disk: int,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        kept: Sequence[int] | None = None,
    ) -> None:
        self._compute = compute
        self._count = count
        self._kept: Sequence[int] = range(count) if kept is None else kept
        self._places = None if kept is None else {item: place for place, item in enumerate(kept)}
        self._dtype = dtype
        self._device = device or torch.device("cpu")
        self._budget = {"memory": memory, "disk": disk}
        self._folder = folder
        self._stored: list[tuple[Tensor, ...]] = []
        self._notes: list[Note] = []
        self.in_memory = self.on_disk = 0
        self.bytes_per_item = 0

    def __len__(self) -> int:
        return self._count

    @property
    def recomputed(self) -> int:
        """Items that are computed again at each use."""
        return self._count - self.in_memory - self.on_disk

    @property
    def bytes_in_memory(self) -> int:
        return self.in_memory * self.bytes_per_item

    @property
    def bytes_stored(self) -> int:
        """In memory and on disk."""
        return (self.in_memory + self.on_disk) * self.bytes_per_item

    def fill(
        self,
        reporter: Reporter | None = None,
        description: str = "Frozen features",
        compute: Compute[Note] | None = None,
    ) -> FeatureCache[Note]:
        """Compute and store what the budgets allow.

        Args:
            compute: a faster way to the same values, used here alone.
        """
        compute = compute or self._compute
        if not self._kept or not any(self._budget.values()):
            return self
        reporter = reporter or SilentReporter()
        with reporter.progress(description, len(self._kept)) as task:
            stored = len(self._kept)
            for start in range(0, len(self._kept), CHUNK):
                if start >= stored:
                    break
                items = self._kept[start : min(start + CHUNK, stored)]
                activations, notes = compute(items)
                if start == 0:
                    self._reserve(activations)
                    stored = self.in_memory + self.on_disk
                self._store(range(start, min(start + len(items), stored)), activations, notes)
                task.advance(len(items))
        return self

    def batch(self, items: Sequence[int]) -> tuple[Activations, list[Note]]:
        """Activations of some items, stacked in that order, floating-point ones in float32 on the device."""
        places = {item: self._place(item) for item in items}
        missing = [item for item in items if places[item] is None]
        fresh = self._rounded(missing) if missing else {}
        found = [fresh[item] if (place := places[item]) is None else self._read(place) for item in items]
        rows = [tuple(tensor.to(self._device) for tensor in row) for row, _ in found]
        notes = [note for _, note in found]
        return tuple(self._wanted(torch.stack(parts)) for parts in zip(*rows, strict=True)), notes

    def _reserve(self, example: Activations) -> None:
        shapes = [(_channels_last(tensor).shape[1:], self._storage_type(tensor)) for tensor in example]
        self.bytes_per_item = sum(shape.numel() * dtype.itemsize for shape, dtype in shapes)
        self.in_memory = min(len(self._kept), self._budget["memory"] // self.bytes_per_item)
        self._blocks = tuple(
            torch.empty((self.in_memory, *shape), dtype=dtype, device=self._device) for shape, dtype in shapes
        )
        wanted = min(len(self._kept) - self.in_memory, self._budget["disk"] // self.bytes_per_item)
        self._mapped = self._map_file(wanted, shapes) if wanted else ()
        self.on_disk = wanted if self._mapped else 0

    def _map_file(self, count: int, shapes: list[tuple[torch.Size, torch.dtype]]) -> tuple[Tensor, ...]:
        """Tensors over a nameless file; none if the disk has no room, which then costs time, not the run."""
        size = count * self.bytes_per_item
        with suppress(OSError):
            if shutil.disk_usage(self._folder).free - DISK_RESERVE < size:
                return ()
            with temporary_file(self._folder) as file:
                with file.open("rb+") as stream:
                    # Reserved in full now: running out of disk inside a mapping would kill the process.
                    reserve = getattr(os, "posix_fallocate", lambda handle, _, length: os.ftruncate(handle, length))
                    reserve(stream.fileno(), 0, size)
                whole = torch.from_file(str(file), shared=True, size=size, dtype=torch.uint8)
            return _carve(whole, count, shapes)
        return ()

    def _store(self, places: range, activations: Activations, notes: list[Note]) -> None:
        for offset, place in enumerate(places):
            for target, tensor in zip(self._row(place), activations, strict=True):
                target.copy_(_channels_last(tensor)[offset])
            self._notes.append(notes[offset])

    def _place(self, item: int) -> int | None:
        """Where an item is stored; None if it is not."""
        place = item if self._places is None else self._places.get(item)
        return place if place is not None and place < self.in_memory + self.on_disk else None

    def _read(self, place: int) -> tuple[tuple[Tensor, ...], Note]:
        return self._row(place), self._notes[place]

    def _row(self, place: int) -> tuple[Tensor, ...]:
        if place < self.in_memory:
            return tuple(block[place] for block in self._blocks)
        return tuple(block[place - self.in_memory] for block in self._mapped)

    def _rounded(self, items: list[int]) -> dict[int, tuple[tuple[Tensor, ...], Note]]:
        activations, notes = self._compute(items)
        typed = [_channels_last(tensor).to(self._storage_type(tensor)) for tensor in activations]
        return {item: (tuple(t[i] for t in typed), notes[i]) for i, item in enumerate(items)}

    def _storage_type(self, tensor: Tensor) -> torch.dtype:
        return self._dtype if tensor.is_floating_point() else tensor.dtype

    def _wanted(self, tensor: Tensor) -> Tensor:
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return _channels_second(tensor.to(self._device, dtype))


def _channels_last(tensor: Tensor) -> Tensor:
    """Maps (B, C, H, W) as (B, H, W, C), the order in which they are stored: the detector's (Detector.place)."""
    return tensor.movedim(1, -1) if tensor.ndim == 4 else tensor


def _channels_second(tensor: Tensor) -> Tensor:
    """The other way round; the memory stays as it is."""
    return tensor.movedim(-1, 1) if tensor.ndim == 4 else tensor


def _carve(whole: Tensor, count: int, shapes: list[tuple[torch.Size, torch.dtype]]) -> tuple[Tensor, ...]:
    """One (count, …) tensor per shape out of a flat byte tensor."""
    # The widest types come first in the file, so that each starts at a multiple of its size.
    order = sorted(range(len(shapes)), key=lambda i: -shapes[i][1].itemsize)
    tensors: dict[int, Tensor] = {}
    offset = 0
    for i in order:
        shape, dtype = shapes[i]
        size = count * shape.numel() * dtype.itemsize
        tensors[i] = whole[offset : offset + size].view(dtype).reshape(count, *shape)
        offset += size
    return tuple(tensors[i] for i in range(len(shapes)))

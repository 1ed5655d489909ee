"""The feature cache: three places to keep an item, one value, and budgets that hold."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewshot_cli.detectors.chain import Activations
from fewshot_cli.training.cache import CHUNK, DISK_RESERVE, FeatureCache

COUNT = 21
PER_ITEM = 2 * 4 * 4 * 4 + 3 * 5 * 4 + 7
"""Bytes of one item in float32: a (2, 4, 4) map, a (3, 5) table and seven bytes."""
PLENTY = 1 << 20


class Source:
    """A frozen prefix that is cheap, different for each item, and counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, items: Sequence[int]) -> tuple[Activations, list[str]]:
        self.asked += items
        rows = [item_of(item) for item in items]
        return tuple(torch.stack(parts) for parts in zip(*rows, strict=True)), [f"note {item}" for item in items]


def item_of(item: int) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(item)
    return (
        torch.randn(2, 4, 4, generator=random),
        torch.randn(3, 5, generator=random),
        torch.randint(256, (7,), dtype=torch.uint8, generator=random),
    )


class Places(NamedTuple):
    """How many items each tier should hold."""

    memory: int
    disk: int


def cache_of(
    source: Source, places: Places, folder: Path, dtype: torch.dtype = torch.float32, count: int = COUNT
) -> FeatureCache[str]:
    size = PER_ITEM if dtype == torch.float32 else (PER_ITEM - 7) // 2 + 7
    return FeatureCache(
        source, count, memory=places.memory * size, disk=places.disk * size, folder=folder, dtype=dtype
    ).fill()


TIERS = [Places(COUNT, 0), Places(0, COUNT), Places(0, 0), Places(5, 9), Places(9, 0), Places(0, 3), Places(20, 1)]


every_tier = pytest.mark.parametrize("places", TIERS, ids=lambda places: f"{places.memory} {places.disk}")


@every_tier
def test_every_tier_gives_the_same_values(tmp_path: Path, places: Places) -> None:
    """Items come back with their own values, rounded to the storage type, wherever they were kept."""
    for dtype in (torch.float32, torch.bfloat16):
        cache = cache_of(Source(), places, tmp_path, dtype)
        assert places == (cache.in_memory, cache.on_disk)
        assert COUNT - sum(places) == cache.recomputed
        activations, notes = cache.batch(range(COUNT))
        expected = [torch.stack(parts) for parts in zip(*(item_of(item) for item in range(COUNT)), strict=True)]
        assert torch.equal(expected[0].to(dtype).float(), activations[0])
        assert torch.equal(expected[1].to(dtype).float(), activations[1])
        assert torch.equal(expected[2], activations[2])
        assert [f"note {item}" for item in range(COUNT)] == notes


@given(st.sampled_from(TIERS), st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=12))
@settings(max_examples=30)
def test_a_batch_comes_in_the_asked_order(places: Places, items: list[int]) -> None:
    """Whatever the order, across tiers and with repetitions, row i is the i-th item asked for."""
    with tempfile.TemporaryDirectory() as folder:
        activations, notes = cache_of(Source(), places, Path(folder)).batch(items)
    for row, item in enumerate(items):
        assert all(torch.equal(expected, part[row]) for expected, part in zip(item_of(item), activations, strict=True))
    assert [f"note {item}" for item in items] == notes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_are_those_that_training_wants(tmp_path: Path, dtype: torch.dtype) -> None:
    """Floating-point activations are float32 whatever they are stored in, maps channels last; bytes stay bytes."""
    cache = cache_of(Source(), Places(5, 5), tmp_path, dtype)
    maps, table, pixels = cache.batch([0, 7, 20])[0]
    assert (torch.float32, torch.float32, torch.uint8) == (maps.dtype, table.dtype, pixels.dtype)
    assert maps.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_is_the_callers_own(tmp_path: Path) -> None:
    """Writing into a batch changes nothing that is stored."""
    cache = cache_of(Source(), Places(5, 5), tmp_path)
    for part in cache.batch([0, 7, 20])[0]:
        part.zero_()
    again = cache.batch([0, 7, 20])[0]
    assert torch.equal(torch.stack([item_of(item)[0] for item in (0, 7, 20)]), again[0])


def test_no_more_bytes_than_asked(tmp_path: Path) -> None:
    """The items that are kept fit the budgets, and one more would not: half the bytes, nearly twice the items."""
    sizes = {torch.float32: PER_ITEM, torch.bfloat16: (PER_ITEM - 7) // 2 + 7}
    for (dtype, size), spare in itertools.product(sizes.items(), (0, 1, PER_ITEM - 1)):
        memory, disk = 3 * PER_ITEM + spare, 2 * PER_ITEM + spare
        cache = FeatureCache(Source(), COUNT, memory=memory, disk=disk, folder=tmp_path, dtype=dtype).fill()
        assert size == cache.bytes_per_item
        for kept, budget in ((cache.in_memory, memory), (cache.on_disk, disk)):
            assert kept * size <= budget < (kept + 1) * size, (dtype, spare)


def test_items_larger_than_the_budget_are_recomputed(tmp_path: Path) -> None:
    """A budget of less than one item stores nothing and still gives every value."""
    cache = FeatureCache(Source(), COUNT, memory=PER_ITEM - 1, disk=1, folder=tmp_path).fill()
    assert (0, 0, COUNT) == (cache.in_memory, cache.on_disk, cache.recomputed)
    assert torch.equal(item_of(20)[0], cache.batch([20])[0][0][0])


def test_only_what_does_not_fit_is_computed_again(tmp_path: Path) -> None:
    """Filling computes each stored item once; batches then compute exactly the items that are not stored."""
    source = Source()
    cache = cache_of(source, Places(10, 4), tmp_path)
    assert list(range(14)) == source.asked
    source.asked.clear()
    cache.batch([0, 13, 5, 9])
    assert [] == source.asked
    cache.batch([0, 14, 13, 20])
    assert [14, 20] == source.asked


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, COUNT - 1), unique=True), st.lists(st.integers(0, COUNT - 1), min_size=1))
def test_what_is_not_worth_storing_is_computed_when_asked_for(kept: list[int], items: list[int]) -> None:
    """Filling computes the kept items alone, once each; every item has the same value, wherever it comes from."""
    source = Source()
    with tempfile.TemporaryDirectory() as folder:
        places = {"memory": 3 * PER_ITEM, "disk": 4 * PER_ITEM}
        cache = FeatureCache(source, COUNT, **places, folder=Path(folder), kept=kept).fill()
        assert source.asked[:7] == kept[:7] and (3 + 4 if len(kept) > 7 else len(kept)) == COUNT - cache.recomputed
        source.asked.clear()
        (maps, *_), notes = cache.batch(items)
    assert [f"note {item}" for item in items] == notes
    assert all(torch.equal(item_of(item)[0], row) for item, row in zip(items, maps, strict=True))
    assert [item for item in items if item not in kept[:7]] == source.asked


def test_without_budgets_nothing_is_computed_ahead(tmp_path: Path) -> None:
    """With both budgets 0 filling does nothing, and items are computed when asked for."""
    source = Source()
    cache = cache_of(source, Places(0, 0), tmp_path)
    assert [] == source.asked
    cache.batch([3, 1])
    assert [3, 1] == source.asked


def test_chunks_have_one_size(tmp_path: Path) -> None:
    """The prefix sees full chunks, the last one excepted."""
    sizes: list[int] = []
    source = Source()

    def compute(items: Sequence[int]) -> tuple[Activations, list[str]]:
        sizes.append(len(items))
        return source(items)

    FeatureCache(compute, COUNT, memory=PLENTY, disk=0, folder=tmp_path).fill()
    assert [CHUNK, CHUNK, COUNT - 2 * CHUNK] == sizes


def test_an_empty_cache_is_fine(tmp_path: Path) -> None:
    """No items: nothing is computed, nothing is stored."""
    source = Source()
    cache = FeatureCache(source, 0, memory=PLENTY, disk=PLENTY, folder=tmp_path).fill()
    assert (0, 0, []) == (len(cache), cache.recomputed, source.asked)


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    """The mapped file has no name, not even while it is used, so that a kill leaves nothing behind."""
    cache = cache_of(Source(), Places(0, COUNT), tmp_path)
    assert COUNT == cache.on_disk
    assert [] == list(tmp_path.iterdir())
    assert torch.equal(item_of(20)[0], cache.batch([20])[0][0][0])


def test_two_caches_in_one_folder_do_not_meet(tmp_path: Path) -> None:
    """The caches of variants and test images share a folder and nothing else."""
    first = cache_of(Source(), Places(0, COUNT), tmp_path)
    second = FeatureCache(
        lambda items: Source()([item + 100 for item in items]), COUNT, memory=0, disk=PLENTY, folder=tmp_path
    ).fill()
    assert torch.equal(item_of(3)[0], first.batch([3])[0][0][0])
    assert torch.equal(item_of(103)[0], second.batch([3])[0][0][0])


def test_a_full_disk_costs_time_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with no more than the reserve free gets no file; the items are computed again instead."""
    usage = shutil.disk_usage(tmp_path)
    needed = COUNT * PER_ITEM
    for free, kept in ((DISK_RESERVE + needed - 1, 0), (DISK_RESERVE + needed, COUNT)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        cache = cache_of(Source(), Places(0, COUNT), tmp_path)
        assert kept == cache.on_disk
        assert torch.equal(item_of(20)[0], cache.batch([20])[0][0][0])


def test_a_disk_that_fills_up_meanwhile_costs_time_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk refuses to reserve the bytes, what fits in memory stays there, and no file is left."""

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    cache = cache_of(Source(), Places(4, 10), tmp_path)
    assert (4, 0, COUNT - 4) == (cache.in_memory, cache.on_disk, cache.recomputed)
    assert torch.equal(torch.stack([item_of(2)[0], item_of(20)[0]]), cache.batch([2, 20])[0][0])
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_is_gone_costs_time_not_the_run(tmp_path: Path) -> None:
    """A file that cannot be made at all is done without."""
    cache = cache_of(Source(), Places(0, COUNT), tmp_path / "missing")
    assert 0 == cache.on_disk
    assert torch.equal(item_of(20)[0], cache.batch([20])[0][0][0])


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_file_size_limit_costs_time_not_the_run(tmp_path: Path) -> None:
    """Where the system limits the size of a file (ulimit -f) the process is not killed: items are computed again."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (COUNT * PER_ITEM - 1, hard))
    try:
        cache = cache_of(Source(), Places(0, COUNT), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 == cache.on_disk
    assert torch.equal(item_of(20)[0], cache.batch([20])[0][0][0])


def test_wide_types_are_aligned_in_the_file(tmp_path: Path) -> None:
    """Bytes before doubles, of odd numbers: each tensor still starts where its type may start, in its own place."""

    def compute(items: Sequence[int]) -> tuple[Activations, list[int]]:
        numbers = torch.tensor(list(items))
        return (numbers[:, None].expand(-1, 3).to(torch.uint8), numbers[:, None] * 1000, numbers / 8), list(items)

    cache = FeatureCache(compute, 5, memory=0, disk=PLENTY, folder=tmp_path).fill()
    assert 5 == cache.on_disk
    pixels, counts, shares = cache.batch([4, 1])[0]
    assert [[4, 4, 4], [1, 1, 1]] == pixels.tolist()
    assert [[4000], [1000]] == counts.tolist()
    assert [0.5, 0.125] == shares.tolist()

"""Second step of a fine-tune: the frozen layers run once over variants and test images, their outputs cached."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.detectors.chain import Activations, Detections, Target
from fewshot_cli.encoders import open_encoder
from fewshot_cli.inference.placed import PlacedDetector, batches
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.cache import FeatureCache
from fewshot_cli.training.plan import trains_before_predictor
from fewshot_cli.training.prepare import Prepared
from fewshot_cli.training.schedule import batch_order
from fewshot_cli.training.variants import Example, Examples

GIB = 1 << 30


class Kept(NamedTuple):
    """A cache, and what is in it."""

    key: Hashable
    cut: int
    cache: FeatureCache[Example]


class FeatureStore:
    """Keeps the last cache of each kind, for fine-tunes with the same images and frozen layers.

    With the same cut it is taken as it is; features at a later cut can be computed from it. At most one cache a kind is
    held: memory stays bounded by what one fine-tune may take.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self.reused = 0

    def get(
        self, kind: str, key: Hashable, cut: int, make: Callable[[Kept | None], FeatureCache[Example]]
    ) -> FeatureCache[Example]:
        """The cache of that kind if its key and cut are the same, else what `make` makes, which is then kept.

        Args:
            kind: `train` or `test`.
            key: everything that the activations depend on, besides the cut.
            make: gets the cache at an earlier cut, if that is what was kept.
        """
        kept = self._kept.pop(kind, None)
        if kept is not None and kept.key == key and kept.cut == cut:
            self._kept[kind] = kept
            self.reused += 1
            return kept.cache
        # Dropped before the next is filled, unless that needs it: two at a time would take twice the memory.
        kept = kept if kept is not None and kept.key == key and kept.cut < cut else None
        self._kept[kind] = Kept(key, cut, make(kept))
        return self._kept[kind].cache


@dataclass(frozen=True, slots=True)
class Features:
    """Cached activations of the training variants and, where there is a test set, of the test images.

    train: item i is copy i mod `copies` of image i div `copies`; copy 0 is the image itself.
    cut: index of the layer whose input they are.
    """

    train: FeatureCache[Example]
    test: FeatureCache[Example] | None
    copies: int
    cut: int

    def batch(self, items: Sequence[int], device: torch.device) -> tuple[Activations, list[Target]]:
        """Activations and targets of some training variants, on the device."""
        activations, examples = self.train.batch(items)
        return activations, [example.target.to(device) for example in examples]

    @property
    def bytes_stored(self) -> int:
        """Of all cached activations, in memory and on disk."""
        return sum(cache.bytes_stored for cache in (self.train, self.test) if cache is not None)

    @property
    def shots(self) -> range:
        """The items of `train` that are the training images themselves."""
        return range(0, len(self.train), self.copies)


def cache_features(
    prepared: Prepared,
    config: FinetuneConfig,
    data: Dataset,
    *,
    folder: Path,
    store: FeatureStore,
    reporter: Reporter,
    cut: int | None = None,
) -> Features:
    """Run the frozen layers over the variants to train on and the test images, as far as memory and disk allow.

    Args:
        folder: where the part of the cache that does not fit in memory goes.
        store: caches of fine-tunes before this one.
        cut: index of the layer whose input is cached; default: the plan's. An earlier one serves several plans.

    Raises:
        DataError: an image cannot be read.
    """
    distilled = config.distil if trains_before_predictor(prepared.detector) else None
    teacher = lru_cache(partial(open_encoder, distilled, prepared.placed.device, reporter)) if distilled else None
    shots = Examples(
        prepared.detector,
        data.train.images,
        copies=prepared.copies,
        augmentation=config.augmentation,
        seed=config.seed,
        teacher=teacher,
    )
    seen = None if cut is not None or _is_validated(config, data) else _seen(config, len(shots), prepared.copies)
    variants = (prepared.copies, config.augmentation, config.seed, seen, distilled)
    memory, disk = int(config.cache_memory * GIB), int(config.cache_disk * GIB)
    cut = prepared.plan.cut if cut is None else cut
    caches = _Caches(prepared, config, cut, folder, store, reporter)
    train = caches.get("train", shots, variants, memory, disk, "Features of the variants", seen)
    if teacher:
        teacher.cache_clear()  # not held through the training, unless embeddings must be computed again
    if data.test is None:
        return Features(train, None, prepared.copies, cut)
    tests = Examples(prepared.detector, data.test.images)
    memory -= train.in_memory * train.bytes_per_item
    disk -= train.on_disk * train.bytes_per_item
    test = caches.get("test", tests, (), memory, disk, "Features of the test images")
    return Features(train, test, prepared.copies, cut)


def _is_validated(config: FinetuneConfig, data: Dataset) -> bool:
    """Whether a cross-validation may train on other variants than the run itself."""
    return data.test is None or bool(config.cross_validate) or config.refine is not None


def _seen(config: FinetuneConfig, items: int, copies: int) -> tuple[int, ...] | None:
    """The images and those variants that the iterations train on; None if that is all, as with few images."""
    if config.batch_size * config.iterations >= items:
        return None
    order = batch_order(items, config.batch_size, config.iterations, config.seed)
    return tuple(sorted({*range(0, items, copies), *chain.from_iterable(order)}))


@dataclass(frozen=True, slots=True)
class _Caches:
    """Makes the caches of one fine-tune, or takes them from the store."""

    prepared: Prepared
    config: FinetuneConfig
    cut: int
    folder: Path
    store: FeatureStore
    reporter: Reporter

    def get(
        self,
        kind: str,
        examples: Examples,
        variants: Hashable,
        memory: int,
        disk: int,
        description: str,
        kept: Sequence[int] | None = None,
    ) -> FeatureCache[Example]:
        prepared, placed = self.prepared, self.prepared.placed
        cache_type = prepared.precision if self.config.cache_type == "auto" else self.config.cache_type

        def make(earlier: Kept | None) -> FeatureCache[Example]:
            prefix = examples.prefix(self.cut, placed.device, placed.bf16, training=kind == "train")
            room, shorter = memory, None
            if earlier and self._can_continue(earlier.cache, memory):
                room -= earlier.cache.bytes_in_memory
                shorter = prefix.continued(earlier.cache.batch, earlier.cut)
            cache = FeatureCache(
                prefix,
                len(examples),
                memory=room,
                disk=disk,
                folder=self.folder,
                dtype=torch.bfloat16 if cache_type == "bf16" else torch.float32,
                device=placed.device,
                kept=kept,
            )
            return cache.fill(self.reporter, description, shorter)

        info = prepared.info
        base = (info.detector, info.base_fingerprint, info.image_size)
        computed = (str(placed.device), placed.bf16, cache_type)
        images = str(self.config.data_folder.resolve())
        return self.store.get(kind, (base, computed, images, variants), self.cut, make)

    def _can_continue(self, earlier: FeatureCache[Example], memory: int) -> bool:
        """Whether features at an earlier cut give the same bits, as nothing was rounded, and leave half the memory."""
        exact = not self.prepared.placed.bf16 and self.config.cache_type != "bf16"
        return exact and not earlier.recomputed and earlier.bytes_in_memory <= memory // 2


def detect_cached(
    placed: PlacedDetector, cut: int, features: FeatureCache[Example], items: Sequence[int]
) -> list[Detections]:
    """Detections in some cached images, in pixels of the images."""
    found: list[Detections] = []
    for part in batches(items):
        activations, examples = features.batch(part)
        found += placed.resume(activations, cut, [example.canvas for example in examples])
    return found

"""Drawing shots, or a share of all images, and a test set from what a source offers.

Other shots and test images replace those that turn out unusable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.checks import Thumbnails, check_images
from fewshot_cli.datasets.fractions import Counts, divide, largest_difference, object_counts
from fewshot_cli.datasets.record import Stratified
from fewshot_cli.datasets.sampling import (
    check_enough,
    key_of_shots,
    key_of_test,
    order_test,
    ranked,
    sample_shots,
    subsets_of,
    take_turns,
)
from fewshot_cli.datasets.splits import members, with_images
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, Problem
from fewshot_cli.files import sha256_of
from fewshot_cli.sources.survey import Brought, Candidates


@dataclass(slots=True)
class Stock:
    """The images of one split that its source has brought so far.

    Attributes:
        candidates: the split.
        images: id → image.
        unusable: ids of images that the source could not bring or left out.
        faulty: id → problem, for images that do not decode or have another size.
        left_out: reason → images left out.
        problems: of images that were left out as faulty records.
        facts: an image's file → facts about it, for the record.
        licences: of the images, each once.
        thumbnails: of the images that were decoded.
    """

    candidates: Candidates
    images: dict[int, ImageRecord] = field(default_factory=dict)
    unusable: set[int] = field(default_factory=set)
    faulty: dict[int, Problem] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    facts: dict[Path, Mapping[str, Any]] = field(default_factory=dict)
    licences: dict[str, None] = field(default_factory=dict)
    thumbnails: Thumbnails = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.left_out.update(self.candidates.left_out)
        self.problems.extend(self.candidates.problems)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.candidates.ids)

    def bring(self, pick: Callable[[], Sequence[int]]) -> list[ImageRecord]:
        """Bring what `pick` picks, and let it pick again, until all of a pick is here.

        Args:
            pick: gives ids, none of them in `unusable`.
        """
        while True:
            wanted = pick()
            missing = [image_id for image_id in wanted if image_id not in self.images]
            if not missing:
                return [self.images[image_id] for image_id in wanted]
            self._take(missing, self.candidates.bring(missing))

    def _take(self, ids: Sequence[int], brought: Brought) -> None:
        self.images.update(brought.images)
        self.unusable.update(set(ids) - set(brought.images))
        self.left_out.update(brought.left_out)
        self.problems.extend(brought.problems)
        self.facts.update(brought.facts)
        self.licences.update(dict.fromkeys(brought.licences))

    def check(self, images: Iterable[ImageRecord]) -> dict[int, Problem]:
        """Decode images; id → problem, for those that have one."""
        found = check_images(images, self.thumbnails)
        self.faulty.update(found)
        return found

    def split(self, images: Iterable[ImageRecord]) -> Split:
        """Some of the images as a split, in order of id."""
        empty = Split(annotations=self.candidates.place, classes=self.classes, images=(), licences=tuple(self.licences))
        return with_images(empty, images)


def draw_shots(stock: Stock, shots: int, seed: int, *, replace_faulty: bool) -> list[ImageRecord]:
    """K images per class. With `replace_faulty` every one of them decodes; otherwise `stock.faulty` has the problems.

    Raises:
        DataError: too few images; or see `Candidates.bring`.
    """
    while True:
        pool = _shots_pool(stock, shots, seed)
        shown = members(pool, stock.classes)
        require_shots(stock, shown, shots)
        drawn = sample_shots(shown, shots, seed)
        chosen = [image for image in pool if image.id in drawn]
        if not stock.check(chosen) or not replace_faulty:
            return chosen


def draw_subset(
    stock: Stock, fraction: float, subset: int, seed: int, *, leave_out_faulty: bool
) -> tuple[list[ImageRecord], Stratified]:
    """One of the disjoint subsets of all images, and how it compares with them.

    With `leave_out_faulty` every one of them decodes; otherwise `stock.faulty` has the problems. Faulty images are not
    replaced, because a replacement would be in another subset too.

    Args:
        stock: of images at hand.
        fraction: share of the images in each subset.
        subset: from 1 on.
        seed: of the division.

    Raises:
        DataError: a class that no image of the subset shows.
    """
    images = {image.id: image for image in _all(stock)}
    order = ranked(images, key_of_shots(seed), stock.candidates.tag)
    counts = object_counts([images[image_id] for image_id in order], len(stock.classes))
    inside = divide(counts, fraction, seed) == subset - 1
    chosen = [images[image_id] for image_id, is_in in zip(order, inside, strict=True) if is_in]
    faulty = stock.check(chosen)
    if leave_out_faulty:
        chosen = [image for image in chosen if image.id not in faulty]
    part = object_counts(chosen, len(stock.classes))
    _require_every_class(stock, part, counts, f"subset {subset} of --fraction {fraction:g}")
    points, label = largest_difference(part, counts)
    return chosen, {
        "fraction": fraction,
        "subset": subset,
        "subsets": subsets_of(fraction),
        "images": len(images),
        "largest_difference": round(points, 4),
        "largest_in": stock.classes[label],
    }


def _require_every_class(stock: Stock, part: Counts, whole: Counts, what: str) -> None:
    """Raise DataError for a class without an image in the part; with what is known of the whole."""
    for label, name in enumerate(stock.classes):
        if not part[:, label].any():
            shown = int((whole[:, label] > 0).sum())
            least = math.ceil(100 / max(1, shown)) / 100
            raise DataError(
                f"{stock.candidates.place}: no image of {name!r} in {what}; of all {len(whole)} images {shown} show it",
                hint=f"With --fraction {least:g} every subset can have one." if shown else "Leave the class out.",
            )


def draw_test(
    stock: Stock, count: int, seed: int, *, without: Collection[int], known: Collection[str]
) -> tuple[list[ImageRecord], list[Path]]:
    """At most `count` images, and the files that were left out for their content.

    Args:
        stock: where from.
        count: of images, at most.
        seed: of the draw.
        without: ids that are not to be drawn.
        known: SHA-256 of files; an image of the same content is not drawn.
    """
    pool = {image.id: image for image in _test_pool(stock, count, seed, without)}
    taken: list[ImageRecord] = []
    duplicates: list[Path] = []
    for image_id in order_test(members(pool.values(), stock.classes), seed, without=without):
        image = pool[image_id]
        if len(taken) == count:
            break
        if stock.check([image]):
            continue
        if sha256_of(image.path) in known:
            duplicates.append(image.path)
        else:
            taken.append(image)
    return taken, duplicates


def require_shots(stock: Stock, ids: Mapping[str, Collection[int]], shots: int) -> None:
    """Raise DataError unless every class has K images; says what was left out, and where there are more."""
    try:
        check_enough({name: len(each) for name, each in ids.items()}, shots)
    except DataError as error:
        left_out = ", ".join(f"{count} {reason}" for reason, count in stock.left_out.items())
        rarest = min(ids, key=lambda name: len(ids[name]))
        raise DataError(
            f"{stock.candidates.place}: {error.message}" + (f"; left out: {left_out}" if left_out else ""),
            hint=" ".join(filter(None, (error.hint, stock.candidates.advice(rarest, shots)))),
        ) from error


# --- which images are brought to draw from ---


def _shots_pool(stock: Stock, shots: int, seed: int) -> list[ImageRecord]:
    """All images of a split at hand; else the first K of each class by rank, with others for unusable ones."""
    if stock.candidates.at_hand:
        return [image for image in _all(stock) if image.id not in stock.faulty]
    queues = _ranked(stock, key_of_shots(seed))

    def pick() -> list[int]:
        usable = _without(queues, stock.unusable | set(stock.faulty))
        require_shots(stock, usable, shots)
        return take_turns(ids[:shots] for ids in usable.values())

    return stock.bring(pick)


def _test_pool(stock: Stock, count: int, seed: int, without: Collection[int]) -> list[ImageRecord]:
    """All images of a split at hand; else the first by rank, the classes taking turns.

    The round that reaches `count` is completed, so that every class offers as many as the others.
    """
    if stock.candidates.at_hand:
        return _all(stock)
    queues = _ranked(stock, key_of_test(seed))
    rounds = -(-count // len(queues))

    def pick() -> list[int]:
        usable = _without(queues, stock.unusable | set(without))
        return take_turns(usable.values())[: rounds * len(queues)]

    return stock.bring(pick)


def _all(stock: Stock) -> list[ImageRecord]:
    ids = sorted(set().union(*stock.candidates.ids.values()))
    return stock.bring(lambda: ids)


def _ranked(stock: Stock, key: str) -> dict[str, list[int]]:
    return {name: ranked(ids, key, stock.candidates.tag) for name, ids in stock.candidates.ids.items()}


def _without(queues: Mapping[str, Sequence[int]], ids: set[int]) -> dict[str, list[int]]:
    return {name: [image_id for image_id in queue if image_id not in ids] for name, queue in queues.items()}

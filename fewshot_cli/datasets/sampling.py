"""Which images become shots, and which the test set: a function of the seed and the image ids alone.

Every image gets a rank from a hash of seed and id. No random generator is involved, so the draw does
not depend on the order of the file, on the version of a library, or on what was drawn before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, UsageError

ATTEMPTS = 32
"""Draws compared when classes share images; the first draw is final if every class gets exactly K."""


def sample_shots(split: Split, classes: Sequence[str], shots: int, seed: int) -> Split:
    """Draw K training images per class.

    A shot is one image with at least one box (no crowd) of the class. An image of two classes counts
    for both, so where classes share images a class may get more than K, never fewer; of ATTEMPTS draws
    the one with the smallest surplus is taken.

    Args:
        split: the pool.
        classes: names, matched leniently; their order is the order of the new labels.
        shots: K, images per class.
        seed: any integer.

    Returns:
        the drawn images in order of id, with the boxes of `classes` only, labels 0 … C−1. For a single
        class the K-shot sample is contained in the (K+1)-shot sample of the same seed.

    Raises:
        DataError: an unknown class, or too few images (says how many each class has).
        UsageError: fewer than one shot, or no class.
    """
    if shots < 1:
        raise UsageError(f"--shots {shots} is not possible", hint="Give 1 or more.")
    chosen = restrict(split, classes)
    members = _members(chosen.images, len(chosen.classes))
    _check_enough(chosen, members, shots)
    best = _draw(members, shots, f"{seed}")
    for attempt in range(1, ATTEMPTS):
        if _surplus(best, members, shots) == 0:
            break
        # An equal surplus keeps the earlier draw.
        best = min(best, _draw(members, shots, f"{seed}.{attempt}"), key=lambda ids: _surplus(ids, members, shots))
    return with_images(chosen, [image for image in chosen.images if image.id in best])


def order_test(split: Split, classes: Sequence[str], seed: int, *, without: frozenset[int] = frozenset()) -> Split:
    """The images that contain any of the classes, in the order in which a test set takes them.

    The classes take turns, so that the first N images hold each about equally often.

    Args:
        split: where from.
        classes: as for `sample_shots`.
        seed: any integer.
        without: ids that must not be drawn, the shots of the same split.

    Raises:
        DataError: an unknown class.
    """
    chosen = restrict(split, classes)
    members = [ids - without for ids in _members(chosen.images, len(chosen.classes))]
    taken = take_turns([_ranked(ids, f"{seed}.test") for ids in members])
    by_id = {image.id: image for image in chosen.images}
    return replace(chosen, images=tuple(by_id[number] for number in taken))


def take_turns(ranked: Sequence[Sequence[int]]) -> list[int]:
    """All numbers of several queues, each once: the first of each queue, then the second of each, and so on."""
    queues = [iter(numbers) for numbers in ranked]
    taken: dict[int, None] = {}
    while queues:
        for queue in tuple(queues):
            number = next((number for number in queue if number not in taken), None)
            if number is None:
                queues.remove(queue)
            else:
                taken[number] = None
    return list(taken)


def restrict(split: Split, classes: Sequence[str]) -> Split:
    """The same images with the boxes of `classes` only, relabelled 0 … C−1 in the order asked.

    Raises:
        DataError: an unknown class, or one asked for twice.
        UsageError: no class.
    """
    if not classes:
        raise UsageError("no class is named", hint="Give at least one --class.")
    try:
        names = match_classes(classes, split.classes)
    except DataError as error:
        raise DataError(f"{split.annotations}: {error.message}", hint=error.hint) from error
    new_label = {split.classes.index(name): label for label, name in enumerate(names)}
    images = tuple(_relabelled(image, new_label) for image in split.images)
    category_ids = tuple(split.category_ids[label] for label in new_label)
    return replace(split, classes=names, images=images, category_ids=category_ids)


def with_images(split: Split, images: Sequence[ImageRecord]) -> Split:
    """The split reduced to `images`, in order of id."""
    return replace(split, images=tuple(sorted(images, key=lambda image: image.id)))


def boxes_per_class(split: Split) -> dict[str, int]:
    """Class name → number of boxes, crowd included."""
    labels = [int(label) for image in split.images for label in image.labels]
    return {name: labels.count(label) for label, name in enumerate(split.classes)}


def images_per_class(split: Split) -> dict[str, int]:
    """Class name → number of images with a box (no crowd) of it: the shots that could be drawn."""
    members = _members(split.images, len(split.classes))
    return {name: len(ids) for name, ids in zip(split.classes, members, strict=True)}


def rank(number: int, key: str) -> tuple[bytes, int]:
    """Where an image stands in the draw: the lowest ranks are taken. The key of the shots is the seed,
    that of the test set `SEED.test`."""
    return hashlib.sha256(f"{key}:{number}".encode()).digest(), number


def _relabelled(image: ImageRecord, new_label: dict[int, int]) -> ImageRecord:
    kept = np.isin(image.labels, list(new_label))
    labels = np.array([new_label[int(label)] for label in image.labels[kept]], dtype=np.int64)
    return replace(image, boxes=image.boxes[kept], labels=labels, crowd=image.crowd[kept])


def _members(images: Sequence[ImageRecord], count: int) -> list[set[int]]:
    """For each of `count` labels the ids of the images with a box (no crowd) of it."""
    members: list[set[int]] = [set() for _ in range(count)]
    for image in images:
        for label in np.unique(image.labels[~image.crowd]):
            members[int(label)].add(image.id)
    return members


def _check_enough(split: Split, members: Sequence[set[int]], shots: int) -> None:
    if all(len(ids) >= shots for ids in members):
        return
    counts = ", ".join(f"{name}: {len(ids)}" for name, ids in zip(split.classes, members, strict=True))
    raise DataError(
        f"{split.annotations}: too few images for {shots} shots ({counts})",
        hint=f"--shots {min(map(len, members))} is the most that every class has; or add images.",
    )


def _draw(members: Sequence[set[int]], shots: int, key: str) -> set[int]:
    """One greedy draw, the rarest class first, as it has the least choice."""
    drawn: set[int] = set()
    for label in sorted(range(len(members)), key=lambda label: (len(members[label]), label)):
        candidates = _ranked(members[label] - drawn, key)
        for _ in range(shots - len(drawn & members[label])):
            full = [ids for ids in members if len(drawn & ids) >= shots]
            # min takes the first of equals: of those that overfill the fewest classes, the best ranked.
            best = min(candidates, key=lambda number: sum(number in ids for ids in full))
            candidates.remove(best)
            drawn.add(best)
    return drawn


def _surplus(drawn: set[int], members: Sequence[set[int]], shots: int) -> int:
    return sum(len(drawn & ids) - shots for ids in members)


def _ranked(ids: set[int], key: str) -> list[int]:
    return sorted(ids, key=lambda number: rank(number, key))

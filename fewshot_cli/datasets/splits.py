"""What can be done with a split: keep some of its classes or images, count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

import numpy as np

from fewshot_cli.datasets.classes import has_class, match_classes
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, UsageError


def restrict(split: Split, classes: Sequence[str], *, partial: bool = False) -> Split:
    """The same images with the boxes of `classes` only, relabelled 0 … C−1 in the order given.

    Args:
        split: any.
        classes: names, matched leniently.
        partial: a class that the split does not have is no error: it has no boxes, and the name given.

    Raises:
        DataError: an unknown class, or one named twice.
        UsageError: no class.
    """
    if not classes:
        raise UsageError("no class is named", hint="Give at least one --class.")
    known = [name for name in classes if not partial or has_class(name, split.classes)]
    try:
        found = dict(zip(known, match_classes(known, split.classes), strict=True))
    except DataError as error:
        raise DataError(f"{split.annotations}: {error.message}", hint=error.hint) from error
    names = tuple(found.get(name, name) for name in classes)
    new_label = {split.classes.index(found[name]): label for label, name in enumerate(classes) if name in found}
    images = tuple(_relabelled(image, new_label) for image in split.images)
    # A class that is not there has no id, and then all are numbered anew.
    category_ids = tuple(split.category_ids[label] for label in new_label) if len(found) == len(names) else ()
    return replace(split, classes=names, images=images, category_ids=category_ids)


def with_images(split: Split, images: Iterable[ImageRecord]) -> Split:
    """The split with `images` instead of its own, in order of id."""
    return replace(split, images=tuple(sorted(images, key=lambda image: image.id)))


def with_ids(split: Split, ids: Container[int]) -> Split:
    """The split with those of its images that have one of the ids, in order of id."""
    return with_images(split, [image for image in split.images if image.id in ids])


def members(images: Iterable[ImageRecord], classes: Sequence[str]) -> dict[str, set[int]]:
    """Class name → ids of the images with a box (no crowd) of it, which is what makes an image a shot of a class."""
    found: dict[str, set[int]] = {name: set() for name in classes}
    for image in images:
        for label in np.unique(image.labels[~image.crowd]):
            found[classes[int(label)]].add(image.id)
    return found


def images_per_class(split: Split) -> dict[str, int]:
    """Class name → number of images with a box (no crowd) of it."""
    return {name: len(ids) for name, ids in members(split.images, split.classes).items()}


def boxes_per_class(split: Split) -> dict[str, int]:
    """Class name → number of boxes, crowd included."""
    counts = Counter(int(label) for image in split.images for label in image.labels)
    return {name: counts[label] for label, name in enumerate(split.classes)}


def _relabelled(image: ImageRecord, new_label: dict[int, int]) -> ImageRecord:
    kept = np.isin(image.labels, list(new_label))
    labels = np.array([new_label[int(label)] for label in image.labels[kept]], dtype=np.int64)
    return replace(image, boxes=image.boxes[kept], labels=labels, crowd=image.crowd[kept])

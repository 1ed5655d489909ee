"""What looks wrong in a drawn data set and is no fault: worth a look, never an error."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Doc

from fewshot_cli.datasets.checks import Thumbnails
from fewshot_cli.datasets.classes import look_alike
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.files import sha256_of

CANVAS = 416
"""Pixels: the canvas of the smallest detectors, on which a box has to be seen."""
SMALLEST_SIDE = 4.0
"""Pixels on that canvas; no detector here has a finer grid than 8."""

SAME_LOOK = 5.0
"""Root mean square difference of two thumbnails, of 255 levels. Saved again at half the size and poor quality, a
photograph differs by 1 to 4; different ones of a traffic camera that stands still by 9 or more."""

BLOCK = 256
"""Thumbnails that are compared with all others at a time; bounds the memory."""

SHOWN = 5
"""Images named in a message; all of them are in `Suspect.images`."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """Something to look at."""

    check: Annotated[str, Doc("`records`, `small boxes`, `repeated images`, `class names` or `partly labelled`.")]
    message: Annotated[str, Doc("One or two sentences, with the first images named.")]
    images: Annotated[tuple[str, ...], Doc("File names, as the source has them.")] = ()


def suspects_in(train: Split, test: Split | None, thumbnails: Thumbnails) -> list[Suspect]:
    """Small boxes of both splits, and images that repeat within and between them.

    Args:
        train, test: what was drawn.
        thumbnails: of all their images.
    """
    splits = {"shots": train, **({"test images": test} if test else {})}
    small = [found for name, split in splits.items() for found in small_boxes(split.images, name)]
    return [*small, *repeated_images(train.images, test.images if test else (), thumbnails)]


def small_boxes(images: Sequence[ImageRecord], what: str) -> list[Suspect]:
    """At most one suspect: the images with a box of a few pixels, once the image is scaled to CANVAS."""
    counts = {shown_name(image): count for image in images if (count := _count_small(image))}
    if not counts:
        return []
    total = sum(counts.values())
    boxes = f"{total} boxes" if total > 1 else "1 box"
    message = (
        f"{boxes} in {what} {'are' if total > 1 else 'is'} under {SMALLEST_SIDE:g} pixels wide or high on a canvas of "
        f"{CANVAS}, too small to be found: {listed(tuple(counts))}"
    )
    return [Suspect("small boxes", message, tuple(counts))]


def _count_small(image: ImageRecord) -> int:
    boxes, _ = image.objects()
    sides = boxes[:, 2:] - boxes[:, :2]
    return int((sides.min(axis=1, initial=np.inf) * CANVAS / max(image.width, image.height) < SMALLEST_SIDE).sum())


def repeated_images(train: Sequence[ImageRecord], test: Sequence[ImageRecord], thumbnails: Thumbnails) -> list[Suspect]:
    """Groups of images with the same content, or nearly: saved again, scaled, or taken a moment later.

    An image is in a group if it looks like any image of the group, so that a burst of photographs is one group.
    """
    images = [*train, *test]
    if not images:
        return []
    groups = _connected(len(images), _close_pairs([thumbnails[image.path] for image in images]))
    return [_repeated([images[i] for i in group], sum(i < len(train) for i in group)) for group in groups]


def _connected(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Groups of indices below `count` that pairs connect, each in order, by their first index."""
    if not pairs:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones, others = zip(*pairs, strict=True)
    _, labels = connected_components(
        coo_array((np.ones(len(pairs)), (ones, others)), shape=(count, count)), directed=False
    )
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(int(label), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _close_pairs(thumbnails: Sequence[NDArray[np.uint8]]) -> list[tuple[int, int]]:
    flat = np.array(thumbnails, dtype=np.float32).reshape(len(thumbnails), -1)
    squares = (flat**2).sum(axis=1)
    pairs = []
    for start in range(0, len(flat), BLOCK):
        block = slice(start, start + BLOCK)
        # |a − b|² = |a|² + |b|² − 2ab takes a tenth of the time; rounded as it is, it says which pairs to compare.
        rough = squares[block, None] + squares[start:] - 2 * flat[block] @ flat[start:].T
        near = np.argwhere(rough < 1.1 * SAME_LOOK**2 * flat.shape[1]) + start
        pairs += [(int(one), int(other)) for one, other in near if one < other and _are_alike(flat[one], flat[other])]
    return pairs


def _are_alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.sqrt(np.mean((one - other) ** 2)) < SAME_LOOK)


def _repeated(images: Sequence[ImageRecord], shots: int) -> Suspect:
    """The warning for a group of images: the first `shots` of them are shots, the others test images."""
    names = tuple(shown_name(image) for image in images)
    same = len({sha256_of(image.path) for image in images}) == 1
    what = f"{len(names)} images {'are the same file' if same else 'look the same'}"
    if 0 < shots < len(names):
        where = f"shots {listed(names[:shots])}; test images {listed(names[shots:])}"
        return Suspect("repeated images", f"{what}, so the test mAP is too high: {where}", names)
    return Suspect("repeated images", f"{what}: {listed(names)}", names)


SURE = 0.6
"""Score from which a detection without a box is reported."""
APART = 0.1
"""Largest share of the smaller of two boxes that they may have in common and still be of different objects."""

Detected = tuple[NDArray[np.float32], NDArray[np.float32]]
"""(N, 4) xyxy, pixels, and (N,) scores."""


def partly_labelled(images: Sequence[ImageRecord], detections: Sequence[Detected], detector: str) -> list[Suspect]:
    """At most one suspect: images in which a detector finds an object of at least SURE that has no box.

    Args:
        images: with their boxes.
        detections: boxes and scores in each image, of the classes that are labelled.
        detector: named in the message.
    """
    found = zip(images, detections, strict=True)
    counts = {shown_name(image): count for image, own in found if (count := len(unlabelled(image, *own)))}
    if not counts:
        return []
    total = sum(counts.values())
    message = (
        f"{detector} detects {total} object{'s' if total > 1 else ''} with a score of at least {SURE} where no box is; "
        f"training would treat {'them' if total > 1 else 'it'} as background: {listed(tuple(counts))}"
    )
    return [Suspect("partly labelled", message, tuple(counts))]


def unlabelled(image: ImageRecord, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> list[int]:
    """The detections of at least SURE that are of no object with a box, as indices, best first.

    Args:
        image: with its boxes; those of any class and of crowds count.
        boxes: (N, 4) xyxy, pixels.
        scores: (N,).
    """
    shared = _shared(boxes, image.boxes).max(axis=1, initial=0.0)
    return [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] >= SURE and shared[i] <= APART]


def _shared(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, M) area that each of N boxes has in common with each of M others, as a share of the smaller of the two."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    smaller = np.minimum(_areas(boxes)[:, None], _areas(others)[None])
    shares: NDArray[np.float64] = np.clip(high - low, 0, None).astype(np.float64).prod(axis=2) / np.maximum(
        smaller, 1e-9
    )
    return shares


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) areas of (N, 4) xyxy boxes."""
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1)
    return areas


def class_names(names: Sequence[str], used: Collection[str]) -> list[Suspect]:
    """Classes that are not used and whose names are nearly those of classes that are.

    Args:
        names: all that the annotations have.
        used: those of the data set.
    """
    pairs = look_alike([name for name in names if name in used], [name for name in names if name not in used])
    return [
        Suspect("class names", f"classes {one!r} and {other!r} may be one: the boxes of {other!r} are not used")
        for one, other in pairs
    ]


def shown_name(image: ImageRecord) -> str:
    """What the source calls the image."""
    return image.name or image.path.name


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

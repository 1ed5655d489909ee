"""Objects that are probably there, but were not labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.datasets.types import ImageRecord, Split, to_xyxy

SURE = 0.6
"""Score from which on a detection without a box is reported."""
APART = 0.1
"""Largest share of the smaller of two boxes that they may have in common and still be of different objects."""


class Unlabelled(NamedTuple):
    """A detection that overlaps no box: its image, class, score and box (x1, y1, x2, y2) in pixels."""

    image: ImageRecord
    name: str
    score: float
    box: tuple[float, float, float, float]


def unlabelled_objects(split: Split, results: Sequence[dict[str, Any]], score: float = SURE) -> list[Unlabelled]:
    """The surest detection without a box of each image that has one, surest first.

    Args:
        split: images with their boxes; boxes of any class and of crowds count.
        results: detections in COCO's results format, by detectors that were not trained on these very images.
        score: detections below are not looked at.
    """
    images = {image.id: image for image in split.images}
    names = dict(zip(split.category_ids, split.classes, strict=True))
    found: dict[int, Unlabelled] = {}
    for result in sorted(results, key=lambda result: -result["score"]):
        image, box = images[result["image_id"]], to_xyxy(np.array([result["bbox"]]))
        sure = result["score"] >= score and result["category_id"] in names
        if sure and image.id not in found and (_shared(box[0], image.boxes) <= APART).all():
            found[image.id] = Unlabelled(image, names[result["category_id"]], result["score"], tuple(box[0].tolist()))
    return list(found.values())


def _shared(box: NDArray[np.float64], boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) area that a box has in common with each of N boxes, as a share of the smaller of the two."""
    corners = np.concatenate([np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])], axis=1)
    common = _areas(corners)
    return common / np.maximum(np.minimum(_areas(box[None]), _areas(boxes)), 1e-9)


def _areas(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) areas of (N, 4) xyxy boxes; 0 for those turned inside out."""
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).astype(np.float64).prod(axis=1)

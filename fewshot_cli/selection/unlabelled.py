"""Shots with an object that is probably there, but was not labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fewshot_cli.datasets.suspects import unlabelled
from fewshot_cli.datasets.types import ImageRecord, Split, to_xyxy


class Unlabelled(NamedTuple):
    """A detection of an object without a box: its image, class, score and box (x1, y1, x2, y2) in pixels."""

    image: ImageRecord
    name: str
    score: float
    box: tuple[float, float, float, float]


def unlabelled_objects(split: Split, results: Sequence[dict[str, Any]]) -> list[Unlabelled]:
    """The detection of the highest score without a box, of each image that has one; highest score first.

    Args:
        split: images with their boxes.
        results: detections in COCO's results format, by detectors that were not trained on these very images.
    """
    names = dict(zip(split.category_ids, split.classes, strict=True))
    of_image: dict[int, list[dict[str, Any]]] = {image.id: [] for image in split.images}
    for result in results:
        if result["category_id"] in names:
            of_image[result["image_id"]].append(result)
    found = []
    for image in split.images:
        own = of_image[image.id]
        boxes = to_xyxy(np.array([result["bbox"] for result in own]).reshape(-1, 4))
        for i in unlabelled(image, boxes, np.array([result["score"] for result in own]))[:1]:
            corners = tuple(boxes[i].tolist())
            found.append(Unlabelled(image, names[own[i]["category_id"]], own[i]["score"], corners))
    return sorted(found, key=lambda one: -one.score)

"""What pycocotools matched, as arrays: one for each class, over all images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval


@dataclass(frozen=True, slots=True)
class Matches:
    """What pycocotools matched of one class in N images, of all sizes and at most 100 detections an image.

    Attributes:
        objects: (N,) int, to be found in each image.
        scores: (D,) float, of the detections, best first; those that are equal in the order of their images.
        images: (D,) int, the image of each.
        right: (T, D) bool, matched with an object at each IoU threshold.
        counted: (T, D) bool, not matched with a crowd.
    """

    objects: NDArray[np.int64]
    scores: NDArray[np.float64]
    images: NDArray[np.int64]
    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]


def matches_of(evaluation: COCOeval) -> list[Matches]:
    """Of each class, in the order of category ids."""
    images, areas = len(evaluation.params.imgIds), len(evaluation.params.areaRng)
    # By class, area and image; all areas come first.
    starts = [number * areas * images for number in range(len(evaluation.params.catIds))]
    return [_matches(evaluation.evalImgs[start : start + images], len(evaluation.params.iouThrs)) for start in starts]


def _matches(found: list[dict[str, Any] | None], thresholds: int) -> Matches:
    """Of one class: what was matched in each image, None where there is neither object nor detection."""
    seen = [(number, each) for number, each in enumerate(found) if each is not None]
    objects = np.zeros(len(found), dtype=np.int64)
    for number, each in seen:
        objects[number] = np.count_nonzero(np.equal(each["gtIgnore"], 0))
    none = np.zeros((thresholds, 0), dtype=bool)
    scores = np.concatenate([np.zeros(0), *(each["dtScores"] for _, each in seen)])
    ignored = np.concatenate([none, *(each["dtIgnore"].astype(bool) for _, each in seen)], axis=1)
    matched = np.concatenate([none, *(each["dtMatches"] > 0 for _, each in seen)], axis=1)
    images = np.repeat([number for number, _ in seen], [len(each["dtScores"]) for _, each in seen]).astype(np.int64)
    order = np.argsort(-scores, kind="stable")
    return Matches(objects, scores[order], images[order], (matched & ~ignored)[:, order], ~ignored[:, order])

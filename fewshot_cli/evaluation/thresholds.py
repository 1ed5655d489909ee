"""From which score on detections should count: the one with the best F1 on images with ground truth.

A detection is right if it is matched with an object of its class as COCO does: best score first, at an IoU of at least
MATCH_IOU, each object once. Detections of crowds are ignored, and at most 100 a class and image count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.evaluation.coco_metrics import match
from fewshot_cli.evaluation.matches import Matches, matches_of

MATCH_IOU = 0.5
"""A detection has found an object if they overlap at least so much, as in AP50."""


class Quality(NamedTuple):
    """Of the detections from some score on: each 0 … 1; precision is 0 where there are none."""

    f1: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """The detections of one class in all images, best first.

    Attributes:
        scores: (N,) float, descending.
        right: (N,) bool, matched with an object.
        objects: how many there are to be found.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    objects: int

    def at(self, threshold: float) -> Quality:
        """What remains of the detections with a score of at least `threshold`."""
        kept = int((self.scores >= threshold).sum())
        hits = int(self.right[:kept].sum())
        total = kept + self.objects
        return Quality(2 * hits / total if total else 0.0, hits / max(1, kept), hits / max(1, self.objects))

    def best(self) -> tuple[float | None, Quality]:
        """The threshold with the best F1, and what it gives; no threshold if nothing is right.

        Of equally good scores the highest is taken. The threshold lies midway between it and the next lower score (0 if
        there is none): every value in between gives the same F1 here, and the middle is farthest from both sides.
        """
        # Detections of one score are kept or dropped together.
        last = np.flatnonzero(np.append(np.diff(self.scores), -1.0)[: len(self.scores)])
        hits = np.cumsum(self.right)[last]
        if not hits.any():
            return None, Quality(0.0, 0.0, 0.0)
        chosen = last[np.argmax(2 * hits / (last + 1 + self.objects))]
        lower = self.scores[chosen + 1] if chosen + 1 < len(self.scores) else 0.0
        return float(self.scores[chosen] + lower) / 2, self.at(self.scores[chosen])


def rank(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Ranking]:
    """The ranking of each class of the ground truth by name, from two COCO documents."""
    evaluation = match(ground_truth, results)
    names = [category["name"] for category in evaluation.cocoGt.loadCats(evaluation.params.catIds)]
    iou = int(np.flatnonzero(np.isclose(evaluation.params.iouThrs, MATCH_IOU))[0])
    return {name: _ranking(found, iou) for name, found in zip(names, matches_of(evaluation), strict=True)}


def _ranking(found: Matches, iou: int) -> Ranking:
    counted = found.counted[iou]
    return Ranking(found.scores[counted], found.right[iou][counted], int(found.objects.sum()))

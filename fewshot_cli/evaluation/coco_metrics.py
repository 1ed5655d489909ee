"""COCO's twelve numbers, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fewshot_cli.detectors.chain import Detections
from fewshot_cli.evaluation.bootstrap import ap_interval
from fewshot_cli.evaluation.caveats import caveats
from fewshot_cli.evaluation.matches import Matches, matches_of

NAMES: tuple[str, ...] = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100")
NAMES += ("AR_small", "AR_medium", "AR_large")
RECALLS = tuple(i / 100 for i in range(101))
"""Where COCO reads precision."""
CURVE_THRESHOLDS = (0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Metrics:
    """What pycocotools measured, each 0 … 1, or None where there is nothing to measure.

    numbers: COCO's twelve by NAMES, mAP@[.50:.95] (`AP`) first; per_class: AP of each class by name; curves: precision
    at RECALLS by class and IoU threshold, for a plot; matches: what was matched of each class.
    """

    numbers: dict[str, float | None]
    per_class: dict[str, float | None]
    curves: dict[str, dict[float, list[float]]]
    matches: Sequence[Matches] = field(default=(), compare=False, repr=False)

    @property
    def ap(self) -> float:
        """mAP@[.50:.95]; 0 where no object of a measured size exists."""
        return self.numbers["AP"] or 0.0

    @property
    def images(self) -> int:
        """How many were measured on."""
        return len(self.matches[0].objects) if self.matches else 0

    @property
    def boxes(self) -> int:
        """Of the ground truth, of the classes that were measured; without crowds."""
        return sum(int(each.objects.sum()) for each in self.matches)

    @property
    def caveats(self) -> list[str]:
        """Sentences that belong beside the mAP."""
        return caveats(self.images, self.boxes)

    def ap_interval(self) -> list[float] | None:
        """Low and high end of the mAP's 95 % interval over samples of the images (`bootstrap`); takes up to a second.

        None for fewer than two images, and where nothing is to be found.
        """
        interval = ap_interval(self.matches)
        return list(interval) if interval else None

    def to_json(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "per_class": self.per_class}


def to_results(
    detections: Sequence[Detections], image_ids: Sequence[int], category_ids: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Detections of several images in COCO's results format: xywh boxes in pixels, to 1/100.

    Args:
        detections: one per image; labels index `category_ids`.
        image_ids: of the images, in the same order.
        category_ids: the category of each label; detections of a label without one are left out.
    """
    results: list[dict[str, Any]] = []
    for image_id, (boxes, scores, labels) in zip(image_ids, detections, strict=True):
        corners = boxes.tolist()
        for (x1, y1, x2, y2), score, label in zip(corners, scores.tolist(), labels.tolist(), strict=True):
            if category_ids[label] is None:
                continue
            box = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
            results.append(
                {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": round(score, 5)}
            )
    return results


def evaluate(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> Metrics:
    """Score results against ground truth, both COCO documents.

    Boxes only; crowd boxes are ignored and at most 100 detections an image count, as COCO defines.
    """
    evaluation = match(ground_truth, results)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    numbers = {name: _defined(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}
    truth = evaluation.cocoGt
    return Metrics(numbers, _per_class(evaluation, truth), _curves(evaluation, truth), matches_of(evaluation))


def match(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> COCOeval:
    """pycocotools' evaluation of results, both COCO documents: every detection is matched, nothing is summed up yet."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        # Some releases of pycocotools insist on "info", and all write into the records.
        copies = [dict(entry) for entry in ground_truth["annotations"]]
        truth.dataset = {"info": {}, **ground_truth, "annotations": copies}
        truth.createIndex()
        # loadRes raises on an empty list, which is what a detector without detections gives.
        found = truth.loadRes([dict(result) for result in results]) if results else _nothing(ground_truth)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
    return evaluation


def _nothing(ground_truth: dict[str, Any]) -> COCO:
    empty = COCO()
    empty.dataset = {**ground_truth, "annotations": []}
    empty.createIndex()
    return empty


def _per_class(evaluation: COCOeval, truth: COCO) -> dict[str, float | None]:
    """Mean precision over IoU thresholds and recalls: all areas, 100 detections."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    names = [category["name"] for category in truth.loadCats(evaluation.params.catIds)]
    return {name: _mean(precision[:, :, k]) for k, name in enumerate(names)}


def _curves(evaluation: COCOeval, truth: COCO) -> dict[str, dict[float, list[float]]]:
    """Precision at each of COCO's recalls: all areas, 100 detections; classes without ground truth have none."""
    thresholds = [round(float(threshold), 2) for threshold in evaluation.params.iouThrs]
    names = [category["name"] for category in truth.loadCats(evaluation.params.catIds)]
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return {
        name: {iou: precision[thresholds.index(iou), :, k].tolist() for iou in CURVE_THRESHOLDS}
        for k, name in enumerate(names)
        if precision[:, :, k].max() > -1
    }


def _mean(values: np.ndarray) -> float | None:
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def _defined(value: float) -> float | None:
    # COCO writes -1 where there is no ground truth of that size.
    return float(value) if value > -1 else None

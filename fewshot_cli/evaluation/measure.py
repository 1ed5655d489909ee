"""Detections measured against the ground truth of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewshot_cli.datasets.types import Split
from fewshot_cli.detectors.chain import Detections
from fewshot_cli.errors import DataError, closest
from fewshot_cli.evaluation.coco_metrics import Metrics, evaluate, to_results


def score(detections: Sequence[Detections], split: Split, classes: Sequence[str]) -> tuple[Metrics, list[dict]]:
    """COCO metrics of detections on a split, and the detections as COCO results.

    Args:
        detections: one per image of the split; labels index `classes`.
        classes: the detector's. Those that the split does not know are left out, and the other way round:
            only classes known to both are measured.

    Raises:
        DataError: detector and split have no class in common.
    """
    common = [name for name in split.classes if name in classes]
    if not common:
        raise DataError(
            f"{split.annotations}: none of its classes ({', '.join(split.classes)}) is known to the detector",
            hint=closest(split.classes[0], classes),
        )
    category_of = dict(zip(split.classes, split.category_ids, strict=True))
    image_ids = [image.id for image in split.images]
    results = to_results(detections, image_ids, [category_of.get(name) for name in classes])
    return evaluate(ground_truth(split, common), results), results


def ground_truth(split: Split, names: Sequence[str]) -> dict[str, Any]:
    """The split as a COCO document, of some of its classes only."""
    document = split.to_coco()
    kept = {category["id"] for category in document["categories"] if category["name"] in names}
    document["categories"] = [category for category in document["categories"] if category["id"] in kept]
    document["annotations"] = [entry for entry in document["annotations"] if entry["category_id"] in kept]
    return document

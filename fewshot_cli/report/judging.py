"""Which detections are right and which objects were missed, image by image, at the scores that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.evaluation.thresholds import MATCH_IOU
from fewshot_cli.inference.filtering import SCORE_THRESHOLD, least_scores

Box = tuple[float, float, float, float]
"""xyxy, pixels."""


class Judged(NamedTuple):
    """An image and what was found in it.

    image: the file and its ground truth.
    results: detections that count, in COCO's results format, best first.
    objects: for each of them the object that it found, an index into the image's boxes; None for a false positive.
    """

    image: ImageRecord
    results: list[dict[str, Any]]
    objects: list[int | None]

    @property
    def right(self) -> int:
        """How many detections found an object."""
        return sum(found is not None for found in self.objects)

    @property
    def missed(self) -> list[int]:
        """Objects that no detection found, as indices into the image's boxes; crowds are not among them."""
        return [i for i, crowd in enumerate(self.image.crowd) if not crowd and i not in self.objects]

    @property
    def f1(self) -> float:
        """Of this image alone; 1 if it has neither objects nor detections."""
        total = len(self.results) + int((~self.image.crowd).sum())
        return 2 * self.right / total if total else 1.0


def judge(
    test: Split, results: Sequence[dict[str, Any]], thresholds: Mapping[str, float] | None = None
) -> list[Judged]:
    """Every image of a split with what was found in it, in their order.

    Args:
        test: the images with their ground truth.
        results: COCO's.
        thresholds: class → score from which on a detection counts; SCORE_THRESHOLD for other classes.
    """
    scores = least_scores(test.classes, thresholds or {})
    lowest = dict(zip(test.category_ids, scores.values(), strict=True))
    of_image: dict[int, list[dict[str, Any]]] = {image.id: [] for image in test.images}
    for found in results:
        if found["score"] >= lowest.get(found["category_id"], SCORE_THRESHOLD):
            of_image[found["image_id"]].append(found)
    return [judge_image(image, of_image[image.id], test.category_ids) for image in test.images]


def judge_image(image: ImageRecord, results: Sequence[dict[str, Any]], category_ids: Sequence[int]) -> Judged:
    """Match the detections of one image, all of which count.

    Each detection, best score first, takes the free object of its class that it overlaps most, if by MATCH_IOU.
    """
    ordered = sorted(results, key=lambda found: -found["score"])
    taken: list[int | None] = []
    for found in ordered:
        overlaps = overlaps_of(found, image).tolist()
        fitting = [
            (overlap, i)
            for i, overlap in enumerate(overlaps)
            if i not in taken
            and overlap >= MATCH_IOU
            and not image.crowd[i]
            and category_ids[image.labels[i]] == found["category_id"]
        ]
        taken.append(max(fitting)[1] if fitting else None)
    return Judged(image, ordered, taken)


def overlaps_of(found: Mapping[str, Any], image: ImageRecord) -> Tensor:
    """(N,) IoU of a detection with each of the image's N boxes."""
    return box_iou(torch.tensor([corners(found)]), torch.from_numpy(image.boxes))[0]


def corners(found: Mapping[str, Any]) -> Box:
    """xyxy, pixels, of a detection in COCO's results format."""
    x, y, width, height = found["bbox"]
    return x, y, x + width, y + height


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def on_crowd(found: Mapping[str, Any], judged: Judged) -> bool:
    """Whether most of a detection lies in one box around a group, where COCO counts it neither way."""
    x1, y1, x2, y2 = corners(found)
    for box in judged.image.boxes[judged.image.crowd].tolist():
        width, height = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
        if width > 0 and height > 0 and width * height >= MATCH_IOU * area((x1, y1, x2, y2)):
            return True
    return False


def class_names(split: Split) -> dict[int, str]:
    """Category id → class name, in label order."""
    return dict(zip(split.category_ids, split.classes, strict=True))

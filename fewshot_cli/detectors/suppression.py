"""From every box that a head proposes to detections: floor, best candidates, non-maximum suppression.

The same steps are in exported ONNX files (`inference/onnx_graph.py`), as operations of a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms


class Detections(NamedTuple):
    """The detections in one image, best first.

    boxes: (N, 4) float32, xyxy, pixels of the original image; scores: (N,) in 0 … 1; labels: (N,) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """How candidates become detections.

    Attributes:
        min_score: a pair of box and class needs a higher score.
        candidates: pairs of box and class, the best of each group, that go into non-maximum suppression.
        iou: of two boxes of one class that overlap more, the better one stays.
        detections: at most so many an image.
    """

    min_score: float
    candidates: int
    iou: float
    detections: int


class Candidates(NamedTuple):
    """All boxes that one head proposes for a batch of images: their number depends on the canvas alone.

    boxes: (B, A, 4) float32, xyxy, canvas pixels; scores: (B, A, K) float32, 0 … 1, one column a class;
    groups: numbers of consecutive boxes, A in sum, from each of which the best candidates are taken (levels);
    suppression: what follows.
    """

    boxes: Tensor
    scores: Tensor
    groups: Sequence[int]
    suppression: Suppression


def suppress(heads: Sequence[Candidates]) -> list[Detections]:
    """The detections in each canvas, canvas pixels, best first.

    Each head is suppressed alone; labels count the columns of all heads side by side.
    """
    found, first = [], 0
    for head in heads:
        images = zip(head.boxes, head.scores, strict=True)
        found.append([_shifted(_suppress_image(*image, head), first) for image in images])
        first += head.scores.shape[2]
    return [_joined(image) for image in zip(*found, strict=True)]


def _shifted(found: Detections, first: int) -> Detections:
    return found._replace(labels=found.labels + first)


def _joined(heads: Sequence[Detections]) -> Detections:
    if len(heads) == 1:
        return heads[0]
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*heads, strict=True))
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order], scores[order], labels[order])


def _suppress_image(boxes: Tensor, scores: Tensor, found: Candidates) -> Detections:
    rule, groups = found.suppression, list(found.groups)
    best = [_best(*group, rule) for group in zip(boxes.split(groups), scores.split(groups), strict=True)]
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*best, strict=True))
    kept = batched_nms(boxes, scores, labels, rule.iou)[: rule.detections]
    return Detections(boxes[kept], scores[kept], labels[kept])


def _best(boxes: Tensor, scores: Tensor, rule: Suppression) -> Detections:
    """(A, 4) boxes and (A, K) scores → the best pairs of box and class."""
    rows, labels = (scores > rule.min_score).nonzero(as_tuple=True)
    best = scores[rows, labels].topk(min(rule.candidates, len(rows))).indices
    rows, labels = rows[best], labels[best]
    return Detections(boxes[rows], scores[rows, labels], labels)

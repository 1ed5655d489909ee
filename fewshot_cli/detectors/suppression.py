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
    suppression: what follows; labels: (K,) int64, the detector's label of each column, -1 for a class whose detections
    are left out in the end; None: the columns are the labels.
    """

    boxes: Tensor
    scores: Tensor
    groups: Sequence[int]
    suppression: Suppression
    labels: Tensor | None = None


def suppress(heads: Sequence[Candidates]) -> list[Detections]:
    """The detections in each canvas, canvas pixels, best first; each head is suppressed alone."""
    found = [[_suppress_image(*image, head) for image in zip(head.boxes, head.scores, strict=True)] for head in heads]
    return [_joined(image) for image in zip(*found, strict=True)]


def _suppress_image(boxes: Tensor, scores: Tensor, head: Candidates) -> Detections:
    rule, groups = head.suppression, list(head.groups)
    best = [_best(*group, rule) for group in zip(boxes.split(groups), scores.split(groups), strict=True)]
    boxes, scores, columns = (torch.cat(parts) for parts in zip(*best, strict=True))
    kept = batched_nms(boxes, scores, columns, rule.iou)[: rule.detections]
    return _labelled(Detections(boxes[kept], scores[kept], columns[kept]), head.labels)


def _best(boxes: Tensor, scores: Tensor, rule: Suppression) -> Detections:
    """(A, 4) boxes and (A, K) scores → the best pairs of box and column."""
    flat = scores.flatten()
    pairs = (flat > rule.min_score).nonzero()[:, 0]
    pairs = pairs[flat[pairs].topk(min(rule.candidates, len(pairs))).indices]
    rows, columns = pairs.div(scores.shape[1], rounding_mode="floor"), pairs % scores.shape[1]
    return Detections(boxes[rows], flat[pairs], columns)


def _labelled(found: Detections, labels: Tensor | None) -> Detections:
    """Columns → the detector's labels."""
    if labels is None:
        return found
    own = labels[found.labels]
    return Detections(found.boxes[own >= 0], found.scores[own >= 0], own[own >= 0])


def _joined(heads: Sequence[Detections]) -> Detections:
    """The detections of all heads in one image."""
    if len(heads) == 1:
        return heads[0]
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*heads, strict=True))
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order], scores[order], labels[order])

"""The positives of a batch: the predictions that a detector's losses match with an object.

Shapes: P positives of all images of a batch, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Matched(NamedTuple):
    """What a loss matched.

    scores: (P,) of the object's class, 0 … 1, after sigmoid or softmax, and times nothing else: no objectness, no
    centre-ness; boxes: (P, 4) decoded, not clipped, and objects: (P, 4), those that they should be, xyxy, canvas
    pixels.
    """

    scores: Tensor
    boxes: Tensor
    objects: Tensor


class Positives(NamedTuple):
    """How good a batch's positives are.

    scores: (P,) as in `Matched`; ious: (P,) of each decoded box with its object, 0 … 1. Both without a gradient.
    """

    scores: Tensor
    ious: Tensor


def of_class(scores: Tensor, labels: Tensor) -> Tensor:
    """Of each row of (P, K) scores the one of its class: (P,) labels → (P,)."""
    return scores.gather(1, labels[:, None])[:, 0]


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of row i with row i: (P, 4), (P, 4) xyxy → (P,)."""
    overlap = torch.min(first[:, 2:], second[:, 2:]) - torch.max(first[:, :2], second[:, :2])
    intersection = overlap.clamp(min=0).prod(dim=1)
    areas = (first[:, 2:] - first[:, :2]).prod(dim=1) + (second[:, 2:] - second[:, :2]).prod(dim=1)
    return intersection / (areas - intersection + 1e-16)

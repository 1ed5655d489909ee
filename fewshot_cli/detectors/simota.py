"""SimOTA: which predictions are matched to which object (YOLOX paper, arXiv 2107.08430, section 2.1).

Legend: N objects of one image, A predictions (cells of all levels), K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

CENTER_RADIUS = 2.5
"""An object may be matched by cells at most this many strides from its centre."""
BOX_WEIGHT = 3.0
"""λ in the cost of equation (1): box cost against class cost."""
CANDIDATES = 10
"""An object's number of matches is the sum of the IoUs of so many best predictions (dynamic k)."""
_OUT_OF_REACH = 1e6


class Assignment(NamedTuple):
    """Matched predictions of one image: P ≤ A of them.

    predictions: (P,) index into A; objects: (P,) index into N; ious: (P,) of the matched pairs, 0 … 1.
    """

    predictions: Tensor
    objects: Tensor
    ious: Tensor


@torch.no_grad()
def assign(
    boxes: Tensor,
    class_logits: Tensor,
    objectness_logits: Tensor,
    centers: Tensor,
    strides: Tensor,
    target_boxes: Tensor,
    target_labels: Tensor,
) -> Assignment:
    """Match the predictions of one image to its objects.

    Args:
        boxes: (A, 4) predicted, xyxy, canvas pixels.
        class_logits, objectness_logits: (A, K) and (A, 1).
        centers: (A, 2) of the cells, xy, canvas pixels; strides: (A,) pixels.
        target_boxes: (N, 4) xyxy, canvas pixels; target_labels: (N,).

    Returns:
        each prediction at most once; each object at least once, unless every cell in its reach is matched to another
        object at a lower cost.
    """
    if len(target_boxes) == 0:
        nothing = torch.zeros(0, dtype=torch.long, device=boxes.device)
        return Assignment(nothing, nothing, boxes.new_zeros(0))
    reachable = _within_reach(centers, strides, target_boxes)
    near = reachable.any(dim=0).nonzero().flatten()
    ious = box_iou(target_boxes, boxes[near])
    cost = _cost(ious, class_logits[near], objectness_logits[near], target_labels)
    cost += _OUT_OF_REACH * ~reachable[:, near]
    matched = _cheapest(cost, ious, reachable[:, near])
    objects = matched.long().argmax(dim=0)
    chosen = matched.any(dim=0).nonzero().flatten()
    return Assignment(near[chosen], objects[chosen], ious[objects[chosen], chosen])


def _within_reach(centers: Tensor, strides: Tensor, target_boxes: Tensor) -> Tensor:
    """(N, A): is the cell close to the object's centre?"""
    middles = (target_boxes[:, :2] + target_boxes[:, 2:]) / 2
    distance = (centers[None] - middles[:, None]).abs().amax(dim=2)
    return distance < CENTER_RADIUS * strides[None]


def _cost(ious: Tensor, class_logits: Tensor, objectness_logits: Tensor, labels: Tensor) -> Tensor:
    """Equation (1): (N, A) class cost + λ · box cost; a class score is √(class · objectness)."""
    scores = (class_logits.float().sigmoid() * objectness_logits.float().sigmoid()).sqrt()
    absent = -torch.log1p(-scores.clamp(max=1 - 1e-6))
    present = -torch.log(scores.clamp(min=1e-6))
    class_cost = absent.sum(dim=1)[None] + (present - absent).t()[labels]
    return class_cost - BOX_WEIGHT * torch.log(ious + 1e-8)


def _cheapest(cost: Tensor, ious: Tensor, reachable: Tensor) -> Tensor:
    """(N, A) bool: the k cheapest predictions in each object's reach, each prediction kept by its cheapest object."""
    best_ious = ious.topk(min(CANDIDATES, ious.shape[1]), dim=1).values
    wanted = best_ious.sum(dim=1).int().clamp(min=1, max=ious.shape[1])
    rank = cost.argsort(dim=1).argsort(dim=1)
    matched = (rank < wanted[:, None]) & reachable
    cheapest = F.one_hot(cost.argmin(dim=0), len(cost)).t().bool()
    contested = matched.sum(dim=0) > 1
    return torch.where(contested[None], cheapest & matched.any(dim=0)[None], matched)

"""What lies at the objects of a batch in the maps that enter a predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align

CELLS = 4
"""Of the map that an object is pooled from, at least, along its longer side.

FCOS (arXiv 1904.01355, section 3.2) gives a level of stride s the objects of 4 s to 8 s.
"""
SAMPLES = 7
"""Along each side of a box, whose mean is the object's features."""


class ObjectFeatures(NamedTuple):
    """Features of some objects of a batch, from one map.

    rows: (N,) int64, numbers of the objects, counted through all images; values: (N, C) float32.
    """

    rows: Tensor
    values: Tensor


def pool_objects(maps: Sequence[Tensor], boxes: Sequence[Tensor], canvas: int) -> tuple[ObjectFeatures, ...]:
    """RoIAlign (arXiv 1703.06870) with a single bin: each object's features are the mean over its box.

    An object is pooled from the coarsest map on which its longer side is CELLS or more, or from the finest one.

    Args:
        maps: (B, C, H, W), from the finest to the coarsest; C may differ.
        boxes: (N, 4) of each image, xyxy, canvas pixels.
        canvas: its side, pixels.

    Returns:
        one entry a map.
    """
    images = torch.cat([torch.full((len(own), 1), float(i), device=own.device) for i, own in enumerate(boxes)])
    every = torch.cat(list(boxes))
    strides = [canvas / level.shape[-1] for level in maps]
    sides = (every[:, 2:] - every[:, :2]).amax(dim=1)
    levels = sum((sides >= CELLS * stride).long() for stride in strides[1:]) + torch.zeros_like(sides).long()
    found = []
    with torch.autocast(every.device.type, enabled=False):
        for number, (level, stride) in enumerate(zip(maps, strides, strict=True)):
            rows = (levels == number).nonzero()[:, 0]
            regions = torch.cat([images[rows], every[rows]], dim=1)
            pooled = roi_align(level.float(), regions, 1, 1 / stride, SAMPLES, aligned=True)
            found.append(ObjectFeatures(rows, pooled.flatten(1)))
    return tuple(found)

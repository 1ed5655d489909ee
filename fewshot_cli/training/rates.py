"""The learning rate of each parameter that trains, as a share of that of the run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.detectors.chain import HEAD_PARTS, Detector, ParameterGroup
from fewshot_cli.training.class_init import Start

BACKBONE_SHARE = {Start.KNOWN: 0.02, Start.SIMILAR: 0.02, Start.NEW: 0.1}
"""Share of the learning rate for neck and backbone, by what a class is to the pretrained detector."""


def backbone_share(starts: Iterable[Start]) -> float:
    """The mean of BACKBONE_SHARE over the classes.

    Low, because ten images can spoil what was learnt from a hundred thousand; higher for new classes, which that
    serves less.

    Args:
        starts: of one class or more.
    """
    return statistics.fmean(BACKBONE_SHARE[start] for start in starts)


def small_objects_group(detector: Detector) -> ParameterGroup | None:
    """The parameter group that is for small objects, in detectors that have one."""
    return next((group for group in detector.parameter_groups() if group.small_objects), None)


def small_object_share(detector: Detector, shots: Split) -> float:
    """Share of the learning rate for the group for small objects: its own where small objects are the majority, else 1.

    Where each level has its own head, only one of them learns from small objects. They are the majority if they make up
    more than half of the objects of an image, averaged over the images, because one crowded image can hold most
    objects of all ten.
    """
    group = small_objects_group(detector)
    if group is None or group.small_objects is None:
        return 1.0
    sides = [_sides(image, detector.image_size) for image in shots.images]
    small = [(of <= group.small_objects.side).mean() for of in sides if len(of)]
    return group.small_objects.lr if sum(small) > len(small) / 2 else 1.0


def _sides(image: ImageRecord, image_size: int) -> NDArray[np.float32]:
    """Of squares as large as the image's objects, in canvas pixels."""
    boxes, _ = image.objects()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.sqrt(areas) * image_size / max(image.width, image.height)


def learning_rates(
    detector: Detector, backbone_lr: float = 1.0, small_object_lr: float = 1.0
) -> list[tuple[nn.Parameter, float]]:
    """What trains, each with its share of the learning rate: the head in chain order, then the rest.

    Args:
        backbone_lr: share of parameter groups of the role `backbone`.
        small_object_lr: share of those of the role `small-objects`.
    """
    share_of = {"head": 1.0, "backbone": backbone_lr, "small-objects": small_object_lr}
    groups = detector.parameter_groups()
    shares = {id(parameter): share_of[group.role] for group in groups for parameter in group.parameters.values()}
    head_first = sorted(detector.layers, key=lambda layer: layer.part not in HEAD_PARTS)
    trained = [p for layer in head_first for p in layer.parameters().values() if p.requires_grad]
    return [(parameter, shares[id(parameter)]) for parameter in trained]

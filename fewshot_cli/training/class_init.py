"""Initial weights of a new class's predictor: the mean of base classes, or random."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum

import torch
from torch import Tensor
from torchvision.ops import box_iou

from fewshot_cli.datasets.classes import class_key
from fewshot_cli.datasets.splits import members
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.detectors.chain import ClassInit, Detections, Detector
from fewshot_cli.detectors.predictors import NO_CLASS
from fewshot_cli.errors import ModelError, closest
from fewshot_cli.evaluation.thresholds import MATCH_IOU
from fewshot_cli.inference.filtering import SCORE_THRESHOLD
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.progress import Reporter

SIMILAR = 3
"""Base classes, at most, whose mean a class starts from if the detector detects them on its objects."""
LOOKED_AT = 100
"""Images of a class, at most, in which its objects are looked at: more take minutes and hardly move a mean."""


def choose_inits(
    classes: Sequence[str],
    base_classes: Sequence[str],
    init_class: str,
    similar: Callable[[], Sequence[ClassInit]],
) -> list[ClassInit]:
    """For each class, the base classes whose mean its predictor starts from; none for random weights.

    What each choice is worth: examples/defaults.md.

    Args:
        classes: the data set's.
        base_classes: those the pretrained detector knows; empty if its predictor is random.
        init_class: `auto` (the base class of the same name regardless of case, spaces and hyphens, else the similar
            ones, else the mean of all), `mean` (the same without the similar ones), the name of a base class, or
            `none` (random).
        similar: returns the similar base classes of each class; called only where they matter.

    Raises:
        ModelError: a base class that this detector does not know.
    """
    rows = {class_key(name): row for row, name in enumerate(base_classes) if name not in NO_CLASS}
    if init_class == "none":
        return [()] * len(classes)
    if init_class in ("auto", "mean"):
        same = [rows.get(class_key(name)) for name in classes]
        unknown: Sequence[ClassInit] = [()] * len(classes)
        if init_class == "auto" and rows and None in same:
            unknown = similar()
        everything = tuple(rows.values())
        return [others or everything if row is None else (row,) for row, others in zip(same, unknown, strict=True)]
    if class_key(init_class) not in rows:
        known = [name for name in base_classes if name not in NO_CLASS]
        raise ModelError(f"no base class {init_class!r} to start from", hint=closest(init_class, known))
    return [(rows[class_key(init_class)],)] * len(classes)


def similar_classes(detector: Detector, shots: Split, reporter: Reporter | None = None) -> list[ClassInit]:
    """For each class of the shots, the base classes that the detector detects on its objects; empty if on too few.

    Some base class must hit more than half of the average image's objects of the class. Fewer hits are chance, and a
    start from the weights of a person, say, costs helmets more than it gains.

    Args:
        detector: with its base classes, on the CPU, so that every machine starts alike.
        shots: training images; of many, LOOKED_AT of each class, evenly spaced.
    """
    detector.hold_statistics()
    placed = PlacedDetector(detector, torch.device("cpu"))
    images = _some(shots)
    found = placed.detect([image.path for image in images], reporter, "Known classes in the shots")
    hits: list[list[Tensor]] = [[] for _ in shots.classes]
    for image, detections in zip(images, found, strict=True):
        boxes, labels = map(torch.from_numpy, image.objects())
        scores = _hits(boxes, detections, detector)
        for label in labels.unique():
            hits[label].append(scores[labels == label])
    return [_strongest(images) for images in hits]


def _some(shots: Split) -> list[ImageRecord]:
    """The images that show a class, of each class LOOKED_AT at most."""
    chosen: set[int] = set()
    for ids in members(shots.images, shots.classes).values():
        chosen.update(sorted(ids)[:: max(1, math.ceil(len(ids) / LOOKED_AT))])
    return [image for image in shots.images if image.id in chosen]


def _hits(boxes: Tensor, detections: Detections, detector: Detector) -> Tensor:
    """(N, base classes) highest score with which each class hits each of N boxes; 0 for a miss."""
    hits = (box_iou(boxes, detections.boxes) >= MATCH_IOU) & (detections.scores >= SCORE_THRESHOLD)
    best = torch.zeros(len(boxes), len(detector.classes))
    return best.scatter_reduce_(1, detections.labels.expand(hits.shape), hits * detections.scores, "amax")


def _strongest(images: list[Tensor]) -> ClassInit:
    """Of the hits on one class's objects, a tensor an image."""
    seen = [(scores.amax(dim=1) > 0).float().mean() for scores in images]
    if sum(seen) <= len(seen) / 2:
        return ()
    strongest = torch.cat(images).sum(dim=0).topk(min(SIMILAR, images[0].shape[1]))
    return tuple(row for strength, row in zip(*map(Tensor.tolist, strongest), strict=True) if strength > 0)


class Start(Enum):
    """What a class is to the pretrained detector, as its initial weights show."""

    KNOWN = "known"
    """It starts from the base class of its own name."""
    SIMILAR = "similar"
    """It starts from some base classes: those that the detector detects on its objects, or one that was given."""
    NEW = "new"
    """It starts from the mean of all base classes, or from random weights."""


def start_of(name: str, init: ClassInit, base_classes: Sequence[str]) -> Start:
    """What a class with these initial weights is to a detector with those base classes (none: a random predictor)."""
    if class_key(name) in map(class_key, base_classes):
        return Start.KNOWN
    return Start.SIMILAR if 0 < len(init) < sum(each not in NO_CLASS for each in base_classes) else Start.NEW


def describe_init(init: ClassInit, base_classes: Sequence[str]) -> str:
    """Initial weights in words, to follow `starts from`.

    Args:
        init: indices of base classes; none: random weights.
        base_classes: names of those of the pretrained detector.
    """
    if not init:
        return "random weights"
    if len(init) == 1:
        return f"the weights of base class {base_classes[init[0]]!r}"
    if len(init) <= SIMILAR:
        return f"the mean of the base classes {', '.join(base_classes[row] for row in init)}"
    return f"the mean of the {len(init)} base classes"

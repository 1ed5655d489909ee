"""What a new class's predictor starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torchvision.ops import box_iou

from fewshot_cli.data.coco import Split
from fewshot_cli.detectors.chain import Detector, Origin
from fewshot_cli.errors import ModelError, closest
from fewshot_cli.evaluation.detect import detect_split

SIMILAR = 3
"""Base classes that a class starts from when they are chosen by how they fire on its shots."""
_NO_CLASS = ("__background__", "N/A")
"""Places that torchvision keeps in its list of classes and that no object has."""


def choose_origins(
    classes: Sequence[str],
    base_classes: Sequence[str],
    init_class: str,
    similar: Callable[[], Sequence[Origin]] | None = None,
) -> list[Origin]:
    """For each class, the base classes whose mean its predictor starts from; none for fresh weights.

    The mean of all base classes helped on two of the four data sets it was measured on and cost on the other
    two: on average a tie with fresh weights (README, "How the defaults were chosen").

    Args:
        classes: the data set's.
        base_classes: those the pretrained detector knows; empty if its predictor is random.
        init_class: `auto` (the base class of the same name regardless of case and punctuation, else the mean of
            all), `similar` (the same, but for an unknown class the base classes that fire most on its shots), the
            name of a base class, or `none` (fresh).
        similar: those base classes for each class; asked only where it matters.

    Raises:
        ModelError: a base class that this detector does not know.
    """
    rows = {_fold(name): row for row, name in enumerate(base_classes) if name not in _NO_CLASS}
    if init_class == "none":
        return [()] * len(classes)
    if init_class in ("auto", "similar"):
        same = [rows.get(_fold(name)) for name in classes]
        unknown: Sequence[Origin] = [()] * len(classes)
        if init_class == "similar" and similar and rows and None in same:
            unknown = similar()
        everything = tuple(rows.values())
        return [others or everything if row is None else (row,) for row, others in zip(same, unknown, strict=True)]
    if _fold(init_class) not in rows:
        known = [name for name in base_classes if name not in _NO_CLASS]
        raise ModelError(f"no base class {init_class!r} to start from", hint=closest(init_class, known))
    return [(rows[_fold(init_class)],)] * len(classes)


def similar_classes(detector: Detector, shots: Split) -> list[Origin]:
    """For each class of the shots, the base classes that fire most on its boxes; empty if none does.

    A base class gets, from each box, the largest product of score and IoU among its detections.

    Args:
        detector: with its base classes.
        shots: training pictures.
    """
    detector.hold_statistics()
    fired = torch.zeros(len(shots.classes), len(detector.classes))
    for picture, found in zip(shots.pictures, detect_split(detector, shots, device=torch.device("cpu")), strict=True):
        strength = box_iou(torch.from_numpy(picture.boxes).float(), found.boxes) * found.scores
        columns = found.labels.expand(len(strength), -1)
        best = strength.new_zeros(len(strength), fired.shape[1]).scatter_reduce_(1, columns, strength, "amax")
        fired.index_add_(0, torch.from_numpy(picture.labels), best)
    return [_strongest(row) for row in fired]


def _strongest(fired: torch.Tensor) -> Origin:
    strongest = fired.topk(min(SIMILAR, len(fired))).indices
    return tuple(int(row) for row in strongest if fired[row] > 0)


def describe_origin(origin: Origin, base_classes: Sequence[str]) -> str:
    """The same in words, after `starts from`."""
    if not origin:
        return "fresh weights"
    if len(origin) == 1:
        return f"the weights of base class {base_classes[origin[0]]!r}"
    if len(origin) <= SIMILAR:
        return f"the mean of the base classes {', '.join(base_classes[row] for row in origin)}"
    return f"the mean of the {len(origin)} base classes"


def _fold(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())

"""A policy's selection applied to a detector: every parameter becomes trained or frozen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.detectors.chain import Detector, Layer
from fewshot_cli.detectors.weights import tensor_fingerprints
from fewshot_cli.errors import FsodError, PolicyError
from fewshot_cli.policies import Selection

SMALL = 64
"""Side in canvas pixels of the largest object that a level of stride 8 is for (FCOS, arXiv 1904.01355, section 3.2)."""
FASTER = 2.0
"""Share of the rate that the finest level gets for small objects (README, "How the defaults were chosen")."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a detector's chain is cut and what trains behind the cut.

    trained: one flag a layer, in chain order; cut: index of the first trained layer, or the number of
    layers when nothing trains. Everything before the cut is a pure function of the canvas.
    """

    trained: tuple[bool, ...]
    cut: int


def plan_chain(detector: Detector, selection: Selection) -> Plan:
    """Which layers of this chain the selection trains, and the cut that follows."""
    flags = [_is_chosen(layer, i, detector.layers, selection) for i, layer in enumerate(detector.layers)]
    cut = flags.index(True) if any(flags) else len(flags)
    return Plan(tuple(flags), cut)


def _is_chosen(layer: Layer, index: int, layers: tuple[Layer, ...], selection: Selection) -> bool:
    same_part = [i for i, other in enumerate(layers) if other.part == layer.part]
    if layer.part == "head":
        return same_part.index(index) + 1 in selection.head_layers
    if layer.part == "neck":
        return selection.neck
    return index in same_part[len(same_part) - selection.backbone_stages :]


def freeze(detector: Detector, selection: Selection) -> Plan:
    """Mark every parameter as trained or frozen; norm statistics stay as pretrained everywhere.

    Afterwards `requires_grad` is true exactly for the parameters of the chosen layers.

    Raises:
        PolicyError: nothing is left to train, though the policy is not `none`.
    """
    _check_coverage(detector)
    split = plan_chain(detector, selection)
    for layer, trained in zip(detector.layers, split.trained, strict=True):
        for parameter in layer.parameters().values():
            parameter.requires_grad_(trained)
    if selection.policy != "none" and not trained_parameters(detector):
        raise PolicyError(
            f"policy {selection.policy} leaves nothing to train in {detector.name}",
            hint="Raise --budget, or look at the chain with `fsod inspect-layers`.",
        )
    detector.hold_statistics()
    return split


def trained_parameters(detector: Detector) -> dict[str, nn.Parameter]:
    """The parameters that train, by qualified name."""
    return {name: parameter for name, parameter in detector.network.named_parameters() if parameter.requires_grad}


def small_object_share(detector: Detector, shots: Split) -> float:
    """Share of the learning rate for the finest level of the head: FASTER where small objects are the rule, else 1.

    Where levels have heads of their own, what small objects teach is learned in the finest alone. They are the rule if
    they make up more than half of the average shot's objects: an average over images, as training sees them,
    because one crowded image can hold most objects of all ten.
    """
    heads = [layer for layer in detector.layers if layer.part == "head"]
    if not any(detector.is_finest(name) for layer in heads for name in layer.parameters()):
        return 1.0
    sides = [_sides(image, detector.image_size) for image in shots.images]
    small = [(of <= SMALL).mean() for of in sides if len(of)]
    return FASTER if sum(small) > len(small) / 2 else 1.0


def _sides(image: ImageRecord, image_size: int) -> NDArray[np.float32]:
    """Of squares as large as the image's objects, in canvas pixels."""
    boxes, _ = image.objects()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.sqrt(areas) * image_size / max(image.width, image.height)


def learning_rates(
    detector: Detector, backbone_lr: float = 1.0, small_object_lr: float = 1.0
) -> list[tuple[nn.Parameter, float]]:
    """What trains, each with its share of the learning rate; the head first.

    Args:
        backbone_lr: share of neck and backbone.
        small_object_lr: share of the finest level of the head (Detector.is_finest); the rest of the head has 1.
    """
    head, body = ([layer for layer in detector.layers if (layer.part == "head") == wanted] for wanted in (True, False))
    shares = [
        (parameter, small_object_lr if detector.is_finest(name) else 1.0)
        for layer in head
        for name, parameter in layer.parameters().items()
    ]
    shares += [(parameter, backbone_lr) for layer in body for parameter in layer.parameters().values()]
    return [(parameter, share) for parameter, share in shares if parameter.requires_grad]


def _check_coverage(detector: Detector) -> None:
    counts = Counter(id(parameter) for layer in detector.layers for parameter in layer.parameters().values())
    stray = [name for name, parameter in detector.network.named_parameters() if counts[id(parameter)] != 1]
    if stray:
        raise FsodError(f"{detector.name}: not in exactly one layer of the chain: {', '.join(stray[:5])}")


class FrozenCheck:
    """Remembers what must not change, and proves that it did not: parameters and buffers, bit for bit."""

    def __init__(self, detector: Detector) -> None:
        trained = trained_parameters(detector)
        prints = tensor_fingerprints(detector.network)
        self._before = {name: value for name, value in prints.items() if name not in trained}

    def __len__(self) -> int:
        return len(self._before)

    def changed(self, detector: Detector) -> list[str]:
        """Names of frozen tensors that are not what they were."""
        after = tensor_fingerprints(detector.network)
        return [name for name, value in self._before.items() if after.get(name) != value]

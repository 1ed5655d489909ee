"""A policy's selection applied to a detector: every parameter becomes trained or frozen."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.detectors.chain import HEAD_PARTS, PARTS, Detector, Layer, ParameterGroup
from fewshot_cli.detectors.weights import tensor_fingerprints
from fewshot_cli.errors import FsodError, PolicyError, closest
from fewshot_cli.policies import Selection
from fewshot_cli.training.class_init import Start


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a detector's chain is cut and what trains behind the cut.

    trained: one flag a layer, in chain order; cut: index of the first trained layer, or the number of
    layers when nothing trains. Everything before the cut is a pure function of the canvas.
    """

    trained: tuple[bool, ...]
    cut: int


def plan_chain(detector: Detector, selection: Selection) -> Plan:
    """Which layers of this chain the selection trains, and the cut that follows.

    Raises:
        PolicyError: the selection names a layer that the chain does not have.
    """
    names = [layer.name for layer in detector.layers]
    for unknown in sorted((selection.layers or frozenset()).difference(names)):
        raise PolicyError(f"{detector.name} has no layer {unknown!r}", hint=closest(unknown, names))
    flags = [_is_chosen(i, detector.layers, selection) for i in range(len(detector.layers))]
    cut = flags.index(True) if any(flags) else len(flags)
    return Plan(tuple(flags), cut)


def _is_chosen(index: int, layers: tuple[Layer, ...], selection: Selection) -> bool:
    if selection.layers is not None:
        return layers[index].name in selection.layers
    part = layers[index].part
    same_part = [i for i, other in enumerate(layers) if other.part == part]
    if part == "head":
        return same_part.index(index) + 1 in selection.head_layers
    if part == "proposals":
        return selection.proposals
    if part == "neck":
        return selection.neck
    if part == "backbone":
        return index in same_part[len(same_part) - selection.backbone_stages :]
    raise FsodError(f"layer {layers[index].name} is of an unknown part {part!r}", hint=closest(part, PARTS))


def freeze(detector: Detector, selection: Selection) -> Plan:
    """Mark every parameter as trained or frozen; norm statistics stay as pretrained everywhere.

    Afterwards `requires_grad` is true exactly for the parameters of the chosen layers.

    Raises:
        PolicyError: nothing is left to train, though the policy is not `none`.
    """
    _check_coverage(detector)
    plan = plan_chain(detector, selection)
    for layer, trained in zip(detector.layers, plan.trained, strict=True):
        for parameter in layer.parameters().values():
            parameter.requires_grad_(trained)
    if selection.policy != "none" and not trained_parameters(detector):
        raise PolicyError(
            f"policy {selection.policy} leaves nothing to train in {detector.name}",
            hint="Raise --budget, or look at the chain with `fsod inspect-layers`.",
        )
    detector.hold_statistics()
    return plan


def planned_layers(detector: Detector, plan: Plan) -> tuple[str, ...]:
    """Names of the layers that a plan trains, in chain order."""
    return tuple(layer.name for layer, trained in zip(detector.layers, plan.trained, strict=True) if trained)


def planned_parameters(detector: Detector, plan: Plan) -> list[str]:
    """Qualified names of what a plan trains, in chain order."""
    chosen = planned_layers(detector, plan)
    return [name for layer in detector.layers if layer.name in chosen for name in layer.parameters()]


def parameters_per_layer(detector: Detector) -> dict[str, int]:
    """Number of parameters by layer name, in chain order."""
    return {
        layer.name: sum(parameter.numel() for parameter in layer.parameters().values()) for layer in detector.layers
    }


def trained_parameters(detector: Detector) -> dict[str, nn.Parameter]:
    """The parameters that train, by qualified name."""
    return {name: parameter for name, parameter in detector.network.named_parameters() if parameter.requires_grad}


BACKBONE_SHARE = {Start.KNOWN: 0.02, Start.SIMILAR: 0.02, Start.NEW: 0.1}
"""Of the learning rate, for neck and backbone, by what a class is to the pretrained detector."""


def backbone_share(starts: Iterable[Start]) -> float:
    """Share of the learning rate for neck and backbone, which ten images can spoil: the mean over the classes.

    What was learnt from a hundred thousand images serves a known class better than one that looks like none of them.

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


def _check_coverage(detector: Detector) -> None:
    kinds = {
        "layer of the chain": [layer.parameters() for layer in detector.layers],
        "parameter group": [group.parameters for group in detector.parameter_groups()],
    }
    for what, members in kinds.items():
        counts = Counter(id(parameter) for parameters in members for parameter in parameters.values())
        stray = [name for name, parameter in detector.network.named_parameters() if counts[id(parameter)] != 1]
        if stray:
            raise FsodError(f"{detector.name}: not in exactly one {what}: {', '.join(stray[:5])}")


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

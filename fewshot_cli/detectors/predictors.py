"""Class predictors: the modules whose outputs are per class, and how they get new classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewshot_cli.errors import FsodError

PRIOR = 0.01
"""Initial score of a new class everywhere (RetinaNet, section 4.1): from 0.5 the background would dominate its loss."""
WEIGHT_STD = 0.01
"""Standard deviation of random weights (the same section)."""

NO_CLASS = ("__background__", "N/A")
"""Entries of torchvision's list of classes that no object has."""

ClassInit = tuple[int, ...]
"""Base classes whose mean weights a new class's predictor starts from; none: random weights."""


@dataclass(frozen=True, slots=True)
class ClassPredictor:
    """Where one class predictor of a detector is, and what its outputs mean.

    Attributes:
        name: qualified name in the network of an nn.Conv2d or nn.Linear that has a bias.
        anchors: boxes that it scores per place. Its outputs are anchor-major: anchor a has the R rows from a · R on.
        background: whether row 0 of each anchor is the background; class k is then row k + 1, otherwise row k. Scores
            are then a softmax over the rows.
        width: consecutive outputs that are one row: 1 for scores, 4 for boxes that are regressed for each class.
    """

    name: str
    anchors: int = 1
    background: bool = False
    width: int = 1


def numbered(count: int) -> list[str]:
    """Names for classes that have none: `class 0`, `class 1`, …"""
    return [f"class {i}" for i in range(count)]


def class_names(known: Sequence[str], count: int) -> list[str]:
    """The known names if there are `count` of them; otherwise the weights are of other classes, which get numbers."""
    return list(known) if count == len(known) else numbered(count)


@torch.no_grad()
def with_classes(old: nn.Module, predictor: ClassPredictor, inits: Sequence[ClassInit]) -> nn.Module:
    """A class predictor like `old` with other classes; background rows are kept.

    Args:
        old: the module at `predictor.name`; it stays as it is.
        predictor: the meaning of its outputs.
        inits: for each new class, where its rows come from.

    Raises:
        FsodError: the module is neither a convolution nor a linear layer, or has no bias.
    """
    first = int(predictor.background)
    fresh = _of_width(old, predictor, predictor.anchors * (first + len(inits)) * predictor.width)
    nn.init.normal_(fresh.weight, std=WEIGHT_STD)
    start_rare(fresh, predictor)
    fresh.to(old.get_parameter("weight"))
    for kind in ("weight", "bias"):
        rows, base_rows = (_rows(module.get_parameter(kind), predictor) for module in (fresh, old))
        if predictor.background:
            rows[:, 1:] += base_rows[:, :1]  # so that a random class is as much rarer than the background everywhere
            rows[:, :1] = base_rows[:, :1]
        for row, bases in enumerate(inits, start=first):
            if bases:
                rows[:, row] = base_rows[:, [first + base for base in bases]].mean(dim=1)
    return fresh.train(old.training)


def _rows(parameter: Tensor, predictor: ClassPredictor) -> Tensor:
    """(outputs, …) → a view (anchors, rows, width, …)."""
    return parameter.unflatten(0, (predictor.anchors, -1, predictor.width))


def start_rare(module: nn.Module, predictor: ClassPredictor | None = None) -> None:
    """Set the bias so that the score of every class is about PRIOR at first.

    Args:
        module: whose outputs go through a sigmoid, or through a softmax if there is a background, which gets 0.
        predictor: the meaning of its outputs; by default, all are classes.
    """
    bias = module.get_parameter("bias")
    nn.init.constant_(bias, -math.log((1 - PRIOR) / PRIOR))
    if predictor is not None and predictor.background:
        with torch.no_grad():
            _rows(bias, predictor)[:, 0] = 0.0


def _of_width(old: nn.Module, predictor: ClassPredictor, outputs: int) -> nn.Conv2d | nn.Linear:
    """A new module of the type and shape of `old`, with that many outputs."""
    bias: Tensor | None = getattr(old, "bias", None)
    if bias is not None and isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, outputs)
    if bias is not None and isinstance(old, nn.Conv2d):
        return nn.Conv2d(old.in_channels, outputs, old.kernel_size, old.stride, old.padding)  # type: ignore[arg-type]
    raise FsodError(
        f"class predictor {predictor.name} is a {type(old).__name__}{'' if bias is not None else ' without bias'}",
        hint="Class predictors are nn.Conv2d or nn.Linear modules with a bias.",
    )

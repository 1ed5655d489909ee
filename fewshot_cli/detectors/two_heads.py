"""A fine-tuned detector that keeps its base classes: the pretrained head runs beside the adapted one.

    canvas ─► layers that both share ─┬─► pretrained layers ─► base classes, bit for bit as before the fine-tune
                                      └─► adapted layers ────► the new classes

What is shared are the layers before the first one that the fine-tune changed. With policy `full` there is none, and two
whole networks run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fewshot_cli.datasets.classes import class_key
from fewshot_cli.detectors.canvas import blank_batch
from fewshot_cli.detectors.chain import Activations, Detections, Detector, Layer
from fewshot_cli.detectors.predictors import NO_CLASS, ClassInit, ClassPredictor
from fewshot_cli.detectors.suppression import Candidates
from fewshot_cli.errors import ModelError


class TwoHeads(Detector):
    """A base detector and one adapted from it, as one chain.

    Behind `cut` the activations of both flow side by side, those of the base first; so do the outputs. The classes are
    the base's in their order, without those that have a new class's name, and then the new ones.

    Args:
        base: the pretrained detector.
        adapted: made by `copy_beside`, with its new classes.
    """

    network: nn.ModuleDict
    label_of: Tensor
    """(base classes,) int64: label of each base class; -1 for those that are not kept."""

    def __init__(self, base: Detector, adapted: Detector) -> None:
        kept = kept_classes(base.classes, adapted.classes)
        names = *(base.classes[row] for row in kept), *adapted.classes
        super().__init__(base.name, names, base.image_size)
        self.network = nn.ModuleDict({"base": base, "adapted": adapted})
        self.pad_value, self.stretches = base.pad_value, base.stretches
        self.fast_in_bf16, self.pretrained = base.fast_in_bf16, base.pretrained
        self.architecture = base.architecture
        label_of = torch.full((len(base.classes),), -1)
        label_of[list(kept)] = torch.arange(len(kept))
        self.register_buffer("label_of", label_of, persistent=False)
        shared = [_is_shared(*pair) for pair in zip(base.layers, adapted.layers, strict=True)]
        self.cut = shared.index(False)
        self.layers = self.make_layers()

    @property
    def base(self) -> Detector:
        """The pretrained detector, with all its classes."""
        return cast(Detector, self.network["base"])

    @property
    def adapted(self) -> Detector:
        """The fine-tuned detector, with the new classes alone."""
        return cast(Detector, self.network["adapted"])

    def make_layers(self) -> tuple[Layer, ...]:
        pairs = list(zip(self.base.layers, self.adapted.layers, strict=True))
        once = [replace(base, modules=_named("base", base)) for base, _ in pairs[: self.cut]]
        twice = [
            Layer(base.name, base.part, _modules_of(base, adapted), partial(self._run_both, index))
            for index, (base, adapted) in enumerate(pairs[self.cut :], start=self.cut)
        ]
        return *once, *twice

    @property
    def predictors(self) -> list[ClassPredictor]:
        """Those of the base, then those of the adapted detector."""
        return [
            replace(predictor, name=f"{side}.network.{predictor.name}")
            for side, detector in (("base", self.base), ("adapted", self.adapted))
            for predictor in detector.predictors
        ]

    def normalize(self, pixels: Tensor) -> Tensor:
        return self.base.normalize(pixels)

    def prepare(self, pixels: Tensor, valid: Tensor) -> Activations:
        return self.base.prepare(pixels, valid)

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        """Those of the base, with the labels of its kept classes, then those of the adapted detector."""
        base, adapted = _halves(outputs)
        new = torch.arange(len(self.classes), device=self.label_of.device)[-len(self.adapted.classes) :]
        return (
            *(head._replace(labels=self.label_of) for head in self.base.candidates(base)),
            *(head._replace(labels=new) for head in self.adapted.candidates(adapted)),
        )

    def decode(self, outputs: Activations) -> list[Detections]:
        """Outputs → detections per canvas, canvas pixels, at most 100 **of each head**, best first."""
        base, adapted = _halves(outputs)
        pairs = zip(self.base.decode(base), self.adapted.decode(adapted), strict=True)
        return [self._joined(*pair) for pair in pairs]

    def replace_classes(self, classes: Sequence[str], inits: Sequence[ClassInit]) -> None:
        """Not possible: raises ModelError."""
        raise ModelError(
            f"{self.name} with two heads takes no new classes", hint="Start from the weights of its base instead."
        )

    def _run_both(self, index: int, x: Activations) -> Activations:
        base, adapted = (x, x) if index == self.cut else _halves(x)
        return *self.base.layers[index].forward(base), *self.adapted.layers[index].forward(adapted)

    def _joined(self, base: Detections, adapted: Detections) -> Detections:
        """Both heads' detections in one image, without those of base classes that are not kept."""
        labels = self.label_of[base.labels]
        kept = labels >= 0
        first_new = len(self.classes) - len(self.adapted.classes)
        scores = torch.cat([base.scores[kept], adapted.scores])
        order = scores.argsort(descending=True, stable=True)
        return Detections(
            torch.cat([base.boxes[kept], adapted.boxes])[order],
            scores[order],
            torch.cat([labels[kept], first_new + adapted.labels])[order],
        )


def kept_classes(base: Sequence[str], new: Sequence[str]) -> tuple[int, ...]:
    """Labels of the base classes that stay: no new class has their name, regardless of case, spaces and hyphens."""
    replaced = {class_key(name) for name in new}
    return tuple(row for row, name in enumerate(base) if name not in NO_CLASS and class_key(name) not in replaced)


def copy_beside(base: Detector, tensors: Collection[str]) -> Detector:
    """A copy to be adapted; layers that a fine-tune leaves as they are stay the very modules of `base`.

    Args:
        tensors: qualified names of what the fine-tune changes, besides the class predictors.
    """
    changed = _changed_layers(base, tensors)
    same = {id(module): module for layer in base.layers if layer not in changed for _, module in layer.modules}
    return deepcopy(base, same)


@dataclass(frozen=True, slots=True)
class SecondHead:
    """What it takes to keep the base classes.

    Attributes:
        classes: the base classes that are kept.
        start: name of the first layer that runs twice.
        parameters: of the base's layers that are stored beside the adapted ones.
        operations: of the layers that run twice, as a share of the whole chain's: multiplications and additions of
            convolutions and matrix products. About the share by which detecting takes longer.
    """

    classes: tuple[str, ...]
    start: str
    parameters: int
    operations: float


def second_head(base: Detector, new: Sequence[str], tensors: Collection[str]) -> SecondHead:
    """What it takes to keep the base classes beside `new` ones; `tensors` as in `copy_beside`."""
    changed = _changed_layers(base, tensors)
    start = base.layers.index(changed[0])
    operations = _operations(base)
    return SecondHead(
        classes=tuple(base.classes[row] for row in kept_classes(base.classes, new)),
        start=changed[0].name,
        parameters=sum(parameter.numel() for layer in changed for parameter in layer.parameters().values()),
        operations=round(sum(operations[start:]) / sum(operations), 4),
    )


def _changed_layers(base: Detector, tensors: Collection[str]) -> list[Layer]:
    """Layers with one of the tensors, or with a class predictor, which new classes replace; in chain order."""
    changed = [*tensors, *(predictor.name for predictor in base.predictors)]
    return [
        layer
        for layer in base.layers
        if any(f"{name}.".startswith(f"{module}.") for module, _ in layer.modules for name in changed)
    ]


@torch.no_grad()
def _operations(detector: Detector) -> list[int]:
    """Floating-point operations of each layer for one image."""
    activations = detector.prepare(*blank_batch(detector.image_size))
    counts = []
    for layer in detector.layers:
        with FlopCounterMode(display=False) as counter:
            activations = layer.forward(activations)
        counts.append(counter.get_total_flops())
    return counts


def _halves(x: Activations) -> tuple[Activations, Activations]:
    """Both detectors have the same architecture, so each has as many tensors."""
    return x[: len(x) // 2], x[len(x) // 2 :]


def _is_shared(base: Layer, adapted: Layer) -> bool:
    pairs = zip(base.modules, adapted.modules, strict=True)
    return all(mine is theirs for (_, mine), (_, theirs) in pairs)


def _named(side: str, layer: Layer) -> tuple[tuple[str, nn.Module], ...]:
    """The modules of a layer by their qualified names in the network of both."""
    return tuple((f"{side}.network.{name}", module) for name, module in layer.modules)


def _modules_of(base: Layer, adapted: Layer) -> tuple[tuple[str, nn.Module], ...]:
    """The modules of both, those that both share once."""
    own = () if _is_shared(base, adapted) else _named("adapted", adapted)
    return *_named("base", base), *own

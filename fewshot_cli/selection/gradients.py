"""The gradients of every layer over the shots and their variants, in one pass; nothing trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fewshot_cli.detectors.chain import Layer
from fewshot_cli.errors import DivergedError
from fewshot_cli.inference.placed import batches
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.selection.criteria import LayerCriteria, LayerGradients
from fewshot_cli.training.features import Features
from fewshot_cli.training.loop import drawing
from fewshot_cli.training.objectives import DetectorLosses, Objective
from fewshot_cli.training.prepare import Prepared


def measure_layers(
    prepared: Prepared,
    features: Features,
    *,
    objective: Objective | None = None,
    batch_size: int = 1,
    reporter: Reporter | None = None,
) -> LayerCriteria:
    """Measure the gradients of all layers that train, at the weights that the detector has now.

    The parameters and their `.grad` stay as they are. Memory beside the features: one gradient of what trains, and the
    mean.

    Args:
        prepared: with policy `full` for every layer of the chain, or `all` for the head.
        features: of its shots and variants, cached at its cut.
        objective: whose losses; default: the detector's own.
        batch_size: images that share one gradient, that of the losses of them together. Batches hold variants of
            different shots, as far as there are any. Above 1 the pass is faster, but the noise and the Fisher
            information are those of batches instead of images.
        reporter: receives progress.

    Raises:
        DivergedError: a gradient is not finite.
    """
    objective = objective or DetectorLosses(prepared.detector, prepared.plan.cut)
    layers = {layer.name: _Running(layer) for layer in prepared.detector.layers if _trains(layer)}
    parameters = [parameter for layer in layers.values() for parameter in layer.mean]
    order = list(batches(_shots_in_turn(features), batch_size)) if parameters else []
    with (reporter or SilentReporter()).progress("Gradients of the layers", len(order)) as task:
        for number, items in enumerate(order):
            with drawing(prepared.info.seed, number):
                gradients = _gradients(prepared, features, items, objective, parameters)
            for layer in layers.values():
                layer.add(gradients)
            task.advance()
    return LayerCriteria({name: layer.result() for name, layer in layers.items()}, len(order))


def _trains(layer: Layer) -> bool:
    """Whether it has parameters that train."""
    return any(parameter.requires_grad for parameter in layer.parameters().values())


def _shots_in_turn(features: Features) -> list[int]:
    """All items of the features, the shots themselves first, then one variant of each, and so on."""
    return [item for copy in range(features.copies) for item in range(copy, len(features.train), features.copies)]


def _gradients(
    prepared: Prepared,
    features: Features,
    items: Sequence[int],
    objective: Objective,
    parameters: Sequence[nn.Parameter],
) -> dict[nn.Parameter, Tensor]:
    """Of the sum of the losses of some items; zero for a parameter that they do not depend on."""
    placed = prepared.placed
    activations, targets = features.batch(items, placed.device)
    with torch.autocast(placed.device.type, torch.bfloat16, enabled=placed.bf16):
        losses = objective.losses(activations, targets)
    loss = torch.stack(list(losses.values())).sum()
    found = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


class _Running:
    """Mean and variance of a layer's gradients, kept up to date by Welford's method (Technometrics 4, 1962).

    The variance is never the difference of two large sums: equal gradients have none at all.
    """

    def __init__(self, layer: Layer) -> None:
        trained = (parameter for parameter in layer.parameters().values() if parameter.requires_grad)
        self.mean = {parameter: torch.zeros_like(parameter.detach()) for parameter in trained}
        self._name = layer.name
        self._squares = 0.0
        self._count = 0

    def add(self, gradients: Mapping[nn.Parameter, Tensor]) -> None:
        """One more gradient of every parameter."""
        self._count += 1
        for parameter, mean in self.mean.items():
            before = gradients[parameter] - mean
            mean += before / self._count
            self._squares += _dot(before, gradients[parameter] - mean)

    def result(self) -> LayerGradients:
        """What was measured; raises DivergedError if it is not finite."""
        signal = sum(_dot(mean, mean) for mean in self.mean.values())
        if not math.isfinite(signal + self._squares):
            raise DivergedError(
                f"the gradient of {self._name} is not finite",
                hint="Check the weights, or compute with --precision fp32.",
            )
        return LayerGradients(
            signal=signal,
            noise=self._squares / self._count,
            weights=sum(_dot(parameter.detach(), parameter.detach()) for parameter in self.mean),
            parameters=sum(parameter.numel() for parameter in self.mean),
        )


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))

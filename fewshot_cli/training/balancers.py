"""Methods of gradient balancing: the weights of a batch's classification and localisation losses.

The weights sum to 2 (`balancing`). To add a method: write a class as `Balancer` says, add a line to BALANCERS, and its
name to `runs.balances.METHODS`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fewshot_cli.detectors.chain import Detector
from fewshot_cli.runs.balances import fixed_weights
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.loop import load_state, make_optimizer

LEAST, MOST = 0.25, 1.75
"""Bounds of the weights that follow the training: no task is ever switched off."""
LARGEST = 1e15
"""Losses and norms above it are not followed: their squares would not be finite in float32."""


class Weights(NamedTuple):
    """Of the gradients of the two tasks; their sum is 2."""

    classification: float
    localisation: float


EQUAL = Weights(1.0, 1.0)


class Precision(NamedTuple):
    """How good a batch's positives are, 0 … 1.

    classification: p_c, mean score of the correct class, not the share of correct classes, which is 1 wherever there is
    one class alone; localisation: p_l, mean IoU of the decoded box with its object.
    """

    classification: float
    localisation: float


class Batch(NamedTuple):
    """What a balancer gets to know.

    losses: of classification and localisation, each the sum of its losses, scalars with their graph, finite;
    precision: None for a batch without positives.
    """

    losses: tuple[Tensor, Tensor]
    precision: Precision | None


class Balancer(Protocol):
    """A method. Its class is called with the configuration and the detector, frozen but for what trains."""

    def weights(self, batch: Batch) -> Weights:
        """The weights of a batch; called once a step, before the gradient of their sum is computed."""

    def state(self) -> dict[str, Any]:
        """What it has learnt: numbers and tensors by name, so that a killed run goes on from there."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave, from anywhere; raises ValueError if it is something else."""


def bounded(classification: float, localisation: float) -> Weights:
    """Two numbers, not negative and not both 0, as weights in their proportion, within LEAST and MOST."""
    share = classification / (classification + localisation)
    weight = min(MOST, max(LEAST, 2 * share))
    return Weights(weight, 2 - weight)


class FixedBalance:
    """The weights that were given, `C:L`."""

    def __init__(self, config: FinetuneConfig, detector: Detector) -> None:
        self._weights = Weights(*fixed_weights(config.balance))

    def weights(self, batch: Batch) -> Weights:
        return self._weights

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        check_state(not state, "fixed weights have no state")


class PrecisionBalance:
    """The worse task gets the larger gradient: w_c = 2·p_l / (p_c + p_l), w_l = 2·p_c / (p_c + p_l), bounded.

    The precision-driven balancer of Adaptive Multi-task Learning for Few-Shot Object Detection, ECCV 2024, as far as
    the paper describes it. p_c and p_l are exponential means over the batches that have positives. They start at 0, for
    which their proportion needs no correction: both lack the same factor.
    """

    KEPT = 0.9
    """Share of a mean that the next batch leaves."""

    def __init__(self, config: FinetuneConfig, detector: Detector) -> None:
        self._means = Precision(0.0, 0.0)

    def weights(self, batch: Batch) -> Weights:
        if batch.precision is not None:
            pairs = zip(self._means, batch.precision, strict=True)
            self._means = Precision(*(self.KEPT * mean + (1 - self.KEPT) * value for mean, value in pairs))
        classification, localisation = self._means
        return bounded(localisation, classification) if classification + localisation > 0 else EQUAL

    def state(self) -> dict[str, Any]:
        return {"means": list(self._means)}

    def load(self, state: Mapping[str, Any]) -> None:
        means = state.get("means")
        check_state(
            isinstance(means, list) and len(means) == 2 and all(_is_number(mean, 0, 1) for mean in means), "means"
        )
        self._means = Precision(*state["means"])


class _Learned:
    """Two numbers that an optimizer follows gradients with."""

    RATE = 0.025
    """That of the GradNorm paper for its weights, kept for the whole run."""

    def __init__(self, optimizer: str) -> None:
        self._name = optimizer
        self._values = nn.Parameter(torch.tensor([self.START, self.START]))
        self._optimizer = make_optimizer(optimizer, [(self._values, 1.0)], lr=self.RATE, weight_decay=0.0)

    START: float
    BOUNDS: tuple[float, float]

    @property
    def values(self) -> tuple[float, float]:
        first, second = self._values.tolist()
        return first, second

    def _follow(self, gradient: Sequence[float]) -> None:
        """One step of the optimizer, within BOUNDS."""
        self._values.grad = torch.tensor(gradient)
        self._optimizer.step()
        self._keep([min(max(value, self.BOUNDS[0]), self.BOUNDS[1]) for value in self.values])

    @torch.no_grad()
    def _keep(self, values: Sequence[float]) -> None:
        self._values.copy_(torch.tensor(values))

    def state(self) -> dict[str, Any]:
        return {"values": list(self.values), "optimizer": deepcopy(self._optimizer.state_dict())}

    def load(self, state: Mapping[str, Any]) -> None:
        values, optimizer = state.get("values"), state.get("optimizer")
        check_state(isinstance(values, list) and len(values) == 2, "values")
        check_state(all(_is_number(value, *self.BOUNDS) for value in state["values"]), "values")
        check_state(isinstance(optimizer, Mapping), "optimizer")
        load_state(self._optimizer, state["optimizer"], self._name)
        self._keep(state["values"])


class GradNorm(_Learned):
    """Weights learnt so that both tasks train at a similar pace: GradNorm (Chen et al., ICML 2018, arXiv 1711.02257).

    Algorithm 1 with α = 1.5: the norm of each weighted gradient is drawn to their mean times r^α, r how far the task's
    loss has fallen against the other's since the first batch in which both were above 0. The norms are those at the
    parameters of the last layer that trains and gets gradients of both tasks; where no such layer trains, each task's
    own of all that trains. A step of the weights is one of AdamW, for which the unit of the norms does not matter; then
    they are made to sum to 2, and bounded.

    It costs two backward passes more, down to that layer.
    """

    ALPHA = 1.5
    START, BOUNDS = 1.0, (LEAST, MOST)

    def __init__(self, config: FinetuneConfig, detector: Detector) -> None:
        super().__init__("adamw")
        self._layers = [list(layer.parameters().values()) for layer in detector.layers]
        self._at: list[nn.Parameter] = []
        self._first: list[float] = []

    def weights(self, batch: Batch) -> Weights:
        weights, losses = Weights(*self.values), [loss.item() for loss in batch.losses]
        if not _can_be_followed(losses):
            return weights
        self._first = self._first or losses
        norms = self._norms(batch.losses)
        if _can_be_followed(norms):
            self._follow(self._gradient(weights, norms, losses))
            self._keep(bounded(*self.values))
        return weights

    def _gradient(self, weights: Weights, norms: Sequence[float], losses: Sequence[float]) -> list[float]:
        """Of Σ |G − mean(G)·r^α| to the weights, what G is compared with held: equation (2)."""
        weighted = [weight * norm for weight, norm in zip(weights, norms, strict=True)]
        left = [loss / first for loss, first in zip(losses, self._first, strict=True)]
        rates = [each / statistics.fmean(left) for each in left]
        goals = [statistics.fmean(weighted) * rate**self.ALPHA for rate in rates]
        signs = [(own > goal) - (own < goal) for own, goal in zip(weighted, goals, strict=True)]
        return [sign * norm for sign, norm in zip(signs, norms, strict=True)]

    def _norms(self, losses: Sequence[Tensor]) -> list[float]:
        self._at = self._at or self._shared(losses)
        return [_norm(_gradients(loss, self._at)) for loss in losses]

    def _shared(self, losses: Sequence[Tensor]) -> list[nn.Parameter]:
        """The parameters at which the norms are compared."""
        layers = [[parameter for parameter in layer if parameter.requires_grad] for layer in self._layers]
        for layer in reversed(layers):
            reached = zip(layer, *(_gradients(loss, layer) for loss in losses), strict=True)
            if common := [own for own, *gradients in reached if all(each is not None for each in gradients)]:
                return common
        return [parameter for layer in layers for parameter in layer]

    def state(self) -> dict[str, Any]:
        return {**super().state(), "first": list(self._first)}

    def load(self, state: Mapping[str, Any]) -> None:
        first = state.get("first")
        check_state(isinstance(first, list) and len(first) in (0, 2), "first")
        check_state(all(_is_number(loss, 0, LARGEST) and loss > 0 for loss in state["first"]), "first")
        super().load(state)
        self._first = list(state["first"])


class UncertaintyBalance(_Learned):
    """Weights from learned variances: Kendall et al., CVPR 2018 (arXiv 1705.07115), equation (10).

    exp(−s_c)·L_c + ½·exp(−s_l)·L_l + ½·(s_c + s_l) is minimised over the log variances s too, with an optimizer of the
    kind that trains the detector. The weights are in the proportion of the two factors, but of the sum 2 and bounded,
    so that they change the balance and not the length of a step.
    """

    FACTORS = (1.0, 0.5)
    START, BOUNDS = 0.0, (-20.0, 20.0)

    def __init__(self, config: FinetuneConfig, detector: Detector) -> None:
        super().__init__(config.optimizer)

    def weights(self, batch: Batch) -> Weights:
        factors = [factor * math.exp(-value) for factor, value in zip(self.FACTORS, self.values, strict=True)]
        losses = [loss.item() for loss in batch.losses]
        if _can_be_followed(losses):
            self._follow([0.5 - factor * loss for factor, loss in zip(factors, losses, strict=True)])
        return bounded(*factors)


BALANCERS: dict[str, Callable[[FinetuneConfig, Detector], Balancer]] = {
    "precision": PrecisionBalance,
    "gradnorm": GradNorm,
    "uncertainty": UncertaintyBalance,
}
"""By the name in `--balance`; anything else there is `C:L`."""


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The gradient of each parameter; None where the loss does not depend on it."""
    if not (loss.requires_grad and parameters):
        return [None] * len(parameters)
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))


def _norm(gradients: Sequence[Tensor | None]) -> float:
    found = [gradient.float().norm() for gradient in gradients if gradient is not None]
    return float(torch.stack(found).norm()) if found else 0.0


def _can_be_followed(values: Sequence[float]) -> bool:
    return all(0 < value < LARGEST for value in values)


def _is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, float) and least <= value <= most


def check_state(fine: bool, what: str) -> None:
    """Raises ValueError, which names what does not fit, unless it is fine."""
    if not fine:
        raise ValueError(f"the state of the balance does not fit: {what}")

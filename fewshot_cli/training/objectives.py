"""What training minimises. The loop knows an objective only by its losses.

An objective turns a batch's activations at the cut and its targets into named losses, whose sum is minimised. Balanced
or distilled training is another objective, handed to `fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.training.plan import estimating


class Objective(Protocol):
    """Activations at the cut and targets → losses."""

    def losses(self, activations: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named scalar losses of a batch, each to be added to the sum that is minimised."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """What of the objective itself trains beside the detector, by name; the checkpoint does not hold it."""


class DetectorLosses:
    """The detector's own losses, each with weight 1.

    Args:
        detector: its chosen layers train.
        cut: index of the layer that the activations are the input of.
    """

    def __init__(self, detector: Detector, cut: int) -> None:
        self._detector = detector
        self._cut = cut

    def losses(self, activations: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        return self._detector.losses(activations, self._cut, targets)

    def parameters(self) -> dict[str, nn.Parameter]:
        return {}


class Estimating:
    """Another objective, with batch norms that follow the batches where their statistics train (`plan.freeze`)."""

    def __init__(self, objective: Objective, detector: Detector) -> None:
        self._objective = objective
        self._detector = detector

    def losses(self, activations: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        with estimating(self._detector):
            return self._objective.losses(activations, targets)

    def parameters(self) -> dict[str, nn.Parameter]:
        return self._objective.parameters()

"""Gradient balancing: how much of a step is for classification, and how much for localisation.

What is minimised is w_c·L_c + w_l·L_l, each L the sum of the task's losses (`Detector.classification_losses`,
`localisation_losses`), and any other loss with weight 1. The weights sum to 2. Losses that are logged, recorded and
looked at by the schedule stay without weights, so they can be compared between methods.

AdamW hardly notices a factor on the gradient of a parameter. With it, a balance acts where both tasks share parameters,
and through the limit of the gradient's norm; with SGD it acts on the rate of every parameter.

The methods are in `balancers`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.detectors.positives import Positives
from fewshot_cli.errors import ModelError
from fewshot_cli.runs.balances import NONE
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.balancers import BALANCERS, Balancer, Batch, FixedBalance, Precision, check_state
from fewshot_cli.training.objectives import Objective


class Balanced:
    """An objective, and the weights of its losses; its losses are those of the objective.

    Args:
        objective: over the detector.
        balancer: of one training.

    Attributes:
        last: of the last step: the weights `w_c` and `w_l`, and where it had positives, `p_c` and `p_l` (see
            `Precision`).
    """

    def __init__(self, objective: Objective, detector: Detector, balancer: Balancer) -> None:
        self._objective, self._detector, self._balancer = objective, detector, balancer
        self._precision: Precision | None = None
        self._steps: list[dict[str, float]] = []
        self.last: dict[str, float] = {}

    def losses(self, activations: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        with self._detector.collecting() as collected:
            losses = self._objective.losses(activations, targets)
        self._precision = precision_of(collected)
        return losses

    def parameters(self) -> dict[str, nn.Parameter]:
        return self._objective.parameters()

    def minimised(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of what `losses` gave last, whose gradient trains.

        Raises:
            ModelError: no loss is of one of the tasks.
        """
        detector = self._detector
        names = detector.classification_losses, detector.localisation_losses
        classification, localisation = (self._task(losses, each) for each in names)
        weights = self._balancer.weights(Batch((classification, localisation), self._precision))
        rest = [loss for name, loss in losses.items() if name not in (*names[0], *names[1])]
        precision = dict(zip(("p_c", "p_l"), self._precision or (), strict=False))
        self.last = {**precision, "w_c": weights.classification, "w_l": weights.localisation}
        self._steps.append(self.last)
        return torch.stack([weights.classification * classification, weights.localisation * localisation, *rest]).sum()

    def _task(self, losses: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
        own = [losses[name] for name in names if name in losses]
        if not own:
            raise ModelError(
                f"{self._detector.name} has no losses of two tasks to balance: it has {', '.join(losses)}",
                hint=f"Train with --balance {NONE}.",
            )
        return torch.stack(own).sum()

    def take_means(self) -> dict[str, float | None]:
        """The means of `last` over the steps since the last call; None where there was nothing."""
        means = {}
        for name in ("p_c", "p_l", "w_c", "w_l"):
            values = [step[name] for step in self._steps if name in step]
            means[name] = round(statistics.fmean(values), 6) if values else None
        self._steps.clear()
        return means

    def state(self) -> dict[str, Any]:
        """That of the balancer."""
        return self._balancer.state()

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Continue from what `state` gave; raises ValueError if it is of something else."""
        check_state(isinstance(state, Mapping), "everything")
        self._balancer.load(state or {})


def balanced(objective: Objective, detector: Detector, config: FinetuneConfig) -> Balanced | None:
    """The objective with the balance of a configuration; None where it has none."""
    if config.balance == NONE:
        return None
    return Balanced(objective, detector, BALANCERS.get(config.balance, FixedBalance)(config, detector))


def precision_of(collected: Sequence[Positives]) -> Precision | None:
    """The means over all positives of a batch; None if there is none."""
    if not sum(len(each.scores) for each in collected):
        return None
    return Precision(*(float(torch.cat(parts).mean()) for parts in zip(*collected, strict=True)))

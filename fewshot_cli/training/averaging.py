"""Averaging with the pretrained weights: between the detector before training and after it.

θ = (1 − α)·θ_base + α·θ_tuned for every parameter that trained: WiSE-FT of Wortsman et al., Robust fine-tuning of
zero-shot models, CVPR 2022 (arXiv 2109.01903), section 3. α = 1 is the fine-tuned detector itself, α = 0 the detector
as it was before training, with the initial weights of its new classes. It costs one interpolation, for any detector
and policy. Statistics of batch norms that trained are averaged in the same way, which is exact at both ends.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from fewshot_cli.detectors.chain import Detector
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.class_init import Start
from fewshot_cli.training.plan import trained_tensors
from fewshot_cli.training.prepare import Prepared

ALPHAS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Values of α that are compared where it may be chosen on left-out shots."""
CLASS_ALPHA = {Start.KNOWN: 0.25, Start.SIMILAR: 0.5, Start.NEW: 0.9}
"""α by what a class is to the pretrained detector: the more of it is known, the less ten shots can add."""


@dataclass(frozen=True, slots=True)
class Average:
    """How a detector is averaged with its weights before training.

    Attributes:
        alpha: the share of the trained weights, 0 … 1.
        reason: what it follows from: `option`, `classes` (see `class_alpha`) or `cross-validation`.
    """

    alpha: float
    reason: Literal["option", "classes", "cross-validation"]

    def describe(self) -> str:
        """The shares and the reason in words."""
        return (
            f"{self.alpha:.4g} of the trained weights, {1 - self.alpha:.4g} of those before ({_REASONS[self.reason]})"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_REASONS = {
    "option": "as given",
    "classes": "because of what the classes start from",
    "cross-validation": "because of the cross-validation",
}


def given_average(config: FinetuneConfig, prepared: Prepared) -> Average:
    """α before anything is measured: the option, or where that is `auto`, what follows from the classes.

    With random initial weights, or if nothing trains, there is nothing to average: α = 1.
    """
    if isinstance(config.average, float):
        return Average(config.average, "option")
    if config.policy == "none" or not prepared.detector.pretrained:
        return Average(1.0, "classes")
    return Average(class_alpha(prepared.starts.values()), "classes")


def class_alpha(starts: Iterable[Start]) -> float:
    """The mean of CLASS_ALPHA over the classes, one or more."""
    return statistics.fmean(CLASS_ALPHA[start] for start in starts)


class Averaging:
    """The weights of a detector before training, kept for averaging with those after it.

    Args:
        detector: not trained yet, frozen but for what will train.
    """

    def __init__(self, detector: Detector) -> None:
        # Counts of batches are no weights.
        trained = {name: tensor for name, tensor in trained_tensors(detector).items() if tensor.is_floating_point()}
        self._trained = trained
        self._base = {name: tensor.detach().clone() for name, tensor in trained.items()}

    @torch.no_grad()
    def apply(self, alpha: float) -> None:
        """Set each trained parameter to (1 − α) times what it was before training plus α times what it is now."""
        for name, parameter in self._trained.items():
            parameter.copy_(torch.lerp(self._base[name], parameter, alpha))

    @contextmanager
    def applied(self, alpha: float) -> Iterator[None]:
        """`apply` for as long as the context lasts; then the parameters are again what training made of them."""
        tuned = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        self.apply(alpha)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._trained.items():
                    parameter.copy_(tuned[name])

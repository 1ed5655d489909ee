"""How promising a layer is to train, judged by its gradients before anything trains.

`selection.gradients` measures each layer's gradients over the shots and their variants, in one pass; a criterion is a
function of what was measured. To add one, write a function of LayerGradients that is higher for more promising layers,
and add a line to CRITERIA: `fsod inspect-layers --criterion` then takes it by its name.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fewshot_cli.errors import ConfigError, closest


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGradients:
    """The gradients g₁ … gₙ of a layer, one for each image, at the weights θ; both over all parameters of the layer.

    Attributes:
        signal: ‖mean g‖², the squared norm of the mean gradient.
        noise: mean ‖g − mean g‖², the variance summed over the parameters.
        weights: ‖θ‖².
        parameters: how many the layer has.
    """

    signal: float
    noise: float
    weights: float
    parameters: int


@dataclass(frozen=True, slots=True)
class Criterion:
    """A measure of how promising a layer is: the higher the more.

    Attributes:
        summary: the formula, for lists and help texts.
        of: the value, from a layer's gradients.
    """

    summary: str
    of: Callable[[LayerGradients], float]


def relative_gradient_norm(layer: LayerGradients) -> float:
    """‖mean g‖ / ‖θ‖: how far a step along the gradient moves the layer, in proportion to its weights.

    Auto-RGN of Lee et al., Surgical Fine-Tuning, ICLR 2023 (arXiv 2210.11466), section 4. Their code takes one tensor
    at a time, without those of norm layers, and averages the norms of five mini-batches' gradients. Here all tensors of
    a layer are one vector, and the norm is that of the mean gradient over all images. They make learning rates of it;
    here it ranks layers.
    """
    return math.sqrt(_ratio(layer.signal, layer.weights))


def signal_to_noise(layer: LayerGradients) -> float:
    """‖mean g‖² / mean ‖g − mean g‖²: how far the images agree on where the layer should move.

    Auto-SNR of the same paper, after the evidence-based criterion of Mahsereci et al., Early Stopping without a
    Validation Set, 2017 (arXiv 1703.09580), which averages g² / variance over the single parameters. Here the
    numerator and the denominator are summed over the parameters first, because with few images the variance of a single
    parameter may be close to 0 by chance. n independent gradients without a common direction give about 1 / (n − 1).
    """
    return _ratio(layer.signal, layer.noise)


def fisher_information(layer: LayerGradients) -> float:
    """mean ‖g‖²: the trace of the empirical Fisher information, its diagonal summed over the layer's parameters.

    As Kirkpatrick et al. weigh parameters (Overcoming Catastrophic Forgetting, PNAS 2017, arXiv 1612.00796); empirical:
    of the boxes as they are labelled, not as the detector would draw them (Kunstner et al., 2019, arXiv 1905.12558).
    """
    # The mean of squares is the square of the mean plus the variance.
    return layer.signal + layer.noise


def fisher_per_parameter(layer: LayerGradients) -> float:
    """The mean of the diagonal instead of its sum, so that large layers have no advantage."""
    return fisher_information(layer) / layer.parameters


CRITERIA: dict[str, Criterion] = {
    "rgn": Criterion("relative gradient norm, ‖mean g‖ / ‖θ‖", relative_gradient_norm),
    "snr": Criterion("gradient signal-to-noise ratio, ‖mean g‖² / mean ‖g − mean g‖²", signal_to_noise),
    "fisher": Criterion("trace of the empirical Fisher information, mean ‖g‖²", fisher_information),
    "fisher_mean": Criterion("the same per parameter, mean ‖g‖² / number of parameters", fisher_per_parameter),
}
DEFAULT_CRITERION = "rgn"


def check_criteria(names: Iterable[str]) -> None:
    """Raises ConfigError, with the valid names, for the first that is not in CRITERIA."""
    for name in names:
        if name not in CRITERIA:
            raise ConfigError(f"unknown criterion {name!r}", hint=closest(name, CRITERIA))


@dataclass(frozen=True, slots=True)
class LayerCriteria:
    """Every criterion of every layer that was measured.

    Attributes:
        layers: name → its gradients, in chain order; layers without parameters are left out.
        count: n, the number of gradients.
    """

    layers: Mapping[str, LayerGradients]
    count: int

    @property
    def values(self) -> dict[str, dict[str, float]]:
        """Layer → criterion → value; infinite where the divisor is zero, e.g. the noise of a single gradient."""
        return {
            layer: {name: criterion.of(gradients) for name, criterion in CRITERIA.items()}
            for layer, gradients in self.layers.items()
        }

    def to_json(self) -> dict[str, Any]:
        """`values` as `layers`, null where they are infinite, and `gradients`, their number."""
        layers = {
            layer: {name: value if math.isfinite(value) else None for name, value in of.items()}
            for layer, of in self.values.items()
        }
        return {"gradients": self.count, "layers": layers}


def rank(criteria: LayerCriteria, name: str, layers: Collection[str]) -> float:
    """The score of layers that would train together: the mean of the criterion over them, each layer counting once.

    Not weighted by parameters, and not the criterion of the layers as one: the predictor of a new class has by far the
    largest gradient for its size, and would decide alone. In a mean it adds the same to every candidate that has it. A
    mean says nothing of how many layers there are, so compare candidates of about the same size.

    Args:
        criteria: of all these layers.
        name: a criterion in CRITERIA.
        layers: one or more; the higher the score, the more promising they are.

    Raises:
        ConfigError: unknown criterion, or a layer that was not measured.
    """
    check_criteria([name])
    for layer in layers:
        if layer not in criteria.layers:
            raise ConfigError(f"layer {layer!r} was not measured", hint=closest(layer, criteria.layers))
    return statistics.fmean(CRITERIA[name].of(criteria.layers[layer]) for layer in layers)


def _ratio(numerator: float, denominator: float) -> float:
    if denominator:
        return numerator / denominator
    return math.inf if numerator else 0.0

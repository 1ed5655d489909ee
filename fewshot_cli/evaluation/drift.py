"""How far training moved a layer: the drift of Algorithm 1 in the layer-difference paper."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fewshot_cli.detectors.chain import Detector


def drift(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """1 − |cos(w′, w)| of a layer's parameters, taken together as one vector: 0 where nothing turned, 1 at most.

    Args:
        before, after: the layer's parameters by name, same names and shapes.
    """
    old, new = (
        torch.cat([tensors[name].detach().flatten().cpu().double() for name in before])  # mps has no float64
        for tensors in (before, after)
    )
    # Bit for bit the same is exactly no drift, which rounding would not give.
    if torch.equal(old, new):
        return 0.0
    cosine = torch.nn.functional.cosine_similarity(old, new, dim=0, eps=1e-30)
    return max(0.0, 1.0 - float(cosine.abs()))


class DriftSince:
    """Keeps a copy of the parameters that train, to measure later how far they have moved."""

    def __init__(self, detector: Detector) -> None:
        # Only what trains can move, so only that is copied.
        self._before = {
            name: p.detach().cpu().clone() for name, p in detector.network.named_parameters() if p.requires_grad
        }

    def by_layer(self, detector: Detector) -> dict[str, float]:
        """Drift by layer name, in chain order, each of all parameters of the layer; 0 for frozen layers."""
        return {layer.name: self._of(layer.parameters()) for layer in detector.layers}

    def by_convolution(self, detector: Detector) -> list[float]:
        """Drift of the weight of each convolution, without its bias, in input order; 0 for frozen ones."""
        weights = (f"{name}.weight" for name in detector.convolutions())
        return [self._of({name: detector.network.get_parameter(name)}) for name in weights]

    def _of(self, after: Mapping[str, Tensor]) -> float:
        if self._before.keys().isdisjoint(after):
            return 0.0
        return drift({name: self._before.get(name, now) for name, now in after.items()}, after)

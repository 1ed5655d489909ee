"""Distillation: the detector's features of the objects are drawn to a teacher's embeddings of their crops.

After the knowledge distillation from CLIP in Adaptive Multi-task Learning for Few-Shot Object Detection (ECCV 2024).
What is drawn is what enters the predictor at the boxes of the ground truth: the mean of its map over the box
(`detectors.objects`), or the box head's features of that box (Faster R-CNN). A linear layer takes it to the teacher's
dimension; that trains beside the detector, at the learning rate of the head, and is dropped with the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot_cli.detectors.chain import Activations, Detector, Target
from fewshot_cli.detectors.objects import ObjectFeatures
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.features import Features
from fewshot_cli.training.loop import drawing
from fewshot_cli.training.objectives import DetectorLosses, Objective
from fewshot_cli.training.plan import trains_before_predictor
from fewshot_cli.training.prepare import Prepared

NAME = "distil"
"""Of the loss."""


def cosine(projected: Tensor, embeddings: Tensor) -> Tensor:
    """(N, D) twice → (N,): 1 − cosine."""
    return 1 - F.cosine_similarity(projected, embeddings)


def squared(projected: Tensor, embeddings: Tensor) -> Tensor:
    """(N, D) twice → (N,): squared Euclidean distance."""
    return (projected - embeddings).square().sum(dim=1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "l2": squared}
"""By the value of `--distil-loss`."""


def objective_of(prepared: Prepared, features: Features, config: FinetuneConfig) -> Objective:
    """What a fine-tune minimises: the detector's losses, and with `--distil` the distance from the teacher.

    Args:
        features: of the training variants, with the teacher's embeddings where one is distilled from.
    """
    detector, cut = prepared.detector, features.cut
    if config.distil is None or not trains_before_predictor(detector):
        return DetectorLosses(detector, cut)
    activations, targets = features.batch([0], prepared.placed.device)
    with torch.no_grad(), drawing(config.seed, 0):
        _, objects = detector.losses_and_objects(activations, cut, targets)
        torch.random.default_generator.manual_seed(config.seed)
        projections = Projections(objects, _embeddings(targets).shape[1]).to(prepared.placed.device)
    return Distillation(detector, cut, projections, DISTANCES[config.distil_loss], config.distil_weight)


class Projections(nn.Module):
    """One linear layer for each width that the maps of a predictor have: most have one.

    Args:
        objects: of any batch, one entry a map.
        dimension: D, the teacher's.
    """

    def __init__(self, objects: Iterable[ObjectFeatures], dimension: int) -> None:
        super().__init__()
        widths = sorted({found.values.shape[1] for found in objects})
        self.linear = nn.ModuleDict({str(width): nn.Linear(width, dimension) for width in widths})

    def forward(self, values: Tensor) -> Tensor:
        """(N, C) → (N, D)."""
        projected: Tensor = self.linear[str(values.shape[1])](values)
        return projected


class Distillation:
    """The detector's own losses and `distil`, the mean distance of its objects from the teacher's embeddings.

    Args:
        detector: its chosen layers train.
        cut: index of the layer that the activations are the input of.
        projections: to the teacher's dimension.
        distance: of DISTANCES.
        weight: of the mean distance.
    """

    def __init__(
        self,
        detector: Detector,
        cut: int,
        projections: Projections,
        distance: Callable[[Tensor, Tensor], Tensor],
        weight: float,
    ) -> None:
        self._detector, self._cut = detector, cut
        self._projections, self._distance, self._weight = projections, distance, weight

    def losses(self, activations: Activations, targets: Sequence[Target]) -> dict[str, Tensor]:
        losses, objects = self._detector.losses_and_objects(activations, self._cut, targets)
        with torch.autocast(activations[0].device.type, enabled=False):
            return {**losses, NAME: self._weight * self._distil(objects, _embeddings(targets))}

    def _distil(self, objects: Sequence[ObjectFeatures], embeddings: Tensor) -> Tensor:
        """The mean over all objects; 0 without any."""
        distances = torch.cat(
            [self._distance(self._projections(found.values), embeddings[found.rows]) for found in objects]
        )
        return distances.sum() / max(1, len(distances))

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._projections.named_parameters())


def _embeddings(targets: Sequence[Target]) -> Tensor:
    """(N, D) of all objects of a batch."""
    found = [target.embeddings for target in targets if target.embeddings is not None]
    assert len(found) == len(targets)  # `cache_features` has a teacher wherever `objective_of` asks for one
    return torch.cat(found)

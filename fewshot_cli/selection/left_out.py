"""What a detector finds in shots that it was not trained on: one fold of a cross-validation.

Everything that a fine-tune reads off its shots (what the classes start from, the rate for small objects) is read off
the other shots too, so nothing leaks. The features before the cut are those that were cached for all shots.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewshot_cli.datasets.splits import with_ids
from fewshot_cli.datasets.store import Dataset
from fewshot_cli.datasets.types import Split
from fewshot_cli.evaluation.coco_metrics import Metrics, evaluate
from fewshot_cli.evaluation.measure import ground_truth, score
from fewshot_cli.progress import SilentReporter, Task
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.averaging import Averaging
from fewshot_cli.training.distillation import objective_of
from fewshot_cli.training.features import Features, detect_cached
from fewshot_cli.training.fit import fit_part
from fewshot_cli.training.prepare import prepare


@dataclass(frozen=True, slots=True)
class Fold:
    """What one fold left.

    Attributes:
        images: ids of the shots that it left out.
        results: α → the detections in them by the detector averaged so, in COCO's results format.
        seconds: that it took.
    """

    images: tuple[int, ...]
    results: dict[float, list[dict[str, Any]]]
    seconds: float


def train_fold(
    config: FinetuneConfig,
    data: Dataset,
    features: Features,
    alphas: Sequence[float],
    left_out: Sequence[int],
    task: Task,
) -> Fold:
    """Train on all shots but those with these numbers, and detect in them.

    Args:
        config: what trains, and for how long.
        data: the shots and their variants.
        features: of them, cached at the cut of the configuration or before it.
        alphas: shares of the trained weights to detect with.
        left_out: numbers of shots.
        task: advanced by one each iteration.

    Raises:
        DivergedError: a loss, a gradient or a parameter is not finite.
    """
    started = time.perf_counter()
    kept = [number for number, shot in enumerate(data.shot_of) if shot not in left_out]
    rest = replace(data.train, images=tuple(data.train.images[number] for number in kept))
    prepared = prepare(config, replace(data, train=rest, test=None), SilentReporter())
    cut, copies = features.cut, features.copies
    averaging = Averaging(prepared.detector)
    fit_part(
        prepared,
        features,
        [number * copies + copy for number in kept for copy in range(copies)],
        objective_of(prepared, features, config),
        config,
        after_step=lambda done, losses: task.advance(),
    )
    part = replace(data.shots, images=tuple(data.shots.images[number] for number in left_out))
    results = {}
    for alpha in alphas:
        with averaging.applied(alpha):
            found = detect_cached(prepared.placed, cut, features.train, [number * copies for number in left_out])
        _, results[alpha] = score(found, part, prepared.detector.classes)
    return Fold(ids_of(data.shots, left_out), results, time.perf_counter() - started)


def ids_of(shots: Split, numbers: Sequence[int]) -> tuple[int, ...]:
    """The ids of the shots with these numbers."""
    return tuple(shots.images[number].id for number in numbers)


def shot_scores(shots: Split, classes: Sequence[str], folds: Sequence[Fold], alpha: float) -> list[float]:
    """What each left-out shot that shows one of the classes contributes to the mAP of its fold, fold by fold.

    Jackknife pseudo-values (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11): of a fold with n
    such shots n times its mAP@[.50:.95], less n − 1 times that without the shot. Their mean is about the mAP of the
    fold, and their spread gives its standard error. The mAP of single images would be blind to what false detections in
    one image cost in another.

    Args:
        shots: the originals.
        classes: those to measure.
        folds: measured at `alpha`.
    """
    return [score for fold in folds for score in _contributions(shots, classes, fold.images, fold.results[alpha])]


def _contributions(
    shots: Split, classes: Sequence[str], images: Sequence[int], results: list[dict[str, Any]]
) -> list[float]:
    showing = [image for image in images if mean_ap(with_ids(shots, {image}), classes, []) is not None]

    def ap_without(shot: int | None) -> float:
        rest = {image for image in images if image != shot}
        kept = [result for result in results if result["image_id"] in rest]
        return mean_ap(with_ids(shots, rest), classes, kept) or 0.0

    whole, count = ap_without(None), len(showing)
    return [whole] if count == 1 else [count * whole - (count - 1) * ap_without(shot) for shot in showing]


def mean_ap(part: Split, classes: Sequence[str], results: list[dict[str, Any]]) -> float | None:
    """mAP@[.50:.95] of detections in some images; None if they show none of the classes."""
    return measure_on(part, classes, results).numbers["AP"]


def measure_on(part: Split, classes: Sequence[str], results: list[dict[str, Any]]) -> Metrics:
    """Detections in some images measured on some classes."""
    return evaluate(ground_truth(part, classes), results)

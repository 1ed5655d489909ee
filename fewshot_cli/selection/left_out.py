"""What a detector finds in shots that it was not trained on: one fold of a cross-validation.

Everything that a fine-tune reads off its shots (what the classes start from, the rate for small objects) is read off
the other shots too, so nothing leaks. The features before the cut are those that were cached for all shots.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.datasets.types import Split
from fewshot_cli.evaluation.coco_metrics import evaluate
from fewshot_cli.evaluation.measure import ground_truth, score
from fewshot_cli.progress import SilentReporter, Task
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.averaging import Averaging
from fewshot_cli.training.features import Features, detect_cached
from fewshot_cli.training.fit import fit_part
from fewshot_cli.training.objectives import DetectorLosses
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
    """Train on all shots but those with these numbers, and detect in them."""
    started = time.perf_counter()
    kept = [number for number, shot in enumerate(data.shot_of) if shot not in left_out]
    rest = replace(data.train, images=tuple(data.train.images[number] for number in kept))
    prepared = prepare(config, replace(data, train=rest, test=None), SilentReporter())
    cut, copies = features.cut, features.copies
    averaging = Averaging(prepared.detector, 1.0)
    fit_part(
        prepared,
        features,
        [number * copies + copy for number in kept for copy in range(copies)],
        DetectorLosses(prepared.detector, cut),
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
    return tuple(shots.images[number].id for number in numbers)


def only(shots: Split, ids: Sequence[int]) -> Split:
    """The shots with these ids, in that order."""
    by_id = {image.id: image for image in shots.images}
    return replace(shots, images=tuple(by_id[number] for number in ids))


def shot_scores(shots: Split, classes: Sequence[str], folds: Sequence[Fold], alpha: float) -> list[float]:
    """mAP of each left-out shot that shows one of the classes."""
    aps = []
    for fold in folds:
        for number in fold.images:
            own = [result for result in fold.results[alpha] if result["image_id"] == number]
            aps.append(mean_ap(only(shots, [number]), classes, own))
    return [ap for ap in aps if ap is not None]


def mean_ap(part: Split, classes: Sequence[str], results: list[dict[str, Any]]) -> float | None:
    return evaluate(ground_truth(part, classes), results).numbers["AP"]

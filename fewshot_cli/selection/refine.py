"""The weight of an encoder in refined scores, chosen on left-out shots where these are clear.

Each shot was detected in by the detector of a fold that did not see it (`left_out`), and the encoder looks at each of
these detections once; the weights are then compared as values of α are (`alpha`): 0, the detector alone, unless another
one is better by more than one standard error.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.encoders import with_whole_path
from fewshot_cli.evaluation.measure import ground_truth
from fewshot_cli.evaluation.thresholds import rank
from fewshot_cli.inference.refinement import Refinement, Refiner, fused, whole_image
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.selection.alpha import clearly_best
from fewshot_cli.selection.cross_validation import CrossValidation
from fewshot_cli.selection.left_out import Fold, shot_scores

WEIGHTS = tuple(tenths / 10 for tenths in range(11))
"""Values of w that are compared."""


class Seen(NamedTuple):
    """A detection in a left-out shot, in COCO's results format, and what the encoder says of it."""

    result: dict[str, Any]
    share: float


def choose_refinement(
    found: CrossValidation, classes: Sequence[str], config: FinetuneConfig, device: str, reporter: Reporter
) -> dict[str, Any]:
    """`refine` of result.json: the weight that the left-out shots suggest, and thresholds of refined scores.

    Args:
        found: the cross-validation of the run.
        classes: the detector's, in label order.
        config: of the run, with `refine`.
        device: where the encoder computes.
        reporter: receives the progress.

    Raises:
        ModelError, CheckpointError, NetworkError: the encoder cannot be had.
    """
    assert config.refine is not None
    started = time.perf_counter()
    refinement = Refinement(encoder=with_whole_path(config.refine), template=config.refine_template, weight=1.0)
    refiner = Refiner(refinement, classes, device, reporter)
    seen = _look(found, refiner, classes, reporter)
    folds = [replace(fold, results={w: _refined(seen, fold, w) for w in WEIGHTS}) for fold in found.folds]
    scores = {w: shot_scores(found.shots, found.classes, folds, w) for w in WEIGHTS}
    weight = clearly_best(0.0, scores)
    reporter.say(f"Refinement: weight {weight:g} of {config.refine}, on left-out shots.")
    return {
        **refinement.to_json(),
        "weight": weight,
        "weights": {f"{w:g}": statistics.mean(values) for w, values in scores.items()},
        "thresholds": _thresholds(found, [result for fold in folds for result in fold.results[weight]]),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _look(
    found: CrossValidation, refiner: Refiner, classes: Sequence[str], reporter: Reporter
) -> Mapping[int, list[Seen]]:
    """Image id → its detections, each looked at once."""
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in found.results:
        by_image[result["image_id"]].append(result)
    names = dict(zip(found.shots.category_ids, found.shots.classes, strict=True))
    label_of = {category: classes.index(name) for category, name in names.items()}
    seen: dict[int, list[Seen]] = {}
    with reporter.progress("Refinement", len(found.shots.images)) as task:
        for image in found.shots.images:
            own = by_image[image.id]
            shares = _shares(image, own, label_of, refiner, classes)
            seen[image.id] = [Seen(result, float(share)) for result, share in zip(own, shares, strict=True)]
            task.advance()
    return seen


def _shares(
    image: ImageRecord,
    results: Sequence[dict[str, Any]],
    label_of: Mapping[int, int],
    refiner: Refiner,
    classes: Sequence[str],
) -> NDArray[np.float32]:
    corners = np.array([result["bbox"] for result in results], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    scores = np.array([result["score"] for result in results], dtype=np.float32)
    labels = np.array([label_of[result["category_id"]] for result in results], dtype=np.int64)
    return refiner.shares_in_file(whole_image(corners, scores, labels, classes, image.path), image.path)


def _refined(seen: Mapping[int, list[Seen]], fold: Fold, weight: float) -> list[dict[str, Any]]:
    """The detections in the shots that a fold left out, with scores of that weight."""
    own = [each for image in fold.images for each in seen.get(image, ())]
    scores = np.array([each.result["score"] for each in own], dtype=np.float32)
    shares = np.array([each.share for each in own], dtype=np.float32)
    return [
        {**each.result, "score": round(float(score), 5)}
        for each, score in zip(own, fused(scores, shares, weight), strict=True)
    ]


def _thresholds(found: CrossValidation, results: list[dict[str, Any]]) -> dict[str, float]:
    """Class → score of the best F1, as in a cross-validation."""
    rankings = rank(ground_truth(found.shots, found.classes), results)
    best = {name: rankings[name].best()[0] for name in found.classes}
    return {name: round(value, 6) for name, value in best.items() if value is not None}

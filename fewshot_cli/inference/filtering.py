"""Which detections count: their score, their class, and how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.bounds import DETECTIONS
from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.errors import DataError, UsageError
from fewshot_cli.inference.prediction import Model, Prediction

SCORE_THRESHOLD = 0.3
"""From this score on a detection counts, where no threshold was measured."""
MOST = 100
"""Detections kept of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is kept of a prediction.

    Attributes:
        thresholds: (C,) least score by label; infinity for a class that is not wanted.
        most: detections of an image.
    """

    thresholds: NDArray[np.float64]
    most: int = MOST

    def by_class(self, classes: Sequence[str]) -> dict[str, float]:
        """The least score of each wanted class; `classes` are the model's."""
        return {name: float(score) for name, score in zip(classes, self.thresholds, strict=True) if score < np.inf}

    def __call__(self, prediction: Prediction) -> Prediction:
        """The best detections that reach their threshold and have an area, best first."""
        sides = prediction.boxes[:, 2:] - prediction.boxes[:, :2]
        counts = (prediction.scores >= self.thresholds[prediction.labels]) & (sides > 0).all(axis=1)
        chosen = np.flatnonzero(counts)
        return prediction.take(chosen[np.argsort(-prediction.scores[chosen], kind="stable")][: self.most])


def make_filter(
    model: Model,
    *,
    threshold: float | str = "auto",
    classes: Sequence[str] = (),
    max_detections: int = MOST,
    stored: Mapping[str, float] | None = None,
) -> Filter:
    """What to keep of a model's predictions.

    Args:
        threshold: least score, 0 … 1, of all classes; `auto`: those stored with the model, for other
            classes SCORE_THRESHOLD.
        classes: only these, as people type them; none: all.
        max_detections: of an image.
        stored: class → threshold instead of those stored with the model, where scores are not the model's own.

    Raises:
        UsageError: a threshold or a number out of range, or a class that the model does not know.
    """
    DETECTIONS.check("max_detections", max_detections, UsageError)
    least = least_scores(model.classes, model.thresholds if stored is None else stored, threshold)
    try:
        wanted = set(match_classes(classes, model.classes)) if classes else set(model.classes)
    except DataError as error:
        raise UsageError(error.message, hint=error.hint) from error
    scores = [least[name] if name in wanted else np.inf for name in model.classes]
    return Filter(thresholds=np.array(scores, dtype=np.float64), most=max_detections)


def least_scores(
    classes: Sequence[str], stored: Mapping[str, float], threshold: float | str = "auto"
) -> dict[str, float]:
    """The least score of each class; raises UsageError for what is neither `auto` nor from 0 to 1."""
    if threshold == "auto":
        return {name: float(stored.get(name, SCORE_THRESHOLD)) for name in classes}
    try:
        score = float(threshold)
    except ValueError:
        score = np.nan
    if not 0 <= score <= 1:
        raise UsageError(f"a threshold of {threshold} is not possible", hint="Give auto, or a score from 0 to 1.")
    return dict.fromkeys(classes, score)

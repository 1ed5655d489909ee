"""Which detections count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fewshot_cli.errors import UsageError
from fewshot_cli.inference.filtering import SCORE_THRESHOLD, make_filter
from fewshot_cli.inference.prediction import Prediction

MODEL: Any = SimpleNamespace(classes=("cat", "traffic light", "dog"), thresholds={"cat": 0.6})


def found(*objects: tuple[int, float], flat: bool = False) -> Prediction:
    """Objects by label and score; boxes of 10 pixels, or without area."""
    return Prediction(
        boxes=np.array([[5, 5, 5 if flat else 15, 15]] * len(objects), dtype=np.float32).reshape(-1, 4),
        scores=np.array([score for _, score in objects], dtype=np.float32),
        labels=np.array([label for label, _ in objects], dtype=np.int64),
        classes=MODEL.classes,
        size=(20, 20),
    )


def test_auto_is_the_stored_threshold_of_the_class() -> None:
    """And 0.3 for a class without one; best first."""
    kept = make_filter(MODEL)(found((0, 0.55), (1, 0.31), (2, 0.29), (0, 0.61)))
    assert [("cat", 0.61), ("traffic light", 0.31)] == [
        (name, pytest.approx(score)) for name, score in zip(kept.names, kept.scores, strict=True)
    ]
    assert {"cat": 0.6, "traffic light": SCORE_THRESHOLD, "dog": SCORE_THRESHOLD} == make_filter(MODEL).by_class(
        MODEL.classes
    )


def test_a_number_is_for_all_classes() -> None:
    """From the command line it is text; 0 keeps everything with an area."""
    assert 2 == len(make_filter(MODEL, threshold="0.5")(found((0, 0.55), (2, 0.5), (1, 0.49))))
    assert 2 == len(make_filter(MODEL, threshold=0)(found((0, 0.0), (1, 0.001))))
    assert 0 == len(make_filter(MODEL, threshold=0)(found((0, 0.9), flat=True)))


def test_classes_are_found_as_people_type_them() -> None:
    """Only those are kept."""
    keep = make_filter(MODEL, classes=["Traffic_Light"])
    assert ("traffic light",) == keep(found((0, 0.9), (1, 0.9))).names
    assert {"traffic light": SCORE_THRESHOLD} == keep.by_class(MODEL.classes)


def test_the_best_are_kept() -> None:
    """At most so many of an image."""
    kept = make_filter(MODEL, threshold=0, max_detections=2)(found((0, 0.1), (1, 0.9), (2, 0.5)))
    assert [0.9, 0.5] == pytest.approx(kept.scores.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "high"}, "a threshold of high"),
        ({"threshold": 1.5}, "a threshold of 1.5"),
        ({"threshold": float("nan")}, "a threshold of nan"),
        ({"classes": ["catt"]}, "unknown class 'catt'"),
        ({"max_detections": 0}, "max_detections is 0"),
    ],
)
def test_wrong_choices_are_usage_errors(options: dict[str, Any], message: str) -> None:
    """With what would be right."""
    with pytest.raises(UsageError) as caught:
        make_filter(MODEL, **options)
    assert message in caught.value.message and caught.value.hint

"""The weight of refined scores: of left-out detections, each looked at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.selection import refine as module
from fewshot_cli.selection.cross_validation import measure
from fewshot_cli.selection.left_out import Fold, ids_of
from fewshot_cli.selection.refine import WEIGHTS, choose_refinement
from fewshot_cli.training.averaging import Average


class Knowing:
    """Says 1 of a detection on an object of its class, and 0 of all others."""

    looked = 0

    def __init__(self, refinement: Any, classes: Any, device: str, reporter: Any) -> None:
        Knowing.looked = 0

    def shares_in_file(self, prediction: Any, path: Path) -> Any:
        Knowing.looked += len(prediction)
        return np.array([float(box[0] < 1000) for box in prediction.boxes], dtype=np.float32)


@pytest.fixture
def found(shapes: Path) -> Any:
    """Two folds whose detector puts a false box, at x = 2,000, before every right one."""
    shots = open_dataset(shapes).shots
    folds = []
    for numbers in ([0, 1], [2, 3]):
        results = []
        for number in numbers:
            image = shots.images[number]
            for (x1, y1, x2, y2), label in zip(image.boxes.tolist(), image.labels.tolist(), strict=True):
                category = shots.category_ids[label]
                for score, x in ((0.5, x1), (0.9, 2000.0)):
                    box = [x, y1, x2 - x1, y2 - y1]
                    results.append({"image_id": image.id, "category_id": category, "bbox": box, "score": score})
        folds.append(Fold(ids_of(shots, numbers), {1.0: results}, 0.0))
    return measure(shots, ["square", "disc"], folds, Average(1.0, "option"))


def test_the_weight_that_puts_right_boxes_first_is_chosen(
    found: Any, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.5 + 0.5 w > 0.9 − 0.9 w from w = 0.3 on; each detection is looked at once, and thresholds are refined ones."""
    monkeypatch.setattr(module, "Refiner", Knowing)
    config = FinetuneConfig(data=str(shapes), refine="clip")
    chosen = choose_refinement(found, ("square", "disc"), config, "cpu", SilentReporter())
    assert [f"{w:g}" for w in WEIGHTS] == list(chosen["weights"])
    assert chosen["weights"]["0.2"] == pytest.approx(chosen["weights"]["0"])
    assert chosen["weights"]["0.3"] > chosen["weights"]["0.2"]
    assert 0.3 == chosen["weight"]
    assert Knowing.looked == len(found.results)
    right, wrong = 0.7 * 0.5 + 0.3, 0.7 * 0.9
    assert {"square", "disc"} == chosen["thresholds"].keys()
    assert all(wrong < value < right for value in chosen["thresholds"].values())

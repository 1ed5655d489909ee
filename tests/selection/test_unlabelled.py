"""Objects that nobody labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.selection.unlabelled import unlabelled_objects

LABELLED = ImageRecord(
    id=7,
    path=Path("photo.jpg"),
    width=200,
    height=200,
    boxes=np.array([[10, 10, 50, 50]], np.float32),
    labels=np.array([0]),
    crowd=np.array([False]),
)
SPLIT = Split(annotations=Path("shots"), classes=("cat", "dog"), images=(LABELLED,))


def result(box: tuple[int, int, int, int], score: float = 0.9, category: int = 1, image: int = 7) -> dict[str, Any]:
    """A detection; the box is xywh."""
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


@pytest.mark.parametrize(
    ("found", "reported"),
    [
        (result((100, 100, 40, 40)), True),
        (result((100, 100, 40, 40), category=2), True),
        (result((100, 100, 40, 40), score=0.59), False),
        (result((100, 100, 40, 40), category=3), False),
        (result((10, 10, 40, 40)), False),
        (result((30, 30, 15, 15)), False),
        (result((0, 0, 190, 190)), False),
        (result((45, 10, 40, 40)), False),
        (result((48, 10, 40, 40)), True),
    ],
    ids=["apart", "other class", "unsure", "foreign", "same", "part of it", "around it", "overlaps", "touches"],
)
def test_a_sure_detection_without_a_box_is_reported(found: dict[str, Any], reported: bool) -> None:
    """It counts as boxed if it shares more than a tenth of the smaller box with any."""
    assert reported == bool(unlabelled_objects(SPLIT, [found]))


def test_each_image_is_named_once() -> None:
    """By its surest detection; the surest image comes first; an image without boxes can lack them all."""
    empty = replace(
        LABELLED, id=8, boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, int), crowd=np.zeros(0, bool)
    )
    results = [
        result((100, 100, 9, 9), 0.7), result((150, 100, 9, 9), 0.8), result((0, 0, 9, 9), 0.9, category=2, image=8)
    ]  # fmt: skip
    seen = unlabelled_objects(replace(SPLIT, images=(LABELLED, empty)), results)
    assert [(8, "dog", 0.9, (0, 0, 9, 9)), (7, "cat", 0.8, (150, 100, 159, 109))] == [
        (image.id, name, score, box) for image, name, score, box in seen
    ]

"""The confusion matrix, against a count of its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.report.confusion import confusion
from fewshot_cli.report.judging import judge
from fewshot_cli.report.plots import confusion_plot
from fewshot_cli.report.run import best_and_worst

NAMES = ("cat", "dog", "hen")
CATEGORIES = (7, 3, 5)


def split_of(objects: list[tuple[int, int]], crowds: int = 0) -> Split:
    """One image with an object of a class at each slot; slots do not overlap."""
    boxes = np.array([[40 * slot, 0, 40 * slot + 30, 30] for _, slot in objects], np.float32).reshape(-1, 4)
    labels = np.array([label for label, _ in objects], np.int64)
    crowd = np.arange(len(objects)) < crowds
    image = ImageRecord(id=1, path=Path("x.png"), width=2000, height=50, boxes=boxes, labels=labels, crowd=crowd)
    return Split(annotations=Path("x"), classes=NAMES, images=(image,), category_ids=CATEGORIES)


def found(label: int, slot: int, score: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": CATEGORIES[label], "bbox": [40 * slot, 0, 30, 30], "score": score}


def test_right_wrong_missed_and_made_up() -> None:
    """One of each: a cat found, a dog taken for a hen, a hen missed, a cat where nothing is."""
    split = split_of([(0, 0), (1, 1), (2, 2)])
    table = confusion(split, judge(split, [found(0, 0, 0.9), found(2, 1, 0.8), found(0, 5, 0.7)]))
    expected = np.zeros((4, 4), int)
    expected[0, 0] = expected[1, 2] = expected[2, 3] = expected[3, 0] = 1
    assert np.array_equal(expected, table)


def test_the_right_class_wins_over_a_surer_wrong_one() -> None:
    """The diagonal is what is found by F1's rule; the other detection is on the background."""
    split = split_of([(0, 0)])
    table = confusion(split, judge(split, [found(1, 0, 0.95), found(0, 0, 0.5)]))
    assert (1, 1, 2) == (table[0, 0], table[3, 1], table.sum())


def test_crowds_count_neither_way() -> None:
    """Neither as missed nor as background."""
    split = split_of([(0, 0)], crowds=1)
    assert 0 == confusion(split, judge(split, [found(1, 0, 0.9)])).sum()


labels, slots = st.integers(0, 2), st.integers(0, 7)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(slots, labels, max_size=8),
    st.dictionaries(slots, labels, max_size=8),
)
def test_rows_are_objects_and_columns_are_detections(objects: dict[int, int], detections: dict[int, int]) -> None:
    """With one detection a place at most, the matrix is the count of pairs at each place."""
    split = split_of([(label, slot) for slot, label in objects.items()])
    table = confusion(split, judge(split, [found(label, slot, 0.9) for slot, label in detections.items()]))
    places = objects.keys() | detections.keys()
    expected = Counter((objects.get(place, 3), detections.get(place, 3)) for place in places)
    assert expected == Counter({(int(row), int(column)): int(n) for (row, column), n in np.ndenumerate(table) if n})


def test_the_plot_says_what_it_shows() -> None:
    """For those who cannot see it."""
    table = np.array([[3, 1, 0], [0, 2, 2], [1, 0, 0]])
    assert "found: cat 3 of 4, dog 2 of 4; detections on background: 1." in confusion_plot(table, NAMES[:2]).text


@given(st.integers(0, 30), st.integers(1, 8))
def test_no_image_is_among_the_best_and_the_worst(count: int, most: int) -> None:
    """Also of few images; the best has no lower F1 than the worst."""
    split = split_of([(0, 0)])
    judged = [one for i in range(count) for one in judge(split, [found(0, 0, 0.9)] if i % 3 else [])]
    best, worst = best_and_worst(judged, most)
    assert not {id(one) for one in best} & {id(one) for one in worst}
    assert (min(most, (count + 1) // 2), min(most, count // 2)) == (len(best), len(worst))
    if worst:
        assert min(one.f1 for one in best) >= max(one.f1 for one in worst)

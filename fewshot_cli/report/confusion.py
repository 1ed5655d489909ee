"""Which classes are taken for which: the confusion matrix of detections at the scores that count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.datasets.types import Split
from fewshot_cli.evaluation.thresholds import MATCH_IOU
from fewshot_cli.report.judging import Judged, on_crowd, overlaps_of


def confusion(split: Split, judged: Sequence[Judged]) -> NDArray[np.int64]:
    """(C + 1, C + 1): row the true class, column the detected one, last row and column the background.

    The diagonal counts the objects that were found. What is left of an image's detections, best score first, is each
    matched with the object left that it overlaps most, of another class, by MATCH_IOU at least; a detection without
    one counts in the background's row, an object without one in the background's column. Detections on a crowd count
    neither way.
    """
    count = len(split.classes)
    table: NDArray[np.int64] = np.zeros((count + 1, count + 1), np.int64)
    labels = {category: label for label, category in enumerate(split.category_ids)}
    for one in judged:
        left = list(one.missed)
        for found, i in zip(one.results, one.objects, strict=True):
            label = labels[found["category_id"]]
            if i is not None:
                table[label, label] += 1
            elif not on_crowd(found, one):
                overlaps = overlaps_of(found, one.image).tolist()
                nearest = max(left, key=overlaps.__getitem__, default=None)
                if nearest is None or overlaps[nearest] < MATCH_IOU:
                    table[count, label] += 1
                else:
                    table[one.image.labels[nearest], label] += 1
                    left.remove(nearest)
        for i in left:
            table[one.image.labels[i], count] += 1
    return table

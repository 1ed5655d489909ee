"""Which shots a fold of a cross-validation leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot_cli.datasets.splits import members
from fewshot_cli.datasets.types import Split
from fewshot_cli.policies import get_policy

FOLDS, WHOLE_FOLDS = 5, 3
"""Folds where none are asked for; fewer where the whole detector trains, which no cached features shorten."""

FEWEST_SHOTS = 4
"""With fewer left-out shots, chance would choose."""
SEARCH_FOLDS, SEARCH_SHARE = 3, 0.25
"""Folds of a search by policy auto, and the share of the iterations that each of its candidates trains for."""


def default_folds(policy: str) -> int:
    """Folds of a cross-validation that stands in for a test set."""
    return WHOLE_FOLDS if get_policy(policy).whole_detector else FOLDS


def make_folds(shots: Split, count: int, seed: int) -> list[list[int]]:
    """Numbers of images, divided into folds of about the same size that hold each class about equally often.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011); images without an object are spread
    like a class of their own.

    Args:
        shots: at least `count` images.
        count: 2 or more; may give fewer folds where classes share images in a way that leaves a fold empty.
        seed: the same seed and images give the same folds.
    """
    images = len(shots.images)
    if count == images:
        return [[number] for number in range(images)]
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    shown = members(shots.images, shots.classes).values()
    rows = [[image.id in ids for ids in shown] for image in shots.images]
    table = np.array([[*row, not any(row)] for row in rows])
    folds = MultilabelStratifiedKFold(count, shuffle=True, random_state=seed % 2**32)
    return [left.tolist() for _, left in folds.split(table, table) if len(left)]


def folds_with(shots: Split, folds: list[list[int]], classes: Sequence[str]) -> list[list[int]]:
    """The folds that leave out a shot of one of the classes: the others say nothing of them."""
    showing = members(shots.images, shots.classes)
    ids = {number for name in classes for number in showing[name]}
    return [fold for fold in folds if any(shots.images[number].id in ids for number in fold)]


def divided_classes(shots: Split, folds: list[list[int]]) -> tuple[str, ...]:
    """The classes with shots in at least two folds: whichever is left out, the others show the class."""
    showing = members(shots.images, shots.classes)
    ids = [{shots.images[number].id for number in fold} for fold in folds]
    return tuple(name for name in shots.classes if sum(bool(showing[name] & fold) for fold in ids) > 1)

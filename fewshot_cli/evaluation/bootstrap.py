"""How far a mAP may be off because of which images happen to be in the test set.

Test images are drawn again with replacement, as many as there are, and the mAP of each such sample is measured; the
middle 95 % of these values are the interval: percentile intervals of Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13. It says nothing of other shots and seeds.

Detections are matched once, by pycocotools. A sample is a number of repetitions for each image, so that all samples are
summed up together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.evaluation.interval import CONFIDENCE
from fewshot_cli.evaluation.matches import Matches

SAMPLES, FEWEST_SAMPLES = 1_000, 200
MOST_SUMS = 500_000_000
"""Additions that may be spent, about a second: with more than 50,000 detections there are fewer samples."""
SEED = 0
RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads precision, to the last bit as pycocotools has them."""
BLOCK = 50
"""Samples that are summed up together, which bounds the memory."""


def ap_interval(classes: Sequence[Matches]) -> tuple[float, float] | None:
    """The 95 % interval of mAP@[.50:.95] over samples of the images; the same matches give the same interval.

    Args:
        classes: what was matched of each.

    Returns:
        None for fewer than two images, and where there is no object to be found.
    """
    weights = _draw(classes)
    return None if weights is None else _middle(ap_of_samples(classes, weights))


def difference_interval(first: Sequence[Matches], second: Sequence[Matches]) -> tuple[float, float] | None:
    """The 95 % interval of the second mAP minus the first, over the same samples of the same images.

    Args:
        first, second: what was matched of each class by two detectors, in the same images.

    Returns:
        None where `ap_interval` is None.
    """
    weights = _draw([*first, *second])
    return None if weights is None else _middle(ap_of_samples(second, weights) - ap_of_samples(first, weights))


def _draw(classes: Sequence[Matches]) -> NDArray[np.int64] | None:
    """(S, N) how many times each image is in each sample; None if samples would say nothing."""
    count = len(classes[0].objects) if classes else 0
    if count < 2 or not any(each.objects.any() for each in classes):
        return None
    sums = sum(each.right.size for each in classes)
    samples = int(np.clip(MOST_SUMS // max(1, sums), FEWEST_SAMPLES, SAMPLES))
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), samples)


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    tail = 50 * (1 - CONFIDENCE)
    # A sample may show none of the classes.
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)


def ap_of_samples(classes: Sequence[Matches], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """mAP@[.50:.95] of samples of the images, as COCO defines it.

    Args:
        classes: what was matched.
        weights: (S, N), how many times each image is in each sample.

    Returns:
        (S,): the mean over the classes that a sample shows; NaN where it shows none.
    """
    blocks = [weights[start : start + BLOCK] for start in range(0, len(weights), BLOCK)]
    precision = np.array([np.concatenate([_mean_precision(each, block) for block in blocks]) for each in classes])
    shown = ~np.isnan(precision)
    counts = shown.sum(axis=0)
    sums = np.where(shown, precision, 0.0).sum(axis=0)
    return np.divide(sums, counts, out=np.full(len(weights), np.nan), where=counts > 0)


def _mean_precision(matches: Matches, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """(S,) mean over IoU thresholds and recalls; NaN for samples without an object."""
    objects = weights @ matches.objects
    over = [
        _precision(matches.images, right, counted, weights, objects)
        for right, counted in zip(matches.right, matches.counted, strict=True)
    ]
    return np.where(objects > 0, np.mean(over, axis=0), np.nan)


def _precision(
    images: NDArray[np.int64],
    right: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    weights: NDArray[np.int64],
    objects: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(S,) mean precision over COCO's recalls, of one class at one IoU threshold.

    Precision need only be known where a right detection ends: wrong ones in between lower it and find nothing.
    """
    ends = np.flatnonzero(right)
    if not len(ends):
        return np.zeros(len(weights))
    hits = np.cumsum(weights[:, images[ends]], axis=1)
    precision = hits / np.maximum(1, np.cumsum(_between(images, counted, weights, ends), axis=1))
    best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # Each of the recalls takes the precision at the first end that reaches it.
    reached = np.searchsorted(RECALLS, hits / np.maximum(1, objects)[:, None], side="right")
    means: NDArray[np.float64] = (np.diff(reached, axis=1, prepend=0) * best_from_here).sum(axis=1) / len(RECALLS)
    return means


def _between(
    images: NDArray[np.int64], counted: NDArray[np.bool_], weights: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(S, E) how many detections count after the end before, up to each end."""
    from scipy.sparse import csr_array

    kept = np.flatnonzero(counted[: ends[-1] + 1])
    places = (np.searchsorted(ends, kept), images[kept])
    per_image = csr_array((np.ones(len(kept), dtype=np.int64), places), shape=(len(ends), weights.shape[1]))
    between: NDArray[np.int64] = (per_image @ weights.T).T
    return between

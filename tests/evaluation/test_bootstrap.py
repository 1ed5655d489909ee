"""Intervals of the mAP: samples of the images summed up by us, compared with pycocotools on the resampled images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_cli.evaluation.bootstrap import ap_interval, ap_of_samples, difference_interval
from fewshot_cli.evaluation.coco_metrics import evaluate, match
from fewshot_cli.evaluation.matches import matches_of

Documents = tuple[dict[str, Any], list[dict[str, Any]]]


def scattered(images: int, classes: int, seed: int, *, noise: int = 8, crowds: float = 0.1) -> Documents:
    """Ground truth with some crowds, and detections: most objects found more or less well, and wrong ones."""
    chance = np.random.default_rng(seed)
    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for _ in range(chance.integers(0, 5)):
            category = int(chance.integers(1, classes + 1))
            x, y, width, height = chance.uniform((0, 0, 8, 8), (400, 400, 150, 150)).tolist()
            box, crowd = [x, y, width, height], int(chance.random() < crowds)
            where = {"image_id": image, "category_id": category}
            truth.append({**where, "id": len(truth) + 1, "bbox": box, "area": width * height, "iscrowd": crowd})
            if chance.random() < 0.8:
                moved = [x + chance.normal() * 3, y, width * chance.uniform(0.8, 1.2), height]
                results.append({**where, "bbox": moved, "score": float(chance.beta(4, 2))})
        for _ in range(chance.integers(0, noise + 1)):
            box = chance.uniform((0, 0, 8, 8), (400, 400, 150, 150)).tolist()
            where = {"image_id": image, "category_id": int(chance.integers(1, classes + 1))}
            results.append({**where, "bbox": box, "score": float(chance.beta(2, 4))})
    document = {
        "images": [{"id": number, "width": 640, "height": 640} for number in range(1, images + 1)],
        "annotations": truth,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, classes + 1)],
    }
    return document, results


def repeated(documents: Documents, weights: np.ndarray) -> Documents:
    """The documents of a sample: each image as many times as its weight says, under a new id each time."""
    truth, results = documents
    sources = [image for image, weight in enumerate(weights, start=1) for _ in range(weight)]
    annotations = [
        {**entry, "image_id": number}
        for number, source in enumerate(sources, start=1)
        for entry in truth["annotations"]
        if entry["image_id"] == source
    ]
    images = [{"id": number, "width": 640, "height": 640} for number in range(1, len(sources) + 1)]
    numbered = [{**entry, "id": number} for number, entry in enumerate(annotations, start=1)]
    found = [
        {**entry, "image_id": number}
        for number, source in enumerate(sources, start=1)
        for entry in results
        if entry["image_id"] == source
    ]
    return {**truth, "images": images, "annotations": numbered}, found


@pytest.mark.parametrize("classes", [1, 3])
def test_each_image_once_is_the_map_itself(classes: int) -> None:
    """The sample that holds every image once has pycocotools' mAP, to 1e-12."""
    truth, results = scattered(25, classes, seed=classes)
    ap = ap_of_samples(matches_of(match(truth, results)), np.ones((1, 25), dtype=int))
    assert pytest.approx(evaluate(truth, results).numbers["AP"], abs=1e-12) == ap[0]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(1, 12), classes=st.integers(1, 3), noise=st.integers(0, 6))
def test_samples_are_measured_as_pycocotools_measures_the_repeated_images(
    seed: int, images: int, classes: int, noise: int
) -> None:
    """Any sample has the mAP that pycocotools gives for its images written out one by one; NaN where it gives none."""
    documents = scattered(images, classes, seed, noise=noise)
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), 3)
    measured = ap_of_samples(matches_of(match(*documents)), weights)
    expected = [evaluate(*repeated(documents, each)).numbers["AP"] for each in weights]
    assert pytest.approx([np.nan if ap is None else ap for ap in expected], abs=1e-12, nan_ok=True) == measured


def test_the_interval_holds_the_map_and_narrows_with_more_images() -> None:
    """It lies around the mAP, and ten times the images make it less than half as wide."""
    widths = []
    for images in (20, 200):
        metrics = evaluate(*scattered(images, 1, seed=5))
        low, high = metrics.ap_interval() or (1.0, 0.0)
        assert low < metrics.ap < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_interval_agrees_with_the_spread_over_test_sets() -> None:
    """Its width is about that of 95 % of the mAPs of many test sets drawn from the same world."""
    aps = [evaluate(*scattered(30, 1, seed)).ap for seed in range(30)]
    low, high = evaluate(*scattered(30, 1, seed=3)).ap_interval() or (0.0, 0.0)
    assert pytest.approx(4 * np.std(aps), rel=0.5) == high - low


def test_the_same_detections_have_the_same_interval() -> None:
    """The samples are drawn from a fixed seed."""
    documents = scattered(20, 2, seed=1)
    assert evaluate(*documents).ap_interval() == evaluate(*documents).ap_interval()


def test_one_image_and_images_without_objects_have_no_interval() -> None:
    """Nothing can be resampled, or nothing is to be found."""
    truth, results = scattered(12, 1, seed=0)
    assert evaluate({**truth, "annotations": []}, results).ap_interval() is None
    single = scattered(1, 1, seed=4)
    assert single[0]["annotations"]
    assert evaluate(*single).ap_interval() is None
    assert ap_interval(()) is None


def test_no_detections_at_all_give_a_mean_of_zero() -> None:
    """A detector that finds nothing is certain to have a mAP of 0."""
    truth, _ = scattered(12, 1, seed=0)
    assert [0.0, 0.0] == evaluate(truth, []).ap_interval()


def test_the_difference_of_two_detectors_is_taken_on_the_same_samples() -> None:
    """A detector does not differ from itself, and one that finds less is worse by about the difference of the mAPs."""
    truth, results = scattered(images=40, classes=2, seed=3)
    fewer = results[::2]
    one, other = (matches_of(match(truth, found)) for found in (results, fewer))
    assert (0.0, 0.0) == difference_interval(one, one)
    interval = difference_interval(one, other)
    assert interval is not None
    gap = (evaluate(truth, fewer).ap or 0) - (evaluate(truth, results).ap or 0)
    assert interval[0] < gap < interval[1] < 0

"""Thresholds: the score of the best F1, compared with trying every score by plain matching."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_cli.evaluation.thresholds import Quality, Ranking, rank

BOX = [10.0, 10.0, 20.0, 20.0]
"""xywh."""
FAR = [200.0, 200.0, 20.0, 20.0]


def document(*objects: tuple[int, list[float], bool], classes: int = 1, images: int = 2) -> dict[str, Any]:
    """A COCO document of (image, xywh, crowd), all of class 1."""
    return {
        "images": [{"id": number, "width": 400, "height": 400} for number in range(1, images + 1)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": 400.0, "iscrowd": int(crowd)}
            for number, (image, box, crowd) in enumerate(objects, start=1)
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, classes + 1)],
    }


def found(score: float, box: list[float] = BOX, image: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": box, "score": score}


def test_the_threshold_lies_between_right_and_wrong() -> None:
    """Two right detections above a wrong one: everything is found, the threshold is midway to the wrong one."""
    ranking = rank(
        document((1, BOX, False), (2, BOX, False)), [found(0.9), found(0.6, image=2), found(0.2, FAR, image=2)]
    )["class 1"]
    assert (pytest.approx(0.4), Quality(1.0, 1.0, 1.0)) == ranking.best()
    assert Quality(0.8, 2 / 3, 1.0) == ranking.at(0.2)
    assert Quality(2 / 3, 1.0, 0.5) == ranking.at(0.61)


def test_of_equally_good_scores_the_highest_is_taken() -> None:
    """One object of two is found at the top; two wrong detections and the other object give the same F1."""
    ranking = Ranking(np.array([0.75, 0.5, 0.25, 0.125]), np.array([True, False, False, True]), 2)
    assert ranking.at(0.75).f1 == ranking.at(0.125).f1
    assert (0.625, Quality(2 / 3, 1.0, 0.5)) == ranking.best()


def test_the_lowest_score_has_nothing_but_zero_below() -> None:
    """A single right detection: the threshold is half its score."""
    assert 0.4 == Ranking(np.array([0.8]), np.array([True]), 1).best()[0]


def test_without_a_right_detection_there_is_no_threshold() -> None:
    """Nothing found, nothing right, or nothing to find: None and zeros, no division by zero."""
    nothing: tuple[None, Quality] = (None, Quality(0.0, 0.0, 0.0))
    assert nothing == rank(document((1, BOX, False)), [])["class 1"].best()
    assert nothing == rank(document((1, BOX, False)), [found(0.9, FAR)])["class 1"].best()
    assert nothing == rank(document(), [found(0.9)])["class 1"].best()
    assert Quality(0.0, 0.0, 0.0) == rank(document(), [])["class 1"].at(0.5)


def test_crowds_count_for_nothing() -> None:
    """A detection of a crowd is neither right nor wrong, and the crowd is no object to be found."""
    ranking = rank(document((1, BOX, False), (1, FAR, True)), [found(0.9), found(0.8, FAR)])["class 1"]
    assert ([0.9], 1) == (ranking.scores.tolist(), ranking.objects)
    assert Quality(1.0, 1.0, 1.0) == ranking.at(0.1)


def test_an_object_is_found_once() -> None:
    """The second detection of one object is wrong."""
    ranking = rank(document((1, BOX, False)), [found(0.9), found(0.8)])["class 1"]
    assert [True, False] == ranking.right.tolist()


def test_every_class_has_a_ranking() -> None:
    """A class with neither objects nor detections too."""
    rankings = rank(document((1, BOX, False), classes=2), [found(0.9)])
    assert ["class 1", "class 2"] == list(rankings) and 0 == len(rankings["class 2"].scores)


places = st.sampled_from([10.0, 14.0, 60.0, 66.0, 120.0])
boxes = st.builds(lambda x, y: [x, y, 20.0, 20.0], places, places)
scores = st.integers(1, 20).map(lambda twentieths: twentieths / 20)
objects_in_images = st.lists(st.tuples(st.integers(1, 2), boxes, st.just(False)), max_size=6)
detections = st.lists(st.builds(found, scores, boxes, st.integers(1, 2)), max_size=10)


def overlap(first: list[float], second: list[float]) -> float:
    width, height = (max(0.0, 20.0 - abs(a - b)) for a, b in zip(first[:2], second[:2], strict=True))
    return width * height / (800.0 - width * height)


def f1_by_hand(objects: list[Any], results: list[dict[str, Any]], threshold: float) -> float:
    """Best score first, each detection takes the free object that it overlaps most."""
    kept = sorted((r for r in results if r["score"] >= threshold), key=lambda r: -r["score"])
    free = list(range(len(objects)))
    for result in kept:
        fitting = [(overlap(result["bbox"], objects[i][1]), i) for i in free if objects[i][0] == result["image_id"]]
        if fitting and max(fitting)[0] >= 0.5:
            free.remove(max(fitting)[1])
    hits = len(objects) - len(free)
    return 2 * hits / (len(kept) + len(objects)) if kept or objects else 0.0


@given(objects_in_images, detections)
def test_no_threshold_is_better(objects: list[Any], results: list[dict[str, Any]]) -> None:
    """At the chosen threshold F1 is the largest of all, as matching by hand gives it."""
    ranking = rank(document(*objects), results)["class 1"]
    tried = [0.0, *(result["score"] for result in results)]
    by_hand = [f1_by_hand(objects, results, threshold) for threshold in tried]
    assert by_hand == pytest.approx([ranking.at(threshold).f1 for threshold in tried])
    threshold, quality = ranking.best()
    assert max(by_hand) == pytest.approx(quality.f1)
    if threshold is not None:
        assert quality == ranking.at(threshold)


@given(st.lists(st.tuples(scores, st.booleans()), min_size=1, max_size=12), st.integers(1, 9))
def test_the_threshold_is_the_middle_of_two_scores(ranked: list[tuple[float, bool]], more: int) -> None:
    """No score lies between the threshold and the two that it is the middle of."""
    ranked = sorted(ranked, key=lambda pair: -pair[0])
    scores, right = np.array([s for s, _ in ranked]), np.array([r for _, r in ranked])
    threshold, _ = Ranking(scores, right, int(right.sum()) + more).best()
    levels = [*sorted({*scores.tolist()}, reverse=True), 0.0]
    assert (threshold is None) == (not right.any())
    assert threshold is None or threshold in [(above + below) / 2 for above, below in pairwise(levels)]

"""Which detections are right, which objects were missed, and how both are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewshot_cli.colors import class_color, to_rgb
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError
from fewshot_cli.evaluation.coco_metrics import evaluate
from fewshot_cli.inference.drawing import FOUND
from fewshot_cli.report.judging import Judged, judge, judge_image
from fewshot_cli.report.mistakes import Mistake, _window, cut_out, false_positives, missed_objects

A, B = (10.0, 10.0, 30.0, 30.0), (50.0, 50.0, 90.0, 80.0)


def image_of(
    *boxes: tuple[float, float, float, float], crowd: bool = False, labels: tuple[int, ...] = (), path: str = "x.jpg"
) -> ImageRecord:
    count = len(boxes)
    return ImageRecord(
        id=1,
        path=Path(path),
        width=100,
        height=100,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels or [0] * count, dtype=np.int64),
        crowd=np.full(count, crowd),
    )


def split_of(image: ImageRecord) -> Split:
    return Split(annotations=Path("annotations.json"), classes=("cat", "dog"), images=(image,))


def found(x: float, y: float, width: float, height: float, score: float = 0.9, category: int = 1) -> dict:
    return {"image_id": 1, "category_id": category, "bbox": [x, y, width, height], "score": score}


def test_an_image_is_judged_by_f1() -> None:
    """An object counts once; a second detection of it is wrong; crowds do not count."""
    for image, results, f1 in [
        (image_of(), [], 1.0),
        (image_of(A), [], 0.0),
        (image_of(), [found(0, 0, 5, 5)], 0.0),
        (image_of(A), [found(10, 10, 20, 20)], 1.0),
        (image_of(A), [found(10, 10, 20, 20, category=2)], 0.0),
        (image_of(A), [found(10, 10, 20, 20), found(11, 10, 20, 20, 0.5)], 2 / 3),
        (image_of(A, B), [found(50, 50, 40, 30)], 2 / 3),
        (image_of(A), [found(20, 10, 20, 20)], 0.0),
        (image_of(A, crowd=True), [], 1.0),
    ]:
        assert f1 == pytest.approx(judge_image(image, results, (1, 2)).f1), (image, results)


def test_each_class_has_its_own_threshold() -> None:
    """A detection counts from its class's score on; a class without one has the usual 0.3."""
    results = [found(10, 10, 20, 20, 0.25), found(50, 50, 40, 30, 0.25, 2), found(0, 0, 5, 5, 0.35, 2)]
    for thresholds, counted in [
        (None, [0.35]),
        ({}, [0.35]),
        ({"cat": 0.25}, [0.35, 0.25]),
        ({"cat": 0.2, "dog": 0.2}, [0.35, 0.25, 0.25]),
        ({"cat": 0.2, "dog": 0.4}, [0.25]),
        ({"cat": 0.2, "owl": 0.0}, [0.35, 0.25]),
    ]:
        (judged,) = judge(split_of(image_of(A, B, labels=(0, 1))), results, thresholds)
        assert counted == [one["score"] for one in judged.results], thresholds


places = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(5, 40), st.integers(5, 40))


@given(
    st.lists(st.tuples(places, st.integers(0, 1)), max_size=5),
    st.lists(st.tuples(places, st.integers(1, 2)), max_size=8),
)
def test_every_detection_and_object_is_judged_once(
    objects: list[tuple[tuple[int, int, int, int], int]], detections: list[tuple[tuple[int, int, int, int], int]]
) -> None:
    """Right and missed objects together are all objects; right and false detections all detections."""
    corners = [(float(x), float(y), float(x + w), float(y + h)) for (x, y, w, h), _ in objects]
    image = image_of(*corners, labels=tuple(label for _, label in objects))
    results = [found(*place, 0.9 - i / 10, category) for i, (place, category) in enumerate(detections)]
    judged = judge_image(image, results, (1, 2))
    matched = [i for i in judged.objects if i is not None]
    assert len(matched) == len(set(matched)) == judged.right
    assert sorted([*matched, *judged.missed]) == list(range(len(objects)))
    wrong = false_positives(split_of(image), [judged])
    assert len(results) == judged.right + len(wrong)
    assert len(judged.missed) == len(missed_objects(split_of(image), [judged], results))


def test_the_count_agrees_with_pycocotools() -> None:
    """The recall at IoU 0.5 of pycocotools is the share of objects that were not missed."""
    chance = np.random.default_rng(0)
    boxes = [(x, y, x + w, y + h) for x, y, w, h in chance.uniform((0, 0, 10, 10), (60, 60, 40, 40), (30, 4))]
    image = image_of(*boxes)
    results = [
        found(x1 + dx, y1 + dy, x2 - x1, y2 - y1, round(float(chance.uniform(0.3, 1)), 4))
        for (x1, y1, x2, y2) in boxes[:20]
        for dx, dy in chance.uniform(-8, 8, (2, 2))
    ]
    judged = judge_image(image, results, (1,))
    split = Split(annotations=Path("a.json"), classes=("cat",), images=(image,))
    curve = evaluate(split.to_coco(), results).curves["cat"][0.5]
    recall = max(i for i, precision in enumerate(curve) if precision > 0) / 100
    assert pytest.approx(1 - len(judged.missed) / 30, abs=0.0101) == recall


def test_false_positives_say_what_is_wrong() -> None:
    """The most confident first: with the reason, from what the detection overlaps."""
    image = image_of(A, B, labels=(0, 1))
    results = [
        found(10, 10, 20, 20, 0.9),
        found(11, 10, 20, 20, 0.8),
        found(50, 50, 40, 30, 0.95),
        found(0, 70, 5, 5, 0.7, 2),
        found(20, 10, 20, 20, 0.6),
    ]
    wrong = false_positives(split_of(image), [judge_image(image, results, (1, 2))])
    assert [
        ("cat 0.95", "on an object of class dog"),
        ("cat 0.80", "an object found already"),
        ("dog 0.70", "no object there"),
        ("cat 0.60", "overlaps an object by IoU 0.33 only"),
    ] == [(one.title, one.reason) for one in wrong]
    assert (50.0, 50.0, 90.0, 80.0) == wrong[0].box
    assert [to_rgb(class_color(label)) for label in (0, 0, 1, 0)] == [one.color for one in wrong]


def test_a_detection_on_a_crowd_is_no_mistake() -> None:
    """As COCO defines; one that only touches the crowd is."""
    image = image_of((0.0, 0.0, 50.0, 50.0), crowd=True)
    results = [found(10, 10, 20, 20), found(45, 45, 40, 40, 0.8)]
    wrong = false_positives(split_of(image), [judge_image(image, results, (1, 2))])
    assert ["cat 0.80"] == [one.title for one in wrong]
    assert [] == missed_objects(split_of(image), [judge_image(image, [], (1, 2))], [])


def test_missed_objects_say_how_close_it_was() -> None:
    """The largest first, with the best score that a detection of it has below the threshold."""
    image = image_of(A, B, labels=(0, 1))
    results = [found(10, 10, 20, 20, 0.2), found(11, 10, 20, 20, 0.1), found(50, 50, 40, 30, 0.25, 1)]
    missed = missed_objects(split_of(image), judge(split_of(image), results), results)
    assert [
        ("dog, 40 × 30 pixels", "not detected at any score"),
        ("cat, 20 × 20 pixels", "its best score is 0.20"),
    ] == [(one.title, one.reason) for one in missed]
    assert [to_rgb(class_color(label)) for label in (1, 0)] == [one.color for one in missed]


def mistake(path: Path, box: tuple[float, float, float, float]) -> Mistake:
    image = replace(image_of(path=str(path)), width=1000, height=800)
    return Mistake(Judged(image, [], []), box, "0.90", FOUND, "cat 0.90", "no object there")


def test_a_mistake_is_cut_out_with_what_is_around_it(tmp_path: Path) -> None:
    """The box is in the middle, drawn in its colour, two and a half times as much is shown."""
    Image.new("RGB", (1000, 800), (0, 0, 90)).save(tmp_path / "x.png")
    shown = np.asarray(cut_out(mistake(tmp_path / "x.png", (400.0, 300.0, 600.0, 400.0))))
    assert (320, 320, 3) == shown.shape
    scale = 320 / 500
    rows, columns = np.nonzero((np.abs(shown.astype(int) - FOUND) < 5).all(axis=2))
    expected = [160 - 100 * scale, 160 + 100 * scale, 160 + 50 * scale]
    assert pytest.approx(expected, abs=4) == [columns.min(), columns.max(), rows.max()]


@given(
    st.tuples(st.floats(0, 390), st.floats(0, 290), st.floats(0.5, 400), st.floats(0.5, 300)),
)
def test_what_is_cut_out_lies_in_the_image_and_holds_the_box(place: tuple[float, float, float, float]) -> None:
    """Wherever the box is, also at an edge, and however small or large."""
    x, y, width, height = place
    box = (x, y, min(400.0, x + width), min(300.0, y + height))
    x1, y1, x2, y2 = _window(box, (400, 300))
    assert 0 <= x1 <= box[0] and box[2] <= x2 <= 400
    assert 0 <= y1 <= box[1] and box[3] <= y2 <= 300
    assert min(x2 - x1, y2 - y1) >= 64


def test_an_image_that_is_gone_is_a_data_error(tmp_path: Path) -> None:
    """The page cannot be written without it, and says which."""
    with pytest.raises(DataError, match="gone.png"):
        cut_out(mistake(tmp_path / "gone.png", A))

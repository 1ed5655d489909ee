"""COCO's numbers on cases small enough to compute by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from fewshot_cli.detectors.chain import Detections
from fewshot_cli.evaluation.coco_metrics import NAMES, evaluate, to_results

BOX = [100.0, 100.0, 50.0, 50.0]
"""xywh; 2,500 square pixels are of medium size (32² to 96²)."""


def truth(boxes: list[tuple[int, int, list[float]]], *, images: int = 1, classes: int = 1, crowd: bool = False) -> Any:
    """A COCO document of (image, category, xywh)."""
    return {
        "images": [{"id": i, "width": 640, "height": 640} for i in range(1, images + 1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(crowd),
            }
            for number, (image, category, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, classes + 1)],
    }


def result(box: list[float], score: float, *, image: int = 1, category: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def shifted(box: list[float], pixels: float) -> list[float]:
    return [box[0] + pixels, *box[1:]]


def test_perfect_detections_score_one() -> None:
    """Every box found once, nothing else: AP is 1 and so is recall."""
    boxes = [(1, 1, BOX), (1, 1, [300.0, 300.0, 60.0, 60.0]), (2, 1, BOX)]
    metrics = evaluate(truth(boxes, images=2), [result(box, 0.9, image=image) for image, _, box in boxes])
    assert all(metrics.numbers[name] == pytest.approx(1.0) for name in ("AP", "AP50", "AP75", "AP_medium", "AR_100"))
    assert 1.0 == pytest.approx(metrics.ap)
    assert {"class 1": pytest.approx(1.0)} == metrics.per_class


def test_a_false_positive_ranked_first_halves_the_precision() -> None:
    """One wrong detection above the only right one: precision is ½ at every recall, so AP is ½."""
    metrics = evaluate(truth([(1, 1, BOX)]), [result([400.0, 400.0, 50.0, 50.0], 0.9), result(BOX, 0.8)])
    assert 0.5 == pytest.approx(metrics.ap)


def test_a_false_positive_ranked_last_costs_nothing() -> None:
    """Once every object is found, more detections do not lower the curve."""
    metrics = evaluate(truth([(1, 1, BOX)]), [result(BOX, 0.9), result([400.0, 400.0, 50.0, 50.0], 0.8)])
    assert 1.0 == pytest.approx(metrics.ap)


def test_a_second_detection_of_the_same_object_is_wrong() -> None:
    """Only one detection may match an object: the better one is ranked second here, and AP is that of the first."""
    metrics = evaluate(truth([(1, 1, BOX), (1, 1, [300.0, 300.0, 50.0, 50.0])]), [result(BOX, s) for s in (0.9, 0.8)])
    # Precision 1 up to recall ½ on COCO's 101 recall points, then nothing.
    assert 51 / 101 == pytest.approx(metrics.ap)
    assert 0.5 == pytest.approx(metrics.numbers["AR_100"])


@pytest.mark.parametrize(("iou", "thresholds"), [(0.62, 3), (0.77, 6), (0.97, 10), (0.4, 0)])
def test_ap_is_the_mean_over_ten_ious(iou: float, thresholds: int) -> None:
    """A box that overlaps by IoU u counts at each of the thresholds .50, .55, …, .95 below u."""
    shift = 50 * (1 - iou) / (1 + iou)
    metrics = evaluate(truth([(1, 1, BOX)]), [result(shifted(BOX, shift), 0.9)])
    assert thresholds / 10 == pytest.approx(metrics.ap)
    assert float(iou > 0.5) == pytest.approx(metrics.numbers["AP50"])
    assert float(iou > 0.75) == pytest.approx(metrics.numbers["AP75"])


def test_sizes_are_measured_apart() -> None:
    """A small object missed and a large one found: 0 and 1, ½ together, and None where no object has the size."""
    small, large = [10.0, 10.0, 20.0, 20.0], [100.0, 100.0, 200.0, 200.0]
    numbers = evaluate(truth([(1, 1, small), (1, 1, large)]), [result(large, 0.9)]).numbers
    assert (0.0, None, pytest.approx(1.0)) == tuple(numbers[f"AP_{size}"] for size in ("small", "medium", "large"))
    assert 51 / 101 == pytest.approx(numbers["AP"])


def test_nothing_detected_scores_zero() -> None:
    """An empty list of results is a score of 0, not an error."""
    metrics = evaluate(truth([(1, 1, BOX)], classes=2), [])
    assert 0.0 == metrics.ap == metrics.numbers["AP"]
    assert {"class 1": 0.0, "class 2": None} == metrics.per_class


@pytest.mark.parametrize("results", [[], [result(BOX, 0.9)]])
def test_without_ground_truth_there_is_nothing_to_measure(results: list[dict[str, Any]]) -> None:
    """Without annotations every number is None, and `ap` is 0 so that runs can be compared."""
    metrics = evaluate(truth([]), results)
    assert dict.fromkeys(NAMES) == metrics.numbers
    assert {"class 1": None} == metrics.per_class
    assert 0.0 == metrics.ap


def test_a_crowd_is_neither_found_nor_missed() -> None:
    """A detection inside a crowd box is not wrong, and a crowd box is no object to find."""
    document = truth([(1, 1, BOX)])
    crowd = {**document["annotations"][0], "id": 2, "bbox": [300.0, 300.0, 200.0, 200.0], "area": 40000, "iscrowd": 1}
    document["annotations"].append(crowd)
    inside = [result([320.0 + 40 * i, 320.0, 30.0, 30.0], 0.9) for i in range(3)]
    assert 1.0 == pytest.approx(evaluate(document, [*inside, result(BOX, 0.8)]).ap)
    document["annotations"][1]["iscrowd"] = 0
    assert evaluate(document, [*inside, result(BOX, 0.8)]).ap < 0.3
    assert {"class 1": None} == evaluate(truth([(1, 1, BOX)], crowd=True), []).per_class


def test_classes_are_measured_apart() -> None:
    """Each class has its own AP under its own name; the whole is the mean over classes that occur."""
    document = truth([(1, 1, BOX), (1, 3, BOX)], classes=3)
    metrics = evaluate(document, [result(BOX, 0.9, category=1), result(BOX, 0.9, category=2)])
    assert {"class 1": pytest.approx(1.0), "class 2": None, "class 3": 0.0} == metrics.per_class
    assert 0.5 == pytest.approx(metrics.ap)


def test_category_ids_need_not_be_in_order() -> None:
    """Class names go with their ids also where the file lists them otherwise."""
    document = truth([(1, 7, BOX)], classes=0)
    document["categories"] = [{"id": 9, "name": "nine"}, {"id": 7, "name": "seven"}, {"id": 2, "name": "two"}]
    metrics = evaluate(document, [result(BOX, 0.9, category=7)])
    assert {"nine": None, "seven": pytest.approx(1.0), "two": None} == metrics.per_class


def test_measuring_changes_neither_document() -> None:
    """Results and ground truth are written to disk afterwards, so pycocotools must not add its own keys to them."""
    document, results = truth([(1, 1, BOX)]), [result(BOX, 0.9)]
    copies = copy.deepcopy((document, results))
    evaluate(document, results)
    assert copies == (document, results)


def test_measuring_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """What pycocotools prints would spoil --json."""
    evaluate(truth([(1, 1, BOX)]), [result(BOX, 0.9)])
    assert ("", "") == capsys.readouterr()


def test_the_json_form_holds_all_twelve_numbers() -> None:
    """Twelve numbers by name, AP first, and none of them is NaN."""
    document = evaluate(truth([(1, 1, BOX)]), [result(BOX, 0.9)]).to_json()
    assert list(NAMES) == list(document["numbers"])
    assert 12 == len(NAMES) and NAMES[0] == "AP"
    assert all(value is None or math.isfinite(value) for value in document["numbers"].values())
    assert ["class 1"] == list(document["per_class"])


def test_detections_become_results() -> None:
    """Corners become xywh, labels category ids, and each detection goes with its image's id."""
    found = [
        Detections(torch.tensor([[1.0, 2.0, 11.004, 22.0]]), torch.tensor([0.123456]), torch.tensor([1])),
        Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)),
        Detections(
            torch.tensor([[0.0, 0.0, 5.0, 5.0], [1.0, 1.0, 2.0, 3.0]]), torch.tensor([0.9, 0.5]), torch.tensor([0, 1])
        ),
    ]
    assert [
        {"image_id": 30, "category_id": 8, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.12346},
        {"image_id": 10, "category_id": 4, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.9},
        {"image_id": 10, "category_id": 8, "bbox": [1.0, 1.0, 1.0, 2.0], "score": 0.5},
    ] == to_results(found, [30, 20, 10], [4, 8])


def test_every_detection_needs_an_image() -> None:
    """Detections and image ids of different number are a bug, not silently cut."""
    with pytest.raises(ValueError, match="zip"):
        to_results([], [1], [1])

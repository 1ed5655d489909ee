"""`report.html` of a run: configuration, results and images of a run in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torchvision.ops import box_iou

from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.evaluation.coco_metrics import evaluate
from fewshot_cli.inference.drawing import MATCH_IOU, SCORE_THRESHOLD, as_data_url, draw_boxes
from fewshot_cli.report.page import write_page
from fewshot_cli.report.plots import drift_plot, learning_plot, precision_recall_plot
from fewshot_cli.runs.folder import Run

SHOWN_TESTS, SHOWN_SHOTS = 6, 20


class Judged(NamedTuple):
    """A test image, what was found in it, and how well: F1 at SCORE_THRESHOLD and MATCH_IOU."""

    image: ImageRecord
    results: list[dict[str, Any]]
    f1: float


def write_run_report(run: Run) -> Path:
    """Write `report.html` into the folder of a finished run.

    Raises:
        DataError: the data set that it was made from does not exist any more.
        StorageError: the disk cannot be written.
    """
    result, config = run.read_result(), run.read_config()
    data = open_dataset(config.data_folder)
    write_page(
        run.report_file,
        "run.html",
        result=result,
        validated=result.get("cross_validation"),
        options=config.to_json(),
        data=_about(data),
        shots=[drawn(data.train, image, []) for image in data.train.images[:SHOWN_SHOTS]],
        score=SCORE_THRESHOLD,
        iou=MATCH_IOU,
        **_tested(run, data.test, result),
    )
    return run.report_file


def _tested(run: Run, test: Split | None, result: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the test set: metrics, curves, and the images that went best and worst."""
    plots = [learning_plot(run.read_metrics()), drift_plot(result["drift"])]
    if test is None:
        return {"numbers": {}, "per_class": {}, "plots": plots, "best": [], "worst": []}
    results = run.read_predictions()
    metrics = evaluate(test.to_coco(), results)
    judged = sorted(judge(test, results), key=lambda found: found.f1)
    return {
        "numbers": metrics.numbers,
        "per_class": metrics.per_class,
        "plots": [plots[0], precision_recall_plot(metrics.curves), plots[1]],
        "best": [_shown(test, found) for found in judged[::-1][:SHOWN_TESTS]],
        "worst": [_shown(test, found) for found in judged[:SHOWN_TESTS]],
    }


def _about(data: Dataset) -> dict[str, Any]:
    """What the page says of the data set."""
    record = data.record
    return {
        "path": str(data.path),
        "source": record.get("source", "not fetched by fsod"),
        "seed": record.get("seed", "–"),
        "train": _size(data.train),
        "test": _size(data.test) if data.test else "none",
        "licences": ", ".join(record.get("licences", [])) or "not recorded",
    }


def _size(split: Split) -> str:
    return f"{len(split.images)} images, {sum(len(image.boxes) for image in split.images)} boxes"


def judge(test: Split, results: Sequence[dict[str, Any]]) -> list[Judged]:
    """Every test image with what was found in it, in their order; `results` are COCO's."""
    of_image: dict[int, list[dict[str, Any]]] = {image.id: [] for image in test.images}
    for found in results:
        if found["score"] >= SCORE_THRESHOLD:
            of_image[found["image_id"]].append(found)
    return [
        Judged(image, of_image[image.id], f1_of(image, of_image[image.id], test.category_ids)) for image in test.images
    ]


def f1_of(image: ImageRecord, results: Sequence[dict[str, Any]], category_ids: Sequence[int]) -> float:
    """Of one image: each detection, best score first, takes the free object of its class that it overlaps most.

    Crowd boxes do not count. An image with neither objects nor detections is perfect.
    """
    single = ~image.crowd
    boxes, labels = torch.from_numpy(image.boxes[single]), image.labels[single]
    free = [True] * len(boxes)
    right = 0
    for found in sorted(results, key=lambda found: -found["score"]):
        overlaps = box_iou(torch.tensor([_corners(found)]), boxes)[0].tolist() if len(boxes) else []
        fitting = [
            (overlap, i)
            for i, overlap in enumerate(overlaps)
            if free[i] and overlap >= MATCH_IOU and category_ids[labels[i]] == found["category_id"]
        ]
        if fitting:
            free[max(fitting)[1]] = False
            right += 1
    total = len(results) + len(boxes)
    return 2 * right / total if total else 1.0


def _corners(found: dict[str, Any]) -> tuple[float, float, float, float]:
    x, y, width, height = found["bbox"]
    return x, y, x + width, y + height


def _shown(split: Split, found: Judged) -> dict[str, Any]:
    return {"image": drawn(split, found.image, found.results), "f1": found.f1, "name": found.image.path.name}


def drawn(split: Split, image: ImageRecord, results: Sequence[dict[str, Any]]) -> str:
    """An image with its ground truth and detections (COCO results), as a data URL; class names if there are several."""
    names = dict(zip(split.category_ids, split.classes, strict=True)) if len(split.classes) > 1 else None
    return as_data_url(draw_boxes(image, results, names=names, side=320))

"""`report.html` of a run: what was done, with what, and what came out, in one file with images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torchvision.ops import box_iou

from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.evaluation.coco_metrics import evaluate
from fewshot_cli.inference.drawing import FOUND, Mark, as_data_url, marked
from fewshot_cli.report.page import write_page
from fewshot_cli.report.plots import drift_plot, learning_plot, precision_recall_plot
from fewshot_cli.runs.folder import Run

SCORE, IOU = 0.3, 0.5
"""A detection is drawn and counted above this score; it is right at this overlap."""
SHOWN_TESTS, SHOWN_SHOTS = 6, 20


class Judged(NamedTuple):
    """A test image, what was found in it, and how well: F1 at SCORE and IOU."""

    image: ImageRecord
    results: list[dict[str, Any]]
    f1: float


def write_run_report(run: Run) -> Path:
    """Write `report.html` into the folder of a finished run.

    Raises:
        DataError: the data set that it was made from is gone.
        StorageError: the disk refuses.
    """
    result, config = run.read_result(), run.read_config()
    data = open_dataset(config.data_folder)
    results = json.loads(run.predictions_file.read_text("utf-8"))
    lines = [json.loads(line) for line in run.metrics_file.read_text("utf-8").splitlines()]
    metrics = evaluate(data.require_test().to_coco(), results)
    judged = sorted(judge(data, results), key=lambda found: found.f1)
    write_page(
        run.report_file,
        "run.html",
        result=result,
        options=config.to_json(),
        numbers=metrics.numbers,
        per_class=metrics.per_class,
        data=_about(data),
        shots=[drawn(data, image, []) for image in data.train.images[:SHOWN_SHOTS]],
        plots=[learning_plot(lines), precision_recall_plot(metrics.curves), drift_plot(result["drift"])],
        best=[_shown(data, found) for found in judged[::-1][:SHOWN_TESTS]],
        worst=[_shown(data, found) for found in judged[:SHOWN_TESTS]],
        score=SCORE,
        iou=IOU,
    )
    return run.report_file


def _about(data: Dataset) -> dict[str, Any]:
    """What the page says of the data set."""
    record, test = data.record, data.require_test()
    return {
        "path": str(data.path),
        "source": record.get("source", "not fetched by fsod"),
        "seed": record.get("seed", "–"),
        "train": f"{len(data.train.images)} images, {sum(len(p.boxes) for p in data.train.images)} boxes",
        "test": f"{len(test.images)} images, {sum(len(p.boxes) for p in test.images)} boxes",
        "licences": ", ".join(record.get("licences", [])) or "not recorded",
    }


def judge(data: Dataset, results: Sequence[dict[str, Any]]) -> list[Judged]:
    """Every test image with what was found in it, in their order; `results` are COCO's."""
    of_image: dict[int, list[dict[str, Any]]] = {image.id: [] for image in data.require_test().images}
    for found in results:
        if found["score"] >= SCORE:
            of_image[found["image_id"]].append(found)
    category_ids = data.require_test().category_ids
    return [
        Judged(image, of_image[image.id], f1_of(image, of_image[image.id], category_ids))
        for image in data.require_test().images
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
            if free[i] and overlap >= IOU and category_ids[labels[i]] == found["category_id"]
        ]
        if fitting:
            free[max(fitting)[1]] = False
            right += 1
    total = len(results) + len(boxes)
    return 2 * right / total if total else 1.0


def _corners(found: dict[str, Any]) -> tuple[float, float, float, float]:
    x, y, width, height = found["bbox"]
    return x, y, x + width, y + height


def _shown(data: Dataset, found: Judged) -> dict[str, Any]:
    return {"image": drawn(data, found.image, found.results), "f1": found.f1, "name": found.image.path.name}


def drawn(data: Dataset, image: ImageRecord, results: Sequence[dict[str, Any]]) -> str:
    """An image with its ground truth and detections (COCO results), as a data URL."""
    marks = [Mark(tuple(box)) for box in image.boxes.tolist()]
    names = dict(zip(data.require_test().category_ids, data.classes, strict=True)) if len(data.classes) > 1 else {}
    for found in sorted(results, key=lambda found: found["score"]):
        text = f"{names.get(found['category_id'], '')} {found['score']:.2f}".strip()
        marks.append(Mark(_corners(found), FOUND, text))
    return as_data_url(marked(image.path, marks, 320))

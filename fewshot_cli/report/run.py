"""`report.html` of a run: configuration, results and images of a run in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot_cli.colors import class_color
from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.evaluation.coco_metrics import evaluate
from fewshot_cli.evaluation.thresholds import MATCH_IOU
from fewshot_cli.inference.drawing import as_data_url, draw_boxes
from fewshot_cli.inference.filtering import least_scores
from fewshot_cli.report.choices import averaged_text, outcomes
from fewshot_cli.report.confusion import confusion
from fewshot_cli.report.judging import Judged, class_names, judge
from fewshot_cli.report.mistakes import Mistake, cut_out, false_positives, missed_objects
from fewshot_cli.report.page import write_page
from fewshot_cli.report.plots import (
    Plot,
    average_plot,
    balance_plot,
    confusion_plot,
    drift_plot,
    learning_plot,
    precision_recall_plot,
    search_plot,
)
from fewshot_cli.runs.folder import Run
from fewshot_cli.selection.criteria import CRITERIA
from fewshot_cli.selection.validate_run import left_out_shots

SHOWN_TESTS, SHOWN_SHOTS, SHOWN_MISTAKES = 6, 12, 12
LISTED_LAYERS = 6
"""Of a candidate of policy `auto`; of more, the first and the last."""
LARGE, LEAST = 800, 480
"""Longer side of the images that the page enlarges, pixels, at most and at least: the page has a few MB."""


def write_run_report(run: Run, path: Path | None = None) -> Path:
    """Write the page of a finished run.

    Args:
        run: whose page it is.
        path: the file; default: `report.html` in the run's folder.

    Raises:
        DataError: the data set that it was made from does not exist any more.
        StorageError: the disk cannot be written.
    """
    page = path or run.report_file
    result, config = run.result, run.read_config()
    data = open_dataset(config.data_folder)
    write_page(
        page,
        "run.html",
        result=result,
        validated=result.get("cross_validation"),
        search=_searched(result.get("search")),
        averaged=averaged_text(result),
        shares=_shares(result),
        options=config.to_json(),
        data=_about(data),
        colors=class_colors(data.train.classes),
        shots=[drawn(data.train, image, []) for image in data.train.images[:SHOWN_SHOTS]],
        score=_thresholds(data.train.classes, run.thresholds),
        iou=MATCH_IOU,
        **_tested(run, data.test, result),
        mistakes=_mistakes(run, data),
    )
    return page


def _tested(run: Run, test: Split | None, result: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the test set: metrics, curves, best and worst images."""
    lines = run.read_metrics()
    plots = [learning_plot(lines), balance_plot(lines), drift_plot(result["drift"])]
    if test is None:
        return {"numbers": {}, "per_class": {}, "plots": [*filter(None, plots)], "best": [], "worst": []}
    results = run.read_predictions(test)
    metrics = evaluate(test.to_coco(), results)
    judged = judge(test, results, run.thresholds)
    best, worst = best_and_worst(judged, SHOWN_TESTS)
    plots[1:1] = [precision_recall_plot(metrics.curves, test.classes)]
    if len(test.classes) > 1:
        plots[2:2] = [confusion_plot(confusion(test, judged), test.classes)]
    return {
        "numbers": metrics.numbers,
        "per_class": metrics.per_class,
        "plots": [*filter(None, plots)],
        "best": [_shown(test, found) for found in best],
        "worst": [_shown(test, found) for found in worst],
    }


def best_and_worst(judged: Sequence[Judged], most: int) -> tuple[list[Judged], list[Judged]]:
    """The images with the highest and with the lowest F1, each list from its end on; no image is in both."""
    ordered = sorted(judged, key=lambda found: -found.f1)
    middle = (len(ordered) + 1) // 2
    return ordered[:middle][:most], ordered[middle:][::-1][:most]


def class_colors(classes: Sequence[str]) -> dict[str, str]:
    """Class → colour, in label order; empty for a single class, whose boxes are green and orange."""
    return {name: class_color(label) for label, name in enumerate(classes)} if len(classes) > 1 else {}


def _searched(search: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page says of policy `auto`: what result.json does, what became of each candidate, and the plot."""
    if not search:
        return None
    outcome = outcomes(search)
    return {
        **search,
        "default": search.get("default"),
        "ranked": any(one["criterion"] is not None for one in search["candidates"]),
        "criterion_summary": _summary(search["criterion"]),
        "candidates": [
            {**one, "layers": _listed(one["layers"]), "outcome": outcome[one["name"]]} for one in search["candidates"]
        ],
        "plot": search_plot(search),
    }


def _summary(criterion: str) -> str:
    """What a criterion is; its name alone for one that this version does not have."""
    return CRITERIA[criterion].summary if criterion in CRITERIA else criterion


def _listed(layers: Sequence[str]) -> str:
    if len(layers) > LISTED_LAYERS:
        return f"{layers[0]}, …, {layers[-1]} ({len(layers)} layers)"
    return ", ".join(layers) or "none"


def _shares(result: Mapping[str, Any]) -> Plot | None:
    """The plot of the shares of trained weights that a cross-validation compared, if there are several."""
    averages = (result.get("cross_validation") or {}).get("averages", {})
    return average_plot(averages, result["average"]["alpha"]) if len(averages) > 1 else None


def _mistakes(run: Run, data: Dataset) -> list[dict[str, Any]]:
    """The worst mistakes on the test set; without one, on shots, by detectors that were not trained on them."""
    if data.test is not None:
        split, results, where = data.test, run.read_predictions(data.test), ""
    else:
        split, results = left_out_shots(run, data.shots)
        where = " in left-out shots"
    judged = judge(split, results, run.thresholds)
    return [
        {
            "title": f"False positives{where}",
            **_strip(false_positives(split, judged), class_names(split), "with the highest scores"),
        },
        {
            "title": f"Missed objects{where}",
            **_strip(missed_objects(split, judged, results), class_names(split), "that are largest"),
        },
    ]


def _strip(mistakes: Sequence[Mistake], classes: Mapping[int, str], chosen: str) -> dict[str, Any]:
    """The first SHOWN_MISTAKES as images, and how many there are; `chosen` says which are shown if not all are."""
    shown = [
        {
            "image": as_data_url(cut_out(each, classes)),
            "title": each.title,
            "reason": each.reason,
            "name": _name(each.judged),
        }
        for each in mistakes[:SHOWN_MISTAKES]
    ]
    return {"count": len(mistakes), "shown": shown, "chosen": chosen if len(shown) < len(mistakes) else ""}


def _thresholds(classes: Sequence[str], thresholds: Mapping[str, float]) -> str:
    """The score from which on detections count, in words; by class where they differ."""
    scores = least_scores(classes, thresholds)
    if len(set(scores.values())) == 1:
        return f"{next(iter(scores.values())):.2f}"
    return ", ".join(f"{score:.2f} ({name})" for name, score in scores.items())


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


def _shown(split: Split, found: Judged) -> dict[str, Any]:
    return {"image": drawn(split, found.image, found.results), "f1": found.f1, "name": _name(found)}


def _name(found: Judged) -> str:
    return found.image.path.name


def drawn(split: Split, image: ImageRecord, results: Sequence[dict[str, Any]], most: int = LARGE) -> str:
    """An image with its ground truth and the detections given (COCO results), as a data URL.

    Its longer side has `most` pixels, or as many as the image if these are fewer, but LEAST at least.
    """
    side = min(most, max(LEAST, image.width, image.height))
    return as_data_url(draw_boxes(image, results, classes=class_names(split), threshold=0.0, side=side))

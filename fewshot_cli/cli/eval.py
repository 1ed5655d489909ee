"""`fsod eval`: the twelve COCO metrics of a run, or of a pretrained detector as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import (
    Best,
    Config,
    Detector,
    Device,
    ImageSize,
    Json,
    Precision,
    Quiet,
    Refine,
    RefineTemplate,
    RefineWeight,
    RunOrFile,
    Threads,
    Weights,
)
from fewshot_cli.panels import DATA

if TYPE_CHECKING:
    from fewshot_cli.verbs.evaluate import Evaluation


def evaluate(
    run: RunOrFile = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data set (its test split) or one split; default: that of the run.", rich_help_panel=DATA),
    ] = None,
    detector: Detector = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    best: Best = False,
    refine: Refine = None,
    refine_template: RefineTemplate = None,
    refine_weight: RefineWeight = None,
    predictions: Annotated[Path | None, typer.Option(help="Write the detections here, in COCO results format.")] = None,
    fiftyone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Store ground truth, predictions and evaluation as this FiftyOne data set."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    precision: Precision = "auto",
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a run or a pretrained detector on a test set with pycocotools."""
    console = Console(json=json, quiet=quiet)
    if fiftyone is not None:
        from fewshot_cli.report.fiftyone_sets import check_free

        check_free(fiftyone)
    from fewshot_cli.files import write_json
    from fewshot_cli.verbs.evaluate import evaluate as run_evaluate

    evaluation = run_evaluate(
        run,
        data,
        detector=detector,
        weights=weights,
        image_size=image_size,
        best=best,
        refine=refine,
        refine_template=refine_template,
        refine_weight=refine_weight,
        device=device,
        precision=precision,
        threads=threads,
        reporter=console,
    )
    if predictions is not None:
        write_json(predictions, evaluation.results)
    if fiftyone is not None:
        from fewshot_cli.report.fiftyone_sets import store_evaluation

        store_evaluation(fiftyone, evaluation)
        console.say(f"Stored as FiftyOne data set {fiftyone}. Look at it: fiftyone app launch {fiftyone}")
    _show(console, evaluation, {"fiftyone": fiftyone} if fiftyone else {})


def _show(console: Console, evaluation: Evaluation, more: dict[str, str]) -> None:
    measured, split, metrics, document = evaluation.measured, evaluation.split, evaluation.metrics, evaluation.to_json()
    from fewshot_cli.evaluation.interval import interval_text
    from fewshot_cli.report.tables import metrics_table, per_class_table

    console.result(
        {**document, **more},
        f"{measured} on {split.annotations} ({len(split.images)} images)",
        f"mAP {metrics.ap:.3f}{interval_text(document['ap_interval'])}",
        *document["caveats"],
        lambda: metrics_table(metrics.numbers),
        lambda: per_class_table(metrics.per_class),
    )

"""`fsod predict`: boxes on new images and videos, drawn and in the format asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_cli import bounds
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
    Threads,
    Weights,
)
from fewshot_cli.datasets.formats.writing import WRITERS
from fewshot_cli.errors import DatasetError, UsageError
from fewshot_cli.panels import DETECTIONS, MACHINE, OUTPUT

if TYPE_CHECKING:
    from fewshot_cli.verbs.predict import PredictResult


def predict(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] INPUT…",
            help="RUN: a run's folder, a checkpoint, a weights or an ONNX file; default: the run finished last. "
            "INPUT: images, folders, patterns, lists (.txt, one path a line), videos.",
        ),
    ],
    detector: Detector = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    best: Best = False,
    threshold: Annotated[
        str,
        typer.Option(
            metavar="auto|0…1",
            help="Least score of a detection; auto: that of the run for each class, else 0.3.",
            rich_help_panel=DETECTIONS,
        ),
    ] = "auto",
    max_detections: Annotated[
        int,
        typer.Option(
            help="Largest number of detections kept for an image.",
            **bounds.DETECTIONS.limits,
            rich_help_panel=DETECTIONS,
        ),
    ] = 100,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,NAME…]",
            help="Only these classes; may be repeated. Default: all.",
            rich_help_panel=DETECTIONS,
        ),
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE[:OVERLAP]",
            help="Detect in overlapping tiles of SIZE pixels too; OVERLAP: pixels, or a share of SIZE, default 0.2.",
            rich_help_panel=DETECTIONS,
        ),
    ] = None,
    refine: Refine = None,
    refine_template: RefineTemplate = None,
    refine_weight: RefineWeight = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|-",
            help="Folder of the results, empty or new; default: predictions. -: JSON lines on stdout, no drawing.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help=f"Format of the detections: {', '.join(WRITERS)}.",
            rich_help_panel=OUTPUT,
        ),
    ] = "jsonl",
    draw: Annotated[
        bool,
        typer.Option("--draw/--no-draw", help="Write images and videos with the boxes drawn.", rich_help_panel=OUTPUT),
    ] = True,
    page: Annotated[
        bool,
        typer.Option(
            "--page/--no-page", help="Write index.html: the drawn images, sorted by score.", rich_help_panel=OUTPUT
        ),
    ] = False,
    batch_size: Annotated[
        int,
        typer.Option(
            help="Images or tiles that are detected in together.", **bounds.BATCH_SIZE.limits, rich_help_panel=MACHINE
        ),
    ] = 8,
    device: Device = "auto",
    threads: Threads = None,
    precision: Precision = "auto",
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Detect objects in images and videos with a run, an exported file or a pretrained detector."""
    console = Console(json=json, quiet=quiet)
    _check_output(out == "-", json, page, draw)
    from fewshot_cli.verbs.predict import predict as run_predict
    from fewshot_cli.verbs.predict import split_run

    run, inputs = split_run(words)
    if not inputs:
        raise UsageError(f"nothing to detect in: {words[0]} is what detects", hint="E.g. fsod predict RUN photos/")
    console.on_interrupt("What was written so far is whole.")
    result = run_predict(
        inputs,
        run,
        detector=detector,
        weights=weights,
        image_size=image_size,
        best=best,
        out=out,
        format=format,
        draw=draw,
        threshold=threshold,
        classes=[name for names in classes or () for name in names.split(",") if name],
        max_detections=max_detections,
        tiles=tiles,
        refine=refine,
        refine_template=refine_template,
        refine_weight=refine_weight,
        batch_size=batch_size,
        device=device,
        precision=precision,
        threads=threads,
        reporter=console,
    )
    _show(console, result, {"page": _write_page(result)} if page else {})
    if result.unreadable:
        raise DatasetError(
            "files that could not be read",
            result.unreadable,
            hint=f"Detections in {_counts(result)} were written. Replace these files, or leave them out.",
        )


def _check_output(to_stdout: bool, json: bool, page: bool, draw: bool) -> None:
    if to_stdout and json:
        raise UsageError("--out - and --json both write to stdout", hint="Give --out DIR, or drop --json.")
    if page and (to_stdout or not draw):
        raise UsageError("--page shows drawn images", hint="Drop --no-draw and --out -.")


def _show(console: Console, result: PredictResult, more: dict[str, Any]) -> None:
    """What was found; the speed alone if the detections went to standard output."""
    if result.folder is None:
        console.say(_speed(result))
    else:
        console.result({**result.to_json(), **more}, lambda: _table(result), _speed(result), _next(result, more))


def _write_page(result: PredictResult) -> Path:
    from fewshot_cli.report.predict import write_predict_page

    return write_predict_page(result)


def _table(result: PredictResult) -> object:
    from fewshot_cli.report.tables import predict_table

    return predict_table(result.to_json())


def _counts(result: PredictResult) -> str:
    images = len(result.images)
    counts = [f"{images:,} image{'' if images == 1 else 's'}"] if images or not result.frames else []
    if result.frames:
        counts.append(f"{result.frames:,} video frames")
    return " and ".join(counts)


def _speed(result: PredictResult) -> str:
    return f"{_counts(result)} in {result.seconds:.1f} s: {result.images_per_second:.1f} images/s"


def _next(result: PredictResult, more: dict[str, Any]) -> str:
    if more:
        return f"Next: open {more['page']}"
    corrections = {
        "labelme": f"labelme {result.folder}/labelme to correct the boxes",
        "labelstudio": f"import {result.folder}/tasks.json into Label Studio, whose labels are in label_config.xml",
        **dict.fromkeys(("coco", "csv", "voc", "yolo"), f"put the images into {result.folder}/images and correct them"),
    }
    if result.format in corrections:
        return f"Next: {corrections[result.format]}; then fsod fetch with both sets as --source"
    return f"Next: look at {result.folder}; --page makes one page of it"

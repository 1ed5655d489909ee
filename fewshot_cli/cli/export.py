"""`fsod export`: a run as one file that runs elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_cli.bounds import OPSET
from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Best, Config, Detector, ImageSize, Json, Quiet, RunOrFile, Threads, Weights
from fewshot_cli.panels import ADVANCED

if TYPE_CHECKING:
    from fewshot_cli.verbs.export import Export


def export(
    run: RunOrFile = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; default: model.onnx or model.safetensors in the run's folder.")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="onnx|weights",
            help="onnx: runs without PyTorch. weights: base and trained weights in one file, for --weights.",
        ),
    ] = "onnx",
    nms: Annotated[
        bool,
        typer.Option("--nms/--no-nms", help="With onnx: non-maximum suppression in the file, else all boxes."),
    ] = True,
    opset: Annotated[
        int, typer.Option(help="With onnx: version of its operators.", **OPSET.limits, rich_help_panel=ADVANCED)
    ] = 17,
    detector: Detector = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    best: Best = False,
    threads: Threads = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a detector as one ONNX or weights file, after comparing it with PyTorch on the shots."""
    console = Console(json=json, quiet=quiet)
    from fewshot_cli.verbs.export import export as run_export

    written = run_export(
        run,
        out,
        format=format,
        nms=nms,
        opset=opset,
        detector=detector,
        weights=weights,
        image_size=image_size,
        best=best,
        threads=threads,
        reporter=console,
    )
    console.result(written.to_json(), *_lines(written, nms))


def _lines(written: Export, nms: bool) -> list[str]:
    classes = ", ".join(written.classes[:5]) + (", …" if len(written.classes) > 5 else "")
    count = f"{len(written.classes)} class{'' if len(written.classes) == 1 else 'es'}"
    lines = [
        f"{written.path}: {written.detector}, {count} ({classes}), {written.image_size} px, "
        f"{written.size / 1e6:.1f} MB",
    ]
    if written.format == "weights":
        more = f"fsod finetune --weights {written.path} --data DATA"
        return [
            *lines,
            "A detector that is built from it computes the same bits.",
            f"Next: fsod predict {written.path} photo.jpg, or {more}",
        ]
    return [
        *lines,
        f"opset {written.opset}; input {_shapes(written.inputs)} uint8 RGB; output {_shapes(written.outputs)}",
        _comparison(written.compared),
        *([f"Next: fsod predict {written.path} photo.jpg"] if nms else []),
    ]


def _comparison(same: Mapping[str, Any]) -> str:
    return (
        f"Compared with PyTorch on {same['images']} {same['on']}: {same['boxes']:,} candidates, "
        f"{same['detections']} detections; largest difference {same['box']:.2g} pixels, {same['score']:.2g} in score."
    )


def _shapes(values: dict[str, list[str | int]]) -> str:
    return ", ".join(f"{name} ({', '.join(map(str, axes))})" for name, axes in values.items())

"""Detections in images, folders and videos, and the files that hold them."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli import __version__
from fewshot_cli.bounds import BATCH_SIZE
from fewshot_cli.datasets.formats.jsonl import LineStream
from fewshot_cli.datasets.formats.writing import Labelled, LabelWriter, check_writer, open_writer
from fewshot_cli.environment import Environment, describe_environment
from fewshot_cli.errors import DataError, Problem, StorageError, UsageError
from fewshot_cli.files import claim_folder, make_folder, storage_errors, write_json
from fewshot_cli.inference.drawing import draw_prediction
from fewshot_cli.inference.drawn_files import Drawings
from fewshot_cli.inference.filtering import MOST
from fewshot_cli.inference.inputs import RECORD, Input, find_inputs
from fewshot_cli.inference.opening import as_named, is_model, or_latest
from fewshot_cli.inference.prediction import Model, Prediction
from fewshot_cli.inference.predictor import BATCH, Predictor, open_predictor
from fewshot_cli.inference.refinement import RefinedBy, Refinement
from fewshot_cli.inference.stream import Item, detect_all
from fewshot_cli.inference.video import frame_count
from fewshot_cli.paths import check_target
from fewshot_cli.progress import Reporter, SilentReporter, Task
from fewshot_cli.runs.folder import Run
from fewshot_cli.schemas import schema_of
from fewshot_cli.threads import choose_threads, usable_cores

DEFAULT_OUT = "predictions"
STDOUT = "-"
STREAMED = "jsonl"
"""The format that can be written to standard output."""


class Unreadable(TypedDict):
    """A file that could not be read."""

    file: Annotated[str, Doc("Its path.")]
    reason: Annotated[str, Doc("Why.")]


class Predicted(TypedDict):
    """predict.json in a folder of detections, and what `fsod predict --json` prints."""

    schema: Annotated[Literal["fsod/predict/1"], Doc("Kind and version.")]
    command: Annotated[str, Doc("`predict`.")]
    fsod: Annotated[str, Doc("Version.")]
    model: Annotated[str, Doc("The run or file, or the detector's name.")]
    folder: Annotated[str | None, Doc("Where the files are; null: standard output.")]
    format: Annotated[str, Doc("Of the detections.")]
    images: Annotated[int, Doc("That could be read.")]
    videos: Annotated[int, Doc("That could be read.")]
    frames: Annotated[int, Doc("Of the videos.")]
    detections: Annotated[dict[str, int], Doc("Class → how many.")]
    thresholds: Annotated[dict[str, float], Doc("Class → score from which a detection counts.")]
    unreadable: Annotated[list[Unreadable], Doc("Files that were left out.")]
    seconds: Annotated[float, Doc("From the first image to the last.")]
    images_per_second: Annotated[float, Doc("Images and frames.")]
    environment: Annotated[Environment, Doc("With what it was computed.")]
    refine: NotRequired[Annotated[RefinedBy, Doc("With --refine.")]]
    page: NotRequired[Annotated[str, Doc("With --page.")]]


@dataclass(frozen=True, slots=True)
class PredictedImage:
    """One image and what was found in it.

    path: the image; drawn: its drawing, None without; names, scores: of its detections, best first.
    """

    path: Path
    drawn: Path | None
    names: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(slots=True)
class PredictResult:
    """What was found, and where it is.

    Attributes:
        model: the run, the file or the detector's name.
        folder: where the files are; None: they went to standard output.
        format: of the detections.
        thresholds: class → score from which a detection counts; only the classes that were wanted.
        images: each that could be read, in order.
        frames: of videos.
        videos: path → its drawing; None without.
        detections: class → how many.
        unreadable: files that could not be read, and why; of a video that broke off, what lies before is kept.
        seconds: from the first image to the last.
        environment: with what they were computed.
        refinement: of the scores; None: they are the detector's.
    """

    model: str
    folder: Path | None
    format: str
    thresholds: dict[str, float]
    images: list[PredictedImage] = field(default_factory=list)
    frames: int = 0
    videos: dict[Path, Path | None] = field(default_factory=dict)
    detections: Counter[str] = field(default_factory=Counter)
    unreadable: list[Problem] = field(default_factory=list)
    seconds: float = 0.0
    environment: Environment | None = None
    refinement: Refinement | None = None

    @property
    def images_per_second(self) -> float:
        """Images and frames."""
        return (len(self.images) + self.frames) / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints, and `predict.json` holds."""
        return {
            "schema": schema_of(Predicted),
            "command": "predict",
            "fsod": __version__,
            "model": self.model,
            "folder": None if self.folder is None else str(self.folder),
            "format": self.format,
            "images": len(self.images),
            "videos": len(self.videos),
            "frames": self.frames,
            "detections": dict(self.detections),
            "thresholds": self.thresholds,
            "unreadable": [{"file": problem.file, "reason": problem.reason} for problem in self.unreadable],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
            "environment": self.environment,
            **({"refine": self.refinement.to_json()} if self.refinement else {}),
        }


def split_run(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """`[RUN] INPUT…`: the first word is what detects if it is a run, a checkpoint, weights or an ONNX file."""
    if words and is_model(Path(words[0])):
        return Path(words[0]), list(words[1:])
    return None, list(words)


def predict(
    inputs: Sequence[str | PathLike[str]] | str | PathLike[str],
    run: Run | str | PathLike[str] | None = None,
    *,
    detector: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    best: bool = False,
    out: str | PathLike[str] | None = None,
    format: str = "jsonl",
    draw: bool = True,
    threshold: float | str = "auto",
    classes: Sequence[str] = (),
    max_detections: int = MOST,
    tiles: str | None = None,
    refine: str | None = None,
    refine_template: str | None = None,
    refine_weight: float | str | None = None,
    batch_size: int = BATCH,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    reporter: Reporter | None = None,
) -> PredictResult:
    """Detect objects in images and videos, and write the detections and drawings.

    Files that cannot be read are left out and listed in the result.

    Args:
        inputs: images, folders, patterns, lists of paths (.txt) and videos; see `inference.inputs.find_inputs`.
        run: a run or its folder, a checkpoint, a weights file or an ONNX file; default: the run finished last.
        detector: a pretrained detector instead, with its base classes.
        weights: of `detector`; or where the base weights of the run are now, if they moved.
        image_size: with `detector`: side of the square canvas, pixels.
        best: the checkpoint with the best test mAP instead of the last one.
        out: a folder that is empty or not there yet; default: `predictions`, with a number if that is taken. `-`: JSON
            lines to standard output, and no drawing.
        format: how the detections are written, a name in `datasets.formats.writing.WRITERS`.
        draw: write images and videos with the boxes drawn.
        threshold: least score, 0 … 1; `auto`: that stored in the run for each class, 0.3 where there is none.
        classes: only these; none: all.
        max_detections: of an image.
        tiles: `SIZE[:OVERLAP]` in pixels: larger images are detected in overlapping tiles and as a whole.
        refine, refine_template, refine_weight: refine scores with an encoder of crops and class names, as for
            `inference.refinement.make_refinement`.
        batch_size: images or tiles that go through the detector together.
        device, precision: as in FinetuneConfig; `auto` precision is that of the run.
        threads: CPU threads; None: one for each free core.
        reporter: receives the progress.

    Raises:
        UsageError: options that do not go together, an unknown class or format.
        DataError: no run, an input that names nothing, or a folder that is taken.
        StorageError: the disk is full or cannot be written; what was written before stays.
        ConfigError, ModelError, CheckpointError, NetworkError: the detector or its weights cannot be had.
    """
    reporter = reporter or SilentReporter()
    to_stdout = out is not None and str(out) == STDOUT
    _check(format, to_stdout, batch_size)
    found = find_inputs([inputs] if isinstance(inputs, str | PathLike) else inputs)
    workers = choose_threads(threads, reporter, usable_cores())
    named = as_named(run)
    what = named if detector is not None else or_latest(named, reporter)
    predictor = open_predictor(
        what,
        detector=detector,
        weights=weights,
        image_size=image_size,
        best=best,
        threshold=threshold,
        classes=classes,
        max_detections=max_detections,
        tiles=tiles,
        refine=refine,
        refine_template=refine_template,
        refine_weight=refine_weight,
        device=device,
        precision=precision,
        threads=workers,
        reporter=reporter,
    )
    model, keep = predictor.model, predictor.keep
    folder = None if to_stdout else _claim(out)
    result = PredictResult(
        detector or os.fspath(what or ""),
        folder,
        format,
        keep.by_class(model.classes),
        environment=describe_environment(device=model.device, precision=model.precision, threads=workers),
        refinement=predictor.refiner.refinement if predictor.refiner else None,
    )
    with ExitStack() as stack:
        writer = _open_writer(folder, result, model)
        stack.callback(writer.close)
        drawings = stack.enter_context(closing(Drawings(folder))) if draw and folder is not None else None
        finish = partial(_finish, predictor=predictor, drawings=drawings)
        items = detect_all(found, model, finish, tiles=predictor.tiles, batch_size=batch_size, threads=workers)
        task = stack.enter_context(reporter.progress("Detecting", sum(map(_steps, found))))
        _collect(stack.enter_context(closing(items)), writer, drawings, result, task)
    if folder is not None:
        write_json(folder / RECORD, result.to_json())
    return result


def _check(format: str, to_stdout: bool, batch_size: int) -> None:
    check_writer(format)
    if to_stdout and format != STREAMED:
        raise UsageError(f"--out - writes {STREAMED}, not {format}", hint="Give --out DIR.")
    if to_stdout and sys.stdout is None:  # started with it closed
        raise UsageError("--out - writes to standard output, which is closed", hint="Give --out DIR.")
    BATCH_SIZE.check("batch_size", batch_size, UsageError)


def _claim(out: str | PathLike[str] | None) -> Path:
    """The folder for this call: the one named, if it is empty or not there, or `predictions` with a free number."""
    if out is None:
        return claim_folder(Path(), DEFAULT_OUT)
    check_target(out)
    folder = make_folder(Path(out))
    with storage_errors(folder):
        if any(folder.iterdir()):
            raise DataError(f"{folder} is not empty", hint="Choose another --out, or remove the folder.")
    return folder


def _open_writer(folder: Path | None, result: PredictResult, model: Model) -> LabelWriter:
    if folder is None:
        return LineStream(sys.stdout)
    # Known from now on as a folder of detections, even if this call is killed.
    write_json(folder / RECORD, result.to_json())
    return open_writer(result.format, folder, model.classes)


def _steps(each: Input) -> int:
    """How many images or frames an input is."""
    return max(1, frame_count(each.path)) if each.is_video else 1


def _finish(item: Item, predictor: Predictor, drawings: Drawings | None) -> Item:
    """What is kept of an item, and its drawing; pixels only of a frame that is to be appended."""
    if item.prediction is None or item.pixels is None:
        return item
    prediction = predictor.kept(item.prediction, item.pixels)
    if drawings is not None and item.frame is None:
        drawings.save(item.input, item.pixels, prediction)
    if drawings is None or item.frame is None:
        return replace(item, prediction=prediction.at(item.size or prediction.size), pixels=None)
    return replace(item, prediction=prediction, pixels=np.asarray(draw_prediction(item.pixels, prediction)))


def _collect(
    items: Iterable[Item], writer: LabelWriter, drawings: Drawings | None, result: PredictResult, task: Task
) -> None:
    """Write and count the items as they come."""
    started = time.perf_counter()
    for item in items:
        if item.problem is not None:
            result.unreadable.append(Problem(str(item.input.path), "", item.problem))
        elif item.prediction is not None:
            _count(item, item.prediction, drawings, result)
            _write(item, item.prediction, writer, result)
        result.seconds = time.perf_counter() - started
        task.update(f"{result.images_per_second:.1f} images/s")
        task.advance()


def _write(item: Item, prediction: Prediction, writer: LabelWriter, result: PredictResult) -> None:
    """Write the labels of an item; one that the format cannot name is reported with the unreadable files."""
    try:
        writer.add(_labelled(item, prediction))
    except StorageError:
        raise
    except DataError as error:
        result.unreadable.append(Problem(str(item.input.path), "", error.message))


def _count(item: Item, prediction: Prediction, drawings: Drawings | None, result: PredictResult) -> None:
    result.detections.update(prediction.names)
    drawn = None if drawings is None else drawings.path_of(item.input, prediction.size)
    if item.frame is None:
        scores = tuple(prediction.scores.tolist())
        result.images.append(PredictedImage(item.input.path, drawn, prediction.names, scores))
        return
    result.frames += 1
    result.videos[item.input.path] = drawn
    if drawings is not None and item.pixels is not None:
        drawings.append(item.input, item.pixels)


def _labelled(item: Item, prediction: Prediction) -> Labelled:
    name = item.input.name if item.frame is None else f"{item.input.name}/{item.frame:06}"
    width, height = prediction.size
    return Labelled(
        path=item.input.path,
        name=name,
        width=width,
        height=height,
        boxes=prediction.boxes,
        names=prediction.names,
        scores=prediction.scores,
        frame=item.frame,
    )

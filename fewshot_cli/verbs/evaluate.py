"""Measuring a run, or a pretrained detector as it is, on a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli.environment import Environment, describe_environment
from fewshot_cli.errors import DataError, UsageError
from fewshot_cli.inference.opening import as_named, check_options, or_latest, place, place_pretrained
from fewshot_cli.inference.refinement import RefinedBy, Refinement, Refiner, make_refinement, whole_image
from fewshot_cli.paths import is_folder
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.folder import Run
from fewshot_cli.schemas import schema_of
from fewshot_cli.threads import choose_threads, use_threads

if TYPE_CHECKING:
    from fewshot_cli.datasets.types import Split
    from fewshot_cli.detectors.chain import Detections
    from fewshot_cli.evaluation.coco_metrics import Metrics
    from fewshot_cli.inference.placed import PlacedDetector


class Evaluated(TypedDict):
    """What `fsod eval --json` prints."""

    schema: Annotated[Literal["fsod/eval/1"], Doc("Kind and version.")]
    measured: Annotated[str, Doc("The run or file, or the detector's name.")]
    data: Annotated[str, Doc("The annotations.")]
    images: Annotated[int, Doc("That were measured on.")]
    boxes: Annotated[int, Doc("Of the measured classes, without crowds.")]
    numbers: Annotated[dict[str, float | None], Doc("COCO's twelve, by name: `AP` is mAP@[.50:.95], 0 to 1.")]
    per_class: Annotated[dict[str, float | None], Doc("Class → AP@[.50:.95].")]
    ap_interval: Annotated[
        list[float] | None, Doc("Low and high end of the mAP's 95 % interval over samples of the images (bootstrap).")
    ]
    caveats: Annotated[list[str], Doc("Sentences that belong beside the mAP: too few images or boxes.")]
    environment: Annotated[Environment, Doc("With what it was computed.")]
    refine: NotRequired[Annotated[RefinedBy, Doc("With --refine.")]]
    fiftyone: NotRequired[Annotated[str, Doc("Name of the FiftyOne data set, with --fiftyone.")]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured.

    Attributes:
        measured: the run's folder, or the detector's name.
        split: the images and their ground truth.
        metrics: COCO's numbers and AP per class.
        results: the detections in COCO's results format.
        environment: with what they were computed.
        refinement: of the scores; None: they are the detector's.
    """

    measured: str
    split: Split
    metrics: Metrics
    results: list[dict[str, Any]]
    environment: Environment | None = None
    refinement: Refinement | None = None

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints; takes up to a second, for the interval of the mAP."""
        return {
            "schema": schema_of(Evaluated),
            "measured": self.measured,
            "data": str(self.split.annotations),
            "images": len(self.split.images),
            "boxes": self.metrics.boxes,
            **self.metrics.to_json(),
            "ap_interval": self.metrics.ap_interval(),
            "caveats": self.metrics.caveats,
            "environment": self.environment,
            **({"refine": self.refinement.to_json()} if self.refinement else {}),
        }


def evaluate(
    run: Run | str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    *,
    detector: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    best: bool = False,
    refine: str | None = None,
    refine_template: str | None = None,
    refine_weight: float | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Measure a run or a pretrained detector with COCO's metrics.

    Args:
        run: a run or its folder, or a checkpoint or weights file; default: the run finished last under `runs/`.
        data: a data set (its test split is measured) or one split; default: the data set of the run.
        detector: measure this pretrained detector instead of a run, on the classes that it and `data` share.
        weights: of `detector`; or where the base weights of the run are now, if they moved.
        image_size: with `detector`: side of the square canvas, pixels.
        best: the checkpoint with the best test mAP instead of the last one.
        refine, refine_template, refine_weight: refine scores with an encoder of crops and class names, as for
            `inference.refinement.make_refinement`.
        device, precision: as in FinetuneConfig; `auto` precision is that of the run.
        threads: CPU threads; None: one for each free core.
        reporter: receives the progress.

    Raises:
        UsageError: options that do not go together.
        ConfigError: `refine` without a weight, or a package that is not installed.
        DataError: no run, no data set, or no test set in it.
        ModelError, CheckpointError, NetworkError: the detector or its weights cannot be had.
    """
    reporter = reporter or SilentReporter()
    named = as_named(run)
    _check(named, data, detector, image_size, best, precision)
    use_threads(choose_threads(threads, reporter))
    if detector is not None and data is not None:
        refinement = make_refinement(None, refine, refine_template, refine_weight)
        split = test_split(data)
        placed = place_pretrained(detector, weights, image_size, device, precision, reporter)
        return _measure(detector, placed, split, refinement, reporter)
    found = or_latest(named, reporter)
    refinement = make_refinement(found, refine, refine_template, refine_weight)
    split = test_split(data if data is not None else _data_of(found))
    placed = place(found, best=best, weights=weights, device=device, precision=precision, reporter=reporter)
    return _measure(os.fspath(found), placed, split, refinement, reporter)


def test_split(folder: str | PathLike[str]) -> Split:
    """The test split of a data set, or the split itself; raises DataError, DatasetError."""
    from fewshot_cli.datasets.formats import TEST_NAMES, TRAIN_NAMES, read_split, split_paths
    from fewshot_cli.datasets.store import RECORD, check_unchanged, read_record

    path = Path(folder)
    splits = split_paths(path) if is_folder(path) else {}
    if (path / RECORD).is_file():
        check_unchanged(path, read_record(path), ["test"])
    for name in TEST_NAMES:
        if name in splits:
            return read_split(splits[name])
    if any(name in splits for name in TRAIN_NAMES):
        raise DataError(f"{path} has no test set", hint="Give a data set with one, or a split, with --data.")
    return read_split(path)


def _check(run: object, data: object, detector: str | None, image_size: int | None, best: bool, precision: str) -> None:
    check_options(run, detector, image_size, best, precision)
    if detector is not None and data is None:
        raise UsageError("--detector needs --data", hint="Give a data set or a split in COCO format.")


def _data_of(run: Run | Path) -> Path:
    if isinstance(run, Path):
        raise UsageError(f"{run} needs --data", hint="A file does not say what it was trained on; a run's folder does.")
    return run.read_config().data_folder


def _measure(
    measured: str, placed: PlacedDetector, split: Split, refinement: Refinement | None, reporter: Reporter
) -> Evaluation:
    import torch

    from fewshot_cli.datasets.fingerprint import fingerprint
    from fewshot_cli.evaluation.measure import score

    found = placed.detect([image.path for image in split.images], reporter)
    if refinement:
        refiner = Refiner(refinement, placed.detector.classes, str(placed.device), reporter)
        found = _refined(found, split, refiner, placed.detector.classes, reporter)
    metrics, results = score(found, split, placed.detector.classes)
    environment = describe_environment(
        device=str(placed.device),
        precision=placed.precision,
        threads=torch.get_num_threads(),
        data={"test": fingerprint(split)},
    )
    return Evaluation(measured, split, metrics, results, environment, refinement)


def _refined(
    found: Sequence[Detections], split: Split, refiner: Refiner, classes: Sequence[str], reporter: Reporter
) -> list[Detections]:
    """The detections in the images of a split with refined scores."""
    import torch

    refined = []
    with reporter.progress("Refining", len(found)) as task:
        for image, detections in zip(split.images, found, strict=True):
            boxes, scores, labels = (part.numpy() for part in detections)
            prediction = refiner.in_file(whole_image(boxes, scores, labels, classes, image.path), image.path)
            parts = (prediction.boxes, prediction.scores, prediction.labels)
            refined.append(type(detections)(*map(torch.from_numpy, parts)))
            task.advance()
    return refined

"""A run, or a pretrained detector as it is, measured on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.formats import TEST_NAMES, read_split, split_paths
from fewshot_cli.datasets.types import Split
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.device import choose_device, computes_in_bf16
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.evaluation.coco_metrics import Metrics
from fewshot_cli.evaluation.measure import score
from fewshot_cli.inference.predictor import detect_split
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.folder import Run


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of one detector on one split, and its detections as COCO results."""

    split: Split
    metrics: Metrics
    results: list[dict[str, Any]]


def evaluate_run(
    run: Run, data: Path | None, *, best: bool, weights: str | None, device: str, precision: str, reporter: Reporter
) -> Evaluation:
    """Measure a run.

    Args:
        run: a finished run, or one that has a best checkpoint.
        data: a data set or a split; default: the data set it was made from.
        best: use the checkpoint with the best test mAP instead of the last one.
        weights: where the base is now, if it moved.
        device, precision: as in FinetuneConfig; `auto` precision is what the run was told.

    Raises:
        DataError, CheckpointError, NetworkError: see `test_split`, `restore`, `build_detector`.
    """
    config = run.read_config()
    split = test_split(data or config.data_folder)
    precision = config.precision if precision == "auto" else precision
    checkpoint = run.best_checkpoint if best else run.checkpoint
    detector, _ = restore(checkpoint, weights=weights, reporter=reporter)
    return evaluate_detector(detector, split, device=device, precision=precision, reporter=reporter)


def evaluate_base(
    name: str, data: Path, *, weights: str, image_size: int | None, device: str, precision: str, reporter: Reporter
) -> Evaluation:
    """Measure a pretrained detector on the classes that it and the data set share."""
    split = test_split(data)
    detector = build_detector(name, weights=weights, image_size=image_size, reporter=reporter)
    return evaluate_detector(detector, split, device=device, precision=precision, reporter=reporter)


def evaluate_detector(
    detector: Detector, split: Split, *, device: str, precision: str, reporter: Reporter
) -> Evaluation:
    """Detect in every image of a split and score it."""
    place = choose_device(device)
    bf16 = computes_in_bf16(precision, place, detector)
    detector.place(place)
    found = detect_split(detector, split, device=place, bf16=bf16, reporter=reporter)
    return Evaluation(split, *score(found, split, detector.classes))


def test_split(folder: Path) -> Split:
    """The test split of a data set, or the split itself; raises DataError, DatasetError."""
    splits = split_paths(folder) if folder.is_dir() else {}
    for name in TEST_NAMES:
        if name in splits:
            return read_split(splits[name])
    return read_split(folder)

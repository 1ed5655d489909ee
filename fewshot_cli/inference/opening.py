"""From what a person names to what detects: a run, a checkpoint, a weights file, an ONNX file or a detector's name.

Nothing here imports torch before a torch detector is opened: an exported file runs without it.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot_cli.errors import CheckpointError, ConfigError, UsageError, closest
from fewshot_cli.paths import is_file, is_folder
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.folder import Run, latest_run, load_run

if TYPE_CHECKING:
    from fewshot_cli.detectors.chain import Detector
    from fewshot_cli.inference.placed import PlacedDetector
    from fewshot_cli.inference.prediction import Model

ONNX = ".onnx"
MODEL_SUFFIXES = (".safetensors", ".pth", ".pt", ONNX)
PRECISIONS = ("auto", "fp32", "bf16")


def is_model(path: Path) -> bool:
    """Whether a path names a run's folder, a checkpoint, weights or an ONNX file, rather than images."""
    if is_folder(path):
        return is_file(Run(path).config_file)
    return path.suffix.lower() in MODEL_SUFFIXES


def as_named(run: Run | str | PathLike[str] | None) -> Run | Path | None:
    """A folder becomes its run, a model's file stays a path; raises DataError for a folder that is no run."""
    if run is None or isinstance(run, Run):
        return run
    path = Path(run)
    return path if path.suffix.lower() in MODEL_SUFFIXES and not is_folder(path) else load_run(path)


def or_latest(named: Run | Path | None, reporter: Reporter) -> Run | Path:
    """What was named, or the run finished last, which is said; raises DataError if there is none."""
    if named is not None:
        return named
    found = latest_run()
    reporter.say(f"Run: {found.folder}, the one finished last.")
    return found


def open_model(
    what: Run | str | PathLike[str] | None = None,
    *,
    detector: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    best: bool = False,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    reporter: Reporter | None = None,
) -> Model:
    """Open what detects.

    Args:
        what: a run or its folder, a checkpoint, a weights file, or an ONNX file; None: the run finished last.
        detector: a pretrained detector instead, with its base classes.
        weights: of `detector`; or where the base weights of a run or checkpoint are now, if they moved.
        image_size: with `detector`: side of the square canvas, pixels.
        best: of a run: the checkpoint with the best test mAP instead of the last one.
        device, precision: as in FinetuneConfig; `auto` precision is that of the run.
        threads: on a CPU, how many images of a batch are detected at the same time, each by one thread, which makes
            the result independent of batch and threads; None: one after another, with torch's threads.
        reporter: receives progress and remarks.

    Raises:
        UsageError: options that do not go together.
        DataError: no run.
        ConfigError: a device or precision that cannot be had.
        ModelError, CheckpointError, NetworkError: the detector or its weights cannot be had.
    """
    reporter = reporter or SilentReporter()
    named = as_named(what)
    check_options(named, detector, image_size, best, precision)
    if detector is not None:
        placed = place_pretrained(detector, weights, image_size, device, precision, reporter)
        thresholds = thresholds_of(Path(weights)) if weights else {}
    else:
        found = or_latest(named, reporter)
        if isinstance(found, Path) and found.suffix.lower() == ONNX:
            return _open_onnx(found, weights, device, precision, threads)
        placed = place(found, best=best, weights=weights, device=device, precision=precision, reporter=reporter)
        thresholds = thresholds_of(found)
    from fewshot_cli.inference.torch_model import TorchModel

    return TorchModel(placed, thresholds, threads=threads)


def check_options(
    what: object, detector: str | None, image_size: int | None, best: bool, precision: str = "auto"
) -> None:
    """Raise UsageError for options that do not go together, ConfigError for an unknown precision."""
    if detector is not None and (what is not None or best):
        raise UsageError("--detector names a detector without a run", hint="Give a run, or --detector, not both.")
    if detector is None and image_size is not None:
        raise UsageError("--image-size goes with --detector", hint="A run keeps the size it was trained at.")
    if best and isinstance(what, Path):
        raise UsageError(f"--best goes with a run, and {what} is a file", hint="Give the run's folder.")
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}", hint=closest(precision, PRECISIONS))


def place_pretrained(
    name: str, weights: str | None, image_size: int | None, device: str, precision: str, reporter: Reporter
) -> PlacedDetector:
    """A pretrained detector with its base classes, on its device; arguments and errors as for `open_model`."""
    from fewshot_cli.inference.placed import PlacedDetector

    return PlacedDetector.place(build_pretrained(name, weights, image_size, reporter), device, precision)


def build_pretrained(name: str, weights: str | None, image_size: int | None, reporter: Reporter) -> Detector:
    """The same on the CPU."""
    from fewshot_cli.detectors.registry import build_detector

    return build_detector(name, weights=weights or "default", image_size=image_size, reporter=reporter)


def place(
    what: Run | Path, *, best: bool, weights: str | None, device: str, precision: str, reporter: Reporter
) -> PlacedDetector:
    """A run, a checkpoint or a weights file as a detector on its device; arguments and errors as for `open_model`."""
    from fewshot_cli.inference.placed import PlacedDetector

    detector = open_detector(what, best=best, weights=weights, reporter=reporter)
    if isinstance(what, Run) and precision == "auto":
        precision = what.read_config().precision
    return PlacedDetector.place(detector, device, precision)


def open_detector(what: Run | Path, *, best: bool, weights: str | None, reporter: Reporter) -> Detector:
    """The same on the CPU."""
    from fewshot_cli.runs.checkpoint import restore

    if isinstance(what, Path):
        return _from_file(what, weights, reporter)
    return restore(what.best_checkpoint if best else what.checkpoint, weights=weights, reporter=reporter)[0]


def thresholds_of(what: Run | Path) -> dict[str, float]:
    """Class → score from which a detection counts: those of a run; of an exported file, those in it; of a
    checkpoint, those of the run it lies in; of other files, none."""
    from fewshot_cli.detectors.exported import read_info

    if isinstance(what, Run):
        return what.thresholds
    if info := read_info(what):
        return info.thresholds
    run = Run(what.parent)
    return run.thresholds if what in (run.checkpoint, run.best_checkpoint) else {}


def _from_file(path: Path, weights: str | None, reporter: Reporter) -> Detector:
    from fewshot_cli.detectors.exported import read_info
    from fewshot_cli.detectors.registry import DETECTORS, build_detector
    from fewshot_cli.detectors.tensor_file import CHECKPOINT, read_metadata
    from fewshot_cli.detectors.weights import guess_detector, read_weights
    from fewshot_cli.runs.checkpoint import restore

    if path.suffix.lower() == ONNX:
        raise UsageError(f"{path}: ONNX files detect with `fsod predict`", hint="Give the run it was exported from.")
    if CHECKPOINT in read_metadata(path):
        return restore(path, weights=weights, reporter=reporter)[0]
    exported = read_info(path)
    name = exported.detector if exported else guess_detector(read_weights(path))
    if name not in DETECTORS:
        known = f"they look like {name}" if name else "they are of no detector in the registry"
        raise CheckpointError(f"{path} holds weights, but {known}", hint=f"Detectors: {', '.join(DETECTORS)}.")
    if weights is not None:
        raise UsageError("--weights goes with a run or --detector", hint=f"{path} holds weights already.")
    return build_detector(name, weights=path, reporter=reporter)


def _open_onnx(path: Path, weights: str | None, device: str, precision: str, threads: int | None) -> Model:
    if weights is not None:
        raise UsageError("--weights does not go with an ONNX file", hint="It holds its weights already.")
    if device not in ("auto", "cpu") or precision != "auto":
        raise UsageError("an ONNX file computes on the CPU as it was exported", hint="Drop --device and --precision.")
    from fewshot_cli.inference.onnx_model import OnnxModel

    return OnnxModel(path, threads=threads)

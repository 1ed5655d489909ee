"""Writing a detector into one file that runs elsewhere, after checking that it computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli.errors import CheckpointError, DataError, ModelError, UsageError, closest
from fewshot_cli.files import write_atomically
from fewshot_cli.inference.opening import (
    as_named,
    build_pretrained,
    check_options,
    open_detector,
    or_latest,
    thresholds_of,
)
from fewshot_cli.paths import check_target, shown
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.folder import Run
from fewshot_cli.threads import choose_threads, use_threads

if TYPE_CHECKING:
    from fewshot_cli.detectors.canvas import Canvas
    from fewshot_cli.detectors.chain import Detector

SUFFIXES = {"onnx": ".onnx", "weights": ".safetensors"}
"""What can be written, and how the name of such a file ends."""
SHOTS = 16
"""At most so many shots are compared: a large detector takes a second for each."""


class Compared(TypedDict):
    """How an exported file was compared with PyTorch."""

    on: Annotated[str, Doc("`shots` or `images of noise`.")]
    images: Annotated[int, Doc("How many.")]
    boxes: NotRequired[Annotated[int, Doc("Candidates before suppression; ONNX only.")]]
    detections: NotRequired[Annotated[int, Doc("After suppression; ONNX only.")]]
    box: Annotated[float, Doc("Largest difference of a coordinate, canvas pixels.")]
    score: Annotated[float, Doc("Largest difference of a score.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written, as `fsod export --json` prints it."""

    schema: Annotated[Literal["fsod/export/1"], Doc("Kind and version.")] = "fsod/export/1"
    path: Annotated[Path, Doc("The file.")]
    format: Annotated[str, Doc("`onnx` or `weights`.")]
    exported: Annotated[str, Doc("The run or file, or the detector's name.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    classes: Annotated[tuple[str, ...], Doc("In label order.")]
    image_size: Annotated[int, Doc("Side of the canvas, pixels.")]
    thresholds: Annotated[dict[str, float], Doc("Class → score from which a detection counts, as stored in the file.")]
    size: Annotated[int, Doc("Of the file, bytes.")]
    opset: Annotated[int | None, Doc("Version of ONNX's operators; null for weights.")] = None
    inputs: Annotated[
        dict[str, list[str | int]], Doc("ONNX: name → axes, a number or the name of one that varies.")
    ] = field(default_factory=dict)
    outputs: Annotated[dict[str, list[str | int]], Doc("ONNX: name → axes.")] = field(default_factory=dict)
    compared: Annotated[Compared, Doc("With PyTorch.")]

    def __fspath__(self) -> str:
        """Wherever a path is expected, the export itself will do."""
        return str(self.path)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "classes": list(self.classes)}


class _Opened(NamedTuple):
    """A detector, on the CPU, and what is known of it.

    name: the run's folder, the file or the detector's name; target: where the exported file goes, without the suffix;
    data: the data set that it was trained on, if that is known; sources: the files that it was read from.
    """

    detector: Detector
    thresholds: dict[str, float]
    name: str
    target: Path
    data: Path | None
    sources: tuple[Path, ...]


def export(
    run: Run | str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    *,
    format: str = "onnx",
    nms: bool = True,
    opset: int = 17,
    detector: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    best: bool = False,
    threads: int | None = None,
    reporter: Reporter | None = None,
) -> Export:
    """Write a run, or a pretrained detector, as one file that needs nothing else.

        export("runs/helmet", "helmet.onnx")

    An ONNX file is compared with PyTorch on the shots, on noise if they are gone, before it is written: every candidate
    before suppression, and every detection of a score of at least 0.05 after it. A weights file must build a detector
    that computes the same to the last bit.

    Args:
        run: a run or its folder, a checkpoint or a weights file; default: the run finished last.
        out: the file; default: `model.onnx` or `model.safetensors` in the run's folder.
        format: `onnx`, or `weights`: a safetensors file of base and trained weights merged, for `--weights`.
        nms: with onnx: whether non-maximum suppression is in the file.
        opset: with onnx: version of its operators, 17 to 20.
        detector: write this pretrained detector instead of a run, with its base classes.
        weights: of `detector`; or where the base weights of the run are now, if they moved.
        image_size: with `detector`: side of the square canvas, pixels.
        best: the checkpoint with the best test mAP instead of the last one.
        threads: CPU threads; None: one for each free core.
        reporter: receives progress and remarks.

    Raises:
        UsageError: options that do not go together.
        DataError: no run.
        ConfigError: an opset that cannot be written, or onnx or onnxruntime is not installed.
        ModelError: the detector cannot be exported, or the file would not compute the same; then nothing is written.
        CheckpointError, NetworkError: the detector or its weights cannot be had.
        StorageError: the disk cannot be written.
    """
    reporter = reporter or SilentReporter()
    _check_format(format, nms)
    named = as_named(run)
    check_options(named, detector, image_size, best)
    use_threads(choose_threads(threads, reporter))
    if detector is not None:
        opened = _pretrained(detector, weights, image_size, reporter)
    else:
        opened = _trained(or_latest(named, reporter), best, weights, reporter)
    path = _target(opened, out, format)
    canvases, where = _canvases(opened, reporter)
    reporter.say(f"Comparing with PyTorch on {len(canvases)} {where}.")
    as_weights = format == "weights"
    content, details = _as_weights(opened, canvases) if as_weights else _as_onnx(opened, canvases, path, nms, opset)
    write_atomically(path, lambda temporary: _write(temporary, content))
    compared: Any = {"on": where, "images": len(canvases), **details.pop("compared")}
    return Export(
        path=path,
        format=format,
        exported=opened.name,
        detector=opened.detector.name,
        classes=opened.detector.classes,
        image_size=opened.detector.image_size,
        thresholds=opened.thresholds,
        size=len(content),
        compared=compared,
        **details,
    )


def _check_format(format: str, nms: bool) -> None:
    if format not in SUFFIXES:
        raise UsageError(f"unknown format {format!r}", hint=closest(format, SUFFIXES))
    if format == "weights" and not nms:
        raise UsageError("--no-nms goes with --format onnx", hint="A weights file holds no suppression.")


def _pretrained(name: str, weights: str | None, image_size: int | None, reporter: Reporter) -> _Opened:
    detector, source = build_pretrained(name, weights, image_size, reporter), Path(weights or "")
    return _Opened(detector, thresholds_of(source), name, Path(name), None, (source,))


def _trained(what: Run | Path, best: bool, weights: str | None, reporter: Reporter) -> _Opened:
    """A run, a checkpoint or a weights file."""
    detector, thresholds = open_detector(what, best=best, weights=weights, reporter=reporter), thresholds_of(what)
    if isinstance(what, Path):
        return _Opened(detector, thresholds, str(what), what.with_suffix(""), None, (what, Path(weights or "")))
    config = what.read_config()
    sources = (what.checkpoint, what.best_checkpoint, Path(weights or config.weights))
    return _Opened(detector, thresholds, str(what.folder), what.folder / "model", config.data_folder, sources)


def _target(opened: _Opened, out: str | PathLike[str] | None, format: str) -> Path:
    """The file to write, which is none of those that were read."""
    suffix = SUFFIXES[format]
    path = Path(out) if out is not None else opened.target.with_name(opened.target.name + suffix)
    if path.suffix != suffix:
        raise UsageError(f"--out {shown(path)} does not end in {suffix}", hint=f"E.g. --out model{suffix}.")
    if check_target(path) in [source.resolve() for source in opened.sources]:
        raise UsageError(f"{path} is what would be exported", hint="Give another name with --out.")
    return path


def _canvases(opened: _Opened, reporter: Reporter) -> tuple[list[Canvas], str]:
    """The first SHOTS shots of the run, or noise; and which of the two."""
    from fewshot_cli.datasets.images import read_image
    from fewshot_cli.datasets.store import open_dataset

    if opened.data is not None:
        try:
            images = open_dataset(opened.data).train.images[:SHOTS]
            return [opened.detector.make_canvas(read_image(image.path)) for image in images], "shots"
        except DataError as error:
            reporter.warn(f"The shots of the run cannot be read, so noise is compared: {error.message}")
    return _noise(opened.detector), "images of noise"


def _noise(detector: Detector) -> list[Canvas]:
    """Square, wide, tall and large images, the same each time."""
    import torch

    generator, side = torch.Generator().manual_seed(0), detector.image_size
    sizes = [(side, side), (side // 2, side), (side, side // 3), (2 * side, 3 * side)]
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return [detector.make_canvas(image) for image in images]


def _as_onnx(
    opened: _Opened, canvases: Sequence[Canvas], path: Path, nms: bool, opset: int
) -> tuple[bytes, dict[str, Any]]:
    """The content of the file, and what `Export` says of it."""
    from fewshot_cli.inference.onnx_check import check
    from fewshot_cli.inference.onnx_graph import build_graph, without_candidates
    from fewshot_cli.inference.onnx_model import describe, need, open_session

    need("onnxruntime")  # before the work of writing a graph that cannot be checked
    graph = build_graph(opened.detector, opened.thresholds, nms=nms, opset=opset)
    agreement = check(opened.detector, graph, canvases, nms=nms)
    model = without_candidates(graph)
    content: bytes = model.SerializeToString()
    describe(content, path)
    open_session(content, path)
    return content, {
        "opset": opset,
        "inputs": _axes(model.graph.input),
        "outputs": _axes(model.graph.output),
        "compared": asdict(agreement),
    }


def _axes(values: Any) -> dict[str, list[str | int]]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }


def _as_weights(opened: _Opened, canvases: Sequence[Canvas]) -> tuple[bytes, dict[str, Any]]:
    """The content of the file, and what `Export` says of it."""
    import torch

    from fewshot_cli.detectors.canvas import batch_of
    from fewshot_cli.detectors.exported import describe, fill, to_bytes
    from fewshot_cli.detectors.registry import build_detector

    detector, info = opened.detector, describe(opened.detector, opened.thresholds)
    try:
        again = build_detector(
            detector.name, weights="none", image_size=detector.image_size, architecture=detector.architecture
        )
        fill(again, detector.network.state_dict(), info, what=detector.name)
    except CheckpointError as error:
        raise ModelError(
            f"a weights file holds one network of {detector.name} alone, and no base classes beside it",
            hint="Use --format onnx.",
        ) from error
    batch = batch_of(canvases[:2])
    with torch.no_grad():
        pairs = zip(detector.run(batch, 0), again.run(batch, 0), strict=True)
        if not all(torch.equal(*pair) for pair in pairs):
            raise ModelError(
                f"{detector.name} is more than its weights: built again, it computes something else",
                hint="Use --format onnx, and please report it.",
            )
    return to_bytes(detector, info), {"compared": {"images": len(batch[0]), "box": 0.0, "score": 0.0}}


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)

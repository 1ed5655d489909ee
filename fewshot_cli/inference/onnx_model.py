"""A file of `fsod export --format onnx` as a `Model`: ONNX Runtime, NumPy and Pillow, without PyTorch.

model = OnnxModel(Path("helmet.onnx"))
predictions = model.detect([model.prepare(image)])
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot_cli.errors import CheckpointError, ConfigError
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.paths import require_file

INPUT = "images"
OUTPUTS = ("boxes", "scores", "labels", "image_index")
RAW_OUTPUTS = ("boxes", "scores")
"""Of a file that was exported with --no-nms."""
METADATA = "fsod"
"""Key of the metadata under which a file describes itself, in JSON."""
SCHEMA = 1
TOP_LEFT, STRETCHED = "top-left", "stretched"
"""Where an image is on its canvas: in proportion at the top left, padded, or stretched to all of it."""
LARGEST = 1_000_000_000
"""Bytes of a file; the largest detector has 0.4 billion."""

_AGAIN = "Copy it again, or export it again with `fsod export`."
_STANDARD = ("", "ai.onnx")
"""Names of ONNX's own set of operators."""


class Canvas(NamedTuple):
    """An image resized into the square of the detector, top-left, padded.

    pixels: (3, S, S) uint8 RGB; scale: canvas pixels per image pixel, along x and along y; size: (width, height) of the
    image, its pixels.
    """

    pixels: NDArray[np.uint8]
    scale: tuple[float, float]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a file says of itself.

    Attributes:
        detector: its name in the registry.
        classes: in label order.
        image_size: side of the canvas, pixels.
        stretches: whether images are stretched to the square instead of keeping their proportions.
        pad: RGB colour right of and below the image.
        thresholds: class → score from which a detection counts.
        nms: whether non-maximum suppression is in the graph.
    """

    detector: str
    classes: tuple[str, ...]
    image_size: int
    stretches: bool
    pad: tuple[int, int, int]
    thresholds: dict[str, float]
    nms: bool


class OnnxModel:
    """An exported detector. Boxes and scores are those of the PyTorch detector, up to rounding.

    Args:
        path: the file.
        threads: that compute; None: one a core.

    Raises:
        CheckpointError: the file is missing, damaged, of another program, exported with --no-nms, or hostile: with
            data outside itself, or operators that are not ONNX's own.
        ConfigError: onnx or onnxruntime is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        content = _read(path)
        self._path = path
        self._description = describe(content, path)
        if not self._description.nms:
            raise CheckpointError(
                f"{path} was exported with --no-nms: it gives candidates, not detections",
                hint="Export it again without --no-nms.",
            )
        self._session = open_session(content, path, threads)

    @property
    def description(self) -> Description:
        return self._description

    @property
    def classes(self) -> tuple[str, ...]:
        return self._description.classes

    @property
    def thresholds(self) -> dict[str, float]:
        return dict(self._description.thresholds)

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def precision(self) -> str:
        return "fp32"

    def prepare(self, image: NDArray[np.uint8]) -> Canvas:
        """An upright RGB image (H, W, 3) → its canvas, resized as in training up to the rounding of a pixel value."""
        height, width = image.shape[:2]
        side = self._description.image_size
        scale = side / width, side / height
        if not self._description.stretches:
            scale = min(scale), min(scale)
        valid = max(1, round(height * scale[1])), max(1, round(width * scale[0]))
        if valid != (height, width):
            image = np.asarray(Image.fromarray(image).resize(valid[::-1], Image.Resampling.BILINEAR))
        canvas = np.empty((side, side, 3), np.uint8)
        canvas[:] = self._description.pad
        canvas[: valid[0], : valid[1]] = image
        return Canvas(canvas.transpose(2, 0, 1), scale, (width, height))

    def detect(self, prepared: Sequence[Canvas]) -> list[Prediction]:
        """All detections of each image, whatever their score; raises CheckpointError if the file computes none."""
        if not prepared:
            return []
        pixels = np.stack([canvas.pixels for canvas in prepared])
        boxes, scores, labels, image_index = run(self._session, self._path, pixels, OUTPUTS)
        self._check(boxes, scores, labels, image_index, len(prepared))
        return [
            self._of_image(canvas, boxes[own], scores[own], labels[own])
            for canvas, own in ((canvas, image_index == i) for i, canvas in enumerate(prepared))
        ]

    def _of_image(self, canvas: Canvas, boxes: NDArray, scores: NDArray, labels: NDArray) -> Prediction:
        """Boxes in canvas pixels → in the image's pixels, clipped to it."""
        scale, size = (np.array([*pair, *pair], np.float32) for pair in (canvas.scale, canvas.size))
        boxes = (boxes / scale).clip(0, size)
        return Prediction(boxes=boxes, scores=scores, labels=labels, classes=self.classes, size=canvas.size)

    def _check(self, boxes: NDArray, scores: NDArray, labels: NDArray, image_index: NDArray, images: int) -> None:
        count = len(boxes)
        right = (boxes.shape, scores.shape, labels.shape, image_index.shape) == ((count, 4), *[(count,)] * 3)
        kinds = boxes.dtype == scores.dtype == np.float32 and labels.dtype == image_index.dtype == np.int64
        if not (right and kinds and _within(labels, len(self.classes)) and _within(image_index, images)):
            raise CheckpointError(f"{self._path} gives outputs that are no detections", hint=_AGAIN)


def _within(indices: NDArray, count: int) -> bool:
    return not len(indices) or (indices.min() >= 0 and indices.max() < count)


def need(package: str) -> Any:
    """onnx or onnxruntime; raises ConfigError if it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(f"{package} is not installed", hint="pip install 'fsod[onnx]'") from error


def open_session(content: bytes, path: Path, threads: int | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU; `path` names the file in messages. Raises CheckpointError."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # what goes wrong becomes an error, and is not printed as well
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no class in common
        raise CheckpointError(f"{path} cannot be run: {_first_line(error)}", hint=_AGAIN) from error


def run(session: Any, path: Path, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray]:
    """The named outputs for pixels (B, 3, S, S); raises CheckpointError."""
    try:
        found: list[NDArray] = session.run(list(outputs), {INPUT: pixels})
    except Exception as error:  # as above
        raise CheckpointError(f"{path} cannot be run: {_first_line(error)}", hint=_AGAIN) from error
    return found


def describe(content: bytes, path: Path) -> Description:
    """What the file says of itself; raises CheckpointError for files that are damaged, foreign or hostile."""
    onnx = need("onnx")
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf has several implementations, each with its own errors
        raise CheckpointError(f"{path} is damaged or no ONNX file: {_first_line(error)}", hint=_AGAIN) from error
    _reject_hostile(model, path)
    _check_weights(onnx, model, path)
    text = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA)
    if text is None:
        made_by = f", but of {model.producer_name}" if model.producer_name else ""
        raise CheckpointError(
            f"{path} is not a file of `fsod export`{made_by}: its classes and its image size are not known",
            hint="Export a run with `fsod export RUN`.",
        )
    try:
        return _description(json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{path} describes itself in an unknown way: {_first_line(error)}", hint=_AGAIN
        ) from error


def _description(document: dict[str, Any]) -> Description:
    """Checked by hand, because importing pydantic takes longer than all the rest; raises what a wrong type raises."""
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, where this version of fsod reads {SCHEMA}")
    resize = document["resize"]
    red, green, blue = (int(level) for level in resize["pad"])
    found = Description(
        detector=str(document["detector"]),
        classes=tuple(str(name) for name in document["classes"]),
        image_size=int(document["image_size"]),
        stretches=(TOP_LEFT, STRETCHED).index(resize["place"]) == 1,
        pad=(red, green, blue),
        thresholds={str(name): float(score) for name, score in document["thresholds"].items()},
        nms=document["nms"] is not None,
    )
    if not all(math.isfinite(score) for score in found.thresholds.values()):
        raise ValueError("a threshold is no number")
    if not 1 <= found.image_size <= 8192 or not all(0 <= level <= 255 for level in found.pad):
        raise ValueError("the image size or the padding is impossible")
    return found


def _reject_hostile(model: Any, path: Path) -> None:
    """A file is whole in itself: it names no other file to be read, and no library's operators."""
    for part in _parts(model):
        kind = type(part).__name__
        if kind == "TensorProto" and (part.data_location == part.EXTERNAL or len(part.external_data)):
            raise CheckpointError(
                f"{path} keeps weights in another file. Nothing was read", hint="Export it in one file."
            )
        if kind == "NodeProto" and part.domain not in _STANDARD:
            raise CheckpointError(
                f"{path} needs operators of {part.domain!r}, which are not ONNX's own",
                hint="Export a run with `fsod export RUN`.",
            )


def _check_weights(onnx: Any, model: Any, path: Path) -> None:
    """Weights are finite numbers, in as many bytes as their shapes need."""
    for tensor in model.graph.initializer:
        try:
            finite = bool(np.isfinite(onnx.numpy_helper.to_array(tensor)).all())
        except Exception as error:  # whatever a damaged tensor raises
            raise CheckpointError(f"{path}: {tensor.name!r} is damaged: {_first_line(error)}", hint=_AGAIN) from error
        if not finite:
            raise CheckpointError(f"{path}: {tensor.name!r} holds NaN or infinite numbers", hint=_AGAIN)


def _parts(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "__len__") else (value,):
                yield from _parts(part)


def _read(path: Path) -> bytes:
    require_file(path, error=CheckpointError, hint="Give a file of `fsod export`.", largest=LARGEST)
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", hint=_AGAIN) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

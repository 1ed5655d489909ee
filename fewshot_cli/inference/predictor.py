"""`Predictor`: images in a program → detections.

predictor = load_run("runs/helmet").predictor()
found = predictor("photo.jpg")
for name, score, box in zip(found.names, found.scores, found.boxes):
    print(name, score, box)      # helmet 0.91 [ 12.1  40.3 118.0 160.2]
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fewshot_cli.datasets.images import image_size, open_image
from fewshot_cli.errors import DataError, UsageError
from fewshot_cli.inference.filtering import MOST, Filter, make_filter
from fewshot_cli.inference.opening import as_named, open_model, or_latest
from fewshot_cli.inference.prediction import Model, Prediction
from fewshot_cli.inference.refinement import Refiner, make_refinement
from fewshot_cli.inference.stream import detect
from fewshot_cli.inference.tiles import Tiles, merge, parse_tiles, windows
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.folder import Run

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 8
"""Windows that go through the detector together by default."""

AnyImage: TypeAlias = "str | PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor"
_HINT = (
    "Give a path, a PIL image, a (H, W, 3) uint8 RGB array, a (3, H, W) or (H, W, 3) uint8 tensor, or a list of them."
)


def open_predictor(
    what: Run | str | PathLike[str] | None = None,
    *,
    detector: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    best: bool = False,
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
) -> Predictor:
    """A predictor of a run, a file or a pretrained detector.

    Args:
        what, detector, weights, image_size, best, device, precision, threads, reporter: as for `opening.open_model`.
        threshold, classes, max_detections: as for `filtering.make_filter`.
        tiles: `SIZE[:OVERLAP]`, as for `tiles.parse_tiles`.
        refine, refine_template, refine_weight: as for `refinement.make_refinement`.
        batch_size: windows that go through the detector together.

    Raises:
        FsodError: what `open_model`, `make_filter`, `parse_tiles` and `make_refinement` raise.
    """
    cut = parse_tiles(tiles) if tiles else None
    named = as_named(what)
    if named is None and detector is None:
        named = or_latest(named, reporter or SilentReporter())
    refinement = make_refinement(named, refine, refine_template, refine_weight)
    model = open_model(
        named,
        detector=detector,
        weights=weights,
        image_size=image_size,
        best=best,
        device=device,
        precision=precision,
        threads=threads,
        reporter=reporter,
    )
    stored = refinement.thresholds if refinement else model.thresholds
    keep = make_filter(model, threshold=threshold, classes=classes, max_detections=max_detections, stored=stored)
    refiner = Refiner(refinement, model.classes, model.device, reporter or SilentReporter()) if refinement else None
    return Predictor(model, keep, tiles=cut, batch_size=batch_size, refiner=refiner)


class Predictor:
    """Detects in images of any kind.

    Args:
        model: what detects.
        keep: which detections count.
        tiles: cut images that are larger than this; None: none.
        batch_size: windows that go through the detector together.
        refiner: refines their scores; None: they stay as they are.
    """

    def __init__(
        self,
        model: Model,
        keep: Filter,
        *,
        tiles: Tiles | None = None,
        batch_size: int = BATCH,
        refiner: Refiner | None = None,
    ) -> None:
        self.model = model
        self.keep = keep
        self.tiles = tiles
        self.batch_size = batch_size
        self.refiner = refiner

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in label order."""
        return self.model.classes

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...
    @overload
    def __call__(self, images: AnyImage) -> Prediction: ...
    def __call__(self, images: AnyImage | list[Any] | tuple[Any, ...]) -> Prediction | list[Prediction]:
        """The objects in an image, or in each image of a list or tuple.

        Args:
            images: a path, a PIL image (both are turned upright by their EXIF orientation), a (H, W, 3) uint8 RGB array
                (OpenCV's are BGR), a (3, H, W) or (H, W, 3) uint8 RGB tensor, or a list of these.

        Raises:
            DataError: a file that is no image, or an array of another shape or type.
        """
        if isinstance(images, list | tuple):
            found = self._detect([as_array(image) for image in images])
            return [prediction.at(_size(image, prediction)) for image, prediction in zip(images, found, strict=True)]
        return self([images])[0]

    def _detect(self, arrays: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        places = [windows(array.shape[1], array.shape[0], self.tiles) for array in arrays]
        prepared = [
            self.model.prepare(array[y1:y2, x1:x2])
            for array, own in zip(arrays, places, strict=True)
            for x1, y1, x2, y2 in own
        ]
        found = iter(detect(self.model, prepared, self.batch_size))
        return [
            self.kept(merge([next(found) for _ in own], own, (array.shape[1], array.shape[0])), array)
            for array, own in zip(arrays, places, strict=True)
        ]

    def kept(self, prediction: Prediction, pixels: NDArray[np.uint8]) -> Prediction:
        """What counts of the detections in an image, (H, W, 3) uint8 RGB, best first."""
        return self.keep(self.refiner(prediction, pixels) if self.refiner else prediction)


def _size(image: Any, prediction: Prediction) -> tuple[int, int]:
    """(width, height) of an image, of which fewer pixels may have been decoded."""
    return image_size(Path(image), decode=False) if isinstance(image, str | PathLike) else prediction.size


def as_array(image: Any) -> NDArray[np.uint8]:
    """An image of any kind → (H, W, 3) uint8 RGB, upright; raises DataError."""
    if isinstance(image, str | PathLike):
        return np.array(open_image(Path(image)))
    if isinstance(image, Image.Image):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    # Known by its module, because a tensor needs torch and this does not.
    is_tensor = type(image).__module__.partition(".")[0] == "torch"
    array = image.detach().cpu().numpy() if is_tensor else image
    if not isinstance(array, np.ndarray):
        raise UsageError(f"an image cannot be a {type(image).__name__}", hint=_HINT)
    if is_tensor and array.ndim == 3 and array.shape[0] == 3:
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise DataError(f"an image cannot be of shape {array.shape} and type {array.dtype}", hint=_HINT)
    return np.array(array)

"""A torch detector behind the `Model` protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot_cli.detectors.canvas import Canvas, batch_of
from fewshot_cli.detectors.chain import Detections
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.inference.prediction import Prediction


class TorchModel:
    """A detector on its device that is no longer trained.

    Args:
        placed: the detector.
        thresholds: class → score, as stored with it.
        threads: on a CPU, so many images of a batch are detected at the same time, each by one thread, and the process
            is set to one thread for each operation; None: one image after another, with torch's threads. On a GPU the
            batch goes through as a whole.
    """

    def __init__(self, placed: PlacedDetector, thresholds: Mapping[str, float], *, threads: int | None = None) -> None:
        self._placed = placed
        self.thresholds = dict(thresholds)
        self.classes: tuple[str, ...] = placed.detector.classes
        placed.detector.finish_training()
        # Small convolutions gain little from a second thread, and a second image gains all of it.
        self._pool: ThreadPoolExecutor | None = None
        if threads is not None and placed.device.type == "cpu":
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(threads, "detect", initializer=torch.set_num_threads, initargs=(1,))

    @property
    def device(self) -> str:
        return str(self._placed.device)

    @property
    def precision(self) -> str:
        return self._placed.precision

    def prepare(self, image: NDArray[np.uint8]) -> Canvas:
        """(H, W, 3) uint8 RGB → the canvas."""
        return self._placed.detector.make_canvas(torch.from_numpy(image).permute(2, 0, 1))

    def detect(self, prepared: Sequence[Canvas]) -> list[Prediction]:
        """All detections of each canvas."""
        if self._placed.device.type != "cpu":
            return [self._prediction(*each) for each in zip(self._run(prepared), prepared, strict=True)]
        return list((self._pool.map if self._pool else map)(self._detect_one, prepared))

    def _detect_one(self, canvas: Canvas) -> Prediction:
        """Alone, so that the sums do not depend on what else is in the batch."""
        return self._prediction(self._run([canvas])[0], canvas)

    def _run(self, canvases: Sequence[Canvas]) -> list[Detections]:
        with torch.inference_mode():
            batch = tuple(part.to(self._placed.device) for part in batch_of(canvases))
            return self._placed.resume(batch, 0, canvases)

    def _prediction(self, found: Detections, canvas: Canvas) -> Prediction:
        height, width = canvas.size
        return Prediction(
            boxes=found.boxes.numpy(),
            scores=found.scores.numpy(),
            labels=found.labels.numpy(),
            classes=self.classes,
            size=(width, height),
        )

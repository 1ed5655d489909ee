"""What everything that detects returns; without torch, because exported files run without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The objects found in one image, best first.

    Attributes:
        boxes: (N, 4) float32, xyxy, pixels of the upright image.
        scores: (N,) float32, 0 … 1.
        labels: (N,) int64, index into `classes`.
        classes: the names that the detector knows, in label order.
        size: (width, height) of the upright image, pixels.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def names(self) -> tuple[str, ...]:
        """The class of each object."""
        return tuple(self.classes[label] for label in self.labels)

    def take(self, chosen: NDArray[Any]) -> Prediction:
        """The chosen objects: a mask (N,) or indices, in the order given."""
        return Prediction(
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            classes=self.classes,
            size=self.size,
        )

    def at(self, size: tuple[int, int]) -> Prediction:
        """The same objects in an image of that (width, height), of which fewer pixels were decoded."""
        if size == self.size:
            return self
        factors = np.array([size[0] / self.size[0], size[1] / self.size[1]] * 2, dtype=np.float32)
        return replace(self, boxes=self.boxes * factors, size=size)


class Model(Protocol):
    """What detects: a torch detector on a device, or an exported file.

    `prepare` is called from several threads, while `detect` works on earlier images.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in label order."""

    @property
    def thresholds(self) -> dict[str, float]:
        """Class → score of the best F1 on left-out shots, as stored with the detector; empty if there are none."""

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, `cuda:0`, …."""

    @property
    def precision(self) -> str:
        """Of convolutions, `fp32` or `bf16`."""

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """An upright RGB image (H, W, 3) → what `detect` takes."""

    def detect(self, prepared: Sequence[Any]) -> list[Prediction]:
        """All detections of each image, whatever their score."""

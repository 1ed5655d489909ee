"""From images to detections: the one way in which this package detects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from fewshot_cli.datasets.images import image_size, read_image
from fewshot_cli.detectors.canvas import Canvas, batch_of
from fewshot_cli.detectors.chain import Activations, Detections, Detector
from fewshot_cli.detectors.device import choose_device, computes_in_bf16
from fewshot_cli.progress import Reporter, SilentReporter

BATCH = 8
"""Images that go through the detector together."""


class PlacedDetector:
    """A detector on its device: images in, detections out.

    Args:
        detector: in eval, already on `device`.
        device: where it computes.
        bf16: whether convolutions run in bfloat16.
    """

    def __init__(self, detector: Detector, device: torch.device, *, bf16: bool = False) -> None:
        self.detector = detector
        self.device = device
        self.bf16 = bf16

    @property
    def precision(self) -> str:
        """Of convolutions, `fp32` or `bf16`."""
        return "bf16" if self.bf16 else "fp32"

    @classmethod
    def place(cls, detector: Detector, device: str = "auto", precision: str = "auto") -> PlacedDetector:
        """Move a detector to a device and choose the precision, both as in FinetuneConfig; raises ConfigError."""
        place = choose_device(device)
        bf16 = computes_in_bf16(precision, place, detector)
        detector.place(place)
        return cls(detector, place, bf16=bf16)

    def detect(
        self, images: Sequence[Path], reporter: Reporter | None = None, description: str = "Detecting"
    ) -> list[Detections]:
        """Detections in each image file, in order; boxes in pixels of the upright image.

        Raises:
            DataError: an image cannot be read.
        """
        reporter = reporter or SilentReporter()
        found: list[Detections] = []
        with reporter.progress(description, len(images)) as task:
            for paths in batches(images):
                canvases = [self._canvas(path) for path in paths]
                batch = tuple(part.to(self.device) for part in batch_of(canvases))
                found += self.resume(batch, 0, canvases)
                task.advance(len(paths))
        return found

    def _canvas(self, path: Path) -> Canvas:
        width, height = image_size(path, decode=False)
        return self.detector.make_canvas(read_image(path)).of_size((height, width))

    def resume(self, activations: Activations, cut: int, canvases: Sequence[Canvas]) -> list[Detections]:
        """Detections from the input of layer `cut`, for features that were cached there.

        Args:
            activations: of a batch of images, on the device.
            canvases: of the same images; their pixels are not needed.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.detector.detect(activations, cut, canvases)


def batches(items: Sequence, size: int = BATCH) -> Iterator[Sequence]:
    """Consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]

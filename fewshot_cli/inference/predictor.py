"""A detector over the images of a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from fewshot_cli.datasets.images import read_image
from fewshot_cli.datasets.types import Split
from fewshot_cli.detectors.chain import Detections, Detector, batch_of
from fewshot_cli.progress import Reporter, SilentReporter

BATCH = 8


def detect_split(
    detector: Detector,
    split: Split,
    *,
    device: torch.device,
    bf16: bool = False,
    reporter: Reporter | None = None,
    description: str = "Detecting",
) -> list[Detections]:
    """Detections in every image of a split, in its order; boxes in pixels of the images."""
    reporter = reporter or SilentReporter()
    found: list[Detections] = []
    with reporter.progress(description, len(split.images)) as task:
        for images in _batches(split.images, BATCH):
            canvases = [detector.make_canvas(read_image(image.path)) for image in images]
            batch = tuple(part.to(device) for part in batch_of(canvases))
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                found += detector.detect(batch, 0, canvases)
            task.advance(len(images))
    return found


def _batches(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

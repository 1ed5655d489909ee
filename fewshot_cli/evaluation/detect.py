"""A detector over the pictures of a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from fewshot_cli.data.coco import Split
from fewshot_cli.data.images import read_image
from fewshot_cli.detectors.chain import Detections, Detector
from fewshot_cli.errors import DataError, closest
from fewshot_cli.evaluation.coco_metrics import Metrics, evaluate, to_results
from fewshot_cli.progress import Reporter, SilentReporter

BATCH = 8


def detect_split(
    detector: Detector,
    split: Split,
    *,
    device: torch.device,
    half: bool = False,
    reporter: Reporter | None = None,
    description: str = "Detecting",
) -> list[Detections]:
    """Detections in every picture of a split, in its order; boxes in pixels of the pictures."""
    reporter = reporter or SilentReporter()
    found: list[Detections] = []
    with reporter.progress(description, len(split.pictures)) as task:
        for pictures in _batches(split.pictures, BATCH):
            canvases = [detector.make_canvas(read_image(picture.path)) for picture in pictures]
            batch = torch.stack([canvas.pixels for canvas in canvases]).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                found += detector.detect((batch,), 0, canvases)
            task.advance(len(pictures))
    return found


def score(detections: Sequence[Detections], split: Split, classes: Sequence[str]) -> tuple[Metrics, list[dict]]:
    """COCO metrics of detections on a split, and the detections as COCO results.

    Args:
        detections: one per picture of the split; labels index `classes`.
        classes: the detector's. Those that the split does not know are left out, and the other way round:
            only classes known to both are measured.

    Raises:
        DataError: detector and split have no class in common.
    """
    common = [name for name in split.classes if name in classes]
    if not common:
        raise DataError(
            f"{split.annotations}: none of its classes ({', '.join(split.classes)}) is known to the detector",
            hint=closest(split.classes[0], classes),
        )
    category_of = dict(zip(split.classes, split.category_ids, strict=True))
    image_ids = [picture.id for picture in split.pictures]
    results = to_results(detections, image_ids, [category_of.get(name) for name in classes])
    return evaluate(_only(split, common), results), results


def _only(split: Split, names: list[str]) -> dict:
    document = split.to_coco()
    kept = {category["id"] for category in document["categories"] if category["name"] in names}
    document["categories"] = [category for category in document["categories"] if category["id"] in kept]
    document["annotations"] = [entry for entry in document["annotations"] if entry["category_id"] in kept]
    return document


def _batches(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

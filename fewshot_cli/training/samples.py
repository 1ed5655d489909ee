"""A few images with their detections, for trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.evaluation.coco_metrics import to_results
from fewshot_cli.inference.drawing import draw_boxes
from fewshot_cli.training.features import Features, detect_cached
from fewshot_cli.training.prepare import Prepared

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES = 8
"""The first so many images of the test set, or of the shots where there is none."""
SIDE = 640


def sample_images(prepared: Prepared, features: Features, data: Dataset) -> dict[str, Image]:
    """Test images (shots where there is no test set) with ground truth and detections, by name: `samples/1`, ….

    Raises:
        DataError: an image cannot be read.
    """
    split, cache, items = data.train, features.train, features.shots
    if data.test is not None and features.test is not None:
        split, cache, items = data.test, features.test, range(len(features.test))
    images = split.images[:SAMPLES]
    found = detect_cached(prepared.placed, features.cut, cache, items[:SAMPLES])
    category_of = dict(zip(split.classes, split.category_ids, strict=True))
    categories = [category_of.get(name) for name in prepared.detector.classes]
    results = to_results(found, [image.id for image in images], categories)
    classes = {number: name for name, number in category_of.items()}
    drawn = (draw_boxes(image, results, classes=classes, side=SIDE) for image in images)
    return {f"samples/{number}": image for number, image in enumerate(drawn, start=1)}

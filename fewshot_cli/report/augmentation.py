"""The contact sheet of an augmentation: before and after, with boxes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.operations import Sample, load_sample, make_variant
from fewshot_cli.datasets.store import Dataset
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.files import write_atomically
from fewshot_cli.inference.drawing import Mark, marked, sheet

SHOTS, VARIANTS, SIDE = 10, 7, 160
"""Shots on a sheet at most, variants of each, and pixels of an image."""
CANVAS = 640
"""Pixels that the variants of a sheet are made for: a large canvas. More would be lost on it."""


def write_contact_sheet(path: Path, data: Dataset, augmentation: Augmentation, seed: int) -> Path:
    """One row a shot: the image as it is, then its first variants, with the draws of `augment` and `finetune`.

    Raises:
        DataError: an image cannot be read.
        StorageError: the disk cannot be written.
    """
    rows = [_row(image, augmentation, seed) for image in data.train.images[:SHOTS]]
    drawn = sheet(rows, SIDE)
    write_atomically(path, lambda temporary: drawn.save(temporary, "JPEG", quality=88))
    return path


def _row(image: ImageRecord, augmentation: Augmentation, seed: int) -> tuple[str, list[Image.Image]]:
    sample = load_sample(image)
    keys = [(seed, image.id, copy) for copy in range(1, VARIANTS + 1)]
    variants = [make_variant(sample, augmentation, key, canvas=CANVAS) for key in keys]
    return f"{image.path.name}: as it is, then variants", [_drawn(shown) for shown in (sample, *variants)]


def _drawn(sample: Sample) -> Image.Image:
    return marked(to_pil_image(sample.image), [Mark(tuple(box)) for box in sample.boxes.tolist()], SIDE)

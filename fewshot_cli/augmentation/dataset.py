"""A data set with its variants written out, for other tools or to look at."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.transforms.v2.functional import to_pil_image

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.operations import Sample, load_sample, make_variant
from fewshot_cli.datasets.store import RECORD, Dataset, open_dataset, save_dataset
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.errors import DataError
from fewshot_cli.files import make_folder, storage_errors
from fewshot_cli.paths import check_target
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.temporary import temporary_folder

QUALITY = 95


def augment(
    source: PathLike[str] | str,
    target: PathLike[str] | str | None = None,
    *,
    copies: int,
    augmentation: Augmentation,
    seed: int,
    canvas: int | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Dataset:
    """Write a data set whose training images are the originals and `copies` − 1 variants of each.

    The test images, if there are any, are copied as they are. A variant is the one that `finetune` would make with the
    same seed for a canvas of that size. One image at a time is in memory.

    Args:
        source: a data set: its folder, a `Dataset` or a `FetchResult`.
        target: where the new one goes; default: beside it, named `SOURCE-augmented`.
        copies: images per shot, the original included.
        augmentation: what the variants go through.
        seed: of the variants.
        canvas: side in pixels of the square that will show them, to which they are shrunk (see `make_variant`); None:
            they keep all pixels.
        force: replace a data set at `target`.

    Raises:
        UsageError: `target` holds `source`, or the current folder.
        DataError: `target` exists and may not be replaced, or an image cannot be read.
        StorageError: the disk cannot be written.
    """
    reporter = reporter or SilentReporter()
    source = Path(source)
    data = open_dataset(source)
    target = Path(target) if target else default_target(source)
    check_target(target, [source])
    if target.exists() and not (force and (target / RECORD).is_file()):
        raise DataError(f"{target} exists already", hint="Give another --out, or replace a data set with --force.")
    record: dict[str, Any] = {"source": str(source)}
    record["augmentation"] = {"copies": copies, "ops": augmentation.to_json(), "seed": seed, "canvas": canvas}
    if data.detector:
        record["detector"] = data.detector
    make_folder(target.parent)
    with storage_errors(target), temporary_folder(target.parent) as folder:
        images = list(data.train.images)
        next_id = max(image.id for image in images) + 1
        with reporter.progress("Variants", len(data.train.images) * (copies - 1)) as task:
            for image in data.train.images:
                sample = load_sample(image)
                for copy in range(1, copies):
                    variant = make_variant(sample, augmentation, (seed, image.id, copy), canvas=canvas)
                    images.append(_write(variant, folder, image, copy, next_id))
                    next_id += 1
                    task.advance()
        train = replace(data.train, images=tuple(images))
        return save_dataset(target, train, data.test, record, overwrite=force)


def default_target(source: Path) -> Path:
    """Beside the data set: `NAME-augmented`."""
    return source.parent / f"{source.resolve().name}-augmented"


def _write(variant: Sample, folder: Path, original: ImageRecord, copy: int, image_id: int) -> ImageRecord:
    path = folder / f"{original.path.stem}_{original.id}_variant{copy:03}.jpg"
    to_pil_image(variant.image).save(path, quality=QUALITY)
    height, width = variant.image.shape[-2:]
    return ImageRecord(
        id=image_id,
        path=path,
        width=width,
        height=height,
        boxes=variant.boxes.numpy(),
        labels=variant.labels.numpy(),
        crowd=np.zeros(len(variant.boxes), dtype=bool),
    )

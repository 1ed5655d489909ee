"""A split written as COCO, annotations.json beside images/; and labels or detections of any images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fewshot_cli.datasets.formats.writing import Labelled
from fewshot_cli.datasets.images import copy_upright
from fewshot_cli.datasets.types import ImageRecord, Split, image_record, to_xywh
from fewshot_cli.files import make_folder, write_folder, write_json


def write_split(folder: Path, split: Split) -> Split:
    """Write `folder/annotations.json` and `folder/images/`, all or nothing, replacing what was there.

    Images are copied byte for byte, or written upright if they carry an EXIF orientation.

    Returns:
        the split as it now lies on disk, same ids and order.

    Raises:
        DataError: an image cannot be read.
        StorageError: the folder cannot be written.
    """
    write_folder(folder, lambda temporary: fill_split(temporary, split), overwrite=True)
    return _moved(split, folder)


def fill_split(folder: Path, split: Split) -> None:
    """Write a split into an existing empty folder; for use inside `write_folder`."""
    names = file_names(split.images)
    make_folder(folder / "images")
    for image in split.images:
        copy_upright(image.path, folder / "images" / names[image.id])
    # Numbered anew, so that train and test agree wherever they came from.
    document = replace(split, category_ids=()).to_coco()
    document["images"] = [image_record(image, names[image.id]) for image in split.images]
    document["licenses"] = [{"id": number, "name": text} for number, text in enumerate(split.licences, start=1)]
    write_json(folder / "annotations.json", document)


def file_names(images: Sequence[ImageRecord]) -> dict[int, str]:
    """Image id → a file name of its own in one flat folder: its old name, prefixed with the id if that is taken."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for image in images:
        name = image.path.name
        while name.casefold() in taken:
            name = f"{image.id}_{name}"
        taken.add(name.casefold())
        names[image.id] = name
    return names


def _moved(split: Split, folder: Path) -> Split:
    names = file_names(split.images)
    images = tuple(replace(image, path=folder / "images" / names[image.id]) for image in split.images)
    return replace(split, annotations=folder / "annotations.json", images=images, category_ids=())


# --- labels and detections ---


class _Writer:
    """detections.json: images by their names, annotations with a `score` where there is one."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._file = folder / "detections.json"
        self._ids = {name: number for number, name in enumerate(classes, start=1)}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, image: Labelled) -> None:
        number = len(self._images) + 1
        record = {"id": number, "file_name": image.name, "width": image.width, "height": image.height}
        self._images.append(record)
        scores = image.scores.tolist() if image.scores is not None else [None] * len(image.names)
        boxes = to_xywh(image.boxes.astype(np.float64).reshape(-1, 4)).tolist()
        for box, name, score in zip(boxes, image.names, scores, strict=True):
            annotation = {"id": len(self._annotations) + 1, "image_id": number, "category_id": self._ids[name]}
            shape = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            self._annotations.append({**annotation, **shape, **({} if score is None else {"score": score})})

    def close(self) -> None:
        categories = [{"id": number, "name": name} for name, number in self._ids.items()]
        document = {"images": self._images, "annotations": self._annotations, "categories": categories}
        write_json(self._file, document)


def open_writer(folder: Path, classes: Sequence[str]) -> _Writer:
    """See `writing.open_writer`; the file is written by `close`."""
    return _Writer(folder, classes)

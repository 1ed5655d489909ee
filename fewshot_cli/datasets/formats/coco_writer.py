"""A split written as COCO: annotations.json beside images/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewshot_cli.datasets.images import copy_upright
from fewshot_cli.datasets.types import ImageRecord, Split, image_record
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

"""Tiny data sets, drawn with Pillow: what the data tests read, and what is wrong with them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from fewshot_cli.datasets.formats import read_split
from fewshot_cli.errors import DatasetError

SIZE = (40, 30)
"""Width and height of a drawn image, pixels."""


def draw_image(path: Path, seed: int, size: tuple[int, int] = SIZE, *, orientation: int = 1) -> None:
    """An image whose content depends on the seed; stored with that EXIF orientation (6: lies on its side)."""
    colours = random.Random(seed)
    image = Image.new("RGB", size, tuple(colours.randrange(256) for _ in range(3)))
    ImageDraw.Draw(image).rectangle((5, 5, 15, 20), fill=tuple(colours.randrange(256) for _ in range(3)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95, exif=exif)


def document_of(contents: Sequence[Sequence[str]], classes: Sequence[str]) -> dict[str, Any]:
    """A COCO document; `contents[i]` names the class of each box of image i + 1."""
    boxes = [(image, name) for image, names in enumerate(contents, start=1) for name in names]
    return {
        "images": [
            {"id": image, "file_name": f"{image:04}.jpg", "width": SIZE[0], "height": SIZE[1]}
            for image in range(1, len(contents) + 1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": classes.index(name) + 1,
                "bbox": [5 + number % 3, 5, 11, 16],
                "area": 176,
                "iscrowd": 0,
            }
            for number, (image, name) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
    }


def write_document(folder: Path, document: Any, name: str = "annotations.json") -> Path:
    """Write what may be no COCO at all; NaN and Infinity pass."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder


def draw_coco(
    folder: Path, contents: Sequence[Sequence[str]], classes: Sequence[str] = ("cat", "dog"), *, seed: int = 0
) -> dict[str, Any]:
    """Fill `folder` with annotations.json and images/; returns the document, to be changed and written again."""
    document = document_of(contents, classes)
    for record in document["images"]:
        draw_image(folder / "images" / record["file_name"], seed * 10_000 + record["id"])
    write_document(folder, document)
    return document


def lay_out(folder: Path, files: dict[str, str | None]) -> Path:
    """Fill a folder: a text is a file with that text, None an image of SIZE."""
    for number, (name, text) in enumerate(files.items()):
        if text is None:
            draw_image(folder / name, number)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def faults(path: Path, **options: Any) -> list[str]:
    """The problems that a reader finds, as `file: record: reason`, files by their names."""
    with pytest.raises(DatasetError) as raised:
        read_split(path, **options)
    return [f"{Path(each.file).name}: {each.record}: {each.reason}" for each in raised.value.problems]

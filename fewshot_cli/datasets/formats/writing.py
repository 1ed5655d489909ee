"""Labels and detections written in the formats that people's tools read: one line in `WRITERS` each.

To make a format one that can be written:

1. Give its module `open_writer(folder, classes) -> LabelWriter` (see `open_writer` and `LabelWriter` below).
2. Add `"NAME": "fewshot_cli.datasets.formats.NAME"` to `WRITERS`.

Then `fsod predict --format NAME` writes it. What is written in a format of `FORMATS` is read again by `--source`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from fewshot_cli.errors import UsageError, closest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WRITERS: dict[str, str] = {
    "jsonl": "fewshot_cli.datasets.formats.jsonl",
    "coco": "fewshot_cli.datasets.formats.coco_writer",
    "csv": "fewshot_cli.datasets.formats.csv",
    "labelme": "fewshot_cli.datasets.formats.labelme",
    "labelstudio": "fewshot_cli.datasets.formats.labelstudio",
    "voc": "fewshot_cli.datasets.formats.voc",
    "yolo": "fewshot_cli.datasets.formats.yolo",
}
"""Name → module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """One image, or one frame of a video, with its labels or detections.

    Attributes:
        path: the image file, or the video.
        name: unique among the images written together, with slashes: `birds/0001.jpg`; labels are filed under it.
        width, height: of the upright image, pixels.
        boxes: (N, 4) xyxy, pixels, inside the image.
        names: the class of each box.
        scores: (N,) of detections; None for labels.
        frame: number of the frame, from 0; None for an image.
    """

    path: Path
    name: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    names: Sequence[str]
    scores: NDArray[np.float32] | None = None
    frame: int | None = None


class LabelWriter(Protocol):
    """Writes images one after another; what is on disk is valid whenever it is killed."""

    def add(self, image: Labelled) -> None:
        """Write the labels of one image, or keep them for `close`; raises StorageError."""

    def close(self) -> None:
        """Write what belongs to all images together; raises StorageError."""


def check_writer(format: str) -> None:
    """Raise UsageError for a name that is not in WRITERS."""
    if format not in WRITERS:
        raise UsageError(f"unknown format {format!r}", hint=closest(format, WRITERS))


def open_writer(format: str, folder: Path, classes: Sequence[str]) -> LabelWriter:
    """A writer of a format.

    Args:
        format: a name in WRITERS.
        folder: where files go; it exists.
        classes: in label order, for formats that number them.

    Raises:
        UsageError: an unknown format.
    """
    check_writer(format)
    return cast(LabelWriter, import_module(WRITERS[format]).open_writer(folder, tuple(classes)))

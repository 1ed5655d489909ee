"""JSON lines: one line an image or frame, written when it is known, so that a stopped program has lost none.

    {"image": "photos/a.jpg", "width": 640, "height": 480, "detections":
        [{"class": "helmet", "score": 0.91, "box": [12.1, 40.3, 118.0, 160.2]}]}

A frame of a video has its number, from 0, as `"frame"`. Boxes are xyxy, pixels of the upright image. Labels have no
score.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from fewshot_cli.datasets.formats.writing import Labelled
from fewshot_cli.files import storage_errors

NAME = "detections.jsonl"


def open_writer(folder: Path, classes: Sequence[str]) -> JsonLines:
    """A writer of `folder/detections.jsonl`; raises StorageError."""
    return JsonLines(folder / NAME)


def line_of(image: Labelled) -> str:
    """One image as a line without its end; ASCII, so that no file name can spoil it."""
    record: dict[str, Any] = {"image": str(image.path), "width": image.width, "height": image.height}
    if image.frame is not None:
        record["frame"] = image.frame
    return json.dumps({**record, "detections": _detections(image)})


def _detections(image: Labelled) -> list[dict[str, Any]]:
    boxes = [[round(value, 2) for value in box] for box in image.boxes.tolist()]
    if image.scores is None:
        return [{"class": name, "box": box} for name, box in zip(image.names, boxes, strict=True)]
    scores = [round(score, 5) for score in image.scores.tolist()]
    return [
        {"class": name, "score": score, "box": box} for name, score, box in zip(image.names, scores, boxes, strict=True)
    ]


class JsonLines:
    """A file of lines, each of them whole also on a disk that becomes full."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path):
            self._file = path.open("wb", buffering=0)

    def add(self, image: Labelled) -> None:
        """Write a line, which other programs can read at once; raises StorageError."""
        line = line_of(image).encode() + b"\n"
        whole = self._file.tell()
        try:
            with storage_errors(self._path):
                while line:
                    line = line[self._file.write(line) :]
        except BaseException:
            os.ftruncate(self._file.fileno(), whole)
            raise

    def close(self) -> None:
        """Nothing is left to write."""
        self._file.close()


class LineStream:
    """The same lines on a stream, e.g. for a pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, image: Labelled) -> None:
        """Write a line and flush it; raises StorageError if the stream goes to a file on a full disk."""
        with storage_errors(Path("standard output")):
            self._stream.write(line_of(image) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """The stream stays open."""

"""JSON lines of detections: one whole line an image."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fewshot_cli.datasets.formats.jsonl import JsonLines
from fewshot_cli.datasets.formats.writing import Labelled, open_writer
from fewshot_cli.errors import StorageError, UsageError


def labelled(name: str, *, frame: int | None = None, scores: bool = True) -> Labelled:
    return Labelled(
        path=Path("photos") / name,
        name=name,
        width=64,
        height=48,
        boxes=np.array([[1.234, 2, 30.5, 40]], dtype=np.float32),
        names=("helmet",),
        scores=np.array([0.9], dtype=np.float32) if scores else None,
        frame=frame,
    )


def test_a_line_says_what_was_found_where(tmp_path: Path) -> None:
    """Path, size, frame of a video, and each detection with class, score and xyxy box; labels have no score."""
    writer = open_writer("jsonl", tmp_path, ["helmet"])
    for image in (labelled("a.jpg"), labelled("b.mp4", frame=3), labelled("c.jpg", scores=False)):
        writer.add(image)
    writer.close()
    first, second, third = map(json.loads, (tmp_path / "detections.jsonl").read_text().splitlines())
    found = {"class": "helmet", "score": 0.9, "box": [1.23, 2.0, 30.5, 40.0]}
    assert {"image": "photos/a.jpg", "width": 64, "height": 48, "detections": [found]} == first
    assert 3 == second["frame"]
    assert {"class": "helmet", "box": [1.23, 2.0, 30.5, 40.0]} == third["detections"][0]


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    """So a killed program has lost none; a name that is no UTF-8 spoils nothing."""
    writer = JsonLines(tmp_path / "x.jsonl")
    writer.add(labelled(os.fsdecode(b"\xff.jpg")))
    (line,) = (tmp_path / "x.jsonl").read_text("ascii").splitlines()
    assert os.fsdecode(b"photos/\xff.jpg") == json.loads(line)["image"]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that did not fit is taken back, and the error names the file."""
    writer = JsonLines(tmp_path / "x.jsonl")
    writer.add(labelled("a.jpg"))
    real = writer._file

    class Full:
        """Takes ten bytes, then has no space left."""

        tell, fileno = real.tell, real.fileno

        def __init__(self) -> None:
            self.left = 10

        def write(self, data: bytes) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken, self.left = real.write(data[: self.left]), 0
            return taken

    monkeypatch.setattr(writer, "_file", Full())
    with pytest.raises(StorageError, match="x.jsonl: the disk is full"):
        writer.add(labelled("b.jpg"))
    assert ["photos/a.jpg"] == [json.loads(line)["image"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]


def test_an_unknown_format_is_a_usage_error(tmp_path: Path) -> None:
    """With the closest one."""
    with pytest.raises(UsageError) as caught:
        open_writer("jsnl", tmp_path, [])
    assert "Did you mean jsonl?" in str(caught.value.hint)

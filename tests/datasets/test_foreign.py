"""Formats that cannot be read are called by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_data import lay_out

from fewshot_cli.datasets.formats import format_name
from fewshot_cli.errors import DataError

FOLDERS: dict[str, tuple[dict[str, str | None], str]] = {
    "TFRecord": ({"train.tfrecord": "x"}, "TFRecord"),
    "archive": ({"photos.zip": "PK"}, "an archive: unpack it"),
    "KITTI": (
        {"label_2/1.txt": "Car 0.00 0 -1.5 10 20 30 40 1.5 1.6 3.7 1 1 20 0.1\n", "image_2/1.png": None},
        "KITTI",
    ),
    "DOTA": ({"labelTxt/1.txt": "10 10 20 10 20 20 10 20 plane 0\n", "pics/1.png": None}, "DOTA"),
    "Supervisely": ({"ann/1.jpg.json": '{"objects": [{"classTitle": "cat"}]}', "img/1.jpg": None}, "Supervisely"),
    "VIA": ({"via.json": '{"a.jpg1": {"regions": [{"shape_attributes": {}}]}}'}, "VGG Image Annotator"),
    "other columns": (
        {"boxes.csv": "picture,left,top\na.jpg,1,2\n", "a.jpg": None},
        "other columns ('picture,left,top')",
    ),
    "images alone": ({"a.jpg": None, "b.png": None}, "images without labels"),
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_foreign_format_is_named(folder: str, tmp_path: Path) -> None:
    """The error says what the folder looks like, and what would be read."""
    files, name = FOLDERS[folder]
    lay_out(tmp_path, files)
    with pytest.raises(DataError) as raised:
        format_name(tmp_path)
    assert name in raised.value.message
    assert "coco:" in (raised.value.hint or "")

"""Files as the real tools write them (see exports/README.md) are recognised and read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_data import draw_image

from fewshot_cli.datasets.formats import format_name, read_split, train_and_test

EXPORTS = Path(__file__).parent / "exports"
NAMES = {"a.jpg": 1, "b.jpg": 2, "empty.jpg": 3}
UPLOADED = {f"1a2b3c4{number}-{name}": number for name, number in NAMES.items()}
CAT, DOG, WHOLE = (5, 4, 15, 20), (20.5, 10.25, 35, 28), (0, 0, 40, 30)

CASES = [
    # folder, format, where its images are, their names, and how far boxes may be off: VOC has whole pixels
    ("labelme_embedded", "labelme", None, {}, 0),
    ("labelstudio_json", "labelstudio", ".", UPLOADED, 1e-5),
    ("labelstudio_coco", "coco", "images", UPLOADED, 1e-5),
    ("labelstudio_yolo", "yolo", "images", UPLOADED, 1e-5),
    ("labelstudio_voc", "voc", "images", UPLOADED, 1.01),
    ("fiftyone_cvat", "cvat", "data", NAMES, 1.01),
    ("fiftyone_voc", "voc", "data", NAMES, 1.01),
    ("fiftyone_yolov5", "yolo", "images/train", NAMES, 1e-3),
    ("fiftyone_yolov4", "yolo", "data", NAMES, 1e-3),
    ("supervision_yolo", "yolo", "images", NAMES, 1e-3),
    ("supervision_voc", "voc", "images", NAMES, 1.51),
    ("supervision_labelme", "labelme", ".", NAMES, 1e-5),
]


@pytest.mark.parametrize(("folder", "format", "images", "names", "tolerance"), CASES, ids=[case[0] for case in CASES])
def test_an_export_reads_as_it_was_labelled(
    folder: str, format: str, images: str | None, names: dict[str, int], tolerance: float, tmp_path: Path
) -> None:
    """Its format is found, and its classes, boxes and background images are those of the tool."""
    place = tmp_path / folder
    shutil.copytree(EXPORTS / folder, place)
    for name, number in names.items():
        draw_image(place / (images or ".") / name, number)
    assert format == format_name(place)
    split = read_split(train_and_test(place).train or place)
    assert ("cat", "dog") == split.classes
    boxes = {image.path.stem.split("-")[-1]: image for image in split.images}
    assert pytest.approx(np.array([CAT, DOG]), abs=tolerance) == boxes["a"].boxes
    assert pytest.approx(np.array([WHOLE]), abs=tolerance) == boxes["b"].boxes
    assert ([0, 1], [1]) == (boxes["a"].labels.tolist(), boxes["b"].labels.tolist())
    # Label Studio writes no VOC file for an image without boxes.
    assert 0 == (len(boxes["empty"].boxes) if folder != "labelstudio_voc" else 0)

"""What is written in a format reads as the same boxes, within the precision of the format."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from helpers_data import draw_image
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.formats.writing import WRITERS, Labelled, open_writer
from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import DataError, StorageError, UsageError

SIZE = (120, 90)
CLASSES = ("helmet", "Coffee cup", "größe <&> 'x'")
PRECISION = {"coco": 1e-4, "csv": 1e-3, "labelme": 1e-4, "labelstudio": 1e-4, "voc": 1.0, "yolo": 1e-4}
"""Pixels: whole ones in VOC, seven decimals of a share in YOLO, three of a pixel in CSV."""

OWN = sorted(PRECISION)


@st.composite
def box(draw: st.DrawFn) -> tuple[float, float, float, float]:
    """A box of two pixels or more inside the image."""
    x1, y1 = draw(st.floats(0, SIZE[0] - 2, width=32)), draw(st.floats(0, SIZE[1] - 2, width=32))
    return x1, y1, draw(st.floats(x1 + 2, SIZE[0])), draw(st.floats(y1 + 2, SIZE[1]))


image_boxes = st.lists(st.tuples(box(), st.sampled_from(CLASSES)), max_size=4)


def labelled(path: Path, name: str, boxes: list[Any], *, scored: bool = True, frame: int | None = None) -> Labelled:
    return Labelled(
        path=path,
        name=name,
        width=SIZE[0],
        height=SIZE[1],
        boxes=np.array([each for each, _ in boxes], np.float32).reshape(-1, 4),
        names=[label for _, label in boxes],
        scores=np.linspace(0.9, 0.1, len(boxes), dtype=np.float32) if scored else None,
        frame=frame,
    )


def write(format: str, folder: Path, images: dict[str, list[Any]], *, scored: bool = True) -> None:
    """Draw images and write their boxes."""
    writer = open_writer(format, folder, CLASSES)
    for number, (name, boxes) in enumerate(images.items()):
        draw_image(folder / "images" / name, number, SIZE)
        writer.add(labelled(folder / "images" / name, name, boxes, scored=scored))
    writer.close()


def read(format: str, folder: Path) -> Split:
    """Read what was written, where a person would point to."""
    if format == "labelstudio":
        _accept(folder / "tasks.json")
    place = {"coco": "detections.json", "csv": "detections.csv", "labelme": "labelme", "labelstudio": "tasks.json"}
    return read_split(folder / place.get(format, ""), format=format)


def _accept(file: Path) -> None:
    """Turn predictions into annotations, as a person does in Label Studio who submits a pre-label."""
    tasks = json.loads(file.read_text())
    for task in tasks:
        task["annotations"] = [{"id": 1, "result": task.pop("predictions")[0]["result"]}]
    file.write_text(json.dumps(tasks))


@pytest.mark.parametrize("format", OWN)
@settings(max_examples=15, deadline=None)
@given(first=image_boxes, second=image_boxes, scored=st.booleans())
def test_what_is_written_reads_the_same(format: str, first: list[Any], second: list[Any], scored: bool) -> None:
    """Images in folders, classes with odd names, images without boxes: all come back."""
    images = {"a.jpg": first, "deep/er/b.jpg": second}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(format, folder, images, scored=scored)
        split = read(format, folder)
        found = {image.path.name: image for image in split.images}
        for name, boxes in images.items():
            image = found[PurePosixPath(name).name]
            assert [label for _, label in boxes] == [split.classes[label] for label in image.labels]
            assert (
                pytest.approx(np.array([each for each, _ in boxes]).reshape(-1, 4), abs=PRECISION[format])
                == image.boxes
            )


@pytest.mark.parametrize("format", sorted(WRITERS))
def test_a_writer_that_never_gets_an_image_leaves_valid_files(format: str, tmp_path: Path) -> None:
    """Closed at once, it is no error."""
    writer = open_writer(format, tmp_path, CLASSES)
    writer.close()


@pytest.mark.parametrize("format", ["yolo", "voc", "labelme", "csv"])
def test_labels_are_on_disk_as_soon_as_they_are_added(format: str, tmp_path: Path) -> None:
    """A call that is killed before `close` loses nothing of these formats."""
    draw_image(tmp_path / "images" / "a.jpg", 1, SIZE)
    writer = open_writer(format, tmp_path, CLASSES)
    writer.add(labelled(tmp_path / "images" / "a.jpg", "a.jpg", [((1, 2, 30, 40), "helmet")]))
    (image,) = read(format, tmp_path).images
    assert pytest.approx(np.array([[1, 2, 30, 40]]), abs=1e-4) == image.boxes


@pytest.mark.parametrize("format", sorted(WRITERS))
def test_frames_of_a_video_are_filed_under_their_names(format: str, tmp_path: Path) -> None:
    """A frame has a name and no image file; its labels are written all the same. JSON lines hold its number."""
    writer = open_writer(format, tmp_path, CLASSES)
    frame = labelled(tmp_path / "clip.mp4", "clip.mp4/000012", [((1, 2, 30, 40), "helmet")], frame=12)
    writer.add(frame)
    writer.close()
    text = "".join(f"{path} {path.read_text()}" for path in tmp_path.rglob("*") if path.is_file())
    assert ('"frame": 12' if format == "jsonl" else "000012") in text


def test_an_unknown_format_lists_the_valid_ones(tmp_path: Path) -> None:
    """With the closest name."""
    with pytest.raises(UsageError, match="unknown format 'yollo'") as raised:
        open_writer("yollo", tmp_path, CLASSES)
    assert (raised.value.hint or "").startswith("Did you mean yolo?")


def test_images_of_one_name_but_for_the_suffix(tmp_path: Path) -> None:
    """YOLO has one label file for both and says so; VOC and LabelMe keep them apart."""
    images = {"a.jpg": [((1, 2, 30, 40), "helmet")], "a.png": [((5, 6, 70, 80), "helmet")]}
    with pytest.raises(DataError, match=r"a\.png and a\.jpg have the same name for YOLO: a\.txt"):
        write("yolo", tmp_path / "yolo", images)
    for format in ("voc", "labelme"):
        write(format, tmp_path / format, images)
        boxes = sorted(image.boxes.tolist() for image in read(format, tmp_path / format).images)
        assert [[[1, 2, 30, 40]], [[5, 6, 70, 80]]] == boxes


def test_labelme_files_lie_beside_their_images(tmp_path: Path) -> None:
    """A link to the image or a copy of it; an image that lies there already stays, and the original is untouched."""
    draw_image(tmp_path / "photos" / "a.jpg", 1, SIZE)
    before = (tmp_path / "photos" / "a.jpg").read_bytes()
    for _ in range(2):
        writer = open_writer("labelme", tmp_path, CLASSES)
        writer.add(labelled(tmp_path / "photos" / "a.jpg", "a.jpg", [((1, 2, 30, 40), "helmet")]))
        writer.close()
    document = json.loads((tmp_path / "labelme" / "a.json").read_text())
    assert ("a.jpg", None, 90, 120) == tuple(
        document[key] for key in ("imagePath", "imageData", "imageHeight", "imageWidth")
    )
    assert "score 0.900" == document["shapes"][0]["description"]
    assert before == (tmp_path / "labelme" / "a.jpg").read_bytes() == (tmp_path / "photos" / "a.jpg").read_bytes()


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the image cannot be linked, LabelMe's folder holds a copy."""
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(18, "cross-device link")))
    draw_image(tmp_path / "photos" / "a.jpg", 1, SIZE)
    writer = open_writer("labelme", tmp_path, CLASSES)
    writer.add(labelled(tmp_path / "photos" / "a.jpg", "a.jpg", []))
    assert not (tmp_path / "labelme" / "a.jpg").samefile(tmp_path / "photos" / "a.jpg")
    assert 1 == len(read("labelme", tmp_path).images)


def test_a_full_disk_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV row that does not fit is taken back, and the error is one of storage."""
    writer = open_writer("csv", tmp_path, CLASSES)
    writer.add(labelled(tmp_path / "a.jpg", "a.jpg", [((1, 2, 30, 40), "helmet")]))
    whole = (tmp_path / "detections.csv").read_bytes()
    monkeypatch.setattr("fewshot_cli.datasets.formats.csv._write", _half)
    with pytest.raises(StorageError, match="the disk is full"):
        writer.add(labelled(tmp_path / "b.jpg", "b.jpg", [((1, 2, 30, 40), "helmet")]))
    assert whole == (tmp_path / "detections.csv").read_bytes()


def _half(file: Path, content: bytes) -> None:
    """Half of what is written fits."""
    with file.open("ab") as stream:
        stream.write(content[: len(content) // 2])
    raise OSError(28, "No space left on device")


def test_detections_of_coco_have_scores_and_labels_have_none(tmp_path: Path) -> None:
    """`score` is there for detections only, and categories are numbered from 1 in label order."""
    for scored in (True, False):
        folder = tmp_path / str(scored)
        write("coco", folder, {"a.jpg": [((1, 2, 30, 40), "Coffee cup")]}, scored=scored)
        document = json.loads((folder / "detections.json").read_text())
        (annotation,) = document["annotations"]
        assert scored == ("score" in annotation)
        assert (2, [1, 2, 29, 38]) == (annotation["category_id"], annotation["bbox"])
        assert [1, 2, 3] == [category["id"] for category in document["categories"]]
        shutil.rmtree(folder)


def test_label_studio_gets_an_interface_and_predictions(tmp_path: Path) -> None:
    """The labels of the interface are the classes, quoted as XML needs it; a task has a prediction and its score."""
    from defusedxml.ElementTree import fromstring

    write("labelstudio", tmp_path, {"a b.jpg": [((12, 9, 60, 45), "helmet")]})
    root = fromstring((tmp_path / "label_config.xml").read_text())
    assert list(CLASSES) == [label.get("value") for label in root.iter("Label")]
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert "/data/local-files/?d=a%20b.jpg" == task["data"]["image"]
    (prediction,) = task["predictions"]
    value = prediction["result"][0]["value"]
    assert pytest.approx(0.9) == prediction["score"]
    assert pytest.approx([10, 10, 40, 40]) == [value[key] for key in ("x", "y", "width", "height")]

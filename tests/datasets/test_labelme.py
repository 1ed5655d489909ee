"""LabelMe folders: shapes become boxes, images are found or taken out of the file, nothing leads out."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from helpers_data import draw_image, faults, lay_out
from PIL import Image

from fewshot_cli.datasets.formats import format_name, labelme, read_split
from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def shape(label: Any = "dog", points: Any = ((5, 4), (15, 20)), kind: str = "rectangle") -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}}


def document(*shapes: dict[str, Any], **changes: Any) -> str:
    whole = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": None}
    return json.dumps({**whole, "imageHeight": 30, "imageWidth": 40, **changes})


def embedded(seed: int = 1, size: tuple[int, int] = (40, 30)) -> str:
    content = io.BytesIO()
    Image.new("RGB", size, (seed, 2, 3)).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize(
    ("points", "kind", "box"),
    [
        ([[15, 20], [5, 4]], "rectangle", [5, 4, 15, 20]),
        ([[5, 4], [15, 9], [10, 20]], "polygon", [5, 4, 15, 20]),
        ([[10, 12], [14, 15]], "circle", [5, 7, 15, 17]),
        ([[5, 4], [15, 4], [15, 20], [5, 20]], "oriented_rectangle", [5, 4, 15, 20]),
        ([[5, 4], [15, 20]], "mask", [5, 4, 15, 20]),
        ([[-0.4, 4], [15, 30.3]], "rectangle", [0, 4, 15, 30]),
    ],
)
def test_shapes_with_an_area_become_boxes(points: Any, kind: str, box: list[float], tmp_path: Path) -> None:
    """The box around the shape, clipped where it was drawn over the edge by less than a pixel."""
    lay_out(tmp_path / "set", {"a.json": document(shape("dog", points, kind)), "a.jpg": None})
    assert "labelme" == format_name(tmp_path / "set")
    split = read_split(tmp_path / "set")
    assert (("dog",), [box]) == (split.classes, split.images[0].boxes.tolist())


def test_points_and_lines_have_no_box(tmp_path: Path) -> None:
    """They are left out and counted; a file without shapes is a background image, an image without a file is not."""
    points = shape("dog", [[5, 4]], "point"), shape("dog", [[5, 4], [9, 9]], "line"), shape()
    files = {
        "a.json": document(*points),
        "a.jpg": None,
        "b.json": document(imagePath="b.jpg"),
        "b.jpg": None,
        "c.jpg": None,
    }
    split = read_split(lay_out(tmp_path / "set", files))
    assert [1, 0] == [len(image.boxes) for image in split.images]
    assert (
        "points and lines, left out as they have no box: 2",
        "images without a .json file, left out as not labelled: 1",
    ) == split.remarks


@pytest.mark.parametrize(
    ("path", "image"),
    [
        ("../photos/a.jpg", "photos/a.jpg"),
        ("..\\photos\\a.jpg", "photos/a.jpg"),
        ("C:\\Users\\me\\a.jpg", "labels/a.jpg"),
        ("/home/me/photos/a.jpg", "labels/a.jpg"),
        ("../../elsewhere/a.jpg", "labels/a.jpg"),
    ],
)
def test_the_image_is_found_inside_the_folder(path: str, image: str, tmp_path: Path) -> None:
    """At its path, also one of Windows, if that stays inside; else beside the file, by its base name."""
    home = lay_out(tmp_path / "set", {"labels/a.json": document(shape(), imagePath=path), image: None})
    (found,) = read_split(home).images
    assert (home / image, "labels/a.jpg") == (found.path, found.name)


def test_an_image_outside_is_not_read(tmp_path: Path) -> None:
    """A path that leads out shows nothing, and an absolute one neither: the message says what was looked for."""
    draw_image(tmp_path / "secret.jpg", 1)
    for path in ("../secret.jpg", str(tmp_path / "secret.jpg")):
        home = lay_out(tmp_path / "set", {"a.json": document(shape(), imagePath=path)})
        assert "is neither there nor beside the file, and none is embedded" in faults(home)[0]


def test_an_embedded_image_is_taken_where_there_is_no_file(cache: Path, tmp_path: Path) -> None:
    """It is kept in the cache under its content, so that two files of one name do not meet."""
    files = {
        f"{folder}/a.json": document(shape(), imagePath="..\\lost\\photo.png", imageData=embedded(seed))
        for folder, seed in (("one", 1), ("two", 2))
    }
    images = read_split(lay_out(tmp_path / "set", files)).images
    assert {(1, 2, 3), (2, 2, 3)} == {Image.open(image.path).getpixel((0, 0)) for image in images}
    assert ["one/a.png", "two/a.png"] == [image.name for image in images]
    assert all(image.path.is_relative_to(cache) for image in images)


EMBEDDED = {
    "not base64": ({"imageData": "%%%"}, "the embedded image is not base64"),
    "no image": ({"imageData": base64.b64encode(b"spoiled").decode()}, "not readable as an image"),
    "another size": ({"imageData": embedded(size=(8, 8))}, "the annotations say 40×30 pixels, the image has 8×8"),
}


@pytest.mark.parametrize(("changes", "reason"), EMBEDDED.values(), ids=EMBEDDED)
def test_a_spoiled_embedded_image_is_a_problem(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """It is decoded and checked like any other image."""
    home = lay_out(tmp_path / "set", {"a.json": document(shape(), imagePath="no.jpg", **changes)})
    assert reason in faults(home)[0]


def test_an_embedded_image_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing larger than a photograph is decoded."""
    monkeypatch.setattr(labelme, "LARGEST_EMBEDDED", 50)
    home = lay_out(tmp_path / "set", {"a.json": document(shape(), imagePath="no.jpg", imageData=embedded())})
    assert "the embedded image has more than" in faults(home)[0]


FAULTS = {
    "no JSON": ("{", "not valid JSON"),
    "nested": ("[" * 100_000, "not valid JSON"),
    "no list": ('{"shapes": {}}', '"shapes" is not a list: {}'),
    "no path": (document(shape(), imagePath=3), "imagePath is not a non-empty string: 3"),
    "no points": (document(shape(points=None)), "shape 1: points is not a list of two or more pairs"),
    "one point": (document(shape(points=[[1, 2]])), "shape 1: points is not a list of two or more pairs"),
    "text": (document(shape(points=[[1, "x"], [3, 4]])), "shape 1: points is not a list"),
    "NaN": (document(shape(points=[[1, float("nan")], [3, 4]])), "shape 1: points is not a list"),
    "no label": (document(shape(label=None)), "shape 1: the class is not a non-empty string: None"),
    "no shape": (document("x"), "shape 1: points is not a list"),  # type: ignore[arg-type]
    "outside": (document(shape(points=[[1, 2], [300, 4]])), "shape 1: box 1, 2, 300, 4 leaves the image of 40×30"),
    "wrong size": (document(shape(), imageWidth=41), "the annotations say 41×30 pixels, the image has 40×30"),
}


@pytest.mark.parametrize(("text", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_file_and_shape(text: str, reason: str, tmp_path: Path) -> None:
    """The JSON file, the shape and the reason; nothing is raised but a DatasetError."""
    home = lay_out(
        tmp_path / "set", {"0.json": document(imagePath="0.jpg"), "0.jpg": None, "a.json": text, "a.jpg": None}
    )
    assert any(reason in found for found in faults(home))


def test_two_files_of_one_image_are_a_problem(tmp_path: Path) -> None:
    """Whose labels count would be a guess."""
    home = lay_out(tmp_path / "set", {"a.json": document(shape()), "b.json": document(shape()), "a.jpg": None})
    assert [f"b.json: : a.jpg has labels already: {home / 'a.json'}"] == faults(home)


def test_files_of_other_programs_are_left_out(tmp_path: Path) -> None:
    """JSON without shapes beside LabelMe's is counted, so that the folder that `predict` wrote is a source."""
    home = lay_out(
        tmp_path / "set",
        {"predict.json": '{"command": "predict"}', "labelme/a.json": document(shape()), "labelme/a.jpg": None},
    )
    split = read_split(home)
    assert ["a.jpg"] == [image.path.name for image in split.images]
    assert ("JSON files without shapes, left out as not LabelMe's: 1",) == split.remarks


def test_a_set_with_splits_opens(tmp_path: Path) -> None:
    """Folders train/ and test/ with LabelMe files are a data set."""
    lay_out(
        tmp_path / "set",
        {
            f"{name}/a.{end}": document(shape()) if end == "json" else None
            for name in ("train", "test")
            for end in ("json", "jpg")
        },
    )
    assert (1, 1) == tuple(
        len(split.images)
        for split in (open_dataset(tmp_path / "set").train, open_dataset(tmp_path / "set").require_test())
    )


def test_an_absolute_path_reads_nothing_outside_the_folder(tmp_path: Path) -> None:
    """An image that is there, elsewhere, is not taken."""
    draw_image(tmp_path / "elsewhere" / "secret.jpg", 1)
    folder = tmp_path / "set"
    folder.mkdir()
    shape = {"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    for path in (str(tmp_path / "elsewhere" / "secret.jpg"), "../elsewhere/secret.jpg"):
        (folder / "a.json").write_text(json.dumps({"shapes": [shape], "imagePath": path}))
        with pytest.raises(DataError, match="is neither there nor beside the file, and none is embedded"):
            read_split(folder, format="labelme")

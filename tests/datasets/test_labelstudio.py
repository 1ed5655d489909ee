"""Label Studio's JSON: the annotation that counts, images by the names they have here, regions as boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_data import draw_image, faults, lay_out

from fewshot_cli.datasets.formats import format_name, read_split
from fewshot_cli.errors import DataError


def region(value: dict[str, Any] | None = None, kind: str = "rectanglelabels", **more: Any) -> dict[str, Any]:
    whole = {"x": 12.5, "y": 10, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": ["dog"]}
    return {
        "id": "r",
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "value": whole if value is None else value,
        **more,
    }


def annotation(*regions: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "was_cancelled": False, "result": list(regions), **more}


def task(*annotations: Any, image: str = "/data/upload/1/1a2b3c4d-a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": 7, "annotations": list(annotations), "data": {"image": image}, **more}


def write(folder: Path, *tasks: Any, name: str = "result.json") -> Path:
    return lay_out(folder, {name: json.dumps(list(tasks))})


BOX = [5, 3, 15, 18]


@pytest.mark.parametrize(
    ("address", "image"),
    [
        ("/data/upload/1/1a2b3c4d-a.jpg", "1a2b3c4d-a.jpg"),
        ("/data/upload/1/1a2b3c4d-a.jpg", "a.jpg"),
        ("/data/upload/1/1a2b3c4d-a.jpg", "images/1a2b3c4d-a.jpg"),
        ("/data/upload/1/1a2b3c4d-a.jpg", "upload/1/1a2b3c4d-a.jpg"),
        ("\\data\\upload\\1\\1a2b3c4d-a.jpg", "a.jpg"),
        ("/data/local-files/?d=photos/a%20b.jpg", "photos/a b.jpg"),
        ("https://example.org/photos/a.jpg?token=1", "images/a.jpg"),
        ("s3://bucket/photos/a.jpg", "a.jpg"),
        ("file:///C:/photos/a.jpg", "photos/a.jpg"),
        ("a.jpg", "a.jpg"),
    ],
)
def test_an_image_is_found_by_the_end_of_its_address(address: str, image: str, tmp_path: Path) -> None:
    """Uploads, local storage, addresses of servers and of Windows: nothing is downloaded."""
    draw_image(tmp_path / image, 1)
    write(tmp_path, task(annotation(region()), image=address))
    (found,) = read_split(tmp_path).images
    assert (tmp_path / image, [BOX]) == (found.path, found.boxes.tolist())


@pytest.mark.parametrize("name", ["result.json", "project-1-at-2026-11-24.json"])
def test_a_folder_and_its_file_read_the_same(name: str, tmp_path: Path) -> None:
    """result.json, or whatever the only list of tasks is called."""
    draw_image(tmp_path / "a.jpg", 1)
    write(tmp_path, task(annotation(region())), name=name)
    for place in (tmp_path, tmp_path / name):
        assert ("labelstudio", ("dog",)) == (format_name(place), read_split(place).classes)


@pytest.mark.parametrize(
    ("value", "kind", "box"),
    [
        (
            {"x": 50, "y": 50, "width": 25, "height": 10, "rotation": 90, "rectanglelabels": ["dog"]},
            "rectanglelabels",
            [17, 15, 20, 25],
        ),
        ({"points": [[12.5, 10], [37.5, 40], [20, 60]], "polygonlabels": ["dog"]}, "polygonlabels", BOX),
        (
            {"x": 25, "y": 40, "radiusX": 12.5, "radiusY": 10, "rotation": 0, "ellipselabels": ["dog"]},
            "ellipselabels",
            [5, 9, 15, 15],
        ),
        (
            {"x": -0.5, "y": 10, "width": 25, "height": 50, "rectanglelabels": ["dog"]},
            "rectanglelabels",
            [0, 3, 9.8, 18],
        ),
    ],
)
def test_regions_with_an_area_become_boxes(value: dict[str, Any], kind: str, box: list[float], tmp_path: Path) -> None:
    """Per cent of the image become pixels; a turned rectangle turns about its corner; a rounded edge is clipped."""
    draw_image(tmp_path / "a.jpg", 1)
    write(tmp_path, task(annotation(region(value, kind))))
    assert pytest.approx(box, abs=1e-4) == read_split(tmp_path).images[0].boxes[0].tolist()


def test_a_label_may_stand_beside_its_region(tmp_path: Path) -> None:
    """<Rectangle> with <Labels>: two records of one id are one box; relations and brush strokes are none."""
    shape = {"x": 12.5, "y": 10, "width": 25, "height": 50}
    draw_image(tmp_path / "a.jpg", 1)
    records = [
        region(shape, "rectangle"),
        region({**shape, "labels": ["dog"]}, "labels"),
        region({"format": "rle", "brushlabels": ["dog"]}, "brushlabels", id="s"),
        {"type": "relation", "from_id": "r", "to_id": "s"},
    ]
    write(tmp_path, task(annotation(*records)))
    split = read_split(tmp_path)
    assert ([BOX], 1) == (split.images[0].boxes.tolist(), len(split.remarks))


def test_the_annotation_that_counts(tmp_path: Path) -> None:
    """Ground truth, else the newest; cancelled ones never; tasks without any are not labelled; several are counted."""
    for name in "abcde":
        draw_image(tmp_path / f"{name}.jpg", ord(name))
    old, new = {"updated_at": "2026-01-01T00:00:00Z"}, {"updated_at": "2026-02-01T00:00:00Z"}
    cat = region({**region()["value"], "rectanglelabels": ["cat"]})
    write(
        tmp_path,
        task(annotation(cat, **new), annotation(region(), **old), image="a.jpg"),
        task(annotation(region(), **new), annotation(cat, ground_truth=True, **old), image="b.jpg"),
        task(annotation(region(), was_cancelled=True, **new), annotation(cat, **old), image="c.jpg"),
        task(annotation(), image="d.jpg"),
        task(predictions=[annotation(region())], image="e.jpg"),
    )
    split = read_split(tmp_path)
    assert {"a": ["cat"], "b": ["cat"], "c": ["cat"], "d": []} == {
        image.path.stem: [split.classes[label] for label in image.labels] for image in split.images
    }
    assert {
        "tasks with several annotations, of which the ground truth or the newest is taken: 2",
        "tasks without an annotation, left out as not labelled: 1",
    } == set(split.remarks)


FAULTS = {
    "JSON-MIN": ({"id": 7, "image": "a.jpg", "label": []}, 'task 7: has no "data" and "annotations"'),
    "no object": (3, 'task at position 0: has no "data" and "annotations"'),
    "no image": (task(annotation(region()), image="no.jpg"), "task 7: 'no.jpg' does not exist in"),
    "no address": ({**task(annotation(region())), "data": {}}, "task 7: no file is named"),
    "no result": (task({"id": 1, "result": None}), 'task 7: "result" is not a list'),
    "no value": (task(annotation({"type": "rectanglelabels"})), "task 7, region 1: has no value"),
    "no label": (task(annotation(region({"x": 1, "y": 1, "width": 3, "height": 3}))), "task 7, region 1: has no label"),
    "odd label": (
        task(annotation(region({**region()["value"], "rectanglelabels": [3]}))),
        "task 7, region 1: the class is not",
    ),
    "odd number": (
        task(annotation(region({**region()["value"], "x": "1"}))),
        "task 7, region 1: x, y, width, height are not all",
    ),
    "two points": (
        task(annotation(region({"points": [[1, 2], [3, 4]], "polygonlabels": ["dog"]}, "polygonlabels"))),
        "points is not a list",
    ),
    "outside": (task(annotation(region({**region()["value"], "x": 90}))), "task 7, region 1: box 36, 3, 46, 18 leaves"),
    "rotated": (task(annotation(region(image_rotation=90))), "the image was rotated in Label Studio"),
}


@pytest.mark.parametrize(("record", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_task_and_region(record: Any, reason: str, tmp_path: Path) -> None:
    """The task, the region and the reason."""
    draw_image(tmp_path / "a.jpg", 1)
    write(tmp_path, record)
    assert any(reason in found for found in faults(tmp_path))


def test_no_address_leads_out(tmp_path: Path) -> None:
    """`..` and absolute paths show nothing outside the folder."""
    draw_image(tmp_path / "secret.jpg", 1)
    for address in (
        "../secret.jpg",
        "/data/local-files/?d=../secret.jpg",
        str(tmp_path / "secret.jpg"),
        "file://" + str(tmp_path / "secret.jpg"),
    ):
        write(tmp_path / "set", task(annotation(region()), image=address))
        assert any("secret.jpg' does not exist in" in found for found in faults(tmp_path / "set"))


@pytest.mark.parametrize("text", ['{"tasks": []}', "[", "[" * 100_000, '"text"'])
def test_what_is_no_list_of_tasks_is_a_problem_of_the_file(text: str, tmp_path: Path) -> None:
    """Another document, half a file, a nest of lists."""
    lay_out(tmp_path, {"result.json": text})
    assert 1 == len(faults(tmp_path / "result.json", format="labelstudio"))
    with pytest.raises(DataError, match="holds no tasks of Label Studio"):
        read_split(tmp_path / "nothing", format="labelstudio")

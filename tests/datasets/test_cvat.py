"""CVAT for images: shapes become boxes, nested names keep their folder, video tracks are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_data import faults, lay_out

from fewshot_cli.datasets.formats import format_name, read_split


def image(*shapes: str, name: str = "a.jpg", number: int = 0, more: str = "") -> str:
    return f'<image id="{number}" name="{name}" width="40" height="30" {more}>{"".join(shapes)}</image>'


def box(label: str = "dog", corners: tuple[object, ...] = (5, 4, 15, 20), more: str = "") -> str:
    x1, y1, x2, y2 = corners
    return f'<box label="{label}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" occluded="0" {more}><attribute name="a">1</attribute></box>'


def xml(*images: str) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta/>{"".join(images)}</annotations>'


@pytest.mark.parametrize("images", ["images/a.jpg", "a.jpg"])
def test_a_folder_and_its_file_read_the_same(images: str, tmp_path: Path) -> None:
    """Images in images/ or beside annotations.xml."""
    lay_out(tmp_path, {"annotations.xml": xml(image(box(), box("cat"))), images: None})
    for place in (tmp_path, tmp_path / "annotations.xml"):
        assert "cvat" == format_name(place)
        split = read_split(place)
        assert (("cat", "dog"), [1, 0]) == (split.classes, split.images[0].labels.tolist())
        assert [[5, 4, 15, 20]] * 2 == split.images[0].boxes.tolist()


def test_nested_names_keep_their_folder(tmp_path: Path) -> None:
    """The same base name in two folders is two images; a backslash and a subset's folder are understood."""
    named = [
        image(name="one/a.jpg"),
        image(name="two\\a.jpg", number=1),
        image(name="b.jpg", number=2, more='subset="Train"'),
    ]
    lay_out(
        tmp_path,
        {
            "annotations.xml": xml(*named),
            "images/one/a.jpg": None,
            "images/two/a.jpg": None,
            "images/Train/b.jpg": None,
        },
    )
    images = read_split(tmp_path).images
    assert ["one/a.jpg", "two/a.jpg", ""] == [each.name for each in images]
    assert [0, 0, 0] == [len(each.boxes) for each in images]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (box(corners=(10, 10, 20, 14), more='rotation="90.0"'), [13, 7, 17, 17]),
        ('<polygon label="dog" points="5.0,4.0;15.0,9.5;10.0,20.0"/>', [5, 4, 15, 20]),
        ('<ellipse label="dog" cx="10" cy="12" rx="5" ry="3" rotation="90"/>', [7, 7, 13, 17]),
        ('<mask label="dog" rle="1" left="5" top="4" width="10" height="16"/>', [5, 4, 15, 20]),
    ],
)
def test_shapes_with_an_area_become_boxes(shape: str, expected: list[float], tmp_path: Path) -> None:
    """The upright box around the shape."""
    lay_out(tmp_path, {"annotations.xml": xml(image(shape)), "a.jpg": None})
    assert [expected] == read_split(tmp_path).images[0].boxes.round(4).tolist()


def test_other_shapes_are_left_out_and_counted(tmp_path: Path) -> None:
    """Points, lines and tags have no box."""
    others = '<points label="dog" points="1,2"/>', '<polyline label="dog" points="1,2;3,4"/>', '<tag label="dog"/>'
    lay_out(tmp_path, {"annotations.xml": xml(image(*others, box())), "a.jpg": None})
    split = read_split(tmp_path)
    assert (1, ("points, lines, tags and the like, left out as they have no box: 3",)) == (
        len(split.images[0].boxes),
        split.remarks,
    )


FAULTS = {
    "video": (xml("<track id='0' label='dog'/>"), 'holds tracks of a video: export it as "CVAT for images 1.1"'),
    "bomb": ('<!DOCTYPE a [<!ENTITY x "ha">]>' + xml(), "holds a document type or entities"),
    "damaged": ("<annotations><image>", "not valid XML"),
    "empty": (xml(), "holds no usable image"),
    "no name": (xml(image(box(), name="")), "image 0: no file is named"),
    "leads out": (xml(image(box(), name="../a.jpg")), "image 0: '../a.jpg' leads out of the folder"),
    "missing": (xml(image(box(), name="no.jpg")), "image 0: 'no.jpg' does not exist in"),
    "corner": (
        xml(image(box(corners=("x", 4, 15, 20)))),
        "image 0, box 1: xtl, ytl, xbr, ybr are not all finite numbers",
    ),
    "rotation": (xml(image(box(more='rotation="inf"'))), "image 0, box 1: rotation are not all finite"),
    "points": (xml(image('<polygon label="dog" points="1,2;3"/>')), "image 0, polygon 1: points is not a list"),
    "outside": (xml(image(box(corners=(5, 4, 50, 20)))), "image 0, box 1: box 5, 4, 50, 20 leaves the image"),
    "no label": (xml(image('<mask left="1" top="1" width="3" height="3"/>')), "image 0, mask 1: the class is not"),
    "twice": (xml(image(box()), image(box(), number=1)), "image 1: a.jpg has labels already: image 0"),
}


@pytest.mark.parametrize(("text", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_image_and_shape(text: str, reason: str, tmp_path: Path) -> None:
    """The record in annotations.xml, and the reason."""
    lay_out(tmp_path, {"annotations.xml": text, "a.jpg": None})
    assert any(reason in found for found in faults(tmp_path / "annotations.xml", format="cvat"))

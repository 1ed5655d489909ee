"""Pascal VOC folders are read in every common layout; XML is hostile."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from helpers_data import draw_image, faults, lay_out

from fewshot_cli.datasets.formats import format_name, read_split
from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DataError


def an_object(name: str = "dog", box: tuple[object, ...] = (5, 4, 15, 20), more: str = "") -> str:
    corners = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def xml(*objects: str, filename: str = "a.jpg", size: tuple[object, object] = (40, 30)) -> str:
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{sides}{''.join(objects)}</annotation>"


ONE = xml(an_object())


@pytest.mark.parametrize(
    "files",
    [
        {"Annotations/a.xml": ONE, "JPEGImages/a.jpg": None},
        {"annotations/a.xml": ONE, "images/a.jpg": None},
        {"a.xml": ONE, "a.jpg": None},
        {"Annotations/deep/a.xml": ONE, "JPEGImages/deep/a.jpg": None},
        {"Annotations/a.xml": xml(an_object(), filename="renamed.png"), "JPEGImages/a.jpg": None},
        {"Annotations/a.xml": xml(an_object(), filename="C:\\work\\a.jpg"), "JPEGImages/a.jpg": None},
        {"Annotations/a.xml": xml(an_object(), size=(0, 0)), "JPEGImages/a.jpg": None},
    ],
    ids=["VOC", "Kaggle", "beside", "subfolders", "renamed", "another machine", "no size"],
)
def test_every_layout_reads_the_same(files: dict[str, str | None], tmp_path: Path) -> None:
    """The image is the one of the file name or, where that is of another machine, of the same stem."""
    assert "voc" == format_name(lay_out(tmp_path, files))
    (image,) = read_split(tmp_path).images
    assert ([[5, 4, 15, 20]], (40, 30)) == (image.boxes.tolist(), (image.width, image.height))
    assert ("deep/a.jpg" if "deep" in str(image.path) else "") == image.name


@pytest.mark.parametrize("lists", [True, False])
def test_splits_are_lists_or_folders(lists: bool, tmp_path: Path) -> None:
    """ImageSets/Main/train.txt and val.txt, or the folders train/ and valid/ of Roboflow."""
    listed = {
        "ImageSets/Main/train.txt": "a\nb\n", "ImageSets/Main/val.txt": "c\n", "ImageSets/Main/dog_train.txt": "a 1\nb -1\n",
        **{f"Annotations/{name}.xml": xml(an_object(), filename=f"{name}.jpg") for name in "abc"},
        **{f"JPEGImages/{name}.jpg": None for name in "abc"},
    }  # fmt: skip
    folders = {
        f"{folder}/{name}.{end}": xml(an_object(), filename=f"{name}.jpg") if end == "xml" else None
        for folder, name in (("train", "a"), ("train", "b"), ("valid", "c")) for end in ("xml", "jpg")
    }  # fmt: skip
    data = open_dataset(lay_out(tmp_path, listed if lists else folders))
    assert (["a.jpg", "b.jpg"], ["c.jpg"]) == tuple(
        [image.path.name for image in split.images] for split in (data.train, data.require_test())
    )
    with pytest.raises(DataError, match="several splits: train, val"):
        read_split(tmp_path)


def test_difficult_objects_are_crowds(tmp_path: Path) -> None:
    """VOC does not count them, and neither does the metric; they are no training targets."""
    difficult = an_object("cat", more="<difficult>1</difficult>")
    lay_out(tmp_path, {"a.xml": xml(difficult, an_object(more="<part><bndbox/></part>")), "a.jpg": None})
    split = read_split(tmp_path)
    assert (("cat", "dog"), [True, False]) == (split.classes, split.images[0].crowd.tolist())
    assert 1 == len(split.images[0].objects()[0])


def test_no_objects_is_background_and_no_file_is_not_labelled(tmp_path: Path) -> None:
    """An XML file without objects counts as an image, an image without XML does not, and is counted."""
    lay_out(tmp_path, {"a.xml": ONE, "a.jpg": None, "b.xml": xml(filename="b.jpg"), "b.jpg": None, "c.jpg": None})
    split = read_split(tmp_path)
    assert [1, 0] == [len(image.boxes) for image in split.images]
    assert ("images without an .xml file, left out as not labelled: 1",) == split.remarks


BOMB = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {new} "{f"&{old};" * 50}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "bomb": f"{BOMB}]><annotation><filename>&i;</filename></annotation>",
    "external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>',
    "external document type": '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:1/x.dtd"><annotation/>',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_xml_is_a_problem_of_that_file(text: str, tmp_path: Path) -> None:
    """No entity is expanded, no file or address opened; the other files are still checked."""
    lay_out(
        tmp_path,
        {
            "a.xml": ONE,
            "a.jpg": None,
            "b.xml": text,
            "b.jpg": None,
            "c.xml": xml(an_object(box=(1, 2, 3, 4)), filename="no.jpg"),
        },
    )
    started = time.monotonic()
    found = faults(tmp_path)
    assert time.monotonic() - started < 2
    assert any(each.startswith("b.xml: : holds a document type or entities") for each in found)
    assert any(each.startswith("c.xml: : 'no.jpg' does not exist") for each in found)


FAULTS = {
    "damaged": ("<annotation><object>", "not valid XML"),
    "unknown encoding": ('<?xml version="1.0" encoding="nothing"?><annotation/>', "not valid XML"),
    "no box": (xml("<object><name>dog</name></object>"), "object 1: has no bndbox"),
    "no name": (xml(an_object(" ")), "object 1: the class is not a non-empty string"),
    "not a number": (xml(an_object(box=("nan", 4, 15, 20))), "holds something that is not a finite number"),
    "corner missing": (xml(an_object(box=("", 4, 15, 20))), "box ?, 4, 15, 20 holds something"),
    "outside": (xml(an_object(box=(5, 4, 50, 20))), "box 5, 4, 50, 20 leaves the image of 40×30 pixels"),
    "wrong order": (xml(an_object(box=(15, 4, 5, 20))), "box 15, 4, 5, 20 has its corners in the wrong order"),
    "wrong size": (xml(an_object(), size=(41, 30)), "the annotations say 41×30 pixels, the image has 40×30"),
    "odd size": (xml(an_object(), size=("wide", 30)), "width and height are not positive integers: [None, 30.0]"),
}


@pytest.mark.parametrize(("text", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_file_and_object(text: str, reason: str, tmp_path: Path) -> None:
    """The XML file, the object and the reason."""
    lay_out(
        tmp_path,
        {
            "Annotations/0.xml": xml(filename="0.jpg"),
            "JPEGImages/0.jpg": None,
            "Annotations/a.xml": text,
            "JPEGImages/a.jpg": None,
        },
    )
    assert any(reason in found and found.startswith(("a.xml", "a.jpg")) for found in faults(tmp_path))


def test_a_file_name_never_leads_out(tmp_path: Path) -> None:
    """A file name with `..`, in XML or in a list, shows nothing outside the folder."""
    draw_image(tmp_path / "secret.jpg", 1)
    lay_out(
        tmp_path / "set",
        {"Annotations/a.xml": xml(an_object(), filename="../secret.jpg"), "ImageSets/Main/train.txt": "../../a\na\n"},
    )
    (tmp_path / "set" / "JPEGImages").mkdir()
    found = faults(tmp_path / "set" / "ImageSets" / "Main" / "train.txt")
    assert ["train.txt: ../../a: leads out of the folder", "a.xml: : '../secret.jpg' leads out of the folder"] == found[
        :2
    ]


def test_a_pipe_among_the_files_is_not_read(tmp_path: Path) -> None:
    """A device file or pipe would block: it is a problem."""
    lay_out(tmp_path, {"a.xml": ONE, "a.jpg": None})
    os.mkfifo(tmp_path / "b.xml")
    assert any("b.xml: : is not a regular file" in found for found in faults(tmp_path))

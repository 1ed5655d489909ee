"""YOLO folders are read in every common layout, and never believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_data import SIZE, draw_image, faults, lay_out

from fewshot_cli.datasets.formats import format_name, read_split, split_paths, train_and_test
from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DataError, DatasetError

ROW = "1 0.5 0.5 0.25 0.2\n"
BOX = [15, 12, 25, 18]
"""Of ROW, in an image of 40 × 30 pixels."""
NAMES = "names: [cat, dog]\n"

ULTRALYTICS = {
    "data.yaml": f"path: /home/somebody/set\ntrain: images/train\nval: images/val\n{NAMES}",
    "images/train/a.jpg": None, "labels/train/a.txt": ROW, "images/val/b.jpg": None, "labels/val/b.txt": ROW,
}  # fmt: skip
ROBOFLOW = {
    "data.yaml": f"train: ../train/images\nval: ../valid/images\n{NAMES}",
    "train/images/a.jpg": None, "train/labels/a.txt": ROW, "valid/images/b.jpg": None, "valid/labels/b.txt": ROW,
}  # fmt: skip
LISTED = {
    "data.yaml": f"train: train.txt\nval: [val.txt]\n{NAMES}",
    "train.txt": "/elsewhere/images/a.jpg\n", "val.txt": "./images/b.jpg\n",
    "images/a.jpg": None, "labels/a.txt": ROW, "images/b.jpg": None, "labels/b.txt": ROW,
}  # fmt: skip
FOLDERS = {
    "classes.txt": "cat\ndog\n",
    "images/train/a.jpg": None, "labels/train/a.txt": ROW, "images/val/b.jpg": None, "labels/val/b.txt": ROW,
}  # fmt: skip


@pytest.mark.parametrize(
    "files", [ULTRALYTICS, ROBOFLOW, LISTED, FOLDERS], ids=["ultralytics", "roboflow", "lists", "folders"]
)
def test_every_layout_with_splits_reads_the_same(files: dict[str, str | None], tmp_path: Path) -> None:
    """Splits are those of data.yaml, wherever it was written, or folders; classes are the same in both."""
    lay_out(tmp_path, files)
    assert "yolo" == format_name(tmp_path)
    data = open_dataset(tmp_path)
    assert ("cat", "dog") == data.classes
    for split, name in ((data.train, "a.jpg"), (data.require_test(), "b.jpg")):
        (image,) = split.images
        assert (name, [BOX], [1]) == (image.path.name, image.boxes.round(4).tolist(), image.labels.tolist())
    with pytest.raises(DataError, match="several splits"):
        read_split(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"images/a.jpg": None, "labels/a.txt": ROW, "classes.txt": "cat\ndog\n"},
        {"images/a.jpg": None, "labels/a.txt": ROW, "labels/classes.txt": "cat\ndog\n"},
        {"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": "names: {0: cat, 1: dog}\n"},
        {"images/deep/a.jpg": None, "labels/deep/a.txt": ROW, "classes.txt": "cat\ndog\n"},
        {"a.jpg": None, "a.txt": ROW, "classes.txt": "cat\ndog\n"},
        {
            "obj_train_data/a.jpg": None,
            "obj_train_data/a.txt": ROW,
            "obj.names": "cat\ndog\n",
            "obj.data": "classes = 2\n",
        },
    ],
    ids=["labels", "classes in labels", "names by number", "subfolders", "beside", "CVAT's YOLO 1.1"],
)
def test_every_layout_of_one_split_reads_the_same(files: dict[str, str | None], tmp_path: Path) -> None:
    """Labels in labels/ or beside the images, names in a file of any of the usual names."""
    split = read_split(lay_out(tmp_path, files))
    assert (("cat", "dog"), [[1]]) == (split.classes, [image.labels.tolist() for image in split.images])
    assert [BOX] == split.images[0].boxes.round(4).tolist()
    nested = next(name for name in files if name.endswith("a.jpg")).removeprefix("images/")
    assert (nested if "/" in nested else "") == split.images[0].name


def test_one_folder_of_a_set_reads_with_the_names_of_the_set(tmp_path: Path) -> None:
    """images/train and Roboflow's train/ can be given themselves; data.yaml above them is found."""
    lay_out(tmp_path / "one", ULTRALYTICS)
    lay_out(tmp_path / "two", ROBOFLOW)
    for place in ("one/images/train", "two/train", "two/train/images"):
        split = read_split(tmp_path / place)
        assert (("cat", "dog"), 1) == (split.classes, len(split.images))


def test_without_names_classes_are_numbered(tmp_path: Path) -> None:
    """Neither data.yaml nor classes.txt: `class 0` to the largest that is in use."""
    split = read_split(lay_out(tmp_path, {"images/a.jpg": None, "labels/a.txt": f"2 .5 .5 .2 .2\n{ROW}"}))
    assert (("class 0", "class 1", "class 2"), [2, 1]) == (split.classes, split.images[0].labels.tolist())


def test_images_without_boxes_are_background(tmp_path: Path) -> None:
    """An empty label file and a missing one alike; the missing ones are counted."""
    files = {
        "images/a.jpg": None,
        "images/b.jpg": None,
        "images/c.jpg": None,
        "labels/a.txt": ROW,
        "labels/b.txt": "\n",
    }
    split = read_split(lay_out(tmp_path, files))
    assert [1, 0, 0] == [len(image.boxes) for image in split.images]
    assert ("images without a label file, taken as background: 1",) == split.remarks


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ("0 0.25 0.2 0.5 0.2 0.5 0.6 0.25 0.6", [10, 6, 20, 18]),  # a polygon, or an oriented box
        ("0 0.25 0.2 0.5 0.6 0.375 0.1", [10, 3, 20, 18]),
        ("0 0.5 0.5 0.25 0.2 0.87", BOX),  # with a score
        ("0.0 0.5 0.5 0.25 0.2", BOX),
        ("0 0.5 0.5 1.02 1.0", [0, 0, 40, 30]),  # rounded outwards by less than a pixel
    ],
)
def test_rows_of_every_kind_become_boxes(row: str, box: list[float], tmp_path: Path) -> None:
    """Polygons become the boxes around them, scores are ignored, a rounded edge is clipped."""
    split = read_split(lay_out(tmp_path, {"images/a.jpg": None, "labels/a.txt": row}))
    assert [box] == split.images[0].boxes.round(4).tolist()


def test_keypoints_behind_the_box_are_ignored(tmp_path: Path) -> None:
    """data.yaml with kpt_shape says that a row is a box and keypoints, not a polygon."""
    files = {"data.yaml": f"{NAMES}kpt_shape: [2, 3]\n", "a.jpg": None, "a.txt": "0 .5 .5 .25 .2 .1 .1 2 .9 .9 2\n"}
    assert [BOX] == read_split(lay_out(tmp_path, files)).images[0].boxes.round(4).tolist()


FAULTS = {
    "beyond the classes": ("2 .5 .5 .2 .2", "class 2 is beyond the 2 classes, 0 to 1"),
    "negative class": ("-1 .5 .5 .2 .2", "the class is not a whole number from 0: '-1'"),
    "class as a name": ("cat .5 .5 .2 .2", "the class is not a whole number from 0: 'cat'"),
    "columns missing": ("0 .5", "2 columns: expected class x_center y_center width height"),
    "all columns missing": ("0", "1 columns: expected class"),
    "half a polygon": ("0 .1 .1 .2 .2 .3 .3 .4", "8 columns: expected class"),
    "not a number": ("0 .5 nan .2 .2", "holds something that is not a finite number: '0 .5 nan .2 .2'"),
    "infinite": ("0 .5 .5 inf .2", "holds something that is not a finite number"),
    "pixels": ("0 20 15 10 6", "box '0 20 15 10 6' (shares of width and height, 0 to 1) leaves the image of 40×30"),
    "no area": ("0 .5 .5 0 .2", "has no area inside the image"),
    "negative width": ("0 .5 .5 -.2 .2", "has its corners in the wrong order"),
}


@pytest.mark.parametrize(("row", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_its_line(row: str, reason: str, tmp_path: Path) -> None:
    """The label file, the line and the reason; the other rows stay with skip_invalid."""
    lay_out(tmp_path, {"images/a.jpg": None, "labels/a.txt": f"{ROW}{row}\n", "classes.txt": "cat\ndog\n"})
    (found,) = faults(tmp_path)
    assert found.startswith("a.txt: line 2: ")
    assert reason in found
    split = read_split(tmp_path, skip_invalid=True)
    assert (1, 1) == (len(split.images[0].boxes), len(split.skipped))


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    """Labels of no image, a spoiled image, a bad name, an unreadable label file: each is in the list."""
    files = {
        "images/a.jpg": None, "images/b.jpg": "spoiled", "labels/a.txt": "0 1\n", "labels/ghost.txt": ROW,
        "data.yaml": "names: [cat, cat, '']\n",
    }  # fmt: skip
    lay_out(tmp_path, files)
    (tmp_path / "labels" / "b.txt").write_bytes(b"\xff\xfe\x00")
    found = "\n".join(faults(tmp_path))
    for expected in (
        "data.yaml: class 1: another class has the name 'cat' too", "data.yaml: class 2: the name is not",
        "b.txt: : is not UTF-8 text", "b.jpg: image images/b.jpg: not readable as an image",
        "a.txt: line 1: 2 columns", "ghost.txt: : there is no image of this name",
    ):  # fmt: skip
        assert expected in found


@pytest.mark.parametrize(
    "text",
    [
        "names: 3\n",
        "names: {1: cat}\n",
        "[",
        "names: &a [*a, *a]\n",
        "- 1\n",
        "names: !!python/object:os.system [ls]\n",
    ],
)
def test_a_data_yaml_that_means_nothing_is_an_error(text: str, tmp_path: Path) -> None:
    """No names, no YAML, a nest of references, an object of Python: a problem of that file, and nothing runs."""
    lay_out(tmp_path, {"data.yaml": text, "images/a.jpg": None, "labels/a.txt": ROW})
    assert [found for found in faults(tmp_path) if found.startswith("data.yaml: ")]


def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    """Neither data.yaml, nor a list, nor a link shows images of another folder."""
    draw_image(tmp_path / "secret" / "images" / "a.jpg", 1)
    home = lay_out(
        tmp_path / "set",
        {"data.yaml": f"train: ../secret/images\nval: list.txt\n{NAMES}", "list.txt": "../secret/images/a.jpg\n"},
    )
    assert {"val"} == set(split_paths(home))
    assert "list.txt" not in train_and_test(home)
    with pytest.raises(DatasetError, match="'secret/images/a.jpg' does not exist in"):
        read_split(home / "data.yaml" / "val")
    lay_out(tmp_path / "linked", {"images/b.jpg": None, "labels/b.txt": ROW})
    (tmp_path / "linked" / "images" / "c.jpg").symlink_to(tmp_path / "secret" / "images" / "a.jpg")
    assert any("is a link that leads out of the folder" in found for found in faults(tmp_path / "linked"))


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    """Shares belong to the image as a viewer shows it."""
    lay_out(tmp_path, {"images/x.jpg": None, "labels/a.txt": ROW, "labels/x.txt": ROW})
    draw_image(tmp_path / "images" / "a.jpg", 1, orientation=6)
    image = read_split(tmp_path).images[0]
    assert (SIZE[::-1], [[11.25, 16, 18.75, 24]]) == ((image.width, image.height), image.boxes.round(4).tolist())


def test_labels_without_a_known_class_say_so(tmp_path: Path) -> None:
    """A damaged data.yaml names no class."""
    lay_out(tmp_path, {"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": "names: 5\n"})
    assert any("is beyond the classes: none is known" in found for found in faults(tmp_path))

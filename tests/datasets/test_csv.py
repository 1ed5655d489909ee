"""CSV files of boxes: columns by name, background rows, every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_data import faults, lay_out

from fewshot_cli.datasets.formats import format_name, read_split
from fewshot_cli.datasets.store import open_dataset

HEADER = "image,x1,y1,x2,y2,class\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}a.jpg,5,4,15,20,dog\n",
        "a.jpg,5,4,15,20,dog\n",
        "class,y2,y1,note,x2,x1,Image\ndog,20,4,hello,15,5,a.jpg\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,30,dog,5,4,15,20\n",
        f'\ufeff{HEADER}\r\n a.jpg , 5.0,4,15,2e1," dog "\r\n',
    ],
    ids=["header", "no header", "another order", "Roboflow", "Excel"],
)
@pytest.mark.parametrize("image", ["a.jpg", "images/a.jpg"])
def test_columns_go_by_their_names(text: str, image: str, tmp_path: Path) -> None:
    """Or by their usual order; images beside the file or in images/."""
    lay_out(tmp_path, {"boxes.csv": text, image: None})
    for place in (tmp_path, tmp_path / "boxes.csv"):
        assert "csv" == format_name(place)
        split = read_split(place)
        assert (("dog",), [[5, 4, 15, 20]]) == (split.classes, split.images[0].boxes.tolist())


def test_rows_of_one_image_belong_together_wherever_they_stand(tmp_path: Path) -> None:
    """And a row with a name alone is a background image; names keep their folder."""
    text = f"{HEADER}one/a.jpg,5,4,15,20,dog\nb.jpg,,,,,\none/a.jpg,1,2,3,4,cat\n"
    split = read_split(lay_out(tmp_path, {"boxes.csv": text, "one/a.jpg": None, "b.jpg": None}))
    assert [("one/a.jpg", [1, 0]), ("", [])] == [(image.name, image.labels.tolist()) for image in split.images]


def test_files_for_splits_are_a_data_set(tmp_path: Path) -> None:
    """train.csv and test.csv beside images/."""
    lay_out(
        tmp_path,
        {
            "train.csv": "a.jpg,5,4,15,20,dog\n",
            "test.csv": "b.jpg,5,4,15,20,dog\n",
            "images/a.jpg": None,
            "images/b.jpg": None,
        },
    )
    data = open_dataset(tmp_path)
    assert ("a.jpg", "b.jpg") == (data.train.images[0].path.name, data.require_test().images[0].path.name)


FAULTS = {
    "too few columns": ("a.jpg,5,4,15,20\n", "line 3: has 5 columns instead of 6"),
    "not a number": ("a.jpg,x,4,15,20,dog\n", "line 3: box 'x,4,15,20' holds something that is not a finite number"),
    "NaN": ("a.jpg,nan,4,15,20,dog\n", "line 3: box 'nan,4,15,20' holds something"),
    "half a box": ("a.jpg,5,,15,20,dog\n", "line 3: box '5,,15,20' holds something"),
    "no class": ("a.jpg,5,4,15,20,\n", "line 3: the class is not a non-empty string"),
    "outside": ("a.jpg,5,4,55,20,dog\n", "line 3: box '5,4,55,20' leaves the image of 40×30 pixels"),
    "wrong order": ("a.jpg,15,4,5,20,dog\n", "line 3: box '15,4,5,20' has its corners in the wrong order"),
    "missing": ("no.jpg,5,4,15,20,dog\n", "line 3: 'no.jpg' does not exist in"),
    "leads out": ("../a.jpg,5,4,15,20,dog\n", "line 3: '../a.jpg' leads out of the folder"),
    "no image": (",5,4,15,20,dog\n", "line 3: the image is empty"),
    "quotes": ('"a.jpg,5,4,15,20,dog\n', "not valid CSV"),
}


@pytest.mark.parametrize(("row", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_its_line(row: str, reason: str, tmp_path: Path) -> None:
    """The line of the file and the reason."""
    lay_out(tmp_path, {"boxes.csv": f"{HEADER}a.jpg,5,4,15,20,dog\n{row}", "a.jpg": None})
    assert any(reason in found for found in faults(tmp_path))


@pytest.mark.parametrize("content", [b"hello\n", b"", b"\xff\xfe", b"a\0b,1,2,3,4,5\n", b"x" * 200_000])
def test_what_is_no_file_of_boxes_is_a_problem(content: bytes, tmp_path: Path) -> None:
    """Text, nothing, another encoding, NUL, a field longer than CSV allows."""
    (tmp_path / "boxes.csv").write_bytes(content)
    assert 1 == len(faults(tmp_path / "boxes.csv", format="csv"))


def test_rows_of_another_length_do_not_hide_other_faults(tmp_path: Path) -> None:
    """All problems come at once; with skip_invalid the rows that are right stay."""
    rows = "a.jpg,5,4,15,20,dog\na.jpg,5\n/etc/passwd,5,4,15,20,dog\na.jpg,nan,4,15,20,dog\n"
    lay_out(tmp_path, {"boxes.csv": f"{HEADER}{rows}", "a.jpg": None})
    found = faults(tmp_path)
    assert 3 == len(found)
    for reason in ("line 3: has 2 columns", "line 4: '/etc/passwd' leads out", "line 5: box 'nan,4,15,20' holds"):
        assert any(reason in each for each in found)
    assert [[5, 4, 15, 20]] == read_split(tmp_path, skip_invalid=True).images[0].boxes.tolist()

"""Whatever is in a label file, a reader returns a split or raises a DataError: no other error, no box that is none."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_data import SIZE, document_of, draw_image
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_cli.datasets.formats import FORMATS, read_split
from fewshot_cli.errors import DataError

LABELME = {
    "shapes": [{"label": "cat", "points": [[5, 4], [15, 20]], "shape_type": "rectangle"}],
    "imagePath": "0001.jpg", "imageData": None, "imageHeight": 30, "imageWidth": 40,
}  # fmt: skip
STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/0001.jpg"},
        "annotations": [
            {"result": [{"id": "a", "type": "rectanglelabels", "value": {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 5, "rectanglelabels": ["cat"]}}]}
        ],
    }
]  # fmt: skip
LABELS = {
    "coco": ("annotations.json", json.dumps(document_of([["cat"]], ["cat"]))),
    "csv": ("boxes.csv", "image,x1,y1,x2,y2,class\n0001.jpg,5,4,15,20,cat\n"),
    "cvat": ("annotations.xml", '<annotations><image id="0" name="0001.jpg" width="40" height="30"><box label="cat" xtl="5" ytl="4" xbr="15" ybr="20" rotation="3"/><polygon label="cat" points="1,2;3,4;5,9"/></image></annotations>'),
    "labelme": ("0001.json", json.dumps(LABELME)),
    "labelstudio": ("result.json", json.dumps(STUDIO)),
    "voc": ("0001.xml", "<annotation><filename>0001.jpg</filename><size><width>40</width><height>30</height></size><object><name>cat</name><bndbox><xmin>5</xmin><ymin>4</ymin><xmax>15</xmax><ymax>20</ymax></bndbox></object></annotation>"),
    "yolo": ("0001.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.2 0.3 0.1\n"),
}  # fmt: skip

PIECES = st.sampled_from(
    [b"", b"\0", b"\xff", b"nan", b"-1", b"1e999", b"9" * 30, b"null", b"[]", b"{}", b'"', b"<", b">", b",", b"..", b"/", b"\\", b"\n", b" ", b"_"]
)  # fmt: skip
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES | st.binary(max_size=4)), min_size=1, max_size=3)


def test_every_format_is_damaged() -> None:
    """A format that is added is added here too."""
    assert set(FORMATS) == set(LABELS)


@pytest.fixture(scope="module")
def image() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        draw_image(Path(folder) / "0001.jpg", 1)
        return (Path(folder) / "0001.jpg").read_bytes()


def check(format: str, content: bytes, image: bytes) -> None:
    """Read a set whose label file has this content, in every way."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "0001.jpg").write_bytes(image)
        (folder / LABELS[format][0]).write_bytes(content)
        for skip_invalid in (False, True):
            try:
                split = read_split(folder, format=format, skip_invalid=skip_invalid)
            except DataError as error:
                assert str(folder) in error.message
                continue
            for found in split.images:
                x1, y1, x2, y2 = found.boxes.T
                assert np.isfinite(found.boxes).all()
                assert ((x1 >= 0) & (y1 >= 0) & (x1 < x2) & (y1 < y2) & (x2 <= SIZE[0]) & (y2 <= SIZE[1])).all()
                assert all(0 <= label < len(split.classes) for label in found.labels)


@pytest.mark.parametrize("format", LABELS)
def test_undamaged_labels_are_read(format: str, image: bytes) -> None:
    """What the other tests damage is valid."""
    check(format, LABELS[format][1].encode(), image)


@pytest.mark.parametrize("format", LABELS)
@settings(max_examples=60, deadline=None)
@given(changes=edits)
def test_damaged_text_is_a_data_error(format: str, image: bytes, changes: list[tuple[float, int, bytes]]) -> None:
    """Pieces of the file are replaced, wherever and by whatever."""
    content = LABELS[format][1].encode()
    for share, length, piece in changes:
        place = int(share * len(content))
        content = content[:place] + piece + content[place + length :]
    check(format, content, image)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["0001.jpg", "", "rectangle", "cat", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "points", "id", "result"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in _paths(each, (*path, key)))]


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    changed = {key: _replaced(each, path[1:], new) if key == path[0] else each for key, each in pairs}
    return changed if isinstance(value, dict) else list(changed.values())


@pytest.mark.parametrize("format", ["coco", "labelme", "labelstudio"])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_value_of_another_kind_is_a_data_error(format: str, image: bytes, data: st.DataObject) -> None:
    """Any value of a JSON document, or all of it, becomes something else."""
    document = json.loads(LABELS[format][1])
    path = data.draw(st.sampled_from(_paths(document)))
    check(format, json.dumps(_replaced(document, path, data.draw(JSON))).encode(), image)

"""The registry of label formats: a format is one module and one line."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest
from helpers_data import draw_coco, draw_image
from helpers_runs import fsod

from fewshot_cli.datasets.formats import FORMATS, find_format, get_format, read_split, split_paths, train_and_test
from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DataError, UsageError

WHOLE = '''
    """Every image NAME.jpg shows one object that fills it: the class is the part of the name before the hyphen."""

    from pathlib import Path

    import numpy as np

    from fewshot_cli.datasets.images import image_size
    from fewshot_cli.datasets.types import ImageRecord, Split

    EXPECTED = "images named CLASS-NUMBER.jpg."


    def recognise(path):
        return bool(_files(path))


    def read(path, *, decode_images=True, skip_invalid=False):
        files = _files(path)
        classes = sorted({file.stem.split("-")[0] for file in files})
        return Split(
            annotations=path,
            classes=tuple(classes),
            images=tuple(_image(number, file, classes) for number, file in enumerate(files, start=1)),
        )


    def _files(path):
        return sorted(path.glob("*-*.jpg"))


    def _image(number, file, classes):
        width, height = image_size(file, decode=False)
        box = np.array([[0, 0, width, height]], np.float32)
        label = np.array([classes.index(file.stem.split("-")[0])])
        return ImageRecord(
            id=number, path=file, width=width, height=height, boxes=box, labels=label, crowd=np.array([False])
        )
'''


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A format added as the registry says: a module, and a line."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "whole_format.py").write_text(textwrap.dedent(WHOLE))
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setitem(FORMATS, "whole", "whole_format")
    monkeypatch.delitem(sys.modules, "whole_format", raising=False)
    return "whole"


def draw_whole(folder: Path, *names: str, seed: int = 0) -> Path:
    for place, name in enumerate(names):
        draw_image(folder / f"{name}-{place}.jpg", seed + place)
    return folder


def test_a_format_is_one_module_and_one_line(whole: str, tmp_path: Path) -> None:
    """Its folders are recognised, read, opened as data sets, fetched from, and named where nothing fits."""
    draw_whole(tmp_path / "set" / "train", "cat", "cat", "cat", "dog")
    draw_whole(tmp_path / "set" / "valid", "cat", "dog", seed=50)
    assert get_format("whole") is find_format(tmp_path / "set" / "train")
    assert ("cat", "dog") == read_split(tmp_path / "set" / "train").classes == open_dataset(tmp_path / "set").classes
    assert {"train", "valid"} == set(split_paths(tmp_path / "set"))
    result = fsod(
        *("fetch", "--source", f"whole:{tmp_path / 'set'}", "--class", "cats", "--shots", "2"),
        *("--root", tmp_path / "data", "--json"),
    )
    assert 0 == result.exit_code, result.stderr
    document = json.loads(result.stdout)
    assert (2, 1) == (document["train"]["images"], document["test"]["images"])
    with pytest.raises(DataError, match="no annotations in a known format") as raised:
        read_split(tmp_path)
    assert "whole: images named CLASS-NUMBER.jpg." in (raised.value.hint or "")


def test_a_format_can_be_named(whole: str, tmp_path: Path) -> None:
    """Where two formats would do, the first of the registry reads, unless another is named."""
    draw_coco(tmp_path / "both", [["fish"]] * 2, classes=("fish",))
    draw_whole(tmp_path / "both", "cat")
    assert ("fish",) == read_split(tmp_path / "both").classes
    assert ("cat",) == read_split(tmp_path / "both", format="whole").classes


def test_unknown_formats_list_the_valid_ones(tmp_path: Path) -> None:
    """A misspelt format is a usage error of the library, with the closest name."""
    with pytest.raises(UsageError, match="unknown format 'cocoo'") as raised:
        read_split(tmp_path, format="cocoo")
    assert f"Did you mean coco? Valid: {', '.join(FORMATS)}." == raised.value.hint


@pytest.mark.parametrize(("name", "message"), [("none", "does not exist"), (".", "no annotations in a known format")])
def test_what_no_format_recognises_is_a_data_error(tmp_path: Path, name: str, message: str) -> None:
    """A path that is not there, and a folder that holds nothing known, each say so."""
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / name)
    assert ({}, (None, None)) == (split_paths(tmp_path / name), train_and_test(tmp_path / name))

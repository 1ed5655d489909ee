"""A fetched data set whose files changed: images that are not those that were fetched, and a damaged dataset.json."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers_mutations import damaged_bytes
from helpers_runs import TINY, argv_of, draw_shapes, fsod
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.store import Dataset, open_dataset, save_dataset
from fewshot_cli.errors import DatasetError, FsodError
from fewshot_cli.verbs.evaluate import test_split as split_for_tests


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A data set as fetch leaves it: 3 shots, 3 test images."""
    folder = tmp_path_factory.mktemp("saved")
    for name, seed in (("train", 1), ("test", 2)):
        draw_shapes(folder / "drawn" / name, 3, seed)
    train, test = (read_split(folder / "drawn" / name) for name in ("train", "test"))
    return save_dataset(folder / "data", train, test, {}, overwrite=False)


@pytest.fixture
def copy(saved: Dataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved.path, tmp_path / "data"))


def halve(file: Path) -> None:
    with Image.open(file) as image:
        half = image.resize((image.width // 2, image.height // 2))
    half.save(file)


def with_another_byte(file: Path) -> None:
    """As long as before, and newer than dataset.json."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def with_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


CHANGES = {
    "halved": (halve, "has changed: it has"),
    "another byte": (with_another_byte, "has changed: its content is not what was fetched"),
    "gone": (Path.unlink, "is gone"),
    "a pipe": (with_a_pipe, "is not a regular file"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_changed_images_are_listed(change: str, split: str, copy: Path) -> None:
    """Every one, in each split, with the reason and the hint to fetch again."""
    spoil, reason = CHANGES[change]
    files = sorted((copy / split / "images").iterdir())[:2]
    for file in files:
        spoil(file)
    with pytest.raises(DatasetError, match="has changed since it was fetched: 2 problems") as refused:
        open_dataset(copy)
    assert [str(file) for file in files] == [problem.file for problem in refused.value.problems]
    assert all(problem.reason.startswith(reason) for problem in refused.value.problems)
    assert "fsod fetch … --force" in str(refused.value.hint)


def test_a_copied_data_set_opens(saved: Dataset, copy: Path) -> None:
    """Times of files do not matter where the content is the same, nor does a record of a version without lengths."""
    for file in (copy / "train" / "images").iterdir():
        os.utime(file)
    assert saved.train.to_coco() == open_dataset(copy).train.to_coco()
    record = json.loads((copy / "dataset.json").read_text())
    for described in record["splits"].values():
        for entry in described["files"]:
            del entry["bytes"]
    (copy / "dataset.json").write_text(json.dumps(record))
    assert saved.train.to_coco() == open_dataset(copy).train.to_coco()


def test_training_and_measuring_refuse_changed_images(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """finetune ends with exit 3 before it trains; eval looks at the test images alone."""
    monkeypatch.chdir(tmp_path)
    for file in (copy / "train" / "images").iterdir():
        halve(file)
    result = fsod(*argv_of(copy, TINY))
    assert 3 == result.exit_code and "has changed since it was fetched: 3 problems" in result.stderr
    assert 3 == len(split_for_tests(copy).images)
    with_another_byte(next((copy / "test" / "images").iterdir()))
    with pytest.raises(DatasetError):
        split_for_tests(copy)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_record_is_an_error_or_the_same(data: st.DataObject, copy: Path, saved: Dataset) -> None:
    """Any key gone, any value of another type, any byte changed: exit 3 with the file, or the same images and boxes."""
    content = (saved.path / "dataset.json").read_bytes()
    (copy / "dataset.json").write_bytes(data.draw(damaged_bytes(content)))
    try:
        found = open_dataset(copy)
        assert found.shots and found.shot_of is not None
    except FsodError as error:
        assert 3 == error.exit_code
    else:
        assert saved.train.to_coco() == found.train.to_coco()


@pytest.mark.parametrize("name", ["../annotations.json", "/etc/hostname", "..", "a/b", "x\0"])
def test_a_record_names_no_file_elsewhere(name: str, copy: Path) -> None:
    """A file_name with a folder in it is an error, and nothing outside images/ is read."""
    record = json.loads((copy / "dataset.json").read_text())
    record["splits"]["train"]["files"][0]["file_name"] = name
    (copy / "dataset.json").write_text(json.dumps(record))
    with pytest.raises(FsodError, match=r"splits.train.files.0.file_name: .* is not the name of a file in images/"):
        open_dataset(copy)

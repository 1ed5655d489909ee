"""The hash of a split: the same for the same data wherever it lies, another for any change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_data import draw_coco, draw_image

from fewshot_cli.datasets.fingerprint import fingerprint
from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.store import open_dataset, save_dataset
from fewshot_cli.datasets.types import ImageRecord, Split


@pytest.fixture
def split(tmp_path: Path) -> Split:
    draw_coco(tmp_path / "split", [["cat"], ["cat", "dog"], []])
    return read_split(tmp_path / "split")


def test_a_copy_elsewhere_has_the_same_hash(split: Split, tmp_path: Path) -> None:
    """The folder does not matter."""
    shutil.copytree(tmp_path / "split", tmp_path / "copy")
    assert fingerprint(split) == fingerprint(read_split(tmp_path / "copy"))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: replace(image, boxes=image.boxes + np.float32(1)),
        lambda image: replace(image, labels=1 - image.labels),
        lambda image: replace(image, crowd=~image.crowd),
        lambda image: replace(image, width=image.width + 1),
    ],
    ids=["boxes", "labels", "crowd", "size"],
)
def test_any_change_of_an_annotation_changes_the_hash(
    split: Split, change: Callable[[ImageRecord], ImageRecord]
) -> None:
    """One image that is annotated otherwise is enough."""
    changed = replace(split, images=(change(split.images[0]), *split.images[1:]))
    assert fingerprint(split) != fingerprint(changed)


def test_names_and_order_of_classes_and_the_number_of_images_count(split: Split) -> None:
    """Labels mean something else with other classes, and fewer images are other data."""
    others = [replace(split, classes=split.classes[::-1]), replace(split, images=split.images[1:])]
    assert 3 == len({fingerprint(each) for each in (split, *others)})


def test_other_content_under_the_same_name_changes_the_hash(split: Split) -> None:
    """Where nothing is recorded, by the size of the file."""
    before = fingerprint(split)
    draw_image(split.images[0].path, 99, (400, 300))
    assert before != fingerprint(split)


def test_recorded_checksums_tell_files_of_equal_size_apart(split: Split, tmp_path: Path) -> None:
    """A fetched data set is known by what dataset.json says of its images."""
    data = save_dataset(tmp_path / "data", split, None, {}, overwrite=False)
    record = tmp_path / "data" / "dataset.json"
    checksum = data.record["splits"]["train"]["files"][0]["sha256"]
    record.write_text(record.read_text("utf-8").replace(checksum, "0" * 64), "utf-8")
    assert fingerprint(data.train) == fingerprint(open_dataset(tmp_path / "data").train) != fingerprint(split)
    record.write_text("[]", "utf-8")
    assert fingerprint(split) == fingerprint(data.train)

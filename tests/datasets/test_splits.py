"""Splits: keeping some classes, and what counts as an image of a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewshot_cli.datasets.splits import boxes_per_class, images_per_class, members, restrict, with_images
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, UsageError

CLASSES = ("cat", "dog", "coffee cup")


def split_of(contents: dict[int, list[int]], crowd: tuple[int, ...] = ()) -> Split:
    """A split without files: image id → labels of its boxes; all boxes of the ids in `crowd` are crowds."""
    images = tuple(
        ImageRecord(
            id=image_id,
            path=Path(f"{image_id}.jpg"),
            width=100,
            height=100,
            boxes=np.array([[place, 0, place + 1, 9] for place in range(len(labels))], np.float32).reshape(-1, 4),
            labels=np.array(labels, np.int64),
            crowd=np.full(len(labels), image_id in crowd),
        )
        for image_id, labels in contents.items()
    )
    return Split(annotations=Path("annotations.json"), classes=CLASSES, images=images)


def test_labels_follow_the_order_asked() -> None:
    """Only boxes of the chosen classes stay, relabelled in the order in which the classes were asked for."""
    split = restrict(split_of({7: [0, 1, 2, 0]}), ["Coffee_Cups", "cat"])
    (image,) = split.images
    assert (("coffee cup", "cat"), [1, 0, 1]) == (split.classes, image.labels.tolist())
    assert [0, 2, 3] == image.boxes[:, 0].tolist()


def test_an_image_of_crowds_alone_does_not_show_a_class() -> None:
    """A crowd box counts as a box, but its image is no image of the class."""
    split = split_of({1: [0], 2: [0], 3: [1, 0]}, crowd=(2,))
    assert {"cat": {1, 3}, "dog": {3}, "coffee cup": set()} == members(split.images, CLASSES)
    assert {"cat": 2, "dog": 1, "coffee cup": 0} == images_per_class(split)
    assert {"cat": 3, "dog": 1, "coffee cup": 0} == boxes_per_class(split)


def test_images_are_put_in_order_of_id() -> None:
    """Whatever order they come in, a reduced split lists its images by id."""
    split = split_of({3: [0], 1: [0], 2: [0]})
    assert [1, 3] == [image.id for image in with_images(split, [split.images[0], split.images[1]]).images]


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ([], UsageError, "no class is named"),
        (["catt"], DataError, "annotations.json: unknown class 'catt'"),
        (["cat", "Cats"], DataError, "is given twice"),
    ],
)
def test_wrong_classes_are_errors(classes: list[str], error: type[Exception], message: str) -> None:
    """No class, an unknown one and one named twice are refused."""
    with pytest.raises(error, match=message):
        restrict(split_of({1: [0]}), classes)

"""Which files make up the boxes of Open Images, and where they lie.

Version 7 kept the boxes of version 5 and 6, and the lists of images of 2018, so that is where the paths point.
They are the ones that FiftyOne uses; a test compares them with its table.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = "v7"
ORIGIN = "https://storage.googleapis.com"
"""What `--mirror` replaces for the metadata. The images' origin is the public bucket below, on S3."""

FLAGS = {
    "occluded": "IsOccluded",
    "truncated": "IsTruncated",
    "group-of": "IsGroupOf",
    "depiction": "IsDepiction",
    "inside": "IsInside",
}
"""A mark of a box → its column in the box CSV."""

UNKNOWN = "unknown"
"""A mark that Open Images gives as −1: not checked. It counts as a mark of its own."""

ROTATED = "rotated"
"""An image whose metadata has a rotation. Pixels and boxes agree with each other, but the object lies on its side;
`nan` (no longer known when Open Images collected it) counts as upright."""

ALLOWABLE = (*FLAGS, UNKNOWN, ROTATED)
"""Marks that leave an image out unless `--allow` names them."""

BUCKET = "open-images-dataset"
CLASSES = "openimages/v5/class-descriptions-boxable.csv"
HIERARCHY = "openimages/2018_04/bbox_labels_600_hierarchy.json"


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The metadata of one split.

    Attributes:
        boxes: path of the box CSV below the origin.
        images: path of the CSV with author, licence and rotation of each image.
        count: how many images there are.
        download: what both weigh, for a person.
    """

    boxes: str
    images: str
    count: int
    download: str


SPLITS: dict[str, SplitFiles] = {
    "validation": SplitFiles(
        "openimages/v5/validation-annotations-bbox.csv",
        "openimages/2018_04/validation/validation-images-with-rotation.csv",
        41_620,
        "about 40 MB of metadata",
    ),
    "test": SplitFiles(
        "openimages/v5/test-annotations-bbox.csv",
        "openimages/2018_04/test/test-images-with-rotation.csv",
        125_436,
        "about 120 MB of metadata",
    ),
    "train": SplitFiles(
        "openimages/v6/oidv6-train-annotations-bbox.csv",
        "openimages/2018_04/train/train-images-boxable-with-rotation.csv",
        1_743_042,
        "about 3 GB of metadata",
    ),
}

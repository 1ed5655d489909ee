"""What dataset.json holds, and whether the images of a data set are still those that it lists."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli.documents import MAY_LACK, Check, ReadAs
from fewshot_cli.errors import Problem
from fewshot_cli.files import sha256_of


def _plain_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file in images/")
    return name


class RecordedFile(TypedDict):
    """One image: its name in images/, the SHA-256 of its bytes, and their number."""

    file_name: Annotated[str, Check(_plain_name)]
    sha256: str
    bytes: NotRequired[int]


class RecordedSplit(TypedDict):
    """What dataset.json says of a split."""

    annotations: Annotated[str, Doc("What it was drawn from."), MAY_LACK]
    images: Annotated[int, Doc("Images."), MAY_LACK]
    images_per_class: Annotated[dict[str, int], Doc("Class → images that show it."), MAY_LACK]
    boxes_per_class: Annotated[dict[str, int], Doc("Class → boxes."), MAY_LACK]
    files: Annotated[
        list[dict[str, Any]],
        ReadAs(list[RecordedFile]),
        Doc("Of each image `id`, `file_name`, `source_file` and `sha256`, and what the source knows beside."),
        MAY_LACK,
    ]


class AugmentationRecord(TypedDict):
    """How variants were made."""

    copies: Annotated[int, Ge(1), Doc("Images for each shot, the shot included."), MAY_LACK]
    ops: Annotated[dict[str, Any], Doc("Operation → its range."), MAY_LACK]
    seed: Annotated[int, Doc("Of the variants."), MAY_LACK]
    canvas: NotRequired[Annotated[int | None, Doc("Side of the canvas of the variants, pixels; null: full size.")]]


class Stratified(TypedDict):
    """How a subset of a share of all training images compares with all of them."""

    fraction: Annotated[float, Doc("Option of `fsod fetch`.")]
    subset: Annotated[int, Ge(1), Doc("Option of `fsod fetch`.")]
    subsets: Annotated[int, Ge(1), Doc("Disjoint subsets of that share that there are.")]
    images: Annotated[int, Ge(1), Doc("All training images.")]
    largest_difference: Annotated[
        float,
        Ge(0),
        Doc("Of a class's share of the objects in the subset to its share in all images, percentage points."),
    ]
    largest_in: Annotated[str, Doc("The class with the largest difference.")]


class DatasetRecord(TypedDict):
    """dataset.json in a data set's folder."""

    schema: Annotated[Literal["fsod/dataset/1"], Doc("Kind and version.")]
    format: Annotated[int, Doc("1; from before there was `schema`.")]
    fsod: Annotated[str, Doc("Version."), MAY_LACK]
    created: Annotated[str, Doc("ISO 8601, UTC."), MAY_LACK]
    name: Annotated[str, Doc("Of the folder."), MAY_LACK]
    classes: Annotated[list[str], Doc("In label order."), MAY_LACK]
    licences: Annotated[list[str], Doc("What the sources say about rights."), MAY_LACK]
    source: Annotated[str | list[str], Doc("What was fetched from; of an augmented data set, the data set."), MAY_LACK]
    test_source: NotRequired[Annotated[str | None, Doc("Option of `fsod fetch`.")]]
    shots: NotRequired[Annotated[int, Doc("Option of `fsod fetch`; not with `fraction`.")]]
    fraction: NotRequired[Annotated[float, Doc("Option of `fsod fetch`; not with `shots`.")]]
    subset: NotRequired[Annotated[int, Doc("Option of `fsod fetch`; with `fraction`.")]]
    stratified: NotRequired[Annotated[Stratified, Doc("With `fraction`.")]]
    test_images: NotRequired[Annotated[int, Doc("Option of `fsod fetch`.")]]
    seed: NotRequired[Annotated[int, Doc("Option of `fsod fetch`.")]]
    skip_invalid: NotRequired[Annotated[bool, Doc("Option of `fsod fetch`.")]]
    options: NotRequired[Annotated[dict[str, Any], Doc("Options of the source that decide which images are drawn.")]]
    filters: NotRequired[Annotated[list[str], Doc("What was left out, and why.")]]
    origin: NotRequired[Annotated[dict[str, Any], Doc("What the source says of itself.")]]
    duplicates_left_out: NotRequired[Annotated[list[str], Doc("Test images with the content of a shot.")]]
    problems_left_out: NotRequired[Annotated[list[str], Doc("Faulty images and boxes, with --skip-invalid.")]]
    detector: NotRequired[Annotated[str, ReadAs(str | None), Doc("The detector that was made for the images.")]]
    augmentation: NotRequired[Annotated[AugmentationRecord, Doc("Of an augmented data set.")]]
    splits: Annotated[dict[str, RecordedSplit], Doc("`train`, and `test` where there is one."), MAY_LACK]


def changed_images(path: Path, record: Mapping[str, Any], splits: Collection[str]) -> list[Problem]:
    """The images that are not, byte for byte, those that were written with the data set.

    A file of the recorded length that is no newer than dataset.json is taken as it is; others are hashed, so that a
    data set may be copied, and thousands of images cost milliseconds.

    Args:
        path: the data set.
        record: the content of its dataset.json, a `DatasetRecord`.
        splits: `train`, `test`.
    """
    written = (path / "dataset.json").stat().st_mtime_ns
    return [
        Problem(str(file), "", reason)
        for split in splits
        for entry in record.get("splits", {}).get(split, {}).get("files", ())
        for file in [path / split / "images" / entry["file_name"]]
        for reason in _fault(file, entry, written)
    ]


def _fault(file: Path, entry: Mapping[str, Any], written: int) -> Iterator[str]:
    """Why this is not the file that was written, if it is not."""
    try:
        found = file.stat()
        length = entry.get("bytes", found.st_size)
        if not stat.S_ISREG(found.st_mode):
            yield "is not a regular file"
        elif found.st_size != length:
            yield f"has changed: it has {found.st_size:,} bytes instead of {length:,}"
        elif ("bytes" not in entry or found.st_mtime_ns > written) and sha256_of(file) != entry["sha256"]:
            yield "has changed: its content is not what was fetched"
    except FileNotFoundError:
        yield "is gone"
    except OSError as error:
        yield f"cannot be read: {error.strerror}"

"""What dataset.json holds, and whether the images of a data set are still those that it lists."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import AfterValidator, ConfigDict, with_config
from typing_extensions import NotRequired, TypedDict

from fewshot_cli.errors import Problem
from fewshot_cli.files import sha256_of

_RULES = ConfigDict(strict=True, extra="allow")


def _plain_name(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file in images/")
    return name


@with_config(_RULES)
class RecordedFile(TypedDict):
    """One image: its name in images/, the SHA-256 of its bytes, and their number."""

    file_name: Annotated[str, AfterValidator(_plain_name)]
    sha256: str
    bytes: NotRequired[int]


@with_config(_RULES)
class RecordedSplit(TypedDict):
    """One split; earlier versions left out the files of some."""

    files: NotRequired[list[RecordedFile]]


@with_config(_RULES)
class RecordedAugmentation(TypedDict):
    """Of a data set that `fsod augment` wrote."""

    copies: NotRequired[Annotated[int, Ge(1)]]


@with_config(_RULES)
class DatasetRecord(TypedDict):
    """The content of dataset.json; the keys of a request (`FetchRequest.record`) are compared, not read."""

    format: int
    classes: NotRequired[list[str]]
    licences: NotRequired[list[str]]
    detector: NotRequired[str | None]
    augmentation: NotRequired[RecordedAugmentation]
    splits: NotRequired[dict[str, RecordedSplit]]


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

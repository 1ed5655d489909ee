"""Whether two numbers were measured on the same data."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

from fewshot_cli.datasets.store import RECORD, read_record
from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import DataError

DIGITS = 16
"""Of the hash, in hex: enough to tell data sets apart that are different by chance."""


def fingerprint(split: Split) -> str:
    """A short SHA-256 of a split: its classes, and of each image name, size, boxes, labels and content.

    Content is the checksum that dataset.json recorded; for images of other data sets it is the size of the file, so
    that no image is read. Where the folder lies does not matter.
    """
    digest, checksums = hashlib.sha256(json.dumps(split.classes).encode()), recorded_checksums(split)
    for image in split.images:
        content = checksums.get(image.path.name) or image.path.stat().st_size
        digest.update(json.dumps([image.path.name, image.width, image.height, content]).encode())
        for values in (image.boxes, image.labels, image.crowd):
            digest.update(values.tobytes())
    return digest.hexdigest()[:DIGITS]


def recorded_checksums(split: Split) -> dict[str, str]:
    """File name → SHA-256 as dataset.json has it; empty for a split of which nothing is recorded."""
    folder = split.annotations.parent
    if not (folder.parent / RECORD).is_file():
        return {}
    # What is wrong with a record is reported where the data set is opened.
    with suppress(DataError, KeyError, TypeError, AttributeError):
        files: list[dict[str, Any]] = read_record(folder.parent)["splits"][folder.name]["files"]
        return {str(each["file_name"]): str(each["sha256"]) for each in files}
    return {}

"""The facts about images that Open Images lists besides boxes: author, licence, rotation."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.errors import DataError

FACTS = {
    "author": "Author",
    "author_url": "AuthorProfileURL",
    "licence": "License",
    "title": "Title",
    "url": "OriginalLandingURL",
}
"""Key in dataset.json → column."""


def rotated_ids(path: Path) -> NDArray[np.uint64]:
    """The images that should be turned, sorted; raises DataError if the list is damaged."""
    turned = [image for image, rotation in _rows(path, ["Rotation"]) if rotation not in ("", "nan", "0", "0.0")]
    return np.sort(np.array(turned, dtype=np.uint64))


def read_facts(path: Path, chosen: Sequence[int]) -> dict[int, dict[str, str]]:
    """Image → its facts, where the list has them; raises DataError if the list is damaged."""
    wanted = set(chosen)
    return {
        image: {key: value for key, value in zip(FACTS, values, strict=True) if value}
        for image, *values in _rows(path, list(FACTS.values()))
        if image in wanted
    }


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple]:
    """(image, *cells of the columns) of each row; a column that the file does not have is empty."""
    line = 0
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            places = [header.index(name) if name in header else None for name in columns]
            for row in reader:
                line = reader.line_num
                yield (int(row[0], 16), *("" if place is None else row[place] for place in places))
    except (csv.Error, IndexError, ValueError) as error:
        raise DataError(
            f"{path}: damaged near line {line}: {error}", hint="Remove the file; the next call downloads it again."
        ) from error

"""The box CSV of a split, read once from front to back in bounded memory.

Of a row of a requested class 18 bytes are kept (image, marks, place in the file); of all others nothing. So the
train split's 14.6 million rows need no more memory than the rows of the class do, and the rows that are needed
in full later are read again from their places.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.errors import DataError
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.sources.openimages.release import FLAGS, UNKNOWN

SMALL = "small"
INVALID = "invalid"
MARKS = (*FLAGS, UNKNOWN, SMALL, INVALID)
"""Why an image may be left out, in the order of the bits of a mask."""

_SINGLE = 1 << len(MARKS)  # a box around one object, not around a group
_BIT = {name: 1 << position for position, name in enumerate(MARKS)}
_VALUES = {b"0": 0, b"1": 1, b"-1": -1}
_BLOCK = 1 << 22  # bytes read at a time
_EDGE = 1e-3  # by which a box may leave its image; it is clipped


@dataclass(frozen=True, slots=True)
class Box:
    """One box as the CSV has it: corners as shares of width and height, 0 … 1, and whether it holds a group."""

    label: str
    corners: tuple[float, float, float, float]
    group: bool


@dataclass(slots=True)
class ClassRows:
    """The rows of one class in one split.

    Attributes:
        label: the class, e.g. `/m/0zvk5`.
        ids: (P,) uint64, sorted: its images.
        masks: (P,) uint16: the marks of all boxes of the class in each image, by the bits of MARKS.
        row_ids, row_places: (R,) uint64: of each row its image and its place in the file, in bytes.
    """

    label: str
    ids: NDArray[np.uint64]
    masks: NDArray[np.uint16]
    row_ids: NDArray[np.uint64]
    row_places: NDArray[np.uint64]

    def bad(self, allow: Iterable[str]) -> NDArray[np.bool_]:
        """(P,) whether an image has a mark that is not allowed, or only boxes around groups."""
        leaving_out = sum(bit for name, bit in _BIT.items() if name not in set(allow))
        return ((self.masks & np.uint16(leaving_out)) != 0) | ((self.masks & np.uint16(_SINGLE)) == 0)

    def reasons(self, allow: Iterable[str]) -> dict[str, int]:
        """Mark → images that have it, for the marks that are not allowed; an image may have several."""
        counts = {
            name: int(np.count_nonzero(self.masks & np.uint16(bit)))
            for name, bit in _BIT.items()
            if name not in set(allow)
        }
        return {name: count for name, count in counts.items() if count}


@dataclass(slots=True)
class _Rows:
    """The rows of one class while they are collected."""

    ids: array = field(default_factory=lambda: array("Q"))
    masks: array = field(default_factory=lambda: array("H"))
    places: array = field(default_factory=lambda: array("Q"))

    def finished(self, label: str) -> ClassRows:
        row_ids = np.frombuffer(self.ids, dtype=np.uint64)
        ids, inverse = np.unique(row_ids, return_inverse=True)
        masks = np.zeros(len(ids), dtype=np.uint16)
        np.bitwise_or.at(masks, inverse, np.frombuffer(self.masks, dtype=np.uint16))
        return ClassRows(label, ids, masks, row_ids, np.frombuffer(self.places, dtype=np.uint64))


class _Columns:
    """Positions of the columns in the header, and the values of a row."""

    def __init__(self, path: Path, header: bytes) -> None:
        names = header.decode("utf-8", "replace").strip().split(",")
        wanted = ["ImageID", "LabelName", "XMin", "YMin", "XMax", "YMax", *FLAGS.values()]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise DataError(f"{path}: not a list of boxes: it has no column {missing[0]}", hint=_HINT)
        self.path = path
        self.count = len(names)
        self.label = names.index("LabelName")
        self.corners = [names.index(name) for name in ("XMin", "YMin", "XMax", "YMax")]
        self.flags = [names.index(name) for name in FLAGS.values()]

    def cells(self, line: bytes, place: int) -> list[bytes]:
        cells = line.rstrip(b"\r\n").split(b",")
        if len(cells) != self.count or len(cells[0]) != 16:
            raise self.error(line, place)
        return cells

    def error(self, line: bytes, place: int) -> DataError:
        shown = line.decode("utf-8", "replace").strip()[:80]
        return DataError(f"{self.path}: the row at byte {place:,} is damaged: {shown}", hint=_HINT)

    def corners_of(self, cells: Sequence[bytes]) -> tuple[float, float, float, float]:
        x1, y1, x2, y2 = (float(cells[position]) for position in self.corners)
        return x1, y1, x2, y2

    def mask(self, cells: Sequence[bytes], smallest: float) -> int:
        """The marks of a row; raises KeyError or ValueError where a cell holds something else."""
        mask = 0
        for bit, position in enumerate(self.flags):
            value = _VALUES[cells[position]]
            mask |= (1 << bit if value == 1 else 0) | (_BIT[UNKNOWN] if value == -1 else 0)
        if not mask & _BIT["group-of"]:
            mask |= _SINGLE
        corners = self.corners_of(cells)
        if not _is_box(corners):
            return mask | _BIT[INVALID]
        side = min(corners[2] - corners[0], corners[3] - corners[1])
        return mask | (_BIT[SMALL] if side < smallest else 0)


_HINT = "Remove the file; the next call downloads it again."


def find_rows(
    path: Path, labels: Sequence[str], *, smallest: float = 0.0, reporter: Reporter | None = None
) -> list[ClassRows]:
    """Read the rows of some classes.

    Rows need not be in any order: all rows of an image count, wherever they stand.

    Args:
        path: the box CSV.
        labels: classes, e.g. `/m/0zvk5`.
        smallest: a box whose width or height is below this share of its image is marked `small`.
        reporter: receives the progress, in bytes.

    Returns:
        one ClassRows a label.

    Raises:
        DataError: the file is no list of boxes, or a row of these classes is damaged.
    """
    found = {label.encode(): _Rows() for label in labels}
    search = re.compile(b",(" + b"|".join(re.escape(label) for label in found) + b"),").search
    reporter = reporter or SilentReporter()
    with path.open("rb") as stream, reporter.progress(f"Reading {path.name}", path.stat().st_size) as task:
        header = stream.readline()
        columns = _Columns(path, header)
        place = len(header)
        while lines := stream.readlines(_BLOCK):
            began = place
            for line in lines:
                if search(line):
                    _collect(found, columns, line, place, smallest)
                place += len(line)
            task.advance(place - began)
    return [rows.finished(label.decode()) for label, rows in found.items()]


def _collect(found: dict[bytes, _Rows], columns: _Columns, line: bytes, place: int, smallest: float) -> None:
    cells = columns.cells(line, place)
    rows = found.get(cells[columns.label])
    if rows is None:
        return
    try:
        image, mask = int(cells[0], 16), columns.mask(cells, smallest)
    except (KeyError, ValueError) as error:
        raise columns.error(line, place) from error
    rows.ids.append(image)
    rows.masks.append(mask)
    rows.places.append(place)


def read_boxes(path: Path, rows: Sequence[ClassRows], chosen: Sequence[int]) -> tuple[dict[int, list[Box]], bytes]:
    """The boxes of chosen images, and their rows as a CSV of their own.

    Args:
        path: the file that `find_rows` read.
        rows: of the classes whose boxes are wanted.
        chosen: images.

    Returns:
        image → boxes, clipped to the image, in the order of the file; and the header with just these rows.
    """
    wanted = np.array(chosen, dtype=np.uint64)
    places = np.concatenate([each.row_places[np.isin(each.row_ids, wanted)] for each in rows])
    boxes: dict[int, list[Box]] = {number: [] for number in chosen}
    with path.open("rb") as stream:
        kept = [header := stream.readline()]
        columns = _Columns(path, header)
        for place in np.sort(places).tolist():
            stream.seek(place)
            line = stream.readline()
            cells = columns.cells(line, place)
            corners = columns.corners_of(cells)
            if _is_box(corners):
                group = cells[columns.flags[list(FLAGS).index("group-of")]] == b"1"
                x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in corners)
                boxes[int(cells[0], 16)].append(Box(cells[columns.label].decode(), (x1, y1, x2, y2), group))
            kept.append(line.rstrip(b"\r\n") + b"\n")
    return boxes, b"".join(kept)


def _is_box(corners: Sequence[float]) -> bool:
    """Whether it is finite, has an area, and lies in the image."""
    x1, y1, x2, y2 = corners
    inside = all(math.isfinite(value) and -_EDGE <= value <= 1 + _EDGE for value in corners)
    return inside and min(x2, 1.0) > max(x1, 0.0) and min(y2, 1.0) > max(y1, 0.0)

"""A CSV file, one row a box: `image,x1,y1,x2,y2,class`, pixels of the upright image.

The columns may have any order, and others beside them; the names that Roboflow and TensorFlow give them (`filename`,
`xmin`, …) are understood too. Without a header the order is the one above. A row that names an image and nothing else
says that it has no objects: `image,,,,,` is a background image. Images lie in images/ beside the file, or beside it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fewshot_cli.datasets.formats import SPLIT_NAMES
from fewshot_cli.datasets.formats.collector import CORRECT, Collector, FoundImage, Where
from fewshot_cli.datasets.formats.documents import read_text, start_of
from fewshot_cli.datasets.formats.image_files import find_image
from fewshot_cli.datasets.formats.values import number, shown
from fewshot_cli.datasets.formats.writing import Labelled
from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import DataError
from fewshot_cli.files import storage_errors

__all__ = ["EXPECTED", "open_writer", "read", "recognise", "split_paths"]

COLUMNS = ("image", "x1", "y1", "x2", "y2", "class")
EXPECTED = f"a .csv file with the columns {','.join(COLUMNS)}, images in images/ or beside it."

_ALIASES = {
    "filename": "image", "image_path": "image", "file_name": "image", "label": "class", "class_name": "class",
    "xmin": "x1", "ymin": "y1", "xmax": "x2", "ymax": "y2",
}  # fmt: skip


def recognise(path: Path) -> bool:
    """Whether `path` is a CSV file of boxes, or a folder with one."""
    return _find(path) is not None


def split_paths(path: Path) -> dict[str, Path]:
    """Files train.csv, test.csv, … or folders of these names."""
    places = {name: (path / f"{name}.csv", path / name) for name in SPLIT_NAMES}
    found = {name: next((place for place in each if recognise(place)), None) for name, each in places.items()}
    return {name: place for name, place in found.items() if place}


def read(path: Path, *, decode_images: bool = True, skip_invalid: bool = False) -> Split:
    """Read and check one split; arguments and errors as for `formats.read_split`."""
    file = path if path.is_file() else _find(path)
    if file is None:
        raise DataError(f"{path} holds no CSV file of boxes", hint=f"Expected {EXPECTED}")
    found = Collector(file, decode=decode_images)
    rows = _rows(file, found)
    if rows is None:
        raise found.problems.error(CORRECT)
    roots = [folder for folder in (file.parent / "images", file.parent) if folder.is_dir()]
    images: dict[str, FoundImage] = {}
    for line, row in rows:
        where, name = Where(file, f"line {line}"), row["image"].strip()
        if name not in images:
            path_, reason = find_image(roots, name) if name else (None, "the image is empty")
            images[name] = found.image(where, path_, reason, name=name.replace("\\", "/") if "/" in name else "")
        _read_box(found, images[name], where, row)
    return found.split(skip_invalid=skip_invalid)


def _find(path: Path) -> Path | None:
    """The file itself or, in a folder without files for splits, the only CSV file of boxes."""
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.csv")) if _columns(start_of(file))]
        return files[0] if len(files) == 1 and files[0].stem not in SPLIT_NAMES else None
    return path if path.suffix.lower() == ".csv" and _columns(start_of(path)) else None


# --- rows ---


def _columns(text: str) -> list[str] | None:
    """The names of the columns: of the header, or the usual ones if the first row is one of boxes; None: neither."""
    try:
        first = next(csv.reader(io.StringIO(text)), []) if "\0" not in text else []
    except csv.Error:
        return None
    if _is_header(first):
        return _names(first)
    plain = len(first) == len(COLUMNS) and all(not cell.strip() or number(cell) is not None for cell in first[1:5])
    return list(COLUMNS) if plain else None


def _names(row: Sequence[str]) -> list[str]:
    return [_ALIASES.get(cell.strip().casefold(), cell.strip().casefold()) for cell in row]


def _is_header(row: Sequence[str]) -> bool:
    return set(COLUMNS) <= set(_names(row))


def _rows(file: Path, found: Collector) -> list[tuple[int, dict[str, str]]] | None:
    """(line, column → text) of all rows but empty ones; another number of columns is a problem.

    None, and a problem, if the file is no CSV file of boxes.
    """
    text = read_text(file, found.problems)
    names = _columns(text) if text else None
    if text is None or names is None:
        if text is not None:
            found.problem(Where(file, ""), f"the first row is not the header {','.join(COLUMNS)}")
        return None
    reader = csv.reader(io.StringIO(text), strict=True)
    rows = []
    try:
        for row in reader:
            rows.append((reader.line_num, row))
    except csv.Error as error:
        found.problem(Where(file, f"line {reader.line_num}"), f"not valid CSV: {error}")
        return None
    usable = []
    for line, row in rows[1:] if rows and _is_header(rows[0][1]) else rows:
        if len(row) == len(names):
            usable.append((line, dict(zip(names, row, strict=True))))
        elif any(cell.strip() for cell in row):
            found.problem(Where(file, f"line {line}"), f"has {len(row)} columns instead of {len(names)}")
    return usable


def _read_box(found: Collector, image: FoundImage, where: Where, row: dict[str, str]) -> None:
    cells = [row[column].strip() for column in COLUMNS[1:]]
    if not any(cells):
        return
    text = f"box {shown(','.join(cells[:4]))}"
    found.box(image, where, cells[4], [number(cell) for cell in cells[:4]], text=text)


# --- writing ---


class _Writer:
    """detections.csv; the rows of an image are there as soon as it is added."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "detections.csv"
        self._columns: list[str] = []
        with storage_errors(self._file):
            self._file.write_bytes(b"")

    def add(self, image: Labelled) -> None:
        rows: list[list[object]] = []
        if not self._columns:
            self._columns = [*COLUMNS, *(["score"] if image.scores is not None else [])]
            rows.append(list(self._columns))
        rows += _written(image)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        _append(self._file, text.getvalue().encode(errors="backslashreplace"))

    def close(self) -> None:
        """Nothing is left to write."""


def open_writer(folder: Path, classes: Sequence[str]) -> _Writer:
    """See `writing.open_writer`; detections have a seventh column, `score`."""
    return _Writer(folder)


def _written(image: Labelled) -> list[list[object]]:
    if not image.names:
        return [[image.name, "", "", "", "", "", *([] if image.scores is None else [""])]]
    scores = [[]] * len(image.names) if image.scores is None else [[f"{score:.6f}"] for score in image.scores.tolist()]
    return [
        [image.name, *(f"{value:.3f}" for value in box), label, *score]
        for box, label, score in zip(image.boxes.tolist(), image.names, scores, strict=True)
    ]


def _append(file: Path, content: bytes) -> None:
    """All or nothing, so that a full disk leaves whole rows."""
    with storage_errors(file):
        before = file.stat().st_size
        try:
            _write(file, content)
        except OSError:
            with file.open("rb+") as stream:
                stream.truncate(before)
            raise


def _write(file: Path, content: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(content)

"""What a folder that cannot be read looks like: formats of others, known by names and first lines, for a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from fewshot_cli.datasets.formats.documents import start_of
from fewshot_cli.datasets.formats.image_files import SUFFIXES
from fewshot_cli.datasets.formats.values import number, shown

VISITED, READ = 10_000, 200
"""Entries of a folder that are visited and files that are read, at most: a guess must not take long."""

Guess = Callable[[Path, str], bool]
"""Whether a file is of a format, by its path and its first characters."""


def looks_like(path: Path) -> str | None:
    """What a file or folder seems to hold, and what to do with it, as one sentence; None if nothing is known."""
    files = list(_files(path))
    labels = [file for file in files if file.suffix.lower() not in SUFFIXES][:READ]
    starts = {file: start_of(file, 1024) for file in labels}
    for told, fits in FOREIGN.items():
        if any(fits(file, start) for file, start in starts.items()):
            return told
    tables = [start for file, start in starts.items() if file.suffix.lower() in (".csv", ".tsv")]
    if tables:
        columns = (tables[0].splitlines() or [""])[0]
        return f"a table with other columns ({shown(columns)}): rename them, or export another format"
    if files and not labels:
        return "images without labels: label them, e.g. with labelme, Label Studio or CVAT"
    return None


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        return iter([path])
    return (each for each in islice(path.rglob("*"), VISITED) if "." in each.name)


def _suffix(*suffixes: str) -> Guess:
    return lambda file, start: file.name.lower().endswith(suffixes)


def _json(*keys: str) -> Guess:
    """A JSON file whose beginning holds all of the keys."""
    return lambda file, start: file.suffix.lower() == ".json" and all(f'"{key}"' in start for key in keys)


def _dota(file: Path, start: str) -> bool:
    """x1 y1 x2 y2 x3 y3 x4 y4 class difficult, perhaps below a header."""
    lines = [line.split() for line in start.splitlines() if ":" not in line]
    return file.suffix == ".txt" and bool(lines) and len(lines[0]) in (9, 10) and _numbers(lines[0][:8])


def _kitti(file: Path, start: str) -> bool:
    """class truncated occluded alpha x1 y1 x2 y2 and seven numbers more."""
    words = (start.splitlines() or [""])[0].split()
    return file.suffix == ".txt" and len(words) in (15, 16) and number(words[0]) is None and _numbers(words[1:15])


def _mot(file: Path, start: str) -> bool:
    return file.name in ("gt.txt", "det.txt") and bool(re.match(r"\d+,-?\d+,", start))


def _yolo_rows(file: Path, start: str) -> bool:
    words = (start.splitlines() or [""])[0].split()
    return file.suffix == ".txt" and len(words) == 5 and _numbers(words)


def _numbers(words: list[str]) -> bool:
    return all(number(word) is not None for word in words)


FOREIGN: dict[str, Guess] = {
    "an archive: unpack it and give the folder": _suffix(
        ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar"
    ),
    "TFRecord (TensorFlow): export COCO or Pascal VOC where it was made": _suffix(".tfrecord", ".tfrecords", ".record"),
    "Parquet or Arrow (Hugging Face): export COCO, e.g. with FiftyOne": _suffix(".parquet", ".arrow"),
    "SageMaker Ground Truth: convert it to COCO": _suffix(".manifest"),
    "Labelbox: export COCO there": _suffix(".ndjson"),
    "Supervisely: export COCO or Pascal VOC there": _json("objects", "classTitle"),
    "VGG Image Annotator: export COCO there": _json("regions", "shape_attributes"),
    "Datumaro: export COCO, with `datum convert -f coco`": _json("items", "categories"),
    "BDD100K: convert it to COCO, with its bdd100k.label.to_coco": _json("labels", "box2d"),
    "KITTI: convert it to COCO, e.g. with FiftyOne": _kitti,
    "DOTA, turned boxes: convert it to YOLO or COCO": _dota,
    "MOT, tracks in a video: convert it to COCO": _mot,
    "YOLO labels without their images beside them: images/ and labels/ belong side by side": _yolo_rows,
}
"""What to say → how it is known, first match first."""

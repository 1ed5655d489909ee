"""YOLO: one text file an image, one row an object, in shares of the image's width and height.

A row is `class x_center y_center width height` (a sixth number, a score, is ignored) or `class x1 y1 x2 y2 x3 y3 …`, a
polygon of three points or more, whose box is taken. Classes are numbered from 0; their names stand in data.yaml,
classes.txt or obj.names. Without such a file they are called `class 0`, `class 1`, …. An image whose label file is
empty or missing is background, as it is for every YOLO trainer. Coordinates belong to the upright image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from fewshot_cli.datasets.formats.boxes import hull
from fewshot_cli.datasets.formats.collector import Collector, FoundImage, Where
from fewshot_cli.datasets.formats.documents import read_text
from fewshot_cli.datasets.formats.problems import Problems
from fewshot_cli.datasets.formats.values import number, shown, whole
from fewshot_cli.datasets.formats.writing import Labelled
from fewshot_cli.datasets.formats.yolo_layout import (
    find_layout,
    label_file,
    listed_images,
    read_names,
    split_paths,
    stray_labels,
)
from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import DataError
from fewshot_cli.files import write_text

__all__ = ["EXPECTED", "open_writer", "read", "recognise", "split_paths"]

EXPECTED = (
    "data.yaml that names train and val, images/ and labels/ with a .txt an image, "
    "or images with a .txt beside them (classes.txt)."
)

Row = tuple[int, list[str]]
"""The number of a line, and its words."""


def recognise(path: Path) -> bool:
    """Whether `path` is one split, in a layout of `yolo_layout`."""
    return find_layout(path) is not None


def read(path: Path, *, decode_images: bool = True, skip_invalid: bool = False) -> Split:
    """Read and check one split; arguments and errors as for `formats.read_split`."""
    layout = find_layout(path)
    if layout is None:
        raise DataError(f"{path} holds no YOLO labels", hint=f"Expected {EXPECTED}")
    problems = Problems(layout.annotations)
    names, keypoints = read_names(layout.names, problems) if layout.names else (None, False)
    images = {name: (file, reason) for file, name, reason in listed_images(layout, problems)}
    labels = {name: label_file(file, layout.home) for name, (file, _) in images.items() if file}
    texts = {name: _rows(label, problems) for name, label in labels.items() if label.exists()}
    classes = _named(names, texts.values())
    found = Collector(layout.annotations, decode=decode_images, classes=classes)
    found.problems.found.extend(problems.found)
    for name, (file, reason) in images.items():
        where = Where(layout.annotations, f"image {name}")
        image = found.image(where, None if reason else file, reason, name=_nested(name))
        for line, words in texts.get(name, []):
            _read_row(found, image, Where(labels[name], f"line {line}"), words[:5] if keypoints else words, classes)
    for stray in stray_labels(layout, set(labels.values())):
        found.problem(Where(stray, ""), "there is no image of this name")
    without = sum(name not in texts for name in labels)
    if without:
        found.left_out["images without a label file, taken as background"] = without
    return found.split(skip_invalid=skip_invalid)


def _nested(name: str) -> str:
    """The name with its folder where images are kept in several."""
    parts = PurePosixPath(name).parts
    inner = parts[parts.index("images") + 1 :] if "images" in parts else parts
    return "/".join(inner) if len(inner) > 1 else ""


def _rows(file: Path, problems: Problems) -> list[Row]:
    lines = (read_text(file, problems) or "").splitlines()
    return [(place, words) for place, line in enumerate(lines, start=1) if (words := line.split())]


def _named(names: list[str] | None, texts: Iterable[list[Row]]) -> list[str]:
    """The class names; `class 0`, … up to the largest number in use where there are none."""
    if names is not None:
        return names
    used = [whole(words[0]) for rows in texts for _, words in rows]
    largest = max((label for label in used if label is not None and 0 <= label < LARGEST_CLASS), default=-1)
    return [f"class {label}" for label in range(largest + 1)]


LARGEST_CLASS = 10_000
"""No set without names has more classes; a larger number is a fault."""


def _read_row(found: Collector, image: FoundImage, where: Where, words: list[str], classes: Sequence[str]) -> None:
    label = whole(words[0])
    if label is None or label < 0:
        found.problem(where, f"the class is not a whole number from 0: {shown(words[0])}")
        return
    if label >= len(classes):
        valid = f"the {len(classes)} classes, 0 to {len(classes) - 1}" if classes else "the classes: none is known"
        found.problem(where, f"class {label} is beyond {valid}")
        return
    shares = [number(word) for word in words[1:]]
    polygon = len(shares) >= 6 and len(shares) % 2 == 0
    if len(shares) not in (4, 5) and not polygon:
        found.problem(
            where,
            f"{len(words)} columns: expected class x_center y_center width height, or class and three or more points",
        )
    elif None in shares:
        found.problem(where, f"holds something that is not a finite number: {shown(' '.join(words))}")
    elif image.size:
        known = [share for share in shares if share is not None]
        width, height = image.size
        x1, y1, x2, y2 = hull(zip(known[::2], known[1::2], strict=True)) if polygon else _corners(known)
        text = f"box {shown(' '.join(words[:7]))} (shares of width and height, 0 to 1)"
        found.box(image, where, classes[label], (x1 * width, y1 * height, x2 * width, y2 * height), text=text)


def _corners(shares: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = shares[:4]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


# --- writing ---


class _Writer:
    """labels/NAME.txt for each image, beside the class names as classes.txt and data.yaml."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        self._classes = list(classes)
        self._names: dict[PurePosixPath, str] = {}
        write_text(folder / "classes.txt", "".join(f"{name}\n" for name in classes))
        write_text(folder / "data.yaml", _yaml(classes))

    def add(self, image: Labelled) -> None:
        """Raises also DataError: a second image of that name but for its suffix, which would have the same labels."""
        name = PurePosixPath(image.name)
        place = name if image.frame is not None else name.with_suffix("")
        if place in self._names:
            raise DataError(
                f"{image.name} and {self._names[place]} have the same name for YOLO: {place}.txt",
                hint="Rename one of them, or write another format.",
            )
        self._names[place] = image.name
        rows = (
            _row(self._classes.index(label), box, image.width, image.height)
            for box, label in zip(image.boxes.tolist(), image.names, strict=True)
        )
        write_text(self._folder / "labels" / place.parent / f"{place.name}.txt", "".join(rows))

    def close(self) -> None:
        """Nothing is left to write."""


def open_writer(folder: Path, classes: Sequence[str]) -> _Writer:
    """See `writing.open_writer`; scores are not written, as tools that open labels do not read them."""
    return _Writer(folder, classes)


def _row(label: int, box: Sequence[float], width: int, height: int) -> str:
    x1, y1, x2, y2 = box
    shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return " ".join([str(label), *(f"{share:.7f}" for share in shares)]) + "\n"


def _yaml(classes: Sequence[str]) -> str:
    import yaml

    text: str = yaml.safe_dump({"names": dict(enumerate(classes))}, sort_keys=False, allow_unicode=True)
    return text

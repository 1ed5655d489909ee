"""COCO files and images read with suspicion: every problem of a data set is reported at once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from fewshot_cli.datasets.formats.coco_layouts import Layout, find_layout
from fewshot_cli.datasets.images import image_size
from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.errors import DataError, DatasetError, Problem

if TYPE_CHECKING:
    from typing import TypeGuard

TOLERANCE = 1.0
"""Pixels by which a box may leave its image: annotation tools round. It is then clipped."""

_LARGEST_ID = 2**63 - 1  # what NumPy, and so pycocotools, can hold


def read_split(folder: Path | str, *, decode_images: bool = True, skip_invalid: bool = False) -> Split:
    """Read and check one split.

    Args:
        folder: a split folder in any layout of `layouts`, or a COCO file.
        decode_images: decode every image and compare its size; otherwise images only have to exist
            inside the folder, and the size in the file is believed (see `check_images`).
        skip_invalid: leave out what is faulty (an image with its boxes, or a single box) and list it in
            `Split.skipped` instead of raising.

    Returns:
        the split; categories without annotations that merely name a group of others are dropped.

    Raises:
        DatasetError: all problems at once. Also with `skip_invalid` if the file is no COCO at all or
            nothing usable is left.
        DataError: no COCO layout at `folder`, or several splits.
    """
    layout = find_layout(Path(folder))
    reading = _Reading(layout, decode_images)
    document = reading.load()
    reading.categories(document["categories"], document["annotations"])
    reading.images(document["images"])
    reading.annotations(document["annotations"])
    split = reading.split(document)
    if not split.images:
        reading.report("", "holds no usable image")
    if reading.problems and not (skip_invalid and split.images):
        raise reading.error()
    return split


def check_images(images: Iterable[ImageRecord]) -> dict[int, Problem]:
    """Decode images and compare sizes; image id → its problem, for those that have one."""
    return {
        image.id: Problem(str(image.path), f"image {image.id}", reason)
        for image in images
        if (reason := _image_reason(image))
    }


def _image_reason(image: ImageRecord) -> str | None:
    """Why an image cannot be used, or None."""
    try:
        return _size_reason((image.width, image.height), image_size(image.path))
    except DataError as error:
        return error.message.removeprefix(f"{image.path}: ")


def _size_reason(stated: tuple[int, int], actual: tuple[int, int]) -> str | None:
    if stated == actual:
        return None
    turned = " (EXIF orientation applied)" if stated == actual[::-1] else ""
    return f"the annotations say {stated[0]}×{stated[1]} pixels, the image has {actual[0]}×{actual[1]}{turned}"


@dataclass(slots=True)
class _Boxes:
    """The boxes of one image while they are collected."""

    corners: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)


class _Reading:
    """One pass over one COCO file; `problems` grows as it goes."""

    def __init__(self, layout: Layout, decode_images: bool) -> None:
        self.layout = layout
        self.decode_images = decode_images
        self.problems: list[Problem] = []
        self.labels: dict[int, int] = {}
        self.classes: list[str] = []
        self.usable: dict[int, tuple[Path, tuple[int, int]]] = {}
        self.boxes: dict[int, _Boxes] = {}
        self.stated_images: set[int] = set()
        self.stated_categories: set[int] = set()

    def report(self, record: str, reason: str, file: Path | None = None) -> None:
        self.problems.append(Problem(str(file or self.layout.annotations), record, reason))

    def error(self) -> DatasetError:
        return DatasetError(
            str(self.layout.annotations),
            self.problems,
            hint="Correct the records above, or leave them out with --skip-invalid where the command has it.",
        )

    def load(self) -> dict[str, Any]:
        """The JSON document with its three lists; raises DatasetError if it is not COCO at all."""
        constants: set[str] = set()
        document: Any = None

        def constant(name: str) -> float:
            constants.add(name)
            return float(name)

        try:
            text = self.layout.annotations.read_text(encoding="utf-8-sig")
            # Python reads NaN and Infinity, which JSON does not have.
            document = json.loads(text, parse_constant=constant)
        except OSError as error:
            self.report("", f"cannot be read: {error.strerror}")
        except (ValueError, RecursionError) as error:
            self.report("", f"not valid JSON: {error}")
        else:
            self._check_shape(document)
        if self.problems:
            raise DatasetError(
                str(self.layout.annotations),
                self.problems,
                hint='A COCO file is a JSON object with the lists "images", "annotations" and "categories".',
            )
        if constants:
            self.report("", f"holds {', '.join(sorted(constants))}, which is not JSON")
        return dict(document)

    def _check_shape(self, document: Any) -> None:
        if not isinstance(document, dict):
            self.report("", "not a COCO file: the top level is not an object")
            return
        for key in ("images", "annotations", "categories"):
            records = document.get(key)
            if not isinstance(records, list):
                self.report("", f'not a COCO file: "{key}" is {"missing" if records is None else "not a list"}')

    def categories(self, records: list[Any], annotations: list[Any]) -> None:
        """Fill `labels` and `classes`, in the order of the file."""
        stated = [_get(annotation, "category_id") for annotation in annotations]
        used = {number for number in stated if _is_id(number)}
        for position, record in enumerate(records):
            number = self._unique_id(record, "category", position, self.stated_categories)
            if number is None or (number not in used and _is_placeholder(record, records)):
                continue
            name = record.get("name")
            if not isinstance(name, str) or not name.strip():
                self.report(f"category {number}", f"the name is not a non-empty string: {_short(name)}")
            elif name in self.classes:
                self.report(f"category {number}", f"another category has the name {name!r} too")
            else:
                self.labels[number] = len(self.classes)
                self.classes.append(name)

    def images(self, records: list[Any]) -> None:
        """Fill `usable` with those that can be used."""
        seen: dict[Path, int] = {}
        for position, record in enumerate(records):
            number = self._unique_id(record, "image", position, self.stated_images)
            if number is None:
                continue
            path = self._image_path(record, number)
            if path is None:
                continue
            if path in seen:
                self.report(f"image {number}", f"{_short(record['file_name'])} is already image {seen[path]}")
                continue
            seen[path] = number
            size = self._image_size(record, number, path)
            if size:
                self.usable[number] = (path, size)
                self.boxes[number] = _Boxes()

    def annotations(self, records: list[Any]) -> None:
        """Fill `boxes` with those that can be used."""
        seen: set[int] = set()
        for position, record in enumerate(records):
            number = self._unique_id(record, "annotation", position, seen)
            if number is not None:
                self._annotation(record, f"annotation {number}")

    def split(self, document: dict[str, Any]) -> Split:
        return Split(
            annotations=self.layout.annotations,
            classes=tuple(self.classes),
            images=tuple(self._image(number) for number in self.usable),
            licences=_licences(document),
            skipped=tuple(self.problems),
            category_ids=tuple(sorted(self.labels, key=lambda number: self.labels[number])),
        )

    def _image(self, number: int) -> ImageRecord:
        path, (width, height) = self.usable[number]
        boxes = self.boxes[number]
        return ImageRecord(
            id=number,
            path=path,
            width=width,
            height=height,
            boxes=np.array(boxes.corners, dtype=np.float32).reshape(-1, 4),
            labels=np.array(boxes.labels, dtype=np.int64),
            crowd=np.array(boxes.crowd, dtype=np.bool_),
        )

    def _unique_id(self, record: Any, kind: str, position: int, seen: set[int]) -> int | None:
        """The id of a record, noted in `seen`; None, and a problem, if it has no usable one."""
        if not isinstance(record, dict):
            self.report(f"{kind} at position {position}", "not an object")
            return None
        number = record.get("id")
        if not _is_id(number):
            self.report(f"{kind} at position {position}", f"the id is not an integer: {_short(number)}")
            return None
        if number in seen:
            self.report(f"{kind} {number}", "the id is used twice")
            return None
        seen.add(number)
        return number

    def _image_path(self, record: dict[str, Any], number: int) -> Path | None:
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            self.report(f"image {number}", f"the file_name is not a non-empty string: {_short(name)}")
            return None
        try:
            path, reason = _find_image(self.layout.image_roots, name)
        except (OSError, ValueError, RuntimeError) as error:  # NUL, a name too long, a loop of links
            path, reason = None, f"{_short(name)} is not a usable file name: {error}"
        if reason:
            self.report(f"image {number}", reason)
        return path

    def _image_size(self, record: dict[str, Any], number: int, path: Path) -> tuple[int, int] | None:
        """(width, height) in pixels; None, and a problem, if the image cannot be used."""
        stated = [record.get("width"), record.get("height")]
        if any(value is not None and not _is_size(value) for value in stated):
            self.report(f"image {number}", f"width and height are not positive integers: {_short(stated)}")
            return None
        complete = (int(stated[0]), int(stated[1])) if stated[0] and stated[1] else None
        if complete and not self.decode_images:
            return complete
        try:
            actual = image_size(path, decode=self.decode_images)
        except DataError as error:
            self.report(f"image {number}", error.message.removeprefix(f"{path}: "), path)
            return None
        reason = _size_reason(complete, actual) if complete else None
        if reason:
            self.report(f"image {number}", reason, path)
            return None
        return actual

    def _annotation(self, record: dict[str, Any], name: str) -> None:
        reasons: list[str] = []
        image, category, crowd = record.get("image_id"), record.get("category_id"), record.get("iscrowd", 0)
        if not _is_id(image) or image not in self.stated_images:
            reasons.append(f"no image has the id {_short(image)}")
        if not _is_id(category) or category not in self.stated_categories:
            reasons.append(f"no category has the id {_short(category)}")
        if crowd not in (0, 1):
            reasons.append(f"iscrowd is neither 0 nor 1: {_short(crowd)}")
        usable = self.usable.get(image) if _is_id(image) else None
        box, reason = _read_box(record.get("bbox"), usable[1] if usable else None)
        if reason:
            reasons.append(reason)
        for text in reasons:
            self.report(name, text)
        # An image or category that was itself reported takes its boxes along without another word.
        if _is_id(image) and usable and box and not reasons and category in self.labels:
            collected = self.boxes[image]
            collected.corners.append(box)
            collected.labels.append(self.labels[category])
            collected.crowd.append(bool(crowd))


def _find_image(roots: Sequence[Path], name: str) -> tuple[Path | None, str | None]:
    """(file, None) or (None, reason). The file lies inside its root with all symbolic links followed."""
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        return None, f"{_short(name)} leads out of the folder"
    for root in roots:
        path = root / name
        if not path.exists():
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            return None, f"{_short(name)} is a link that leads out of the folder"
        if not path.is_file():
            return None, f"{_short(name)} is not a file"
        if path.stat().st_size == 0:
            return None, f"{_short(name)}: the file is empty"
        return root / PurePosixPath(name), None
    return None, f"{_short(name)} does not exist in {roots[0] if roots else 'any image folder'}"


def _read_box(bbox: Any, size: tuple[int, int] | None) -> tuple[tuple[float, float, float, float] | None, str | None]:
    """COCO xywh → (xyxy clipped to the image, None) or (None, reason); pixels."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None, f"bbox is not a list of four numbers: {_short(bbox)}"
    numbers = [_number(value) for value in bbox]
    if None in numbers:
        return None, f"bbox holds something that is not a finite number: {_short(bbox)}"
    x, y, w, h = (float(value) for value in numbers if value is not None)
    if w <= 0 or h <= 0:
        return None, f"bbox has no positive width and height: {_short(bbox)}"
    if size is None:
        return (x, y, x + w, y + h), None
    width, height = size
    if min(x, y) < -TOLERANCE or x + w > width + TOLERANCE or y + h > height + TOLERANCE:
        return None, f"bbox {_short(bbox)} (x, y, width, height) leaves the image of {width}×{height} pixels"
    corners = np.array([max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)], dtype=np.float32)
    if corners[2] <= corners[0] or corners[3] <= corners[1]:
        return None, f"bbox {_short(bbox)} has no area inside the image of {width}×{height} pixels"
    return (float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3])), None


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_ID


def _is_size(value: Any) -> bool:
    number = _number(value)
    return number is not None and number > 0 and number == int(number)


def _number(value: Any) -> float | None:
    """A finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _get(record: Any, key: str) -> Any:
    return record.get(key) if isinstance(record, dict) else None


def _is_placeholder(record: dict[str, Any], records: list[Any]) -> bool:
    """True for an entry that only names a group of others, as Roboflow's category 0 does."""
    others = [other for other in records if isinstance(other, dict) and other is not record]
    name = record.get("name")
    return isinstance(name, str) and any(name in (other.get("name"), other.get("supercategory")) for other in others)


def _licences(document: dict[str, Any]) -> tuple[str, ...]:
    """Whatever the file says about rights: its `licenses` list and a licence in `info`."""
    info = document.get("info")
    listed = document.get("licenses")
    texts = [_get(info, "licence"), _get(info, "license")]
    for entry in listed if isinstance(listed, list) else []:
        name, url = _get(entry, "name"), _get(entry, "url")
        texts.append(" ".join(part for part in (name, url) if isinstance(part, str) and part))
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and text))


def _short(value: Any) -> str:
    """A value for a message, on one line of bounded length; never fails."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a nest of lists
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:79] + "…"

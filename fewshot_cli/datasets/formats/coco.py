"""COCO: a JSON file with images, annotations and categories, every value of which is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewshot_cli.datasets.formats.boxes import Corners, clip
from fewshot_cli.datasets.formats.coco_layouts import LAYOUTS, Layout, find_layout, has_layout, split_paths
from fewshot_cli.datasets.formats.collector import CORRECT
from fewshot_cli.datasets.formats.documents import read_json
from fewshot_cli.datasets.formats.image_files import checked_size, find_first, tails
from fewshot_cli.datasets.formats.problems import Problems, numbered
from fewshot_cli.datasets.formats.values import finite, is_id, is_size, member, shown
from fewshot_cli.datasets.types import ImageRecord, Split

__all__ = ["EXPECTED", "read", "recognise", "split_paths"]

EXPECTED = LAYOUTS


def recognise(path: Path) -> bool:
    """Whether `path` is a split folder in one of the layouts of `coco_layouts`, or a JSON file."""
    return has_layout(path)


def read(path: Path, *, decode_images: bool = True, skip_invalid: bool = False) -> Split:
    """Read and check one split; arguments and errors as for `formats.read_split`.

    Categories without annotations that merely name a group of others are dropped.
    """
    layout = find_layout(Path(path))
    problems = Problems(layout.annotations)
    document = _load(layout.annotations, problems)
    categories = _read_categories(document["categories"], document["annotations"], problems)
    images = _read_images(document["images"], layout, problems, decode=decode_images)
    boxes = _read_annotations(document["annotations"], images, categories, problems)
    records = tuple(_record(image_id, file, boxes[image_id]) for image_id, file in images.usable.items())
    if not records:
        problems.add("", "holds no usable image")
    if problems.found and not (skip_invalid and records):
        raise problems.error(CORRECT)
    return Split(
        annotations=layout.annotations,
        classes=tuple(categories.names),
        images=records,
        licences=_licences(document),
        skipped=tuple(problems.found),
        category_ids=tuple(categories.labels),
    )


# --- the document ---

_LISTS = ("images", "annotations", "categories")


def _load(file: Path, problems: Problems) -> dict[str, Any]:
    """The JSON document with its three lists; raises DatasetError if it is not COCO at all."""
    document, constants = read_json(file, problems)
    if not problems.found:
        _check_shape(document, problems)
    if problems.found:
        raise problems.error('A COCO file is a JSON object with the lists "images", "annotations" and "categories".')
    if constants:
        problems.add("", f"holds {', '.join(sorted(constants))}, which is not JSON")
    return dict(document)


def _check_shape(document: Any, problems: Problems) -> None:
    if not isinstance(document, dict):
        problems.add("", "not a COCO file: the top level is not an object")
        return
    for key in _LISTS:
        records = document.get(key)
        if not isinstance(records, list):
            problems.add("", f'not a COCO file: "{key}" is {"missing" if records is None else "not a list"}')


def _licences(document: dict[str, Any]) -> tuple[str, ...]:
    """What the file says about rights: its `licenses` list and a licence in `info`."""
    info = document.get("info")
    listed = document.get("licenses")
    texts = [member(info, "licence"), member(info, "license")]
    for entry in listed if isinstance(listed, list) else []:
        name, url = member(entry, "name"), member(entry, "url")
        texts.append(" ".join(part for part in (name, url) if isinstance(part, str) and part))
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and text))


# --- categories ---


@dataclass(slots=True)
class _Categories:
    """The classes.

    Attributes:
        stated: ids of all categories of the file, usable or not.
        labels: id → label, the index into `names`, in that order.
        names: of the classes.
    """

    stated: set[int] = field(default_factory=set)
    labels: dict[int, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def _read_categories(records: list[Any], annotations: list[Any], problems: Problems) -> _Categories:
    """The usable categories, in the order of the file."""
    stated = [member(annotation, "category_id") for annotation in annotations]
    used = {category_id for category_id in stated if is_id(category_id)}
    categories, taken, mentions = _Categories(), set[str](), _mentions(records)
    for category_id, record in numbered(records, "category", problems):
        categories.stated.add(category_id)
        name = record.get("name")
        if category_id not in used and isinstance(name, str) and mentions[name] > 1:
            continue  # it only names a group of others, as Roboflow's category 0 does
        if not isinstance(name, str) or not name.strip():
            problems.add(f"category {category_id}", f"the name is not a non-empty string: {shown(name)}")
        elif name in taken:
            problems.add(f"category {category_id}", f"another category has the name {name!r} too")
        else:
            categories.labels[category_id] = len(categories.names)
            categories.names.append(name)
            taken.add(name)
    return categories


def _mentions(records: list[Any]) -> Counter[str]:
    """Name → number of categories that have it as their name or as their supercategory."""
    found: Counter[str] = Counter()
    for record in records:
        names = (member(record, "name"), member(record, "supercategory"))
        found.update({name for name in names if isinstance(name, str)})
    return found


# --- images ---


class _ImageFile(NamedTuple):
    """An image that can be used: its file, and (width, height) in pixels."""

    path: Path
    size: tuple[int, int]


@dataclass(slots=True)
class _Images:
    """The images: ids of all of the file, and the files of those that can be used."""

    stated: set[int] = field(default_factory=set)
    usable: dict[int, _ImageFile] = field(default_factory=dict)


def _read_images(records: list[Any], layout: Layout, problems: Problems, *, decode: bool) -> _Images:
    images = _Images()
    seen: dict[Path, int] = {}
    for image_id, record in numbered(records, "image", problems):
        images.stated.add(image_id)
        path = _image_path(record, image_id, layout, problems)
        if path is None:
            continue
        if path in seen:
            problems.add(f"image {image_id}", f"{shown(record['file_name'])} is already image {seen[path]}")
            continue
        seen[path] = image_id
        size = _image_size(record, image_id, path, problems, decode=decode)
        if size:
            images.usable[image_id] = _ImageFile(path, size)
    return images


def _image_path(record: dict[str, Any], image_id: int, layout: Layout, problems: Problems) -> Path | None:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        problems.add(f"image {image_id}", f"the file_name is not a non-empty string: {shown(name)}")
        return None
    path, reason = find_first(layout.image_roots, tails(name) if layout.moved else [name])
    if reason:
        problems.add(f"image {image_id}", reason)
    return path


def _image_size(
    record: dict[str, Any], image_id: int, path: Path, problems: Problems, *, decode: bool
) -> tuple[int, int] | None:
    """(width, height) in pixels; None, and a problem, if the image cannot be used."""
    stated = [record.get("width"), record.get("height")]
    if any(value is not None and not is_size(value) for value in stated):
        problems.add(f"image {image_id}", f"width and height are not positive integers: {shown(stated)}")
        return None
    complete = (int(stated[0]), int(stated[1])) if stated[0] and stated[1] else None
    size, reason = checked_size(path, complete, decode=decode)
    if reason:
        problems.add(f"image {image_id}", reason, path)
    return size


# --- annotations ---


@dataclass(slots=True)
class _Boxes:
    """The boxes of one image while they are collected."""

    corners: list[Corners] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)


def _read_annotations(
    records: list[Any], images: _Images, categories: _Categories, problems: Problems
) -> Mapping[int, _Boxes]:
    """The usable boxes of each usable image, in the order of the file."""
    boxes = {image_id: _Boxes() for image_id in images.usable}
    for annotation_id, record in numbered(records, "annotation", problems):
        image_id, category_id = record.get("image_id"), record.get("category_id")
        file = images.usable.get(image_id) if is_id(image_id) else None
        box, reason = _read_box(record.get("bbox"), file.size if file else None)
        reasons = [*_reference_reasons(record, images, categories), *([reason] if reason else [])]
        for text in reasons:
            problems.add(f"annotation {annotation_id}", text)
        # An image or category that was itself reported takes its boxes along without another word.
        if not reasons and box and image_id in boxes and category_id in categories.labels:
            boxes[image_id].corners.append(box)
            boxes[image_id].labels.append(categories.labels[category_id])
            boxes[image_id].crowd.append(bool(record.get("iscrowd", 0)))
    return boxes


def _reference_reasons(record: dict[str, Any], images: _Images, categories: _Categories) -> Iterator[str]:
    """What is wrong with an annotation besides its box."""
    image_id, category_id, crowd = record.get("image_id"), record.get("category_id"), record.get("iscrowd", 0)
    if not is_id(image_id) or image_id not in images.stated:
        yield f"no image has the id {shown(image_id)}"
    if not is_id(category_id) or category_id not in categories.stated:
        yield f"no category has the id {shown(category_id)}"
    if crowd not in (0, 1):
        yield f"iscrowd is neither 0 nor 1: {shown(crowd)}"


def _read_box(bbox: Any, size: tuple[int, int] | None) -> tuple[Corners | None, str | None]:
    """COCO xywh → (xyxy clipped to the image, None) or (None, reason); pixels."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None, f"bbox is not a list of four numbers: {shown(bbox)}"
    numbers = [finite(value) for value in bbox]
    if None in numbers:
        return None, f"bbox holds something that is not a finite number: {shown(bbox)}"
    x, y, w, h = (float(value) for value in numbers if value is not None)
    if w <= 0 or h <= 0:
        return None, f"bbox has no positive width and height: {shown(bbox)}"
    return clip((x, y, x + w, y + h), size, f"bbox {shown(bbox)}", " (x, y, width, height)")


def _record(image_id: int, file: _ImageFile, boxes: _Boxes) -> ImageRecord:
    return ImageRecord(
        id=image_id,
        path=file.path,
        width=file.size[0],
        height=file.size[1],
        boxes=np.array(boxes.corners, dtype=np.float32).reshape(-1, 4),
        labels=np.array(boxes.labels, dtype=np.int64),
        crowd=np.array(boxes.crowd, dtype=np.bool_),
    )

"""CVAT XML, the format that CVAT calls "CVAT for images 1.1": one annotations.xml, images in images/ beside it.

Boxes (also turned ones), polygons, ellipses and masks become the boxes around them; points, lines, skeletons, cuboids
and tags have no box and are left out. Names may have folders, and the same base name may be in several: the record of
a fetched image keeps the folder. The file lists every image of the task, so that one without shapes is a background
image. Coordinates belong to the upright image, as CVAT shows it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot_cli.datasets.formats.boxes import Corners, ellipse_hull, hull, turned
from fewshot_cli.datasets.formats.collector import CORRECT, Collector, FoundImage, Where
from fewshot_cli.datasets.formats.documents import read_xml, start_of
from fewshot_cli.datasets.formats.image_files import find_first
from fewshot_cli.datasets.formats.values import number
from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import DataError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["EXPECTED", "read", "recognise"]

EXPECTED = "an .xml file of CVAT for images 1.1 (annotations.xml), images in images/ or beside it."


def recognise(path: Path) -> bool:
    """Whether `path` is a file of CVAT, or a folder with annotations.xml (labels.xml, as FiftyOne writes it)."""
    return _find(path) is not None


def read(path: Path, *, decode_images: bool = True, skip_invalid: bool = False) -> Split:
    """Read and check one split; arguments and errors as for `formats.read_split`."""
    file = path if path.is_file() else _find(path)
    if file is None:
        raise DataError(f"{path} holds no annotations.xml of CVAT", hint=f"Expected {EXPECTED}")
    found = Collector(file, decode=decode_images)
    root = read_xml(file, found.problems)
    if root is not None and root.tag != "annotations":
        found.problem(Where(file, ""), f"not a file of CVAT: the top level is <{root.tag}>, not <annotations>")
    elif root is not None and root.find("track") is not None:
        found.problem(Where(file, ""), 'holds tracks of a video: export it as "CVAT for images 1.1"')
    if root is None or found.problems.found:
        raise found.problems.error(CORRECT)
    roots = [folder for folder in (file.parent / "images", file.parent / "data", file.parent) if folder.is_dir()]
    for place, element in enumerate(root.findall("image"), start=1):
        _read_image(found, element, file, roots, place)
    return found.split(skip_invalid=skip_invalid)


def _find(path: Path) -> Path | None:
    files = [path / name for name in ("annotations.xml", "labels.xml")] if path.is_dir() else [path]
    return next((file for file in files if file.suffix.lower() == ".xml" and _is_cvat(file)), None)


def _is_cvat(file: Path) -> bool:
    return re.search(r"<annotations[\s>]", start_of(file)) is not None


def _read_image(found: Collector, element: Element, file: Path, roots: list[Path], place: int) -> None:
    name, subset = element.get("name") or "", element.get("subset")
    where = Where(file, f"image {element.get('id') or place}")
    path, reason = find_first(roots, [name, *([f"{subset}/{name}"] if subset else [])] if name else [])
    sides = [element.get("width"), element.get("height")]
    size = None if None in sides else [number(side) for side in sides]
    nested = name.replace("\\", "/") if "/" in name or "\\" in name else ""
    image = found.image(where, path, reason, size=size, name=nested)
    for count, shape in enumerate(element, start=1):
        _read_shape(found, image, Where(file, f"{where.record}, {shape.tag} {count}"), shape)


def _read_shape(found: Collector, image: FoundImage, where: Where, shape: Element) -> None:
    if shape.tag not in _BOXES:
        found.left_out["points, lines, tags and the like, left out as they have no box"] += 1
        return
    try:
        corners = _BOXES[shape.tag](shape)
    except ValueError as error:
        found.problem(where, str(error))
    else:
        found.box(image, where, shape.get("label"), corners)


# --- shapes ---


def _numbers(shape: Element, *keys: str) -> list[float]:
    values = [number(shape.get(key)) for key in keys]
    known = [value for value in values if value is not None]
    if len(known) < len(keys):
        raise ValueError(f"{', '.join(keys)} are not all finite numbers")
    return known


def _rotation(shape: Element) -> float:
    """Degrees, clockwise."""
    return _numbers(shape, "rotation")[0] if shape.get("rotation") else 0.0


def _box(shape: Element) -> Corners:
    x1, y1, x2, y2 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    return turned((x1, y1, x2, y2), _rotation(shape), ((x1 + x2) / 2, (y1 + y2) / 2))


def _polygon(shape: Element) -> Corners:
    pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
    points = [(number(pair[0]), number(pair[1])) for pair in pairs if len(pair) == 2]
    known = [(x, y) for x, y in points if x is not None and y is not None]
    if len(known) < 3 or len(known) < len(pairs):
        raise ValueError('points is not a list "x,y;x,y;x,y" of three or more points')
    return hull(known)


def _ellipse(shape: Element) -> Corners:
    x, y, a, b = _numbers(shape, "cx", "cy", "rx", "ry")
    return ellipse_hull((x, y), (a, b), _rotation(shape))


def _mask(shape: Element) -> Corners:
    x, y, width, height = _numbers(shape, "left", "top", "width", "height")
    return x, y, x + width, y + height


_BOXES = {"box": _box, "polygon": _polygon, "ellipse": _ellipse, "mask": _mask}

"""LabelMe: one JSON file an image, with shapes.

Rectangles, polygons, circles, ellipse-like and turned rectangles and masks become the boxes around them; points and
lines have no box and are left out. An image is looked for at its `imagePath`, seen from the JSON file and inside the
folder; an absolute one beside the JSON file, by its base name. If there is none, the image that is embedded in the
file is taken (kept in fsod's cache). A JSON file with an empty list of shapes is a background image; an image without a
JSON file is not labelled, and left out, and so is a JSON file of another program. Coordinates belong to the upright
image, as LabelMe shows it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from fewshot_cli.datasets.formats import SPLIT_NAMES
from fewshot_cli.datasets.formats.boxes import Corners, Point, hull
from fewshot_cli.datasets.formats.collector import Collector, FoundImage, Where
from fewshot_cli.datasets.formats.documents import read_json, start_of
from fewshot_cli.datasets.formats.image_files import SUFFIXES, find_image, list_images
from fewshot_cli.datasets.formats.values import finite, member, shown
from fewshot_cli.datasets.formats.writing import Labelled
from fewshot_cli.datasets.types import Split
from fewshot_cli.download import cache_folder
from fewshot_cli.errors import DataError
from fewshot_cli.files import make_folder, sha256_of, storage_errors, write_atomically, write_json

__all__ = ["EXPECTED", "open_writer", "read", "recognise", "split_paths"]

EXPECTED = "LabelMe .json files beside their images."

LARGEST_EMBEDDED = 150_000_000
"""Characters of an embedded image, in base64."""


def recognise(path: Path) -> bool:
    """Whether `path` is a folder with JSON files of LabelMe and no splits."""
    return _holds_labelme(path) and not split_paths(path)


def split_paths(path: Path) -> dict[str, Path]:
    """The folders train/, test/, …."""
    return {name: path / name for name in SPLIT_NAMES if _holds_labelme(path / name)}


def read(path: Path, *, decode_images: bool = True, skip_invalid: bool = False) -> Split:
    """Read and check one split; arguments and errors as for `formats.read_split`.

    Raises also:
        StorageError: an embedded image cannot be kept.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder of LabelMe files", hint=f"Expected {EXPECTED}")
    found = Collector(path, decode=decode_images)
    images = [image for file in sorted(path.rglob("*.json")) if (image := _read_file(found, file, path))]
    labelled = {image.path for image in images}
    without = [image for image in list_images(path) if image not in labelled]
    if without and images:
        found.left_out["images without a .json file, left out as not labelled"] = len(without)
    return found.split(skip_invalid=skip_invalid)


def _holds_labelme(folder: Path) -> bool:
    """Whether one of the first JSON files, in the folder or one below it, is LabelMe's."""
    if not folder.is_dir():
        return False
    files = [*sorted(folder.glob("*.json"))[:5], *sorted(folder.glob("*/*.json"))[:5]]
    return any('"shapes"' in start_of(file, 1 << 16) for file in files)


# --- one file ---


def _read_file(found: Collector, file: Path, home: Path) -> FoundImage | None:
    known = len(found.problems.found)
    document, _ = read_json(file, found.problems)
    if len(found.problems.found) > known:
        return None
    if isinstance(document, dict) and "shapes" not in document:
        found.left_out["JSON files without shapes, left out as not LabelMe's"] += 1
        return None
    shapes = member(document, "shapes")
    if not isinstance(shapes, list):
        found.problem(Where(file, ""), f'"shapes" is not a list: {shown(shapes)}')
        return None
    path, reason = _image_path(document, file, home)
    sides = [member(document, "imageWidth"), member(document, "imageHeight")]
    size = None if None in sides else sides
    name = file.relative_to(home).with_suffix(path.suffix).as_posix() if path and file.parent != home else ""
    image = found.image(Where(file, ""), path, reason, size=size, name=name)
    for place, shape in enumerate(shapes, start=1):
        _read_shape(found, image, Where(file, f"shape {place}"), shape)
    return image


def _read_shape(found: Collector, image: FoundImage, where: Where, shape: Any) -> None:
    kind, points = member(shape, "shape_type") or "polygon", member(shape, "points")
    if kind in _WITHOUT_BOX:
        found.left_out["points and lines, left out as they have no box"] += 1
        return
    numbers = [_point(point) for point in points] if isinstance(points, list) else []
    known = [point for point in numbers if point is not None]
    if len(known) < 2 or len(known) < len(numbers):
        found.problem(where, f"points is not a list of two or more pairs of finite numbers: {shown(points)}")
        return
    corners = _circle(known[0], known[1]) if kind == "circle" else hull(known)
    found.box(image, where, member(shape, "label"), corners)


_WITHOUT_BOX = ("point", "points", "line", "linestrip")


def _point(value: Any) -> Point | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    x, y = finite(value[0]), finite(value[1])
    return None if x is None or y is None else (x, y)


def _circle(center: Point, rim: Point) -> Corners:
    radius = math.dist(center, rim)
    return center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius


# --- its image ---


def _image_path(document: Any, file: Path, home: Path) -> tuple[Path | None, str | None]:
    stated = member(document, "imagePath")
    if not isinstance(stated, str) or not stated:
        return None, f"imagePath is not a non-empty string: {shown(stated)}"
    reasons = []
    for name in _names(stated, file, home):
        path, reason = find_image([home], name)
        if path:
            return path, None
        reasons.append(reason)
    embedded = member(document, "imageData")
    if isinstance(embedded, str) and embedded:
        return _embedded(embedded, stated, file)
    missing = f"the image {shown(stated)} is neither there nor beside the file, and none is embedded"
    return None, missing if all("does not exist" in (reason or "") for reason in reasons) else reasons[0]


def _names(stated: str, file: Path, home: Path) -> Iterator[str]:
    """Where the image may lie, seen from `home`: at its path if that stays inside, then beside the file."""
    folder = file.parent.relative_to(home)
    slashed = stated.replace("\\", "/")
    absolute = PurePosixPath(slashed).is_absolute() or PureWindowsPath(stated).anchor
    joined = os.path.normpath(folder / slashed) if not absolute else ".."
    if not joined.startswith(".."):
        yield joined
    yield (folder / PurePosixPath(slashed).name).as_posix()


def _embedded(text: str, stated: str, file: Path) -> tuple[Path | None, str | None]:
    """The image inside the JSON file, as a file in the cache that is named by its content."""
    if len(text) > LARGEST_EMBEDDED:
        return None, f"the embedded image has more than {LARGEST_EMBEDDED // 1_000_000} million characters"
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return None, f"the embedded image is not base64: {error}"
    suffix = PurePosixPath(stated.replace("\\", "/")).suffix.lower()
    name = f"{file.stem}{suffix if suffix in SUFFIXES else '.jpg'}"
    path = cache_folder() / "embedded" / hashlib.sha256(content).hexdigest() / name
    if not path.is_file():
        write_atomically(path, lambda temporary: _fill(temporary, content))
    return path, None


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


# --- writing ---


class _Writer:
    """labelme/NAME.json beside its image, so that `labelme FOLDER/labelme` shows both and the folder is a source.

    The image is a hard link to the original where the disk allows, else a copy. A frame of a video has no image: it
    would have to be extracted to the name that its JSON file has.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "labelme"
        self._taken: set[PurePosixPath] = set()

    def add(self, image: Labelled) -> None:
        name = PurePosixPath(f"{image.name}.jpg") if image.frame is not None else PurePosixPath(image.name)
        if name.with_suffix("") in self._taken:  # `a.jpg` and `a.png`
            name = name.with_name(f"{name.stem}_{name.suffix[1:]}{name.suffix}")
        self._taken.add(name.with_suffix(""))
        place = make_folder(self._folder / name.parent) / name.name
        if image.frame is None:
            _put_image(image.path, place)
        write_json(place.with_suffix(".json"), _document(image, place.name))

    def close(self) -> None:
        """Nothing is left to write."""


def open_writer(folder: Path, classes: Sequence[str]) -> _Writer:
    """See `writing.open_writer`; a score is written as the description of its shape, which LabelMe shows."""
    return _Writer(folder)


def _put_image(source: Path, place: Path) -> None:
    with storage_errors(place):
        if place.exists():
            if place.samefile(source) or sha256_of(place) == sha256_of(source):
                return
            place.unlink()
        try:
            place.hardlink_to(source.resolve())
        except OSError:  # another disk, or one without links
            write_atomically(place, lambda temporary: _copy(source, temporary))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _document(image: Labelled, name: str) -> dict[str, Any]:
    scores = image.scores.tolist() if image.scores is not None else [None] * len(image.names)
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": label,
                "points": [box[:2], box[2:]],
                "group_id": None,
                "description": "" if score is None else f"score {score:.3f}",
                "shape_type": "rectangle",
                "flags": {},
                "mask": None,
            }
            for box, label, score in zip(image.boxes.tolist(), image.names, scores, strict=True)
        ],
        "imagePath": name,
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }

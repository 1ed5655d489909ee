"""Pascal VOC: one XML file an image.

    VOC       SET/Annotations/a.xml  SET/JPEGImages/a.jpg  SET/ImageSets/Main/train.txt, val.txt, test.txt
    Kaggle    SET/annotations/a.xml  SET/images/a.jpg
    FiftyOne  SET/labels/a.xml       SET/data/a.jpg
    Roboflow  SET/train/a.xml        SET/train/a.jpg

Coordinates are taken as they are written. The VOC devkit counts pixels from 1, most of the tools that write its format
(LabelImg, CVAT, Roboflow) from 0; the difference of one pixel is less than labels differ by. An object marked
`difficult` becomes a crowd box: like those it is no training target, and detections of it are not counted as wrong. An
XML file without objects is a background image; an image without an XML file is not labelled, and left out.
Coordinates belong to the upright image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from fewshot_cli.datasets.formats import SPLIT_NAMES
from fewshot_cli.datasets.formats.collector import Collector, FoundImage, Where
from fewshot_cli.datasets.formats.documents import read_text, read_xml, start_of
from fewshot_cli.datasets.formats.image_files import SUFFIXES, find_first, list_images
from fewshot_cli.datasets.formats.values import number
from fewshot_cli.datasets.formats.writing import Labelled
from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import DataError
from fewshot_cli.files import write_text

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["EXPECTED", "open_writer", "read", "recognise", "split_paths"]

EXPECTED = "Annotations/*.xml and JPEGImages/ (or images/), perhaps ImageSets/Main/; or .xml files beside the images."

LABEL_FOLDERS = ("Annotations", "annotations", "labels", ".")
IMAGE_FOLDERS = ("JPEGImages", "images", "data", ".")
_SETS = Path("ImageSets") / "Main"


@dataclass(frozen=True, slots=True)
class _Layout:
    """The folder of a set, the folder of its XML files, and those that belong to the split."""

    home: Path
    labels: Path
    files: list[Path]


def recognise(path: Path) -> bool:
    """Whether `path` is a folder with XML files and no splits, or a list of ImageSets/Main."""
    if _is_list(path):
        return _label_folder(path.parents[2]) is not None
    return path.is_dir() and _label_folder(path) is not None and not split_paths(path)


def split_paths(path: Path) -> dict[str, Path]:
    """The lists in ImageSets/Main, else the folders train/, test/, …."""
    lists = {name: path / _SETS / f"{name}.txt" for name in SPLIT_NAMES if (path / _SETS / f"{name}.txt").is_file()}
    if lists and _label_folder(path):
        return lists
    return {name: path / name for name in SPLIT_NAMES if (path / name).is_dir() and _label_folder(path / name)}


def read(path: Path, *, decode_images: bool = True, skip_invalid: bool = False) -> Split:
    """Read and check one split; arguments and errors as for `formats.read_split`."""
    if not recognise(path):
        raise DataError(f"{path} holds no Pascal VOC annotations", hint=f"Expected {EXPECTED}")
    found = Collector(path, decode=decode_images)
    layout = _layout(path, found)
    images = [_read_file(found, file, layout) for file in layout.files]
    if not _is_list(path):
        labelled = {image.path for image in images}
        folders = [layout.home / name for name in IMAGE_FOLDERS[:-1] if (layout.home / name).is_dir()]
        images_there = [image for folder in folders or [layout.home] for image in list_images(folder)]
        without = [image for image in images_there if image not in labelled]
        if without:
            found.left_out["images without an .xml file, left out as not labelled"] = len(without)
    return found.split(skip_invalid=skip_invalid)


# --- folders ---


def _is_list(path: Path) -> bool:
    return path.suffix == ".txt" and path.parent.name == "Main" and path.parent.parent.name == "ImageSets"


def _label_folder(home: Path) -> Path | None:
    return next((home / name for name in LABEL_FOLDERS if _holds_voc(home / name, deep=name != ".")), None)


def _holds_voc(folder: Path, *, deep: bool) -> bool:
    """Whether the first XML file is one of VOC; subfolders are searched if the folder is for labels alone."""
    first = next(iter(sorted(folder.rglob("*.xml") if deep else folder.glob("*.xml"))), None)
    return first is not None and re.search(r"<annotation[\s>]", start_of(first)) is not None


def _layout(path: Path, found: Collector) -> _Layout:
    home = path.parents[2] if _is_list(path) else path
    labels = _label_folder(home)
    assert labels is not None  # it was recognised
    if not _is_list(path):
        return _Layout(home, labels, sorted(labels.rglob("*.xml") if labels != home else labels.glob("*.xml")))
    # A list of one class has a second column.
    lines = [line.split()[0] for line in (read_text(path, found.problems) or "").splitlines() if line.strip()]
    unusable = [line for line in lines if ".." in PurePosixPath(line).parts or line.startswith("/")]
    for line in unusable:
        found.problem(Where(path, line[:80]), "leads out of the folder")
    return _Layout(home, labels, [labels / f"{line}.xml" for line in lines if line not in unusable])


# --- one file ---


def _read_file(found: Collector, file: Path, layout: _Layout) -> FoundImage:
    root = read_xml(file, found.problems)
    folder = file.parent.relative_to(layout.labels)
    stem = (folder / file.stem).as_posix()
    stated = (root.findtext("filename") or "").strip() if root is not None else ""
    names = [*([(folder / stated).as_posix(), stated] if stated else []), *(f"{stem}{end}" for end in SUFFIXES)]
    roots = [layout.home / name for name in IMAGE_FOLDERS if (layout.home / name).is_dir()]
    path, reason = find_first(roots, names)
    if root is None:
        return FoundImage(0, path, None, "")  # the file's own problem is enough
    name = (folder / path.name).as_posix() if path and folder.parts else ""
    image = found.image(Where(file, ""), path, reason, size=_size(root), name=name)
    for place, element in enumerate(root.findall("object"), start=1):
        _read_object(found, image, Where(file, f"object {place}"), element)
    return image


def _size(root: Element) -> list[float | None] | None:
    """Stated width and height; None where they are missing or, as some tools write, 0."""
    sides = [root.findtext("size/width"), root.findtext("size/height")]
    return (
        None if any(side is None or side.strip() in ("", "0") for side in sides) else [number(side) for side in sides]
    )


def _read_object(found: Collector, image: FoundImage, where: Where, element: Element) -> None:
    box = element.find("bndbox")
    if box is None:
        found.problem(where, "has no bndbox")
        return
    corners = [number(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
    difficult = (element.findtext("difficult") or "").strip() == "1"
    found.box(image, where, element.findtext("name"), corners, crowd=difficult)


# --- writing ---


class _Writer:
    """Annotations/NAME.xml for each image; boxes in whole pixels, as the format has them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[PurePosixPath] = set()

    def add(self, image: Labelled) -> None:
        name = PurePosixPath(image.name)
        place = name if image.frame is not None else name.with_suffix("")
        # `a.jpg` and `a.png`: the second keeps its suffix; readers go by <filename>.
        place = name if place in self._taken else place
        self._taken.add(place)
        ElementTree.indent(root := _document(image))
        text = ElementTree.tostring(root, encoding="unicode")
        write_text(self._folder / "Annotations" / place.parent / f"{place.name}.xml", f"{text}\n")

    def close(self) -> None:
        """Nothing is left to write."""


def open_writer(folder: Path, classes: Sequence[str]) -> _Writer:
    """See `writing.open_writer`; scores are not written, as tools that open labels do not read them."""
    return _Writer(folder)


def _document(image: Labelled) -> Element:
    name = PurePosixPath(image.name)
    root = ElementTree.Element("annotation")
    _put(root, "folder", name.parent.as_posix() if name.parent.parts else "")
    _put(root, "filename", name.name)
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        _put(size, key, value)
    for box, label in zip(image.boxes.tolist(), image.names, strict=True):
        element = ElementTree.SubElement(root, "object")
        for key, text in (("name", label), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
            _put(element, key, text)
        corners = ElementTree.SubElement(element, "bndbox")
        for key, pixel in zip(("xmin", "ymin", "xmax", "ymax"), _whole(box), strict=True):
            _put(corners, key, pixel)
    return root


def _whole(box: Sequence[float]) -> tuple[int, int, int, int]:
    """Whole pixels, at least one wide and high."""
    x1, y1, x2, y2 = (round(value) for value in box)
    # A box at the right or lower edge grows to the left or up.
    x1, y1 = (x1 if x2 > x1 else int(box[0])), (y1 if y2 > y1 else int(box[1]))
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _put(parent: Element, tag: str, value: object) -> None:
    """A child with a text, in which � stands for characters that XML cannot hold."""
    ElementTree.SubElement(parent, tag).text = _FORBIDDEN.sub("\ufffd", str(value))

"""Where YOLO data sets keep images, labels and class names.

ultralytics  SET/images/train/a.jpg  SET/labels/train/a.txt   SET/data.yaml: train, val, test, names
Roboflow     SET/train/images/a.jpg  SET/train/labels/a.txt   SET/data.yaml
one split    SET/images/a.jpg        SET/labels/a.txt         SET/classes.txt, SET/labels/classes.txt or data.yaml
Darknet      SET/a.jpg               SET/a.txt                SET/classes.txt or obj.names (LabelImg; CVAT's YOLO 1.1)

In data.yaml a split is a folder, a text file that lists images, or a list of both. They are looked for inside the
folder of data.yaml: of a path from another machine the longest end that exists there is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.formats import SPLIT_NAMES
from fewshot_cli.datasets.formats.documents import read_text, start_of
from fewshot_cli.datasets.formats.image_files import SUFFIXES, find_first, find_image, list_images, tails
from fewshot_cli.datasets.formats.problems import Problems
from fewshot_cli.datasets.formats.values import number, shown

NAMES_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels/classes.txt")
"""One class a line."""
YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LARGEST_YAML = 1_000_000
"""Characters; PyYAML is slow."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One split on disk.

    Attributes:
        home: no path leads out of this folder.
        annotations: data.yaml, or the folder of the split.
        places: what holds its images: folders, and text files that list them.
        names: where the class names stand: data.yaml or a file of NAMES_FILES; None: nowhere.
    """

    home: Path
    annotations: Path
    places: tuple[Path, ...]
    names: Path | None


def find_layout(path: Path) -> Layout | None:
    """The layout of one split: a folder, data.yaml, or `data.yaml/train` for a split that data.yaml names."""
    if _is_yaml(path.parent):
        places = _places(path.parent, path.name)
        return Layout(path.parent.parent, path.parent, places, path.parent) if places else None
    folder = path.parent if _is_yaml(path) else path
    if not folder.is_dir() or split_paths(path):
        return None
    home = _home(folder)
    if not _holds_labels(folder, home):
        return None
    return Layout(home, path, (folder,), _find_names(folder, home))


def split_paths(path: Path) -> dict[str, Path]:
    """The splits of a data set, by name: those that data.yaml names, else folders, also those in images/."""
    file = path if _is_yaml(path) else _find_yaml(path)
    if file:
        named = {name: file / name for name in SPLIT_NAMES if _places(file, name)}
        if named:
            return named
    folder = file.parent if file else path
    candidates = {name: (folder / name, folder / "images" / name) for name in SPLIT_NAMES}
    found = {
        name: next((place for place in places if place.is_dir() and _holds_labels(place, _home(place))), None)
        for name, places in candidates.items()
    }
    return {name: place for name, place in found.items() if place}


def label_file(image: Path, home: Path) -> Path:
    """The labels of an image: in labels/ where it lies in images/, else beside it."""
    folder = _labels_folder(image.parent, home)
    return (folder or image.parent) / f"{image.stem}.txt"


def listed_images(layout: Layout, problems: Problems) -> Iterator[tuple[Path | None, str, str | None]]:
    """(file, its name, None) of each image of a split, or (file or None, name, reason) if it cannot be used."""
    for place in layout.places:
        if place.is_dir():
            for image in list_images(place):
                name = image.relative_to(layout.home).as_posix()
                yield image, name, find_image([layout.home], name)[1]
            continue
        text = read_text(place, problems) or ""
        for line in filter(None, map(str.strip, text.splitlines())):
            path, reason = find_first([place.parent, layout.home], tails(line))
            yield path, line, reason


def stray_labels(layout: Layout, used: set[Path]) -> list[Path]:
    """Label files in labels/ that belong to none of the images."""
    folders = {_labels_folder(place, layout.home) for place in layout.places if place.is_dir()}
    folders |= {_labels_folder(place / "images", layout.home) for place in layout.places if place.is_dir()}
    found = {file for folder in folders if folder for file in folder.rglob("*.txt")}
    return sorted(file for file in found - used if file.name != "classes.txt" and not file.name.startswith("."))


# --- class names ---


def read_names(file: Path, problems: Problems) -> tuple[list[str], bool]:
    """The class names in label order, and whether rows hold keypoints behind the box."""
    text = read_text(file, problems) or ""
    if not _is_yaml(file):
        names: list[Any] = [line.strip() for line in text.splitlines() if line.strip()]
        return _checked_names(names, file, problems), False
    document = _parse_yaml(text)
    if not isinstance(document, dict):
        problems.add("", "not valid YAML, or no mapping", file)
        return [], False
    listed = document.get("names")
    if isinstance(listed, dict):
        names = [listed.get(number, listed.get(str(number))) for number in range(len(listed))]
    else:
        names = listed if isinstance(listed, list) else []
    if not names:
        problems.add("", '"names" is neither a list of class names nor a mapping of 0, 1, … to them', file)
    return _checked_names(names, file, problems), "kpt_shape" in document


def _checked_names(names: list[Any], file: Path, problems: Problems) -> list[str]:
    texts = [str(name).strip() if isinstance(name, str | int | float) else "" for name in names]
    known: set[str] = set()
    for place, text in enumerate(texts):
        if not text:
            problems.add(f"class {place}", "the name is not a non-empty string", file)
        elif text in known:
            problems.add(f"class {place}", f"another class has the name {shown(text)} too", file)
        known.add(text)
    return texts


def _find_names(folder: Path, home: Path) -> Path | None:
    """The file of names that is closest, from the folder up to `home`; a folder called train/ is one of a set's."""
    above = [home.parent] if home.name in SPLIT_NAMES else []
    places = dict.fromkeys((folder, *_up_to(folder, home), *above))
    files = (place / name for place in places for name in (*YAML_FILES, *NAMES_FILES))
    return next((file for file in files if file.is_file()), None)


def _up_to(folder: Path, home: Path) -> list[Path]:
    return [parent for parent in folder.parents if parent.is_relative_to(home)]


# --- folders ---


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml") and path.is_file()


def _find_yaml(folder: Path) -> Path | None:
    return next((folder / name for name in YAML_FILES if (folder / name).is_file()), None)


def _parse_yaml(text: str) -> Any:
    import yaml

    if len(text) > LARGEST_YAML:
        return None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _places(file: Path, split: str) -> tuple[Path, ...]:
    """What data.yaml says about a split and exists in its folder."""
    if split not in SPLIT_NAMES:
        return ()
    document = _parse_yaml(read_text(file, Problems(file)) or "")
    if not isinstance(document, dict):
        return ()
    value, base = document.get(split), document.get("path")
    values = value if isinstance(value, list) else [value]
    base = f"{base}/" if isinstance(base, str) else ""
    found = [_inside(file.parent, f"{base}{each}") for each in values if isinstance(each, str) and each.strip()]
    return tuple(place for place in found if place)


def _inside(home: Path, name: str) -> Path | None:
    """The longest end of a path that exists in a folder and does not lead out of it."""
    try:
        places = [home / tail for tail in tails(name)]
        return next(
            (place for place in places if place.exists() and place.resolve().is_relative_to(home.resolve())), None
        )
    except (OSError, ValueError, RuntimeError):
        return None


def _home(folder: Path) -> Path:
    """The folder above images/ if `folder` lies in one, else itself."""
    parts = folder.parts
    if "images" not in parts:
        return folder
    place = len(parts) - 1 - parts[::-1].index("images")
    home = Path(*parts[:place])
    return home if (home / "labels").is_dir() else folder


def _labels_folder(images: Path, home: Path) -> Path | None:
    """SET/labels/train for SET/images/train, if it is there."""
    if not images.is_relative_to(home):
        return None
    parts = images.relative_to(home).parts
    if "images" not in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index("images")
    folder = home.joinpath(*parts[:place], "labels", *parts[place + 1 :])
    return folder if folder.is_dir() else None


def _holds_labels(folder: Path, home: Path) -> bool:
    """Whether a folder looks like one split: images with labels in labels/, or labels beside them."""
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        return _one_label_in(folder / "labels")
    labels = _labels_folder(folder, home)
    if labels:
        return _one_label_in(labels)
    if any((folder / name).is_file() for name in ("obj.names", "_darknet.labels")):
        return True
    beside = (file for file in folder.glob("*.txt") if any(file.with_suffix(end).is_file() for end in SUFFIXES))
    return any(_looks_like_rows(file) for file in beside)


def _one_label_in(folder: Path) -> bool:
    files = (file for file in folder.rglob("*.txt") if file.name != "classes.txt")
    return next(files, None) is not None


def _looks_like_rows(file: Path) -> bool:
    """Whether the first line may be a row of labels; an empty file may be one."""
    words = (start_of(file).splitlines() or [""])[0].split()
    return not words or (len(words) >= 5 and all(number(word) is not None for word in words[:5]))

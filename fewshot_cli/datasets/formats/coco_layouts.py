"""Where a folder keeps its COCO file and its images.

ours         FOLDER/annotations.json              images in FOLDER/images/ (or FOLDER/)
Roboflow     FOLDER/_annotations.coco.json        images in FOLDER/
torchvision  FOLDER/annotations/instances_X.json  images in FOLDER/X/, FOLDER/images/ or FOLDER/
Label Studio FOLDER/result.json                   images in FOLDER/images/ (its export "COCO")
a file       ANY/NAME.json                        images in ANY/images/ or ANY/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fewshot_cli.datasets.formats import SPLIT_NAMES
from fewshot_cli.datasets.formats.documents import start_of
from fewshot_cli.errors import DataError

LAYOUTS = (
    "annotations.json beside images/, _annotations.coco.json (Roboflow), "
    "annotations/instances_NAME.json, result.json (Label Studio), or a folder with train/ and test/."
)

LABEL_STUDIO = "result.json"
"""What Label Studio calls its export."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One split on disk.

    Attributes:
        annotations: its COCO file.
        image_roots: the folders that file names may be relative to, first match first.
        moved: file names are those of a server, so that the longest end that exists is looked for.
    """

    annotations: Path
    image_roots: tuple[Path, ...]
    moved: bool = False


def find_layout(path: Path) -> Layout:
    """The layout of a split folder, or of a COCO file given directly.

    Raises:
        DataError: nothing is there.
    """
    found = _layouts_at(path)
    if len(found) == 1:
        return next(iter(found.values()))
    if not path.exists():
        raise DataError(f"{path} does not exist", hint="Give a folder that holds COCO annotations and images.")
    raise DataError(f"{path} holds no COCO annotations", hint=f"Expected {LAYOUTS}")


def has_layout(path: Path) -> bool:
    """True if `path` itself is one split: a folder, or a JSON file that holds an object."""
    return len(_layouts_at(path)) == 1 and (path.is_dir() or _may_be_coco(path))


def split_paths(path: Path) -> dict[str, Path]:
    """The splits of a data set folder: their name → what `read_split` takes; empty if it has none.

    A torchvision folder with `instances_train2017.json` and `instances_val2017.json` has train and val.
    """
    splits = {name: path / name for name in SPLIT_NAMES if has_layout(path / name)}
    if splits:
        return splits
    several = _layouts_at(path)
    if len(several) < 2:
        return {}
    return {name.rstrip("0123456789"): layout.annotations for name, layout in several.items()}


def _layouts_at(path: Path) -> dict[str, Layout]:
    """Every split that `path` itself describes, by name."""
    if path.is_file():
        return {path.stem: _layout_of_file(path)}
    if (path / "annotations.json").is_file():
        return {path.name: _layout_of_file(path / "annotations.json")}
    if (path / "_annotations.coco.json").is_file():
        return {path.name: Layout(path / "_annotations.coco.json", (path,))}
    if _is_object(path / LABEL_STUDIO):
        return {path.name: _layout_of_file(path / LABEL_STUDIO)}
    files = sorted((path / "annotations").glob("instances_*.json"))
    return {file.stem.removeprefix("instances_"): _layout_of_file(file) for file in files}


def _may_be_coco(file: Path) -> bool:
    return file.suffix.lower() == ".json" and not start_of(file).startswith("[")


def _is_object(file: Path) -> bool:
    """A JSON object, where Label Studio's own format has a list."""
    return start_of(file).startswith("{")


def _layout_of_file(file: Path) -> Layout:
    folder = file.parent
    candidates = [folder / "images", folder]
    if folder.name == "annotations" and file.stem.startswith("instances_"):
        home, name = folder.parent, file.stem.removeprefix("instances_")
        candidates = [home / name, home / "images" / name, home / "images", home]
    roots = tuple(root for root in candidates if root.is_dir())
    return Layout(file, roots, moved=file.name == LABEL_STUDIO)

"""Where a folder keeps its COCO file and its images.

ours         FOLDER/annotations.json              images in FOLDER/images/ (or FOLDER/)
Roboflow     FOLDER/_annotations.coco.json        images in FOLDER/
torchvision  FOLDER/annotations/instances_X.json  images in FOLDER/X/, FOLDER/images/ or FOLDER/
a file       ANY/NAME.json                        images in ANY/images/ or ANY/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fewshot_cli.datasets.formats import TEST_NAMES, TRAIN_NAMES
from fewshot_cli.errors import DataError

LAYOUTS = (
    "annotations.json beside images/, _annotations.coco.json (Roboflow), "
    "annotations/instances_NAME.json, or a folder with train/ and test/."
)


@dataclass(frozen=True, slots=True)
class Layout:
    """One split on disk: its COCO file, and the folders that file names may be relative to, first match first."""

    annotations: Path
    image_roots: tuple[Path, ...]


def find_layout(path: Path) -> Layout:
    """The layout of a split folder, or of a COCO file given directly.

    Raises:
        DataError: nothing is there, or the folder holds several splits (the message names them).
    """
    found = _layouts_at(path)
    if len(found) == 1:
        return next(iter(found.values()))
    splits = split_paths(path)
    if splits:
        raise DataError(
            f"{path} holds several splits: {', '.join(splits)}",
            hint="Name one of them: " + " or ".join(str(split) for split in splits.values()),
        )
    if not path.exists():
        raise DataError(f"{path} does not exist", hint="Give a folder that holds COCO annotations and images.")
    raise DataError(f"{path} holds no COCO annotations", hint=f"Expected {LAYOUTS}")


def has_layout(path: Path) -> bool:
    """True if `path` itself is one split: `find_layout` will find it."""
    return len(_layouts_at(path)) == 1


def split_paths(path: Path) -> dict[str, Path]:
    """The splits of a data set folder: their name → what `read_split` takes; empty if it has none.

    A torchvision folder with `instances_train2017.json` and `instances_val2017.json` has train and val.
    """
    splits = {name: path / name for name in (*TRAIN_NAMES, *TEST_NAMES) if has_layout(path / name)}
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
    files = sorted((path / "annotations").glob("instances_*.json"))
    return {file.stem.removeprefix("instances_"): _layout_of_file(file) for file in files}


def _layout_of_file(file: Path) -> Layout:
    folder = file.parent
    candidates = [folder / "images", folder]
    if folder.name == "annotations" and file.stem.startswith("instances_"):
        home, name = folder.parent, file.stem.removeprefix("instances_")
        candidates = [home / name, home / "images" / name, home / "images", home]
    return Layout(file, tuple(root for root in candidates if root.is_dir()))

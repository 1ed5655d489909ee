"""Label formats: one module each, one line in `FORMATS`.

To add a format:

1. Write `formats/NAME.py` with
   `EXPECTED`: one sentence, what a folder in this format holds;
   `recognise(path) -> bool`: whether `path` (a folder or a file) is one split in this format, by names and, where those
   do not tell formats apart, by the start of a file;
   `read(path, *, decode_images, skip_invalid) -> Split`: reads and checks one split, all problems at once;
   `split_paths(path) -> dict[str, Path]`, only if splits may lie elsewhere than in folders called train/, test/, ….
2. Add `"NAME": "fewshot_cli.datasets.formats.NAME"` to `FORMATS`.
3. If it is to be written too, see `formats/writing.py`.

Then `fsod fetch --source DIR` (or `NAME:DIR`), `open_dataset` and every command with `--data` take it. Formats are
tried in the order of `FORMATS`; a module is imported when it is used.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from fewshot_cli.errors import DataError, UsageError, closest
from fewshot_cli.paths import Kind, exists, kind_of, require_bounded, require_file, shown

if TYPE_CHECKING:
    from fewshot_cli.datasets.types import Split

FORMATS: dict[str, str] = {
    "coco": "fewshot_cli.datasets.formats.coco",
    "labelstudio": "fewshot_cli.datasets.formats.labelstudio",
    "cvat": "fewshot_cli.datasets.formats.cvat",
    "voc": "fewshot_cli.datasets.formats.voc",
    "labelme": "fewshot_cli.datasets.formats.labelme",
    "yolo": "fewshot_cli.datasets.formats.yolo",
    "csv": "fewshot_cli.datasets.formats.csv",
}
"""Name → module."""

TRAIN_NAMES = ("train", "pool")
TEST_NAMES = ("test", "valid", "val")
"""What folders call their splits, first match first."""
SPLIT_NAMES = (*TRAIN_NAMES, *TEST_NAMES)


class Format(Protocol):
    """What a format's module holds."""

    EXPECTED: str

    def recognise(self, path: Path) -> bool: ...

    def read(self, path: Path, *, decode_images: bool, skip_invalid: bool) -> Split: ...


class SplitPaths(NamedTuple):
    """Where a data set folder keeps its splits; None for one that it does not have."""

    train: Path | None
    test: Path | None


def get_format(name: str) -> Format:
    """The module of a format; raises UsageError for an unknown name."""
    if name not in FORMATS:
        raise UsageError(f"unknown format {name!r}", hint=closest(name, FORMATS))
    return cast(Format, importlib.import_module(FORMATS[name]))


def find_format(path: Path | str) -> Format:
    """The format of a split, or of a folder of splits; raises DataError if it is none of `FORMATS`."""
    return get_format(format_name(path))


def format_name(path: Path | str) -> str:
    """The name of `find_format`; the error lists what each format looks for."""
    path = check_place(path)
    for name in FORMATS:
        module = get_format(name)
        if module.recognise(path) or split_paths(path, module):
            return name
    if not exists(path):
        raise DataError(f"{shown(path)} does not exist", hint=_PLACE)
    expected = "".join(f"\n  {name}: {get_format(name).EXPECTED}" for name in FORMATS)
    from fewshot_cli.datasets.formats.foreign import looks_like

    guess = looks_like(path)
    like = f"; it looks like {guess}" if guess else ""
    raise DataError(f"{path} holds no annotations in a known format{like}", hint=f"Looked for:{expected}")


def check_place(path: Path | str) -> Path:
    """The path; raises DataError if neither a folder nor a file that can be read stands there.

    That nothing stands there is left to the formats: `data.yaml/train` is a split of YOLO.
    """
    kind = kind_of(path)
    if kind is Kind.FOLDER and not os.access(path, os.R_OK | os.X_OK):
        raise DataError(f"{shown(path)} cannot be read: permission denied", hint="Make it readable (chmod u+rx).")
    if kind is Kind.FOLDER:
        require_bounded(Path(path))
    elif kind is not Kind.NOTHING:
        require_file(path, hint=_PLACE)
    return Path(path)


_PLACE = "Give a folder that holds annotations and images."


def read_split(
    path: Path | str, *, format: str | None = None, decode_images: bool = True, skip_invalid: bool = False
) -> Split:
    """Read and check one split.

    Args:
        path: a folder or an annotation file.
        format: a name in `FORMATS`; None: whichever recognises the path.
        decode_images: decode every image and compare its size; otherwise an image only has to exist inside the
            folder, and the size in the annotations is taken (see `checks.check_images`).
        skip_invalid: leave out what is faulty (an image with its boxes, or a single box) and list it in
            `Split.skipped` instead of raising.

    Raises:
        UsageError: an unknown format.
        DataError: no annotations at `path`, or several splits.
        DatasetError: all problems at once; also with `skip_invalid` if nothing usable is left.
    """
    path = check_place(path)
    module = get_format(format) if format else find_format(path)
    splits = split_paths(path, module)
    if splits and not module.recognise(path):
        raise DataError(
            f"{path} holds {'several splits' if len(splits) > 1 else 'a split'}: {', '.join(splits)}",
            hint="Name one of them: " + " or ".join(map(str, splits.values())),
        )
    return module.read(path, decode_images=decode_images, skip_invalid=skip_invalid)


def split_paths(path: Path | str, format: Format | None = None) -> dict[str, Path]:
    """The splits of a data set folder: name → what `read_split` takes; empty if it has none.

    Args:
        path: the folder.
        format: None: whichever finds splits there.
    """
    path = Path(path)
    if format is None:
        found = (split_paths(path, get_format(name)) for name in FORMATS)
        return next((splits for splits in found if splits), {})
    own = getattr(format, "split_paths", None)
    if own:
        return dict(own(path))
    return {name: path / name for name in SPLIT_NAMES if format.recognise(path / name)}


def train_and_test(path: Path | str, format: Format | None = None) -> SplitPaths:
    """Which splits of a data set folder are for training and for testing; arguments as for `split_paths`."""
    splits = split_paths(path, format)
    first = (next((splits[name] for name in names if name in splits), None) for names in (TRAIN_NAMES, TEST_NAMES))
    return SplitPaths(*first)

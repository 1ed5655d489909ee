"""Images and videos that a person names: files, folders, patterns and lists of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fewshot_cli.errors import DataError
from fewshot_cli.paths import Kind, file_fault, kind_of, named, reason_of, require_bounded, require_file, shown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
LIST_SUFFIX = ".txt"
LARGEST_LIST = 100_000_000
"""Bytes of a list; one of a million paths has less."""
LONGEST_PATH = 4096
"""Characters of a line that can be a path."""
RECORD = "predict.json"
"""The file by which a folder of detections is known: images drawn there are no inputs of the next call."""
_HINT = f"Images end in {', '.join(IMAGE_SUFFIXES)}; videos in {', '.join(VIDEO_SUFFIXES)}."


class Input(NamedTuple):
    """One image or video.

    path: as the person would write it; name: relative to the folder that holds all inputs, with slashes; drawing: where
    it is drawn, like the name, but unique also without its suffix and on file systems that ignore case.
    """

    path: Path
    name: str
    drawing: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


class _Found(NamedTuple):
    path: Path
    root: Path


def find_inputs(words: Sequence[str | os.PathLike[str]]) -> list[Input]:
    """The images and videos that the words name, each once, in the order of the words.

    A word is a file, a folder (searched recursively), a pattern (`*`, `?`, `[…]`, `**`), or a list: a .txt file with
    one of these a line, relative to its folder; lines that begin with # are comments. Hidden files and folders inside
    a folder are left out, and folders that `predict` has written. Links are followed, each folder once.

    A file that is named itself is taken whatever its suffix; that it cannot be read is found when it is opened.

    Raises:
        DataError: a word that names nothing, or nothing at all to detect in.
    """
    found: dict[Path, _Found] = {}
    for word in words:
        for each in _looked_up(os.fspath(word)):
            found.setdefault(_absolute(each.path), each)
    if not found:
        raise DataError("no image and no video is named", hint=_HINT)
    return _named(list(found.values()))


def _looked_up(word: str) -> Iterator[_Found]:
    """What a word names; errors of the file system, such as a name that is too long, become a DataError."""
    try:
        yield from _expand(word)
    except (OSError, ValueError) as error:
        reason = reason_of(error) or error
        raise DataError(f"{shown(word)}: cannot be looked up: {reason}", hint="Check the name.") from error


def _expand(word: str) -> Iterator[_Found]:
    if not word:
        raise DataError("an input is empty", hint="Give a path; . is the current folder.")
    path = named(word)
    if not glob.has_magic(word) or os.path.lexists(path):
        yield from _in_place(path, kind_of(path))
    elif glob.has_magic(word):
        yield from _matching(str(path))


def _in_place(path: Path, kind: Kind) -> Iterator[_Found]:
    if kind is Kind.FOLDER:
        require_bounded(path)
        yield from _in_folder(path)
    elif kind in (Kind.NOTHING, Kind.OTHER):
        require_file(path, hint="Give images, videos, folders, patterns or a list of them.")
    elif kind is Kind.FILE and path.suffix.lower() == LIST_SUFFIX:
        yield from _in_list(path)
    else:
        yield _Found(path, path.parent)


def _in_folder(folder: Path) -> Iterator[_Found]:
    files = [_Found(path, folder) for path in _walk(folder) if _is_known(path)]
    if not files:
        raise DataError(f"{folder} holds no image and no video", hint=_HINT)
    yield from files


def _walk(folder: Path) -> Iterator[Path]:
    """Regular files in a folder and below, sorted; no folder twice, however links run."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen or RECORD in files:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            # A pipe or a device would be waited for.
            if not name.startswith(".") and path.is_file():
                yield path


def _matching(pattern: str) -> Iterator[_Found]:
    root = Path(pattern)
    while glob.has_magic(str(root)):
        root = root.parent
    # Not Path.glob, which takes relative patterns alone, and hidden files.
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    files = [_Found(path, root) for path in found if path.is_file() and _is_known(path)]
    # With ** a folder's files are matched themselves.
    folders = [path for path in found if path.is_dir() and "**" not in pattern]
    files += [_Found(inner, root) for folder in folders for inner in _walk(folder) if _is_known(inner)]
    if not files:
        raise DataError(f"{pattern} matches no image and no video", hint=_HINT)
    yield from files


def _in_list(file: Path) -> Iterator[_Found]:
    for line in _paths(file):
        path = file.parent / Path(line).expanduser()
        # One that is gone is reported with the unreadable ones: a long list must not fail for it.
        is_other_list = path.suffix.lower() == LIST_SUFFIX
        known = not is_other_list and (path.is_dir() or glob.has_magic(line))
        yield from _expand(str(path)) if known else [_Found(path, path.parent)]


def _paths(file: Path) -> list[str]:
    """The lines of a list that are no comment."""
    try:
        if fault := file_fault(file, largest=LARGEST_LIST):
            raise ValueError(f"it {fault}")
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
        for number, line in enumerate(lines, start=1):
            if "\0" in line or len(line) > LONGEST_PATH:
                raise ValueError(f"line {number} is no path")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read as a list of paths: {error}", hint="One path a line, UTF-8."
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES


def _absolute(path: Path) -> Path:
    """Without resolving links, so that a link keeps its name."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _named(found: Sequence[_Found]) -> list[Input]:
    """Names relative to the folder that holds all that was named."""
    common = _common([_absolute(each.root) for each in found])
    taken: set[str] = set()
    names = [_relative(_absolute(each.path), common) for each in found]
    return [Input(each.path, name, _free(name, taken)) for each, name in zip(found, names, strict=True)]


def _common(folders: Iterable[Path]) -> Path | None:
    try:
        return Path(os.path.commonpath({str(folder) for folder in folders}))
    except ValueError:  # several drives
        return None


def _relative(path: Path, common: Path | None) -> str:
    return path.relative_to(common or path.anchor).as_posix()


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if another has it already, suffix aside."""
    stem, dot, suffix = name.rpartition(".") if "." in name.rsplit("/", 1)[-1].lstrip(".") else (name, "", "")
    free, number = stem, 2
    while free.casefold() in taken:
        free = f"{stem}-{number}"
        number += 1
    taken.add(free.casefold())
    return free + dot + suffix

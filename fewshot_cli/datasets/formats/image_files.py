"""The image files that annotations name: looked for inside the data set's folder only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fewshot_cli.datasets.checks import size_reason
from fewshot_cli.datasets.formats.values import shown
from fewshot_cli.datasets.images import image_size
from fewshot_cli.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""Of image files, in the order in which they are tried where a name comes without one."""


def find_image(roots: Sequence[Path], name: str) -> tuple[Path | None, str | None]:
    """(file, None) or (None, reason).

    The file lies inside one of `roots` with all symbolic links followed. A backslash may stand for a slash.
    """
    try:
        return _find(roots, name)
    except (OSError, ValueError, RuntimeError) as error:  # NUL, a name too long, a loop of links
        return None, f"{shown(name)} is not a usable file name: {error}"


def _find(roots: Sequence[Path], name: str) -> tuple[Path | None, str | None]:
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        return None, f"{shown(name)} leads out of the folder"
    spellings = dict.fromkeys((name, name.replace("\\", "/")))
    for root, spelling in ((root, spelling) for root in roots for spelling in spellings):
        path = root / spelling
        if not path.exists():
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            return None, f"{shown(name)} is a link that leads out of the folder"
        if not path.is_file():
            return None, f"{shown(name)} is not a file"
        if path.stat().st_size == 0:
            return None, f"{shown(name)}: the file is empty"
        return root / PurePosixPath(spelling), None
    return None, f"{shown(name)} does not exist in {roots[0] if roots else 'any image folder'}"


def find_first(roots: Sequence[Path], names: Iterable[str]) -> tuple[Path | None, str | None]:
    """`find_image` for the first name that exists; the reason is that of the first name."""
    reasons: list[str | None] = []
    for name in names:
        path, reason = find_image(roots, name)
        if path:
            return path, None
        reasons.append(reason)
    return None, next(iter(reasons), "no file is named")


def tails(name: str) -> Iterator[str]:
    """The ends of a path, longest first: `a/b/c.jpg`, `b/c.jpg`, `c.jpg`. Roots, drives and `..` are dropped.

    A path of another machine is so found in the folder in which the data set lies now.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if parts and parts[0].endswith(":"):
        del parts[0]
    for start in range(len(parts)):
        yield "/".join(parts[start:])


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder and its subfolders, by name, hidden ones left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def checked_size(path: Path, stated: tuple[int, int] | None, *, decode: bool) -> tuple[tuple[int, int] | None, str]:
    """((width, height), "") of a usable image, or (None, reason); pixels, upright.

    Args:
        path: the file; its header is read if no size is stated, all of it if `decode`.
        stated: what the annotations say.
        decode: compare.
    """
    if stated and not decode:
        return stated, ""
    try:
        actual = image_size(path, decode=decode)
    except DataError as error:
        return None, error.message.removeprefix(f"{path}: ")
    reason = size_reason(stated, actual) if stated else None
    return (None, reason) if reason else (actual, "")

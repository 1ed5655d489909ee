"""Paths that people and files name: what stands there is found out without opening it.

A name may be no name at all (NUL, 5,000 characters, a loop of links), and what stands there may be a pipe that waits
for ever or a device without an end. Everything that takes a path asks here first.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from enum import Enum
from os import PathLike
from pathlib import Path

from fewshot_cli.errors import DataError, FsodError, UsageError

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a file stands where a folder should be",
    errno.EISDIR: "a folder stands where the file should be",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.EFBIG: "the file is larger than the disk allows",
    errno.EIO: "the disk reports an input/output error",
}
"""Errors of the disk and of names, in words; others of the operating system are not about files."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
CHECK = "Check the path."
LONGEST_NAME = 200
"""Bytes of a name; file systems take 255, and temporary files beside it have longer ones."""


class Kind(Enum):
    """What stands at a path, links followed."""

    FILE = "a file"
    FOLDER = "a folder"
    OTHER = "not a regular file"
    """A pipe, a socket or a device."""
    NOTHING = "nothing"


def kind_of(path: PathLike[str] | str, *, error: type[FsodError] = DataError) -> Kind:
    """What stands at a path; raises `error` if it can be no path, or cannot be looked at."""
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Kind.NOTHING
    except (OSError, ValueError) as fault:
        raise error(f"{shown(path)} cannot be used: {reason_of(fault) or fault}", hint=hint_for(fault)) from fault
    if stat.S_ISDIR(mode):
        return Kind.FOLDER
    return Kind.FILE if stat.S_ISREG(mode) else Kind.OTHER


def exists(path: PathLike[str] | str, *, error: type[FsodError] = DataError) -> bool:
    """Whether anything stands at a path; raises like `kind_of`."""
    return kind_of(path, error=error) is not Kind.NOTHING


def is_file(path: PathLike[str] | str, *, error: type[FsodError] = DataError) -> bool:
    """Whether a regular file stands at a path; raises like `kind_of`."""
    return kind_of(path, error=error) is Kind.FILE


def is_folder(path: PathLike[str] | str, *, error: type[FsodError] = DataError) -> bool:
    """Whether a folder stands at a path; raises like `kind_of`."""
    return kind_of(path, error=error) is Kind.FOLDER


def file_fault(path: PathLike[str] | str, *, largest: int | None = None) -> str | None:
    """Why no regular file can be read at a path, as words that follow its name; None if one can.

    A file of size 0 need not be opened: those of /proc say 0, and some of them wait for ever.

    Args:
        path: the file.
        largest: bytes that it may have.
    """
    try:
        kind = kind_of(path)
    except DataError as fault:
        return fault.message.removeprefix(f"{shown(path)} ")
    if kind is not Kind.FILE:
        return _FAULTS[kind]
    if largest is not None and Path(path).stat().st_size > largest:
        return f"has more than {largest // 1_000_000:,} million bytes"
    return None if os.access(path, os.R_OK) else "cannot be read: permission denied"


_FAULTS = {
    Kind.NOTHING: "does not exist",
    Kind.FOLDER: "is a folder, not a file",
    Kind.OTHER: "is not a regular file",
}


def require_file(
    path: PathLike[str] | str, *, error: type[FsodError] = DataError, hint: str = CHECK, largest: int | None = None
) -> None:
    """Raise `error`, with its hint, unless a regular file can be read at a path; see `file_fault`."""
    if fault := file_fault(path, largest=largest):
        raise error(f"{shown(path)} {fault}", hint=hint)


def require_bounded(folder: Path) -> None:
    """Raise DataError for the root of the file system: nobody means to search all of a machine."""
    if folder.resolve() == Path(folder.resolve().anchor):
        raise DataError(f"{shown(folder)} is all of this machine", hint="Name the folder that holds the images.")


def named(text: PathLike[str] | str, *, error: type[FsodError] = DataError) -> Path:
    """A path as a person types it, `~` expanded; raises `error` for an unknown user's home."""
    try:
        return Path(text).expanduser()
    except RuntimeError as fault:
        raise error(f"{shown(text)} cannot be used: no user of this name has a home", hint=CHECK) from fault


def is_plain_name(name: str) -> bool:
    """Whether a folder can be called so: no slash, no NUL, at most LONGEST_NAME bytes."""
    return bool(re.fullmatch(r"[^/\\\0]+", name)) and len(name.encode("utf-8", "replace")) <= LONGEST_NAME


def check_target(path: PathLike[str] | str, inputs: Iterable[PathLike[str] | str] = ()) -> Path:
    """The absolute place of a folder or file to write, if it may be one.

    Args:
        path: where a result goes.
        inputs: what is read for it, none of which may lie at or below `path`.

    Raises:
        UsageError: the root, the current folder or one above it, or a place that holds an input.
        DataError: it can be no path, or neither a file nor a folder stands there.
    """
    kind = kind_of(path)
    if kind is Kind.OTHER:
        raise DataError(f"{shown(path)} is not a regular file, so nothing is written there", hint=CHECK)
    place = whole(path)
    if Path.cwd().is_relative_to(place):
        raise UsageError(
            f"{shown(path)} is the current folder or one above it, and cannot be what is written",
            hint="Name a folder of its own.",
        )
    for source in inputs:
        if whole(source).is_relative_to(place):
            raise UsageError(
                f"{shown(path)} holds {shown(source)}, which is read for it", hint="Name another place for the result."
            )
    return place


def whole(path: PathLike[str] | str, *, error: type[FsodError] = DataError) -> Path:
    """The absolute path, links followed; raises `error` if it can be none."""
    try:
        return Path(path).resolve()
    except (OSError, ValueError, RuntimeError) as fault:
        raise error(f"{shown(path)} cannot be used: {reason_of(fault) or fault}", hint=CHECK) from fault


# --- errors, in words ---


def reason_of(fault: BaseException) -> str | None:
    """Why a file could not be read or written, in words; None if the error is not about files and their names."""
    if isinstance(fault, OSError):
        return REASONS.get(fault.errno or 0)
    if isinstance(fault, UnicodeEncodeError):
        return "the name holds half a character" if fault.reason == "surrogates not allowed" else None
    if isinstance(fault, ValueError) and "null byte" in str(fault):
        return "the name holds a NUL"
    if isinstance(fault, RuntimeError) and str(fault).startswith("Symlink loop"):
        return REASONS[errno.ELOOP]
    return None


def hint_for(fault: BaseException) -> str:
    """What would help against it."""
    code = fault.errno if isinstance(fault, OSError) else None
    if code in _FULL:
        return "Free some space or choose another folder; files written earlier are intact."
    if code in _FORBIDDEN:
        return "Change its permissions, or choose another path; files written earlier are intact."
    return CHECK


def shown(path: object) -> str:
    """A path for a message: on one line, of bounded length."""
    text = str(path) if isinstance(path, str | PathLike) else repr(path)
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return (text if len(text) <= 300 else f"{text[:140]}…{text[-140:]}") or "''"

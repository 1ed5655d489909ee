"""Writing so that a kill, a full disk or two writers never leave half a file."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot_cli.errors import DataError, StorageError

_FULL = "Free some space or choose another folder; files written earlier are intact."
_FORBIDDEN = "Check who may read and write there, or choose another folder."
_ANOTHER_PATH = "Choose another path."

DISK_ERRORS: dict[int | None, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EFBIG: ("the file is larger than the disk allows", _FULL),
    errno.EROFS: ("the file system is read-only", "Choose a folder on another disk."),
    errno.EACCES: ("permission denied", _FORBIDDEN),
    errno.EPERM: ("operation not permitted", _FORBIDDEN),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", _ANOTHER_PATH),
    errno.EEXIST: ("a file stands where a folder should be", _ANOTHER_PATH),
    errno.EISDIR: ("a folder stands where the file should be", _ANOTHER_PATH),
    errno.ELOOP: ("its symbolic links lead round in a circle", "Check where they lead."),
    errno.ENAMETOOLONG: ("the name is too long", "Give a shorter name."),
    errno.EIO: ("the disk reports an input/output error", "Check the disk, or choose another one."),
}
"""Errors of the disk: what is wrong, and what would help; others of the operating system are not about files."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk into a `StorageError` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise storage_error(error, f"cannot write {shortened(path)}") from error


def storage_error(error: OSError, what: str) -> StorageError:
    """What an error of the disk is for a person: `what` failed, why, and what would help."""
    reason, hint = DISK_ERRORS[error.errno]
    return StorageError(f"{what}: {reason}", hint=hint)


def shortened(path: object) -> str:
    """A path for a message, which has no use for thousands of characters."""
    text = str(path)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


LONGEST_SHOWN = 300
"""Characters of a path in a message."""


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; raises StorageError."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def claim_folder(root: Path, stem: str) -> Path:
    """Make the folder `stem` in `root`, or `stem-2`, `stem-3`, … if that is taken.

    Two programs that start at once never share one. Raises StorageError.
    """
    make_folder(root)
    for number in itertools.count(1):
        folder = root / (stem if number == 1 else f"{stem}-{number}")
        with storage_errors(folder), suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def write_atomically(path: Path, write: Callable[[Path], None], *, sync: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    Whoever reads `path` sees the old content or the new one, never a part. Raises StorageError.

    Args:
        sync: wait until the content is on the disk, so that it survives a power failure too; without, many small
            files are written much faster.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise StorageError(f"cannot write {path}: it is not a regular file", hint="Choose another name.")
    make_folder(path.parent)
    with storage_errors(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            if sync:
                with temporary.open("rb+") as written:
                    os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 text atomically.

    A byte of a file name that is not UTF-8 becomes `\udcXX`, which JSON reads back as it was.
    """
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, document: Any) -> None:
    """Write one JSON document atomically: readable, stable order, no NaN."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_folder(folder: Path, fill: Callable[[Path], None], *, overwrite: bool) -> None:
    """Let `fill` build a folder beside `folder`, then put it in place by renaming.

    Nobody ever sees a part of it. A kill leaves at most a hidden leftover, `.NAME.…`; in the instant between
    the two renames of a replacement, the old folder is there as its `old`.

    Raises:
        DataError: `folder` exists and `overwrite` is false.
        StorageError: the disk cannot be written.
    """
    make_folder(folder.parent)
    with storage_errors(folder):
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            fresh = temporary / "new"
            fresh.mkdir()
            fill(fresh)
            _put_in_place(fresh, folder, temporary / "old", overwrite)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(fresh: Path, folder: Path, old: Path, overwrite: bool) -> None:
    """Rename `fresh` to `folder`; if it is interrupted, a folder that was there is put back."""
    try:
        if folder.exists():
            if not overwrite:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
            folder.rename(old)
        fresh.rename(folder)
    except BaseException as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise DataError(f"{folder} already exists", hint="Choose another name, or replace it.") from error
        raise

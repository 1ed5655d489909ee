"""Writing so that a kill, a full disk or two writers never leave half a file."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot_cli.errors import DataError, StorageError
from fewshot_cli.paths import Kind, hint_for, kind_of, reason_of, shown
from fewshot_cli.temporary import REPLACED, temporary_file, temporary_folder


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk, and of a name that can be none, into a `StorageError` that names the path."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        # /proc, for example, holds folders in which nothing can be made.
        gone = "nothing can be made there" if isinstance(error, FileNotFoundError) else None
        reason = reason_of(error) or gone
        if reason is None:
            raise
        raise StorageError(f"cannot write {shown(path)}: {reason}", hint=hint_for(error)) from error


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
    kind = kind_of(path, error=StorageError)
    if kind is Kind.FOLDER:
        raise StorageError(f"cannot write {shown(path)}: a folder stands where the file should be", hint="Name a file.")
    if kind is Kind.OTHER:
        raise StorageError(f"cannot write {shown(path)}: it is not a regular file", hint="Choose another name.")
    make_folder(path.parent)
    with storage_errors(path), temporary_file(path.parent) as temporary:
        write(temporary)
        if sync:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)


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

    Nobody ever sees a part of it. A kill leaves at most a hidden leftover, which the next process that writes there
    removes; in the instant between the two renames of a replacement, the old folder is in it, and then it stays.

    Raises:
        DataError: `folder` exists and `overwrite` is false.
        StorageError: the disk cannot be written.
    """
    make_folder(folder.parent)
    with storage_errors(folder), temporary_folder(folder.parent) as temporary:
        fresh = temporary / "new"
        fresh.mkdir()
        fill(fresh)
        _put_in_place(fresh, folder, temporary / REPLACED, overwrite)


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

"""Hidden files and folders that are there while something is written beside them, and not after.

Each is locked while it is used. What a killed process left behind is not, so the next process that writes in the same
folder removes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be renamed either: leftovers stay
    fcntl = None  # type: ignore[assignment]

PREFIX = ".fsod-"
"""Of the names."""
REPLACED = "old"
"""What a temporary folder holds under this name stood at another place, and is not removed with a leftover."""


@contextmanager
def temporary_file(folder: Path, suffix: str = ".part") -> Iterator[Path]:
    """An empty file in `folder`, gone at the end unless it was renamed; raises OSError.

    Args:
        suffix: not empty, because torch writes no file whose name has a dot at its start alone.
    """
    with _held(folder.resolve(), partial(_make_file, folder, suffix)) as path:
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """An empty folder in `folder`, gone at the end with what is in it; raises OSError."""
    with _held(folder.resolve(), lambda: Path(tempfile.mkdtemp(dir=folder, prefix=PREFIX))) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _make_file(folder: Path, suffix: str) -> Path:
    handle, name = tempfile.mkstemp(dir=folder, prefix=PREFIX, suffix=suffix)
    os.close(handle)
    return Path(name)


@contextmanager
def _held(folder: Path, make: Callable[[], Path]) -> Iterator[Path]:
    """What `make` makes, locked."""
    if fcntl is None:
        yield make()
        return
    _remove_leftovers(folder)
    path, handle = _lock_new(make)
    try:
        yield path
    finally:
        os.close(handle)


def _lock_new(make: Callable[[], Path]) -> tuple[Path, int]:
    """Path and handle of its lock; made again if another process took it for a leftover before it was locked."""
    while True:
        path = make()
        with suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if path.exists():
                return path, handle
            os.close(handle)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left, once a process: a folder may hold many files."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_file():
                    path.unlink()
                elif not (path / REPLACED).exists():
                    shutil.rmtree(path)
            finally:
                os.close(handle)

"""One process at a time: for the training of a run, the fetching of a data set.

    with exclusive(folder / ".lock", f"{folder} is being trained"):
        ...

The lock is one of the kernel on a file (`flock`), so it ends with the process, however that ends, and a file that a
killed process left behind locks nothing. Where a file system has no such locks, the file itself is the lock; that of a
process that is gone is then taken over if it ran on this machine.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from fewshot_cli.errors import DataError, StorageError
from fewshot_cli.files import make_folder
from fewshot_cli.paths import reason_of


@contextmanager
def exclusive(path: Path, what: str, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of a file, which is there only meanwhile; the same process cannot take it twice.

    Args:
        path: of the lock file; its folder is made.
        what: happens while the lock is held, for messages: `runs/a is being trained`.
        waiting: if another process holds the lock, it gets a sentence that says so, once, and the lock is waited for;
            None: the lock is not waited for.

    Raises:
        DataError: another process holds the lock; names it, its machine and since when.
        StorageError: the lock file cannot be written.
    """
    from filelock import FileLock, Timeout

    make_folder(path.parent)
    lock = FileLock(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a file system has no locks, which needs nothing of the user
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if waiting is None:
                    raise DataError(f"{what} by {_holder(path)}", hint=_hint(path)) from None
                waiting(f"{what} by {_holder(path)}: waiting until it ends.")
                lock.acquire(poll_interval=0.2)
        path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
    except OSError as error:
        lock.release()
        reason = reason_of(error) or error.strerror or error
        raise StorageError(f"cannot lock {path}: {reason}", hint="Choose a folder that can be written.") from error
    try:
        yield
    finally:
        # Removed before it is released: who opened the file meanwhile finds it gone and opens the next one.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _recorded(path: Path) -> tuple[str, str] | None:
    """Process and machine in a lock file; None if they cannot be read."""
    with suppress(OSError, ValueError):
        process, machine, *_ = path.read_text(encoding="utf-8").splitlines()
        return process, machine
    return None


def _holder(path: Path) -> str:
    recorded = _recorded(path)
    if recorded is None:
        return "another process"
    with suppress(OSError):
        since = datetime.fromtimestamp(path.stat().st_mtime)
        return f"process {recorded[0]} on {recorded[1]}, since {since:%Y-%m-%d %H:%M:%S}"
    return f"process {recorded[0]} on {recorded[1]}"


def _hint(path: Path) -> str:
    recorded = _recorded(path)
    if recorded is None or recorded[1] == socket.gethostname():
        return "Wait until it ends, or stop it."
    return f"Wait until it ends, or stop it. If it does not run any more, remove {path}."

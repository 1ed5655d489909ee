"""FiftyOne, imported when it is used, which takes seconds, and without its output on stdout."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

from fewshot_cli.errors import ConfigError


def import_fiftyone(module: str = "fiftyone") -> Any:
    """FiftyOne or a module of it.

    Its usage statistics are off unless FIFTYONE_DO_NOT_TRACK says otherwise.

    Raises:
        ConfigError: it is not installed, or does not start.
    """
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    try:
        # Its log keeps the stream that is stdout now, for good; stdout belongs to results.
        with _same_generator(), contextlib.redirect_stdout(sys.__stderr__ or io.StringIO()):
            return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"FiftyOne cannot be imported: {error}", hint="Install it: pip install fiftyone") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide FiftyOne's progress bars and remarks, and keep stdout free of its output; errors in its log stay.

    Python's global random generator is afterwards as it was.
    """
    loggers = [logging.getLogger(name) for name in ("fiftyone", "eta")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with _same_generator(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


@contextlib.contextmanager
def _same_generator() -> Iterator[None]:
    """Restore the state of Python's global generator, which FiftyOne and what it imports draw from."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)

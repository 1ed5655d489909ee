"""FiftyOne, imported late and kept quiet: the import takes seconds, and what it prints is not ours to say."""

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
        with _same_chance(), contextlib.redirect_stdout(sys.__stderr__ or io.StringIO()):
            return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"FiftyOne cannot be imported: {error}", hint="Install it: pip install fiftyone") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep FiftyOne's bars and remarks to itself, and let nothing of it reach stdout; errors in its log stay.

    Python's global random generator is afterwards as it was.
    """
    loggers = [logging.getLogger(name) for name in ("fiftyone", "eta")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with _same_chance(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


@contextlib.contextmanager
def _same_chance() -> Iterator[None]:
    """Give Python's global generator back as it was: FiftyOne and what it imports draw from it."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)

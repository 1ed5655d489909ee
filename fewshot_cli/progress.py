"""How the library reports progress and remarks, without knowing where they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: float = 1) -> None:
        """Count further steps as done."""

    def update(self, text: str) -> None:
        """A short remark beside the bar, e.g. the current loss."""


class Reporter(Protocol):
    """Receives progress and remarks. The command line prints them; a program may ignore them."""

    def say(self, text: str) -> None:
        """A remark, not shown when quiet."""

    def warn(self, text: str) -> None:
        """A warning, shown also when quiet."""

    def on_interrupt(self, text: str) -> None:
        """Text to show if the work is interrupted from now on, e.g. how to continue it."""

    def progress(self, description: str, total: float | None, done: float = 0) -> AbstractContextManager[Task]:
        """Work of `total` steps (None: unknown), `done` of them before, from now to the end of the context."""


class SilentTask:
    """Shows nothing."""

    def advance(self, steps: float = 1) -> None:
        pass

    def update(self, text: str) -> None:
        pass


class SilentReporter:
    """The default: nothing is shown."""

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def on_interrupt(self, text: str) -> None:
        pass

    @contextmanager
    def progress(self, description: str, total: float | None, done: float = 0) -> Iterator[Task]:
        yield SilentTask()

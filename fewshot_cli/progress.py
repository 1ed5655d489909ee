"""How the library tells a person what it is doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: float = 1) -> None:
        """So many more steps are done."""

    def update(self, text: str) -> None:
        """A short remark beside the bar, e.g. the current loss."""


class Reporter(Protocol):
    """What the library may say. The command line prints it; a program may ignore it."""

    def say(self, text: str) -> None:
        """Something a person wants to know."""

    def warn(self, text: str) -> None:
        """Something a person must know, even when quiet."""

    def on_interrupt(self, text: str) -> None:
        """What a person has to know who stops the work from now on, e.g. how to continue it."""

    def progress(self, description: str, total: float | None, done: float = 0) -> AbstractContextManager[Task]:
        """Work of `total` steps (None: unknown), `done` of them before, that goes on now and ends with the context."""


class SilentTask:
    """Says nothing."""

    def advance(self, steps: float = 1) -> None:
        pass

    def update(self, text: str) -> None:
        pass


class SilentReporter:
    """The default: a library is silent."""

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def on_interrupt(self, text: str) -> None:
        pass

    @contextmanager
    def progress(self, description: str, total: float | None, done: float = 0) -> Iterator[Task]:
        yield SilentTask()

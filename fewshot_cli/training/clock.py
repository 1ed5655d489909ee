"""How long the steps of a run take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds that the steps of a run take; a step within another one does not count as a part of that."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._steps: dict[str, float] = {}
        self._within = 0.0

    @contextmanager
    def measures(self, step: str | None) -> Iterator[None]:
        """Count what happens meanwhile as a step of that name, once more if there was one; None: only in the total."""
        if step:
            self._steps.setdefault(step, 0.0)
        started, outside = time.perf_counter(), self._within
        self._within = 0.0
        yield
        spent = time.perf_counter() - started
        if step:
            self._steps[step] += spent - self._within
        self._within = outside + spent

    def seconds(self) -> dict[str, float]:
        """Of each step, in the order in which they began, and `total`: since the clock was made."""
        return {**self._steps, "total": time.perf_counter() - self._started}

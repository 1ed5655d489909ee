"""What an engine is, and what engines share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from typing import Any, NamedTuple, Protocol

Work = Callable[[Any], Any]
"""Item → result. Both can be pickled, and so can the function."""


class Done(NamedTuple):
    """An item and what the work made of it."""

    item: Any
    result: Any


class Lost(NamedTuple):
    """An item whose process or machine is gone, and why, in words that follow the item's name."""

    item: Any
    reason: str


Outcomes = Generator[Done | Lost, None, None]


class Engine(Protocol):
    """A place where work is done."""

    def run(self, work: Work, items: Sequence[Any]) -> Outcomes:
        """Do the work on every item and yield each outcome as it comes; closing the generator ends what is under way.

        Raises:
            whatever keeps the engine from starting, e.g. ConfigError, NetworkError.
        """


def as_they_come(
    futures: Mapping[Future[Any], Any], crash: type[Exception], reason: Callable[[Exception], str]
) -> Outcomes:
    """The outcome of each future when it is there.

    Args:
        futures: future → its item.
        crash: what a future raises when its process or machine is gone; other errors are raised again.
        reason: of such an error, for the outcome.
    """
    for future in as_completed(futures):
        try:
            yield Done(futures[future], future.result())
        except crash as error:
            yield Lost(futures[future], reason(error))

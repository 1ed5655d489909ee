"""Where pictures come from. A source is one module and one line in `SOURCES`.

Its function takes a `Query` and returns `Candidates`: everything that shots may be drawn from, and, where
the source has a test split of its own, everything the test set may be drawn from. It neither samples nor
writes; a source that downloads may use the query to bring only what can be chosen.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fewshot_cli.data.coco import Split
from fewshot_cli.errors import UsageError, closest

SOURCES: dict[str, str] = {
    "coco": "fewshot_cli.data.sources.coco:candidates",
    "miniature": "fewshot_cli.data.sources.miniature:candidates",
}
"""Name → module:function, imported only when used."""

DETECTORS = {"miniature": "retinanet_mini"}
"""The detector that was made for the pictures of a source, where there is one."""

_ARGUMENTS = {"coco": "coco:DIR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What will be drawn.

    Attributes:
        argument: what follows the colon in `--source NAME:ARGUMENT`.
        classes: names as the user typed them.
        shots: training pictures per class.
        test_images: test pictures at most.
        seed: of the draw.
        skip_invalid: leave faulty records out instead of raising.
    """

    argument: str
    classes: tuple[str, ...]
    shots: int
    test_images: int
    seed: int
    skip_invalid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a source offers.

    Attributes:
        pool: shots are drawn from here.
        test: the source's own test split; None: the test set comes from what the shots leave of the pool.
        filters: what the source itself left out, one line each, for the record.
    """

    pool: Split
    test: Split | None = None
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed `--source`: the registry name and its argument, absolute if it is a path that exists."""

    name: str
    argument: str

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name

    def candidates(self, query: Query) -> Candidates:
        """Ask the source; raises what its function raises."""
        module, _, function = SOURCES[self.name].partition(":")
        ask: Callable[[Query], Candidates] = getattr(importlib.import_module(module), function)
        return ask(query)


def default_detector(text: str) -> str | None:
    """The detector that was made for the pictures of a `--source`, if there is one."""
    return DETECTORS.get(text.partition(":")[0])


def parse_source(text: str) -> Source:
    """`NAME` or `NAME:ARGUMENT`; raises UsageError with the valid names."""
    name, _, argument = text.partition(":")
    if name not in SOURCES:
        forms = [_ARGUMENTS.get(valid, valid) for valid in SOURCES]
        guess = f"For one's own data write coco:{text}. " if Path(text).exists() else ""
        raise UsageError(f"unknown source {text!r}", hint=guess + closest(name, forms))
    path = Path(argument).expanduser()
    return Source(name, str(path.resolve()) if argument and path.exists() else argument)

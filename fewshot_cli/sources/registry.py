"""Where images come from. A source is one module and one line in `SOURCES`.

Its function takes a `Query` and returns `Candidates`: everything that shots may be drawn from, and, where
the source has a test split of its own, everything the test set may be drawn from. It neither samples nor
writes; a source that downloads may use the query to bring only what can be chosen.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import UsageError, closest
from fewshot_cli.progress import Reporter, SilentReporter

SOURCES: dict[str, str] = {
    "coco": "fewshot_cli.sources.files:candidates",
    "miniature": "fewshot_cli.sources.miniature.source:candidates",
    "openimages": "fewshot_cli.sources.openimages.source:candidates",
}
"""Name → module:function, imported only when used."""

DETECTORS = {"miniature": "retinanet_mini"}
"""The detector that was made for the images of a source, where there is one."""

_ARGUMENTS = {"coco": "coco:DIR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What only some sources can be told; None where nothing was said.

    Attributes:
        split: where the shots come from.
        test_split: where the test images come from.
        allow: marks that an image may have and is left out for otherwise, e.g. `truncated`.
        smallest_box: an image with a box of the class below this share of its width or height is left out.
        mirror: address of a copy of what the source downloads.
        offline: download nothing.
    """

    split: str | None = None
    test_split: str | None = None
    allow: tuple[str, ...] | None = None
    smallest_box: float | None = None
    mirror: str | None = None
    offline: bool | None = None

    def given(self) -> dict[str, Any]:
        """Those that something was said about, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def drawing(self) -> dict[str, Any]:
        """Those that change what is drawn, as JSON; how it comes here does not."""
        allow = sorted(self.allow) if self.allow is not None else None
        return {
            "split": self.split,
            "test_split": self.test_split,
            "allow": allow,
            "smallest_box": self.smallest_box,
        }


DEFAULT_OPTIONS: dict[str, SourceOptions] = {
    "openimages": SourceOptions(
        split="validation", test_split="test", allow=(), smallest_box=0.0, mirror="", offline=False
    ),
}
"""Source → every option that it takes, with its default; a source that is not here takes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What will be drawn.

    Attributes:
        argument: what follows the colon in `--source NAME:ARGUMENT`.
        classes: names as the user typed them.
        shots: training images per class; 0: the pool will not be drawn from.
        test_images: test images at most; 0: the source's own test split will not be drawn from.
        seed: of the draw.
        skip_invalid: leave faulty records out instead of raising.
        options: those of the source, all of them set.
        reporter: sees downloads and remarks.
    """

    argument: str
    classes: tuple[str, ...]
    shots: int
    test_images: int
    seed: int
    skip_invalid: bool
    options: SourceOptions = field(default_factory=SourceOptions)
    reporter: Reporter = field(default_factory=SilentReporter, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a source offers.

    Attributes:
        pool: shots are drawn from here.
        test: the source's own test split; None: the test set comes from what the shots leave of the pool.
        filters: what the source itself left out, one line each, for the record.
        origin: what the source knows about itself, for the record: version, splits, checksums.
        facts: an image's file → what the source knows about it, for the record: author, licence.
    """

    pool: Split
    test: Split | None = None
    filters: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed `--source`: the registry name and its argument, absolute if it is a path that exists."""

    name: str
    argument: str

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name

    def complete(self, options: SourceOptions) -> SourceOptions:
        """The options with the source's defaults; raises UsageError for one that it does not take."""
        defaults = DEFAULT_OPTIONS.get(self.name, SourceOptions())
        for name in options.given():
            if name not in defaults.given():
                takers = [source for source, taken in DEFAULT_OPTIONS.items() if name in taken.given()]
                raise UsageError(
                    f"--{name.replace('_', '-')} does not go with --source {self.name}",
                    hint=f"It goes with {', '.join(takers)}.",
                )
        return replace(defaults, **options.given())

    def candidates(self, query: Query) -> Candidates:
        """Ask the source; raises what its function raises."""
        module, _, function = SOURCES[self.name].partition(":")
        ask: Callable[[Query], Candidates] = getattr(importlib.import_module(module), function)
        return ask(query)


def default_detector(text: str) -> str | None:
    """The detector that was made for the images of a `--source`, if there is one."""
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

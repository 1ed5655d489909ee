"""Where images come from. A source is one module and one line in `SOURCES`.

To add a source:

1. Write a module (or a package) with
   `survey(query) -> Survey` (see `survey.py`): the ids of the images of each requested class. It may download lists,
   but no images: those come when `Candidates.bring(ids)` is called with the ids that were drawn; and, where it applies,
   `ARGUMENT = "DIR"`: the argument that it needs, `--source NAME:DIR`;
   `Options`: a settings class (see `fewshot_cli.settings`), whose fields become options of `fsod fetch`; those in its
   `TRANSPORT` change how images are brought, not which;
   `count_classes(name, argument, *, skip_invalid) -> dict[str, int]`, if it can list its classes with their images;
   `DETECTOR = "NAME"`: the detector that was made for its images.
   The command line imports the module to list its options, so torch, numpy and Pillow are imported in functions.
2. Add `"NAME": "module"` to `SOURCES`.

A source does not draw: it knows neither the seed nor how many images are wanted. Label formats (`datasets.formats`)
are sources too: `NAME:DIR` reads images of one's own, and `DIR` alone finds the format.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any, ClassVar

from fewshot_cli.datasets.formats import FORMATS, format_name
from fewshot_cli.errors import UsageError, closest
from fewshot_cli.paths import exists, named, shown
from fewshot_cli.settings import from_mapping
from fewshot_cli.sources.survey import Query, Survey

SOURCES: dict[str, str] = {
    "miniature": "fewshot_cli.sources.miniature",
    "openimages": "fewshot_cli.sources.openimages",
}
"""Name → module."""

OWN_FILES = "fewshot_cli.sources.files"


@dataclass(frozen=True)
class NoOptions:
    """Of a source that takes no options."""

    TRANSPORT: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed `--source`: the name of a source or format, and its argument, absolute if it is a path that exists."""

    name: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name

    @property
    def downloads(self) -> bool:
        """Whether its images come over the network."""
        return bool(options_class(self.name).TRANSPORT)

    @property
    def at_hand(self) -> bool:
        """Whether it is a folder of images, all of which are there; others make images available as they are drawn."""
        return self.name in FORMATS

    @property
    def option_names(self) -> list[str]:
        return [field.name for field in fields(options_class(self.name))]

    def options(self, given: Mapping[str, Any]) -> Any:
        """An instance of its `Options`: those of `given` that it takes, and defaults; raises UsageError."""
        own = {name: value for name, value in given.items() if name in self.option_names}
        return from_mapping(options_class(self.name), own, error=UsageError)

    def drawing_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options that change what is drawn, as JSON."""
        options = self.options(given)
        return {
            name: list(value) if isinstance(value := getattr(options, name), tuple) else value
            for name in self.option_names
            if name not in options.TRANSPORT
        }

    def count_classes(self, *, skip_invalid: bool) -> dict[str, int]:
        """Class name → images that show it; raises UsageError for a source that does not list them."""
        count = getattr(_module(self.name), "count_classes", None)
        if count is None:
            raise UsageError(
                f"--source {self.name} needs a class: it does not list all of its own", hint="Give --class NAME."
            )
        counts: dict[str, int] = count(self.name, self.argument, skip_invalid=skip_invalid)
        return counts

    def survey(self, query: Query) -> Survey:
        """Ask the source; raises what its function raises."""
        survey: Survey = _module(self.name).survey(query)
        return survey


def parse_source(text: str) -> Source:
    """`NAME`, `NAME:ARGUMENT`, or the path of a folder or file of one's own, whose format is found.

    Raises:
        UsageError: with the valid names.
        DataError: a path that holds no annotations in a known format.
    """
    name, _, argument = text.partition(":")
    known = _modules()
    if name not in known:
        path = named(text)
        if text and exists(path):
            return Source(format_name(path), str(path.resolve()))
        forms = ["DIR", *(_form(valid) for valid in known)]
        raise UsageError(f"unknown source {shown(text)!r}", hint=closest(name, forms))
    needs = getattr(_module(name), "ARGUMENT", None)
    if needs and not argument:
        raise UsageError(f"--source {name} needs a {needs}", hint=f"Write {_form(name)}.")
    if argument and not needs:
        raise UsageError(f"--source {name} takes no argument", hint=f"Write --source {name}.")
    path = named(argument)
    return Source(name, str(path.resolve()) if argument and exists(path) else argument)


def options_class(name: str) -> Any:
    """The settings class of a source's own options."""
    return getattr(_module(name), "Options", NoOptions)


def options_by_source() -> dict[str, Any]:
    """Source → settings class, for the sources that take options."""
    return {name: options_class(name) for name in _modules() if options_class(name) is not NoOptions}


def check_options(given: Mapping[str, Any], sources: Sequence[Source]) -> None:
    """Raise UsageError for an option that none of the sources takes, or for a wrong value."""
    for name in given:
        if any(name in source.option_names for source in sources):
            continue
        takers = [other for other in _modules() if name in Source(other).option_names]
        if not takers:
            valid = [known for other in _modules() for known in Source(other).option_names]
            raise UsageError(f"unknown option {name!r} of fetch", hint=closest(name, valid))
        raise UsageError(
            f"--{name.replace('_', '-')} does not go with --source {sources[0].name}",
            hint=f"It goes with {', '.join(takers)}.",
        )
    for source in sources:
        source.options(given)


def default_detector(text: str) -> str | None:
    """The detector that was made for the images of a `--source`, if there is one."""
    name = text.partition(":")[0]
    return getattr(_module(name), "DETECTOR", None) if name in _modules() else None


def _modules() -> dict[str, str]:
    return {**dict.fromkeys(FORMATS, OWN_FILES), **SOURCES}


def _module(name: str) -> ModuleType:
    return importlib.import_module(_modules()[name])


def _form(name: str) -> str:
    """How a source is written: `coco:DIR`."""
    argument = getattr(_module(name), "ARGUMENT", None)
    return f"{name}:{argument}" if argument else name

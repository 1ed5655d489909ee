"""Which classes the sources of a request have, where none is named, or all are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fewshot_cli.errors import UsageError
from fewshot_cli.paths import shown
from fewshot_cli.sources.request import ALL, FetchRequest

LISTED = 60
"""Classes in a message, at most."""


def count_classes(request: FetchRequest) -> dict[str, int]:
    """Class name → images that show it, in the sources of the shots; most first, then by name.

    Raises:
        UsageError: a source that does not list its classes.
        DataError, DatasetError: as when it is fetched from.
    """
    counts: Counter[str] = Counter()
    for source in request.sources:
        counts.update(source.count_classes(skip_invalid=request.skip_invalid))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def no_class(request: FetchRequest) -> UsageError:
    """The error where no class is named: it lists those that there are, with their images."""
    counts = count_classes(request)
    listed = "".join(f"\n  {shown(name)}: {count} images" for name, count in list(counts.items())[:LISTED])
    more = f"\n  … and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    return UsageError(
        f"no class is named; there are:{listed or ' none'}{more}",
        hint=f"Give --class NAME, several times for several, or --class {ALL}.",
    )


def with_all_classes(request: FetchRequest) -> FetchRequest:
    """The request with its classes by name if it is for all of them; those are in alphabetical order."""
    if request.classes != (ALL,):
        return request
    names = sorted(name for name, count in count_classes(request).items() if count)
    if not names or ALL in names:
        return request
    return replace(request, classes=tuple(names), name=request.folder_name)

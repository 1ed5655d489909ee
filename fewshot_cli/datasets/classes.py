"""Class names as people type them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from fewshot_cli.errors import DataError, closest


def match_class(wanted: str, available: Sequence[str]) -> str:
    """The available name that `wanted` means.

    An exact match wins, then one that differs in case, then in spaces, underscores and hyphens, then in
    number: `Coffee_Cups` finds `coffee cup`.

    Raises:
        DataError: no such class (with the closest one), or several that fit equally well.
    """
    for same in _SAME:
        found = [name for name in available if same(name, wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"class {wanted!r} fits several: {', '.join(found)}", hint="Write it as it stands there.")
    raise DataError(f"unknown class {wanted!r}", hint=_hint(wanted, available))


def match_classes(wanted: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """`match_class` for each, in the order requested; raises DataError also if two mean the same class."""
    exact = Counter(available)
    found = [name if exact[name] == 1 else match_class(name, available) for name in wanted]
    for name, times in Counter(found).items():
        if times > 1:
            raise DataError(f"class {name!r} is given twice", hint="Name every class once.")
    return tuple(found)


def has_class(wanted: str, available: Sequence[str]) -> bool:
    """Whether `wanted` means one of the names, or several."""
    return any(same(name, wanted) for same in _SAME for name in available)


def look_alike(ones: Iterable[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs, one of each, of names that probably mean one class.

    They differ in case, separators or number, or, the longer one having six letters or more, in one letter that is
    wrong, missing or swapped with its neighbour.
    """
    pairs = ((one, other) for one in ones for other in others)
    return [
        (one, other) for one, other in pairs if has_class(one, [other]) or _one_slip(class_key(one), class_key(other))
    ]


def _one_slip(one: str, other: str) -> bool:
    if max(len(one), len(other)) < 6 or abs(len(one) - len(other)) > 1 or any(map(str.isdigit, one + other)):
        return False
    start = next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    ends = {(one[start + a :], other[start + b :]) for a, b in ((1, 1), (0, 1), (1, 0))}
    swapped = one[start : start + 2] == other[start : start + 2][::-1] and one[start + 2 :] == other[start + 2 :]
    return swapped or any(a == b for a, b in ends)


@lru_cache(1 << 16)
def class_key(name: str) -> str:
    """What stays of a name when case, spaces, underscores and hyphens are ignored."""
    return re.sub(r"[\s_-]+", "", name.casefold())


def _plurals(key: str) -> set[str]:
    """The regular English plurals of a key."""
    plurals = {f"{key}s", f"{key}es"}
    return plurals | {f"{key[:-1]}ies"} if key.endswith("y") else plurals


def _differ_in_number(name: str, wanted: str) -> bool:
    one, other = class_key(name), class_key(wanted)
    return one in _plurals(other) or other in _plurals(one)


_SAME: tuple[Callable[[str, str], bool], ...] = (
    lambda name, wanted: name == wanted,
    lambda name, wanted: name.casefold() == wanted.casefold(),
    lambda name, wanted: class_key(name) == class_key(wanted),
    _differ_in_number,
)


def _hint(wanted: str, available: Sequence[str]) -> str:
    """The closest name and, where the list is short enough to help, all of them."""
    if len(available) <= 100:
        return closest(wanted, available)
    return closest(wanted, available).split("Valid: ")[0] + f"There are {len(available)} classes."

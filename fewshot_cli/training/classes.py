"""What a new class's predictor starts from."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot_cli.detectors.chain import Origin
from fewshot_cli.errors import ModelError, closest

_NO_CLASS = ("__background__", "N/A")
"""Places that torchvision keeps in its list of classes and that no object has."""


def choose_origins(classes: Sequence[str], base_classes: Sequence[str], init_class: str) -> list[Origin]:
    """For each class, the base classes whose mean its predictor starts from; none for fresh weights.

    The mean of all base classes helped on two of the four data sets it was measured on and cost on the other
    two: on average a tie with fresh weights (README, "How the defaults were chosen").

    Args:
        classes: the data set's.
        base_classes: those the pretrained detector knows; empty if its predictor is random.
        init_class: `auto` (the base class of the same name regardless of case and punctuation, else the mean of
            all), the name of a base class, or `none` (fresh).

    Raises:
        ModelError: a base class that this detector does not know.
    """
    rows = {_fold(name): row for row, name in enumerate(base_classes) if name not in _NO_CLASS}
    if init_class == "none":
        return [()] * len(classes)
    if init_class == "auto":
        everything = tuple(rows.values())
        return [(rows[_fold(name)],) if _fold(name) in rows else everything for name in classes]
    if _fold(init_class) not in rows:
        known = [name for name in base_classes if name not in _NO_CLASS]
        raise ModelError(f"no base class {init_class!r} to start from", hint=closest(init_class, known))
    return [(rows[_fold(init_class)],)] * len(classes)


def describe_origin(origin: Origin, base_classes: Sequence[str]) -> str:
    """The same in words, after `starts from`."""
    if not origin:
        return "fresh weights"
    if len(origin) == 1:
        return f"the weights of base class {base_classes[origin[0]]!r}"
    return f"the mean of the {len(origin)} base classes"


def _fold(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())

"""What a class's predictor starts from."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot_cli.errors import ModelError, closest


def starting_rows(classes: Sequence[str], base_classes: Sequence[str], init_class: str) -> list[int | None]:
    """For each class the base class whose predictor weights it starts from, or None for fresh ones.

    Args:
        classes: the data set's.
        base_classes: the pretrained detector's.
        init_class: `auto` (same name, regardless of case and punctuation), a base class's name, or `none`.

    Raises:
        ModelError: a base class that this detector does not know.
    """
    folded = {_fold(name): row for row, name in reversed(list(enumerate(base_classes)))}
    if init_class == "none":
        return [None] * len(classes)
    if init_class == "auto":
        return [folded.get(_fold(name)) for name in classes]
    if _fold(init_class) not in folded:
        raise ModelError(f"no base class {init_class!r} to start from", hint=closest(init_class, base_classes))
    return [folded[_fold(init_class)]] * len(classes)


def _fold(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())

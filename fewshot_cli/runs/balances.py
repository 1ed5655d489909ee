"""Balances of classification and localisation as they are typed: `precision`, `1:2`; checked, without torch."""

from __future__ import annotations

import math
from contextlib import suppress

from fewshot_cli.errors import closest

NONE = "none"
METHODS = ("precision", "gradnorm", "uncertainty")
"""Those that follow the training; each is a class in `training.balancers`."""
FORMS = (NONE, *METHODS, "1:2")
"""How each is typed."""


def known_balance(text: str) -> str:
    """The text as it is kept; raises ValueError, saying what would be right, if it is no balance."""
    text = text.strip()
    if text not in (NONE, *METHODS):
        fixed_weights(text)
    return text


def fixed_weights(text: str) -> tuple[float, float]:
    """`C:L` → the weights of classification and localisation in that proportion, of the sum 2.

    Raises ValueError, saying what would be right.
    """
    parts = text.split(":")
    if len(parts) != 2:
        raise ValueError(closest(text, FORMS))
    with suppress(ValueError):
        given = [float(part) for part in parts]
        largest = max(given)
        if all(math.isfinite(each) and each >= 0 for each in given) and largest > 0:
            shares = [each / largest for each in given]
            return 2 * shares[0] / sum(shares), 2 * shares[1] / sum(shares)
    raise ValueError("give two numbers of 0 or more, not both 0, as in 1:2")

"""Schedules of the learning rate as they are typed: `cosine`, `steps:0.6,0.85`, `plateau`; checked, without torch."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from fewshot_cli.errors import closest

COSINE, STEPS, PLATEAU = "cosine", "steps", "plateau"
FORMS = (COSINE, f"{STEPS}:0.6,0.85", PLATEAU)
"""How each is typed."""


class Schedule(NamedTuple):
    """How the learning rate falls after the warm-up.

    Attributes:
        kind: COSINE, STEPS or PLATEAU.
        steps: of STEPS, the shares of the run after which the rate is a tenth of what it was, in increasing order.
    """

    kind: str
    steps: tuple[float, ...] = ()


def parse_schedule(text: str) -> Schedule:
    """The schedule that a text names; raises ValueError, saying what would be right."""
    kind, colon, rest = text.strip().partition(":")
    if kind == STEPS:
        return Schedule(STEPS, _steps(rest))
    if kind not in (COSINE, PLATEAU) or colon:
        raise ValueError(closest(text, FORMS))
    return Schedule(kind)


def known_schedule(text: str) -> str:
    """The text as it is kept; raises ValueError if it names no schedule."""
    parse_schedule(text)
    return text.strip()


def _steps(text: str) -> tuple[float, ...]:
    try:
        steps = tuple(float(part) for part in text.split(","))
    except ValueError:
        steps = ()
    if not steps or not all(0 < step < 1 for step in steps) or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"give shares of the run between 0 and 1 in increasing order, as in {FORMS[1]}")
    return steps

"""How variants of an image may differ from it: names and ranges, without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fewshot_cli.errors import ConfigError, closest

OPERATIONS = ("positive", "flip", "rotate", "stretch", "scale", "color")
"""In the order they are applied; positive extraction first, while every pixel is there."""
STEEPEST = 180.0
"""Degrees of rotation at most."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which operations variants go through, and how far each may go.

    Raises:
        ConfigError: listing every field that cannot work.
    """

    ops: tuple[str, ...] = OPERATIONS
    """Names in OPERATIONS, in any order."""
    positive: float = 0.5
    """Share of the variants that are crops around an instance; at 1 no variant shows an image's negatives at large."""
    flip: float = 0.5
    """Share of the variants that are mirrored left to right."""
    rotate: float = 15.0
    """Degrees, to either side."""
    stretch: float = 4 / 3
    """Width over height changes by at most this factor, to either side."""
    scale: tuple[float, float] = (0.35, 1.8)
    """Smallest and largest zoom."""
    color: float = 0.4
    """Strength of the change in brightness, contrast and saturation, 0 … 1; the hue moves by a twentieth of it."""

    def __post_init__(self) -> None:
        # A list, as JSON gives it, is meant as well.
        object.__setattr__(self, "scale", tuple(self.scale))
        problems = [text for good, text in self._checks() if not good]
        if problems:
            raise ConfigError("; ".join(problems), hint="See `fsod augment --help`.")

    def _checks(self) -> list[tuple[bool, str]]:
        ends = " ".join(f"{end:g}" for end in self.scale)
        return [
            *((op in OPERATIONS, f"ops is {op!r}: {closest(op, OPERATIONS)}") for op in self.ops),
            *(
                (0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}: give 0 to 1")
                for name in ("positive", "flip", "color")
            ),
            (0 <= self.rotate <= STEEPEST, f"rotate is {self.rotate}: give degrees from 0 to {STEEPEST:g}"),
            (1 <= self.stretch <= 10, f"stretch is {self.stretch}: give a factor from 1 to 10"),
            (
                len(self.scale) == 2 and 0.01 <= self.scale[0] <= self.scale[-1] <= 100,
                f"scale is {ends}: give the smallest and the largest zoom, between 0.01 and 100",
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """What a data set's record says of it: the operations with their ranges."""
        return {name: getattr(self, name) for name in in_order(self.ops)}


def parse_ops(text: str) -> tuple[str, ...]:
    """`flip,color` as a tuple, in the order they are applied; raises ConfigError for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in OPERATIONS:
            raise ConfigError(f"unknown augmentation {name!r} in --ops", hint=closest(name, OPERATIONS))
    return in_order(names)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order they are applied."""
    wanted = set(names)
    return tuple(name for name in OPERATIONS if name in wanted)

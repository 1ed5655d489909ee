"""How variants of an image may differ from it: names and ranges, without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from fewshot_cli.bounds import COPIES, SEED
from fewshot_cli.errors import closest
from fewshot_cli.panels import AUGMENTATION as PANEL
from fewshot_cli.settings import Option, fields_of, validate

OPERATIONS = ("positive", "flip", "rotate", "stretch", "scale", "color")
"""In the order they are applied; positive extraction first, while every pixel is there."""
SMALLEST_ZOOM, LARGEST_ZOOM = 0.01, 100


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Operations, each once, in the order they are applied; raises ValueError for an unknown one."""
    wanted = list(names)
    for name in wanted:
        if name not in OPERATIONS:
            raise ValueError(f"unknown operation {name!r}. {closest(name, OPERATIONS)}")
    return tuple(name for name in OPERATIONS if name in wanted)


def zoom_range(ends: tuple[float, float]) -> tuple[float, float]:
    """The smallest and the largest zoom as they are; raises ValueError if they are not in that order and range."""
    if not SMALLEST_ZOOM <= ends[0] <= ends[1] <= LARGEST_ZOOM:
        raise ValueError(f"give the smallest and the largest zoom, between {SMALLEST_ZOOM} and {LARGEST_ZOOM}")
    return ends


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which operations variants go through, and how far each may go.

    Raises:
        ConfigError: listing every field that cannot work.
    """

    ops: Annotated[
        tuple[str, ...],
        Option(
            f"Operations, with commas: {', '.join(OPERATIONS)}; empty for none.",
            panel=PANEL,
            words=True,
            check=in_order,
        ),
    ] = OPERATIONS
    # At 1 no variant shows the background of an image as a whole.
    positive: Annotated[
        float, Option("Share of the variants that are crops around an object, 0 to 1.", panel=PANEL, ge=0, le=1)
    ] = 0.5
    flip: Annotated[
        float, Option("Share of the variants that are mirrored left to right, 0 to 1.", panel=PANEL, ge=0, le=1)
    ] = 0.5
    rotate: Annotated[
        float, Option("Largest rotation to either side, degrees, 0 to 180.", panel=PANEL, ge=0, le=180)
    ] = 15.0
    stretch: Annotated[
        float, Option("Largest change of the aspect ratio, a factor, 1 to 10.", panel=PANEL, ge=1, le=10)
    ] = 4 / 3
    scale: Annotated[
        tuple[float, float],
        Option("Smallest and largest zoom, two factors.", panel=PANEL, metavar="LOW HIGH", check=zoom_range),
    ] = (0.35, 1.8)
    # The hue moves by a twentieth of it.
    color: Annotated[
        float,
        Option("Strength of the change in brightness, contrast and saturation, 0 to 1.", panel=PANEL, ge=0, le=1),
    ] = 0.4

    def __post_init__(self) -> None:
        validate(self, hint="See `fsod augment --help`.")

    def to_json(self) -> dict[str, Any]:
        """What a data set's record says of it: the operations with their ranges."""
        return {name: getattr(self, name) for name in self.ops}


@dataclass(frozen=True, kw_only=True)
class Variants(Augmentation):
    """How many variants of each training image are made, and with which random numbers."""

    copies: Annotated[
        int, Option("Variants of each training image, the unchanged image included.", panel=PANEL, within=COPIES)
    ] = 24
    seed: Annotated[int, Option("Random seed of the variants.", panel=PANEL, within=SEED)] = 0

    @property
    def augmentation(self) -> Augmentation:
        """The operations and their ranges alone."""
        return Augmentation(**{name: getattr(self, name) for name in fields_of(Augmentation)})

"""Colours of drawings and figures, which colour-blind readers tell apart."""

from __future__ import annotations

CLASSES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#999933",
    "#332288",
    "#767676",
)
"""Okabe and Ito's colours (Color Universal Design, 2008) but for yellow and black, which are hard to see on white and
on dark photographs, then colours of Tol's `muted` scheme (Colour Schemes, 2021) and a grey."""
TRUTH, FOUND = "#009e73", "#d55e00"
"""Ground truth and detections, where there is a single class."""
BLACK, GREY = "#000000", "#767676"
"""The grey is the lightest that is easily read on white."""


def class_color(label: int) -> str:
    """The colour of a class, `#rrggbb`, by its place in label order: the same on every image, figure and page."""
    return CLASSES[label % len(CLASSES)]


def to_rgb(color: str) -> tuple[int, int, int]:
    """`#0072b2` as three numbers from 0 to 255."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue

"""What a sweep's tables show of a run, by name; each is read from its result.json.

To add one, add a line to MEASURES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Result = Mapping[str, Any]
"""The content of a result.json."""


class Measure(NamedTuple):
    """One measure.

    Attributes:
        label: as tables and axes show it, with its unit.
        digits: after the point.
        of: result.json → value; None where a run has none.
    """

    label: str
    digits: int
    of: Callable[[Result], float | None]


def _gap(result: Result) -> float | None:
    """Training images minus test images; computed for runs that do not record it."""
    if result["ap"] is None or result["train_ap"] is None:
        return None
    return float(result["train_ap"] - result["ap"])


def _best(result: Result) -> float | None:
    return result["best"]["ap"] if result["best"] else None


MEASURES: dict[str, Measure] = {
    "ap": Measure("mAP", 3, lambda result: result["ap"]),
    # Chosen on the test set, so it is never the figure that setups are compared by.
    "best_ap": Measure("best mAP", 3, _best),
    "train_ap": Measure("train mAP", 3, lambda result: result["train_ap"]),
    "gap": Measure("gap", 3, _gap),
    "decay_gain": Measure("gain at the first decay", 3, lambda result: result.get("decay_gain")),
    "training_seconds": Measure("training, s", 1, lambda result: result["seconds"].get("training")),
    "peak_memory_mb": Measure("memory, MB", 0, lambda result: result.get("peak_memory_mb")),
    "cached_mb": Measure("cached, MB", 0, lambda result: result.get("cached_mb")),
    "parameters": Measure("parameters trained", 0, lambda result: result["parameters"]["trained"]),
}

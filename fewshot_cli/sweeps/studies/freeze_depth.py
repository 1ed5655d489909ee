"""How many of the first convolutions can stay frozen, and how far each convolution turns, by pretraining."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from fewshot_cli.sweeps.axes import value_text
from fewshot_cli.sweeps.cells import Cell
from fewshot_cli.sweeps.pivot import Results
from fewshot_cli.sweeps.studies.contract import Drift, Lines, Study, Verdict, correlate, falls, matches, values_of

BACKBONE = "backbone."
"""How names of its layers begin."""


def _drift(_: Cell, result: Mapping[str, Any]) -> float | None:
    """Mean drift of the backbone's layers, which every pretraining brings; one of them leaves neck and head new."""
    moved = [value for name, value in (result.get("drift") or {}).items() if name.startswith(BACKBONE)]
    return statistics.mean(moved) if moved else None


def _frozen(cell: Cell, _: Mapping[str, Any]) -> float | None:
    return float(cell.varied["freeze_first"])


def _judge(results: Results) -> Iterator[Verdict]:
    unfrozen = {cell: result for cell, result in results.items() if matches(cell, {"freeze_first": 0})}
    yield falls(
        "The less the layers of a pretrained detector change, the better it becomes.",
        "rank correlation of the backbone's mean drift and mAP over pretrainings, nothing frozen",
        correlate(unfrozen, _drift, "ap"),
    )
    for weights in values_of(results, "weights"):
        own = {cell: result for cell, result in results.items() if matches(cell, {"weights": weights})}
        yield falls(
            f"The more of the first convolutions are frozen, the lower the mAP ({value_text('weights', weights)}).",
            "rank correlation of the number of frozen convolutions and mAP",
            correlate(own, _frozen, "ap"),
        )


STUDY = Study(
    source="The layer-difference paper: Algorithm 1 (1 − |cos|), Fig. 2 and 3; the claims are in our words",
    preset={
        "policies": ("full",),
        "baselines": False,
        "seeds": 3,
        "vary": {"weights": ("imagenet", "default"), "freeze_first": (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50)},
        "rows": "freeze_first",
        "columns": "weights",
        "options": {"backbone_lr": 0.1},
    },
    measures=("ap", "training_seconds"),
    figures=(
        Drift("Drift of each convolution, nothing frozen (Fig. 2)", "weights", {"freeze_first": 0}),
        Lines("mAP by the number of frozen convolutions (Fig. 3)", "ap", "freeze_first", "weights"),
    ),
    judge=_judge,
)

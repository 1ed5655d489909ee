"""What the JSON files in a run's folder hold, as types that they are checked against when they are read.

They say what readers rely on; further keys are allowed, so that a file of a later version is still read. A key that
earlier versions did not write is NotRequired.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Le, Len
from pydantic import AfterValidator, ConfigDict, FiniteFloat, with_config
from typing_extensions import NotRequired, TypedDict

_RULES = ConfigDict(strict=True, extra="allow")
"""Strict: "0.5" is no number, and 1 is not true."""

Count: TypeAlias = Annotated[int, Ge(0)]
Share: TypeAlias = Annotated[FiniteFloat, Ge(0), Le(1)]
Measured: TypeAlias = FiniteFloat | None
"""None where there was nothing to measure."""


@with_config(_RULES)
class Parameters(TypedDict):
    """How many parameters train, of how many."""

    trained: Count
    total: Annotated[int, Ge(1)]


@with_config(_RULES)
class Images(TypedDict):
    """Of the data set."""

    train: Count
    test: Count


@with_config(_RULES)
class KeptClasses(TypedDict):
    """What keeping the base classes takes, see `detectors.two_heads.SecondHead`."""

    classes: list[str]
    start: str
    parameters: Count
    operations: FiniteFloat


@with_config(_RULES)
class Frozen(TypedDict):
    """Frozen tensors, and how many of them changed."""

    tensors: Count
    changed: Count


@with_config(_RULES)
class Best(TypedDict):
    """The highest mAP seen on the test set."""

    ap: FiniteFloat
    iteration: Count


@with_config(_RULES)
class Numbers(TypedDict):
    """COCO's numbers."""

    AP: Measured
    AP50: Measured
    AP75: Measured


@with_config(_RULES)
class Metrics(TypedDict):
    """What was measured on the test set."""

    numbers: Numbers
    per_class: dict[str, Measured]


@with_config(_RULES)
class Average(TypedDict):
    """How the detector was averaged, see `training.averaging.Average`."""

    alpha: Share
    reason: Literal["option", "classes", "cross-validation"]


@with_config(_RULES)
class ClassEstimate(TypedDict):
    """Of one class, on left-out shots."""

    threshold: Measured
    f1: FiniteFloat
    precision: FiniteFloat
    recall: FiniteFloat


def _with_shares(averages: dict[str, float]) -> dict[str, float]:
    for name in averages:
        try:
            float(name)
        except ValueError:
            raise ValueError(f"{name!r} is no share of the trained weights") from None
    return averages


@with_config(_RULES)
class CrossValidation(TypedDict):
    """What was estimated from the shots, see `selection.cross_validation.CrossValidation`."""

    folds: Count
    ap: Measured
    ap_interval: Measured
    pooled_ap: Measured
    averages: NotRequired[Annotated[dict[str, FiniteFloat], AfterValidator(_with_shares)]]
    per_class: dict[str, ClassEstimate]
    not_validated: dict[str, Count]


@with_config(_RULES)
class Candidate(TypedDict):
    """Of policy `auto`, see `selection.trials.Trial`."""

    name: str
    layers: list[str]
    parameters: Count
    criterion: Measured
    score: Measured
    standard_error: Measured
    shots: Count
    dropped: str | None


def _with_choice(search: dict[str, Any]) -> dict[str, Any]:
    finished = [one for one in search["candidates"] if not one["dropped"]]
    if search["chosen"] not in [one["name"] for one in finished]:
        raise ValueError(f"the chosen candidate {search['chosen']!r} is not among those that were measured to the end")
    if any(one["score"] is None for one in finished):
        raise ValueError("a candidate that was not dropped has no score")
    return search


@with_config(_RULES)
class _Search(TypedDict):
    """What policy `auto` compared."""

    chosen: str
    criterion: str
    folds: Count
    iterations: Count
    candidates: Annotated[list[Candidate], Len(1)]


Search: TypeAlias = Annotated[_Search, AfterValidator(_with_choice)]


@with_config(_RULES)
class _RunResult(TypedDict):
    """What a fine-tune did and measured."""

    run: str
    classes: Annotated[list[str], Len(1)]
    detector: str
    policy: str
    budget: int | str | None
    trained_layers: list[str]
    parameters: Parameters
    keep_base_classes: NotRequired[KeptClasses | None]
    images: Images
    seed: int
    precision: str
    device: str
    threads: Count
    iterations: Count
    ap: Measured
    best: Best | None
    metrics: Metrics | None
    train_ap: Measured
    average: NotRequired[Average | None]
    search: NotRequired[Search | None]
    cross_validation: NotRequired[CrossValidation | None]
    thresholds: NotRequired[dict[str, FiniteFloat] | None]
    frozen: Frozen
    drift: dict[str, FiniteFloat]
    peak_memory_mb: Count
    seconds: dict[str, FiniteFloat]


def _consistent(result: dict[str, Any]) -> dict[str, Any]:
    measured = [name for name in ("ap", "best", "metrics") if result[name] is not None]
    if len(measured) not in (0, 3):
        raise ValueError(f"{', '.join(measured)} without the rest of what is measured on a test set")
    if len((result.get("cross_validation") or {}).get("averages", ())) > 1 and not result.get("average"):
        raise ValueError("average lacks the share that was chosen")
    if unknown := [name for name in result["trained_layers"] if name not in result["drift"]]:
        raise ValueError(f"drift lacks the trained layer {unknown[0]!r}")
    if "total" not in result["seconds"]:
        raise ValueError("seconds lacks the total")
    return result


RunResult: TypeAlias = Annotated[_RunResult, AfterValidator(_consistent)]
"""The content of result.json."""


@with_config(_RULES)
class Record(TypedDict):
    """One line of metrics.jsonl, and one of the records in state.pt."""

    iteration: Count
    ap: Measured
    losses: dict[str, FiniteFloat]


def _writable(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        json.dumps(records, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not what metrics.jsonl can hold: {error}") from None
    return records


@with_config(_RULES)
class State(TypedDict):
    """What state.pt holds: of the run when it was saved; parameters by qualified name."""

    iteration: Annotated[int, Ge(1)]
    records: Annotated[list[Record], AfterValidator(_writable)]
    parameters: dict[str, Any]
    optimizer: dict[str, Any]


@with_config(_RULES)
class Detection(TypedDict):
    """One of predictions.json, in COCO's results format; pixels."""

    image_id: int
    category_id: int
    bbox: Annotated[list[FiniteFloat], Len(4, 4)]
    score: FiniteFloat


class StoredFold(TypedDict):
    """One of folds.json, see `selection.left_out.Fold`."""

    images: list[int]
    results: dict[float, list[Detection]]
    seconds: FiniteFloat


@with_config(_RULES)
class StoredConfig(TypedDict):
    """config.json; the options are checked by `FinetuneConfig`."""

    options: dict[str, Any]

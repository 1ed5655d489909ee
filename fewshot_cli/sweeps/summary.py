"""Summaries of a sweep's results: means with intervals, averages over domains, paired differences.

Every figure is the mAP after the last iteration, never the best one of a run, which would be chosen on the test set.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple

from typing_extensions import Doc, TypedDict

from fewshot_cli.evaluation.caveats import caveats_of_several
from fewshot_cli.evaluation.interval import half_interval
from fewshot_cli.schemas import schema_of
from fewshot_cli.sweeps.cells import Cell, Setup

NOT_AVERAGED = {"alpha": 1.0}
"""What runs before averaging was possible do not record."""
AVERAGES = ("avg", "avg (in-domain)", "avg (out-of-domain)")
FEW = 2
"""Seeds whose interval says nothing: Student's t with one degree of freedom is 12.7."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds."""

    mean: Annotated[float, Doc("mAP@[.50:.95], or a difference of two.")]
    margin: Annotated[float | None, Doc("Half its 95 % interval (Student's t); null for one seed.")]
    seeds: Annotated[int, Doc("How many.")]

    def __str__(self) -> str:
        # A mean of two seeds has no interval: it would be several times the mean.
        return f"{self.mean:.3f}{' (2 seeds)' if self.seeds == FEW else self.interval}"

    @property
    def interval(self) -> str:
        """` ± 0.014`; empty for so few seeds that it says nothing."""
        return "" if self.margin is None or self.seeds <= FEW else f" ± {self.margin:.3f}"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher the mAP of one setup is than that of another, over the same shots and seeds."""

    estimate: Annotated[Estimate, Doc("Mean over seeds, for a class or for an average.")]
    wins: Annotated[int, Doc("Pairs of class and seed in which the first is better.")]
    losses: Annotated[int, Doc("Pairs in which it is worse.")]

    def __str__(self) -> str:
        mean = f"{self.estimate.mean:+.3f}".replace("-", "−")
        return f"{mean}{self.estimate.interval} ({self.wins} : {self.losses})"


class TableRow(TypedDict):
    """One setup of a table."""

    setup: Annotated[str, Doc("Policy and budget, or layers.")]
    layers: Annotated[int, Doc("That train; the median over the cells.")]
    parameters: Annotated[int, Doc("That train; the median over the cells.")]
    median_seconds: Annotated[float, Doc("Of a cell.")]
    columns: Annotated[dict[str, Estimate | None], Doc("Class or average → mAP; null: not finished.")]


class TableComparison(TypedDict):
    """Two setups, compared in pairs."""

    first: Annotated[str, Doc("A setup.")]
    second: Annotated[str, Doc("What is taken off it.")]
    columns: Annotated[dict[str, Difference | None], Doc("Class or average → difference; null: no pair.")]


class SweepTable(TypedDict):
    """A table of a sweep, a detector at a number of shots; table.json in its folder is a list of them."""

    schema: Annotated[Literal["fsod/sweep-table/1"], Doc("Kind and version.")]
    detector: Annotated[str, Doc("Name in the registry.")]
    shots: Annotated[int | None, Doc("Training images of each class; null: a share of all images.")]
    classes: Annotated[list[str], Doc("In the order of the grid.")]
    averaged: Annotated[bool, Doc("Whether any run was averaged with the weights before training.")]
    caveats: Annotated[list[str], Doc("Sentences that belong beside the numbers: small test sets.")]
    averages: Annotated[dict[str, list[str]], Doc("Further columns → the classes that each is the average of.")]
    rows: Annotated[list[TableRow], Doc("Setups in the order of the grid.")]
    comparisons: Annotated[list[TableComparison], Doc("Setups compared in pairs.")]


class Comparison(NamedTuple):
    """One setup minus another, for each column of the table (None: no pair has finished)."""

    first: Setup
    second: Setup
    columns: dict[str, Difference | None]

    def __str__(self) -> str:
        return f"{self.first} − {self.second}"


@dataclass(frozen=True, slots=True)
class Row:
    """One setup of a table.

    Attributes:
        layers, parameters: how many train: the median over the cells, which may differ with policy `auto` alone.
        columns: column → estimate; None if no seed has finished for all classes of the column.
        seconds: median over its cells.
    """

    setup: Setup
    layers: int
    parameters: int
    columns: dict[str, Estimate | None]
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One table: a detector at a number of shots.

    Attributes:
        classes: in the order of the grid.
        averages: further columns → the classes that each is the average of.
        rows: in the order of the grid.
        averaged: whether any run was averaged with the weights before training.
        comparisons: every policy against `last` at the same budget, then every setup that trains against `full`.
        caveats: sentences that belong beside the numbers.
    """

    detector: str
    shots: int | None
    classes: tuple[str, ...]
    averages: dict[str, tuple[str, ...]]
    rows: tuple[Row, ...]
    averaged: bool
    comparisons: tuple[Comparison, ...]
    caveats: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: classes, then averages."""
        return (*self.classes, *self.averages)

    def best_of_budget(self, row: Row, column: str) -> bool:
        """Whether no other setup of the same budget has a higher mean; false where there is no other."""
        rivals = [other for other in self.rows if other.setup.budget == row.setup.budget is not None]
        return len(rivals) > 1 and self._is_best(row, rivals, column)

    def best_of_all(self, row: Row, column: str) -> bool:
        """Whether no row has a higher mean."""
        return self._is_best(row, self.rows, column)

    def to_json(self) -> dict[str, Any]:
        """Everything, by name."""
        return {
            "schema": schema_of(SweepTable),
            "detector": self.detector,
            "shots": self.shots,
            "classes": list(self.classes),
            "averaged": self.averaged,
            "caveats": list(self.caveats),
            "averages": {column: list(names) for column, names in self.averages.items()},
            "rows": [
                {
                    "setup": str(row.setup),
                    "layers": row.layers,
                    "parameters": row.parameters,
                    "median_seconds": row.seconds,
                    "columns": {name: asdict(found) if found else None for name, found in row.columns.items()},
                }
                for row in self.rows
            ],
            "comparisons": [
                {
                    "first": str(comparison.first),
                    "second": str(comparison.second),
                    "columns": {name: asdict(found) if found else None for name, found in comparison.columns.items()},
                }
                for comparison in self.comparisons
            ],
        }

    @staticmethod
    def _is_best(row: Row, rivals: Iterable[Row], column: str) -> bool:
        own = row.columns[column]
        means = [estimate.mean for rival in rivals if (estimate := rival.columns[column])]
        return own is not None and own.mean >= max(means)


def summarize(results: Iterable[tuple[Cell, dict[str, Any]]]) -> list[Summary]:
    """One summary per detector and number of shots, in the order of the grid.

    Args:
        results: finished cells with the content of their result.json.
    """
    tables: dict[tuple[str, int | None], dict[Cell, dict[str, Any]]] = {}
    for cell, result in results:
        tables.setdefault((cell.group.detector, cell.group.shots), {})[cell] = result
    return [_summary(detector, shots, cells) for (detector, shots), cells in tables.items()]


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and half the confidence interval of values, one for each seed; None if there are none."""
    if not values:
        return None
    mean = statistics.mean(values)
    return Estimate(mean, half_interval(values), len(values))


def mean_by_seed(values: Iterable[tuple[int, Hashable, float | None]]) -> dict[int, float]:
    """Seed → mean over its parts, for seeds that have all parts that any seed has, so that an interval is over seeds.

    Args:
        values: (seed, part, value); those without a value are left out.
    """
    parts: dict[int, dict[Hashable, float]] = {}
    for seed, part, value in values:
        if value is not None:
            parts.setdefault(seed, {})[part] = float(value)
    every = {part for of_seed in parts.values() for part in of_seed}
    return {seed: statistics.mean(of.values()) for seed, of in sorted(parts.items()) if set(of) == every}


Scores = dict[Setup, dict[str, dict[int, float]]]
"""mAP by setup, class and seed."""


def _summary(detector: str, shots: int | None, cells: Mapping[Cell, dict[str, Any]]) -> Summary:
    classes = tuple(dict.fromkeys(cell.group.class_name for cell in cells))
    known = tuple(
        name for name in classes if any(r["known_classes"] for c, r in cells.items() if c.group.class_name == name)
    )
    unknown = tuple(name for name in classes if name not in known)
    averages = dict(zip(AVERAGES, (classes, known, unknown), strict=True))
    averages = _distinct(averages, classes)
    scores: Scores = {}
    for cell, result in cells.items():
        by_class = scores.setdefault(cell.setup, {name: {} for name in classes})
        by_class[cell.group.class_name][cell.group.seed] = float(result["ap"])
    rows = tuple(_row(setup, scores[setup], averages, cells) for setup in scores)
    averaged = any(result.get("average", NOT_AVERAGED)["alpha"] < 1 for result in cells.values())
    comparisons, caveats = tuple(_comparisons(scores, averages)), tuple(_caveats(cells.values()))
    return Summary(detector, shots, classes, averages, rows, averaged, comparisons, caveats)


def _caveats(results: Iterable[dict[str, Any]]) -> list[str]:
    """Runs before boxes were counted are left out."""
    counts = [(result["images"]["test"], result["boxes"]["test"]) for result in results if "boxes" in result]
    return caveats_of_several(counts)


def _distinct(averages: Mapping[str, tuple[str, ...]], classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The averages of classes that are not the same as another column: an average of one class is that class."""
    kept: dict[tuple[str, ...], str] = {(name,): "" for name in classes}
    for column, names in averages.items():
        if names:
            kept.setdefault(names, column)
    return {column: names for names, column in kept.items() if column}


def _row(
    setup: Setup,
    scores: Mapping[str, Mapping[int, float]],
    averages: Mapping[str, Sequence[str]],
    cells: Mapping[Cell, dict[str, Any]],
) -> Row:
    results = [result for cell, result in cells.items() if cell.setup == setup]
    columns = {name: estimate(list(by_seed.values())) for name, by_seed in scores.items()}
    columns |= {column: estimate(list(_means(scores, names).values())) for column, names in averages.items()}
    seconds = statistics.median(result["seconds"]["total"] for result in results)
    layers = statistics.median_low(len(result["trained_layers"]) for result in results)
    parameters = statistics.median_low(result["parameters"]["trained"] for result in results)
    return Row(setup, layers, parameters, columns, seconds)


def _means(scores: Mapping[str, Mapping[int, float]], names: Sequence[str]) -> dict[int, float]:
    """Seed → average over the classes, for seeds that have all of them, so that the interval is over seeds."""
    whole = set.intersection(*(set(scores[name]) for name in names))
    return {seed: statistics.mean(scores[name][seed] for name in names) for seed in sorted(whole)}


def _comparisons(scores: Scores, averages: Mapping[str, Sequence[str]]) -> Iterable[Comparison]:
    last = [(setup, Setup("last", setup.budget)) for setup in scores if setup.budget]
    full = [(setup, Setup("full", None)) for setup in scores if setup.policy != "none"]
    for first, second in (*last, *full):
        if first != second and second in scores:
            columns = {name: (name,) for name in scores[first]} | dict(averages)
            differences = {name: _difference(scores[first], scores[second], over) for name, over in columns.items()}
            yield Comparison(first, second, differences)


def _difference(
    first: Mapping[str, Mapping[int, float]], second: Mapping[str, Mapping[int, float]], names: Sequence[str]
) -> Difference | None:
    """Over the pairs (class and seed) that both setups have."""
    gains = {
        name: {seed: first[name][seed] - second[name][seed] for seed in first[name].keys() & second[name].keys()}
        for name in names
    }
    found = estimate(list(_means(gains, names).values()))
    if found is None:
        return None
    wins, losses = (sum(sign * gain > 0 for by_seed in gains.values() for gain in by_seed.values()) for sign in (1, -1))
    return Difference(found, wins, losses)

"""What a study is: a grid, figures, and claims that are judged by what the grid measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from typing_extensions import Doc

from fewshot_cli.evaluation.correlation import RankCorrelation, spearman
from fewshot_cli.sweeps.cells import Cell
from fewshot_cli.sweeps.measures import MEASURES
from fewshot_cli.sweeps.pivot import Results, value_of
from fewshot_cli.sweeps.summary import Estimate, estimate, mean_by_seed

HOLDS, FAILS, UNCLEAR = "holds", "does not hold", "cannot be told"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim of a source, and what the sweep says of it."""

    claim: Annotated[str, Doc("What the source says.")]
    measured: Annotated[str, Doc("What the sweep measured.")]
    verdict: Annotated[str, Doc(f"`{HOLDS}`, `{FAILS}` or `{UNCLEAR}`.")]


class Lines(NamedTuple):
    """A figure: a measure against an axis, a line for each value of another axis, a panel for each of a third."""

    title: str
    measure: str
    axis: str
    lines: str | None = None
    panels: str | None = None


class Curves(NamedTuple):
    """A figure: mAP on test (and training) images against the iteration, a line a value, a panel a value."""

    title: str
    lines: str
    panels: str | None = None


class Drift(NamedTuple):
    """A figure: mean drift of each convolution against its number, a line for each value of an axis.

    where: which cells: axis → value.
    """

    title: str
    lines: str
    where: Mapping[str, Any]


FigureOf = Lines | Curves | Drift


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A sweep that repeats a publication.

    Attributes:
        source: author, title, year, address.
        preset: fields of SweepConfig.
        measures: what has a table of its own.
        figures: redrawn from the sweep.
        judge: finished cells → what they say of each claim.
    """

    source: str
    preset: Mapping[str, Any]
    measures: tuple[str, ...]
    figures: tuple[FigureOf, ...]
    judge: Callable[[Results], Iterable[Verdict]]
    notes: tuple[str, ...] = field(default=())


def by_seed(results: Results, measure: str, **where: Any) -> dict[int, float]:
    """Seed → mean of a measure over the cells that have these values, for seeds in which all of them are finished.

    Args:
        where: axis → value.
    """
    chosen = {cell: result for cell, result in results.items() if matches(cell, where)}
    values = {cell: MEASURES[measure].of(result) for cell, result in chosen.items()}
    return mean_by_seed((cell.group.seed, _without_seed(cell), value) for cell, value in values.items())


def minus(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """Seed → difference, for the seeds that both have."""
    return {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}


def matches(cell: Cell, where: Mapping[str, Any]) -> bool:
    """Whether a cell has these values: axis → value."""
    return all(value_of(cell, axis) == value for axis, value in where.items())


def values_of(results: Results, axis: str) -> list[Any]:
    """The values of an axis in the finished cells, numbers in ascending order, others as they come."""
    values = list(dict.fromkeys(value_of(cell, axis) for cell in results))
    return sorted(values) if all(isinstance(value, int | float) for value in values) else values


def higher(claim: str, what: str, difference: Estimate | None, measure: str) -> Verdict:
    """The claim that a difference is above zero: it holds, or does not, where its 95 % interval is on one side."""
    return Verdict(claim, f"{what}: {difference_text(difference, measure)}", sign_of(difference))


def costs_more(claim: str, what: str, first: Mapping[int, float], second: Mapping[int, float]) -> Verdict:
    """The claim that the first costs more than the second: the ratio, whose interval is that of its logarithm.

    Args:
        first, second: seed → seconds or memory.
    """
    shared = sorted(first.keys() & second.keys())
    ratio = estimate([math.log(first[seed] / second[seed]) for seed in shared if min(first[seed], second[seed]) > 0])
    if ratio is None:
        return Verdict(claim, f"{what}: not measured", UNCLEAR)
    text = f"{what}: {math.exp(ratio.mean):.3g}×"
    if ratio.interval and ratio.margin is not None:
        text += f" ({math.exp(ratio.mean - ratio.margin):.3g} to {math.exp(ratio.mean + ratio.margin):.3g})"
    return Verdict(claim, text, sign_of(ratio))


def two_sided(claim: str, what: str, difference: Estimate | None, measure: str) -> Verdict:
    """The claim that a difference is not zero: it holds where its interval is on one side of zero."""
    verdict = UNCLEAR if sign_of(difference) == UNCLEAR else HOLDS
    return Verdict(claim, f"{what}: {difference_text(difference, measure)}", verdict)


def sign_of(difference: Estimate | None) -> str:
    """HOLDS above zero, FAILS below it, UNCLEAR where the interval has zero in it or is that of two seeds."""
    if difference is None or difference.margin is None or not difference.interval:
        return UNCLEAR
    if abs(difference.mean) <= difference.margin:
        return UNCLEAR
    return HOLDS if difference.mean > 0 else FAILS


def difference_text(difference: Estimate | None, measure: str) -> str:
    """`+0.012 ± 0.008`."""
    if difference is None:
        return "not measured"
    digits = MEASURES[measure].digits
    margin = f" ± {difference.margin:.{digits}f}" if difference.interval and difference.margin is not None else ""
    return f"{difference.mean:+.{digits}f}{margin}".replace("-", "−")


def share_text(fraction: float) -> str:
    """`25 %`."""
    return f"{100 * fraction:g} %"


def correlate(
    results: Results, first: Callable[[Cell, Mapping[str, Any]], float | None], second: str
) -> RankCorrelation | None:
    """Rank correlation over the cells between something of each and a measure; None without cells.

    Of both, the mean over a class and seed is taken away first: that one class is harder than another, or one draw,
    says nothing about what is varied.
    """
    pairs: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for cell, result in results.items():
        x, y = first(cell, result), MEASURES[second].of(result)
        if x is not None and y is not None:
            pairs.setdefault((cell.group.seed, cell.group.class_name), []).append((float(x), float(y)))
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for (seed, _), of_class in pairs.items():
        middle_x, middle_y = (statistics.mean(values) for values in zip(*of_class, strict=True))
        by_seed.setdefault(seed, []).extend((x - middle_x, y - middle_y) for x, y in of_class)
    return spearman(by_seed) if by_seed else None


def falls(claim: str, what: str, correlation: RankCorrelation | None) -> Verdict:
    """The claim that the second falls with the first: where the interval of ρ is below zero."""
    if correlation is None or correlation.rho is None:
        return Verdict(claim, f"{what}: not measured", UNCLEAR)
    text = f"ρ = {correlation.rho:+.2f}".replace("-", "−")
    if correlation.interval is None:
        return Verdict(claim, f"{what}: {text}", UNCLEAR)
    low, high = correlation.interval
    text += f" ({low:+.2f} to {high:+.2f})".replace("-", "−")
    return Verdict(claim, f"{what}: {text}", HOLDS if high < 0 else FAILS if low > 0 else UNCLEAR)


def _without_seed(cell: Cell) -> Cell:
    return cell._replace(group=cell.group._replace(seed=0))


def ends(values: Sequence[Any]) -> tuple[Any, Any]:
    """The smallest and the largest."""
    return values[0], values[-1]

"""Drift between detectors: tables for the terminal, and a figure of every convolution."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from fewshot_cli.errors import UsageError
from fewshot_cli.files import write_atomically
from fewshot_cli.paths import check_target, shown
from fewshot_cli.report.tables import three_digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
"""How the name of a figure may end."""
ROUNDING = 1e-12
"""Drift below it is the rounding of weights that kept their direction, such as those of a level without objects."""


def drift_table(document: Mapping[str, Any], *, convolutions: bool) -> Table:
    """One row a layer, or one a convolution, and one column for each detector; three significant digits.

    Args:
        document: that of `verbs.drift`.
    """
    title = f"{document['detector']}: drift from {document['against']}, 1 − |cos(w′, w)|"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    if convolutions:
        table.add_column("number", justify="right")
        table.add_column("convolution", overflow="fold")
    table.add_column("layer", no_wrap=True)
    for name in drift_names(document):
        table.add_column(name, justify="right", overflow="fold")
    for row in _convolution_rows(document) if convolutions else _layer_rows(document):
        table.add_row(*row)
    return table


def _layer_rows(document: Mapping[str, Any]) -> Iterable[list[str]]:
    drifts = [each["layers"] for each in document["drifts"]]
    return ([layer, *(three_digits(drift[layer]) for drift in drifts)] for layer in drifts[0])


def _convolution_rows(document: Mapping[str, Any]) -> Iterable[list[str]]:
    for same in zip(*(each["convolutions"] for each in document["drifts"]), strict=True):
        first = same[0]
        yield [
            str(first["number"]),
            first["name"],
            first["layer"],
            *(three_digits(each["drift"]) for each in same),
        ]


def drift_names(document: Mapping[str, Any]) -> list[str]:
    """What is compared, by the last part of its path; by the whole where two have the same."""
    given = [each["name"] for each in document["drifts"]]
    short = [Path(name).name or name for name in given]
    return short if len(set(short)) == len(short) else given


def check_plot(path: Path, inputs: Sequence[str]) -> Path:
    """The absolute place of a figure, if one can be written there; raises UsageError, DataError."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"--plot {shown(path)}: its name does not say what is written", hint=f"End it in {', '.join(FORMATS)}."
        )
    return check_target(path, inputs)


def write_drift_plot(path: Path, document: Mapping[str, Any]) -> Path:
    """Write the figure in the format that the path ends in; raises StorageError."""
    curves = {
        name: [one["drift"] for one in each["convolutions"]]
        for name, each in zip(drift_names(document), document["drifts"], strict=True)
    }
    figure, kind = drift_figure(curves, document["against"]), path.suffix[1:].lower()
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=150))
    return path


def drift_figure(curves: Mapping[str, Sequence[float | None]], against: str) -> Figure:
    """Drift against the number of the convolution, a line a curve; gaps where nothing turned, or there is no number.

    The axis is logarithmic: at a lower learning rate the backbone moves thousands of times less than the head.

    Args:
        curves: name → drift of each convolution, in input order.
        against: what they have moved from.
    """
    from matplotlib.figure import Figure

    from fewshot_cli.colors import class_color

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    panel = figure.subplots()
    turned = {name: [drift if drift and drift > ROUNDING else math.nan for drift in of] for name, of in curves.items()}
    for place, (name, values) in enumerate(turned.items()):
        numbers = range(1, len(values) + 1)
        panel.plot(numbers, values, ".-", color=class_color(place), linewidth=1.2, markersize=4, label=name)
    panel.set(
        xlabel="convolution, from the input",
        ylabel=f"drift from {against}, 1 − |cos(w′, w)|",
    )
    panel.set_xlim(0, max(map(len, curves.values()), default=0) + 1)
    if not all(math.isnan(drift) for values in turned.values() for drift in values):
        panel.set_yscale("log")
    panel.locator_params(axis="x", integer=True)
    panel.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure

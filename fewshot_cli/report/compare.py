"""Runs beside each other: tables for the terminal, and a page with their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from fewshot_cli.colors import class_color
from fewshot_cli.report.page import write_page
from fewshot_cli.report.plots import compared_plot
from fewshot_cli.report.tables import mean_ap, number, three_digits
from fewshot_cli.verbs.compare import Comparison

HEADER = ("run", "policy", "budget", "α", "seed", "parameters", "mAP", "difference", "AP50", "seconds")


def comparison_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """A row a run, as texts under HEADER."""
    gains = ["–", *map(_gain, document["differences"])]
    return [
        [
            run["name"],
            run["policy"] if run["freeze_first"] is None else f"{run['policy']}, freeze-first {run['freeze_first']}",
            str(run["budget"] or "–"),
            f"{run['alpha']:g}",
            str(run["seed"]),
            f"{run['parameters']:,}",
            mean_ap(run),
            gain,
            number(run["ap50"]),
            f"{run['seconds']:.0f}",
        ]
        for run, gain in zip(document["runs"], gains, strict=True)
    ]


def _gain(difference: Mapping[str, Any]) -> str:
    """The difference of the mAPs, and its 95 % interval over the test images where there is one."""
    interval = difference["ap_interval"]
    ends = f" ({signed(interval[0])} to {signed(interval[1])})" if interval else ""
    return signed(difference["ap"]) + ends


def comparison_tables(document: Mapping[str, Any]) -> list[Table]:
    """What was measured; AP by class where there are several; how far the layers are apart."""
    names = [run["name"] for run in document["runs"]]
    tables = [_table(HEADER, comparison_rows(document))]
    if len(document["classes"]) > 1:
        tables.append(_table(("AP by class", *names), class_rows(document)))
    if drift_rows(document):
        tables.append(_table((f"drift from {names[0]}", *names[1:]), drift_rows(document)))
    return tables


def class_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """Class by class, the AP of the first run, and that of the others with its difference."""
    first, *others = (run["per_class"] for run in document["runs"])
    gains = [each["per_class"] for each in document["differences"]]
    return [
        [name, number(first[name])]
        + [f"{number(of.get(name))} ({signed(gain.get(name))})" for of, gain in zip(others, gains, strict=True)]
        for name in first
    ]


def drift_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """Layer by layer, 1 − |cos| to the first run; layers that are the same in all runs are left out."""
    drifts = [each["drift"] or {} for each in document["differences"]]
    layers = dict.fromkeys(layer for drift in drifts for layer, value in drift.items() if value > 0)
    return [[layer, *(three_digits(drift.get(layer)) for drift in drifts)] for layer in layers]


def signed(gain: float | None) -> str:
    """`+0.012`, `−0.040`; a dash where there is no difference to speak of."""
    return "–" if gain is None else f"{gain:+.3f}".replace("-", "−")


def write_comparison(path: Path, comparison: Comparison) -> Path:
    """Write the page; raises StorageError, and DataError where a run's metrics cannot be read."""
    document = comparison.to_json()
    curves = {name: run.read_metrics() for name, run in zip(comparison.names, comparison.runs, strict=True)}
    write_page(
        path,
        "compare.html",
        document=document,
        names=comparison.names,
        colors={name: class_color(place) for place, name in enumerate(document["classes"])},
        header=HEADER,
        rows=comparison_rows(document),
        by_class=class_rows(document) if len(document["classes"]) > 1 else [],
        drift=drift_rows(document),
        plot=compared_plot(curves),
    )
    return path


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table

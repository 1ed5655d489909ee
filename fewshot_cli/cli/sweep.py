"""`fsod sweep`: a grid of fine-tunes, run, continued and summed up in tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typing_extensions import Doc, TypedDict

from fewshot_cli.cli.console import Console, note_on_interrupt
from fewshot_cli.cli.options import Config, Json, Quiet, Threads
from fewshot_cli.errors import UsageError
from fewshot_cli.panels import LAYERS, MACHINE
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.schemas import schema_of
from fewshot_cli.settings import Field, fields_of, shown, typed
from fewshot_cli.sweeps.axes import drawing_fields, parse_axes
from fewshot_cli.sweeps.config import SweepConfig
from fewshot_cli.sweeps.engines import get_engine
from fewshot_cli.sweeps.studies import STUDIES

if TYPE_CHECKING:
    from fewshot_cli.sweeps.run import SweepResult


class PlannedCell(TypedDict):
    """A cell of the grid."""

    cell: Annotated[str, Doc("Which.")]
    done: Annotated[bool, Doc("Whether it is finished.")]


class SweepPlan(TypedDict):
    """What `fsod sweep --dry-run --json` prints."""

    schema: Annotated[Literal["fsod/sweep-plan/1"], Doc("Kind and version.")]
    cells: Annotated[list[PlannedCell], Doc("In order.")]
    missing: Annotated[int, Doc("How many are not finished.")]
    seconds: Annotated[float, Doc("That these take in one process, estimated.")]


def _field(name: str, *flags: str, default: str | None = None) -> Any:
    """The option of a field of SweepConfig.

    Its default is part of the help text: the option itself is None unless given, so that a preset can set the field.
    """
    field = fields_of(SweepConfig)[name]
    shown = default or _shown(field.default)
    text = f"{field.option.help} Default: {shown}." if shown else field.option.help
    return typer.Option(*flags, metavar=field.option.metavar, help=text, rich_help_panel=field.option.panel)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return str(default) if isinstance(default, str | int) else ""


def sweep(
    classes: Annotated[list[str] | None, _field("classes", "--class")] = None,
    source: Annotated[str | None, _field("source")] = None,
    test_source: Annotated[str | None, _field("test_source")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Ready-made grid: table1, or a study: {', '.join(STUDIES)}. Other options take precedence.",
            rich_help_panel=LAYERS,
        ),
    ] = None,
    policies: Annotated[list[str] | None, _field("policies", "--policy")] = None,
    budgets: Annotated[list[str] | None, _field("budgets", "--budget")] = None,
    layers: Annotated[list[str] | None, _field("layers", "--layers")] = None,
    shots: Annotated[list[int] | None, _field("shots")] = None,
    seeds: Annotated[int | None, _field("seeds")] = None,
    draw_seed: Annotated[int | None, _field("draw_seed")] = None,
    detectors: Annotated[
        list[str] | None, _field("detectors", "--detector", default="the one made for the source, else yolox_nano")
    ] = None,
    weights: Annotated[str | None, _field("weights")] = None,
    baselines: Annotated[bool | None, _field("baselines", "--baselines/--no-baselines")] = None,
    test_images: Annotated[int | None, _field("test_images")] = None,
    options: Annotated[list[str] | None, _field("options", "--set")] = None,
    fetch_options: Annotated[list[str] | None, _field("fetch_options", "--fetch-set")] = None,
    eval_every: Annotated[int | None, _field("eval_every")] = None,
    vary: Annotated[list[str] | None, _field("vary")] = None,
    rows: Annotated[str | None, _field("rows")] = None,
    columns: Annotated[str | None, _field("columns")] = None,
    panels: Annotated[list[str] | None, _field("panels", "--panel")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=MACHINE)] = "auto",
    threads: Threads = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Engine local: processes at a time on this machine. Default: 1.", rich_help_panel=MACHINE),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Where cells run: local, or ray: nodes of a cluster that see the folder.", rich_help_panel=MACHINE
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Engine ray: address of the cluster, auto or HOST:PORT. Default: this machine alone.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share/--no-share", help="Share cached features among cells with the same cut.", rich_help_panel=MACHINE
        ),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run/--no-dry-run",
            help="List the cells and estimate the time of the missing ones; run none.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the sweep; finished cells in it are not run again.")] = Path(
        "sweep"
    ),
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune over a grid of classes, policies, budgets, shots, seeds and other options; compare them in tables."""
    console = Console(json=json, quiet=quiet)
    if not classes:
        raise UsageError("no class is given", hint="Give --class NAME, once for each class.")
    if source is None:
        raise UsageError("no source is given", hint="Give --source miniature, or --source 'coco:my/{class}/pool'.")
    asked = {
        "source": source,
        "preset": preset,
        "test_source": test_source,
        "policies": policies,
        "budgets": budgets,
        "layers": layers,
        "shots": shots,
        "seeds": seeds,
        "draw_seed": draw_seed,
        "detectors": detectors,
        "weights": weights,
        "baselines": baselines,
        "test_images": test_images,
        "eval_every": eval_every,
        "options": _parsed("--set", options, fields_of(FinetuneConfig)),
        "vary": parse_axes(vary or []),
        "rows": rows,
        "columns": columns,
        "panels": panels,
        "fetch_options": _parsed("--fetch-set", fetch_options, drawing_fields() if fetch_options else {}),
    }
    grid: dict[str, Any] = {name: value for name, value in asked.items() if value not in (None, [], {})}
    if dry_run:
        get_engine(engine, jobs=jobs, address=address)  # refused now as it would be later
        _show_plan(console, out, device, threads, classes, grid)
        return
    from fewshot_cli.sweeps.run import sweep as run_sweep

    note_on_interrupt("The same command continues the sweep.")
    result = run_sweep(
        classes,
        **grid,
        out=out,
        engine=engine,
        jobs=jobs,
        address=address,
        share=share,
        device=device,
        threads=threads,
        reporter=console,
    )
    _show(console, result)
    if result.causes:
        raise typer.Exit(result.causes[0].exit_code)


def _parsed(flag: str, options: list[str] | None, known: Mapping[str, Field]) -> dict[str, Any]:
    """`lr=0.004` as a name and a value of the type that the option has."""
    texts = {}
    for option in options or []:
        name, found, value = option.partition("=")
        if not found:
            raise UsageError(f"{flag} {shown(option)} has no value", hint=f"Write {flag} NAME=VALUE.")
        texts[name] = value
    return typed(texts, known)


def _show_plan(
    console: Console, out: Path, device: str, threads: int | None, classes: list[str], grid: dict[str, Any]
) -> None:
    """Every cell, finished or missing, and the time of the missing ones, from finished cells or from trial runs."""
    from fewshot_cli.sweeps.folder import SweepFolder, remaining_seconds
    from fewshot_cli.sweeps.forecast import forecast
    from fewshot_cli.sweeps.presets import configure
    from fewshot_cli.sweeps.requests import check_cells
    from fewshot_cli.sweeps.run import check_sources

    folder = SweepFolder(out, configure(classes, **grid))
    check_cells(folder.config, device)
    check_sources(folder.config)
    missing = folder.missing()
    cells = [{"cell": str(cell), "done": cell not in missing} for cell in folder.grid.cells()]
    seconds = remaining_seconds(folder)
    if seconds is None:
        seconds = forecast(folder, device=device, threads=threads, reporter=console)
    console.result(
        {"schema": schema_of(SweepPlan), "cells": cells, "missing": len(missing), "seconds": seconds},
        *(f"{'done   ' if cell['done'] else 'missing'}  {cell['cell']}" for cell in cells),
        f"{len(cells)} cells, {len(missing)} missing: about {seconds / 60:.0f} min in one process",
    )


def _show(console: Console, result: SweepResult) -> None:
    from fewshot_cli.report.sweep import write_report
    from fewshot_cli.report.table1 import LEGEND, rich_differences, rich_table

    for cause in result.causes:
        console.warn(f"{cause}. {cause.hint}" if cause.hint else str(cause))
    if not result.results:
        console.result({**result.to_json(), "files": []}, "No cell is finished, so there is no table.")
        return
    files = write_report(result.folder, result.summaries, result.results)
    if result.pivots:
        _show_axes(console, result, files)
        return
    console.result(
        {**result.to_json(), "files": [str(file) for file in files]},
        *(rich_table(summary) for summary in result.summaries),
        *dict.fromkeys(text for summary in result.summaries for text in summary.caveats),
        LEGEND,
        *(rich_differences(summary) for summary in result.summaries if summary.comparisons),
        f"Written: {', '.join(str(file) for file in files)}",
    )


def _show_axes(console: Console, result: SweepResult, files: list[Path]) -> None:
    """The tables of a sweep over further axes, and the claims of a study."""
    from fewshot_cli.report.pivot import LEGEND, rich_table

    console.result(
        {**result.to_json(), "files": [str(file) for file in files]},
        *(rich_table(pivot) for pivot in result.pivots),
        LEGEND,
        *(f"{claim.verdict}: {claim.claim} ({claim.measured})" for claim in result.claims),
        f"Written: {', '.join(str(file) for file in files)}",
    )

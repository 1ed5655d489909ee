"""`fsod sweep`: the grid of fine-tunes behind a table, run, resumed and summed up."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_cli.cli.console import Console, note_on_interrupt
from fewshot_cli.cli.options import Config, Json, Quiet
from fewshot_cli.errors import UsageError, closest

if TYPE_CHECKING:
    from fewshot_cli.sweeps.engine import Failure, Sweep
    from fewshot_cli.sweeps.grid import SweepConfig

ENGINES = ("local", "ray")


def sweep(
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Class; each is fine-tuned on its own.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="As of fetch, e.g. miniature, or coco:my/{class}/pool: {class} is the class."
        ),
    ] = None,
    test_source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Where test images come from, as of fetch.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="table1: the paper's seven setups, 10 shots, 5 seeds; other options overrule it.")
    ] = None,
    policies: Annotated[
        list[str] | None, typer.Option("--policy", help="Where budgets go; default: last and symmetric.")
    ] = None,
    budgets: Annotated[list[int] | None, typer.Option("--budget", help="Head layers; default: 1 2 3 4.")] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Training images; default: 10.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds 0, 1, …; default: 5.")] = None,
    detectors: Annotated[
        list[str] | None,
        typer.Option("--detector", help="Default: the one made for the source, else yolox_nano."),
    ] = None,
    weights: Annotated[str, typer.Option(help="default (COCO), imagenet, none, or a file.")] = "default",
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Run none, all and full beside the policies.")
    ] = True,
    test_images: Annotated[int, typer.Option(help="Test images at most.")] = 100,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of finetune for every cell.")
    ] = None,
    fetch_options: Annotated[
        list[str] | None,
        typer.Option("--fetch-set", metavar="NAME=VALUE", help="An option of fetch for every data set, as mirror=URL."),
    ] = None,
    eval_every: Annotated[int, typer.Option(help="Iterations between two points of a curve; 0: only the end.")] = 50,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time, on this machine.")] = 1,
    engine: Annotated[str, typer.Option(help="local, or ray: the nodes of a cluster that share the folder.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster: auto, or HOST:PORT; default: this machine alone.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share/--no-share", help="Cells with the same cut share cached features.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", help="List the cells and the time they take.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the sweep; what is done there is not done again.")] = Path(
        "sweep"
    ),
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune over a grid of classes, policies, budgets, shots and seeds, and put the paper's Table I together."""
    console = Console(json=json, quiet=quiet)
    if not classes:
        raise UsageError("no class is named", hint="Give --class NAME, once for each class.")
    if source is None:
        raise UsageError("no source is named", hint="Give --source miniature, or --source 'coco:my/{class}/pool'.")
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}", hint=closest(engine, ENGINES))
    if address and engine != "ray":
        raise UsageError("--address is that of a Ray cluster", hint="Add --engine ray.")
    from fewshot_cli.sources.registry import default_detector
    from fewshot_cli.sweeps.engine import open_sweep, run_sweep
    from fewshot_cli.sweeps.grid import SweepConfig

    given = {
        "policies": policies,
        "budgets": budgets,
        "shots": shots,
        "seeds": seeds,
        "detectors": detectors or [default_detector(source) or "yolox_nano"],
    }
    wanted = SweepConfig(
        classes=tuple(classes),
        source=source,
        test_source=test_source,
        weights=weights if weights in ("default", "imagenet", "none") else str(Path(weights).resolve()),
        baselines=baselines,
        test_images=test_images,
        eval_every=eval_every,
        options=_parsed("--set", options or []),
        fetch_options=_parsed("--fetch-set", fetch_options or []),
        **{**_preset(preset), **{name: value for name, value in given.items() if value is not None}},
    )
    if dry_run:
        _show_plan(console, out, wanted, device)
        return
    opened = open_sweep(out, wanted)
    note_on_interrupt("The same command goes on where it was.")
    failures = run_sweep(
        opened, engine=engine, address=address, jobs=jobs, share=share, device=device, reporter=console
    )
    _report(console, opened, failures)
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _preset(name: str | None) -> dict[str, Any]:
    from fewshot_cli.sweeps.grid import PRESETS

    if name is None:
        return {}
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}", hint=closest(name, PRESETS))
    return PRESETS[name]


def _parsed(flag: str, options: list[str]) -> dict[str, Any]:
    """`lr=0.004` by name; a word that is no JSON stands for itself."""
    parsed: dict[str, Any] = {}
    for option in options:
        name, found, value = option.partition("=")
        if not found:
            raise UsageError(f"{flag} {option!r} has no value", hint=f"Write {flag} NAME=VALUE.")
        try:
            parsed[name.replace("-", "_")] = json_module.loads(value)
        except ValueError:
            parsed[name.replace("-", "_")] = value
    return parsed


def _show_plan(console: Console, folder: Path, config: SweepConfig, device: str) -> None:
    """Every cell, done or missing, and how long the missing ones take: as those that are done, else by a rehearsal."""
    from fewshot_cli.sweeps.engine import Sweep, remaining_seconds
    from fewshot_cli.sweeps.forecast import forecast

    planned = Sweep(folder, config)
    missing = planned.missing()
    cells = [{"cell": str(cell), "done": planned.run(cell).finished} for cell in config.cells()]
    seconds = remaining_seconds(planned)
    if seconds is None:
        seconds = forecast(planned, device=device, reporter=console)
    console.result(
        {"cells": cells, "missing": len(missing), "seconds": seconds},
        *(f"{'done   ' if cell['done'] else 'missing'}  {cell['cell']}" for cell in cells),
        f"{len(cells)} cells, {len(missing)} missing: about {seconds / 60:.0f} min in one process",
    )


def _report(console: Console, opened: Sweep, failures: list[Failure]) -> None:
    from fewshot_cli.report.sweep import write_report
    from fewshot_cli.report.table1 import LEGEND, rich_differences, rich_table, to_json
    from fewshot_cli.sweeps.summary import summarize

    for failure in failures:
        console.warn(f"{failure.cell}: {failure.message}")
    summaries = summarize(opened.results())
    files = write_report(opened, summaries)
    console.result(
        {
            "folder": str(opened.folder),
            "tables": [to_json(summary) for summary in summaries],
            "failures": [{"cell": str(f.cell), "message": f.message, "exit_code": f.exit_code} for f in failures],
            "files": [str(file) for file in files],
        },
        *(rich_table(summary) for summary in summaries),
        LEGEND if summaries else "No cell is finished.",
        *(rich_differences(summary) for summary in summaries if summary.comparisons),
        f"Written: {', '.join(str(file) for file in files)}",
    )

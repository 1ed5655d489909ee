"""`fsod finetune`: train the head layers that a policy chooses, and evaluate the detector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet, Threads
from fewshot_cli.cli.parameters import takes
from fewshot_cli.errors import UsageError
from fewshot_cli.panels import OUTPUT
from fewshot_cli.runs.config import FinetuneConfig as Defaults

if TYPE_CHECKING:
    from fewshot_cli.runs.folder import Run

_WITH_RESUME = {"resume", "report", "json", "quiet"}


@takes(Defaults, optional=("data", "detector", "policy"))
def finetune(
    context: typer.Context,
    threads: Threads = None,
    runs: Annotated[
        Path, typer.Option(help="Folder in which the run's own folder is made.", rich_help_panel=OUTPUT)
    ] = Path("runs"),
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the run's folder; default: from data, detector, policy and seed.", rich_help_panel=OUTPUT
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Write report.html into the run's folder.", rich_help_panel=OUTPUT),
    ] = True,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Continue a stopped run, with the options it was started with.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train the layers that a policy chooses, on cached features of everything before them."""
    console = Console(json=json, quiet=quiet)
    from fewshot_cli.verbs.finetune import finetune as run_finetune
    from fewshot_cli.verbs.finetune import resume as run_resume

    if resume is not None:
        _refuse_other_options(context)
        done = run_resume(resume, reporter=console)
    else:
        done = run_finetune(runs=runs, name=name, threads=threads, reporter=console, **options)
    lines = _write_report(done, report)
    tested = done.result["ap"] is not None
    lines += [f"Next: fsod eval {done.folder}" if tested else f"Next: fsod predict {done.folder} IMAGES"]
    console.result(done.result, lambda: _table(done.result), *lines)


def _write_report(run: Run, wanted: bool) -> list[str]:
    """Write the page of a finished run, unless it is there; returns what to say of it."""
    if not wanted:
        return []
    from fewshot_cli.report.run import write_run_report

    page = run.report_file if run.report_file.exists() else write_run_report(run)
    return [f"Images and curves: {page}"]


def _refuse_other_options(context: typer.Context) -> None:
    given = [name for name in context.params if name not in _WITH_RESUME and _was_given(context, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"--resume continues with the options the run was started with; {options} cannot change now",
            hint="Start a new run for other options.",
        )


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _table(result: dict[str, Any]) -> object:
    from fewshot_cli.report.tables import result_table

    return result_table(result)

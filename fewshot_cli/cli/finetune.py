"""`fsod finetune`: train the head layers that a policy chooses, and evaluate the detector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_cli.cli.console import Console, note_on_interrupt
from fewshot_cli.cli.options import Config, Json, Quiet, Threads
from fewshot_cli.cli.parameters import takes
from fewshot_cli.errors import FsodError, UsageError
from fewshot_cli.runs.config import FinetuneConfig as Defaults

if TYPE_CHECKING:
    from fewshot_cli.runs.folder import Run

_WITH_RESUME = {"resume", "report", "json", "quiet"}
_OUTPUT = "Output"


@takes(Defaults, optional=("data", "detector"))
def finetune(
    context: typer.Context,
    threads: Threads = None,
    runs: Annotated[
        Path, typer.Option(help="Folder in which the run's own folder is made.", rich_help_panel=_OUTPUT)
    ] = Path("runs"),
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the run's folder; default: from data, detector, policy and seed.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Write report.html into the run's folder.", rich_help_panel=_OUTPUT),
    ] = True,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a stopped run, with the options it was started with.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train the layers that a policy chooses, on cached features of everything before them."""
    console = Console(json=json, quiet=quiet)
    if resume is not None:
        _refuse_other_options(context)
        result = _resume(resume, console)
        console.result(result, lambda: _table(result), *_write_report(resume, report))
        return
    result = _start({**options, "threads": threads}, runs, name, console)
    lines = _write_report(Path(result["run"]), report)
    console.result(result, lambda: _table(result), *lines, f"Next: fsod eval {result['run']}")


def _write_report(folder: Path, wanted: bool) -> list[str]:
    """Write the page of a finished run, unless it is there; returns what to say of it."""
    if not wanted:
        return []
    from fewshot_cli.report.run import write_run_report
    from fewshot_cli.runs.folder import Run

    run = Run(folder)
    page = run.report_file if run.report_file.exists() else write_run_report(run)
    return [f"Images and curves: {page}"]


def _start(options: dict[str, Any], runs: Path, name: str | None, console: Console) -> dict[str, Any]:
    from fewshot_cli.detectors.registry import WEIGHT_NAMES, get_spec
    from fewshot_cli.runs.config import FinetuneConfig, with_budget

    # Wrong options are reported before anything is loaded.
    FinetuneConfig(**{**options, "data": options["data"] or "", "detector": options["detector"] or ""})
    from fewshot_cli.datasets.store import latest_dataset, recorded_detector

    if options["data"] is None:
        options["data"] = str(latest_dataset().path)
        console.say(f"Data set: {options['data']}, the most recently fetched one.")
    if options["detector"] is None:
        options["detector"] = recorded_detector(Path(options["data"])) or Defaults.detector
    # Whole paths, so that the run can be measured and resumed from any folder.
    options["data"] = str(Path(options["data"]).resolve())
    if options["weights"] not in WEIGHT_NAMES:
        options["weights"] = str(Path(options["weights"]).resolve())
    config = with_budget(FinetuneConfig(**options), get_spec(options["detector"]).head_depth, console)
    from fewshot_cli.runs.folder import new_run
    from fewshot_cli.training.finetune import select_layers

    select_layers(config)
    run = new_run(runs, name, run_stem(config))
    try:
        run.write_config(config)
        return _run(config, run, console)
    except FsodError:
        # E.g. weights that do not load: nothing was begun, so nothing is left lying about.
        run.discard_if_bare()
        raise


def _resume(folder: Path, console: Console) -> dict[str, Any]:
    from fewshot_cli.runs.folder import open_run

    run = open_run(folder)
    if run.finished:
        console.say(f"{folder} is finished already.")
        return run.read_result()
    return _run(run.read_config(), run, console)


def _run(config: Defaults, run: Run, console: Console) -> dict[str, Any]:
    from fewshot_cli.training.finetune import finetune as run_finetune

    console.say(f"Run: {run.folder}")
    note_on_interrupt(f"Go on with: fsod finetune --resume {run.folder}")
    return run_finetune(config, run, console)


def run_stem(config: Defaults) -> str:
    """The default name of a run: data set, detector, policy, budget and seed."""
    spent = f"{config.policy}{config.budget or ''}"
    return f"{Path(config.data).resolve().name}-{config.detector}-{spent}-seed{config.seed}"


def _refuse_other_options(context: typer.Context) -> None:
    given = [name for name in context.params if name not in _WITH_RESUME and _was_given(context, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"--resume goes on with the options the run was started with; {options} cannot change now",
            hint="Start a new run for other options.",
        )


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _table(result: dict[str, Any]) -> object:
    from fewshot_cli.report.tables import result_table

    return result_table(result)

"""`fsod report`: the page of a run or a sweep, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typing_extensions import Doc, TypedDict

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet
from fewshot_cli.schemas import schema_of


class Reported(TypedDict):
    """What `fsod report --json` prints."""

    schema: Annotated[Literal["fsod/report/1"], Doc("Kind and version.")]
    page: Annotated[str, Doc("The page.")]


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run, or of a sweep.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page; default: report.html in that folder.")
    ] = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the page of a run or a sweep again, e.g. with a newer fsod."""
    console = Console(json=json, quiet=quiet)
    from fewshot_cli.sweeps.folder import CONFIG

    page = _of_sweep(run, out) if (run / CONFIG).is_file() else _of_run(run, out)
    console.result({"schema": schema_of(Reported), "page": str(page)}, f"Written: {page}")


def _of_run(folder: Path, out: Path | None) -> Path:
    from fewshot_cli.report.run import write_run_report
    from fewshot_cli.runs.folder import load_run

    return write_run_report(load_run(folder), out)


def _of_sweep(folder: Path, out: Path | None) -> Path:
    from fewshot_cli.report.sweep import write_page_of
    from fewshot_cli.sweeps.folder import read_sweep
    from fewshot_cli.sweeps.summary import summarize

    sweep = read_sweep(folder)
    results = dict(sweep.results())
    return write_page_of(sweep, summarize(results.items()), results, out)

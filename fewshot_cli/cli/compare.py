"""`fsod compare`: runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Two runs or more, or cells of a sweep; the first is the baseline."),
    ],
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the learning curves.")] = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs on the same test images: mAP, AP by class, and how far their layers are apart."""
    console = Console(json=json, quiet=quiet)
    from fewshot_cli.verbs.compare import compare as run_compare

    comparison = run_compare(*runs)
    document = comparison.to_json()
    from fewshot_cli.report.compare import comparison_tables, write_comparison

    if page is not None:
        document["page"] = str(write_comparison(page, comparison))
    caveats = dict.fromkeys(caveat for run in document["runs"] for caveat in run["caveats"])
    written = [f"Written: {page}"] if page is not None else []
    console.result(document, *comparison_tables(document), *caveats, *written)

"""Options that several subcommands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.cli import config_file


def _use_config(context: typer.Context, value: Path | None) -> Path | None:
    if value is not None and not context.resilient_parsing:
        config_file.apply(value, context)
    return value


def parse_threads(text: str) -> int | None:
    """A positive number, or None for `auto`; raises BadParameter for anything else."""
    if text == "auto":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither auto nor a positive integer.")


# A switch has its opposite too, so that the command line can overrule a configuration file.
Json = Annotated[
    bool,
    typer.Option(
        "--json/--no-json",
        show_default=False,
        help="Print one JSON document on stdout, and nothing else there.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet/--no-quiet",
        "-q",
        show_default=False,
        help="No progress and no remarks on stderr, only warnings and errors.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read options from a TOML file, or from a run's config.json; the command line has precedence.",
        is_eager=True,  # before the others, because it changes their defaults
        callback=_use_config,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="auto|N",
        parser=parse_threads,
        show_default="auto",
        help="Threads that compute on the CPU; auto: one for each core that is free when the command starts.",
        rich_help_panel="Speed and memory",
    ),
]

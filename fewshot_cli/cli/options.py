"""Options that several subcommands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.cli import config_file
from fewshot_cli.errors import ConfigError, closest
from fewshot_cli.runs.config import OPERATIONS


def _use_config(context: typer.Context, value: Path | None) -> Path | None:
    if value is not None and not context.resilient_parsing:
        config_file.apply(value, context)
    return value


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
        help="No progress and no remarks on stderr; warnings stay.",
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


def parse_ops(text: str) -> tuple[str, ...]:
    """`flip,color` as a tuple, in the order they are applied; raises ConfigError for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in OPERATIONS:
            raise ConfigError(f"unknown augmentation {name!r} in --ops", hint=closest(name, OPERATIONS))
    return tuple(name for name in OPERATIONS if name in names)

"""Options that several subcommands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.augmentation.config import OPERATIONS
from fewshot_cli.cli import config_file


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

Ops = Annotated[str, typer.Option(help=f"Augmentations, separated by commas: {', '.join(OPERATIONS)}; empty for none.")]
Positive = Annotated[float, typer.Option(help="Share of the variants that are crops around an instance, 0 to 1.")]
Flip = Annotated[float, typer.Option(help="Share of the variants that are mirrored, 0 to 1.")]
Rotate = Annotated[float, typer.Option(help="Largest turn to either side, degrees.")]
Stretch = Annotated[float, typer.Option(help="Largest change of width over height, a factor from 1.")]
Scale = Annotated[tuple[float, float], typer.Option(help="Smallest and largest zoom, two numbers.")]
Color = Annotated[float, typer.Option(help="Change of brightness, contrast and saturation, 0 to 1.")]

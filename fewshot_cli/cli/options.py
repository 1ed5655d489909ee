"""Options that several subcommands share, each defined once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.bounds import IMAGE_SIZE, THREADS
from fewshot_cli.cli import config_file
from fewshot_cli.panels import DETECTIONS, DETECTOR, MACHINE
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.settings import fields_of, shown


def _use_config(context: typer.Context, value: Path | None) -> Path | None:
    if value is not None and not context.resilient_parsing:
        config_file.apply(value, context)
    return value


def parse_threads(text: str) -> int | None:
    """A number of threads, or None for `auto`; raises BadParameter for anything else."""
    if text == "auto":
        return None
    with suppress(ValueError):  # no integer, or one with thousands of digits
        if THREADS.least <= (threads := int(text)) <= THREADS.most:
            return threads
    raise typer.BadParameter(f"{shown(text)} is neither auto nor {THREADS}.")


# A switch has its opposite too, so that the command line can overrule a configuration file.
Json = Annotated[
    bool,
    typer.Option(
        "--json/--no-json",
        show_default=False,
        help="Print one JSON document on stdout, and nothing else.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet/--no-quiet",
        "-q",
        show_default=False,
        help="No progress and no remarks, only warnings and errors.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Options from a TOML file or a run's config.json; the command line has precedence.",
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
        help="Threads that compute on the CPU; auto: one for each free core.",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[str, typer.Option(help=fields_of(FinetuneConfig)["device"].option.help, rich_help_panel=MACHINE)]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|fp32|bf16",
        help="Number format of convolutions; auto: as in training, else bf16 where it is faster.",
        rich_help_panel=MACHINE,
    ),
]

# What `inference.opening` opens.
RunOrFile = Annotated[
    Path | None,
    typer.Argument(help="A run's folder, a checkpoint or a weights file; default: the run finished last."),
]
Detector = Annotated[
    str | None,
    typer.Option(help="A pretrained detector, with its base classes, instead of a run.", rich_help_panel=DETECTOR),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights of --detector, or where a run's base weights are now.", rich_help_panel=DETECTOR),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="With --detector: side of the square canvas, pixels.", **IMAGE_SIZE.limits, rich_help_panel=DETECTOR
    ),
]
Refine = Annotated[
    str | None,
    typer.Option(
        metavar="clip[:WEIGHTS]",
        help="Refine scores by comparing crops with class names; WEIGHTS: of the run, else as `--distil` takes them.",
        rich_help_panel=DETECTIONS,
    ),
]
RefineTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="With --refine: prompt for a class, {} for its name, several separated by |; default: a photo of a {}.",
        rich_help_panel=DETECTIONS,
    ),
]
RefineWeight = Annotated[
    str | None,
    typer.Option(
        metavar="auto|0…1",
        help="With --refine: its weight in the score; default: auto, that which the run chose on left-out shots.",
        rich_help_panel=DETECTIONS,
    ),
]
Best = Annotated[
    bool,
    typer.Option(
        "--best/--last", help="The checkpoint with the best test mAP, or the last one.", rich_help_panel=DETECTOR
    ),
]

"""`fsod demo`: the whole tool offline, in about a minute, with images to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.bounds import SEED
from fewshot_cli.cli.console import Console, note_on_interrupt
from fewshot_cli.cli.options import Config, Json, Quiet, Threads


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and the page.")] = Path("fsod-demo"),
    seed: Annotated[
        int, typer.Option(help="Random seed for training images, variants and batch order.", **SEED.limits)
    ] = 0,
    threads: Threads = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Adapt the embedded detector to a class that it does not know: fetch, augment, three fine-tunes, eval, a page."""
    console = Console(json=json, quiet=quiet)
    note_on_interrupt("The same command continues where it was.")
    from fewshot_cli.demo import run_demo
    from fewshot_cli.report.tables import demo_table

    result = run_demo(out, seed=seed, threads=threads, reporter=console)
    console.result(
        result.to_json(),
        lambda: demo_table(result.rows),
        f"One draw of ten images: a demonstration, not a comparison. Images: {result.page}\n",
        "The same by hand:\n",
        *(f"  {line}" for line in result.commands),
        "\nYour own labelled images, in any known format (the first fine-tune downloads a detector's weights):\n",
        "  fsod fetch --source my_photos --class NAME --shots 10",
        "  fsod finetune",
    )

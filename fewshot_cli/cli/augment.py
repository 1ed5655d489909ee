"""`fsod augment`: the variants that `finetune` trains on, written out as a COCO data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet, parse_ops
from fewshot_cli.runs.config import FinetuneConfig as Defaults


def augment(
    data: Annotated[
        Path | None, typer.Argument(help="Data set folder; default: the most recently fetched one under ./data.")
    ] = None,
    copies: Annotated[int, typer.Option(min=1, help="Pictures per shot, the original included.")] = Defaults.copies,
    ops: Annotated[str, typer.Option(help="Augmentations, separated by commas.")] = ",".join(Defaults.ops),
    seed: Annotated[int, typer.Option(help="Of the variants.")] = Defaults.seed,
    out: Annotated[Path | None, typer.Option(help="The new data set; default: DATA-augmented.")] = None,
    force: Annotated[bool, typer.Option("--force/--no-force", help="Replace a data set at --out.")] = False,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a data set with variants of its training pictures; `finetune` augments by itself with the same code."""
    console = Console(json=json, quiet=quiet)
    operations = parse_ops(ops)
    from fewshot_cli.data.augmented import augment as run_augment
    from fewshot_cli.data.store import latest_dataset

    source = data or latest_dataset().path
    if data is None:
        console.say(f"Data set: {source}, the most recently fetched one.")
    made = run_augment(source, out, copies=copies, operations=operations, seed=seed, force=force, reporter=console)
    boxes = sum(len(picture.boxes) for picture in made.train.pictures)
    images = {"train": len(made.train.pictures), "test": len(made.test.pictures)}
    console.result(
        {"path": str(made.path), "source": str(source), "images": images, "train_boxes": boxes},
        f"{made.path} written: {images['train']} training images with {boxes} boxes, {images['test']} test images.",
        f"Next: fsod finetune --data {made.path} --policy symmetric --budget 3",
    )

"""`fsod augment`: the variants that `finetune` trains on, written out as a COCO data set, and a sheet to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.augmentation.config import Augmentation, parse_ops
from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Color, Config, Flip, Json, Ops, Positive, Quiet, Rotate, Scale, Stretch
from fewshot_cli.runs.config import LARGEST_COUNTS
from fewshot_cli.runs.config import FinetuneConfig as Defaults


def augment(
    data: Annotated[
        Path | None, typer.Argument(help="Data set folder; default: the most recently fetched one under ./data.")
    ] = None,
    copies: Annotated[
        int, typer.Option(min=1, max=LARGEST_COUNTS["copies"], help="Images per shot, the original included.")
    ] = Defaults.copies,
    ops: Ops = ",".join(Defaults.ops),
    positive: Positive = Defaults.positive,
    flip: Flip = Defaults.flip,
    rotate: Rotate = Defaults.rotate,
    stretch: Stretch = Defaults.stretch,
    scale: Scale = Defaults.scale,
    color: Color = Defaults.color,
    seed: Annotated[int, typer.Option(help="Of the variants.")] = Defaults.seed,
    out: Annotated[Path | None, typer.Option(help="The new data set; default: DATA-augmented.")] = None,
    preview: Annotated[
        bool,
        typer.Option("--preview/--no-preview", help="Write the contact sheet alone, beside where the data set goes."),
    ] = False,
    force: Annotated[bool, typer.Option("--force/--no-force", help="Replace a data set at --out.")] = False,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a data set with variants of its training images; `finetune` augments by itself with the same code."""
    console = Console(json=json, quiet=quiet)
    augmentation = Augmentation(
        ops=parse_ops(ops), positive=positive, flip=flip, rotate=rotate, stretch=stretch, scale=scale, color=color
    )
    from fewshot_cli.augmentation.dataset import augment as run_augment
    from fewshot_cli.augmentation.dataset import default_target
    from fewshot_cli.datasets.store import latest_dataset, open_dataset
    from fewshot_cli.report.augmentation import write_contact_sheet

    source = data or latest_dataset().path
    if data is None:
        console.say(f"Data set: {source}, the most recently fetched one.")
    target = out or default_target(source)
    if preview:
        sheet = write_contact_sheet(target.with_name(f"{target.name}.jpg"), open_dataset(source), augmentation, seed)
        console.result(
            {"contact_sheet": str(sheet), "source": str(source)}, f"{sheet}: shots and some of their variants."
        )
        return
    made = run_augment(
        source, target, copies=copies, augmentation=augmentation, seed=seed, force=force, reporter=console
    )
    sheet = write_contact_sheet(made.path / "contact_sheet.jpg", open_dataset(source), augmentation, seed)
    boxes = sum(len(image.boxes) for image in made.train.images)
    images = {"train": len(made.train.images), "test": len(made.test.images) if made.test else 0}
    console.result(
        {
            "path": str(made.path),
            "source": str(source),
            "images": images,
            "train_boxes": boxes,
            "contact_sheet": str(sheet),
        },
        f"{made.path} written: {images['train']} training images with {boxes} boxes, {images['test']} test images.",
        f"Look at some of them: {sheet}",
        f"Next: fsod finetune --data {made.path} --policy symmetric --budget 3",
    )

"""`fsod augment`: the variants that `finetune` trains on, written out as a COCO data set, and a sheet to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli.augmentation.config import Variants
from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet, Threads
from fewshot_cli.cli.parameters import takes
from fewshot_cli.runs.result import Counts
from fewshot_cli.schemas import schema_of


class Augmented(TypedDict):
    """What `fsod augment --json` prints."""

    schema: Annotated[Literal["fsod/augment/1"], Doc("Kind and version.")]
    path: NotRequired[Annotated[str, Doc("The new data set; not with --preview.")]]
    source: Annotated[str, Doc("The data set that it was made of.")]
    images: NotRequired[Annotated[Counts, Doc("Images; not with --preview.")]]
    train_boxes: NotRequired[Annotated[int, Doc("Boxes in training images; not with --preview.")]]
    contact_sheet: Annotated[str, Doc("Shots and some of their variants, to look at.")]


@takes(Variants)
def augment(
    data: Annotated[
        Path | None, typer.Argument(help="Data set folder; default: the most recently fetched one under ./data.")
    ] = None,
    threads: Threads = None,
    out: Annotated[Path | None, typer.Option(help="The new data set; default: DATA-augmented.")] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Side of the canvas that variants are made for, as for finetune; default: that of the detector.",
        ),
    ] = None,
    full_size: Annotated[
        bool,
        typer.Option("--full-size/--canvas-size", help="Write variants with all pixels of the images."),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option("--preview/--no-preview", help="Write only the contact sheet, beside where the data set goes."),
    ] = False,
    force: Annotated[bool, typer.Option("--force/--no-force", help="Replace a data set at --out.")] = False,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Write a data set with variants of its training images; `finetune` augments by itself with the same code."""
    console = Console(json=json, quiet=quiet)
    from fewshot_cli.augmentation.dataset import default_target
    from fewshot_cli.datasets.store import latest_dataset, open_dataset
    from fewshot_cli.paths import check_target
    from fewshot_cli.report.augmentation import write_contact_sheet
    from fewshot_cli.verbs.augment import augment as run_augment

    variants = Variants(**options)
    source = data or latest_dataset().path
    if preview:
        target = out or default_target(source)
        check_target(target, [source])
        sheet = write_contact_sheet(
            target.with_name(f"{target.name}.jpg"), open_dataset(source), variants.augmentation, variants.seed
        )
        console.result(
            {"schema": schema_of(Augmented), "contact_sheet": str(sheet), "source": str(source)},
            f"{sheet}: shots and some of their variants.",
        )
        return
    made = run_augment(
        data,
        out,
        image_size=image_size,
        full_size=full_size,
        force=force,
        threads=threads,
        reporter=console,
        **options,
    )
    sheet = write_contact_sheet(
        made.path / "contact_sheet.jpg", open_dataset(source), variants.augmentation, variants.seed
    )
    boxes = sum(len(image.boxes) for image in made.train.images)
    images = {"train": len(made.train.images), "test": len(made.test.images) if made.test else 0}
    console.result(
        {
            "schema": schema_of(Augmented),
            "path": str(made.path),
            "source": str(source),
            "images": images,
            "train_boxes": boxes,
            "contact_sheet": str(sheet),
        },
        f"{made.path} written: {images['train']} training images with {boxes} boxes, {images['test']} test images.",
        f"Look at some of them: {sheet}",
        f"Next: fsod finetune --data {made.path}",
    )

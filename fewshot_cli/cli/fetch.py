"""`fsod fetch`: a seeded K-shot sample and a test set, on disk as COCO."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.cli.console import Console, note_on_interrupt
from fewshot_cli.cli.options import Config, Json, Quiet
from fewshot_cli.errors import UsageError


def fetch(
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Class to detect; may be given several times."),
    ] = None,
    shots: Annotated[int, typer.Option(help="Training images per class.")] = 10,
    source: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="Where images come from: openimages, public photographs; coco:DIR, your own COCO data; "
            "or miniature, a small drawn world.",
        ),
    ] = "openimages",
    test_source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Where test images come from; default: the source's own test split, or what the shots leave of it.",
        ),
    ] = None,
    test_images: Annotated[int, typer.Option(help="Test images at most.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draw: same seed, same data set.")] = 0,
    name: Annotated[str | None, typer.Option(help="Folder under --root; default: from the class names.")] = None,
    root: Annotated[Path, typer.Option(help="Where data sets live.")] = Path("data"),
    force: Annotated[bool, typer.Option("--force/--no-force", help="Replace a data set of that name.")] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid/--no-skip-invalid", help="Leave faulty records out instead of stopping.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(help="openimages: shots come from validation (default), test, or train, whose lists weigh 3 GB."),
    ] = None,
    test_split: Annotated[
        str | None, typer.Option(help="openimages: test images come from test (default), validation or train.")
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option(
            metavar="MARKS",
            help="openimages: take images whose boxes are occluded, truncated, group-of, depiction, inside, "
            "unknown or rotated, separated by commas; default: such images are left out.",
        ),
    ] = None,
    smallest_box: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="openimages: leave out images with a box below this share of their width or height; default 0.",
        ),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="openimages: a copy to download from, with the original paths.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline/--online", help="openimages: use only what was downloaded before.")
    ] = False,
    view: Annotated[bool, typer.Option("--view/--no-view", help="Open the data set in the FiftyOne App.")] = False,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw training and test images of a class and write them as a COCO data set."""
    console = Console(json=json, quiet=quiet)
    if not classes:
        raise UsageError("no class is named", hint="Give --class NAME, e.g. --class helmet.")
    note_on_interrupt("The same command goes on where it was.")
    from fewshot_cli.sources.fetch import FetchRequest
    from fewshot_cli.sources.fetch import fetch as run_fetch
    from fewshot_cli.sources.registry import SourceOptions

    request = FetchRequest(
        source=source,
        test_source=test_source,
        classes=tuple(classes),
        shots=shots,
        test_images=test_images,
        seed=seed,
        name=name,
        root=root,
        force=force,
        skip_invalid=skip_invalid,
        options=SourceOptions(
            split=split,
            test_split=test_split,
            allow=_marks(allow),
            smallest_box=smallest_box,
            mirror=mirror,
            offline=offline or None,
        ),
    )
    result = run_fetch(request, console)
    console.result(result.to_dict(), lambda: _summary(result.to_dict()))
    if view:
        from fewshot_cli.report.fiftyone_sets import view_dataset

        note_on_interrupt(None)
        view_dataset(result.dataset, console)


def _marks(text: str | None) -> tuple[str, ...] | None:
    """`occluded,truncated` as a tuple; an empty text allows nothing."""
    return None if text is None else tuple(mark.strip() for mark in text.split(",") if mark.strip())


def _summary(document: dict) -> str:
    train, test = document["train"], document["test"]
    verb = "is there already" if document["reused"] else "written"
    return (
        f"{document['path']} {verb}: {', '.join(document['classes'])}; "
        f"{train['images']} training images with {train['boxes']} boxes, "
        f"{test['images']} test images with {test['boxes']} boxes.\n"
        f"Next: fsod finetune --policy symmetric --budget 3"
    )

"""`fsod fetch`: a seeded K-shot sample and a test set, on disk as COCO."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet
from fewshot_cli.errors import UsageError


def fetch(
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Class to detect; may be given several times."),
    ] = None,
    shots: Annotated[int, typer.Option(help="Training images per class.")] = 10,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Where pictures come from: coco:DIR, your own COCO data, or miniature, a small drawn world.",
        ),
    ] = None,
    test_source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Where test pictures come from; default: what the shots leave of the source."
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
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw training and test pictures of a class and write them as a COCO data set."""
    console = Console(json=json, quiet=quiet)
    if not classes:
        raise UsageError("no class is named", hint="Give --class NAME, e.g. --class helmet.")
    if source is None:
        raise UsageError(
            "no source is named",
            hint="Give --source coco:DIR, a folder with your own pictures in COCO format, or --source miniature.",
        )
    from fewshot_cli.data.fetch import FetchRequest
    from fewshot_cli.data.fetch import fetch as run_fetch

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
    )
    result = run_fetch(request, console)
    console.result(result.to_dict(), lambda: _summary(result.to_dict()))


def _summary(document: dict) -> str:
    train, test = document["train"], document["test"]
    verb = "is there already" if document["reused"] else "written"
    return (
        f"{document['path']} {verb}: {', '.join(document['classes'])}; "
        f"{train['images']} training images with {train['boxes']} boxes, "
        f"{test['images']} test images with {test['boxes']} boxes.\n"
        f"Next: fsod finetune --policy symmetric --budget 3"
    )

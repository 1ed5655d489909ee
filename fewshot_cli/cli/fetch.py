"""`fsod fetch`: a seeded K-shot sample and a test set, on disk as COCO."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from fewshot_cli.cli.console import Console, note_on_interrupt
from fewshot_cli.cli.options import Config, Json, Quiet
from fewshot_cli.settings import Field, fields_of
from fewshot_cli.sources.registry import options_by_source
from fewshot_cli.sources.request import FetchRequest

Check = Annotated[
    bool,
    typer.Option(
        "--check/--no-check",
        help="Draw, look for what seems wrong, and write nothing.",
    ),
]
View = Annotated[bool, typer.Option("--view/--no-view", help="Open the data set in the FiftyOne App.")]


def fetch(check: bool, view: bool, json: bool, quiet: bool, config: Any, **values: Any) -> None:
    """Draw training and test images of a class and write them as a COCO data set."""
    console = Console(json=json, quiet=quiet)
    request = {name: values[name] for name in fields_of(FetchRequest)}
    request["classes"] = request["classes"] or []
    options = {name: value for name, value in values.items() if name not in request and value is not None}
    note_on_interrupt("The same command continues where it was.")
    from fewshot_cli.verbs import fetch as verb

    if check:
        checked = verb.check(verb.request_of(**request, options=options), console)
        console.result(checked.to_json(), lambda: _summary(checked.to_json()))
        return
    result = verb.fetch(**request, **options, reporter=console)
    console.result(result.to_json(), lambda: _summary(result.to_json()))
    if view:
        from fewshot_cli.report.fiftyone_sets import view_dataset

        note_on_interrupt(None)
        view_dataset(result.dataset, console)


# --- its options: the fields of FetchRequest, and those of each source ---


def _parameters() -> list[inspect.Parameter]:
    request = [_request_parameter(field) for field in fields_of(FetchRequest).values()]
    own = {
        field.name: _source_parameter(source, field)
        for source, options in options_by_source().items()
        for field in fields_of(options).values()
    }
    last = {
        "check": (Check, False),
        "view": (View, False),
        "config": (Config, None),
        "json": (Json, False),
        "quiet": (Quiet, False),
    }
    return [*request, *own.values(), *(_parameter(name, kind, default) for name, (kind, default) in last.items())]


def _request_parameter(field: Field) -> inspect.Parameter:
    if field.name == "classes":
        option = typer.Option("--class", metavar="NAME", help=field.option.help, rich_help_panel=field.option.panel)
        return _parameter("classes", Annotated[list[str] | None, option], None)
    option = typer.Option(
        *_switches(field), metavar=field.option.metavar, help=field.option.help, rich_help_panel=field.option.panel
    )
    if field.name == "source":
        return _parameter("source", Annotated[list[str], option], [field.default])
    return _parameter(field.name, Annotated[field.type, option], field.default)


def _source_parameter(source: str, field: Field) -> inspect.Parameter:
    """None where nothing was said, so that an option that is not the chosen source's can be refused."""
    default = ",".join(field.default) if field.option.words else field.default
    said = f" Default: {default}." if default not in (None, "", False) else ""
    option = typer.Option(
        *_switches(field),
        metavar=field.option.metavar,
        help=field.option.help + said,
        rich_help_panel=f"Options of --source {source}",
    )
    return _parameter(field.name, Annotated[_typed(field) | None, option], None)


def _typed(field: Field) -> Any:
    """The type on the command line; choices and words are text there, and checked by the settings class."""
    plain = {bool: bool, int: int, float: float}
    return plain.get(field.type, str)


def _switches(field: Field) -> tuple[str, ...]:
    dashed = field.name.replace("_", "-")
    return (f"--{dashed}/--no-{dashed}",) if field.type is bool else (f"--{dashed}",)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)


fetch.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
fetch.__annotations__ = {name: parameter.annotation for name, parameter in inspect.signature(fetch).parameters.items()}


# --- what it prints ---


def _summary(document: dict[str, Any]) -> str:
    train, test = document["train"], document["test"]
    verb = "is there already" if document["reused"] else "written"
    place = f"{document['path']} {verb}" if document["path"] else "Nothing written"
    tests = f"{test['images']} test images with {test['boxes']} boxes" if test else "no test set"
    lines = [
        f"{place}: {', '.join(document['classes'])}; "
        f"{train['images']} training images with {train['boxes']} boxes, {tests}.",
        *_stratified(document),
        _background(document["background"]),
        _warnings(document["warnings"]),
        "Next: fsod finetune" if document["path"] else "",
    ]
    return "\n".join(filter(None, lines))


def _stratified(document: dict[str, Any]) -> list[str]:
    """What a share of all images holds, and how it compares with them; nothing for K shots."""
    found = document["stratified"]
    if not found:
        return []
    boxes = ", ".join(f"{name} {count:,}" for name, count in document["train"]["boxes_per_class"].items())
    share = (
        f"Subset {found['subset']} of {found['subsets']}, each {found['fraction']:.4g} of {found['images']:,} images."
    )
    if found["fraction"] == 1:
        return [f"All {found['images']:,} images. Training boxes: {boxes}."]
    return [
        f"{share} Training boxes: {boxes}.",
        "The share of a class in the boxes differs from that in all images by at most "
        f"{found['largest_difference']:.3f} percentage points ({found['largest_in']}).",
    ]


def _background(count: int | None) -> str:
    if not count:
        return ""
    return f"{count} background image{'s' if count > 1 else ''} (no box at all) not drawn: neither shots nor tested on."


def _warnings(found: list[dict[str, Any]]) -> str:
    """Their number; each was said on stderr."""
    return f"{len(found)} thing{'s' if len(found) > 1 else ''} to look at, see above." if found else ""

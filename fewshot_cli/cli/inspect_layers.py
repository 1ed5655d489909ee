"""`fsod inspect-layers`: a detector's chain, what a policy and budget would train, and how far a run has moved it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typing_extensions import Doc, TypedDict

from fewshot_cli.bounds import CLASSES
from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet, Threads
from fewshot_cli.cli.parameters import takes
from fewshot_cli.detectors.architecture import Architecture
from fewshot_cli.detectors.registry import depth_in
from fewshot_cli.errors import UsageError
from fewshot_cli.panels import CRITERIA as CRITERIA_PANEL
from fewshot_cli.panels import DRIFT
from fewshot_cli.paths import is_file
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.trainable import implied_policy, select_layers, with_budget
from fewshot_cli.schemas import schema_of
from fewshot_cli.selection.criteria import CRITERIA, DEFAULT_CRITERION

_EVERY = "all"
_MEASURED = ("weights", "init_class", "copies", "seed", "device")
"""Options of what is measured with --data; None where they are not given."""
_PLANNED = (
    *("policy", "budget", "layers", "train_neck", "backbone_stages", "freeze_first", "image_size"),
    "keep_base_classes",
)
"""Options of what would train."""
_SIZES = ("head_depth", "head_channels", "neck")


class DetectorSummary(TypedDict):
    """A detector in the registry."""

    summary: Annotated[str, Doc("What it is.")]
    head_layers: Annotated[int, Doc("Depth M of its head.")]


class Detectors(TypedDict):
    """What `fsod inspect-layers --json` prints without a name."""

    schema: Annotated[Literal["fsod/detectors/1"], Doc("Kind and version.")]
    detectors: Annotated[dict[str, DetectorSummary], Doc("Name → what it is.")]


@takes(
    FinetuneConfig,
    only=(*_PLANNED, *_SIZES, *_MEASURED),
    optional=("policy", *_MEASURED),
)
def inspect_layers(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DETECTOR|RUN",
            help="A detector, or the folder of a run; none: list detectors. With --against: one or more of what that "
            "takes.",
        ),
    ] = None,
    convolutions: Annotated[
        bool,
        typer.Option("--convolutions/--no-convolutions", help="List every convolution with its number, too."),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FILE|base",
            help="Show each layer's drift from a run, a checkpoint, a weights file, or base: what the other side "
            "started from.",
            rich_help_panel=DRIFT,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --against: draw the drift of each convolution into a .png, .svg or .pdf file.",
            rich_help_panel=DRIFT,
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(**CLASSES.limits, help="Number of classes; default: 1, or those of --data.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Measure how promising each layer is to train, by its gradients on the shots of this data set.",
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            metavar="|".join([*CRITERIA, _EVERY]),
            help="With --data: relative gradient norm, signal-to-noise ratio, Fisher information or its mean, or all. "
            f"Default: {DEFAULT_CRITERION}.",
            rich_help_panel=CRITERIA_PANEL,
        ),
    ] = None,
    threads: Threads = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Show a detector layer by layer: what would train and where features would be cached, or how far it has moved."""
    console = Console(json=json, quiet=quiet)
    if against is not None:
        others = {**options, "classes": classes, "data": data, "criterion": criterion, "threads": threads}
        _show_drift(console, targets or [], against, plot, convolutions, others)
        return
    if plot is not None:
        raise UsageError("--plot goes with --against", hint="E.g. --against base.")
    if targets and len(targets) > 1:
        raise UsageError(f"{len(targets)} are given, and one is shown", hint="Several go with --against, e.g. base.")
    target = targets[0] if targets else None
    measured = {name: options.pop(name) for name in _MEASURED} | {"threads": threads}
    given = {name: value for name, value in measured.items() if value is not None}
    if data is not None:
        _show_measured(console, target, data, criterion, classes, convolutions, {**options, **given})
        return
    if criterion is not None or given:
        name = "criterion" if criterion is not None else next(iter(given)).replace("_", "-")
        raise UsageError(f"--{name} goes with --data", hint="E.g. --data data/raccoon --criterion rgn.")
    if target is None:
        _list_detectors(console)
        return
    report = _inspect(target, classes or 1, options, console)
    console.result(report, lambda: _table(report), *_listed(report, convolutions), _totals(report))


def _inspect(target: str, classes: int, options: dict[str, Any], console: Console) -> dict[str, Any]:
    """The chain of a run, or of a detector with what the options would train."""
    from fewshot_cli.detectors.predictors import numbered
    from fewshot_cli.verbs.inspect import inspect_run, inspect_selection

    if _is_run(target):
        if options["layers"] or any(options[name] is not None for name in ("policy", "budget", "freeze_first")):
            raise UsageError(f"{target} is a run: its policy and budget are fixed", hint="Name a detector instead.")
        if any(options[name] is not None for name in _SIZES):
            raise UsageError(f"{target} is a run: its size is fixed", hint="Name a detector instead.")
        return inspect_run(Path(target), keep_base_classes=options["keep_base_classes"])
    config = _configure(target, classes, options, console)
    return inspect_selection(
        target,
        select_layers(config),
        classes=numbered(classes),
        image_size=options["image_size"],
        keep_base_classes=options["keep_base_classes"],
        architecture=config.architecture,
    )


def _is_run(target: str) -> bool:
    return is_file(Path(target, "config.json"))


def _show_drift(
    console: Console,
    targets: list[str],
    against: str,
    plot: Path | None,
    convolutions: bool,
    options: dict[str, Any],
) -> None:
    """Show how far layers, or convolutions, are from those of `against`."""
    weights = options.pop("weights")
    given = [name for name, value in options.items() if value not in (None, "", 0)]
    if given:
        raise UsageError(
            f"--{given[0].replace('_', '-')} does not go with --against", hint="Both sides are compared as they are."
        )
    from fewshot_cli.report.drift import check_plot, drift_table, write_drift_plot
    from fewshot_cli.verbs.drift import measure_drift

    place = None if plot is None else check_plot(plot, [*targets, against])
    document = measure_drift(targets, against, weights=weights, reporter=console)
    if place is not None:
        document["plot"] = str(write_drift_plot(place, document))
    written = [f"Written: {plot}"] if plot is not None else []
    console.result(document, lambda: drift_table(document, convolutions=convolutions), *written)


def _show_measured(
    console: Console,
    target: str | None,
    data: Path,
    criterion: str | None,
    classes: int | None,
    convolutions: bool,
    options: dict[str, Any],
) -> None:
    """Show the chain with a column for each criterion."""
    if target is not None and _is_run(target):
        raise UsageError(
            f"{target} is a run: --data goes with a detector", hint="Name the detector that it started from."
        )
    if classes is not None:
        raise UsageError("--classes does not go with --data, which has classes of its own", hint="Drop --classes.")
    chosen = _policy(options)
    from fewshot_cli.verbs.criteria import inspect_data

    names = list(CRITERIA) if criterion == _EVERY else [criterion or DEFAULT_CRITERION]
    report = inspect_data(data, target, names, reporter=console, **{**options, "policy": chosen})
    meanings = [f"{name}: {CRITERIA[name].summary}" for name in names]
    measured = f"Measured on {report['gradients']} variants of the shots of {report['data']}, before training."
    text = "\n".join([*meanings, measured])
    console.result(report, lambda: _table(report), text, *_listed(report, convolutions), _totals(report))


def _configure(detector: str, classes: int, options: dict[str, Any], console: Console) -> FinetuneConfig:
    """What `fsod finetune` would do with these options; without any, nothing trains."""
    chosen = _policy(options)
    from fewshot_cli.training.outline import resolve

    config = FinetuneConfig(**{**options, "policy": chosen, "data": "", "detector": detector})
    config = with_budget(config, depth_in(detector, config.architecture), console)
    return resolve(config, classes, console)


def _policy(options: dict[str, Any]) -> str:
    """The policy that was given or is implied; raises UsageError for a budget without one."""
    if options["budget"] is not None and options["policy"] is None and not options["layers"]:
        raise UsageError("--budget goes with --policy", hint="E.g. --policy symmetric --budget 3.")
    return implied_policy(options, default="none")


def _list_detectors(console: Console) -> None:
    from fewshot_cli.detectors.registry import DETECTORS

    rows = {name: {"summary": spec.summary, "head_layers": spec.head_depth} for name, spec in DETECTORS.items()}
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  M = {row['head_layers']}  {row['summary']}" for name, row in rows.items()]
    console.result(
        {"schema": schema_of(Detectors), "detectors": rows},
        "\n".join(lines),
        "Next: fsod inspect-layers NAME --policy symmetric",
    )


def _table(report: dict[str, Any]) -> object:
    from fewshot_cli.report.tables import chain_table, criteria_table

    classes = f"{report['classes']} class{'' if report['classes'] == 1 else 'es'}"
    title = f"{report['detector']}, {report['image_size']} px, {classes}"
    if "data" in report:
        return criteria_table(title, report["layers"])
    return chain_table(title, report["layers"], report["convolutions"])


def _listed(report: dict[str, Any], convolutions: bool) -> list[Callable[[], object]]:
    """The table of the convolutions, if it is asked for."""

    def table() -> object:
        from fewshot_cli.report.tables import convolutions_table

        return convolutions_table(report["convolutions"])

    return [table] if convolutions else []


def _totals(report: dict[str, Any]) -> str:
    layers, head, parameters = (
        report["trained"]["layers"],
        report["trained"]["head_layers"],
        report["trained"]["parameters"],
    )
    first = report["freeze_first"]
    lines = [f"Built: {Architecture(**size)}."] if (size := report["architecture"]) else []
    lines += [
        f"Policy {report['policy']}"
        + (f", budget {report['budget']}" if report["budget"] else "")
        + (f", first {first} of {len(report['convolutions'])} convolutions frozen" if first else ""),
        f"Trained: {head} of {report['head_depth']} head layers, {layers} of {len(report['layers'])} layers in all; "
        f"{parameters:,} of {report['parameters']:,} parameters ({parameters / report['parameters']:.2%}).",
    ]
    if report["cut"] is not None:
        lines.append(f"Features are cached before {report['cut']}: {report['cached_mb']:.2f} MB an image in fp32.")
    if kept := report["keep_base_classes"]:
        from fewshot_cli.report.tables import kept_base_classes

        lines.append(f"Base classes: {kept_base_classes(kept)}.")
    return "\n".join(lines)

"""`fsod inspect-layers`: a detector's chain, and what a policy and budget would train, before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Config, Json, Quiet
from fewshot_cli.cli.parameters import takes
from fewshot_cli.detectors.registry import get_spec
from fewshot_cli.errors import UsageError
from fewshot_cli.policies import Selection
from fewshot_cli.runs.config import FinetuneConfig, implied_policy, select_layers, with_budget


@takes(
    FinetuneConfig,
    only=("policy", "budget", "layers", "train_neck", "backbone_stages", "image_size", "keep_base_classes"),
    optional=("policy",),
)
def inspect_layers(
    target: Annotated[
        str | None,
        typer.Argument(metavar="DETECTOR|RUN", help="A detector, or the folder of a run; none: list detectors."),
    ] = None,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 1,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Show a detector layer by layer, what would train, and where features would be cached."""
    console = Console(json=json, quiet=quiet)
    if target is None:
        _list_detectors(console)
        return
    from fewshot_cli.detectors.predictors import numbered
    from fewshot_cli.verbs.inspect import inspect_run, inspect_selection

    if Path(target, "config.json").is_file():
        if options["policy"] is not None or options["budget"] is not None or options["layers"]:
            raise UsageError(f"{target} is a run: its policy and budget are fixed", hint="Name a detector instead.")
        report = inspect_run(Path(target), keep_base_classes=options["keep_base_classes"])
    else:
        report = inspect_selection(
            target,
            _selection(target, classes, options, console),
            classes=numbered(classes),
            image_size=options["image_size"],
            keep_base_classes=options["keep_base_classes"],
        )
    console.result(report, lambda: _table(report), _totals(report))


def _selection(detector: str, classes: int, options: dict[str, Any], console: Console) -> Selection:
    """What `fsod finetune` would train with these options; without any, nothing."""
    from fewshot_cli.training.outline import resolve

    if options["budget"] is not None and options["policy"] is None and not options["layers"]:
        raise UsageError("--budget goes with --policy", hint="E.g. --policy symmetric --budget 3.")
    policy = implied_policy(options, default="none")
    config = FinetuneConfig(**{**options, "policy": policy, "data": "", "detector": detector})
    config = with_budget(config, get_spec(detector).head_depth, console)
    return select_layers(resolve(config, classes, console))


def _list_detectors(console: Console) -> None:
    from fewshot_cli.detectors.registry import DETECTORS

    rows = {name: {"summary": spec.summary, "head_layers": spec.head_depth} for name, spec in DETECTORS.items()}
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  M = {row['head_layers']}  {row['summary']}" for name, row in rows.items()]
    console.result({"detectors": rows}, "\n".join(lines), "Next: fsod inspect-layers NAME --policy symmetric")


def _table(report: dict[str, Any]) -> object:
    from fewshot_cli.report.tables import chain_table

    classes = f"{report['classes']} class{'' if report['classes'] == 1 else 'es'}"
    return chain_table(f"{report['detector']}, {report['image_size']} px, {classes}", report["layers"])


def _totals(report: dict[str, Any]) -> str:
    layers, head, parameters = (
        report["trained"]["layers"],
        report["trained"]["head_layers"],
        report["trained"]["parameters"],
    )
    lines = [
        f"Policy {report['policy']}" + (f", budget {report['budget']}" if report["budget"] else ""),
        f"Trained: {head} of {report['head_depth']} head layers, {layers} of {len(report['layers'])} layers in all; "
        f"{parameters:,} of {report['parameters']:,} parameters ({parameters / report['parameters']:.2%}).",
    ]
    if report["cut"] is not None:
        lines.append(f"Features are cached before {report['cut']}: {report['cached_mb']:.2f} MB an image in fp32.")
    if kept := report["keep_base_classes"]:
        from fewshot_cli.report.tables import kept_base_classes

        lines.append(f"Base classes: {kept_base_classes(kept)}.")
    return "\n".join(lines)

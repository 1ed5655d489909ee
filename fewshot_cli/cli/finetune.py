"""`fsod finetune`: spend a layer budget on a detector's head, and measure what it brought."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_cli.cli.console import Console
from fewshot_cli.cli.options import Color, Config, Flip, Json, Ops, Positive, Quiet, Rotate, Scale, Stretch
from fewshot_cli.errors import UsageError
from fewshot_cli.runs.config import FinetuneConfig as Defaults

if TYPE_CHECKING:
    from fewshot_cli.runs.folder import Run

_OWN = {"resume", "runs", "name", "report", "config", "json", "quiet"}
"""Options that are not part of a run's configuration."""
_WITH_RESUME = {"resume", "report", "json", "quiet"}


def finetune(
    context: typer.Context,
    data: Annotated[
        str | None, typer.Option(help="Data set folder; default: the most recently fetched one under ./data.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="Detector to adapt; `fsod inspect-layers` lists them. Default: the one made for the data set "
            f"(retinanet_mini for miniature), else {Defaults.detector}."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="default (COCO), imagenet (backbone only), none (random), or a file.")
    ] = Defaults.weights,
    policy: Annotated[
        str, typer.Option(help="Where the budget goes: last, symmetric, first, all, full or none.")
    ] = Defaults.policy,
    budget: Annotated[int | None, typer.Option(help="Head layers that train, predictor included.")] = Defaults.budget,
    train_neck: Annotated[
        bool, typer.Option("--train-neck/--freeze-neck", help="Train the neck too.")
    ] = Defaults.train_neck,
    backbone_stages: Annotated[
        int, typer.Option(help="Backbone stages that train, 0 to 5, counted from the output side.")
    ] = Defaults.backbone_stages,
    init_class: Annotated[
        str,
        typer.Option(
            help="Start of a class's predictor: auto (base class of that name, else those the detector takes the "
            "shots' objects for, else the mean of all), mean (without looking at the shots), a base class, or none."
        ),
    ] = Defaults.init_class,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square canvas in pixels; default: the detector's own.")
    ] = Defaults.image_size,
    iterations: Annotated[int, typer.Option(help="Optimizer steps.")] = Defaults.iterations,
    batch_size: Annotated[int, typer.Option(help="Variants a step.")] = Defaults.batch_size,
    copies: Annotated[int, typer.Option(help="Variants of each shot, the unchanged image included.")] = Defaults.copies,
    ops: Ops = ",".join(Defaults.ops),
    positive: Positive = Defaults.positive,
    flip: Flip = Defaults.flip,
    rotate: Rotate = Defaults.rotate,
    stretch: Stretch = Defaults.stretch,
    scale: Scale = Defaults.scale,
    color: Color = Defaults.color,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = Defaults.optimizer,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = Defaults.lr,
    backbone_lr: Annotated[
        float, typer.Option(help="Rate of neck and backbone layers that train, as a share of --lr.")
    ] = Defaults.backbone_lr,
    small_object_lr: Annotated[
        float | None,
        typer.Option(
            help="YOLOX: rate of the head's finest level, as a share of --lr; default: 2 if small objects are the "
            "rule in the shots, else 1."
        ),
    ] = Defaults.small_object_lr,
    weight_decay: Annotated[float, typer.Option(help="Not on biases and norms.")] = Defaults.weight_decay,
    warmup: Annotated[float, typer.Option(help="Share of the iterations in which the rate rises.")] = Defaults.warmup,
    clip: Annotated[float, typer.Option(help="Largest gradient norm; 0 for no limit.")] = Defaults.clip,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: what is faster here.")] = Defaults.precision,
    eval_every: Annotated[
        int, typer.Option(help="Iterations between two measurements on the test set; 0: only at the end.")
    ] = Defaults.eval_every,
    cache_memory: Annotated[float, typer.Option(help="GiB of memory for cached features.")] = Defaults.cache_memory,
    cache_disk: Annotated[
        float, typer.Option(help="GiB of disk for cached features beyond that; what is left is computed again.")
    ] = Defaults.cache_disk,
    cache_type: Annotated[str, typer.Option(help="How features are stored: fp32, bf16 or auto.")] = Defaults.cache_type,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = Defaults.device,
    seed: Annotated[int, typer.Option(help="Of variants, batches and fresh weights.")] = Defaults.seed,
    runs: Annotated[Path, typer.Option(help="Folder in which the run's own folder is made.")] = Path("runs"),
    name: Annotated[
        str | None, typer.Option(help="The run's folder name; default: from data, policy and seed.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html into the run's folder.")
    ] = True,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a stopped run, with the options it was started with.")
    ] = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the layers that a policy chooses, on cached features of everything before them."""
    console = Console(json=json, quiet=quiet)
    from fewshot_cli.verbs.finetune import finetune as run_finetune
    from fewshot_cli.verbs.finetune import resume as run_resume

    if resume is not None:
        _refuse_other_options(context)
        done = run_resume(resume, reporter=console)
    else:
        options = {name: value for name, value in context.params.items() if name not in _OWN}
        done = run_finetune(runs=runs, name=name, reporter=console, **options)
    lines = _write_report(done, report)
    lines += [f"Next: fsod eval {done.folder}"] if done.result["ap"] is not None else []
    console.result(done.result, lambda: _table(done.result), *lines)


def _write_report(run: Run, wanted: bool) -> list[str]:
    """Write the page of a finished run, unless it is there; returns what to say of it."""
    if not wanted:
        return []
    from fewshot_cli.report.run import write_run_report

    page = run.report_file if run.report_file.exists() else write_run_report(run)
    return [f"Images and curves: {page}"]


def _refuse_other_options(context: typer.Context) -> None:
    given = [name for name in context.params if name not in _WITH_RESUME and _was_given(context, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"--resume goes on with the options the run was started with; {options} cannot change now",
            hint="Start a new run for other options.",
        )


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _table(result: dict[str, Any]) -> object:
    from fewshot_cli.report.tables import result_table

    return result_table(result)

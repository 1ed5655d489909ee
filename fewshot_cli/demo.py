"""The whole way in one call, on the embedded world: fetch, augment, three fine-tunes, evaluation, a page.

Each step is the function that its subcommand calls, so the commands that the demo prints do the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import Doc, TypedDict

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.dataset import augment
from fewshot_cli.bounds import SEED
from fewshot_cli.datasets.store import Dataset
from fewshot_cli.files import make_folder
from fewshot_cli.inference.drawing import as_data_url, draw_boxes
from fewshot_cli.inference.filtering import SCORE_THRESHOLD
from fewshot_cli.progress import Reporter
from fewshot_cli.report.page import write_page
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.schemas import schema_of
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sources.miniature.classes import BASE
from fewshot_cli.threads import choose_threads, use_threads
from fewshot_cli.verbs.evaluate import Evaluation, evaluate
from fewshot_cli.verbs.finetune import run_at

DETECTOR, NAME, SHOTS, TESTS, COPIES = "retinanet_mini", "helmet", 10, 100, 24
SETUPS: dict[str, tuple[str, int | None]] = {
    "symmetric 3": ("symmetric", 3),
    "last 3": ("last", 3),
    "none (not trained)": ("none", None),
}
SHOWN_TESTS, SHOWN_VARIANTS = 8, 12
SIDE = 480
"""Longer side of an image on the page, pixels."""


class DemoRow(TypedDict):
    """A setup of the demo."""

    setup: Annotated[str, Doc("What trained.")]
    layers: Annotated[str, Doc("That trained, or `none`.")]
    parameters: Annotated[int, Doc("That trained.")]
    ap: Annotated[float, Doc("mAP@[.50:.95].")]
    ap_interval: Annotated[list[float] | None, Doc("Low and high end of its 95 % interval over the test images.")]
    ap50: Annotated[float | None, Doc("mAP at an IoU of 0.5.")]
    seconds: Annotated[float, Doc("Of the fine-tune.")]


class Demonstrated(TypedDict):
    """What `fsod demo --json` prints."""

    schema: Annotated[Literal["fsod/demo/1"], Doc("Kind and version.")]
    page: Annotated[str, Doc("Images to look at.")]
    rows: Annotated[list[DemoRow], Doc("One a setup.")]
    commands: Annotated[list[str], Doc("That do the same.")]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Where the page is, one row per setup, and the commands that do the same."""

    page: Path
    rows: list[dict[str, Any]]
    commands: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"schema": schema_of(Demonstrated), "page": str(self.page), "rows": self.rows, "commands": self.commands}


def run_demo(
    folder: Path,
    *,
    seed: int,
    reporter: Reporter,
    threads: int | None = None,
    iterations: int = FinetuneConfig.iterations,
    test_images: int = TESTS,
    copies: int = COPIES,
) -> DemoResult:
    """Run the demo in a folder; finished steps are used again, and a stopped demo is continued.

    Raises:
        FsodError: what its steps raise.
    """
    SEED.check("seed", seed)
    make_folder(folder)
    threads = choose_threads(threads, reporter)
    use_threads(threads)
    reporter.say(f"1/4  Fetch {SHOTS} shots of {NAME!r} from the miniature world.")
    request = FetchRequest(
        source="miniature",
        classes=(NAME,),
        shots=SHOTS,
        test_images=test_images,
        seed=seed,
        root=folder / "data",
        name=f"{NAME}-seed{seed}",
    )
    shots = fetch(request, reporter).dataset
    reporter.say(f"2/4  Augment: {copies} variants of each shot.")
    variants = _augmented(shots, copies, seed, reporter)
    reporter.say(f"3/4  Fine-tune {DETECTOR}: {', '.join(SETUPS)}.")
    configs = {setup: _config(setup, variants, seed, iterations, threads) for setup in SETUPS}
    runs = {setup: _run(folder, config, reporter) for setup, config in configs.items()}
    reporter.say("4/4  Evaluate and write the page.")
    evaluations = {setup: evaluate(run, threads=threads, reporter=reporter) for setup, run in runs.items()}
    rows = [_row(setup, run.read_result(), evaluations[setup]) for setup, run in runs.items()]
    commands = _commands(folder, shots, variants, runs, seed)
    page = folder / "demo.html"
    _write(page, rows, shots, variants, evaluations, commands)
    return DemoResult(page, rows, commands)


def _augmented(shots: Dataset, copies: int, seed: int, reporter: Reporter) -> Dataset:
    target = shots.path.with_name(f"{shots.name}-augmented")
    return augment(
        shots.path, target, copies=copies, augmentation=Augmentation(), seed=seed, force=True, reporter=reporter
    )


def _config(setup: str, data: Dataset, seed: int, iterations: int, threads: int) -> FinetuneConfig:
    policy, budget = SETUPS[setup]
    return FinetuneConfig(
        data=str(data.path.resolve()),
        detector=DETECTOR,
        policy=policy,
        budget=budget,
        seed=seed,
        iterations=iterations,
        threads=threads,
    )


def _run(folder: Path, config: FinetuneConfig, reporter: Reporter) -> Run:
    """Fine-tune, unless that is done already; a stopped run is continued."""
    name = f"{NAME}-{config.policy}{config.budget or ''}-seed{config.seed}"
    return run_at(folder / "runs" / name, config, reporter=reporter)


def _row(setup: str, result: dict[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    return {
        "setup": setup,
        "layers": ", ".join(result["trained_layers"]) or "none",
        "parameters": result["parameters"]["trained"],
        "ap": evaluation.metrics.ap,
        "ap_interval": evaluation.metrics.ap_interval(),
        "ap50": evaluation.metrics.numbers["AP50"],
        "seconds": result["seconds"]["total"],
    }


def _commands(folder: Path, shots: Dataset, variants: Dataset, runs: dict[str, Run], seed: int) -> list[str]:
    """What a person would type in the demo's folder for the same files."""
    drawn = f"--seed {seed} " if seed else ""
    copies = len(variants.train.images) // len(shots.train.images)
    tests = len(shots.require_test().images)
    measured = f"--test-images {tests} " if tests != TESTS else ""
    lines = [
        f"cd {shlex.quote(str(folder))}",
        f"fsod fetch --source miniature --class {NAME} --shots {SHOTS} {measured}{drawn}--name {shots.name}",
        f"fsod augment data/{shots.name} {drawn}--copies {copies} --out data/{variants.name} --force",
        f"fsod inspect-layers {DETECTOR} --policy symmetric --budget 3",
    ]
    for setup, run in runs.items():
        policy, budget = SETUPS[setup]
        spent = f"--policy {policy} --budget {budget}" if budget else f"--policy {policy}"
        what = f"--data data/{variants.name} --detector {DETECTOR}"
        lines.append(f"fsod finetune {what} {spent} {drawn}--name again-{run.folder.name}")
    return [*lines, f"fsod eval runs/again-{next(iter(runs.values())).folder.name}"]


def _write(
    page: Path,
    rows: list[dict[str, Any]],
    shots: Dataset,
    variants: Dataset,
    evaluations: dict[str, Evaluation],
    commands: Sequence[str],
) -> None:
    made = [image for image in variants.train.images if image.id not in {shot.id for shot in shots.train.images}]
    step = max(1, len(made) // SHOWN_VARIANTS)
    write_page(
        page,
        "demo.html",
        name=NAME,
        detector=DETECTOR,
        known=len(BASE),
        rows=rows,
        test_images=len(shots.require_test().images),
        shots=[as_data_url(draw_boxes(image, side=SIDE)) for image in shots.train.images],
        variants=[as_data_url(draw_boxes(image, side=SIDE)) for image in made[::step][:SHOWN_VARIANTS]],
        operations=", ".join(Augmentation.ops),
        tests=[_test_row(number, evaluations) for number in range(min(SHOWN_TESTS, len(shots.require_test().images)))],
        threshold=SCORE_THRESHOLD,
        commands=commands,
    )


def _test_row(number: int, evaluations: dict[str, Evaluation]) -> list[str]:
    """One test image: its ground truth, then what each setup found."""
    image = next(iter(evaluations.values())).split.images[number]
    found = [draw_boxes(image, evaluation.results, side=SIDE) for evaluation in evaluations.values()]
    return [as_data_url(drawn) for drawn in (draw_boxes(image, side=SIDE), *found)]

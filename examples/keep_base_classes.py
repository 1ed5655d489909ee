"""What becomes of the base classes: the pretrained detector, a fine-tune of it, and one that keeps its base classes.

    python examples/keep_base_classes.py data/helmet data/coco_val128 --weights yolox_nano_coco.pth

Both fine-tunes have the same options but for --keep-base-classes. The time is the detector's alone, images decoded
beforehand: one image at a time on one thread, the three detectors in turn, median over all images and rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fewshot_cli.datasets.images import read_image
from fewshot_cli.datasets.types import Split
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.errors import DataError
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.folder import Run
from fewshot_cli.verbs.evaluate import Evaluation, evaluate, test_split
from fewshot_cli.verbs.finetune import finetune

PRETRAINED, PLAIN, KEPT = "pretrained", "fine-tuned", "fine-tuned, base classes kept"


class Measured(NamedTuple):
    """A detector measured on both data sets; None where it knows none of the classes."""

    base: Evaluation | None
    novel: Evaluation | None


def measure(options: argparse.Namespace, target: dict[str, Any]) -> Measured:
    """Both data sets with the same detector."""
    found = []
    for data in (options.base_data, options.data):
        try:
            found.append(evaluate(data=data, threads=1, **target))
        except DataError:
            found.append(None)
    return Measured(*found)


def fine_tuned(options: argparse.Namespace, folder: Path, keep: bool) -> Run:
    name = "kept" if keep else "plain"
    chosen = {"detector": options.detector, "weights": options.weights, "policy": "symmetric", "budget": 3}
    chosen |= {"average": 1.0, "eval_every": 0, **options.options}
    return finetune(options.data, runs=folder, name=name, keep_base_classes=keep, **chosen)


def same_detections(before: Evaluation, after: Evaluation, kept: Sequence[str]) -> bool:
    """Whether the detections of the kept classes are equal in every bit."""
    category_of = dict(zip(before.split.classes, before.split.category_ids, strict=True))
    wanted = {category_of[name] for name in kept if name in category_of}
    first, second = ([one for one in found.results if one["category_id"] in wanted] for found in (before, after))
    return first == second


def milliseconds(placed: Sequence[PlacedDetector], split: Split, rounds: int, count: int) -> list[float]:
    """Median time of an image with each detector."""
    images = [read_image(image.path) for image in split.images[:count]]
    taken: list[list[float]] = [[] for _ in placed]
    for _ in range(rounds):
        for image in images:
            for one, times in zip(placed, taken, strict=True):
                canvas = one.detector.make_canvas(image)
                started = time.perf_counter()
                one.resume(batch_of([canvas]), 0, [canvas])
                times.append(1000 * (time.perf_counter() - started))
    return [statistics.median(times) for times in taken]


def shown(found: Evaluation | None) -> str:
    """The number of classes measured and their AP."""
    if found is None:
        return "none left | –"
    measured = [ap for ap in found.metrics.per_class.values() if ap is not None]
    return f"{len(measured)} | {found.metrics.ap:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set of the new class made by fsod fetch, with a test set")
    parser.add_argument("base_data", type=Path, help="a data set of base classes, or one split")
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--options", type=json.loads, default={}, help="further options of the fine-tunes, as JSON")
    parser.add_argument("--rounds", type=int, default=5, help="how often each image is timed")
    parser.add_argument("--timed", type=int, default=30, help="images that are timed")
    options = parser.parse_args()

    size = options.options.get("image_size")
    with tempfile.TemporaryDirectory() as scratch:
        runs = {name: fine_tuned(options, Path(scratch), keep) for name, keep in ((PLAIN, False), (KEPT, True))}
        of_base = {"detector": options.detector, "weights": options.weights, "image_size": size}
        targets = {PRETRAINED: of_base, **{name: {"run": run} for name, run in runs.items()}}
        found = {name: measure(options, target) for name, target in targets.items()}
        base = build_detector(options.detector, weights=options.weights, image_size=size)
        kept = runs[KEPT].result["keep_base_classes"]
        detectors = [base, *(restore(run.checkpoint)[0] for run in runs.values())]
    torch.set_num_threads(1)
    placed = [PlacedDetector.place(detector, "cpu") for detector in detectors]
    times = milliseconds(placed, test_split(options.base_data), options.rounds, options.timed)

    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.detector}")
    print("| detector | base classes | base AP | new classes | new AP | ms an image |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (name, measured), taken in zip(found.items(), times, strict=True):
        print(f"| {name} | {shown(measured.base)} | {shown(measured.novel)} | {taken:.1f} |")
    print(f"\nFrom {kept['start']} on both heads run: {kept['parameters']:,} parameters and ", end="")
    print(f"{kept['operations']:.0%} of the computation more.")
    before, after = found[PRETRAINED].base, found[KEPT].base
    if before and after:
        same = "the same" if same_detections(before, after, kept["classes"]) else "NOT the same"
        print(f"Detections of the {len(kept['classes'])} kept classes with the option and before: {same}, bit for bit.")


if __name__ == "__main__":
    main()

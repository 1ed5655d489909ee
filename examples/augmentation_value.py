"""What does each augmentation add? mAP with all six, without each in turn, and with none.

    python examples/augmentation_value.py --weights yolox_nano_coco.pth --source 'coco:data/{class}/pool' \\
        --test-source 'coco:data/{class}/test' helmet fish flower raccoon

The setup is `symmetric 3`. Each row is a sweep of its own under --out, so a stopped comparison continues where it was.
The gain of an operation is paired: mAP with all six minus mAP without it, over the same shots and seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from fewshot_cli.augmentation.config import OPERATIONS
from fewshot_cli.sweeps.run import sweep
from fewshot_cli.sweeps.summary import estimate

ROWS: dict[str, tuple[str, ...]] = {
    "all six": OPERATIONS,
    **{f"without {name}": tuple(op for op in OPERATIONS if op != name) for name in OPERATIONS},
    "none": (),
}
Scores = dict[tuple[str, int], float]
"""mAP by class and seed."""


def measure(row: str, options: argparse.Namespace) -> Scores:
    """mAP of every class and seed with the operations of a row."""
    result = sweep(
        options.classes,
        source=options.source,
        out=options.out / row.replace(" ", "-"),
        jobs=options.jobs,
        test_source=options.test_source,
        policies=("symmetric",),
        budgets=(3,),
        baselines=False,
        seeds=options.seeds,
        detectors=(options.detector,),
        weights=options.weights,
        test_images=options.test_images,
        eval_every=0,
        options={**options.options, "ops": list(ROWS[row])},
    )
    if result.failures:
        raise SystemExit(f"{result.failures[0].cell}: {result.failures[0].message}")
    found = {(cell.group.class_name, cell.group.seed): float(one["ap"]) for cell, one in result.folder.results()}
    print(f"{row}: {statistics.mean(found.values()):.4f}", flush=True)
    return found


def per_seed(found: Scores) -> list[float]:
    """The average over the classes, for each seed."""
    seeds = sorted({seed for _, seed in found})
    return [statistics.mean(ap for (_, of), ap in found.items() if of == seed) for seed in seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", nargs="+")
    parser.add_argument("--source", required=True)
    parser.add_argument("--test-source")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-images", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1, help="fine-tunes at a time")
    parser.add_argument("--options", type=json.loads, default={}, help="options of every fine-tune, as JSON")
    parser.add_argument("--out", type=Path, default=Path("sweep/augmentation"))
    options = parser.parse_args()
    found = {row: measure(row, options) for row in ROWS}

    print(f"\n| operations | {' | '.join(options.classes)} | average | all six minus this |")
    print("| --- |" + " --- |" * (len(options.classes) + 2))
    whole = per_seed(found["all six"])
    for row, scores in found.items():
        columns = [estimate([ap for (of, _), ap in scores.items() if of == name]) for name in options.classes]
        gains = [a - b for a, b in zip(whole, per_seed(scores), strict=True)]
        gain = estimate(gains) if row != "all six" else "–"
        print(f"| {row} | {' | '.join(map(str, columns))} | {estimate(per_seed(scores))} | {gain} |")


if __name__ == "__main__":
    main()

"""What does each augmentation add? mAP with all six, without each in turn, and with none.

    python examples/augmentation_value.py --weights yolox_nano_coco.pth helmet=DATA/helmet fish=DATA/fish

Same data, cells, resumption and intervals as `compare_policies.py`; the setup is `symmetric 3`. The gain of an
operation is paired: mAP with all six minus mAP without it, over the same shots and seeds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from compare_policies import Cell, interval, measure_all

from fewshot_cli.data.augmentation import DEFAULT_OPERATIONS, OPERATIONS

SETUP = "symmetric 3"
ROWS: dict[str, tuple[str, ...]] = {
    "all six": OPERATIONS,
    **{f"without {name}": tuple(op for op in OPERATIONS if op != name) for name in OPERATIONS},
    "none": (),
}


def measure_row(name: str, ops: tuple[str, ...], cells: list[Cell], options: argparse.Namespace) -> dict[Cell, float]:
    """mAP of every cell with these operations; the shots are shared by all rows."""
    folder = options.out / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    given = argparse.Namespace(**{**vars(options), "out": folder, "option": [("ops", list(ops))]})
    print(f"--- {name}", flush=True)
    return measure_all(cells, given)


def per_seed(found: dict[Cell, float], seeds: int) -> list[float]:
    """The average over the classes, for each seed."""
    return [statistics.mean(ap for cell, ap in found.items() if cell.seed == seed) for seed in range(seeds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="CLASS=FOLDER|miniature")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="fine-tunes at a time")
    parser.add_argument("--out", type=Path, default=Path("comparison/augmentation"))
    options = parser.parse_args()
    sources = dict(entry.split("=", 1) for entry in options.data)
    cells = [Cell(name, source, SETUP, seed) for seed in range(options.seeds) for name, source in sources.items()]
    found = {row: measure_row(row, ops, cells, options) for row, ops in ROWS.items()}

    print(f"\n| operations | {' | '.join(sources)} | average | all six minus this |")
    print("| --- |" + " --- |" * (len(sources) + 2))
    whole = per_seed(found["all six"], options.seeds)
    for row, results in found.items():
        columns = [interval([results[cell] for cell in cells if cell.name == name]) for name in sources]
        average = per_seed(results, options.seeds)
        gain = interval([a - b for a, b in zip(whole, average, strict=True)]) if row != "all six" else "–"
        print(f"| {row} | {' | '.join(columns)} | {interval(average)} | {gain} |")
    print(f"\nThe default set is {', '.join(DEFAULT_OPERATIONS)}.")


if __name__ == "__main__":
    main()

"""Which layers should train? mAP of several policies on several classes, over several seeds.

    python examples/compare_policies.py --weights yolox_nano_coco.pth helmet=DATA/helmet fish=DATA/fish
    python examples/compare_policies.py --detector retinanet_mini helmet=miniature bird=miniature

A class comes from a folder with pool/ (or train/) and test/ in COCO format, or from the embedded world. A seed draws
the shots, the variants and the batches. Finished cells are kept in --out and not computed again, so a stopped
comparison goes on where it was. Prints a Markdown table: mean ± half the 95 % confidence interval (Student's t) over
the seeds, of the mAP after the last iteration, never of the best one. Classes that the pretrained detector knows are
in-domain, the others out-of-domain.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fewshot_cli.data.fetch import FetchRequest, fetch
from fewshot_cli.detectors.registry import build_detector, get_spec
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.training.finetune import finetune

SETUPS: dict[str, tuple[str, int | None]] = {
    "none (zero-shot)": ("none", None),
    "last 1": ("last", 1),
    "last 2": ("last", 2),
    "symmetric 2": ("symmetric", 2),
    "last 3": ("last", 3),
    "symmetric 3": ("symmetric", 3),
    "last 4": ("last", 4),
    "symmetric 4": ("symmetric", 4),
    "all": ("all", None),
    "full": ("full", None),
}
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Two-sided 95 % quantile of Student's t for so many seeds."""


class Cell(NamedTuple):
    """One fine-tune: the class, where its pictures come from, a key of SETUPS, the seed."""

    name: str
    source: str
    setup: str
    seed: int


def measure(cell: Cell, options: argparse.Namespace) -> float:
    """mAP of one cell, from disk if it is there already."""
    policy, budget = SETUPS[cell.setup]
    run = Run(options.out / "runs" / f"{cell.name.replace(' ', '_')}-{policy}{budget or ''}-seed{cell.seed}")
    if not run.finished:
        config = FinetuneConfig.from_json(
            {
                "data": str(options.out / "data" / data_name(cell)),
                "detector": options.detector,
                "weights": options.weights,
                "policy": policy,
                "budget": budget,
                "seed": cell.seed,
                "eval_every": 0,
                **dict(options.option),
            }
        )
        run.folder.mkdir(parents=True, exist_ok=True)
        run.write_config(config)
        finetune(config, run)
    result = run.read_result()
    print(
        f"{cell.name}, {cell.setup}, seed {cell.seed}: {result['ap']:.4f} in {result['seconds']['total']:.0f} s",
        flush=True,
    )
    return float(result["ap"])


def data_name(cell: Cell) -> str:
    return f"{cell.name.replace(' ', '_')}-seed{cell.seed}"


def draw_shots(cell: Cell, options: argparse.Namespace) -> None:
    """Fetch the data set that all setups of this class and seed share."""
    folder = Path(cell.source)
    pool = f"coco:{folder / 'pool' if (folder / 'pool').exists() else folder}"
    miniature = cell.source == "miniature"
    request = FetchRequest(
        source=cell.source if miniature else pool,
        test_source=None if miniature else f"coco:{folder / 'test'}",
        classes=(cell.name,),
        shots=options.shots,
        seed=cell.seed,
        name=data_name(cell),
        root=options.out / "data",
    )
    fetch(request)


def use_threads(count: int) -> None:
    """What a worker does first: several workers with all cores each would only wait for each other."""
    import torch

    torch.set_num_threads(count)


def measure_all(cells: list[Cell], options: argparse.Namespace) -> dict[Cell, float]:
    """mAP of every cell, `--jobs` at a time."""
    for cell in {(cell.name, cell.seed): cell for cell in cells}.values():
        draw_shots(cell, options)
    if options.jobs == 1:
        return {cell: measure(cell, options) for cell in cells}
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    with ProcessPoolExecutor(options.jobs, initializer=use_threads, initargs=(threads,)) as pool:
        return dict(zip(cells, pool.map(measure, cells, [options] * len(cells)), strict=True))


def interval(values: list[float]) -> str:
    """Mean ± half the confidence interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5:.3f}"


def average(row: dict[str, list[float]], names: list[str]) -> str:
    """Over classes, taken seed by seed, so that its interval is one over seeds too."""
    return interval([statistics.mean(of_seed) for of_seed in zip(*(row[name] for name in names), strict=True)])


def paired(symmetric: dict[str, list[float]], last: dict[str, list[float]], names: list[str]) -> str:
    """The difference over the same shots: mean over the classes, interval over the seeds, and wins."""
    gains = [[s - t for s, t in zip(symmetric[name], last[name], strict=True)] for name in names]
    pairs = [gain for of_class in gains for gain in of_class]
    wins = f"better in {sum(gain > 0 for gain in pairs)} of {len(pairs)} pairs"
    return f"{interval([statistics.mean(of_seed) for of_seed in zip(*gains, strict=True)])}; {wins}"


def parsed(text: str) -> tuple[str, object]:
    """`lr=0.004` as a field of FinetuneConfig and its value; a word that is no JSON stands for itself."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def domains(names: list[str], options: argparse.Namespace) -> dict[str, list[str]]:
    """The averages of the table: over all classes and, where both kinds are there, over each kind."""
    known = set(build_detector(options.detector, weights=options.weights).classes)
    kinds = {
        "in-domain": [name for name in names if name in known],
        "out-of-domain": [name for name in names if name not in known],
    }
    return {"average": names, **(kinds if all(kinds.values()) else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="CLASS=FOLDER|miniature")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …; up to 10")
    parser.add_argument("--setups", nargs="+", choices=SETUPS, help="default: all that the detector's head allows")
    parser.add_argument("--option", nargs="*", type=parsed, default=[], metavar="NAME=VALUE", help="of finetune")
    parser.add_argument("--jobs", type=int, default=1, help="fine-tunes at a time")
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    options = parser.parse_args()
    sources = dict(entry.split("=", 1) for entry in options.data)
    depth = get_spec(options.detector).head_depth
    setups = options.setups or [name for name, (_, budget) in SETUPS.items() if (budget or 0) < depth]

    # Seed by seed: a comparison that is stopped early has whole seeds.
    cells = [
        Cell(name, source, setup, seed)
        for seed in range(options.seeds)
        for name, source in sources.items()
        for setup in setups
    ]
    found = measure_all(cells, options)
    table = {
        setup: {name: [found[cell] for cell in cells if (cell.name, cell.setup) == (name, setup)] for name in sources}
        for setup in setups
    }
    averages = domains(list(sources), options)
    print(f"\n| setup | {' | '.join((*sources, *averages))} |")
    print("| --- |" + " --- |" * (len(sources) + len(averages)))
    for setup, row in table.items():
        columns = [
            *(interval(values) for values in row.values()),
            *(average(row, names) for names in averages.values()),
        ]
        print(f"| {setup} | {' | '.join(columns)} |")
    for budget in (2, 3, 4):
        if {f"symmetric {budget}", f"last {budget}"} <= table.keys():
            for kind, names in averages.items():
                gain = paired(table[f"symmetric {budget}"], table[f"last {budget}"], names)
                print(f"\nsymmetric {budget} − last {budget}, {kind}: {gain}.")


if __name__ == "__main__":
    main()

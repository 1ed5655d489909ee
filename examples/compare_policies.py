"""Which layers should train? mAP of several policies on several data sets, over several seeds.

    python examples/compare_policies.py --weights yolox_nano_coco.pth helmet=DATA/helmet fish=DATA/fish

Each data set is a folder with pool/ (or train/) and test/ in COCO format; the class has the data set's name. A seed
draws the shots, the variants and the batches. Finished cells are kept in --out and not computed again, so a stopped
comparison goes on where it was. Prints a Markdown table: mean ± half the 95 % confidence interval (Student's t) over
the seeds, of the mAP after the last iteration, never of the best one.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from fewshot_cli.data.fetch import FetchRequest, fetch
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
    "all": ("all", None),
    "full": ("full", None),
}
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Two-sided 95 % quantile of Student's t for so many seeds."""


def measure(name: str, source: Path, setup: str, seed: int, options: argparse.Namespace) -> float:
    """mAP of one cell, from disk if it is there already."""
    policy, budget = SETUPS[setup]
    run = Run(options.out / "runs" / f"{name}-{policy}{budget or ''}-seed{seed}")
    if not run.finished:
        request = FetchRequest(
            source=f"coco:{source / 'pool' if (source / 'pool').exists() else source}",
            test_source=f"coco:{source / 'test'}",
            classes=(name,),
            shots=options.shots,
            seed=seed,
            name=f"{name}-seed{seed}",
            root=options.out / "data",
        )
        config = FinetuneConfig(
            data=str(fetch(request).dataset.path),
            detector=options.detector,
            weights=options.weights,
            policy=policy,
            budget=budget,
            seed=seed,
            eval_every=0,
            **dict(options.option),
        )
        run.folder.mkdir(parents=True, exist_ok=True)
        run.write_config(config)
        finetune(config, run)
    result = json.loads(run.result_file.read_text())
    print(f"{name}, {setup}, seed {seed}: {result['ap']:.4f} in {result['seconds']['total']:.0f} s", flush=True)
    return float(result["ap"])


def cell(values: list[float]) -> str:
    """Mean ± half the confidence interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5:.3f}"


def paired(symmetric: dict[str, list[float]], last: dict[str, list[float]], budget: int) -> str:
    """The difference at one budget over the same shots: mean over the data sets, interval over the seeds, and wins."""
    gains = [[s - t for s, t in zip(symmetric[name], last[name], strict=True)] for name in symmetric]
    averages = [statistics.mean(of_seed) for of_seed in zip(*gains, strict=True)]
    pairs = [gain for of_set in gains for gain in of_set]
    wins = sum(gain > 0 for gain in pairs)
    return f"\nsymmetric {budget} − last {budget}: {cell(averages)}; better in {wins} of {len(pairs)} pairs."


def parsed(text: str) -> tuple[str, object]:
    """`lr=0.004` as a field of FinetuneConfig and its value; a word that is no JSON stands for itself."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="CLASS=FOLDER")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …; up to 10")
    parser.add_argument("--setups", nargs="+", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--option", nargs="*", type=parsed, default=[], metavar="NAME=VALUE", help="of finetune")
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    options = parser.parse_args()
    folders = {name: Path(folder) for name, folder in (entry.split("=", 1) for entry in options.data)}

    table: dict[str, dict[str, list[float]]] = {setup: {name: [] for name in folders} for setup in options.setups}
    for seed in range(options.seeds):
        for name, folder in folders.items():
            for setup in options.setups:
                table[setup][name].append(measure(name, folder, setup, seed, options))

    print(f"\n| setup | {' | '.join(folders)} | average |")
    print("| --- |" + " --- |" * (len(folders) + 1))
    for setup, row in table.items():
        # The average over data sets is taken seed by seed, so that its interval is one over seeds too.
        averages = [statistics.mean(values) for values in zip(*row.values(), strict=True)]
        print(f"| {setup} | {' | '.join(cell(values) for values in row.values())} | {cell(averages)} |")
    for budget in (2, 3):
        if {f"symmetric {budget}", f"last {budget}"} <= table.keys():
            print(paired(table[f"symmetric {budget}"], table[f"last {budget}"], budget))


if __name__ == "__main__":
    main()

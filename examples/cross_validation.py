"""How far is cross-validation on the shots from the truth? The estimated mAP against the mAP on a test set, and F1 at
the threshold found on the shots against F1 at 0.3 and at the best threshold that the test set itself would give.

    python examples/cross_validation.py data/helmet data/fish data/aquarium --weights yolox_nano_coco.pth

Each folder holds pool/ and test/ with annotations; a folder without them stands for the data sets in it. For every seed
shots of all classes are drawn from the pool and a detector is fine-tuned on them with a cross-validation, which never
sees the test set. A stopped comparison continues where it was. The table goes to stdout, remarks to stderr, a scatter
plot to --plot.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.splits import images_per_class
from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import FsodError
from fewshot_cli.evaluation.thresholds import rank
from fewshot_cli.inference.filtering import SCORE_THRESHOLD
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sweeps.summary import estimate
from fewshot_cli.verbs.finetune import run_at


class Outcome(NamedTuple):
    """One run: the mAP as estimated (mean over folds with half its interval, and on all left-out shots at once) and as
    measured on the test set; F1 there, averaged over classes, at three thresholds."""

    estimated: float
    interval: float
    pooled: float
    measured: float
    f1_chosen: float
    f1_fixed: float
    f1_best: float

    @property
    def error(self) -> float:
        return self.estimated - self.measured

    @property
    def covered(self) -> bool:
        """Whether the measured mAP lies within the interval of the estimate."""
        return abs(self.error) <= self.interval


def data_sets(folders: Sequence[Path]) -> Iterator[Path]:
    """Folders with pool/ and test/, given themselves or inside a given one."""
    for folder in folders:
        if (folder / "pool").is_dir():
            yield folder
        else:
            yield from (found for found in sorted(folder.iterdir()) if (found / "pool").is_dir())


def run_once(folder: Path, seed: int, options: argparse.Namespace) -> Outcome:
    """Draw, fine-tune, cross-validate and compare; what an earlier call finished is used again."""
    counts = images_per_class(read_split(folder / "pool", decode_images=False))
    request = FetchRequest(
        source=f"coco:{folder / 'pool'}",
        test_source=f"coco:{folder / 'test'}",
        classes=tuple(name for name, count in counts.items() if count >= options.shots),
        shots=options.shots,
        test_images=options.test_images,
        seed=seed,
        root=options.out / "data",
        name=f"{folder.name}-seed{seed}",
    )
    config = FinetuneConfig(
        data=str(fetch(request).dataset.path.resolve()),
        detector=options.detector,
        weights=options.weights,
        policy=options.policy,
        budget=options.budget or None,
        seed=seed,
        eval_every=0,
        cross_validate=options.folds,
        **options.options,
    )
    return outcome_of(run_at(options.out / "runs" / request.folder_name, config))


def outcome_of(run: Run) -> Outcome:
    """What a finished run estimated, and what its predictions on the test set are worth."""
    result, test = run.result, open_dataset(run.read_config().data_folder).require_test()
    found = result["cross_validation"]
    if found is None:
        raise SystemExit(f"{run.folder} could not be cross-validated")
    rankings = {name: of for name, of in rank(test.to_coco(), run.read_predictions()).items() if of.objects}
    return Outcome(
        found["ap"],
        found["ap_interval"] or 0.0,
        found["pooled_ap"],
        result["ap"],
        statistics.mean(of.at(run.thresholds.get(name, SCORE_THRESHOLD)).f1 for name, of in rankings.items()),
        statistics.mean(of.at(SCORE_THRESHOLD).f1 for of in rankings.values()),
        statistics.mean(of.best()[1].f1 for of in rankings.values()),
    )


def row(name: str, outcomes: Sequence[Outcome]) -> str:
    """One line of the table: means over runs; errors are estimate minus test."""
    signed = [one.error for one in outcomes]
    cells = [
        str(estimate([one.estimated for one in outcomes])),
        str(estimate([one.measured for one in outcomes])),
        f"{statistics.mean(signed):+.3f}",
        f"{statistics.mean(map(abs, signed)):.3f}",
        f"{sum(one.covered for one in outcomes)} of {len(outcomes)}",
        f"{statistics.mean(one.pooled - one.measured for one in outcomes):+.3f}",
        f"{statistics.mean(abs(one.pooled - one.measured) for one in outcomes):.3f}",
        *(f"{statistics.mean(getattr(one, f1) for one in outcomes):.3f}" for f1 in Outcome._fields[-3:]),
    ]
    return f"| {name} | {' | '.join(cells)} |".replace("-0.", "−0.")


def draw(found: dict[str, list[Outcome]], path: Path) -> None:
    """Estimated against measured mAP, one mark a run, with the interval over folds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 5))
    most = max(max(one.estimated, one.measured) for outcomes in found.values() for one in outcomes) * 1.1 + 0.01
    axes.plot([0, most], [0, most], color="0.6", linewidth=1)
    for name, outcomes in found.items():
        x, y, interval = zip(*((one.measured, one.estimated, one.interval) for one in outcomes), strict=True)
        axes.errorbar(x, y, yerr=interval, fmt="o", capsize=2, elinewidth=0.6, label=name)
    axes.set(xlim=(0, most), ylim=(0, most), xlabel="mAP on the test set", ylabel="mAP cross-validated on the shots")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--test-images", type=int, default=100)
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--policy", default="symmetric")
    parser.add_argument("--budget", type=int, default=3, help="0: of a policy that takes none")
    parser.add_argument("--options", type=json.loads, default={}, help="further options of every fine-tune, as JSON")
    parser.add_argument("--out", type=Path, default=Path("cross-validation"))
    parser.add_argument("--plot", type=Path, default=Path("cross-validation/scatter.png"))
    options = parser.parse_args()
    found: dict[str, list[Outcome]] = {}
    for folder in data_sets(options.folders):
        for seed in range(options.seeds):
            outcome = run_once(folder, seed, options)
            found.setdefault(folder.name, []).append(outcome)
            print(f"{folder.name}, seed {seed}: {outcome}", file=sys.stderr, flush=True)
    print(
        "| data set | estimated mAP | test mAP | error | absolute | in the interval | pooled: error | absolute ", end=""
    )
    print(f"| F1, threshold of the shots | F1 at {SCORE_THRESHOLD} | F1 at best |\n|{' --- |' * 11}")
    for name, outcomes in found.items():
        print(row(name, outcomes))
    print(row("all", [one for outcomes in found.values() for one in outcomes]))
    draw(found, options.plot)


if __name__ == "__main__":
    try:
        main()
    except FsodError as error:
        raise SystemExit(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")) from error

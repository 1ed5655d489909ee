"""What should train, and how much of it should be kept? mAP of fixed policies, of the default and of `--policy auto`,
each as trained and averaged with the weights before training.

    python examples/what_trains.py helmet=data/helmet person=data/coco_val128 --weights yolox_nano_coco.pth

NAME=DIR: a class, and a folder that holds test/ and usually pool/ (else the shots are drawn from test/, and the other
images are the test set). Every setup is trained once a seed and measured at several shares α of the trained weights,
one interpolation each. What policy auto chooses, or would choose by a simpler rule, is trained too. Tables go to
stdout, remarks to stderr.

Of setups of your own (and without policy auto), which of two policies is better as trained and averaged:

    python examples/what_trains.py helmet=data/helmet --setups "last 2; symmetric 2" --searched-seeds 0

A comparison that was stopped continues where it was, and several calls with the same --out share the work. What a call
that was killed had begun is left out by later ones until its file .begun is deleted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.errors import FsodError
from fewshot_cli.evaluation.measure import score
from fewshot_cli.files import write_json
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.selection.search import search
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sweeps.summary import estimate
from fewshot_cli.threads import use_threads
from fewshot_cli.training.averaging import ALPHAS, CLASS_ALPHA, Averaging
from fewshot_cli.training.class_init import Start
from fewshot_cli.training.features import FeatureStore, cache_features, detect_cached
from fewshot_cli.training.fit import fit_part
from fewshot_cli.training.objectives import DetectorLosses
from fewshot_cli.training.prepare import prepare
from fewshot_cli.training.rates import BACKBONE_SHARE

SILENT = SilentReporter()
SETUPS = "symmetric 3; full, backbone rate 0.02; full, backbone rate 0.1"
BASELINE = "full, backbone rate 0.02"
RULES: dict[str, Callable[[dict[str, Any]], str]] = {
    "policy auto": lambda search: search["chosen"],
    "highest score on left-out shots": lambda search: max(finished(search), key=lambda one: one["score"])["name"],
    "fewest parameters within one standard error of it": lambda search: simplest(search),
    "highest relative gradient norm": lambda search: max(ranked(search), key=lambda one: one["criterion"])["name"],
}
"""What chooses from a search of policy auto: itself, and simpler rules."""


class Cell(NamedTuple):
    """One class, seed and setup, and what it gave: α → mAP, and what the class is to the detector."""

    name: str
    seed: int
    setup: str
    aps: dict[float, float]
    start: Start


class Chosen(NamedTuple):
    """What each rule chose for a class and seed."""

    name: str
    seed: int
    setups: dict[str, str]


def finished(search: dict[str, Any]) -> list[dict[str, Any]]:
    """The candidates that were measured on all left-out shots."""
    return [one for one in search["candidates"] if not one["dropped"]]


def simplest(search: dict[str, Any]) -> str:
    """Of the candidates that are worse than the best by no more than one standard error."""
    close = [one for one in finished(search) if one["behind"] <= (one["behind_error"] or 0.0)]
    return str(min(close, key=lambda one: (one["parameters"], -one["score"]))["name"])


def ranked(search: dict[str, Any]) -> list[dict[str, Any]]:
    """The candidates of the head, each with the mean of the criterion over its layers."""
    return [one for one in search["candidates"] if one["criterion"] is not None]


def setup_of(name: str) -> dict[str, Any]:
    """Options of a setup: `symmetric 3`, `all`, `full, backbone rate 0.1`."""
    policy, _, share = name.partition(", backbone rate ")
    policy, _, budget = policy.partition(" ")
    return {
        "policy": policy,
        "budget": int(budget) if budget else None,
        "backbone_lr": float(share) if share else None,
    }


def draw(name: str, folder: Path, seed: int, options: argparse.Namespace) -> Dataset:
    """Shots of the class from pool/, and its images in test/."""
    pool, test = folder / "pool", folder / "test"
    request = FetchRequest(
        source=f"coco:{pool if pool.is_dir() else test}",
        test_source=f"coco:{test}" if pool.is_dir() else None,
        classes=(name,),
        shots=options.shots,
        test_images=options.test_images,
        seed=seed,
        root=options.out / "data",
        name=f"{name}-{seed}",
    )
    return fetch(request).dataset


def config_of(data: Dataset, seed: int, options: argparse.Namespace, **setup: Any) -> FinetuneConfig:
    return FinetuneConfig(
        data=str(data.path.resolve()),
        detector=options.detector,
        weights=options.weights,
        seed=seed,
        **{**setup, **options.options},
    )


def train(config: FinetuneConfig, data: Dataset, store: FeatureStore, options: argparse.Namespace) -> dict[str, Any]:
    """Train once, and measure at every α."""
    prepared = prepare(config, data, SILENT)
    features = cache_features(prepared, config, data, folder=options.out, store=store, reporter=SILENT)
    averaging = Averaging(prepared.detector)
    objective = DetectorLosses(prepared.detector, features.cut)
    fit_part(prepared, features, range(len(features.train)), objective, config, after_step=lambda done, losses: None)
    aps = {}
    assert data.test is not None and features.test is not None
    for alpha in ALPHAS:
        with averaging.applied(alpha):
            found = detect_cached(prepared.placed, features.cut, features.test, range(len(features.test)))
        aps[str(alpha)] = score(found, data.test, prepared.detector.classes)[0].ap
    return {"aps": aps, "start": next(iter(prepared.starts.values())).value}


def choose(data: Dataset, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What policy auto would train."""
    config = config_of(data, seed, options, policy="auto", budget="auto")
    found = search(config, data, folder=options.out, done={}, keep=lambda scores: None, reporter=SILENT)
    if found is None:
        raise SystemExit(f"{data.path} has too few shots for policy auto")
    return found.to_json()


def once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """The document at that path, made by the first call; None while another process makes it."""
    if not path.exists():
        begun = path.with_suffix(".begun")
        try:
            begun.touch(exist_ok=False)
        except FileExistsError:
            return None
        print(path.stem, file=sys.stderr, flush=True)
        try:
            write_json(path, make())
        finally:
            begun.unlink()
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def run(options: argparse.Namespace) -> Iterator[Cell | Chosen]:
    """Every cell, and what policy auto chose for each class and seed."""
    for seed in range(options.seeds):
        for name, folder in options.sets:
            data, store = draw(name, folder, seed, options), FeatureStore()
            stem = options.out / f"{name}-{seed}"
            setups = list(options.setups)
            if seed < options.searched_seeds:
                found = once(stem.with_name(f"{stem.name}-search.json"), partial(choose, data, seed, options))
                if found:
                    chosen = {rule: choice(found) for rule, choice in RULES.items()}
                    yield Chosen(name, seed, chosen)
                    setups += sorted(set(chosen.values()) - {"none", *setups})
            for setup in setups:
                config = config_of(data, seed, options, **setup_of(setup))
                found = once(stem.with_name(f"{stem.name}-{setup}.json"), partial(train, config, data, store, options))
                if found:
                    aps = {float(alpha): ap for alpha, ap in found["aps"].items()}
                    yield Cell(name, seed, setup, aps, Start(found["start"]))


Scores = dict[tuple[str, int], float]
"""(class, seed) → mAP."""


def table_rows(cells: list[Cell], chosen: list[Chosen], setups: list[str]) -> dict[str, Scores]:
    """Title → mAP for each class and seed that has been measured."""
    none = scores(cells, untrained)
    rows = {"none": none}
    for setup in setups:
        own = [cell for cell in cells if cell.setup == setup]
        rows[setup] = scores(own, trained)
        rows[f"{setup}, averaged"] = scores(own, averaged)
    rates = {kind: f"full, backbone rate {share:g}" for kind, share in BACKBONE_SHARE.items()}
    default = [cell for cell in cells if cell.setup == rates[cell.start]]
    rows["**default (full, averaged)**"] = scores(default, averaged)
    rows["the same, not averaged"] = scores(default, trained)
    for rule in RULES:
        choice = {(each.name, each.seed): each.setups[rule] for each in chosen}
        own = [cell for cell in cells if cell.setup == choice.get((cell.name, cell.seed))]
        # Policy none is no cell of its own: α = 0 of any other.
        nothing = {key: ap for key, ap in none.items() if choice.get(key) == "none"}
        rows[f"{rule}, averaged"] = nothing | scores(own, averaged)
        rows[f"{rule}, not averaged"] = nothing | scores(own, trained)
    for title, kind in [("", ""), (", averaged", ", averaged")]:
        rows[f"best fixed policy of each class and seed{title}"] = {
            key: max(rows[row][key] for row in ("none", *(f"{s}{kind}" for s in setups)) if key in rows[row])
            for key in none
        }
    return {title: row for title, row in rows.items() if row}


def scores(cells: list[Cell], ap: Callable[[Cell], float]) -> Scores:
    return {(cell.name, cell.seed): ap(cell) for cell in cells}


def untrained(cell: Cell) -> float:
    """mAP before training."""
    return cell.aps[0.0]


def trained(cell: Cell) -> float:
    """mAP as trained."""
    return cell.aps[1.0]


def averaged(cell: Cell) -> float:
    """mAP at the α that follows from the class."""
    return cell.aps[CLASS_ALPHA[cell.start]]


def line(title: str, row: Scores, baseline: Scores, names: list[str]) -> str:
    """Means over seeds, their average, and the paired difference to the baseline with its interval over seeds."""
    of = {name: [ap for (own, _), ap in row.items() if own == name] for name in names}
    cells = [f"{statistics.mean(aps):.3f}" if aps else "–" for aps in of.values()]
    seeds = sorted({seed for _, seed in row if all((name, seed) in row for name in names)})
    means = [statistics.mean(row[name, seed] for name in names) for seed in seeds]
    gains = [statistics.mean(row[name, seed] - baseline[name, seed] for name in names) for seed in seeds]
    average, gain = (str(estimate(values)) if values else "–" for values in (means, gains))
    return f"| {title} | {' | '.join(cells)} | {average} | {gain} | {len(seeds)} |".replace("-0.", "−0.")


def by_alpha(cells: list[Cell], setups: list[str]) -> Iterator[str]:
    """Mean over cells, by setup, what the class is to the detector, and α."""
    for setup in setups:
        for kind in Start:
            own = [cell for cell in cells if (cell.setup, cell.start) == (setup, kind)]
            if own:
                means = [f"{statistics.mean(cell.aps[alpha] for cell in own):.3f}" for alpha in ALPHAS]
                yield f"| {setup} | {kind.value} | {len(own)} | {' | '.join(means)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=lambda text: (text.split("=")[0], Path(text.split("=")[1])))
    parser.add_argument("--setups", type=lambda text: [name.strip() for name in text.split(";")], default=SETUPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--searched-seeds", type=int, default=3, help="seeds for which policy auto is searched")
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--test-images", type=int, default=200)
    parser.add_argument("--options", type=json.loads, default={}, help="further options of every fine-tune, as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("what-trains"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    use_threads(options.threads)
    found = list(run(options))
    cells = [each for each in found if isinstance(each, Cell)]
    chosen = [each for each in found if isinstance(each, Chosen)]
    names = [name for name, _ in options.sets]
    rows = table_rows(cells, chosen, options.setups)
    baseline = BASELINE if BASELINE in rows else options.setups[0]
    print(f"| | {' | '.join(names)} | average | minus {baseline} | seeds |\n|{' --- |' * (len(names) + 4)}")
    for title, row in rows.items():
        print(line(title, row, rows[baseline], names))
    shares = " | ".join(f"α = {alpha:g}" for alpha in ALPHAS)
    print(f"\n| setup | class | runs | {shares} |\n|{' --- |' * (len(ALPHAS) + 3)}")
    print("\n".join(by_alpha(cells, options.setups)))
    for each in chosen:
        print(f"\n{each.name}, seed {each.seed}: {json.dumps(each.setups)}")


if __name__ == "__main__":
    try:
        main()
    except FsodError as error:
        raise SystemExit(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")) from error

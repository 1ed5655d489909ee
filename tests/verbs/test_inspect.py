"""inspect-layers: the chain in numbers, held against the real detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_runs import TINY, config_of, fsod
from rich.console import Console

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.policies import POLICIES, select
from fewshot_cli.progress import SilentReporter
from fewshot_cli.report.tables import criteria_table
from fewshot_cli.runs.folder import Run
from fewshot_cli.selection.gradients import measure_layers
from fewshot_cli.training.features import FeatureStore, cache_features
from fewshot_cli.training.plan import freeze, trained_parameters
from fewshot_cli.training.prepare import prepare

CASES = [
    ("yolox_nano", "symmetric", 3, 64, 1),
    ("yolox_nano", "last", 1, 96, 7),
    ("yolox_tiny", "last", 2, 64, 1),
    ("yolox_nano", "full", None, 64, 2),
    ("yolox_nano", "none", None, 64, 80),
    ("retinanet_resnet50_fpn", "symmetric", 4, 64, 1),
    ("retinanet_resnet50_fpn_v2", "last", 2, 64, 3),
    ("fasterrcnn_mobilenet_v3_large_fpn", "last", 1, 64, 2),
    ("fasterrcnn_mobilenet_v3_large_fpn", "all", None, 64, 1),
    ("ssdlite320_mobilenet_v3_large", "last", 1, 64, 2),
    ("ssd_mobilenet_v2_fpnlite", "symmetric", 2, 96, 2),
]


def report_of(target: str | Path, *options: object) -> dict[str, Any]:
    result = fsod("inspect-layers", target, *map(str, options), "--json")
    assert 0 == result.exit_code, result.stderr
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize(("name", "policy", "budget", "size", "classes"), CASES)
def test_the_numbers_are_those_of_the_real_detector(
    name: str, policy: str, budget: int | None, size: int, classes: int
) -> None:
    """Parameters, what trains, the cut, and the megabytes at the cut: counted on a built and frozen detector."""
    options = [] if budget is None else ["--budget", budget]
    report = report_of(name, "--policy", policy, *options, "--image-size", size, "--classes", classes)

    detector = build_detector(name, weights="none", image_size=size)
    detector.replace_classes([f"c{i}" for i in range(classes)], [()] * classes)
    split = freeze(detector, select(policy, budget, detector.head_depth, stages=detector.backbone_stages))
    with torch.no_grad():
        canvas = detector.make_canvas(torch.zeros(3, size, size, dtype=torch.uint8))
        activations = detector.run(batch_of([canvas]), 0, split.cut)

    assert sum(p.numel() for p in detector.network.parameters()) == report["parameters"]
    assert sum(p.numel() for p in trained_parameters(detector).values()) == report["trained"]["parameters"]
    assert [layer.name for layer in detector.layers] == [row["name"] for row in report["layers"]]
    assert list(split.trained) == [row["trained"] for row in report["layers"]]
    assert sum(tensor.nbytes for tensor in activations) / 1e6 == pytest.approx(report["cached_mb"], abs=1e-4)
    names = [layer.name for layer in detector.layers]
    assert (names[split.cut] if split.cut < len(names) else None) == report["cut"]


@pytest.mark.parametrize("name", DETECTORS)
def test_rows_add_up_to_the_totals(name: str) -> None:
    """Rows sum to the detector, shares to one; trained rows to the totals in layers and in parameters."""
    report = report_of(name, "--policy", "all")
    rows = report["layers"]
    trained = [row for row in rows if row["trained"]]
    assert report["parameters"] == sum(row["parameters"] for row in rows)
    assert 1 == pytest.approx(sum(row["share"] for row in rows))
    assert report["trained"] == {
        "layers": len(trained),
        "head_layers": sum(row["part"] == "head" for row in trained),
        "parameters": sum(row["parameters"] for row in trained),
    }
    assert [report["cut"]] == [row["name"] for row in rows if row["cut_before"]]
    assert DETECTORS[name].head_depth == report["head_depth"] == sum(row["part"] == "head" for row in rows)
    assert DETECTORS[name].image_size == report["image_size"]


def test_it_promises_what_finetune_does(trained: Run) -> None:
    """Before: the detector with the same options; after: the run. Both say what the run's result says."""
    result = trained.read_result()
    before = report_of("yolox_nano", "--policy", "symmetric", "--budget", 3, "--classes", 2, "--image-size", 64)
    after = report_of(trained.folder)
    assert before == after
    assert result["parameters"] == {"trained": after["trained"]["parameters"], "total": after["parameters"]}
    assert result["trained_layers"] == [row["name"] for row in after["layers"] if row["trained"]]


def test_neck_and_stages_count_as_layers() -> None:
    """--train-neck and --backbone-stages add layers outside the head, and move the cut to the front."""
    report = report_of("yolox_nano", "--policy", "last", "--budget", 1, "--train-neck", "--backbone-stages", 2)
    trained = [row["name"] for row in report["layers"] if row["trained"]]
    assert ["backbone.dark4", "backbone.dark5", "neck", "head.4"] == trained
    assert (4, 1, "backbone.dark4") == (report["trained"]["layers"], report["trained"]["head_layers"], report["cut"])


def test_the_table_says_it_in_words() -> None:
    """Without --json: every layer with its state, the place of the cache, and both totals."""
    shown = fsod("inspect-layers", "yolox_nano", "--policy", "symmetric", "--budget", "3").stdout
    report = report_of("yolox_nano", "--policy", "symmetric", "--budget", 3)
    for row in report["layers"]:
        line = next(line for line in shown.splitlines() if row["name"] in line.split())
        assert f"{row['parameters']:,}" in line and ("trained" if row["trained"] else "frozen") in line
    assert "Policy symmetric, budget 3" in shown and "features are cached here" in shown
    assert "Trained: 3 of 4 head layers, 3 of 10 layers in all" in shown
    assert f"{report['trained']['parameters']:,} of {report['parameters']:,} parameters" in shown


def test_without_a_target_it_lists_the_detectors() -> None:
    """`fsod inspect-layers` alone: every detector of the registry with its M."""
    shown = fsod("inspect-layers").stdout
    for name, spec in DETECTORS.items():
        assert any(line.startswith(name) and f"M = {spec.head_depth}" in line for line in shown.splitlines())
    assert set(DETECTORS) == set(json.loads(fsod("inspect-layers", "--json").stdout)["detectors"])


def test_every_policy_can_be_looked_at() -> None:
    """Every policy that is a rule works here, with a budget where it takes one."""
    for name, policy in POLICIES.items():
        if not policy.head_layers:
            continue
        budget = ["--budget", 2] if policy.takes_budget else []
        assert name == report_of("yolox_nano", "--policy", name, *budget)["policy"]


def test_without_a_policy_nothing_is_chosen() -> None:
    """The bare chain: no layer trains and no cut is shown."""
    report = report_of("yolox_nano")
    assert (0, None) == (report["trained"]["layers"], report["cut"])


def test_a_budget_in_parameters_is_shown_as_layers() -> None:
    """With the number of classes that the predictor has; the remark says how many layers it is."""
    shown = fsod("inspect-layers", "yolox_nano", "--policy", "symmetric", "--budget", "60k", "--classes", "2", "--json")
    report = json.loads(shown.stdout)
    assert (3, 59_989) == (report["budget"], report["trained"]["parameters"])
    assert "Budget: 60k parameters are 3 layers here (59,989 parameters)." in shown.stderr


def test_layers_can_be_looked_at_by_name() -> None:
    """Policy custom is implied; a layer's parameters are those that train."""
    report = report_of("yolox_nano", "--layers", "head.4,neck")
    trained = {row["name"]: row["parameters"] for row in report["layers"] if row["trained"]}
    assert (["neck", "head.4"], "custom", "neck") == (list(trained), report["policy"], report["cut"])
    assert sum(trained.values()) == report["trained"]["parameters"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--layers", "head.9"], 4, "yolox_nano has no layer 'head.9'"),
        (["--layers", "head.1", "--policy", "last"], 4, "--layers does not go with policy last"),
        (["--layers", "head.1", "--budget", "60k"], 4, "--layers names everything that trains"),
        (["--layers", "head.1", "--train-neck"], 4, "--layers names everything that trains"),
        (["--policy", "custom"], 4, "policy custom needs layers"),
        (["--policy", "last", "--budget", "60"], 4, "a budget of 60 is not possible with policy last"),
        (["--policy", "last", "--budget", "60p"], 4, "budget is '60p': give a number of head layers"),
        (["--policy", "last", "--budget", "1k"], 4, "a budget of 1k is too small for policy last on yolox_nano"),
        (["--policy", "last", "--budget", "auto"], 4, "--budget auto does not go with policy last"),
        (["--policy", "auto"], 4, "what policy auto trains is found on the shots"),
    ],
)
def test_what_cannot_train_is_told(options: list[str], code: int, message: str) -> None:
    """Options that contradict each other or the chain: an error with what would be right."""
    result = fsod("inspect-layers", "yolox_nano", *options)
    assert (code, "") == (result.exit_code, result.stdout)
    assert message in result.stderr and "hint: " in result.stderr


def test_contradictions_are_usage_errors(trained: Run) -> None:
    """A budget without a policy, and a policy for a run that has one: exit 2."""
    without = fsod("inspect-layers", "yolox_nano", "--budget", "2")
    fixed = fsod("inspect-layers", trained.folder, "--policy", "all")
    assert (2, 2) == (without.exit_code, fixed.exit_code)
    assert "--budget goes with --policy" in without.stderr and "its policy and budget are fixed" in fixed.stderr


# --- criteria, measured on a data set ---

SMALL = ["--weights", "none", "--image-size", 64, "--copies", 2, "--device", "cpu"]


def test_criteria_are_those_of_the_library(shapes: Path) -> None:
    """--criterion all: each layer has every criterion, as `measure_layers` gives them for a whole fine-tune."""
    config, quiet = config_of(shapes, TINY, policy="full", budget=None), SilentReporter()
    data = open_dataset(shapes)
    prepared = prepare(config, data, quiet)
    store = FeatureStore()
    found = measure_layers(prepared, cache_features(prepared, config, data, folder=shapes, store=store, reporter=quiet))

    report = report_of("yolox_nano", "--data", shapes, "--criterion", "all", *SMALL)
    assert found.values == {row["name"]: row["criteria"] for row in report["layers"]}
    assert (8, 2, 64, str(shapes)) == (report["gradients"], report["classes"], report["image_size"], report["data"])


@pytest.mark.parametrize(
    "policy",
    [["--policy", "symmetric", "--budget", 3], pytest.param(["--layers", "neck,head.1"], marks=pytest.mark.slow)],
)
def test_with_data_the_rest_of_the_report_stays(policy: list[str | int], shapes: Path) -> None:
    """What would train is marked, as without --data; rgn is the criterion; it needs no name of a detector."""
    measured = report_of("yolox_nano", "--data", shapes, *policy, *SMALL)
    assert ["rgn"] == list(measured["layers"][0]["criteria"])
    assert all(row.pop("criteria")["rgn"] > 0 for row in measured["layers"])
    del measured["data"], measured["gradients"]
    assert report_of("yolox_nano", *policy, "--image-size", 64, "--classes", 2) == measured
    without = report_of("--data", shapes, *SMALL)
    assert ("yolox_nano", "none", 0) == (without["detector"], without["policy"], without["trained"]["layers"])


@pytest.mark.parametrize(
    "count",
    [4, 1],
    ids=["all", "seed"],
)
def test_weights_seed_and_variants_decide_what_is_measured(count: int, shapes: Path, base_weights: Path) -> None:
    """The same command twice prints the same; other weights, classes' start, variants or seed print other numbers."""
    more = (
        ["--seed", 1],
        ["--copies", 2],
        ["--weights", base_weights],
        ["--weights", base_weights, "--init-class", "none"],
    )[:count]
    once = [*SMALL, "--copies", 1]
    shown = [json.dumps(report_of("yolox_nano", "--data", shapes, *once, *each)["layers"]) for each in ([], [], *more)]
    assert shown[0] == shown[1] and 1 + len(more) == len(set(shown))


def test_the_table_of_criteria_fits_80_columns(shapes: Path) -> None:
    """Every criterion of every layer in three digits, none of them cut or broken where a terminal has 80 columns."""
    options = [*SMALL, "--policy", "last", "--budget", 2, "--criterion", "all"]
    report = report_of("yolox_nano", "--data", shapes, *options)
    with (console := Console(width=80)).capture() as shown:
        console.print(criteria_table("yolox_nano", report["layers"]))
    lines = [line.split() for line in shown.get().splitlines()]
    for row in report["layers"]:
        numbers = [f"{row['parameters']:,}", *(f"{value:.3g}" for value in row["criteria"].values())]
        assert [row["name"], *numbers, "trained" if row["trained"] else "frozen"] in lines


@pytest.mark.parametrize(
    ("options", "code", "message", "hint"),
    [
        (["yolox_nano", "--criterion", "rgn"], 2, "--criterion goes with --data", "--data data/raccoon"),
        (["yolox_nano", "--init-class", "none"], 2, "--init-class goes with --data", "--data data/raccoon"),
        (["yolox_nano", "--data", "DATA", "--classes", "2"], 2, "--classes does not go with --data", "Drop --classes"),
        (["yolox_nano", "--data", "DATA", "--budget", "2"], 2, "--budget goes with --policy", "--policy symmetric"),
        (["RUN", "--data", "DATA"], 2, "is a run: --data goes with a detector", "Name the detector"),
        (["yolox_nano", "--data", "DATA", "--criterion", "rng"], 4, "unknown criterion 'rng'", "Did you mean rgn?"),
        (["yolox_nano", "--data", "DATA", "--policy", "lats"], 4, "unknown policy 'lats'", "Did you mean last?"),
        (["yolox_nano", "--data", "nowhere", "--weights", "none"], 3, "nowhere does not exist", "fsod fetch"),
        (["yolox_nanno", "--data", "DATA"], 5, "unknown detector 'yolox_nanno'", "Did you mean yolox_nano?"),
    ],
)
def test_wrong_options_of_a_measurement_are_told(
    options: list[str], code: int, message: str, hint: str, shapes: Path, trained: Run
) -> None:
    """Exit code, what is wrong, and what would be right; nothing on stdout."""
    places = {"DATA": str(shapes), "RUN": str(trained.folder)}
    result = fsod("inspect-layers", *(places.get(word, word) for word in options))
    assert (code, "") == (result.exit_code, result.stdout), result.stderr
    assert message in result.stderr and hint in result.stderr.partition("hint: ")[2]

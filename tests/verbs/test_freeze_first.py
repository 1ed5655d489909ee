"""Runs whose first convolutions stay frozen: everything that a run can do works for them too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_runs import TINY, Listening, argv_of, fsod, metrics_of

from fewshot_cli import compare, evaluate, finetune, load_run
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.runs.checkpoint import read_checkpoint
from fewshot_cli.runs.folder import Run

OPEN = {name: value for name, value in TINY.items() if name not in ("policy", "budget")}
"""A fine-tune that does not say yet what trains."""
FIRST = 30
"""In the middle of `backbone.dark4`."""
PARTLY = "backbone.dark4"


@pytest.fixture(scope="module")
def frozen(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on `shapes` by the command line."""
    runs = tmp_path_factory.mktemp("runs")
    done = fsod(*argv_of(shapes, OPEN, freeze_first=FIRST), "--runs", runs, "--json")
    assert 0 == done.exit_code, done.stderr
    return load_run(json.loads(done.stdout)["run"])


def inspected(*arguments: object) -> dict[str, Any]:
    result = fsod("inspect-layers", *map(str, arguments), "--json")
    assert 0 == result.exit_code, result.stderr
    return dict(json.loads(result.stdout))


def test_everything_behind_the_first_convolutions_trains(frozen: Run) -> None:
    """Name, configuration, checkpoint and result say so; frozen convolutions have no drift, most others some."""
    assert f"shapes-yolox_nano-full-freeze{FIRST}-seed0" == frozen.folder.name
    result, (tensors, info) = frozen.read_result(), read_checkpoint(frozen.checkpoint)
    names = [PARTLY, "backbone.dark5", "neck", "head.1", "head.2", "head.3", "head.4"]
    assert ("full", None, FIRST, names) == (
        *(result[key] for key in ("policy", "budget", "freeze_first", "trained_layers")),
    )
    assert (FIRST, tuple(names)) == (info.freeze_first, info.trained_layers)
    assert (FIRST, "full") == (frozen.read_config().freeze_first, frozen.read_config().policy)
    drifts = result["convolution_drift"]
    assert [0.0] * FIRST == drifts[:FIRST]
    assert len(drifts) == 113 and sum(value > 0 for value in drifts[FIRST:]) > 60
    assert names == [name for name, value in result["drift"].items() if value > 0]
    # The layer that trains in part is there as a whole.
    assert {name for name in tensors if ".dark4." in name} == {
        name for name, _ in build_detector("yolox_nano", weights="none").network.named_parameters() if ".dark4." in name
    }


def test_the_drift_of_a_partly_frozen_layer_is_that_of_all_its_parameters(frozen: Run) -> None:
    """So that it can be compared with that of a layer that trained as a whole."""
    tensors, _ = read_checkpoint(frozen.checkpoint)
    base = dict(build_detector("yolox_nano", weights="none", image_size=64).network.named_parameters())
    new, old = (
        torch.cat([source[name].detach().flatten() for name in base if ".dark4." in name]).double()
        for source in (tensors, base)
    )
    assert (
        pytest.approx(float(1 - (old @ new).abs() / old.norm() / new.norm()), abs=1e-12)
        == frozen.result["drift"][PARTLY]
    )


def test_inspect_layers_promises_what_the_run_does(frozen: Run) -> None:
    """Before and after; the convolutions that it lists as frozen are the first ones."""
    before = inspected("yolox_nano", "--freeze-first", FIRST, "--classes", 2, "--image-size", 64)
    assert before == inspected(frozen.folder)
    result = frozen.read_result()
    assert result["parameters"] == {"trained": before["trained"]["parameters"], "total": before["parameters"]}
    assert result["trained_layers"] == [row["name"] for row in before["layers"] if row["trained"]]
    assert ("full", PARTLY) == (before["policy"], before["cut"])
    assert [number > FIRST for number in range(1, 114)] == [each["trained"] for each in before["convolutions"]]


@pytest.mark.slow
def test_such_a_run_is_measured_again(frozen: Run, shapes: Path, tmp_path: Path) -> None:
    """From its checkpoint; and its configuration repeats it."""
    assert frozen.result["ap"] == evaluate(frozen).metrics.ap
    again = fsod("finetune", "--config", frozen.folder, "--runs", tmp_path, "--name", "again", "--json")
    assert 0 == again.exit_code, again.stderr
    assert metrics_of(frozen) == metrics_of(Run(tmp_path / "again"))


def test_the_table_and_the_page_say_so(frozen: Run) -> None:
    """What trained is told with what of it did not."""
    shown = fsod("finetune", "--resume", frozen.folder).stdout
    assert f"head.4, without the first {FIRST} convolutions:" in " ".join(shown.split())
    assert f"without the first {FIRST} convolutions" in (frozen.folder / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_a_stopped_run_continues(frozen: Run, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after an evaluation, it ends with the numbers of one that was not."""
    from fewshot_cli.training import finetune as training

    with monkeypatch.context() as patch:
        patch.setattr(training, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(shapes, runs=tmp_path, name="stopped", freeze_first=FIRST, **OPEN)
    assert 0 == fsod("finetune", "--resume", tmp_path / "stopped").exit_code
    assert metrics_of(frozen) == metrics_of(Run(tmp_path / "stopped"))


@pytest.mark.slow
def test_base_classes_are_kept_beside_them(shapes: Path, tmp_path: Path, base_weights: Path) -> None:
    """Both heads run from the layer on that trains in part; its base classes are found as before."""
    run = finetune(
        shapes, runs=tmp_path, freeze_first=FIRST, weights=str(base_weights), keep_base_classes=True,
        **{name: value for name, value in OPEN.items() if name != "weights"},
    )  # fmt: skip
    assert PARTLY == run.result["keep_base_classes"]["start"]
    assert run.result["ap"] == evaluate(run).metrics.ap


@pytest.mark.slow
def test_averaging_leaves_them_where_they_are(shapes: Path, tmp_path: Path) -> None:
    """Half of what trained: all convolutions behind the first ones move less, and the first ones not."""
    full, half = (
        finetune(shapes, runs=tmp_path, freeze_first=FIRST, average=alpha, **OPEN).result["convolution_drift"]
        for alpha in (1.0, 0.5)
    )
    assert [0.0] * FIRST == half[:FIRST]
    assert sum(half) < sum(full)


@pytest.mark.slow
def test_runs_with_different_numbers_can_be_compared(frozen: Run, shapes: Path, tmp_path: Path) -> None:
    """Also where both train a part of the same layer; the number is beside the policy."""
    other = finetune(shapes, runs=tmp_path, freeze_first=FIRST + 5, **OPEN)
    assert other.folder.name != frozen.folder.name
    document = compare(frozen, other).to_json()
    assert [FIRST, FIRST + 5] == [run["freeze_first"] for run in document["runs"]]
    drift = document["differences"][0]["drift"]
    assert 0 < drift[PARTLY] and 0 == drift["backbone.dark3"]
    assert f"full, freeze-first {FIRST}" in " ".join(fsod("compare", frozen.folder, other.folder).stdout.split())


def test_a_policy_that_trains_nothing_of_them_is_as_without(shapes: Path, tmp_path: Path) -> None:
    """The numbers of `last 1` with frozen convolutions are those of `last 1`; the runs have different names."""
    without, narrowed = (
        finetune(shapes, runs=tmp_path, policy="last", budget=1, **more, **OPEN) for more in ({}, {"freeze_first": 40})
    )
    assert metrics_of(without) == metrics_of(narrowed)
    assert "shapes-yolox_nano-last1-freeze40-seed0" == narrowed.folder.name
    assert without.result["parameters"] == narrowed.result["parameters"]


@pytest.mark.parametrize(
    ("count", "warning"),
    [
        (104, []),
        (106, ["head.4, the predictor, trains in part only: new classes keep their initial weights."]),
        (112, ["head.4, the predictor, does not train: new classes keep their initial weights."]),
    ],
)
def test_a_frozen_predictor_is_told(count: int, warning: list[str], shapes: Path, tmp_path: Path) -> None:
    """The last nine convolutions of YOLOX-Nano are its predictors, three of them of classes."""
    heard = Listening()
    finetune(shapes, runs=tmp_path, freeze_first=count, reporter=heard, **{**OPEN, "iterations": 1, "eval_every": 0})
    assert warning == heard.warned
    assert f"The first {count} of 113 convolutions stay frozen." in heard.said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_first": 113}, "--freeze-first 113 is not possible: yolox_nano has 113 convolutions, all of them"),
        ({"freeze_first": 10_000}, "yolox_nano has 113 convolutions, not 10000"),
        ({"freeze_first": -1}, "freeze_first is -1: give"),
        ({"freeze_first": 5, "policy": "auto"}, "--freeze-first does not go with policy auto"),
        (
            {"freeze_first": 10, "policy": "symmetric", "budget": 3, "backbone_stages": 5},
            "convolutions of backbone.stem",
        ),
        ({"freeze_first": 100, "budget": "60k"}, "freezes convolutions of head.1, which policy symmetric trains"),
        ({"freeze_first": 30, "layers": "neck,backbone.dark4"}, "convolutions of backbone.dark4, which policy custom"),
    ],
)
def test_what_cannot_be_frozen_is_told(options: dict[str, Any], message: str, shapes: Path, tmp_path: Path) -> None:
    """Before anything is loaded: exit code 4, what is wrong, what would be right, and no folder."""
    result = fsod(*argv_of(shapes, OPEN, **options), "--runs", tmp_path / "runs")
    assert 4 == result.exit_code, result.stderr
    assert message in result.stderr and "hint: " in result.stderr
    assert not (tmp_path / "runs").exists()

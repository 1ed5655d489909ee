"""Runs of layers that are named, and of budgets in parameters: everything that a run can do works for them too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_runs import LEARNING, TINY, Listening, argv_of, fsod

from fewshot_cli import PolicyError, evaluate, finetune, load_run
from fewshot_cli.runs.checkpoint import read_checkpoint
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.verbs.finetune import run_at

OPEN = {name: value for name, value in TINY.items() if name not in ("policy", "budget")}
"""A fine-tune that does not say yet what trains."""


def moved(run: Run) -> list[str]:
    """Layers whose parameters changed."""
    return [name for name, drift in run.read_result()["drift"].items() if drift > 0]


@pytest.mark.slow
def test_named_layers_train_by_the_command_line(shapes: Path, tmp_path: Path) -> None:
    """They move and no others; name, configuration, checkpoint, result and inspect-layers say which."""
    done = fsod(*argv_of(shapes, OPEN, layers="head.4,backbone.dark4"), "--runs", tmp_path, "--json")
    assert 0 == done.exit_code, done.stderr
    result = json.loads(done.stdout)
    run = load_run(result["run"])
    names = ["backbone.dark4", "head.4"]
    assert "shapes-yolox_nano-custom-backbone.dark4+head.4-seed0" == run.folder.name
    assert ("custom", None, names) == (result["policy"], result["budget"], result["trained_layers"])
    config = run.read_config()
    assert ("custom", None, tuple(names)) == (config.policy, config.budget, config.layers)
    _, info = read_checkpoint(run.checkpoint)
    assert ("custom", None, tuple(names)) == (info.policy, info.budget, info.trained_layers)
    assert names == moved(run)
    inspected = json.loads(fsod("inspect-layers", run.folder, "--json").stdout)
    assert names == [row["name"] for row in inspected["layers"] if row["trained"]]
    assert result["ap"] == evaluate(run).metrics.ap
    again = fsod("finetune", "--config", run.folder, "--runs", tmp_path, "--name", "again", "--json")
    assert 0 == again.exit_code, again.stderr
    assert result["metrics"] == json.loads(again.stdout)["metrics"]


def detections(target: Path, images: Path, out: Path) -> list[str]:
    """What `fsod predict` finds with any score, a line an image."""
    result = fsod("predict", target, images, "--threshold", "0", "--format", "jsonl", "--out", out)
    assert 0 == result.exit_code, result.stderr
    return next(out.glob("*.jsonl")).read_text("utf-8").splitlines()


@pytest.mark.slow
def test_such_a_run_detects_and_is_exported(trained: Run, shapes: Path, tmp_path: Path) -> None:
    """Named layers that are those of symmetric 3 end as that does; exported weights detect the same as the run."""
    options = {**LEARNING, "policy": None, "budget": None}
    run = finetune(shapes, runs=tmp_path, name="run", layers="head.1,head.2,head.4", **options)
    assert trained.read_result()["metrics"] == run.read_result()["metrics"]
    whole = tmp_path / "whole.safetensors"
    exported = fsod("export", run.folder, "--format", "weights", "--out", whole)
    assert 0 == exported.exit_code, exported.stderr
    images = shapes / "test" / "images"
    found = detections(run.folder, images, tmp_path / "a")
    assert 6 == len(found) and any(json.loads(line)["detections"] for line in found)
    assert found == detections(whole, images, tmp_path / "b")


@pytest.mark.slow
def test_base_classes_are_kept_beside_named_layers(shapes: Path, tmp_path: Path, base_weights: Path) -> None:
    """Both heads run from the first named layer on; the run is measured, detects, and is exported as ONNX."""
    options = {**OPEN, "layers": "head.2,head.4", "weights": str(base_weights), "keep_base_classes": True}
    run = finetune(shapes, runs=tmp_path, name="kept", **options)
    assert "head.2" == run.read_result()["keep_base_classes"]["start"]
    assert run.read_result()["ap"] == evaluate(run).metrics.ap
    assert 6 == len(detections(run.folder, shapes / "test" / "images", tmp_path / "found"))
    exported = fsod("export", run.folder, "--format", "onnx", "--out", tmp_path / "both.onnx")
    assert 0 == exported.exit_code, exported.stderr


@pytest.mark.slow
def test_a_stopped_run_continues(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after an evaluation, it ends with the numbers of one that was not."""
    from fewshot_cli.training import finetune as training

    options: dict[str, Any] = {**OPEN, "layers": "head.1,head.4"}
    whole = finetune(shapes, runs=tmp_path, name="whole", **options)
    with monkeypatch.context() as patch:
        patch.setattr(training, "record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(shapes, runs=tmp_path, name="stopped", **options)
    assert 0 == fsod("finetune", "--resume", tmp_path / "stopped").exit_code
    assert whole.read_result()["metrics"] == load_run(tmp_path / "stopped").read_result()["metrics"]


def test_without_the_predictor_there_is_a_warning(shapes: Path, tmp_path: Path) -> None:
    """New classes then keep their initial weights; with the predictor nothing is said."""
    for layers, warnings in (
        (("head.1",), ["head.4, the predictor, does not train: new classes keep their initial weights."]),
        (("head.4",), []),
    ):
        heard = Listening()
        finetune(shapes, runs=tmp_path, layers=layers, reporter=heard, **{**OPEN, "iterations": 1})
        assert warnings == heard.warned, layers


def test_a_budget_in_parameters_is_recorded_in_layers(shapes: Path, tmp_path: Path) -> None:
    """Two classes: 60,000 parameters are three layers; the run is the one that --budget 3 makes."""
    heard = Listening()
    run = finetune(shapes, runs=tmp_path, reporter=heard, policy="symmetric", budget="60k", **OPEN)
    assert "shapes-yolox_nano-symmetric3-seed0" == run.folder.name
    assert (3, 3) == (run.read_config().budget, run.read_result()["budget"])
    assert "Budget: 60k parameters are 3 layers here (59,989 parameters)." in heard.said
    config = FinetuneConfig(data=str(shapes), policy="symmetric", budget="60k", **OPEN)
    same = run_at(tmp_path / "same", config)
    assert (3, run.read_result()["metrics"]) == (same.read_config().budget, same.read_result()["metrics"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "head.1", "policy": "symmetric"}, "--layers does not go with policy symmetric"),
        ({"layers": "head.1", "budget": 2}, "--layers names everything that trains"),
        ({"layers": "head.1", "backbone_stages": 1}, "--layers names everything that trains"),
        ({"layers": "head.7"}, "yolox_nano has no layer 'head.7'"),
        ({"policy": "last", "budget": "1k"}, "a budget of 1k is too small for policy last"),
        ({"layers": "head.1", "candidates": "none,all"}, "--candidates does not go with policy custom"),
        ({"policy": "last", "candidates": "none,all"}, "--candidates does not go with policy last"),
        ({"policy": "last", "budget": "auto"}, "--budget auto does not go with policy last"),
    ],
)
def test_what_cannot_train_leaves_no_run(options: dict[str, Any], message: str, shapes: Path, tmp_path: Path) -> None:
    """It is told before anything is loaded or written."""
    with pytest.raises(PolicyError, match=message):
        finetune(shapes, runs=tmp_path / "runs", **options, **OPEN)
    assert not (tmp_path / "runs").exists()

"""inspect-layers --against: drift between runs, files and pretrained detectors, by layer and by convolution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_runs import SIDE, TINY, config_of, fine_tune, fsod

from fewshot_cli import finetune
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.folder import Run


@pytest.fixture(scope="module")
def other(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the same data from the same weights, with another seed of the batches, that trains more."""
    options = {"policy": "full", "budget": None, "freeze_first": 60}
    return fine_tune(tmp_path_factory.mktemp("runs") / "other", config_of(shapes, TINY, **options))


def drifts_of(*arguments: object) -> list[dict[str, Any]]:
    result = fsod("inspect-layers", *map(str, arguments), "--json")
    assert 0 == result.exit_code, result.stderr
    return list(json.loads(result.stdout)["drifts"])


def cosine_drift(one: Detector, other: Detector, names: list[str]) -> float | None:
    """1 − |cos| by numpy; None where shapes differ."""
    states = [detector.network.state_dict() for detector in (one, other)]
    if any(len({tuple(state[name].shape) for state in states}) > 1 for name in names):
        return None
    u, v = (np.concatenate([state[name].numpy().ravel() for name in names]).astype(np.float64) for state in states)
    return float(1 - abs(u @ v) / np.linalg.norm(u) / np.linalg.norm(v))


def test_two_runs_are_as_far_apart_as_their_weights(trained: Run, other: Run) -> None:
    """Layer by layer and convolution by convolution, by an independent computation."""
    [found] = drifts_of(trained.folder, "--against", other.folder)
    one, two = (restore(run.checkpoint)[0] for run in (trained, other))
    for layer in one.layers:
        assert pytest.approx(cosine_drift(one, two, list(layer.parameters())), abs=1e-9) == found["layers"][layer.name]
    assert list(one.convolutions()) == [each["name"] for each in found["convolutions"]]
    for number, each in enumerate(found["convolutions"], start=1):
        assert number == each["number"]
        assert pytest.approx(cosine_drift(one, two, [f"{each['name']}.weight"]), abs=1e-9) == each["drift"]


def test_against_the_base_it_is_the_recorded_drift(trained: Run, other: Run) -> None:
    """But for class predictors, which have other classes there; several runs each have their own base."""
    for run, found in zip((trained, other), drifts_of(trained.folder, other.folder, "--against", "base"), strict=True):
        recorded = run.read_result()
        assert {**recorded["drift"], "head.4": None} == pytest.approx(found["layers"])
        measured = {each["name"]: each["drift"] for each in found["convolutions"]}
        predictors = [name for name, drift in measured.items() if drift is None]
        assert [f"head.cls_preds.{level}" for level in range(3)] == predictors
        expected = dict(zip(measured, recorded["convolution_drift"], strict=True))
        assert {**expected, **dict.fromkeys(predictors)} == pytest.approx(measured)


@pytest.mark.slow
def test_either_side_can_be_a_checkpoint_weights_or_the_base(trained: Run, base_weights: Path, tmp_path: Path) -> None:
    """Drift is the same in both directions; weights are compared as they are."""
    for left, right in ((trained.folder, "base"), (trained.checkpoint, base_weights)):
        [there], [back] = drifts_of(left, "--against", right), drifts_of(right, "--against", left)
        assert pytest.approx(there.pop("layers")) == back.pop("layers")
        assert [each["drift"] for each in there["convolutions"]] == pytest.approx(
            [each["drift"] for each in back["convolutions"]]
        )
    same = tmp_path / "same.pth"
    torch.save(build_detector("yolox_nano", weights="none", seed=7).network.state_dict(), same)
    [none] = drifts_of(same, "--against", base_weights)
    assert {0.0} == {*none["layers"].values()} == {each["drift"] for each in none["convolutions"]}


@pytest.mark.slow
def test_of_two_heads_the_adapted_one_is_compared(shapes: Path, tmp_path: Path, base_weights: Path) -> None:
    """A run that keeps its base classes has the drift that it recorded; its base may have moved since."""
    options = {**TINY, "weights": str(base_weights), "keep_base_classes": True}
    run = finetune(shapes, runs=tmp_path, **options)
    [found] = drifts_of(run.folder, "--against", "base", "--weights", base_weights)
    assert {**run.result["drift"], "head.4": None} == pytest.approx(found["layers"])


def test_the_tables_show_every_layer_or_every_convolution(trained: Run, other: Run) -> None:
    """A column for each run, three digits, and a dash where there is no number."""
    arguments = [trained.folder, other.folder, "--against", "base"]
    first, second = drifts_of(*arguments)
    shown = fsod("inspect-layers", *arguments).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["layer", "trained", "other"] in lines and ["head.4", "–", "–"] in lines
    assert ["head.1", *(f"{each['layers']['head.1']:.3g}" for each in (first, second))] in lines
    listed = fsod("inspect-layers", *arguments, "--convolutions").stdout
    rows = [line.split() for line in listed.splitlines()]
    for one, two in zip(first["convolutions"], second["convolutions"], strict=True):
        values = ["–" if each["drift"] is None else f"{each['drift']:.3g}" for each in (one, two)]
        assert [str(one["number"]), one["name"], one["layer"], *values] in rows


@pytest.mark.parametrize(
    ("name", "start"), [("drift.png", b"\x89PNG"), ("drift.svg", b"<?xml"), ("drift.PDF", b"%PDF")]
)
def test_a_plot_is_written_in_the_format_of_its_name(name: str, start: bytes, trained: Run, tmp_path: Path) -> None:
    """And the document names it."""
    result = fsod("inspect-layers", trained.folder, "--against", "base", "--plot", tmp_path / name, "--json")
    assert 0 == result.exit_code, result.stderr
    assert (tmp_path / name).read_bytes().startswith(start)
    assert str(tmp_path / name) == json.loads(result.stdout)["plot"]
    assert [tmp_path / name] == [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--against", "base"], 2, "nothing is compared"),
        (["base", "--against", "base"], 2, "base stands for what the other side started from"),
        (["WEIGHTS", "--against", "base"], 2, "is a weights file, which does not say what it started from"),
        (["yolox_nano", "--against", "RUN"], 2, "yolox_nano is a detector without weights of its own"),
        (["RUN", "--against", "OTHER"], 5, "is a yolox_nano, "),
        (["RUN", "--against", "nowhere"], 3, "nowhere"),
        (["RUN", "--against", "nothing.pth"], 5, "nothing.pth"),
        (["RUN", "--against", "base", "--policy", "last"], 2, "--policy does not go with --against"),
        (["RUN", "--against", "base", "--freeze-first", "3"], 2, "--freeze-first does not go with --against"),
        (["RUN", "--against", "base", "--plot", "drift.txt"], 2, "its name does not say what is written"),
        (["RUN", "--plot", "drift.png"], 2, "--plot goes with --against"),
        (["RUN", "RUN"], 2, "2 are given, and one is shown"),
    ],
)
def test_what_cannot_be_compared_is_told(
    arguments: list[str], code: int, message: str, trained: Run, base_weights: Path, tmp_path: Path
) -> None:
    """Exit code, what is wrong, and what would be right; nothing on stdout."""
    tiny = tmp_path / "tiny.pth"
    if "OTHER" in arguments:
        torch.save(build_detector("yolox_tiny", weights="none", image_size=SIDE).network.state_dict(), tiny)
    places = {"RUN": str(trained.folder), "WEIGHTS": str(base_weights), "OTHER": str(tiny)}
    result = fsod("inspect-layers", *(places.get(word, word) for word in arguments))
    assert (code, "") == (result.exit_code, result.stdout), result.stderr
    assert message in result.stderr and "hint: " in result.stderr

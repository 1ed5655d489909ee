"""Averaging with the weights before training: between the two detectors, exact at both ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers_runs import TINY, config_of, fine_tune
from safetensors.torch import load_file

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import ConfigError
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.training.averaging import Average, Averaging, class_alpha, given_average
from fewshot_cli.training.class_init import Start
from fewshot_cli.training.plan import trained_parameters
from fewshot_cli.training.prepare import Prepared, prepare
from fewshot_cli.verbs.finetune import run_at


@pytest.fixture
def prepared(shapes: Path) -> Prepared:
    return prepare(config_of(shapes, TINY), open_dataset(shapes), SilentReporter())


def test_parameters_lie_between_both_detectors(prepared: Prepared) -> None:
    """At α = 0.25 a parameter that training moved by 1 has moved by a quarter; afterwards it is trained again."""
    averaging = Averaging(prepared.detector)
    trained = trained_parameters(prepared.detector)
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    with torch.no_grad():
        for parameter in trained.values():
            parameter += 1
    after = {name: parameter.detach().clone() for name, parameter in trained.items()}
    with averaging.applied(0.25):
        for name, parameter in trained.items():
            torch.testing.assert_close(parameter, before[name] + 0.25)
    assert all(torch.equal(parameter, after[name]) for name, parameter in trained.items())
    with averaging.applied(0.0):
        assert all(torch.equal(parameter, before[name]) for name, parameter in trained.items())
    averaging.apply(0.25)
    assert all(
        torch.equal(parameter, torch.lerp(before[name], after[name], 0.25)) for name, parameter in trained.items()
    )


def test_a_run_is_averaged_at_its_end_alone(shapes: Path, tmp_path: Path) -> None:
    """Its checkpoint lies between those of α = 0 and α = 1: training itself is the same."""
    runs = {
        alpha: fine_tune(tmp_path / str(alpha), config_of(shapes, TINY, average=alpha)) for alpha in (0.0, 0.5, 1.0)
    }
    base, half, tuned = (load_file(run.checkpoint) for run in runs.values())
    assert all(torch.equal(torch.lerp(base[name], tuned[name], 0.5), half[name]) for name in half)
    assert any(not torch.equal(base[name], tuned[name]) for name in half)
    assert {"alpha": 0.5, "reason": "option"} == runs[0.5].result["average"]


def test_what_is_measured_on_the_way_is_averaged(shapes: Path, tmp_path: Path) -> None:
    """With α = 0 every measurement is that of the detector before training, and so is the result."""
    untrained = fine_tune(tmp_path / "none", config_of(shapes, TINY, policy="none", budget=None))
    run = fine_tune(tmp_path / "zero", config_of(shapes, TINY, average=0.0, eval_every=1))
    aps = [record["ap"] for record in run.read_metrics()]
    assert [untrained.result["ap"]] * TINY["iterations"] == aps
    assert untrained.read_predictions() == run.read_predictions()


@pytest.mark.slow
def test_a_resumed_run_is_averaged_like_an_unbroken_one(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saved state holds trained weights, those before training are prepared anew."""
    config = config_of(shapes, TINY, average=0.5, eval_every=1)
    unbroken = fine_tune(tmp_path / "unbroken", config)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fewshot_cli.training.finetune.record", _interrupt)
        fine_tune(tmp_path / "stopped", config)
    resumed = run_at(tmp_path / "stopped", config)
    assert unbroken.checkpoint.read_bytes() == resumed.checkpoint.read_bytes()
    assert unbroken.best_checkpoint.read_bytes() == resumed.best_checkpoint.read_bytes()


def _interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("starts", "alpha"),
    [((Start.KNOWN,), 0.25), ((Start.SIMILAR,), 0.5), ((Start.NEW,), 0.9), ((Start.SIMILAR, Start.NEW), 0.7)],
)
def test_alpha_follows_from_what_the_classes_are_to_the_detector(starts: tuple[Start, ...], alpha: float) -> None:
    """The less it knows of them the larger; of several classes the mean."""
    assert alpha == pytest.approx(class_alpha(starts))


def test_auto_looks_at_the_classes(prepared: Prepared, shapes: Path) -> None:
    """New to a pretrained detector; a number is taken as it is. Random weights are nothing to average with."""
    assert Average(1.0, "classes") == given_average(config_of(shapes, TINY), prepared)
    prepared.detector.pretrained = True
    assert Average(0.9, "classes") == given_average(config_of(shapes, TINY), prepared)
    assert Average(0.3, "option") == given_average(config_of(shapes, TINY, average=0.3), prepared)


@pytest.mark.parametrize("average", ["half", "-0.1", 1.5, "nan", "inf"])
def test_an_impossible_average_is_an_error(average: float | str) -> None:
    """It says what would be right."""
    with pytest.raises(ConfigError, match="give a number from 0 to 1, or auto"):
        FinetuneConfig(data="data", average=average)


def test_a_number_may_be_a_text() -> None:
    """As the command line has it."""
    assert 0.5 == FinetuneConfig(data="data", average="0.5").average

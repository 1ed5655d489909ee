"""Resume: a run that was killed goes on to the result it would have had."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_runs import TINY, argv_of, config_of, fine_tune, fsod, metrics_of, start_fsod
from safetensors.torch import load_file

from fewshot_cli.errors import CheckpointError, ConfigError
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run, latest_run, load_run, new_run
from fewshot_cli.training import fit as fit_module
from fewshot_cli.training.finetune import finetune

LONG = {**TINY, "iterations": 40, "eval_every": 5}
"""Long enough to be killed in the middle."""

_write_state = Run.write_state


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start_and_wait_for_a_state(data: Path, folder: Path) -> subprocess.Popen[str]:
    """A real `fsod finetune --name stopped` that has saved its state at least once and is under way."""
    process = start_fsod(*argv_of(data, LONG, name="stopped"), cwd=folder)
    state = Run(folder / "runs" / "stopped").state_file
    deadline = time.monotonic() + 60
    while not state.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no state was saved: {process.communicate()[1]}")
        time.sleep(0.002)
    return process


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_result(shapes: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, then --resume: metrics, predictions and checkpoints as if nothing had happened."""
    process = start_and_wait_for_a_state(shapes, tmp_path)
    process.kill()
    process.communicate()
    stopped = Run(tmp_path / "runs" / "stopped")
    assert -signal.SIGKILL == process.returncode and not stopped.finished
    state = stopped.read_state()
    assert state is not None and 0 < state["iteration"] < LONG["iterations"]

    resumed = fsod("finetune", "--resume", stopped.folder)
    assert 0 == resumed.exit_code, resumed.stderr
    assert f"Continuing after iteration {state['iteration']}." in resumed.stderr
    unbroken = fine_tune(tmp_path / "unbroken", config_of(shapes, LONG))
    for file in ("metrics_file", "predictions_file", "checkpoint", "best_checkpoint"):
        assert getattr(unbroken, file).read_bytes() == getattr(stopped, file).read_bytes(), file
    first, second = load_file(unbroken.checkpoint), load_file(stopped.checkpoint)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert not stopped.state_file.exists()


def test_a_stopped_run_says_how_to_go_on(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C: the exit code, one sentence with the command to resume, no traceback."""

    def write_and_interrupt(run: Run, state: dict[str, Any]) -> None:
        _write_state(run, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_state", write_and_interrupt)
        stopped = fsod(*argv_of(shapes, name="stopped"), "--json")
    assert 130 == stopped.exit_code
    command = "fsod finetune --resume runs/stopped"
    assert f"Interrupted. Continue with: {command}" in stopped.stderr and "Traceback" not in stopped.stderr
    assert command in json.loads(stopped.stdout)["error"]["hint"]
    assert 0 == fsod(*command.split()[1:], "--no-report").exit_code
    assert TINY["iterations"] == metrics_of(Run(tmp_path / "runs" / "stopped"))[-1]["iteration"]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw"},
        pytest.param({"optimizer": "sgd"}, marks=pytest.mark.slow),
        {"norm_statistics": "train", "train_neck": True},
    ],
)
def test_every_saved_state_leads_to_the_same_end(options: dict[str, Any], shapes: Path, tmp_path: Path) -> None:
    """Resuming from any state, with momentum or moments, gives the unbroken run's checkpoint bit for bit."""
    config = config_of(shapes, iterations=8, eval_every=0, **options)
    unbroken = fine_tune(tmp_path / "unbroken", config)
    for done in (1, 5):
        stopped = stop_after(tmp_path / f"stopped{done}", config, done)
        assert done == (stopped.read_state() or {})["iteration"]
        finetune(config, stopped)
        assert unbroken.checkpoint.read_bytes() == stopped.checkpoint.read_bytes()


@pytest.mark.parametrize("schedule", ["plateau", pytest.param("steps:0.3,0.6", marks=pytest.mark.slow)])
def test_a_schedule_goes_on_where_it_was(schedule: str, shapes: Path, tmp_path: Path) -> None:
    """A rate that was reduced before the run stopped is reduced after it: the same losses, metrics and checkpoint."""
    short = {"iterations": 9, "eval_every": 1, "lr": 1e-5, "copies": 1}
    config = config_of(shapes, schedule=schedule, **short)
    unbroken = fine_tune(tmp_path / "unbroken", config)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Run, "write_state", lambda run, state: _write_state(run, state) or _stop_at(state, 8))
        fine_tune(tmp_path / "stopped", config)
    stopped = Run(tmp_path / "stopped")
    finetune(config, stopped)
    for file in ("metrics_file", "checkpoint", "best_checkpoint"):
        assert getattr(unbroken, file).read_bytes() == getattr(stopped, file).read_bytes(), file
    cosine = fine_tune(tmp_path / "cosine", config_of(shapes, **short))
    assert metrics_of(cosine)[-1]["losses"] != metrics_of(stopped)[-1]["losses"]


def _stop_at(state: dict[str, Any], done: int) -> None:
    if state["iteration"] == done:
        raise Stop


class Stop(Exception):
    """The power went out."""


def _write_and_stop(run: Run, state: dict[str, Any]) -> None:
    _write_state(run, state)
    raise Stop


def stop_after(folder: Path, config: FinetuneConfig, done: int) -> Run:
    """A run whose process ended right after saving iteration `done`; its `eval_every` is 0."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(fit_module, "SAVE_EVERY", done)
        patch.setattr(Run, "write_state", _write_and_stop)
        fine_tune(folder, config)
    return Run(folder)


def test_a_run_without_a_state_begins_again(shapes: Path, tmp_path: Path) -> None:
    """Killed before anything was saved, --resume starts from the beginning, with the recorded options."""
    run = new_run(tmp_path / "runs", "early", "")
    run.write_config(config_of(shapes, iterations=2))
    assert 0 == fsod("finetune", "--resume", run.folder, "--no-report").exit_code
    assert (
        fine_tune(tmp_path / "other", config_of(shapes, iterations=2)).checkpoint.read_bytes()
        == run.checkpoint.read_bytes()
    )


def test_a_finished_run_prints_its_result_again(trained: Run) -> None:
    """--resume of a finished run says so, answers with its result and changes nothing."""
    before = trained.result_file.stat().st_mtime_ns
    result = fsod("finetune", "--resume", trained.folder, "--json", "--no-report")
    assert 0 == result.exit_code
    assert f"{trained.folder} is finished already." in result.stderr
    assert trained.read_result() == json.loads(result.stdout)
    assert before == trained.result_file.stat().st_mtime_ns


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--iterations", "9"], "--iterations cannot change now"),
        (["--data", "x", "--train-neck"], "--data, --train-neck cannot change now"),
        (["--seed", "0"], "--seed cannot change now"),
    ],
)
def test_resume_takes_no_other_options(more: list[str], text: str, trained: Run) -> None:
    """An option beside --resume is a usage error that names it, even with its recorded value."""
    result = fsod("finetune", "--resume", trained.folder, *more)
    assert 2 == result.exit_code
    assert text in result.stderr and "hint: Start a new run" in result.stderr


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02]q\x00.", "half", "other", "list", "texts"],
    ids=["empty", "pickle", "half", "other", "list", "texts"],
)
def test_a_damaged_state_is_told(content: bytes | str, shapes: Path, tmp_path: Path) -> None:
    """Whatever state.pt holds instead of a state: an error that names it, exit 5, and the way out."""
    run = stop_after(tmp_path / "run", config_of(shapes, eval_every=0), 2)
    if content == "half":
        content = run.state_file.read_bytes()[: run.state_file.stat().st_size // 2]
    if isinstance(content, bytes):
        run.state_file.write_bytes(content)
    else:
        texts = dict.fromkeys(("iteration", "records", "parameters", "optimizer"), "x")
        torch.save({"other": {"iteration": 2}, "list": [1, 2], "texts": texts}[content], run.state_file)
    result = fsod("finetune", "--resume", run.folder)
    assert 5 == result.exit_code
    assert f"error: {run.state_file} is damaged" in result.stderr and "hint: Delete that file" in result.stderr


def test_a_state_of_another_detector_is_refused(shapes: Path, tmp_path: Path) -> None:
    """A state whose tensors this detector does not have is a checkpoint error and nothing is trained."""
    run = stop_after(tmp_path / "run", config_of(shapes, eval_every=0), 2)
    state = run.read_state() or {}
    run.write_state({**state, "parameters": {"head.foreign.weight": torch.zeros(3)}})
    with pytest.raises(CheckpointError, match="does not fit what this run trains"):
        finetune(run.read_config(), run)


def test_a_state_of_other_layers_is_refused(shapes: Path, tmp_path: Path) -> None:
    """Such as that of another candidate of policy auto: the same detector, but other tensors trained."""
    run = stop_after(tmp_path / "run", config_of(shapes, eval_every=0), 2)
    with pytest.raises(CheckpointError, match="does not fit what this run trains"):
        finetune(config_of(shapes, policy="all", budget=None, eval_every=0), run)


def test_a_name_is_used_once(tmp_path: Path) -> None:
    """A taken --name is refused with the way to go on; without a name, a number makes the folder new."""
    first = new_run(tmp_path / "runs", None, "helmet")
    assert ["helmet", "helmet-2", "helmet-3"] == [
        first.folder.name,
        *(new_run(tmp_path / "runs", None, "helmet").folder.name for _ in range(2)),
    ]
    with pytest.raises(ConfigError, match="a run .*helmet-2 exists already") as caught:
        new_run(tmp_path / "runs", "helmet-2", "")
    assert "--resume" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="not a plain folder name"):
        new_run(tmp_path / "runs", "../helmet", "")


def test_the_latest_run_is_the_one_that_finished_last(shapes: Path, tmp_path: Path) -> None:
    """A run that was started later but has no result does not count."""
    for name in ("a", "b"):
        fine_tune(tmp_path / "runs" / name, config_of(shapes, iterations=1))
        time.sleep(0.02)
    new_run(tmp_path / "runs", "c", "").write_config(config_of(shapes))
    assert "b" == latest_run(tmp_path / "runs").folder.name
    assert "a" == load_run(tmp_path / "runs" / "a").folder.name

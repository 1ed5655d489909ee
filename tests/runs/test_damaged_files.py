"""Every file of a run, damaged in any way: an error of the right kind or the same as before, never something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_mutations import damaged_bytes, mutated
from helpers_runs import config_of, fsod
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.detectors.weights import state_fingerprint
from fewshot_cli.errors import CheckpointError, ConfigError, DataError, FsodError
from fewshot_cli.report.tables import result_table
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.folder import Run
from fewshot_cli.selection.validate_run import left_out_shots, read_folds
from fewshot_cli.training.loop import load_state, make_optimizer

fast = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy of a finished run, to be damaged."""
    return Run(Path(shutil.copytree(trained.folder, tmp_path / "run")))


def read_all(run: Run) -> None:
    """What readers of a finished run do with its documents."""
    config = run.read_config()
    result_table(run.result)
    assert all(isinstance(score, float) for score in run.thresholds.values())
    assert run.read_metrics() is not None
    data = open_dataset(config.data_folder)
    run.read_predictions(data.test)
    read_folds(run)
    left_out_shots(run, data.shots)


FILES = {
    "config.json": ConfigError,
    "result.json": DataError,
    "predictions.json": DataError,
    "metrics.jsonl": DataError,
}


@pytest.mark.parametrize("name", FILES)
@fast
@given(data=st.data())
def test_a_damaged_document_is_an_error_of_its_kind(name: str, data: st.DataObject, run: Run, trained: Run) -> None:
    """A key that is gone, a value of another type, another document, cut or changed bytes: exit 3, or 4 of options."""
    content = (trained.folder / name).read_bytes()
    (run.folder / name).write_bytes(data.draw(damaged_bytes(content)))
    try:
        read_all(run)
    except FsodError as error:
        assert error.exit_code in (3, 4), error
        assert error.message and (error.hint or name == "config.json")
    finally:
        (run.folder / name).write_bytes(content)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '"x"', "[[1]]", '[{"image_id": 1}]'])
@pytest.mark.parametrize("name", [*FILES, "folds.json", "search.json", "trackers.json"])
def test_another_document_is_told(name: str, content: str, run: Run) -> None:
    """What needs the file ends with its exit code and names it; folds and scores of a search are measured again."""
    (run.folder / name).write_text(content)
    try:
        read_all(run)
    except FsodError as error:
        assert FILES[name].exit_code == error.exit_code
        assert str(run.folder / name) in error.message


def test_predictions_of_another_data_set_are_told(run: Run) -> None:
    """Detections in images that the test set does not hold are no detections of this run on it."""
    found = json.loads(run.predictions_file.read_text())
    run.write_predictions([{**each, "image_id": 999} for each in found])
    with pytest.raises(DataError, match="other images or of other classes"):
        run.read_predictions(open_dataset(run.read_config().data_folder).test)


# --- the checkpoint ---


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key != name}


def _flipped(tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed.view(torch.uint8).view(-1)[0] ^= 1
    return changed


SPOILT: dict[str, Callable[[dict[str, Tensor], str], dict[str, Tensor]]] = {
    "removed": without,
    "renamed": lambda tensors, name: {**without(tensors, name), f"{name}.x": tensors[name]},
    "under another's name": lambda tensors, name: {**tensors, name: next(iter(tensors.values())).clone()},
    "reshaped": lambda tensors, name: {**tensors, name: tensors[name].reshape(-1, 1)},
    "not finite": lambda tensors, name: {**tensors, name: torch.full_like(tensors[name], float("nan"))},
    "of another type": lambda tensors, name: {**tensors, name: tensors[name].double()},
    "with a flipped bit": lambda tensors, name: {**tensors, name: _flipped(tensors[name])},
    "gone, as all": lambda tensors, name: {},
}


def rewritten(run: Run, trained: Run, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], digest: bool) -> None:
    """The checkpoint with other tensors and the same metadata, with its digest or, as earlier versions, without."""
    from safetensors import safe_open

    with safe_open(trained.checkpoint, framework="pt") as file:
        document = json.loads(file.metadata()["fsod"])
    if not digest:
        del document["sha256"]
    save_file(change(load_file(trained.checkpoint)), run.checkpoint, {"fsod": json.dumps(document)})


BY_DIGEST_ALONE = ("with a flipped bit", "under another's name")
"""What nothing else in a checkpoint shows."""


@pytest.mark.parametrize(
    ("spoil", "digest"),
    [(spoil, digest) for spoil in SPOILT for digest in (True, False) if digest or spoil not in BY_DIGEST_ALONE],
)
def test_a_checkpoint_with_other_tensors_is_refused(spoil: str, digest: bool, run: Run, trained: Run) -> None:
    """Any one tensor, or all of them; without a digest what can be told from the detector still is."""
    first, *names = load_file(trained.checkpoint)
    for name in names[:: max(1, len(names) // 4)]:
        assert first != name
        rewritten(run, trained, lambda tensors, name=name: SPOILT[spoil](tensors, name), digest)  # type: ignore[misc]
        with pytest.raises(CheckpointError) as refused:
            restore(run.checkpoint)
        assert str(run.checkpoint) in refused.value.message and refused.value.hint


def test_a_checkpoint_of_an_earlier_version_is_restored(run: Run, trained: Run) -> None:
    """Without a digest, but with everything that was trained."""
    rewritten(run, trained, lambda tensors: tensors, digest=False)
    expected, actual = (restore(one.checkpoint)[0].network for one in (trained, run))
    assert state_fingerprint(expected) == state_fingerprint(actual)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_of_a_checkpoint_is_noticed(data: st.DataObject, run: Run, trained: Run) -> None:
    """Wherever it is: refused, or the same detector."""
    content = bytearray(trained.checkpoint.read_bytes())
    header = int.from_bytes(content[:8], "little") + 8
    place = data.draw(st.one_of(st.integers(0, header - 1), st.integers(header, len(content) - 1)))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    run.checkpoint.write_bytes(bytes(content))
    try:
        detector, _ = restore(run.checkpoint)
    except FsodError as error:
        assert error.exit_code in (4, 5)
    else:
        assert state_fingerprint(restore(trained.checkpoint)[0].network) == state_fingerprint(detector.network)


def test_a_checkpoint_as_weights_says_what_to_give(run: Run) -> None:
    """`--weights runs/a/checkpoint.safetensors` is recognised: a hint to export the run."""
    with pytest.raises(CheckpointError, match="is the checkpoint of a run") as refused:
        build_detector("yolox_nano", weights=run.checkpoint)
    assert "fsod export RUN --format weights" in str(refused.value.hint)


# --- the saved state ---


def state_of(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> dict[str, Any]:
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@settings(max_examples=80)
@given(data=st.data())
def test_a_changed_optimizer_state_is_refused(name: str, data: st.DataObject) -> None:
    """Deleted keys and values of other types anywhere: ValueError, or an optimizer that can go on."""
    parameters = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))]
    optimizer = make_optimizer(name, [(each, 1.0) for each in parameters], lr=0.1, weight_decay=0.01)
    saved = data.draw(mutated(state_of(optimizer, parameters)))
    try:
        load_state(optimizer, saved if isinstance(saved, dict) else {}, name)
    except ValueError:
        return
    optimizer.step()
    assert all(torch.isfinite(each).all() for each in parameters)


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not a state": lambda state: [1],
    "of more iterations": lambda state: {**state, "iteration": 10_000},
    "of no iteration": lambda state: {**state, "iteration": 0},
    "with a text for a record": lambda state: {**state, "records": ["x"]},
    "with a record of other types": lambda state: {**state, "records": [{"iteration": 1, "ap": "x", "losses": {}}]},
    "with a record that is no JSON": lambda state: {
        **state,
        "records": [{"iteration": 1, "ap": None, "losses": {}, "x": torch.zeros(1)}],
    },
    "of other layers": lambda state: {**state, "parameters": dict(list(state["parameters"].items())[1:])},
    "with NaN": lambda state: {
        **state,
        "parameters": {name: torch.full_like(each, float("nan")) for name, each in state["parameters"].items()},
    },
    "without an optimizer": lambda state: {**state, "optimizer": {}},
}


@pytest.mark.parametrize("name", STATES)
def test_a_foreign_state_is_refused(name: str, shapes: Path, tmp_path: Path) -> None:
    """`--resume` with the state of another run, or an edited one: exit 5 and how to start again; no lock is left."""
    from fewshot_cli.detectors.registry import build_detector
    from fewshot_cli.policies import select
    from fewshot_cli.training.plan import freeze, trained_parameters

    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.write_config(config_of(shapes))
    detector = build_detector("yolox_nano", weights="none", image_size=64)
    detector.replace_classes(["square", "disc"], [(), ()])
    freeze(detector, select("symmetric", 3, 4, stages=5))
    parameters = {name: each.detach() for name, each in trained_parameters(detector).items()}
    state = {"iteration": 3, "records": [], "parameters": parameters, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(STATES[name](state), run.state_file)

    result = fsod("finetune", "--resume", run.folder)

    assert 5 == result.exit_code, result.output
    assert str(run.state_file) in result.stderr and "hint: Delete that file" in result.stderr
    assert not run.lock_file.exists()


def test_a_run_that_is_being_trained_is_not_resumed(shapes: Path, tmp_path: Path) -> None:
    """`--resume` beside the process that trains it: exit 3, which process, and nothing is touched."""
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.write_config(config_of(shapes))
    before = run.config_file.read_bytes()
    with run.training():
        result = fsod("finetune", "--resume", run.folder)
    assert 3 == result.exit_code
    assert f"{run.folder} is being trained by process" in result.stderr
    assert [run.config_file] == list(run.folder.iterdir()) and before == run.config_file.read_bytes()

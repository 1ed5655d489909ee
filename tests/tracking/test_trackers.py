"""Trackers: what the real libraries record, in local stores, and what happens when one cannot or fails."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers_runs import REPOSITORY, TINY, argv_of, config_of, fine_tune, fsod, metrics_of
from PIL import Image

from fewshot_cli import tracking
from fewshot_cli.errors import ConfigError
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.folder import Run
from fewshot_cli.tracking import KNOWN_FILE, TRACKERS, Tracker, Trackers, TrackerSpec, check_installed
from fewshot_cli.training import fit as fit_module
from fewshot_cli.training.finetune import finetune
from fewshot_cli.training.schedule import learning_rate

SAMPLES = {f"samples/{number}" for number in range(1, 7)}
"""Of a data set with six test images."""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written elsewhere, nothing is sent, and no key of the user is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


class Heard(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Recorded:
    """A tracker that keeps what it gets."""

    def __init__(self, known: str | None, fails_at: int | None = None) -> None:
        self.id, self.where, self.known, self.fails_at = known or "7", "here", known, fails_at
        self.values: dict[str, dict[int, float]] = {}
        self.images: dict[str, Image.Image] = {}
        self.closed: list[bool] = []

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        if iteration == self.fails_at:
            raise OSError("the server is gone\nand its stack trace is long")
        for name, value in values.items():
            self.values.setdefault(name, {})[iteration] = value

    def show(self, images: Mapping[str, Image.Image], iteration: int) -> None:
        self.images |= images

    def close(self, finished: bool) -> None:
        self.closed.append(finished)


def stub(monkeypatch: pytest.MonkeyPatch, name: str = "stub", **options: Any) -> list[Recorded]:
    """Register a tracker that keeps what it gets; returns those that were started."""
    module, started = ModuleType(f"a_tracker_{name}"), []

    def start(folder: Path, values: Mapping[str, Any], known: str | None) -> Tracker:
        started.append(Recorded(known, **options))
        return started[-1]

    module.start = start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(TRACKERS, name, TrackerSpec(module.__name__, "json"))
    return started


def track(data: Path, folder: Path, tracker: str) -> Run:
    """A TINY fine-tune whose tracker does not fail."""
    config, run, heard = config_of(data, tracker=(tracker,)), Run(folder), Heard()
    folder.mkdir()
    run.write_config(config)
    finetune(config, run, heard)
    assert [] == heard.warnings
    return run


def steps_of(run: Run) -> dict[str, dict[int, float]]:
    """What every tracker must have of a TINY run: of each measured step, from the run's own record."""
    lines = metrics_of(run)
    losses = {
        f"train/{name}": {line["iteration"]: line["losses"][name] for line in lines} for name in lines[0]["losses"]
    }
    numbers = {
        f"test/{name}": {line["iteration"]: line["numbers"][name] for line in lines}
        for name, value in lines[0]["numbers"].items()
        if value is not None
    }
    return losses | numbers


def check_values(run: Run, values: Mapping[str, Mapping[int, float]]) -> None:
    """The recorded numbers are the run's: all losses, every step's rate, and the metrics."""
    for name, expected in steps_of(run).items():
        found = {step: value for step, value in values[name].items() if step in expected}
        assert pytest.approx(expected, abs=1e-6) == found, name
    steps = range(1, TINY["iterations"] + 1)
    config = run.read_config()
    rates = {step: learning_rate(step - 1, config.iterations, config.lr, config.warmup) for step in steps}
    assert pytest.approx(rates) == values["train/learning_rate"]
    assert list(steps) == list(values["train/loss"])


def test_a_tracker_gets_losses_rates_metrics_and_samples(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every step and every measurement; it is closed once, as finished."""
    started = stub(monkeypatch)
    run = fine_tune(tmp_path / "run", config_of(shapes, tracker=("stub",)))
    (tracker,) = started
    check_values(run, tracker.values)
    assert (SAMPLES, [True]) == (set(tracker.images), tracker.closed)
    assert {(640, 640)} == {image.size for image in tracker.images.values()}


def test_without_a_test_set_the_samples_are_shots(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four shots, and no metric."""
    started = stub(monkeypatch)
    data = tmp_path / "data"
    data.mkdir()
    (data / "train").symlink_to(shapes / "train")
    fine_tune(tmp_path / "run", config_of(data, tracker=("stub",)))
    assert {f"samples/{number}" for number in range(1, 5)} == set(started[0].images)
    assert [] == [name for name in started[0].values if name.startswith("test/")]


@pytest.mark.slow
def test_tracking_changes_no_figure(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics and checkpoint are the same bytes with and without."""
    stub(monkeypatch)
    plain = fine_tune(tmp_path / "plain", config_of(shapes))
    tracked = fine_tune(tmp_path / "tracked", config_of(shapes, tracker=("stub",)))
    for file in ("metrics_file", "predictions_file", "checkpoint"):
        assert getattr(plain, file).read_bytes() == getattr(tracked, file).read_bytes(), file


def test_a_tracker_that_fails_does_not_stop_the_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out with one warning that gives the reason; the other one gets everything."""
    (failing, other), heard = (stub(monkeypatch, "bad", fails_at=3), stub(monkeypatch, "good")), Heard()
    config = config_of(shapes, tracker=("bad", "good"))
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.write_config(config)
    finetune(config, run, heard)
    assert run.finished
    assert ["The tracker bad failed and records no more of this run: OSError: the server is gone"] == heard.warnings
    assert ([1, 2], [False]) == (list(failing[0].values["train/loss"]), failing[0].closed)
    check_values(run, other[0].values)


def test_samples_that_cannot_be_drawn_do_not_stop_the_run() -> None:
    """Everything after training is done for its own sake."""
    heard, tracker = Heard(), Recorded(None)
    trackers = Trackers(heard)
    trackers.add("one", tracker)

    def make() -> dict[str, Image.Image]:
        raise ConfigError("no image today")

    trackers.show(make, 6)
    assert ["The tracker one failed and records no more of this run: ConfigError: no image today"] == heard.warnings
    Trackers(heard).show(make, 6)  # nobody wants them: not made
    assert 1 == len(heard.warnings)


def test_a_run_that_stops_is_not_recorded_as_finished_and_goes_on_when_resumed(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C closes the tracker as unfinished; --resume continues under the same id, with what was left."""
    started = stub(monkeypatch)
    config, run = config_of(shapes, tracker=("stub",)), Run(tmp_path / "run")
    run.folder.mkdir()
    run.write_config(config)
    measure = fit_module._Watch.measure

    def interrupt(self: Any, done: int, losses: dict[str, float]) -> None:
        measure(self, done, losses)
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit_module._Watch, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune(config, run)
    monkeypatch.setattr(fit_module._Watch, "measure", measure)
    assert {"stub": "7"} == json.loads((run.folder / KNOWN_FILE).read_text())
    finetune(config, run)
    first, second = started
    assert (None, [False]) == (first.known, first.closed)
    assert ("7", [True]) == (second.known, second.closed)


def test_a_damaged_list_of_ids_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker then begins a new record."""
    started = stub(monkeypatch)
    for text in ("", "[]", "{", "null", '{"other": 1}'):
        (tmp_path / KNOWN_FILE).write_text(text)
        with tracking.tracking(("stub",), tmp_path, {}, SilentReporter()):
            pass
        assert started[-1].known is None, text


def test_a_tracker_that_cannot_start_is_an_error_before_training(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 4 with the reason; the one that did start is closed, and nothing is computed."""
    started = stub(monkeypatch, "good")
    monkeypatch.setitem(TRACKERS, "bad", TrackerSpec("json.tool_that_is_not_there", "json"))
    result = fsod(*argv_of(shapes, tracker="good,bad", name="run"))
    assert 4 == result.exit_code
    assert "the tracker bad cannot start: ModuleNotFoundError" in result.stderr
    assert "leave --tracker bad out" in result.stderr
    assert [False] == started[0].closed
    assert not (tmp_path / "runs" / "run" / "result.json").exists()


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is loaded or written."""
    monkeypatch.setitem(TRACKERS, name, TRACKERS[name]._replace(package="a_package_that_nobody_has"))
    result = fsod(*argv_of(shapes, tracker=name))
    assert 4 == result.exit_code
    assert f"--tracker {name} needs the package a_package_that_nobody_has" in result.stderr
    assert f'pip install "fsod[{name}]"' in result.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unknown_tracker_names_the_closest(shapes: Path) -> None:
    """And all of them, with exit code 4."""
    result = fsod(*argv_of(shapes, tracker="tensorbord"))
    assert 4 == result.exit_code
    assert "unknown tracker 'tensorbord'. Did you mean tensorboard? Valid: tensorboard, mlflow, wandb" in result.stderr


def test_a_tracker_named_twice_starts_once() -> None:
    """In the order given."""
    assert ("wandb", "mlflow") == config_of(Path("x"), tracker=("wandb", "mlflow", "wandb")).tracker


def test_every_extra_exists() -> None:
    """The command that the error names installs something."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert [] == [name for name in TRACKERS if f"\n{name} = [" not in text]


def test_tensorboard_reads_what_is_written(shapes: Path, tmp_path: Path) -> None:
    """Scalars, images and the configuration, by TensorBoard's own reader."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = track(shapes, tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    check_values(run, {name: {e.step: e.value for e in events.Scalars(name)} for name in tags["scalars"]})
    assert SAMPLES == set(tags["images"])
    shown = events.Images("samples/1")[0]
    assert (6, 640, 640) == (shown.step, shown.width, shown.height)
    assert b"| policy | symmetric |" in events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0]


def test_mlflow_reads_what_is_written(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics, parameters and artifacts in the store that MLFLOW_TRACKING_URI names, by MLflow's own client."""
    pytest.importorskip("mlflow", exc_type=ImportError)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes seconds to make
    from mlflow import MlflowClient

    run = track(shapes, tmp_path / "run", "mlflow")
    client = MlflowClient()
    (found,) = client.search_runs(["0"])
    assert ("run", "FINISHED") == (found.info.run_name, found.info.status)
    assert {"mlflow": found.info.run_id} == json.loads((run.folder / KNOWN_FILE).read_text())
    assert ("symmetric", "6") == (found.data.params["policy"], found.data.params["iterations"])
    history = {name: client.get_metric_history(found.info.run_id, name) for name in found.data.metrics}
    check_values(run, {name: {point.step: point.value for point in points} for name, points in history.items()})
    images = client.list_artifacts(found.info.run_id, "samples")
    assert {f"{name}.png" for name in SAMPLES} == {image.path for image in images}


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed fine-tune adds to the run that was begun, also while the user has a run open."""
    pytest.importorskip("mlflow", exc_type=ImportError)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    with mlflow.start_run(run_name="mine") as mine:
        for steps in ((1, 2), (3,)):
            with tracking.tracking(("mlflow",), tmp_path, {"lr": 0.1}, SilentReporter()) as trackers:
                for step in steps:
                    trackers.log({"train/loss": 1 / step}, step)
        assert mine.info.run_id == mlflow.active_run().info.run_id
    client = mlflow.MlflowClient()
    (run_id,) = json.loads((tmp_path / KNOWN_FILE).read_text()).values()
    assert [1, 2, 3] == [point.step for point in client.get_metric_history(run_id, "train/loss")]
    assert 2 == len(client.search_runs(["0"]))


@pytest.mark.slow
def test_wandb_records_offline(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WANDB_MODE=offline leaves a file in the run's folder with the history, the configuration and the images."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    stop_wandb()
    run = track(shapes, tmp_path / "run", "wandb")
    stop_wandb()  # its service still writes when a run is finished
    (file,) = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    values: dict[str, dict[int, float]] = {}
    images: set[str] = set()
    config: dict[str, Any] = {}
    for record in wandb_records(file):
        if record.HasField("run"):
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            assert ("fsod", "run") == (record.run.project, record.run.display_name)
        if record.HasField("history"):
            entry = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for name, value in entry.items():
                if name.startswith("samples/"):
                    images.add(name)
                elif not name.startswith("_"):
                    values.setdefault(name, {})[entry["_step"]] = value
    check_values(run, values)
    assert ("symmetric", 6) == (config["policy"], config["iterations"])
    assert images == SAMPLES
    assert 6 == len(list(file.parent.glob("files/media/images/samples/*.png")))


def test_wandb_never_asks_for_a_key(shapes: Path, tmp_path: Path) -> None:
    """Without one, and online, it is an error that says what would be right; no run is left behind."""
    pytest.importorskip("wandb")
    stop_wandb()
    result = fsod(*argv_of(shapes, tracker="wandb"))
    assert 4 == result.exit_code
    assert "wandb has no API key" in result.stderr and "WANDB_MODE=offline" in result.stderr
    assert not (tmp_path / "runs").exists()


def stop_wandb() -> None:
    """Wait for wandb's service to end; the next run reads the environment again."""
    import wandb

    wandb.teardown()


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of wandb's local file: seven bytes of header, then LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    content, place, part = file.read_bytes(), 7, b""
    while place < len(content):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            yield record
            part = b""


def test_naming_the_trackers_imports_none_of_them() -> None:
    """`--help` must not wait for torch, and a run without trackers for no tracker."""
    code = "import sys, fewshot_cli.tracking; sys.exit(bool({'torch', 'numpy', 'PIL', 'mlflow'} & set(sys.modules)))"
    assert 0 == subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode
    check_installed(())

"""The folder that one fine-tune leaves behind.

runs/NAME/
  config.json                   how it was made; give it to `fsod finetune --config` to repeat it
  metrics.jsonl                 one line an evaluation
  checkpoint.safetensors        what trained, after the last iteration
  checkpoint-best.safetensors   the same at the best test mAP seen, if there is a test set
  predictions.json              on the test set, if there is one, in COCO's results format
  folds.json                    detections in the shots that each fold of a cross-validation left out
  search.json                   only with policy auto: the score of each candidate on each left-out shot
  result.json                   the summary that `--json` prints
  report.html                   the same to look at, with curves and images (`fsod finetune` writes it)
  trackers.json                 only with `--tracker`: under which id each tracker knows the run
  state.pt                      only while unfinished: what `--resume` needs
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_cli import __version__
from fewshot_cli.errors import CheckpointError, ConfigError, DataError
from fewshot_cli.files import claim_folder, make_folder, storage_errors, write_atomically, write_json, write_text
from fewshot_cli.paths import is_file, is_plain_name, shown
from fewshot_cli.runs.config import FinetuneConfig

if TYPE_CHECKING:
    from fewshot_cli.inference.predictor import Predictor

DEFAULT_ROOT = Path("runs")
RESULT = "result.json"
STATE: dict[str, Callable[[Any], Any]] = {"iteration": int, "records": list, "parameters": dict, "optimizer": dict}
"""What a saved state holds, by name."""


class Run:
    """One run's folder: its files by name, read and written atomically.

    Wherever a folder is expected, the run itself will do.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.json"
        self.metrics_file = folder / "metrics.jsonl"
        self.checkpoint = folder / "checkpoint.safetensors"
        self.best_checkpoint = folder / "checkpoint-best.safetensors"
        self.predictions_file = folder / "predictions.json"
        self.folds_file = folder / "folds.json"
        self.search_file = folder / "search.json"
        self.result_file = folder / RESULT
        self.report_file = folder / "report.html"
        self.state_file = folder / "state.pt"

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def result(self) -> dict[str, Any]:
        """What was done and measured, the content of result.json; raises DataError if the run is not finished."""
        if not self.finished:
            raise DataError(
                f"{self.folder} is not finished", hint=f"Continue with: fsod finetune --resume {self.folder}"
            )
        return self.read_result()

    @property
    def thresholds(self) -> dict[str, float]:
        """Class → score from which a detection counts, of the best F1 on left-out shots; empty if not measured.

        Raises DataError if result.json is damaged.
        """
        if not self.finished:
            return {}
        stored = self.read_result().get("thresholds") or {}
        try:
            return {str(name): float(score) for name, score in stored.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise self._damaged("its thresholds are no scores by class") from error

    @property
    def finished(self) -> bool:
        return self.result_file.exists()

    def predictor(self, **options: Any) -> Predictor:
        """Images to detections: `load_run("runs/x").predictor()("photo.jpg")`.

        Args:
            options: of `inference.predictor.open_predictor`: `threshold`, `classes`, `max_detections`, `tiles`, `best`,
                `weights`, `device`, `precision`.

        Raises:
            FsodError: what `open_predictor` raises.
        """
        from fewshot_cli.inference.predictor import open_predictor

        return open_predictor(self, **options)

    def write_config(self, config: FinetuneConfig) -> None:
        """Record how the run is made."""
        import torch

        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        header = {"command": "finetune", "fsod": __version__, "torch": torch.__version__, "created": created}
        write_json(self.config_file, {**header, "options": config.to_json()})

    def read_config(self) -> FinetuneConfig:
        """How the run was made; raises ConfigError if config.json cannot be read."""
        try:
            options = json.loads(self.config_file.read_text("utf-8"))["options"]
            # A run that was begun before there was averaging ends without it.
            return FinetuneConfig.from_json({"average": 1.0, **options})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.config_file} cannot be read: {error}", hint="Give the folder of a run."
            ) from error

    def discard_if_bare(self) -> None:
        """Remove the folder if it holds nothing but how the run was to be made, and the one above if that is empty."""
        if {path.name for path in self.folder.iterdir()} <= {self.config_file.name}:
            self.config_file.unlink(missing_ok=True)
            self.folder.rmdir()
            with suppress(OSError):
                self.folder.parent.rmdir()

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        write_text(self.metrics_file, "".join(json.dumps(line) + "\n" for line in lines))

    def write_result(self, result: dict[str, Any]) -> None:
        write_json(self.result_file, result)
        self.state_file.unlink(missing_ok=True)

    def read_result(self) -> dict[str, Any]:
        """The content of result.json; raises DataError if it cannot be read."""
        try:
            result = json.loads(self.result_file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from error
        if not isinstance(result, dict):
            raise self._damaged("it is no JSON object")
        return result

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"{self.result_file} is damaged: {reason}", hint="Copy it again, or train again.")

    def read_metrics(self) -> list[dict[str, Any]]:
        """One record a measurement, in order."""
        return [json.loads(line) for line in self.metrics_file.read_text("utf-8").splitlines()]

    def read_predictions(self) -> list[dict[str, Any]]:
        """Detections on the test set in COCO's results format; empty without a test set."""
        if not self.predictions_file.exists():
            return []
        results: list[dict[str, Any]] = json.loads(self.predictions_file.read_text("utf-8"))
        return results

    def write_predictions(self, results: list[dict[str, Any]]) -> None:
        write_text(self.predictions_file, json.dumps(results) + "\n")

    def read_folds(self) -> list[dict[str, Any]]:
        """What each finished fold of a cross-validation left; empty if there is none, or it cannot be read."""
        folds = _read_or_none(self.folds_file)
        return folds if isinstance(folds, list) else []

    def write_folds(self, folds: list[dict[str, Any]]) -> None:
        write_text(self.folds_file, json.dumps(folds) + "\n")

    def read_search(self) -> dict[str, Any]:
        """Candidate → scores of a search so far; empty if there is none, or it cannot be read."""
        scores = _read_or_none(self.search_file)
        return scores if isinstance(scores, dict) else {}

    def write_search(self, scores: dict[str, Any]) -> None:
        write_text(self.search_file, json.dumps(scores) + "\n")

    def write_state(self, state: dict[str, Any]) -> None:
        """Save what an interrupted run needs to be continued; raises StorageError."""
        import torch

        # torch reports a full disk as something else; bytes written by Python do not.
        content = io.BytesIO()
        torch.save(state, content)

        def write(temporary: Path) -> None:
            temporary.write_bytes(content.getbuffer())

        write_atomically(self.state_file, write)

    def read_state(self) -> dict[str, Any] | None:
        """The saved state, or None if the run was stopped before its first.

        Raises:
            CheckpointError: the file is damaged.
        """
        import torch

        if not self.state_file.exists():
            return None
        try:
            state = torch.load(self.state_file, weights_only=True, map_location="cpu")
            return {key: kind(state[key]) for key, kind in STATE.items()}
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can raise anything at all from the unpickler
            raise CheckpointError(
                f"{self.state_file} is damaged", hint="Delete that file: the run then starts from its beginning."
            ) from error


def _read_or_none(path: Path) -> Any:
    """A JSON document; None if there is none, or it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def new_run(root: Path, name: str | None, stem: str) -> Run:
    """A fresh folder: `name`, which must be free, or `stem` with a number if that is taken.

    Raises:
        ConfigError: `name` is taken, or is not a plain folder name.
        StorageError: the disk cannot be written.
    """
    if name is None:
        return Run(claim_folder(root, stem))
    if Path(name).name != name or not is_plain_name(name):
        raise ConfigError(
            f"--name {shown(name)!r} is not a plain folder name", hint="Use --runs to choose where runs go."
        )
    return Run(_claim(make_folder(root) / name))


def _claim(folder: Path) -> Path:
    with storage_errors(folder):
        try:
            folder.mkdir()
        except FileExistsError as error:
            raise ConfigError(
                f"a run {folder} exists already", hint=f"Continue with --resume {folder}, or choose another --name."
            ) from error
    return folder


def load_run(folder: str | PathLike[str]) -> Run:
    """The run in a folder; raises DataError if there is none."""
    run = Run(Path(folder))
    if not is_file(run.config_file):
        raise DataError(
            f"{shown(folder)} is not a run: it has no config.json", hint="Give a folder made by `fsod finetune`."
        )
    return run


def latest_run(root: Path = DEFAULT_ROOT) -> Run:
    """The run finished last; raises DataError if there is none."""
    results = list(root.glob(f"*/{RESULT}"))
    if not results:
        raise DataError(f"no finished run in {root}/", hint="Run `fsod finetune` first, or name a run.")
    return Run(max(results, key=lambda path: path.stat().st_mtime).parent)

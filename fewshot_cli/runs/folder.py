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
  .lock                         only while it is being trained: by which process
"""

from __future__ import annotations

import io
import json
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot_cli import __version__
from fewshot_cli.documents import check_document, parse_document, read_document, read_file, read_lines
from fewshot_cli.errors import CheckpointError, ConfigError, DataError
from fewshot_cli.files import claim_folder, make_folder, storage_errors, write_atomically, write_json, write_text
from fewshot_cli.locks import exclusive
from fewshot_cli.paths import is_file, is_plain_name, shown
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.result import Detection, Record, RunConfig, RunResult, State
from fewshot_cli.schemas import schema_of

if TYPE_CHECKING:
    from fewshot_cli.datasets.types import Split
    from fewshot_cli.inference.predictor import Predictor

DEFAULT_ROOT = Path("runs")
RESULT = "result.json"
HINT = "Copy it again, or train again."
STATE_HINT = "Delete that file: the run then starts from its beginning."


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
        self.lock_file = folder / ".lock"

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
        return dict(self.read_result().get("thresholds") or {}) if self.finished else {}

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

    def training(self) -> AbstractContextManager[None]:
        """A context for the one process that trains the run; raises DataError on entering if there is another."""
        return exclusive(self.lock_file, f"{self.folder} is being trained")

    def write_config(self, config: FinetuneConfig) -> None:
        """Record how the run is made."""
        import torch

        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        header = {"schema": schema_of(RunConfig), "command": "finetune", "fsod": __version__}
        made = {"torch": torch.__version__, "created": created, "options": config.to_json()}
        write_json(self.config_file, {**header, **made})

    def read_config(self) -> FinetuneConfig:
        """How the run was made; raises ConfigError if config.json cannot be read, or an option in it is wrong."""
        stored = read_document(self.config_file, RunConfig, hint="Give the folder of a run.", error=ConfigError)
        try:
            # A run that was begun before there was averaging ends without it.
            return FinetuneConfig.from_json({"average": 1.0, **stored["options"]})
        except ConfigError as wrong:
            raise type(wrong)(f"{self.config_file}: {wrong.message}", hint=wrong.hint) from wrong

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
        """The content of result.json, a `runs.result.RunResult`; raises DataError if it cannot be read."""
        result: dict[str, Any] = self._read(self.result_file, RunResult)
        return result

    def read_metrics(self) -> list[dict[str, Any]]:
        """One `runs.result.Record` a measurement, in order; raises DataError if they cannot be read."""
        return [dict(line) for line in read_lines(self.metrics_file, Record, hint=HINT)]

    def read_predictions(self, test: Split | None = None) -> list[dict[str, Any]]:
        """Detections on the test set in COCO's results format; empty without a test set.

        Args:
            test: that test set, if they are to be compared with it.

        Raises:
            DataError: they cannot be read, or are of other images or categories than those of `test`.
        """
        if not self.predictions_file.exists():
            return []
        results: list[dict[str, Any]] = self._read(self.predictions_file, list[Detection])
        if test is not None:
            _check_same(self.predictions_file, results, test)
        return results

    def _read(self, file: Path, kind: Any) -> Any:
        """The document as it is in the file, if it is of that type: in its order, with the keys that the type lacks."""
        document = parse_document(read_file(file, hint=HINT), file, HINT)
        check_document(document, kind, file, HINT)
        return document

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

    def read_state(self) -> State | None:
        """The saved state, or None if the run was stopped before its first.

        Whether its tensors fit what the run trains is for the caller to check.

        Raises:
            CheckpointError: the file is damaged, or holds something else.
        """
        from fewshot_cli.detectors.weights import read_torch

        if not self.state_file.exists():
            return None
        try:
            state: State = read_torch(self.state_file)
        except CheckpointError as error:
            reason = error.message.removeprefix(f"{self.state_file} ")
            raise CheckpointError(f"{self.state_file} is damaged: it {reason}", hint=STATE_HINT) from error
        check_document(state, State, self.state_file, STATE_HINT, CheckpointError)
        return state


def _check_same(file: Path, results: list[dict[str, Any]], test: Split) -> None:
    images, categories = {image.id for image in test.images}, set(test.category_ids)
    if any(found["image_id"] not in images or found["category_id"] not in categories for found in results):
        raise DataError(
            f"{file} holds detections in other images or of other classes than those of the test set",
            hint=f"Was {test.annotations.parent} fetched again? Train again, or measure with `fsod eval`.",
        )


def _read_or_none(path: Path) -> Any:
    """A JSON document; None if there is none, or it is damaged."""
    try:
        return parse_document(read_file(path, hint=HINT), path, HINT)
    except DataError:
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

"""The folder of a sweep.

sweep/
  sweep.json        what it varies and what it holds fixed
  data/NAME/        a data set for each class, number of shots and seed
  runs/NAME/        a run for each cell
  table.md, …       what the results say (`fsod sweep` writes them)
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import Doc, NotRequired, TypedDict

from fewshot_cli.documents import MAY_LACK, check_document, read_document, read_lines
from fewshot_cli.errors import ConfigError, DataError
from fewshot_cli.files import make_folder, storage_errors, write_json
from fewshot_cli.runs.folder import RESULT, Run
from fewshot_cli.runs.result import Averaged, Detection, RunResult
from fewshot_cli.schemas import schema_of
from fewshot_cli.settings import from_mapping
from fewshot_cli.sweeps.cells import Cell, Group, Setup
from fewshot_cli.sweeps.config import SweepConfig

CONFIG = "sweep.json"
DRAWING = ("source", "test_source", "test_images", "draw_seed")
"""Fields of SweepConfig that say which images are drawn, besides most of `fetch_options`."""
TRAINING = ("weights", "eval_every")
"""Those that say how every cell is trained, besides `options`."""
SAMPLED = 200
"""Finished cells from which the time of the others is estimated."""
TRANSPORT = ("mirror", "offline")
"""Options of fetch that may change: how images arrive, not which ones."""


class _Measured(TypedDict):
    """What a sweep needs of a result.json beside what every reader needs: its data sets have a test set."""

    ap: float
    known_classes: list[str]
    average: NotRequired[Averaged]


class _Point(TypedDict):
    """What learning curves need of a line of metrics.jsonl."""

    iteration: int
    ap: float


class SweepRecord(TypedDict):
    """sweep.json in a sweep's folder: the options of `fsod sweep` that decide its cells."""

    schema: Annotated[Literal["fsod/sweep-config/1"], Doc("Kind and version.")]
    classes: Annotated[list[str], Doc("Option of `fsod sweep`."), MAY_LACK]
    policies: Annotated[list[str], Doc("Option of `fsod sweep`."), MAY_LACK]
    budgets: Annotated[list[int | str], Doc("Option of `fsod sweep`."), MAY_LACK]
    layers: Annotated[list[str], Doc("Option of `fsod sweep`."), MAY_LACK]
    shots: Annotated[list[int], Doc("Option of `fsod sweep`."), MAY_LACK]
    seeds: Annotated[int, Doc("Option of `fsod sweep`."), MAY_LACK]
    draw_seed: Annotated[int | None, Doc("Option of `fsod sweep`."), MAY_LACK]
    detectors: Annotated[list[str], Doc("Option of `fsod sweep`."), MAY_LACK]
    baselines: Annotated[bool, Doc("Option of `fsod sweep`."), MAY_LACK]
    source: Annotated[str, Doc("Option of `fsod sweep`.")]
    test_source: Annotated[str | None, Doc("Option of `fsod sweep`.")]
    test_images: Annotated[int, Doc("Option of `fsod sweep`.")]
    fetch_options: Annotated[dict[str, Any], Doc("Option of `fsod sweep`.")]
    weights: Annotated[str, Doc("Option of `fsod sweep`.")]
    eval_every: Annotated[int, Doc("Option of `fsod sweep`.")]
    options: Annotated[dict[str, Any], Doc("Option of `fsod sweep`.")]
    vary: Annotated[dict[str, Any], Doc("Option of `fsod sweep`."), MAY_LACK]
    rows: Annotated[str | None, Doc("Option of `fsod sweep`."), MAY_LACK]
    columns: Annotated[str | None, Doc("Option of `fsod sweep`."), MAY_LACK]
    panels: Annotated[list[str], Doc("Option of `fsod sweep`."), MAY_LACK]
    study: Annotated[str | None, Doc("Option of `fsod sweep`."), MAY_LACK]


class SweepFolder:
    """Where a sweep keeps its configuration, data sets and runs.

    Attributes:
        path: the folder.
        config: the configuration.
        grid: the cells.
    """

    def __init__(self, path: Path, config: SweepConfig) -> None:
        self.path = path
        self.config = config
        self.grid = config.grid

    def run(self, cell: Cell) -> Run:
        return Run(self.path / "runs" / cell.run_name)

    @property
    def data_root(self) -> Path:
        """Folder of all data sets."""
        return self.path / "data"

    def data(self, group: Group) -> Path:
        return self.data_root / group.data_name

    def missing(self) -> list[Cell]:
        """Cells that are not finished."""
        # One glob rather than a Run for each cell: this is called every few seconds.
        done = {path.parent.name for path in self.path.glob(f"runs/*/{RESULT}")}
        return [cell for cell in self.grid.cells() if cell.run_name not in done]

    def missing_of(self, group: Group) -> list[Cell]:
        """Cells of a group that are not finished."""
        return [cell for cell in self.grid.cells_of(group) if not self.run(cell).finished]

    def finished(self) -> Iterator[Cell]:
        return (cell for cell in self.grid.cells() if self.run(cell).finished)

    def results(self) -> Iterator[tuple[Cell, dict[str, Any]]]:
        """Every finished cell whose result.json can be read, with its content."""
        for cell in self.finished():
            with suppress(DataError):
                yield cell, self.read_result(cell)

    def read_result(self, cell: Cell) -> dict[str, Any]:
        """The content of a cell's result.json; raises DataError if it is damaged."""
        run = self.run(cell)
        result = read_document(run.result_file, dict[str, Any], hint=_again(run))
        for kind in (RunResult, _Measured):
            check_document(result, kind, run.result_file, _again(run))
        return result

    def read_checked(self, cell: Cell) -> dict[str, Any]:
        """The content of a finished cell's result.json.

        Raises:
            DataError: a file that the tables or the page need of it is missing or damaged.
        """
        run, result = self.run(cell), self.read_result(cell)
        read_lines(run.metrics_file, _Point, hint=_again(run))
        if not self.config.vary:  # only the page of Table I shows detections
            read_document(run.predictions_file, list[Detection], hint=_again(run))
        return result


def open_sweep(path: Path, config: SweepConfig) -> SweepFolder:
    """Begin a sweep in a folder, or continue the one that is there.

    A continued sweep may have more or other classes, policies, budgets, shots, seeds and detectors. What decides which
    images are drawn and how every cell is trained must be the same, once a cell is finished; before that, what was
    drawn and begun with other options is removed.

    Raises:
        ConfigError: the folder holds finished cells of a sweep with other options, or its sweep.json is damaged.
        StorageError: the folder cannot be written.
    """
    file = path / CONFIG
    # As JSON has it, so that it can be compared with what the file holds.
    document = json.loads(json.dumps({"schema": schema_of(SweepRecord), **config.to_json()}))
    if file.exists():
        before = read_document(file, SweepRecord, hint="Choose another --out.", error=ConfigError)
        drawing = _changes(_drawing(before), _drawing(document))
        changed = drawing + _changes(_training(before), _training(document))
        if changed and any(path.glob(f"runs/*/{RESULT}")):
            raise ConfigError(
                f"{path} holds finished cells of a sweep with {', '.join(changed)}", hint="Choose another --out."
            )
        _remove(*([path / "runs"] if changed else []), *([path / "data"] if drawing else []))
    make_folder(path / "runs")
    write_json(file, document)
    return SweepFolder(path, config)


def read_sweep(path: Path) -> SweepFolder:
    """The sweep in a folder, as it was configured last; raises ConfigError if there is none, or it cannot be read."""
    hint = "Give the folder of a sweep."
    document = read_document(path / CONFIG, dict[str, Any], hint=hint, error=ConfigError)
    options = {name: value for name, value in document.items() if name != "schema"}
    return SweepFolder(path, from_mapping(SweepConfig, options, hint=hint))


def remaining_seconds(folder: SweepFolder) -> float | None:
    """Seconds that the missing cells take in one process, estimated from the finished ones; None without any."""
    seconds: dict[Setup, list[float]] = {}
    finished = list(folder.finished())
    for cell in finished[:: max(1, len(finished) // SAMPLED)]:
        with suppress(DataError):
            seconds.setdefault(cell.setup, []).append(folder.read_result(cell)["seconds"]["total"])
    if not seconds:
        return None
    overall = statistics.median(value for values in seconds.values() for value in values)
    return sum(statistics.median(seconds.get(cell.setup, [overall])) for cell in folder.missing())


def _again(run: Run) -> str:
    return f"Remove {run.folder}, and the same command runs it again."


def _remove(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            with storage_errors(folder):
                shutil.rmtree(folder)


def _drawing(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which images are drawn, by name."""
    given = {name: value for name, value in sweep["fetch_options"].items() if name not in TRANSPORT}
    return {**{name: sweep.get(name) for name in DRAWING}, **given}


def _training(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how every cell is trained, by name."""
    return {**{name: sweep[name] for name in TRAINING}, **sweep["options"]}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One text for each value that differs: `eval_every 50 (now 0)`."""
    return [
        f"{name} {before.get(name)} (now {now.get(name)})"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]

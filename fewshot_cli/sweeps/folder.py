"""The folder of a sweep.

sweep/
  sweep.json        what it varies and what it holds fixed
  data/NAME/        a data set for each class, number of shots and seed
  runs/NAME/        a run for each cell
  table.md, …       what the results say (`fsod sweep` writes them)
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewshot_cli.documents import read_document
from fewshot_cli.errors import ConfigError
from fewshot_cli.files import make_folder, write_json
from fewshot_cli.runs.folder import RESULT, Run
from fewshot_cli.schemas import SweepRecord, schema_of
from fewshot_cli.settings import from_mapping
from fewshot_cli.sweeps.cells import Cell, Group, Setup
from fewshot_cli.sweeps.config import SweepConfig

CONFIG = "sweep.json"
FIXED = ("source", "test_source", "test_images", "weights", "eval_every", "options")
"""Fields of SweepConfig that hold for every cell of a folder: a change would make old and new cells differ."""
TRANSPORT = ("mirror", "offline")
"""Options of fetch that may change: how images arrive, not which ones."""


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

    def results(self) -> Iterator[tuple[Cell, dict[str, Any]]]:
        """Every finished cell with the content of its result.json."""
        for cell in self.grid.cells():
            run = self.run(cell)
            if run.finished:
                yield cell, run.read_result()


def open_sweep(path: Path, config: SweepConfig) -> SweepFolder:
    """Begin a sweep in a folder, or continue the one that is there.

    A continued sweep may have more or other classes, policies, budgets, shots, seeds and detectors; the fields in FIXED
    and the options of fetch that decide which images are drawn must be the same.

    Raises:
        ConfigError: the folder holds a sweep with other fixed options, or its sweep.json cannot be read.
        StorageError: the folder cannot be written.
    """
    file = path / CONFIG
    # As JSON has it, so that it can be compared with what the file holds.
    document = json.loads(json.dumps({"schema": schema_of(SweepRecord), **config.to_json()}))
    if file.exists():
        changed = _changes(_read(file), document)
        if changed:
            raise ConfigError(f"{path} holds a sweep with {', '.join(changed)}", hint="Choose another --out.")
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
    for cell, result in folder.results():
        seconds.setdefault(cell.setup, []).append(result["seconds"]["total"])
    if not seconds:
        return None
    overall = statistics.median(value for values in seconds.values() for value in values)
    return sum(statistics.median(seconds.get(cell.setup, [overall])) for cell in folder.missing())


def _read(file: Path) -> dict[str, Any]:
    """The fixed part of a sweep.json; raises ConfigError."""
    try:
        document = json.loads(file.read_text("utf-8"))
        return {**{name: document[name] for name in FIXED}, "fetch_options": dict(document["fetch_options"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", hint="Choose another --out.") from error


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One text for each fixed value that differs: `eval_every 50 (now 0)`."""
    changed = [f"{name} {before[name]} (now {now[name]})" for name in FIXED if before[name] != now[name]]
    old, new = before["fetch_options"], now["fetch_options"]
    drawing = [name for name in {**old, **new} if name not in TRANSPORT]
    return changed + [
        f"{name} {old.get(name)} (now {new.get(name)})" for name in drawing if old.get(name) != new.get(name)
    ]

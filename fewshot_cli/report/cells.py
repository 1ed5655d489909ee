"""Every finished cell of a sweep as a line of `cells.csv`, for analyses of one's own."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from fewshot_cli.files import write_text
from fewshot_cli.sweeps.axes import value_text
from fewshot_cli.sweeps.folder import SweepFolder
from fewshot_cli.sweeps.measures import MEASURES
from fewshot_cli.sweeps.pivot import Results

FILE = "cells.csv"


def write_cells(folder: SweepFolder, results: Results) -> Path:
    """Write the file: what each cell is, then every measure, empty where a run has none; raises StorageError."""
    varied = [*folder.config.vary]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["class", "shots", "seed", "detector", "setup", *varied, *MEASURES])
    for cell, result in results.items():
        group, has = cell.group, cell.varied
        about = [group.class_name, group.shots, group.seed, group.detector, cell.setup]
        values = [value_text(name, has[name]) for name in varied]
        writer.writerow([*about, *values, *(measure.of(result) for measure in MEASURES.values())])
    write_text(folder.path / FILE, file.getvalue())
    return folder.path / FILE

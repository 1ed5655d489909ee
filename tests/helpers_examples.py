"""Running the scripts under examples/, and reading the tables that they print."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from helpers_runs import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def run_example(script: str, *arguments: str | Path) -> str:
    """Run a script in this process and folder, which saves the imports; what it prints on stdout."""
    printed = io.StringIO()
    with patch.object(sys, "argv", [script, *map(str, arguments)]), contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        except SystemExit as end:
            assert end.code in (None, 0), end.code
    return printed.getvalue()


def start_example(folder: Path, script: str, *arguments: str | Path, **environment: str) -> str:
    """Run a script as a process of its own in a folder; what it prints on stdout."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def table(printed: str) -> list[list[str]]:
    """The rows of the Markdown table that a script prints, without head and rule."""
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip(" *") for cell in row.strip("|").split("|")] for row in rows[2:]]

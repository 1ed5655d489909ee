"""MLflow, with its own environment variables: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and so on.

Without them MLflow records into `mlflow.db` and `mlruns/` of the current folder, where `mlflow server` finds it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric
from PIL.Image import Image

LONGEST = 500
"""Characters of a parameter's value that every server takes."""
BATCH = 100
"""Numbers that are sent together: a database takes longer to commit one than a step to compute."""


def start(folder: Path, options: Mapping[str, Any], known: str | None) -> MLflow:
    """Begin a run of the folder's name, or go on with the known one."""
    for name in ("mlflow", "alembic"):  # they announce the tables of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    # Nested, so that a notebook may have a run of its own open.
    run = mlflow.start_run(run_id=known, run_name=folder.name, nested=True)
    mlflow.log_params({name: str(value)[:LONGEST] for name, value in options.items()})
    return MLflow(run.info.run_id)


class MLflow:
    """A run in MLflow, which is the active one until it is closed."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.where = f"run {run_id} in {mlflow.get_tracking_uri()}"
        self._waiting: list[Metric] = []

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        now = round(1000 * time.time())
        self._waiting += [Metric(name, value, now, iteration) for name, value in values.items()]
        if len(self._waiting) >= BATCH:
            self._send()

    def show(self, images: Mapping[str, Image], iteration: int) -> None:
        for name, image in images.items():
            mlflow.log_image(image, artifact_file=f"{name}.png")

    def close(self, finished: bool) -> None:
        try:
            self._send()
        finally:
            mlflow.end_run("FINISHED" if finished else "FAILED")

    def _send(self) -> None:
        sent, self._waiting = self._waiting, []
        mlflow.MlflowClient().log_batch(self.id, metrics=sent)

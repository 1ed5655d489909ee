"""Weights & Biases, with its own environment variables: WANDB_MODE, WANDB_PROJECT, WANDB_API_KEY and so on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from PIL.Image import Image

from fewshot_cli.errors import ConfigError

PROJECT = "fsod"


def start(folder: Path, options: Mapping[str, Any], known: str | None) -> WeightsAndBiases:
    """Begin a run of the folder's name, or go on with the known one; local files go into the folder of the run.

    Raises:
        ConfigError: it would have to ask for an API key.
    """
    online = wandb.setup().settings.mode in (None, "online")
    if online and not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            "wandb has no API key", hint="Run `wandb login`, set WANDB_API_KEY, or record here with WANDB_MODE=offline."
        )
    return WeightsAndBiases(
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=os.environ.get("WANDB_DIR", str(folder)),
            id=known,
            name=folder.name,
            config=dict(options),
            resume="allow",
            reinit="create_new",  # a notebook may have a run of its own open
            settings=wandb.Settings(silent=True, console="off"),
        )
    )


class WeightsAndBiases:
    """A run at Weights & Biases, or in files for `wandb sync`."""

    def __init__(self, run: wandb.Run) -> None:
        self.id = run.id
        self.where = f"wandb sync {Path(run.dir).parent}" if run.offline else str(run.url)
        self._run = run

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        self._run.log(dict(values), step=iteration)

    def show(self, images: Mapping[str, Image], iteration: int) -> None:
        self._run.log({name: wandb.Image(image) for name, image in images.items()}, step=iteration)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)

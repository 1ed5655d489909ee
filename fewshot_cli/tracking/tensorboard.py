"""TensorBoard: event files in the folder of the run. Look at them with `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image
from torch.utils.tensorboard import SummaryWriter


def start(folder: Path, options: Mapping[str, Any], known: str | None) -> TensorBoard:
    """Write into `tensorboard/` of the run's folder; a resumed run adds its files there."""
    return TensorBoard(folder / "tensorboard", options)


class TensorBoard:
    """A run in TensorBoard's event files."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self.id = folder.name
        self.where = f"tensorboard --logdir {folder}"
        self._writer = SummaryWriter(str(folder))
        lines = ["| option | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in options.items())]
        self._writer.add_text("configuration", "\n".join(lines), 0)

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)

    def show(self, images: Mapping[str, Image], iteration: int) -> None:
        for name, image in images.items():
            self._writer.add_image(name, np.asarray(image), iteration, dataformats="HWC")

    def close(self, finished: bool) -> None:
        self._writer.close()

"""Writing out the variants that a fine-tune trains on, as a data set."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.datasets.store import Dataset, latest_dataset
from fewshot_cli.progress import Reporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.settings import from_mapping


def augment(
    data: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    *,
    copies: int = FinetuneConfig.copies,
    seed: int = FinetuneConfig.seed,
    force: bool = False,
    reporter: Reporter | None = None,
    **ranges: Any,
) -> Dataset:
    """Write a data set with variants of its training images; `finetune` makes the same ones by itself.

    Args:
        data: a data set or its folder; default: the one fetched last under `data/`.
        out: folder of the new data set; default: beside it, named `DATA-augmented`.
        copies: images per shot, the original included.
        seed: random seed for augmentation.
        force: replace a data set at `out`.
        reporter: gets the progress.
        ranges: any field of Augmentation: ops, flip, rotate, scale, ….

    Returns:
        the new data set.

    Raises:
        ConfigError: an unknown or impossible range.
        DataError: no data set, `out` exists and may not be replaced, or an image cannot be read.
        StorageError: the disk cannot be written.
    """
    from fewshot_cli.augmentation.dataset import augment as write

    augmentation = from_mapping(Augmentation, ranges)
    source = Path(data) if data is not None else latest_dataset().path
    target = Path(out) if out is not None else None
    return write(source, target, copies=copies, augmentation=augmentation, seed=seed, force=force, reporter=reporter)

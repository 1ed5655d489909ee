"""Writing out the variants that a fine-tune trains on, as a data set."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from fewshot_cli.augmentation.config import Variants
from fewshot_cli.datasets.store import Dataset, latest_dataset
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.settings import from_mapping
from fewshot_cli.threads import choose_threads, use_threads


def augment(
    data: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    *,
    force: bool = False,
    threads: int | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> Dataset:
    """Write a data set with variants of its training images; `finetune` makes the same ones by itself.

    Args:
        data: a data set or its folder; default: the one fetched last under `data/`.
        out: folder of the new data set; default: beside it, named `DATA-augmented`.
        force: replace a data set at `out`.
        threads: CPU threads; None: one for each free core.
        reporter: receives progress and remarks.
        options: any field of Variants: copies, seed, ops, flip, rotate, scale, ….

    Returns:
        the new data set.

    Raises:
        ConfigError: an unknown option or an impossible range.
        DataError: no data set, `out` exists and may not be replaced, or an image cannot be read.
        StorageError: the disk cannot be written.
    """
    from fewshot_cli.augmentation.dataset import augment as write

    reporter = reporter or SilentReporter()
    variants = from_mapping(Variants, options)
    source = Path(data) if data is not None else latest_dataset().path
    if data is None:
        reporter.say(f"Data set: {source}, the most recently fetched one.")
    use_threads(choose_threads(threads, reporter))
    return write(
        source,
        Path(out) if out is not None else None,
        copies=variants.copies,
        augmentation=variants.augmentation,
        seed=variants.seed,
        force=force,
        reporter=reporter,
    )

"""Writing out the variants that a fine-tune trains on, as a data set."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from fewshot_cli.augmentation.config import Variants
from fewshot_cli.bounds import IMAGE_SIZE
from fewshot_cli.datasets.store import Dataset, latest_dataset, recorded_detector
from fewshot_cli.detectors.registry import get_spec
from fewshot_cli.errors import UsageError
from fewshot_cli.progress import Reporter, SilentReporter
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.settings import from_mapping
from fewshot_cli.threads import choose_threads, use_threads


def augment(
    data: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    full_size: bool = False,
    force: bool = False,
    threads: int | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> Dataset:
    """Write a data set with variants of its training images; `finetune` makes the same ones by itself.

    Args:
        data: a data set or its folder; default: the one fetched last under `data/`.
        out: folder of the new data set; default: beside it, named `DATA-augmented`.
        image_size: side of the canvas that variants are made for, pixels; None: that of the data set's detector, or of
            the default one.
        full_size: keep all pixels of the images instead.
        force: replace a data set at `out`.
        threads: CPU threads; None: one for each free core.
        reporter: receives progress and remarks.
        options: any field of Variants: copies, seed, ops, flip, rotate, scale, ….

    Returns:
        the new data set.

    Raises:
        UsageError: `image_size` beside `full_size`, or an `out` that holds `data`.
        ConfigError: an unknown option or an impossible range.
        DataError: no data set, `out` exists and may not be replaced, or an image cannot be read.
        StorageError: the disk cannot be written.
    """
    from fewshot_cli.augmentation.dataset import augment as write

    reporter = reporter or SilentReporter()
    variants = from_mapping(Variants, options)
    if full_size and image_size is not None:
        raise UsageError("--image-size does not go with --full-size", hint="Give one of them.")
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
        canvas=None if full_size else IMAGE_SIZE.check("image_size", image_size or _canvas_of(source)),
        force=force,
        reporter=reporter,
    )


def _canvas_of(source: Path) -> int:
    """The canvas on which `finetune` shows the images by default, pixels."""
    return get_spec(recorded_detector(source) or FinetuneConfig.detector).image_size

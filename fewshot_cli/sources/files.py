"""`--source coco:DIR`: one's own annotated images."""

from __future__ import annotations

from pathlib import Path

from fewshot_cli.datasets.formats.coco import read_split
from fewshot_cli.datasets.formats.coco_layouts import TEST_NAMES, TRAIN_NAMES, find_layout, has_layout, split_paths
from fewshot_cli.errors import DataError, UsageError
from fewshot_cli.sources.registry import Candidates, Query


def candidates(query: Query) -> Candidates:
    """Read a split folder, a COCO file, or a data set folder with train/ and perhaps test/ or valid/.

    Images are not decoded here: only those that are drawn need to be.

    Raises:
        UsageError: no DIR was given.
        DataError: DIR is not there, holds no COCO, or has no split to train on.
        DatasetError: the problems of its records.
    """
    if not query.argument:
        raise UsageError("--source coco needs a folder", hint="Write coco:DIR.")
    path = Path(query.argument).expanduser()
    pool, test = _locate(path)
    return Candidates(
        pool=read_split(pool, decode_images=False, skip_invalid=query.skip_invalid),
        test=read_split(test, decode_images=False, skip_invalid=query.skip_invalid) if test else None,
    )


def _locate(path: Path) -> tuple[Path, Path | None]:
    """Where the pool is, and the test split if DIR has its own."""
    splits = split_paths(path)
    test = next((splits[name] for name in TEST_NAMES if name in splits), None)
    if has_layout(path):
        return path, test
    pool = next((splits[name] for name in TRAIN_NAMES if name in splits), None)
    if pool:
        return pool, test
    layout = find_layout(path)  # raises, with all that it knows
    raise DataError(f"{path} has no split to train on", hint=f"Found only {layout.annotations}.")

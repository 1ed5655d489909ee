"""`--source miniature`: images of the embedded world, drawn when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.datasets.sampling import rank
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.download import cache_folder
from fewshot_cli.errors import DataError, UsageError
from fewshot_cli.files import make_folder
from fewshot_cli.sources.miniature.classes import CLASSES
from fewshot_cli.sources.miniature.scene import VERSION, Item
from fewshot_cli.sources.miniature.world import TEST, TRAIN, SceneKey, make_split, save_scene, to_image
from fewshot_cli.sources.registry import Candidates, Query

SCENES = 10_000
"""Scenes of each class and part."""


def candidates(query: Query) -> Candidates:
    """Draw as many images as will be chosen; which ones is decided by the seed.

    As in the paper, an image with an occluded, truncated or grouped object of an asked class is left out.

    Raises:
        UsageError: an argument, which this source does not take.
        DataError: an unknown class, or more images than the world has.
        StorageError: the disk refuses.
    """
    if query.argument:
        raise UsageError("--source miniature takes no argument", hint="Write --source miniature.")
    names = match_classes(query.classes, tuple(CLASSES))
    left_out: Counter[str] = Counter()
    each = -(-query.test_images // len(names))
    pool = _draw(TRAIN, names, query.shots, query.seed, left_out)
    test = _draw(TEST, names, each, query.seed, left_out)
    return Candidates(
        pool=make_split(Path(f"miniature {VERSION}/{TRAIN}"), tuple(CLASSES), pool),
        test=make_split(Path(f"miniature {VERSION}/{TEST}"), tuple(CLASSES), test),
        filters=tuple(f"{flag}: {count} images left out" for flag, count in sorted(left_out.items())),
    )


def _draw(part: str, names: Sequence[str], count: int, seed: int, left_out: Counter[str]) -> list[ImageRecord]:
    """`count` images that were drawn for each class."""
    folder = make_folder(cache_folder() / "miniature" / f"{VERSION}" / part)
    return [image for name in names for image in _of_class(part, name, names, count, seed, folder, left_out)]


def _of_class(
    part: str, name: str, names: Sequence[str], count: int, seed: int, folder: Path, left_out: Counter[str]
) -> Iterator[ImageRecord]:
    found = 0
    for number in sorted(range(SCENES), key=lambda number: rank(number, f"{seed}.{part}.{name}")):
        if found == count:
            return
        key = SceneKey(part, name, number)
        scene = key.draw()
        flags = _flags([item for item in scene.items if item.name in names])
        if flags:
            left_out.update(flags)
        # What was drawn for a class may be hidden by others.
        elif any(item.name == name for item in scene.items):
            save_scene(scene, key, folder)
            yield to_image(scene, key, folder)
            found += 1
    if found < count:
        raise DataError(
            f"miniature: only {found} images of {name!r} for {part}, {count} are asked for",
            hint=f"Ask for {found} or fewer.",
        )


def _flags(items: Sequence[Item]) -> set[str]:
    return {flag for flag in ("occluded", "truncated", "group") if any(getattr(item, flag) for item in items)}

"""Scenes of the embedded world as images to draw from.

What is in a scene is known only when it has been drawn, so a survey lists the scenes made for a class, and `bring`
says which of them can be used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fewshot_cli.datasets.classes import match_classes
from fewshot_cli.datasets.splits import restrict
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.download import cache_folder
from fewshot_cli.files import make_folder
from fewshot_cli.sources.miniature.classes import CLASSES
from fewshot_cli.sources.miniature.scene import VERSION, Item
from fewshot_cli.sources.miniature.world import (
    LICENCE,
    TEST,
    TRAIN,
    SceneKey,
    make_split,
    save_scene,
    scene_of,
    to_image,
)
from fewshot_cli.sources.survey import Brought, Candidates, Query, Survey

SCENES = 10_000
"""Scenes of each class and part."""


def survey_world(query: Query) -> Survey:
    """10,000 scenes a class to draw shots from and as many others for the test set; raises DataError for a class."""
    names = match_classes(query.classes, tuple(CLASSES))
    return Survey(
        pool=_candidates(TRAIN, names) if query.pool else None,
        test=_candidates(TEST, names) if query.test else None,
    )


def _candidates(part: str, names: Sequence[str]) -> Candidates:
    return Candidates(
        place=_place(part),
        ids={name: _ids(part, name) for name in names},
        bring=partial(_bring, part, names),
        tag=partial(_tag, part),
    )


def _place(part: str) -> Path:
    return Path(f"miniature {VERSION}") / part


def _ids(part: str, name: str) -> range:
    first = SceneKey(part, name, 0).image_id
    return range(first, first + SCENES)


def _tag(part: str, image_id: int) -> str:
    """A scene in its rank: its class and its number; its part too, unless the key names the test set already."""
    key = scene_of(part, image_id)
    return f"{'' if part == TEST else f'.{part}'}.{key.focus}:{key.number}"


def _bring(part: str, names: Sequence[str], ids: Sequence[int]) -> Brought:
    """Draw scenes and keep those that can be used.

    As in the paper, an image with an occluded, truncated or grouped object of a requested class is left out. So is one
    whose own class cannot be seen, because other objects hide it.
    """
    folder = make_folder(cache_folder() / "miniature" / f"{VERSION}" / part)
    left_out: Counter[str] = Counter()
    images: list[ImageRecord] = []
    for key in (scene_of(part, image_id) for image_id in ids):
        scene = key.draw()
        flags = _flags([item for item in scene.items if item.name in names])
        left_out.update(flags)
        if not flags and any(item.name == key.focus for item in scene.items):
            save_scene(scene, key, folder)
            images.append(to_image(scene, key, folder))
    split = restrict(make_split(_place(part), tuple(CLASSES), images), names)
    return Brought(images={image.id: image for image in split.images}, left_out=left_out, licences=(LICENCE,))


def _flags(items: Sequence[Item]) -> list[str]:
    return [flag for flag in ("occluded", "truncated", "group") if any(getattr(item, flag) for item in items)]

"""Scenes as images on disk, in COCO format, drawn by one process or several."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.files import make_folder, write_atomically, write_json
from fewshot_cli.sources.miniature.classes import BASE, CLASSES
from fewshot_cli.sources.miniature.scene import Scene, draw_scene

LICENCE = "Drawn by fsod itself; no rights of others."


class SceneKey(NamedTuple):
    """Which scene: the part of the world it is from, the class it was drawn for (None: base classes), its number."""

    part: str
    focus: str | None
    number: int

    def draw(self) -> Scene:
        """The scene: always the same for the same key, on every machine."""
        # What pretrains has no boxes around groups: a member of a group would be a target without a box.
        groups = 0.0 if self.part == PRETRAIN else 0.08
        return draw_scene(f"{self.part}/{self.focus or 'base'}/{self.number}", self.focus, groups=groups)

    @property
    def image_id(self) -> int:
        """Unique within a part."""
        return _FOCUSES.index(self.focus) * _SCENES_A_FOCUS + self.number + 1


def scene_of(part: str, image_id: int) -> SceneKey:
    """The scene that has this `image_id` in a part."""
    place, number = divmod(image_id - 1, _SCENES_A_FOCUS)
    return SceneKey(part, _FOCUSES[place], number)


_FOCUSES = (None, *CLASSES)
_SCENES_A_FOCUS = 1_000_000  # numbers that image ids have room for

PRETRAIN, HELD_OUT, TRAIN, TEST = "pretrain", "held-out", "train", "test"
"""Parts of the world. No scene is in two of them; the first two hold base classes only."""


def draw_base_split(folder: Path, part: str, count: int, *, processes: int = 1) -> Split:
    """Write the first `count` base scenes of a part as COCO: `folder/annotations.json` and `folder/images/`.

    Annotations carry the flags `occluded`, `truncated` and `group` besides COCO's own keys.

    Raises:
        StorageError: a file cannot be written.
    """
    keys = [SceneKey(part, None, number) for number in range(count)]
    images = make_folder(folder / "images")
    if processes == 1:
        scenes = [_write(key, images) for key in keys]
    else:
        with ProcessPoolExecutor(processes) as pool:
            scenes = list(pool.map(_write, keys, [images] * count, chunksize=32))
    records = [to_image(scene, key, images) for scene, key in zip(scenes, keys, strict=True)]
    split = make_split(folder / "annotations.json", tuple(BASE), records)
    document = split.to_coco()
    flags = [item for scene in scenes for item in scene.items]
    for record, item in zip(document["annotations"], flags, strict=True):
        record.update(occluded=item.occluded, truncated=item.truncated, group=item.group)
    write_json(split.annotations, document)
    return split


def make_split(annotations: Path, classes: Sequence[str], images: Sequence[ImageRecord]) -> Split:
    """Images of the world as a split; labels index all of its classes, base first."""
    return Split(annotations=annotations, classes=tuple(classes), images=tuple(images), licences=(LICENCE,))


def to_image(scene: Scene, key: SceneKey, images: Path) -> ImageRecord:
    """A scene that lies in the folder `images`; labels index CLASSES, base classes first."""
    names = list(CLASSES)
    return ImageRecord(
        id=key.image_id,
        path=images / file_name(key),
        width=scene.width,
        height=scene.height,
        boxes=np.array([item.box for item in scene.items], dtype=np.float32).reshape(-1, 4),
        labels=np.array([names.index(item.name) for item in scene.items], dtype=np.int64),
        crowd=np.array([item.group for item in scene.items], dtype=bool),
    )


def file_name(key: SceneKey) -> str:
    """`helmet_000012.jpg`."""
    return f"{(key.focus or 'base').replace(' ', '_')}_{key.number:06}.jpg"


def save_scene(scene: Scene, key: SceneKey, images: Path) -> None:
    """Write the image into the folder; raises StorageError."""

    def save(path: Path) -> None:
        path.write_bytes(scene.jpeg)

    write_atomically(images / file_name(key), save)


def _write(key: SceneKey, images: Path) -> Scene:
    """Draw and save; the image's bytes stay out of what processes send each other."""
    scene = key.draw()
    save_scene(scene, key, images)
    return scene._replace(jpeg=b"")

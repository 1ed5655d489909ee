"""The images and boxes of one split while a reader finds them: every format is checked here in the same way.

For formats without ids of their own. The reader goes through its records in a fixed order:

    found = Collector(folder, decode=decode_images)
    image = found.image(Where(file, "image a.jpg"), path, reason, size=(640, 480))
    found.box(image, Where(file, "object 1"), "helmet", (10, 20, 30, 40))
    return found.split(skip_invalid=skip_invalid)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewshot_cli.datasets.formats.boxes import Corners, clip
from fewshot_cli.datasets.formats.image_files import checked_size
from fewshot_cli.datasets.formats.problems import Problems
from fewshot_cli.datasets.formats.values import finite, is_size, shown
from fewshot_cli.datasets.types import ImageRecord, Split


class Where(NamedTuple):
    """A record, for messages: the file that holds it, and what it is there."""

    file: Path
    record: str


@dataclass(slots=True)
class FoundImage:
    """An image while its boxes are collected.

    Attributes:
        id: 1, 2, … in the order in which images are found.
        path: the file; None: it cannot be used.
        size: (width, height), pixels; None: it cannot be used.
        name: what the annotations call it.
    """

    id: int
    path: Path | None
    size: tuple[int, int] | None
    name: str
    corners: list[Corners] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)


class Collector:
    """What was found, and what was wrong with it.

    Args:
        annotations: the file or folder of the split.
        decode: decode every image, and compare its size.
        classes: names in label order; None: those that have boxes, by name.
    """

    def __init__(self, annotations: Path, *, decode: bool, classes: Sequence[str] | None = None) -> None:
        self.annotations = annotations
        self.problems = Problems(annotations)
        self.left_out: Counter[str] = Counter()
        """What was left out because the format does not say that it is labelled, or because it has no box."""
        self._decode = decode
        self._classes = classes
        self._known = None if classes is None else set(classes)
        self._images: list[FoundImage] = []
        self._seen: dict[Path, str] = {}

    def problem(self, where: Where, reason: str) -> None:
        self.problems.add(where.record, reason, where.file)

    def image(
        self, where: Where, path: Path | None, reason: str | None = None, *, size: Any = None, name: str = ""
    ) -> FoundImage:
        """An image. If it cannot be used that is a problem, and its boxes are still checked.

        Args:
            where: its record.
            path: the file.
            reason: why there is none.
            size: stated width and height; None: not stated.
            name: as the annotations have it, if it says more than the file's own name.
        """
        found = FoundImage(len(self._images) + 1, path, None, name)
        self._images.append(found)
        if path is None:
            self.problem(where, reason or "no image is named")
        elif path in self._seen:
            self.problem(where, f"{path.name} has labels already: {self._seen[path]}")
        elif size is not None and not all(is_size(side) for side in size):
            self.problem(where, f"width and height are not positive integers: {shown(size)}")
        else:
            self._seen[path] = where.record or str(where.file)
            stated = (int(size[0]), int(size[1])) if size is not None else None
            found.size, fault = checked_size(path, stated, decode=self._decode)
            if fault:
                self.problems.add(where.record or path.name, fault, path)
        return found

    def box(
        self,
        image: FoundImage,
        where: Where,
        name: Any,
        corners: Sequence[float | None],
        *,
        text: str | None = None,
        crowd: bool = False,
    ) -> None:
        """A box, clipped to its image; what is wrong with it is a problem.

        Args:
            image: what it belongs to.
            where: its record.
            name: of the class.
            corners: xyxy, pixels; None: not a number.
            text: the box as its file has it; default: the corners.
            crowd: see `ImageRecord`.
        """
        text = text or f"box {', '.join('?' if value is None else f'{value:g}' for value in corners)}"
        numbers = [finite(value) for value in corners]
        label = name.strip() if isinstance(name, str) else ""
        if not label:
            self.problem(where, f"the class is not a non-empty string: {shown(name)}")
        elif self._known is not None and label not in self._known:
            self.problem(where, f"class {shown(label)} is not among the classes")
        if None in numbers:
            self.problem(where, f"{text} holds something that is not a finite number")
            return
        box, reason = clip(tuple(numbers), image.size, text)  # type: ignore[arg-type]
        if reason:
            self.problem(where, reason)
        if label and box:
            image.corners.append(box)
            image.classes.append(label)
            image.crowd.append(crowd)

    def split(self, *, skip_invalid: bool) -> Split:
        """All that can be used; raises DatasetError for problems, unless they are to be left out."""
        usable = [image for image in self._images if image.path and image.size]
        remarks = tuple(f"{what}: {count}" for what, count in self.left_out.items())
        if not usable:
            self.problems.add("", "; ".join(("holds no usable image", *remarks)))
        if self.problems.found and not (skip_invalid and usable):
            raise self.problems.error(CORRECT)
        names = self._classes
        if names is None:
            names = sorted({name for image in usable for name in image.classes})
        labels = {name: label for label, name in enumerate(names)}
        return Split(
            annotations=self.annotations,
            classes=tuple(names),
            images=tuple(_record(image, labels) for image in usable),
            skipped=tuple(self.problems.found),
            remarks=remarks,
        )


CORRECT = "Correct the records above, or leave them out with --skip-invalid where the command has it."


def _record(image: FoundImage, labels: dict[str, int]) -> ImageRecord:
    assert image.path is not None and image.size is not None
    known = [place for place, name in enumerate(image.classes) if name in labels]
    return ImageRecord(
        id=image.id,
        path=image.path,
        width=image.size[0],
        height=image.size[1],
        boxes=np.array([image.corners[place] for place in known], dtype=np.float32).reshape(-1, 4),
        labels=np.array([labels[image.classes[place]] for place in known], dtype=np.int64),
        crowd=np.array([image.crowd[place] for place in known], dtype=np.bool_),
        name=image.name,
    )

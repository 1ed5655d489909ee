"""What a data set is inside the program: images with boxes in xyxy pixels, upright. xywh stays in the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot_cli.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One annotated image.

    Attributes:
        id: the COCO image id.
        path: the file.
        width, height: pixels, after EXIF orientation.
        boxes: (N, 4) float32, xyxy, pixels, inside the image.
        labels: (N,) int64, index into the split's classes.
        crowd: (N,) bool, a box around a group: matched leniently by the metric, not a single object.
        name: what the annotations call it, with its folder; empty where that is the file's own name.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    name: str = ""

    def objects(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes and labels without crowds: a crowd box stands for many objects and is no target of its own."""
        single = ~self.crowd
        return self.boxes[single], self.labels[single]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The images of one split.

    Attributes:
        annotations: the file they came from, or a name for what is no file.
        classes: names in label order.
        images: in the order of the file, or of id.
        licences: what the file says about rights, one line each.
        skipped: problems of records that were left out (only with `skip_invalid`).
        category_ids: the COCO id of each class; 1 … C where none are given.
        remarks: what else the file holds and was not read, one count each: `images without a label file: 3`.
    """

    annotations: Path
    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    licences: tuple[str, ...] = ()
    skipped: tuple[Problem, ...] = ()
    category_ids: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.classes) + 1)))

    def to_coco(self) -> dict[str, Any]:
        """A plain COCO document with the categories and images under their own ids, annotations numbered from 1."""
        annotations = [record for image in self.images for record in self._annotation_records(image)]
        # pycocotools takes a match with annotation 0 for no match, so numbering begins with 1.
        numbered = [{"id": number, **record} for number, record in enumerate(annotations, start=1)]
        return {
            "images": [image_record(image, image.path.name) for image in self.images],
            "annotations": numbered,
            "categories": [
                {"id": number, "name": name} for number, name in zip(self.category_ids, self.classes, strict=True)
            ],
        }

    def _annotation_records(self, image: ImageRecord) -> list[dict[str, Any]]:
        boxes = to_xywh(image.boxes.astype(np.float64)).tolist()
        return [
            {
                "image_id": image.id,
                "category_id": self.category_ids[label],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(crowd),
            }
            for box, label, crowd in zip(boxes, image.labels, image.crowd, strict=True)
        ]


def to_xyxy(boxes: NDArray[Any]) -> NDArray[Any]:
    """(N, 4) xywh → (N, 4) xyxy, same unit."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def to_xywh(boxes: NDArray[Any]) -> NDArray[Any]:
    """(N, 4) xyxy → (N, 4) xywh, same unit."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def image_record(image: ImageRecord, file_name: str) -> dict[str, Any]:
    """An image as COCO lists it."""
    return {"id": image.id, "file_name": file_name, "width": image.width, "height": image.height}

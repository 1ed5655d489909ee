"""What looks wrong is found, named, and never more than a warning."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_data import draw_image
from PIL import Image, ImageDraw

from fewshot_cli.datasets.checks import Thumbnails, check_images
from fewshot_cli.datasets.classes import look_alike
from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.images import image_size
from fewshot_cli.datasets.suspects import class_names, partly_labelled, repeated_images, small_boxes
from fewshot_cli.datasets.types import ImageRecord
from fewshot_cli.detectors.coco_classes import COCO_NAMES


def record(path: Path, boxes: list[list[float]] | None = None, size: tuple[int, int] = (416, 208)) -> ImageRecord:
    corners = np.array(boxes or [], np.float32).reshape(-1, 4)
    count = len(corners)
    return ImageRecord(
        id=1, path=path, width=size[0], height=size[1],
        boxes=corners, labels=np.zeros(count, np.int64), crowd=np.zeros(count, np.bool_),
    )  # fmt: skip


def scene(path: Path, seed: int, size: tuple[int, int] = (320, 240), quality: int = 95) -> Path:
    """A drawn scene whose content depends on the seed, saved at a size and quality."""
    colours = np.random.default_rng(seed)
    image = Image.new("RGB", (320, 240), tuple(colours.integers(0, 256, 3).tolist()))
    for _ in range(12):
        x, y = colours.integers(0, 280, 2)
        ImageDraw.Draw(image).rectangle((x, y, x + 60, y + 50), fill=tuple(colours.integers(0, 256, 3).tolist()))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize(size).save(path, quality=quality)
    return path


def repeats(train: list[Path], test: list[Path]) -> list[tuple[str, tuple[str, ...]]]:
    """Messages and names of the images that repeat."""
    images = [record(path, size=image_size(path)) for path in (*train, *test)]
    thumbnails: Thumbnails = {}
    assert not check_images(images, thumbnails)
    found = repeated_images(images[: len(train)], images[len(train) :], thumbnails)
    return [(suspect.message, suspect.images) for suspect in found]


def test_boxes_of_a_few_pixels_are_counted(tmp_path: Path) -> None:
    """Under 4 pixels wide or high once the longer side is 416: 8 pixels in an image of 832 are enough, 7 are not."""
    images = [
        record(tmp_path / "a.jpg", [[0, 0, 7.9, 50], [0, 0, 50, 8]], (832, 500)),
        record(tmp_path / "b.jpg", [[0, 0, 3, 3], [0, 0, 3, 90], [0, 0, 90, 90]]),
        record(tmp_path / "c.jpg", [[0, 0, 4, 4]]),
    ]
    (suspect,) = small_boxes(images, "shots")
    assert suspect.message.startswith("3 boxes in shots are under 4 pixels wide or high on a canvas of 416")
    assert ("small boxes", ("a.jpg", "b.jpg")) == (suspect.check, suspect.images)
    assert [] == small_boxes(images[2:], "shots")


def test_images_that_repeat_are_named(tmp_path: Path) -> None:
    """A copy, one saved again at half the size, and an EXIF turn; across the splits it says what that does."""
    first, again = scene(tmp_path / "a.jpg", 1), tmp_path / "copy.jpg"
    shutil.copy(first, again)
    smaller = scene(tmp_path / "smaller.jpg", 1, (160, 120), 60)
    others = [scene(tmp_path / f"{seed}.jpg", seed) for seed in range(2, 8)]
    assert [("2 images are the same file: a.jpg, copy.jpg", ("a.jpg", "copy.jpg"))] == repeats(
        [first, again, *others], []
    )
    ((message, names),) = repeats([first], [*others, smaller])
    assert ("a.jpg", "smaller.jpg") == names
    assert "2 images look the same, so the test mAP is too high: shots a.jpg; test images smaller.jpg" == message
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(first).rotate(90, expand=True).save(turned, exif=exif, quality=95)
    assert 1 == len(repeats([first, turned], []))


def test_a_burst_is_one_warning(tmp_path: Path) -> None:
    """Frames that change little by little are one group, although the first and the last do not look alike."""
    frames = []
    for step in range(8):
        image = Image.new("RGB", (320, 240), (90, 120, 60))
        ImageDraw.Draw(image).rectangle((6 * step, 40, 6 * step + 90, 140), fill=(140, 90, 60))
        frames.append(tmp_path / f"frame{step}.png")
        image.save(frames[-1])
    assert [] == repeats([frames[0], frames[-1]], [])
    ((message, names),) = repeats(frames[:7], frames[7:])
    assert tuple(frame.name for frame in frames) == names
    shots = "frame0.png, frame1.png, frame2.png, frame3.png, frame4.png and 2 more"
    assert message.endswith(
        f"8 images look the same, so the test mAP is too high: shots {shots}; test images frame7.png"
    )
    assert 2 == len(repeats([*frames[:2], *frames[6:]], []))


def test_different_images_do_not_repeat(tmp_path: Path) -> None:
    """Even small drawings with the same outlines, whose colours differ."""
    for seed in range(30):
        draw_image(tmp_path / f"{seed}.jpg", seed)
    assert [] == repeats(sorted(tmp_path.iterdir()), [])
    assert [] == repeats([], [])


@pytest.mark.parametrize(("name", "expected"), [("helmet", 1), ("fish", 0), ("flower", 0), ("raccoon", 3)])
def test_real_images_are_named_only_if_they_repeat(name: str, expected: int, real: Path) -> None:
    """Of 160 images each: two of a traffic camera a moment apart, and the raccoons that the set has twice."""
    pool, test = (read_split(real / "data" / name / part, decode_images=False).images for part in ("pool", "test"))
    thumbnails: Thumbnails = {}
    check_images((*pool, *test), thumbnails)
    assert expected == len(repeated_images(pool, test, thumbnails))


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["helmet", "Helmet"], True),
        (["helmet", "helmets"], True),
        (["coffee cup", "Coffee_Cup"], True),
        (["helmet", "helmt"], True),
        (["helmet", "hlemet"], True),
        (["helmet", "helmed"], True),
        (["helmet", "head"], False),
        (["cat", "car"], False),
        (["horse", "house"], False),
        (["class 1", "class 11"], False),
        (["mobile phone", "phone"], False),
    ],
)
def test_names_that_probably_mean_one_class(names: list[str], alike: bool) -> None:
    """Case, separators, number, or one slip in a longer word; short words and numbers are left alone."""
    assert alike == bool(look_alike(names[:1], names[1:])) == bool(look_alike(names[1:], names[:1]))


def test_no_two_of_cocos_classes_look_alike() -> None:
    """The check stays silent where every name is meant."""
    assert [] == [
        look_alike([name], COCO_NAMES[:at]) for at, name in enumerate(COCO_NAMES) if look_alike([name], COCO_NAMES[:at])
    ]


def test_a_second_name_matters_only_if_its_boxes_are_lost() -> None:
    """Of two names that look alike one is used and the other is not."""
    assert [] == class_names(["helmet", "Helmets"], {"helmet", "Helmets"}) == class_names(["cats", "Cat"], {"dog"})
    (suspect,) = class_names(["Helmets", "helmet", "dog"], {"helmet"})
    assert "classes 'helmet' and 'Helmets' may be one: the boxes of 'Helmets' are not used" == suspect.message


def test_objects_that_nobody_boxed(tmp_path: Path) -> None:
    """A sure detection that lies in no box counts; one that is unsure, or part of a box, does not."""
    images = [record(tmp_path / "a.jpg", [[0, 0, 100, 100]]), record(tmp_path / "b.jpg")]
    boxes = np.array([[200, 0, 300, 100], [10, 10, 30, 30], [300, 0, 400, 100]], np.float32)
    detections = [
        (boxes, np.array([0.6, 0.9, 0.59], np.float32)),
        (np.zeros((0, 4), np.float32), np.zeros(0, np.float32)),
    ]
    (suspect,) = partly_labelled(images, detections, "yolox_nano")
    assert ("partly labelled", ("a.jpg",)) == (suspect.check, suspect.images)
    assert suspect.message.startswith("yolox_nano detects 1 object with a score of at least 0.6 where no box is")
    assert [] == partly_labelled(images[1:], detections[1:], "yolox_nano")


def test_the_names_of_coco_are_those_of_the_detectors() -> None:
    """The light list is the list that the pretrained detectors have."""
    from fewshot_cli.detectors.yolox import base_classes

    assert list(COCO_NAMES) == base_classes(80)

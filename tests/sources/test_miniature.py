"""The embedded world: the same on every machine, honest about what is in an image, and split as it says."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from helpers_runs import fsod
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot_cli.datasets.formats import read_split
from fewshot_cli.errors import DataError, UsageError
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sources.miniature.classes import BASE, CLASSES, NOVEL
from fewshot_cli.sources.miniature.pen import Pen, Pose
from fewshot_cli.sources.miniature.scene import draw_scene
from fewshot_cli.sources.miniature.world import HELD_OUT, PRETRAIN, TEST, TRAIN, SceneKey, draw_base_split, scene_of

CHECKSUMS = {
    ("pretrain", None): "4ec1d03773d9145136bb0ba68e59ea74246961472e5f7f3f3499bbc578bf8b49",
    ("held-out", None): "af2a72da8d5e25772e075917a576b495a400fdc81e7e9fea9aa4e5b09ec0a608",
    ("train", "helmet"): "7e1e8a742a1159a05f503d67a17f37d3f2c94c8de074e3515226f70c5669053a",
    ("train", "bird"): "4a4a3d9a5dc60443c4428c3fd7b9ee3dbe37204969005e96c6b06ec11d04973c",
    ("test", "flower"): "4f5bd3f7997d425ee038c40fed9423627d2c376c8618cbae5b3bdaf09fbf33af",
}
"""SHA-256 over the first five scenes: pixels as drawn and boxes, whatever machine drew them."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FSOD_CACHE", str(folder))
    return folder


def fingerprint(part: str, focus: str | None) -> str:
    digest = hashlib.sha256()
    for number in range(5):
        scene = SceneKey(part, focus, number).draw()
        digest.update(scene.jpeg + json.dumps(scene.items).encode())
    return digest.hexdigest()


def test_the_same_key_draws_the_same_image_on_every_machine() -> None:
    """Images and boxes have the checksums that they had where the weights were trained."""
    assert CHECKSUMS == {key: fingerprint(*key) for key in CHECKSUMS}


def test_the_world_has_the_classes_of_the_paper() -> None:
    """Four classes of the paper are novel, two are base classes, and there are at least 24 base classes."""
    assert {"helmet", "fish", "tire", "flower"} == set(NOVEL)
    assert {"bird", "coffee cup"} <= set(BASE)
    assert 24 <= len(BASE)
    assert list(CLASSES)[: len(BASE)] == list(BASE)


def test_no_novel_class_is_ever_drawn_for_pretraining() -> None:
    """What pretrains or measures the base detector holds base classes only."""
    for part in (PRETRAIN, HELD_OUT):
        names = {item.name for number in range(8) for item in SceneKey(part, None, number).draw().items}
        assert names <= set(BASE)


def test_parts_of_the_world_share_no_image() -> None:
    """The same number in another part is another image."""
    images = [
        SceneKey(part, focus, number).draw().jpeg
        for number in range(2)
        for part, focus in ((PRETRAIN, None), (HELD_OUT, None), (TRAIN, "bird"), (TEST, "bird"))
    ]
    assert len(images) == len(set(images))


@given(st.integers(0, 10_000), st.sampled_from([None, *CLASSES]))
@settings(max_examples=15)
def test_every_box_is_inside_its_image_and_not_empty(number: int, focus: str | None) -> None:
    """Boxes are whole pixels, upright and inside; the file is an image of the stated size."""
    scene = SceneKey(TRAIN if focus else PRETRAIN, focus, number).draw()
    with Image.open(io.BytesIO(scene.jpeg)) as image:
        assert (scene.width, scene.height) == image.size
    for item in scene.items:
        left, top, right, bottom = item.box
        assert 0 <= left < right <= scene.width
        assert 0 <= top < bottom <= scene.height


def cut_out(name: str, size: int, seed: str) -> Image.Image:
    pen = Pen(size, Random(seed), Pose())
    CLASSES[name].draw(pen)
    return pen.cut_out()


def test_every_class_fills_the_size_it_is_asked_for() -> None:
    """The object's longer side is the size asked, and a tenth of its box or more is opaque."""
    for name, size in itertools.product(CLASSES, (16, 60, 210)):
        alpha = np.asarray(cut_out(name, size, f"{name} {size}").getchannel("A"))
        assert size == max(alpha.shape), name
        assert 0.1 < (alpha > 127).mean(), (name, size)


def test_two_objects_of_a_class_differ() -> None:
    """Not only the pose varies: two drawings in the same pose have other pixels."""
    for name in CLASSES:
        drawings = {cut_out(name, 60, f"{name} {number}").tobytes() for number in range(4)}
        assert 4 == len(drawings), name


@pytest.mark.slow
def test_objects_have_all_sizes_and_flags() -> None:
    """Objects range from 16 pixels to most of the image, and flags of all kinds occur."""
    items = [item for number in range(40) for item in draw_scene(f"sizes {number}", "helmet").items]
    sides = [max(item.box[2] - item.box[0], item.box[3] - item.box[1]) for item in items if not item.group]
    assert min(sides) < 24
    assert 190 < max(sides)
    for flag in ("occluded", "truncated", "group"):
        share = np.mean([getattr(item, flag) for item in items])
        assert 0.01 < share < 0.4, flag


def request_for(root: Path, *classes: str, **changes: object) -> FetchRequest:
    return FetchRequest(source="miniature", classes=classes, root=root, **{"shots": 3, "test_images": 6, **changes})  # type: ignore[arg-type]


def checksums(root: Path, *classes: str, **changes: object) -> list[str]:
    record = fetch(request_for(root, *classes, **changes)).dataset.record
    return [image["sha256"] for split in record["splits"].values() for image in split["files"]]


def test_the_same_seed_draws_the_same_data_set(tmp_path: Path) -> None:
    """Checksums of all images are equal for one seed and differ for another; shots and test set share none."""
    small = {"shots": 2, "test_images": 2}
    first, again = (checksums(tmp_path / folder, "helmet", **small) for folder in ("a", "b"))
    other = checksums(tmp_path / "c", "helmet", seed=1, **small)
    assert first == again
    assert not set(first) & set(other)
    assert 4 == len(set(first))


def test_no_more_scenes_are_drawn_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes are drawn until the last shot is found, in the order of their ranks, and none behind it."""
    drawn: list[SceneKey] = []
    draw = SceneKey.draw
    monkeypatch.setattr(SceneKey, "draw", lambda key: drawn.append(key) or draw(key))
    dataset = fetch(request_for(tmp_path, "helmet", shots=8, test_images=0)).dataset
    order = sorted(range(10_000), key=lambda number: hashlib.sha256(f"0.train.helmet:{number}".encode()).digest())
    assert order[: len(drawn)] == [key.number for key in drawn]
    assert drawn[-1].image_id in {image.id for image in dataset.train.images}
    assert 8 < len(drawn) == len(set(drawn))


def test_fewer_shots_are_among_more(tmp_path: Path) -> None:
    """The K-shot sample of a seed is part of its (K+2)-shot sample."""
    few, more = (checksums(tmp_path / f"{shots}", "fish", shots=shots, test_images=1)[:shots] for shots in (2, 4))
    assert set(few) < set(more)


def test_occluded_truncated_and_grouped_objects_are_left_out(tmp_path: Path) -> None:
    """As in the paper; what was left out is counted in the record."""
    dataset = fetch(request_for(tmp_path, "tire", test_images=12)).dataset
    assert not any(image.crowd.any() for split in (dataset.train, dataset.test) for image in split.images)
    kinds = {tuple(line.split(": ")[:2]) for line in dataset.record["filters"]}
    assert kinds <= {(part, flag) for part in ("train", "test") for flag in ("occluded", "truncated", "group")}
    assert kinds


def test_an_image_id_names_its_scene() -> None:
    """The scene of an id is the one that has it."""
    for key in (SceneKey(TRAIN, "flower", 17), SceneKey(TEST, "bird", 9_999), SceneKey(HELD_OUT, None, 0)):
        assert key == scene_of(key.part, key.image_id)


def test_several_classes_come_balanced(tmp_path: Path) -> None:
    """Each class gets its shots; only the classes asked for have boxes."""
    dataset = fetch(request_for(tmp_path, "Coffee_Cups", "bird")).dataset
    assert ("coffee cup", "bird") == dataset.classes
    assert all(3 <= count for count in dataset.record["splits"]["train"]["images_per_class"].values())


def test_an_unknown_class_is_told_with_the_valid_ones(tmp_path: Path) -> None:
    """The message names the closest class."""
    with pytest.raises(DataError, match="unknown class 'helmot'") as caught:
        fetch(request_for(tmp_path, "helmot"))
    assert "helmet" in str(caught.value.hint)


def test_the_source_takes_no_argument(tmp_path: Path) -> None:
    """`--source miniature:x` is a usage error."""
    result = fsod("fetch", "--source", "miniature:x", "--class", "fish", "--root", tmp_path)
    assert UsageError.exit_code == result.exit_code


def test_base_scenes_are_written_as_coco_with_their_flags(tmp_path: Path) -> None:
    """The split can be read like any other; annotations carry the three flags."""
    drawn = draw_base_split(tmp_path, HELD_OUT, 12)
    read = read_split(tmp_path)
    assert [image.id for image in drawn.images] == [image.id for image in read.images]
    assert all((a.boxes == b.boxes).all() for a, b in zip(drawn.images, read.images, strict=True))
    records = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    assert all({"occluded", "truncated", "group"} <= record.keys() for record in records)


def test_processes_draw_what_one_draws(tmp_path: Path) -> None:
    """The work is shared out, the images are the same."""
    for folder, processes in (("one", 1), ("two", 2)):
        draw_base_split(tmp_path / folder, PRETRAIN, 6, processes=processes)
    assert [path.read_bytes() for path in sorted((tmp_path / "one").rglob("*.jpg"))] == [
        path.read_bytes() for path in sorted((tmp_path / "two").rglob("*.jpg"))
    ]


def test_the_two_lines_of_a_newcomer_work_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of the world records its detector, `finetune` takes it, and an augmented copy keeps it."""
    monkeypatch.chdir(tmp_path)
    assert (
        0 == fsod("fetch", "--source", "miniature", "--class", "helmet", "--shots", "2", "--test-images", "2").exit_code
    )
    short = ("--iterations", "1", "--copies", "1", "--eval-every", "0", "--no-report")
    result = fsod("finetune", "--policy", "symmetric", "--budget", "3", *short, "--json")
    assert 0 == result.exit_code, result.stderr
    assert "retinanet_mini" == json.loads(result.stdout)["detector"]
    assert 0 == fsod("augment", "data/helmet", "--copies", "2").exit_code
    assert "retinanet_mini" == json.loads((tmp_path / "data/helmet-augmented/dataset.json").read_text())["detector"]

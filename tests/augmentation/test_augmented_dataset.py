"""`fsod augment`: variants written out as a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_data import draw_coco
from helpers_runs import fsod
from PIL import Image

from fewshot_cli.augmentation.config import OPERATIONS as NAMES
from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.dataset import augment
from fewshot_cli.augmentation.operations import OPERATIONS
from fewshot_cli.datasets.images import read_image
from fewshot_cli.datasets.store import Dataset, open_dataset
from fewshot_cli.errors import DataError
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.training.finetune import finetune


@pytest.fixture
def cats(tmp_path: Path) -> Dataset:
    """Three shots and some test images of cats."""
    draw_coco(tmp_path / "photos", [["cat"]] * 8)
    request = FetchRequest(source=f"coco:{tmp_path / 'photos'}", classes=("cat",), shots=3, root=tmp_path / "data")
    return fetch(request).dataset


def test_originals_come_first_unchanged_and_variants_follow(cats: Dataset) -> None:
    """The written set holds every shot byte for byte and copies − 1 variants of each; the test set is untouched."""
    made = augment(cats.path, copies=4, augmentation=Augmentation(ops=tuple(OPERATIONS)), seed=0)
    assert len(made.train.images) == 3 * 4
    for before, after in zip(cats.train.images, made.train.images, strict=False):
        assert before.path.read_bytes() == after.path.read_bytes()
        np.testing.assert_array_equal(before.boxes, after.boxes)
    assert [p.path.read_bytes() for p in cats.test.images] == [p.path.read_bytes() for p in made.test.images]
    assert [p.path for p in made.train.images[:3]] == [p.path for p in open_dataset(made.path).shots.images]
    assert [image.id for image in cats.train.images] == [image.id for image in cats.shots.images]


def test_the_same_seed_writes_the_same_images(cats: Dataset, tmp_path: Path) -> None:
    """Variants are a function of the seed alone."""
    first, again = (
        augment(cats.path, tmp_path / name, copies=3, augmentation=Augmentation(ops=("flip", "color")), seed=5)
        for name in ("a", "b")
    )
    other = augment(cats.path, tmp_path / "c", copies=3, augmentation=Augmentation(ops=("flip", "color")), seed=6)
    pixels = [torch.cat([read_image(p.path).flatten() for p in made.train.images]) for made in (first, again, other)]
    assert torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])


def test_an_existing_folder_is_replaced_only_with_force(cats: Dataset) -> None:
    """Nothing is overwritten unasked."""
    augment(cats.path, copies=2, augmentation=Augmentation(ops=()), seed=0)
    with pytest.raises(DataError, match="exists already"):
        augment(cats.path, copies=2, augmentation=Augmentation(ops=()), seed=0)
    assert len(augment(cats.path, copies=3, augmentation=Augmentation(ops=()), seed=0, force=True).train.images) == 9


def test_finetune_uses_an_augmented_set_as_it_is(cats: Dataset, tmp_path: Path) -> None:
    """Images that were augmented already are not augmented again."""
    made = augment(cats.path, copies=2, augmentation=Augmentation(ops=("flip",)), seed=0)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    config = FinetuneConfig(
        data=str(made.path), weights="none", budget=2, image_size=64, iterations=1, batch_size=2, copies=50
    )
    run.write_config(config)
    assert finetune(config, run)["images"]["train"] == 6
    assert json.loads((open_dataset(made.path).path / "dataset.json").read_text())["augmentation"]["copies"] == 2


def test_names_of_operations_are_the_same_everywhere() -> None:
    """What the command line accepts is what the code can do, in the order it is done."""
    assert tuple(OPERATIONS) == NAMES


def test_a_contact_sheet_is_beside_the_images(cats: Dataset) -> None:
    """`fsod augment` leaves a sheet with a row a shot: the image, then variants; the folder is still a data set."""
    result = fsod("augment", cats.path, "--copies", "2", "--ops", "flip,rotate", "--rotate", "30", "--json")
    assert 0 == result.exit_code, result.stderr
    sheet = Path(json.loads(result.stdout)["contact_sheet"])
    assert sheet.parent == cats.path.with_name("cat-augmented")
    with Image.open(sheet) as image:
        assert image.width > 7 * 160 and image.height > 3 * 160
    record = json.loads((sheet.parent / "dataset.json").read_text())
    assert {"copies": 2, "ops": {"flip": 0.5, "rotate": 30.0}, "seed": 0, "canvas": 416} == record["augmentation"]
    assert 6 == len(open_dataset(sheet.parent).train.images)


def test_a_preview_writes_the_sheet_alone(cats: Dataset) -> None:
    """`--preview` shows what would come, and writes no data set; it can be asked for again."""
    for _ in range(2):
        result = fsod("augment", cats.path, "--preview", "--json")
        assert 0 == result.exit_code, result.stderr
    assert cats.path.with_name("cat-augmented.jpg").is_file()
    assert not cats.path.with_name("cat-augmented").exists()


def test_ranges_come_from_the_command_line_and_change_the_variants(cats: Dataset) -> None:
    """`--scale` takes two numbers; an impossible one is told with exit code 4."""
    assert 0 == fsod("augment", cats.path, "--ops", "scale", "--scale", "0.5", "0.6", "--copies", "2").exit_code
    result = fsod("augment", cats.path, "--scale", "2", "1", "--force")
    assert 4 == result.exit_code
    assert "scale is (2.0, 1.0)" in result.stderr

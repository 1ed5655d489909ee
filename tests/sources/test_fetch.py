"""fetch: from COCO folders to a data set on disk, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers_data import draw_coco, draw_image, write_document

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.dataset import augment
from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.store import Dataset, latest_dataset, open_dataset
from fewshot_cli.errors import DataError, DatasetError, StorageError, UsageError
from fewshot_cli.files import sha256_of
from fewshot_cli.progress import SilentReporter
from fewshot_cli.sources.fetch import FetchRequest, FetchResult, fetch
from fewshot_cli.sources.registry import parse_source
from fewshot_cli.verbs.fetch import fetch as fetch_by_name

CATS = [["cat"]] * 8 + [["cat", "dog"]] * 2 + [["dog"]] * 4 + [[]] * 2


class Listener(SilentReporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    draw_coco(tmp_path / "pool", CATS)
    return tmp_path / "pool"


def request(pool: Path, **changes: Any) -> FetchRequest:
    asked: dict[str, Any] = {"source": f"coco:{pool}", "classes": ("cat",), "shots": 3, "root": pool.parent / "data"}
    return FetchRequest(**{**asked, **changes})


def ids(dataset: Dataset) -> tuple[list[int], list[int]]:
    return [image.id for image in dataset.train.images], [image.id for image in dataset.test.images]


def hashes(dataset: Dataset) -> tuple[set[str], set[str]]:
    train, test = ({sha256_of(image.path) for image in split.images} for split in (dataset.train, dataset.test))
    return train, test


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


# What is drawn


def test_shots_and_test_come_from_one_folder_disjointly(pool: Path) -> None:
    """From one folder: K shots, and all other images of the class as the test set."""
    result = fetch(request(pool))
    train, test = ids(result.dataset)
    assert (3, 7, set()) == (len(train), len(test), set(train) & set(test))
    assert set(range(1, 11)) == set(train) | set(test)
    assert (("cat",), False) == (result.dataset.classes, result.reused)
    assert {0} == {int(label) for image in result.dataset.test.images for label in image.labels}


def test_the_test_set_is_bounded_and_seeded(pool: Path) -> None:
    """--test-images bounds the test set; the same seed draws the same, another seed something else."""
    draws = [
        ids(fetch(request(pool, test_images=4, seed=seed, name=name)).dataset)
        for seed, name in [(1, "a"), (1, "b"), (2, "c")]
    ]
    assert 4 == len(draws[0][1])
    assert draws[0] == draws[1] != draws[2]


def test_an_own_test_split_is_used(pool: Path, tmp_path: Path) -> None:
    """A data set folder with train/ and valid/ gives shots from the one and test images from the other."""
    pool.rename(tmp_path / "set-train")
    (tmp_path / "set").mkdir()
    (tmp_path / "set-train").rename(tmp_path / "set" / "train")
    draw_coco(tmp_path / "set" / "valid", [["cat"], ["dog"], ["cat"]], seed=7)
    dataset = fetch(request(tmp_path / "set", root=tmp_path / "data")).dataset
    assert [1, 3] == ids(dataset)[1]
    assert str(tmp_path / "set" / "valid" / "annotations.json") == dataset.record["splits"]["test"]["annotations"]


def test_a_test_source_is_used(pool: Path, tmp_path: Path) -> None:
    """--test-source gives the test set; its labels are those of the shots, whatever order its file has."""
    draw_coco(tmp_path / "other", [["cat"], ["dog"], ["dog", "cat"]], classes=("dog", "bird", "cat"), seed=7)
    dataset = fetch(request(pool, classes=("cat", "dog"), test_source=f"coco:{tmp_path / 'other'}")).dataset
    assert [1, 2, 3] == ids(dataset)[1]
    assert [[0], [1], [1, 0]] == [image.labels.tolist() for image in dataset.test.images]


def test_a_duplicate_of_a_shot_is_left_out_of_the_test_set(pool: Path, tmp_path: Path) -> None:
    """The same content under another id and name is not tested on; the result and the record say so."""
    shutil.copytree(pool, tmp_path / "other")
    listener = Listener()
    result = fetch(request(pool, test_source=f"coco:{tmp_path / 'other'}"), listener)
    train, test = hashes(result.dataset)
    assert (3, 7, set()) == (len(result.duplicates), len(test), train & test)
    assert [str(path) for path in result.duplicates] == result.dataset.record["duplicates_left_out"]
    assert "3 images left out of the test set" in listener.said[0]


def test_several_classes_are_balanced(pool: Path) -> None:
    """Every class gets K images."""
    result = fetch(request(pool, classes=("dog", "cat"), shots=4))
    assert {"dog": 4, "cat": 4} == result.to_json()["train"]["images_per_class"]
    assert "dog-cat" == result.dataset.name
    assert sum(result.to_json()["train"]["boxes_per_class"].values()) == result.to_json()["train"]["boxes"]


# What lies on disk


def test_the_record_tells_where_everything_came_from(pool: Path) -> None:
    """dataset.json holds the request, ids, names, checksums, boxes, licences, version and time."""
    document = json.loads((pool / "annotations.json").read_text())
    write_document(pool, {**document, "info": {"license": "CC BY 4.0"}})
    dataset = fetch(request(pool, seed=5)).dataset
    record = json.loads((dataset.path / "dataset.json").read_text())
    assert (f"coco:{pool}", None, 3, 5, ["cat"]) == tuple(
        record[key] for key in ("source", "test_source", "shots", "seed", "classes")
    )
    assert (["CC BY 4.0"], "0.1.0") == (record["licences"], record["fsod"])
    assert record["created"].endswith("+00:00")
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        described = record["splits"][name]["files"]
        assert [image.id for image in split.images] == [entry["id"] for entry in described]
        assert [sha256_of(image.path) for image in split.images] == [entry["sha256"] for entry in described]
        assert {"cat": sum(len(image.boxes) for image in split.images)} == record["splits"][name]["boxes_per_class"]


def test_images_keep_their_bytes_unless_they_lie_sideways(pool: Path) -> None:
    """Images are copied as they are, except that an EXIF orientation is carried out."""
    draw_image(pool / "images" / "0001.jpg", 1, orientation=6)
    document = json.loads((pool / "annotations.json").read_text())
    document["images"][0].update(width=30, height=40)
    write_document(pool, document)
    dataset = fetch(request(pool)).dataset
    copies = {image.id: image.path for split in (dataset.train, dataset.test) for image in split.images}
    same = {
        number for number, path in copies.items() if path.read_bytes() == (pool / "images" / path.name).read_bytes()
    }
    assert set(range(2, 11)) == same
    assert read_split(dataset.path / "test", decode_images=True)
    assert read_split(dataset.path / "train", decode_images=True)


def test_the_same_request_reuses_the_data_set(pool: Path) -> None:
    """Fetching the same again draws nothing, says so, and makes the data set the most recent one."""
    first = fetch(request(pool, name="first"))
    fetch(request(pool, name="second"))
    record = first.dataset.path / "dataset.json"
    os.utime(record, (1, 1))
    content = record.read_text()
    assert "second" == latest_dataset(pool.parent / "data").name
    listener = Listener()
    again = fetch(request(pool, name="first", classes=("Cats",)), listener)
    assert (True, content) == (again.reused, record.read_text())
    assert "used again" in listener.said[0]
    assert "first" == latest_dataset(pool.parent / "data").name


@pytest.mark.parametrize("change", [{"shots": 4}, {"seed": 9}, {"classes": ("dog",)}, {"test_images": 2}])
def test_another_request_does_not_overwrite(pool: Path, change: dict[str, Any]) -> None:
    """A data set of that name from another request is an error that names the difference; --force replaces it."""
    fetch(request(pool, name="set"))
    with pytest.raises(DataError, match=f"another request: {next(iter(change))}") as raised:
        fetch(request(pool, name="set", **change))
    assert "--force" in (raised.value.hint or "")
    result = fetch(request(pool, name="set", force=True, **change))
    assert not result.reused
    assert ["set"] == visible(pool.parent / "data")


def test_force_does_not_replace_a_foreign_folder(pool: Path) -> None:
    """A folder that fsod did not make is never removed."""
    (pool.parent / "data" / "cat").mkdir(parents=True)
    (pool.parent / "data" / "cat" / "thesis.txt").write_text("years of work")
    for force in (True, False):
        with pytest.raises(DataError, match="not a data set of fsod"):
            fetch(request(pool, force=force))
    assert ["thesis.txt"] == visible(pool.parent / "data" / "cat")


def test_a_failed_replacement_keeps_the_old_data_set(pool: Path) -> None:
    """--force that fails in the middle leaves the data set as it was."""
    before = ids(fetch(request(pool)).dataset)
    (pool / "images" / "0004.jpg").write_bytes(b"spoiled")
    with pytest.raises(DatasetError):
        fetch(request(pool, shots=10, force=True))
    assert before == ids(open_dataset(pool.parent / "data" / "cat"))
    assert ["cat"] == visible(pool.parent / "data")


def test_a_disk_that_refuses_is_a_storage_error(pool: Path) -> None:
    """A root below a regular file says that it cannot be written."""
    with pytest.raises(StorageError, match="a part of the path is a file"):
        fetch(request(pool, root=pool / "annotations.json" / "data"))


# Without a test set


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Ten images of one class, and nothing else."""
    draw_coco(tmp_path / "ten", [["helmet"]] * 10, classes=("helmet",))
    return tmp_path / "ten"


def test_ten_images_are_ten_shots_and_no_test_set(ten: Path) -> None:
    """With exactly K images all become shots; nothing is written for a test set, and that is said."""
    listener = Listener()
    result = fetch(request(ten, classes=("helmet",), shots=10), listener)
    assert (10, None) == (len(result.dataset.train.images), result.dataset.test)
    assert ["dataset.json", "train"] == visible(result.path)
    assert listener.said[0].startswith(
        "No test set: all 10 images of the class are shots. "
        "`fsod finetune` will estimate the mAP by cross-validation on the shots. Give --test-source"
    )
    assert (None, ["train"]) == (result.to_json()["test"], list(result.dataset.record["splits"]))
    again = fetch(request(ten, classes=("helmet",), shots=10))
    assert (True, None) == (again.reused, again.dataset.test)


def test_copies_of_shots_are_no_test_set(ten: Path) -> None:
    """Where the other images are copies of a shot there is no test set either, and the sentence stays true."""
    for number in range(2, 11):
        shutil.copy(ten / "images" / "0001.jpg", ten / "images" / f"{number:04}.jpg")
    listener = Listener()
    result = fetch(request(ten, classes=("helmet",), shots=5), listener)
    assert (5, None, 5) == (len(result.dataset.train.images), result.dataset.test, len(result.duplicates))
    assert listener.said[0].startswith("No test set: all 5 usable images of the class are shots.")


@pytest.mark.parametrize("source", ["own", "miniature"])
def test_no_test_images_can_be_asked_for(pool: Path, source: str) -> None:
    """--test-images 0: no test set, without a warning; the shots are those of the request with a test set."""
    named = f"coco:{pool}" if source == "own" else source
    asked = {"source": named, "classes": ("cat",) if source == "own" else ("helmet",), "name": source}
    listener = Listener()
    without = fetch(request(pool, **asked, test_images=0), listener).dataset
    assert ([], None) == (listener.said, without.test)
    with_test = fetch(request(pool, **asked, test_images=2, force=True)).dataset
    assert 2 == len(with_test.require_test().images)
    assert [image.id for image in with_test.train.images] == [image.id for image in without.train.images]


def test_a_test_split_without_the_class_is_an_error(pool: Path, tmp_path: Path) -> None:
    """A test source that has no image of the class is a mistake, not a wish to do without."""
    draw_coco(tmp_path / "dogs", [["dog"]] * 3, seed=7)
    with pytest.raises(DataError, match="no usable image of 'cat' for the test set") as raised:
        fetch(request(pool, test_source=f"coco:{tmp_path / 'dogs'}"))
    assert "--test-images 0" in (raised.value.hint or "")


def test_a_folder_with_train_alone_opens_and_can_be_augmented(tmp_path: Path) -> None:
    """Fetched or not, a data set needs no test/; what needs one says that it is missing."""
    draw_coco(tmp_path / "set" / "train", [["cat"], ["dog"]])
    dataset = open_dataset(tmp_path / "set")
    assert (2, None) == (len(dataset.train.images), dataset.test)
    with pytest.raises(DataError, match="set has no test set"):
        dataset.require_test()
    made = augment(dataset, copies=2, augmentation=Augmentation(ops=("flip",)), seed=0)
    assert (4, None) == (len(made.train.images), made.test)


def test_a_lost_test_set_is_an_error(pool: Path) -> None:
    """A fetched data set whose test/ is gone does not pass for one that never had it."""
    dataset = fetch(request(pool)).dataset
    shutil.rmtree(dataset.path / "test")
    with pytest.raises(DataError, match="it has no test/"):
        open_dataset(dataset.path)


# The public function


def test_the_public_function_takes_what_the_command_takes(pool: Path, tmp_path: Path) -> None:
    """One class or several, paths as text; the result is a path that opens."""
    result = fetch_by_name("cat", source=f"coco:{pool}", shots=3, root=str(tmp_path / "data"))
    assert (Path(result), Path(result.dataset)) == (tmp_path / "data" / "cat", tmp_path / "data" / "cat")
    assert result.dataset.train.to_coco() == open_dataset(result).train.to_coco()
    two = fetch_by_name(["dog", "cat"], source=f"coco:{pool}", shots=2, root=tmp_path / "data")
    assert ("dog", "cat") == two.dataset.classes
    by_request = fetch(request(pool, classes=("cat",), shots=3, name="other")).dataset
    assert result.dataset.train.to_coco() == by_request.train.to_coco()


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"shot": 3}, "unknown option 'shot' of fetch", "Valid: split"),
        ({"splitt": "test"}, "unknown option 'splitt' of fetch", "Did you mean split?"),
        ({"mirror": "http://x"}, "--mirror does not go with --source coco", "It goes with openimages."),
        ({"source": "openimages", "split": "valid"}, "split is 'valid'", "validation"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(pool: Path, options: dict[str, Any], message: str, hint: str) -> None:
    """An unknown option, one of another source and a wrong value are refused before anything is read."""
    with pytest.raises(UsageError) as raised:
        fetch_by_name("cat", **{"source": f"coco:{pool}", **options})
    assert message in raised.value.message
    assert hint in f"{raised.value.message} {raised.value.hint}"


# Opening


def test_opening_gives_what_fetch_gave(pool: Path) -> None:
    """A data set opened later is the one that was fetched."""
    result: FetchResult = fetch(request(pool))
    again = open_dataset(result.dataset.path)
    assert result.dataset.train.to_coco() == again.train.to_coco()
    assert result.dataset.record == again.record


def test_a_plain_folder_with_train_and_test_opens(tmp_path: Path) -> None:
    """A folder that fsod did not fetch opens too; the test labels follow the order of the train classes."""
    draw_coco(tmp_path / "set" / "train", [["cat"], ["dog"]], classes=("cat", "dog"))
    draw_coco(tmp_path / "set" / "valid", [["dog"]], classes=("dog", "cat"), seed=3)
    dataset = open_dataset(tmp_path / "set")
    assert ({}, [1]) == (dataset.record, dataset.test.images[0].labels.tolist())


def test_opening_what_is_no_data_set_says_what_is_missing(pool: Path) -> None:
    """A missing folder, one without splits, and a damaged record each say so."""
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(pool / "none")
    with pytest.raises(DataError, match="it has no train/"):
        open_dataset(pool)
    dataset = fetch(request(pool)).dataset
    for text in ("{", "[]", '{"format": 99}'):
        (dataset.path / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=r"dataset\.json"):
            open_dataset(dataset.path)


def test_problems_of_both_splits_come_at_once(pool: Path) -> None:
    """A data set that lost images in train and in test lists them together."""
    dataset = fetch(request(pool)).dataset
    for split in (dataset.train, dataset.test):
        split.images[0].path.unlink()
    with pytest.raises(DatasetError) as raised:
        open_dataset(dataset.path)
    assert 2 == len(raised.value.problems)


def test_without_a_data_set_the_hint_is_to_fetch(tmp_path: Path) -> None:
    """No data set under the root, hidden leftovers aside, is an error that says what to do."""
    (tmp_path / ".cat.x1").mkdir()
    (tmp_path / ".cat.x1" / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match="no data set under") as raised:
        latest_dataset(tmp_path)
    assert "fsod fetch" in (raised.value.hint or "")


# Faults


def test_more_shots_than_images_says_how_many_there_are(pool: Path) -> None:
    """Too many shots is an error with the count of every class; nothing is written."""
    with pytest.raises(DataError, match=r"too few images for 7 shots \(cat: 10, dog: 6\)") as raised:
        fetch(request(pool, classes=("cat", "dog"), shots=7))
    assert "--shots 6" in (raised.value.hint or "")
    assert not (pool.parent / "data").exists()


def test_an_unknown_class_has_a_suggestion(pool: Path) -> None:
    """A misspelt class names the file and the closest class."""
    with pytest.raises(DataError, match=r"annotations\.json: unknown class 'catt'") as raised:
        fetch(request(pool, classes=("catt",)))
    assert (raised.value.hint or "").startswith("Did you mean cat?")


def test_spoiled_images_are_all_listed(pool: Path) -> None:
    """Images that do not decode are listed together, shots and test images alike."""
    for number in (1, 5, 9):
        (pool / "images" / f"{number:04}.jpg").write_bytes(b"spoiled")
    (pool / "images" / "0012.jpg").write_bytes(b"spoiled, but without the class")
    with pytest.raises(DatasetError) as raised:
        fetch(request(pool))
    assert {"image 1", "image 5", "image 9"} == {problem.record for problem in raised.value.problems}
    assert not (pool.parent / "data").exists()


def test_spoiled_images_can_be_left_out(pool: Path) -> None:
    """With skip_invalid others stand in for spoiled images, and the record lists what was left out."""
    for number in (1, 5, 9):
        (pool / "images" / f"{number:04}.jpg").write_bytes(b"spoiled")
    result = fetch(request(pool, skip_invalid=True, shots=5))
    train, test = ids(result.dataset)
    assert {2, 3, 4, 6, 7, 8, 10} == {*train, *test}
    assert {"image 1", "image 5", "image 9"} == {problem.record for problem in result.skipped}
    assert 3 == len(result.dataset.record["problems_left_out"])


@pytest.mark.parametrize(
    "change",
    [
        {"shots": 0},
        {"test_images": -1},
        {"shots": "3"},
        {"test_images": 0, "test_source": "miniature"},
        {"classes": ()},
        {"classes": (" ",)},
        {"name": "../out"},
        {"name": ".hidden"},
        {"name": ""},
        {"classes": ("///",)},
    ],
)
def test_impossible_requests_are_usage_errors(pool: Path, change: dict[str, Any]) -> None:
    """What cannot be meant is refused before anything is read."""
    with pytest.raises(UsageError):
        request(pool, **change)


def test_unknown_sources_list_the_valid_ones(pool: Path) -> None:
    """An unknown source names the valid ones, whether it may be meant as a name or as a path."""
    with pytest.raises(UsageError, match="unknown source 'openimage'") as raised:
        parse_source("openimage")
    assert "coco:DIR" in (raised.value.hint or "")
    with pytest.raises(UsageError, match="unknown source") as raised:
        parse_source(str(pool / "nothing"))
    assert "Valid: DIR, coco:DIR" in (raised.value.hint or "")
    with pytest.raises(UsageError, match="needs a DIR"):
        request(pool, source="coco")
    with pytest.raises(DataError, match="does not exist"):
        fetch(request(pool, source="coco:/nowhere/at/all"))


# Real data


@pytest.mark.parametrize("name", ["helmet", "fish", "flower", "raccoon"])
def test_ten_shots_of_real_data(name: str, real: Path, tmp_path: Path) -> None:
    """Ten shots and a hundred test images of a real set, disjoint in content."""
    source, test_source = (f"coco:{real / 'data' / name / split}" for split in ("pool", "test"))
    dataset = fetch(FetchRequest(source=source, test_source=test_source, classes=(name,), root=tmp_path)).dataset
    train, test = hashes(dataset)
    assert (10, 100) == (len(dataset.train.images), len(dataset.test.images))
    assert not train & test


def test_two_fetches_at_once_make_one_data_set(tmp_path: Path) -> None:
    """The second waits for the first, and uses what it has written."""
    draw_coco(tmp_path / "photos", [["cat"]] * 6)
    request = FetchRequest(source=f"coco:{tmp_path / 'photos'}", classes=("cat",), shots=2, root=tmp_path / "data")
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(fetch, [request, request]))
    assert [False, True] == sorted(result.reused for result in results)
    assert ["cat"] == sorted(path.name for path in (tmp_path / "data").iterdir())


def test_no_class_lists_those_there_are_and_all_takes_them(tmp_path: Path) -> None:
    """Without --class, or with '*', the message has the classes with their images; `all` draws every class."""
    draw_coco(tmp_path / "photos", [["dog"], ["dog", "cat"], ["cat"], ["dog"]])
    for nothing in ((), "*"):
        with pytest.raises(UsageError, match=r"dog: 3 images\n  cat: 2 images"):
            fetch_by_name(nothing, source=tmp_path / "photos", root=tmp_path / "data")
    made = fetch_by_name("all", source=tmp_path / "photos", root=tmp_path / "data", shots=1)
    assert (("cat", "dog"), "all") == (made.dataset.classes, made.path.name)
    assert fetch_by_name("all", source=tmp_path / "photos", root=tmp_path / "data", shots=1).reused

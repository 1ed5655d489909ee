"""`fetch --fraction`: a share of all training images instead of K shots."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers_data import draw_coco
from helpers_runs import fsod
from test_fetch import Listener

from fewshot_cli.datasets.store import Dataset
from fewshot_cli.errors import DataError, DatasetError, UsageError
from fewshot_cli.sources.fetch import FetchRequest, FetchResult, check, fetch
from fewshot_cli.verbs.fetch import fetch as fetch_by_name

CONTENTS = [["cat"] * (1 + number % 3) + ["dog"] * (number % 2) for number in range(40)] + [[]] * 4
"""40 images with 1 to 3 cats, every other one with a dog; four without an object."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set folder with a test split of its own."""
    folder = tmp_path_factory.mktemp("photos") / "set"
    draw_coco(folder / "train", CONTENTS)
    draw_coco(folder / "test", [["cat", "dog"]] * 6, seed=5)
    return folder


def request(photos: Path, tmp_path: Path, **changes: Any) -> FetchRequest:
    asked = {"source": str(photos), "classes": ("cat", "dog"), "fraction": 0.25, "root": tmp_path / "data"}
    return FetchRequest(**{**asked, **changes})


def ids(result: FetchResult | Dataset) -> set[int]:
    dataset = result if isinstance(result, Dataset) else result.dataset
    return {image.id for image in dataset.train.images}


def test_a_quarter_of_the_images_keeps_the_classes_shares(photos: Path, tmp_path: Path) -> None:
    """10 of 40 images; objects by class and the largest difference are recorded, and come out of the files again."""
    result = fetch(request(photos, tmp_path))
    shown = [Counter(CONTENTS[number - 1]) for number in ids(result)]
    objects, whole = sum(shown, Counter()), Counter(name for names in CONTENTS for name in names)
    assert 10 == len(ids(result))
    apart = {name: abs(objects[name] / objects.total() - whole[name] / whole.total()) * 100 for name in whole}
    record = json.loads((result.path / "dataset.json").read_text())
    assert (0.25, 1, None) == (record["fraction"], record["subset"], record.get("shots"))
    assert dict(objects) == record["splits"]["train"]["boxes_per_class"]
    found = record["stratified"]
    assert (0.25, 1, 4, 40) == tuple(found[key] for key in ("fraction", "subset", "subsets", "images"))
    assert (
        max(apart.values()) == pytest.approx(found["largest_difference"], abs=1e-4) and found["largest_difference"] < 3
    )
    assert found == result.to_json()["stratified"] == check(request(photos, tmp_path)).to_json()["stratified"]


def test_the_subsets_of_a_seed_are_disjoint_and_make_up_the_whole(photos: Path, tmp_path: Path) -> None:
    """Four quarters hold each image with an object once; a fetch again draws the same; another seed draws others."""
    parts = [ids(fetch(request(photos, tmp_path, subset=number, name=f"{number}"))) for number in (1, 2, 3, 4)]
    assert list(range(1, 41)) == sorted(number for part in parts for number in part)
    again = fetch(request(photos, tmp_path, subset=2, name="again"))
    other = fetch(request(photos, tmp_path, subset=2, name="other", seed=1))
    assert ids(again) == parts[1] != ids(other)
    assert fetch(request(photos, tmp_path, subset=2, name="again")).reused


def test_the_whole_data_set_is_fraction_1(photos: Path, tmp_path: Path) -> None:
    """Every image with an object of the classes; images without one are counted as those that are not drawn."""
    result = fetch(request(photos, tmp_path, fraction=1))
    assert set(range(1, 41)) == ids(result)
    assert (4, 0.0) == (result.background, result.to_json()["stratified"]["largest_difference"])


@pytest.mark.parametrize("change", [{"fraction": 0.5}, {"subset": 2}, {"fraction": None, "shots": 10}])
def test_another_amount_is_another_request(photos: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """A data set of that name from another fraction, subset or number of shots is not overwritten."""
    fetch(request(photos, tmp_path, name="set"))
    with pytest.raises(DataError, match="another request"):
        fetch(request(photos, tmp_path, name="set", **change))


def test_without_an_amount_ten_shots_are_drawn(photos: Path, tmp_path: Path) -> None:
    """The default stays ten images of each class, and its record has no fraction."""
    record = fetch(request(photos, tmp_path, fraction=None)).dataset.record
    assert (10, None) == (record["shots"], record.get("fraction"))
    assert 10 == fetch_by_name("cat", source=photos, root=tmp_path / "named").dataset.record["shots"]


def test_a_pool_without_a_test_split_is_tested_on_the_rest(photos: Path, tmp_path: Path) -> None:
    """What the subset leaves is the test set; of the whole nothing is left, which a warning says."""
    result, listener = fetch(request(photos / "train", tmp_path, test_images=5)), Listener()
    assert result.dataset.test is not None and not ids(result) & {image.id for image in result.dataset.test.images}
    assert fetch(request(photos / "train", tmp_path, fraction=1.0, name="all"), listener).dataset.test is None
    assert "a smaller --fraction" in " ".join(listener.said)


def test_faulty_images_are_left_out_of_their_subset_alone(tmp_path: Path) -> None:
    """With --skip-invalid they are not replaced, so that subsets stay disjoint; without, they are an error."""
    draw_coco(tmp_path / "pool", [["cat"]] * 12)
    for number in (3, 8):
        (tmp_path / "pool" / "images" / f"{number:04}.jpg").write_bytes(b"no image")
    asked = {"source": str(tmp_path / "pool"), "classes": ("cat",), "fraction": 0.5, "test_images": 0}
    with pytest.raises(DatasetError):
        fetch(FetchRequest(**asked, root=tmp_path / "data"))
        fetch(FetchRequest(**asked, subset=2, root=tmp_path / "other"))
    parts = [
        ids(fetch(FetchRequest(**asked, subset=each, skip_invalid=True, name=f"{each}", root=tmp_path / "data")))
        for each in (1, 2)
    ]
    assert sorted({*range(1, 13)} - {3, 8}) == sorted([*parts[0], *parts[1]])


def test_a_class_that_is_too_rare_is_named(photos: Path, tmp_path: Path) -> None:
    """The error says how many images show it and from which fraction on every subset can have one."""
    draw_coco(tmp_path / "pool", [["cat"]] * 10 + [["cat", "owl"]] * 2, classes=("cat", "owl"))
    asked = {"source": str(tmp_path / "pool"), "classes": ("cat", "owl"), "root": tmp_path / "data", "test_images": 0}
    with pytest.raises(
        DataError, match=r"no image of 'owl' in subset \d of --fraction 0.25; of all 12 images 2"
    ) as found:
        for subset in (1, 2, 3, 4):
            fetch(FetchRequest(**asked, fraction=0.25, subset=subset, name=f"{subset}"))
    assert "--fraction 0.5 " in (found.value.hint or "")
    for subset in (1, 2):
        assert {"cat", "owl"} <= set(
            fetch(FetchRequest(**asked, fraction=0.5, subset=subset, name=f"h{subset}")).dataset.classes
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fraction", "0"], "at least 0.01"),
        (["--fraction", "0.001"], "at least 0.01"),
        (["--fraction", "2"], "at most 1"),
        (["--fraction", "-0.25"], "at least 0.01"),
        (["--fraction", "nan"], "fraction is nan"),
        (["--fraction", "0.25", "--shots", "10"], "--shots does not go with --fraction"),
        (["--fraction", "0.5", "--subset", "3"], "there are 2 disjoint subsets"),
        (["--fraction", "0.6", "--subset", "2"], "there is one subset"),
        (["--fraction", "0.5", "--subset", "0"], "at least 1"),
        (["--subset", "2"], "--subset 2 without --fraction"),
        (["--fraction", "0.5", "--source", "miniature"], "does not go with --source miniature"),
        (["--fraction", "0.5", "--source", "openimages"], "does not go with --source openimages"),
    ],
)
def test_amounts_that_cannot_be_meant_are_refused(photos: Path, tmp_path: Path, words: list[str], said: str) -> None:
    """Usage errors, before anything is read or downloaded."""
    source = [] if "--source" in words else ["--source", photos]
    result = fsod("fetch", *source, "--class", "cat", "--root", tmp_path / "data", *words)
    assert 2 == result.exit_code and said in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()


def test_the_terminal_says_what_was_drawn(photos: Path, tmp_path: Path) -> None:
    """Images, boxes of each class and the largest difference, for `all` classes too."""
    words = ["fetch", "--source", photos, "--class", "all", "--root", tmp_path, "--fraction", "0.25", "--subset", "3"]
    result = fsod(*words)
    assert 0 == result.exit_code, result.stderr
    said = " ".join(result.stdout.split())
    assert "10 training images" in said and "Subset 3 of 4, each 0.25 of 40 images" in said
    assert "Training boxes: cat " in said and "percentage points (" in said


def test_several_sources_are_divided_as_one(photos: Path, tmp_path: Path) -> None:
    """The share is of the images of all sources together."""
    draw_coco(tmp_path / "more", [["cat"]] * 20, seed=9)
    sources = (str(photos / "train"), str(tmp_path / "more"))
    with pytest.raises(UsageError, match="does not go with"):
        request(photos, tmp_path, source=(*sources, "miniature"))
    assert 15 == len(ids(fetch(request(photos, tmp_path, source=sources, test_images=0))))

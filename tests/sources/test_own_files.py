"""Images of one's own: a path without a name, several sources joined, checks, and the loop of pre-labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_data import draw_coco, draw_image, lay_out
from helpers_runs import fsod

from fewshot_cli.datasets.formats import FORMATS
from fewshot_cli.datasets.formats.writing import Labelled, open_writer
from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DataError, DatasetError, UsageError
from fewshot_cli.files import sha256_of
from fewshot_cli.sources.fetch import FetchRequest, check, fetch
from fewshot_cli.sources.registry import parse_source
from fewshot_cli.verbs.fetch import LABEL_CHECKER, check_labels
from fewshot_cli.verbs.fetch import fetch as fetch_by_name


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def yolo(folder: Path, names: tuple[str, ...], labels: dict[str, str], *, seed: int = 50) -> Path:
    """A YOLO folder of images NAME.jpg with rows."""
    files = {f"labels/{name}.txt": rows for name, rows in labels.items()}
    lay_out(folder, {"classes.txt": "".join(f"{name}\n" for name in names), **files})
    for number, name in enumerate(labels):
        draw_image(folder / "images" / f"{name}.jpg", seed + number)
    return folder


ROW = "0 .5 .5 .25 .2\n"


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    draw_coco(tmp_path / "pool", [["cat"]] * 4 + [["dog"]] * 3 + [[]] * 2)
    return tmp_path / "pool"


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Three cats under another name, in another format, and a background image."""
    return yolo(tmp_path / "more", ("Cats", "bird"), {"a": ROW, "b": ROW, "c": ROW, "d": ""})


def asked(tmp_path: Path, *sources: Any, **changes: Any) -> FetchRequest:
    whole: dict[str, Any] = {
        "classes": ("cat",),
        "shots": 3,
        "root": tmp_path / "data",
        "source": tuple(map(str, sources)),
    }
    return FetchRequest(**{**whole, **changes})


# A path without a name


def test_a_path_finds_its_format(pool: Path, more: Path, tmp_path: Path) -> None:
    """A folder or file of any format is a source; the record has the format's name, so that both ways are one request."""
    assert [f"coco:{pool}", f"yolo:{more}", f"coco:{pool / 'annotations.json'}"] == [
        str(parse_source(str(path))) for path in (pool, more, pool / "annotations.json")
    ]
    first = fetch(asked(tmp_path, pool))
    assert (f"coco:{pool}", True) == (first.dataset.record["source"], fetch(asked(tmp_path, f"coco:{pool}")).reused)


def test_a_source_wins_over_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`miniature` is the source even where there is such a folder; `./miniature` is the folder."""
    draw_coco(tmp_path / "miniature", [["cat"]])
    monkeypatch.chdir(tmp_path)
    assert ("miniature", f"coco:{tmp_path / 'miniature'}") == (
        str(parse_source("miniature")),
        str(parse_source("./miniature")),
    )


def test_an_unknown_folder_lists_what_was_looked_for(tmp_path: Path) -> None:
    """Every format says what it needs; a folder that holds images alone is such a one."""
    draw_image(tmp_path / "photos" / "a.jpg", 1)
    result = fsod("fetch", "--source", tmp_path / "photos", "--class", "cat", "--json")
    error = json.loads(result.stdout)["error"]
    assert 3 == result.exit_code
    assert error["message"].startswith(f"{tmp_path / 'photos'} holds no annotations in a known format; it looks like")
    assert list(FORMATS) == [line.strip().split(":")[0] for line in error["hint"].splitlines()[1:]]


@pytest.mark.parametrize("name", ["cvat", "csv", "labelme", "labelstudio", "voc", "yolo"])
def test_a_named_format_that_is_not_there_says_what_it_needs(name: str, pool: Path, tmp_path: Path) -> None:
    """`yolo:DIR` of a COCO folder is an error of YOLO's reader, with its layouts; a missing folder likewise."""
    for place in (pool, tmp_path / "nowhere"):
        with pytest.raises(DataError) as raised:
            fetch(asked(tmp_path, f"{name}:{place}"))
        assert raised.value.hint


# Several sources


def test_sources_are_joined_by_class_name(pool: Path, more: Path, tmp_path: Path) -> None:
    """Shots and tests come from both; the record says which image is from which, and another order is another draw."""
    result = fetch(asked(tmp_path, pool, more))
    record = result.dataset.record
    files = [entry for split in record["splits"].values() for entry in split["files"]]
    assert (("cat",), 7, 3) == (result.dataset.classes, len(files), result.background)
    assert [f"coco:{pool}", f"yolo:{more}"] == record["source"]
    assert {f"coco:{pool}": 4, f"yolo:{more}": 3} == {
        source: sum(entry["source"] == source for entry in files) for source in record["source"]
    }
    assert {"0001.jpg", "a.jpg"} <= {entry["source_file"] for entry in files}
    assert fetch(asked(tmp_path, pool, more)).reused
    with pytest.raises(DataError, match="another request: source"):
        fetch(asked(tmp_path, more, pool))


def test_a_class_may_be_in_one_source_only(pool: Path, more: Path, tmp_path: Path) -> None:
    """Each class is taken where it is; one that no source has is unknown, with the closest of all names."""
    lay_out(more, {"labels/c.txt": "1 .5 .5 .2 .2\n"})
    result = fetch(asked(tmp_path, pool, more, classes=("bird", "dog", "cat"), shots=1))
    assert ("bird", "dog", "cat") == result.dataset.classes
    assert all(count >= 1 for count in result.to_json()["train"]["images_per_class"].values())
    with pytest.raises(DataError, match="unknown class 'birdd'") as raised:
        fetch(asked(tmp_path, pool, more, classes=("birdd",)))
    assert "Did you mean bird? Valid: cat, dog, Cats, bird." == raised.value.hint


def test_the_first_source_that_knows_a_class_names_it(pool: Path, more: Path, tmp_path: Path) -> None:
    """`Cats` and `cat` are one class, called as the first source calls it."""
    assert ("Cats",) == fetch(asked(tmp_path, more, pool)).dataset.classes


def test_one_source_alone_draws_as_ever(pool: Path, more: Path, tmp_path: Path) -> None:
    """The shots of the only source are not those of a joined set by accident: ids are its own, no `source` is noted."""
    alone = fetch(asked(tmp_path, pool)).dataset
    assert {1, 2, 3, 4} == {image.id for split in (alone.train, alone.test) for image in split.images}
    assert "source" not in alone.record["splits"]["train"]["files"][0]


def test_own_test_splits_are_joined_too(pool: Path, more: Path, tmp_path: Path) -> None:
    """Where one of the sources has a test split of its own, that is what is tested on."""
    shutil.copytree(pool, tmp_path / "set" / "train")
    draw_coco(tmp_path / "set" / "test", [["cat"]] * 2, seed=9)
    dataset = fetch(asked(tmp_path, tmp_path / "set", more, shots=7)).dataset
    assert (7, 2) == (len(dataset.train.images), len(dataset.require_test().images))


def test_faults_of_joined_sources_come_at_once(pool: Path, more: Path, tmp_path: Path) -> None:
    """Images of both that are cut off are listed, and can be left out of both; so are faulty records of both."""
    for path in (pool / "images" / "0001.jpg", more / "images" / "a.jpg"):
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DatasetError) as raised:
        fetch(asked(tmp_path, pool, more))
    assert {"0001.jpg", "a.jpg"} == {Path(problem.file).name for problem in raised.value.problems}
    data = fetch(asked(tmp_path, pool, more, skip_invalid=True)).dataset
    assert 5 == len(data.train.images) + len(data.require_test().images)
    lay_out(more, {"labels/b.txt": "0 1\n"})
    (pool / "images" / "0002.jpg").unlink()
    with pytest.raises(DatasetError, match="2 sources: 2 problems"):
        fetch(asked(tmp_path, pool, more, name="again"))


@pytest.mark.parametrize("sources", [(), ("POOL", "POOL"), ("POOL", "coco:POOL")])
def test_a_source_is_given_once(sources: tuple[str, ...], pool: Path, tmp_path: Path) -> None:
    """None, or the same one twice under two spellings, cannot be meant."""
    with pytest.raises(UsageError, match="given twice, or none"):
        asked(tmp_path, *(text.replace("POOL", str(pool)) for text in sources))


def test_own_images_join_with_a_drawn_world(tmp_path: Path) -> None:
    """A source whose images are made when they are drawn can be one of several."""
    draw_coco(tmp_path / "own", [["helmet"]] * 2, classes=("helmet",))
    result = fetch(asked(tmp_path, tmp_path / "own", "miniature", classes=("helmet",), shots=4, test_images=2))
    assert (4, 2) == (len(result.dataset.train.images), len(result.dataset.require_test().images))
    assert result.dataset.detector is None


def test_the_public_function_takes_paths_and_lists(pool: Path, more: Path, tmp_path: Path) -> None:
    """One path, or several; the command takes the same."""
    assert ["cat"] == list(fetch_by_name("cat", source=pool, shots=2, root=tmp_path / "one").dataset.classes)
    joined = fetch_by_name("cat", source=[pool, f"yolo:{more}"], shots=2, root=tmp_path / "two")
    done = fsod(
        "fetch",
        "--source",
        pool,
        "--source",
        more,
        "--class",
        "cat",
        "--shots",
        2,
        "--root",
        tmp_path / "three",
        "--json",
    )
    assert 0 == done.exit_code, done.stderr
    same = open_dataset(json.loads(done.stdout)["path"])
    assert joined.dataset.train.to_coco() == same.train.to_coco()
    assert 3 == json.loads(done.stdout)["background"]


# Checks


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A tiny box, an image twice, and one class under two names."""
    document = draw_coco(tmp_path / "odd", [["cat"]] * 5 + [["Cats"]], classes=("cat", "Cats"))
    document["annotations"][0]["bbox"] = [5, 5, 0.3, 9]
    (tmp_path / "odd" / "annotations.json").write_text(json.dumps(document))
    shutil.copy(tmp_path / "odd" / "images" / "0002.jpg", tmp_path / "odd" / "images" / "0003.jpg")
    return tmp_path / "odd"


KINDS = ["class names", "repeated images", "small boxes"]


def test_fetch_warns_and_goes_on(odd: Path, tmp_path: Path) -> None:
    """Each suspect is said on stderr and listed under --json; the data set is written."""
    done = fsod("fetch", "--source", odd, "--class", "cat", "--shots", 5, "--root", tmp_path / "data", "--json")
    document = json.loads(done.stdout)
    assert (0, KINDS) == (done.exit_code, sorted(found["check"] for found in document["warnings"]))
    for found in document["warnings"]:
        assert found["message"] in done.stderr.replace("\n", " ")
    assert ["0002.jpg", "0003.jpg"] == next(
        each["images"] for each in document["warnings"] if each["check"] == "repeated images"
    )
    assert (5, []) == (
        document["train"]["images"],
        json.loads(
            fsod("fetch", "--source", odd, "--class", "cat", "--shots", 5, "--root", tmp_path / "data", "--json").stdout
        )["warnings"],
    )


def test_check_writes_nothing_and_finds_the_same(odd: Path, tmp_path: Path) -> None:
    """`--check` draws, says what looks wrong, and leaves no file, whatever is there."""
    fetch(asked(tmp_path, odd, shots=2))
    before = {path: sha256_of(path) for path in tmp_path.rglob("*") if path.is_file()}
    done = fsod(
        "fetch", "--source", odd, "--class", "cat", "--shots", 5, "--root", tmp_path / "data", "--check", "--json"
    )
    document = json.loads(done.stdout)
    assert (0, None, KINDS) == (
        done.exit_code,
        document["path"],
        sorted(found["check"] for found in document["warnings"]),
    )
    assert before == {path: sha256_of(path) for path in tmp_path.rglob("*") if path.is_file()}
    text = fsod("fetch", "--source", odd, "--class", "cat", "--shots", 5, "--check").stdout
    assert text.startswith("Nothing written: cat; 5 training images")
    assert "3 things to look at" in text


def test_check_reports_faults_as_fetch_does(pool: Path, tmp_path: Path) -> None:
    """Problems are still errors."""
    (pool / "images" / "0001.jpg").write_bytes(b"spoiled")
    with pytest.raises(DatasetError):
        check(asked(tmp_path, pool, shots=4))
    with pytest.raises(DataError, match="too few images"):
        check(asked(tmp_path, pool, shots=9))


def test_left_out_records_are_said(more: Path, tmp_path: Path) -> None:
    """What a reader leaves out by rule, not by fault, is a warning with its count."""
    draw_image(more / "images" / "e.jpg", 99)
    done = fsod("fetch", "--source", more, "--class", "cat", "--shots", 2, "--root", tmp_path / "data")
    assert "images without a label file, taken as background: 1" in done.stderr
    assert "2 background images (no box at all) not drawn" in done.stdout


def test_objects_without_a_box_are_looked_for_only_by_what_is_at_hand(pool: Path, cache: Path, tmp_path: Path) -> None:
    """No weights, or a class that the detector does not know: nothing is loaded; spoiled weights are a remark."""
    shots = fetch(asked(tmp_path, pool)).dataset.train

    class Listener:
        said: list[str] = []  # noqa: RUF012

        def warn(self, text: str) -> None:
            self.said.append(text)

    assert [] == check_labels(shots, Listener())  # type: ignore[arg-type]
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / f"{LABEL_CHECKER}.pth").write_bytes(b"spoiled")
    assert [] == check_labels(shots, Listener())  # type: ignore[arg-type]
    assert ["yolox_nano cannot look for objects without a box"] == [text.split(":")[0] for text in Listener.said]


def test_real_objects_without_a_box_are_found(real: Path, cache: Path, tmp_path: Path) -> None:
    """People of COCO images whose boxes were taken away are found by the pretrained detector, with the image named."""
    from fewshot_cli.progress import SilentReporter

    (cache / "weights").mkdir(parents=True)
    shutil.copy(real / "weights" / "yolox_nano_coco.pth", cache / "weights" / f"{LABEL_CHECKER}.pth")
    source = real / "data" / "coco_val128" / "test"
    document = json.loads((source / "annotations.json").read_text())
    (person,) = (each["id"] for each in document["categories"] if each["name"] == "person")
    shown: set[int] = set()
    document["annotations"] = [
        each for each in document["annotations"]
        if each["category_id"] == person and not each["iscrowd"] and not (each["image_id"] in shown or shown.add(each["image_id"]))
    ]  # fmt: skip
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "annotations.json").write_text(json.dumps(document))
    (tmp_path / "set" / "images").symlink_to(source / "images")
    request = asked(tmp_path, tmp_path / "set", classes=("person",), shots=10)
    shots = check(request).train
    (suspect,) = check_labels(shots, SilentReporter())
    assert set(suspect.images) <= {image.path.name for image in shots.images}
    assert 2 <= len(suspect.images) <= 10


# The loop


@pytest.mark.parametrize("format", ["labelme", "labelstudio"])
def test_corrected_pre_labels_come_back_as_a_second_source(format: str, pool: Path, tmp_path: Path) -> None:
    """Detections on new photos are written as pre-labels, corrected by a person, joined with the first set, and train."""
    photos = tmp_path / "new_photos"
    writer = (
        open_writer(format, tmp_path / "predictions", ("cat",)) if (tmp_path / "predictions").mkdir() is None else None
    )
    assert writer is not None
    for number in range(4):
        draw_image(photos / f"{number}.jpg", 70 + number)
        boxes = np.array([[5, 5, 15, 20]], np.float32)
        writer.add(
            Labelled(
                path=photos / f"{number}.jpg",
                name=f"{number}.jpg",
                width=40,
                height=30,
                boxes=boxes,
                names=["cat"],
                scores=np.array([0.8], np.float32),
            )
        )
    writer.close()
    given_back = _correct_labelme(tmp_path) if format == "labelme" else _correct_labelstudio(tmp_path, photos)
    done = fsod(
        "fetch",
        "--source",
        pool,
        "--source",
        given_back,
        "--class",
        "cat",
        "--shots",
        6,
        "--root",
        tmp_path / "data",
        "--json",
    )
    assert 0 == done.exit_code, done.stderr
    document = json.loads(done.stdout)
    assert (8, 9) == (
        document["train"]["images"] + document["test"]["images"],
        document["train"]["boxes"] + document["test"]["boxes"],
    )
    data = open_dataset(document["path"])
    assert any(
        box == [1, 2, 9, 9]
        for split in (data.train, data.require_test())
        for image in split.images
        for box in image.boxes.tolist()
    )


def _correct_labelme(folder: Path) -> Path:
    """A person adds a box that the detector missed."""
    file = folder / "predictions" / "labelme" / "2.json"
    document = json.loads(file.read_text())
    document["shapes"].append({**document["shapes"][0], "label": "cat", "points": [[1, 2], [9, 9]]})
    file.write_text(json.dumps(document))
    return file.parent


def _correct_labelstudio(folder: Path, photos: Path) -> Path:
    """The same in Label Studio: predictions become annotations, which are exported beside the photos."""
    tasks = json.loads((folder / "predictions" / "tasks.json").read_text())
    for task in tasks:
        regions = task["predictions"][0]["result"]
        if task["data"]["image"].endswith("=2.jpg"):
            value = {**regions[0]["value"], "x": 2.5, "y": 100 * 2 / 30, "width": 20, "height": 100 * 7 / 30}
            regions = [*regions, {**regions[0], "id": "new", "value": value}]
        task["annotations"] = [{"id": 1, "result": regions}]
    (photos / "result.json").write_text(json.dumps(tasks))
    return photos

"""From ten photos to boxes on new images, a file to deploy, and a second detector: the README's own commands, run."""

from __future__ import annotations

import base64
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_documents import python_code, section, shell_blocks
from helpers_runs import REPOSITORY, fsod

import fewshot_cli
from fewshot_cli import fetch, finetune, open_dataset
from fewshot_cli.datasets.types import Split
from fewshot_cli.runs.folder import Run

README = (REPOSITORY / "README.md").read_text("utf-8")
QUICK: dict[str, Any] = {
    "detector": "retinanet_mini",
    "image_size": 128,
    "iterations": 2,
    "copies": 1,
    "threads": 1,
    "precision": "fp32",
}
"""A fine-tune of seconds, without a download; an exported file computes in fp32 too."""
QUICK_OPTIONS = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", value)]
ADDED = {"finetune": [*QUICK_OPTIONS, "--no-report"], "predict": ["--threshold", 0.05, "--threads", 1]}
"""Options that the README's commands get here, by command."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """Twelve photos that a person has labelled, and ten new ones with what is to be seen in them."""
    data = fetch("helmet", source="miniature", shots=12, test_images=10, root=tmp_path_factory.mktemp("drawn"))
    return data.dataset.train, data.dataset.require_test()


@pytest.fixture(autouse=True)
def photos(drawn: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """my_photos/ with labels as LabelImg writes them for YOLO, and new_photos/ without any."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))
    for folder, split in zip(("my_photos", "new_photos"), drawn, strict=True):
        Path(folder).mkdir()
        for image in split.images:
            shutil.copy(image.path, folder)
    Path("my_photos/classes.txt").write_text("helmet\n")
    for image in drawn[0].images:
        sides = np.array([image.width, image.height])
        rows = [[*(box[:2] + box[2:]) / 2 / sides, *(box[2:] - box[:2]) / sides] for box in image.boxes]
        lines = [f"0 {' '.join(f'{share:.6f}' for share in row)}\n" for row in rows]
        Path("my_photos", image.path.with_suffix(".txt").name).write_text("".join(lines))


def boxes_of(split: Split) -> dict[str, list[list[float]]]:
    """Boxes by the name of their image, sorted."""
    return {image.path.name: sorted(image.boxes.tolist()) for image in split.images}


def assert_boxes(
    expected: dict[str, list[list[float]]], found: dict[str, list[list[float]]], pixels: float = 0.01
) -> None:
    """The boxes of the images that were found are those expected, to so many pixels."""
    for name, boxes in found.items():
        assert len(expected[name]) == len(boxes), name
        for box in boxes:  # sorted boxes change places where their first coordinates are equal but for rounding
            assert any(pytest.approx(other, abs=pixels) == box for other in expected[name]), (name, box)


def correct_in_labelme(folder: Path, truth: Split) -> int:
    """Draw the true boxes as LabelMe saves them, with the image embedded; returns how many boxes were there before."""
    before = 0
    for image in truth.images:
        file = folder / image.path.with_suffix(".json").name
        document = json.loads(file.read_text("utf-8"))
        before += len(document["shapes"])
        document["shapes"] = [_shape(box) for box in image.boxes.tolist()]
        document["imageData"] = base64.b64encode((folder / document["imagePath"]).read_bytes()).decode()
        file.write_text(json.dumps(document, ensure_ascii=False, indent=2))
    return before


def _shape(box: list[float]) -> dict[str, Any]:
    # From the lower right to the upper left corner, as a hand may draw it.
    other = {"group_id": None, "description": "", "flags": {}, "mask": None}
    return {"label": "helmet", "points": [box[2:], box[:2]], "shape_type": "rectangle", **other}


def run(*words: str) -> None:
    """A command of `fsod` as a person types it, with what makes it quick."""
    result = fsod(*words, *ADDED.get(words[0], []))
    assert 0 == result.exit_code, result.output


def detected(folder: Path) -> dict[str, list[list[float]]]:
    """The boxes of detections.jsonl by the name of their image, sorted."""
    lines = map(json.loads, (folder / "detections.jsonl").read_text("utf-8").splitlines())
    return {Path(line["image"]).name: sorted(each["box"] for each in line["detections"]) for line in lines}


def test_the_commands_of_the_readme(drawn: tuple[Split, Split]) -> None:
    """Typed one after another they make two data sets, two runs, detections and an exported file that agrees."""
    labelled, new = drawn
    for program, *words in shell_blocks(section(README, "Ten photos to a detector")):
        if program == "labelme":
            assert 0 < correct_in_labelme(Path(*words), new)
        else:
            run(*words)

    data = [open_dataset(f"data/{name}") for name in ("helmet", "helmet-2")]
    assert [(10, 2), (20, 2)] == [(len(each.train.images), len(each.require_test().images)) for each in data]
    truth = {**boxes_of(labelled), **boxes_of(new)}
    for each in data:
        assert_boxes(truth, {**boxes_of(each.train), **boxes_of(each.require_test())})

    runs = [Run(folder) for folder in Path("runs").iterdir()]
    assert {"helmet", "helmet-2"} == {Path(run.read_config().data or "").name for run in runs}
    assert all(run.read_result()["ap"] is not None for run in runs)

    by_run, by_file = (detected(Path(folder)) for folder in ("predictions", "predictions-2"))
    assert boxes_of(new).keys() == by_run.keys()
    assert by_run == {name: [pytest.approx(box, abs=0.5) for box in boxes] for name, boxes in by_file.items()}


def test_the_python_of_the_readme(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten lines at most; as they stand, but for a quicker fine-tune, they measure, detect and export."""
    code = python_code(section(README, "Python API"))
    assert len(list(filter(None, code.splitlines()))) <= 10
    shutil.copy(next(Path("new_photos").iterdir()), "photo.jpg")
    monkeypatch.setattr(fewshot_cli, "finetune", partial(finetune, **QUICK))
    values: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), values)
    measured, *_, exported = capsys.readouterr().out.splitlines()
    assert [str(values["run"].result["ap"]), "{'AP':"] == measured.split()[:2]
    assert len(values["found"].names) == len(values["found"].boxes)
    assert "runs/helmet/model.onnx" == exported and Path(exported).is_file()


@pytest.mark.slow
def test_the_loop_through_label_studio(drawn: tuple[Split, Split]) -> None:
    """Predictions that are imported, accepted and exported are labels of the second data set."""
    run("fetch", "--source", "my_photos", "--class", "helmet")
    run("finetune")
    run("predict", "new_photos", "--no-draw")
    run("predict", "new_photos", "--no-draw", "--format", "labelstudio", "--out", "pre_labels")
    too_early = fsod("fetch", "--source", "pre_labels/tasks.json", "--class", "helmet", "--name", "two")
    assert 3 == too_early.exit_code and "tasks without an annotation, left out as not labelled: 10" in too_early.stderr
    tasks = json.loads(Path("pre_labels/tasks.json").read_text("utf-8"))
    Path("new_photos/result.json").write_text(json.dumps([_accepted(*each) for each in enumerate(tasks, start=1)]))
    both = ["--source", "my_photos", "--source", "new_photos"]
    run("fetch", *both, "--class", "helmet", "--shots", "14", "--name", "two")

    data, found = open_dataset("data/two"), detected(Path("predictions"))
    drawn_from = {**boxes_of(data.train), **boxes_of(data.require_test())}
    assert drawn_from.keys() & found.keys()
    assert_boxes({**boxes_of(drawn[0]), **found}, drawn_from)


def _accepted(number: int, task: dict[str, Any]) -> dict[str, Any]:
    """What Label Studio exports of a task whose prediction was submitted as it is."""
    regions = [{**region, "origin": "prediction"} for region in task["predictions"][0]["result"]]
    annotation = {"id": number, "was_cancelled": False, "ground_truth": False, "result": regions}
    return {"id": number, "data": task["data"], "annotations": [annotation], "predictions": []}


@pytest.mark.parametrize(
    ("format", "source"),
    [
        ("coco", "labels/detections.json"),
        ("csv", "labels"),
        ("voc", "labels"),
        ("yolo", "labels"),
        ("labelme", "labels"),
    ],
)
def test_labels_beside_their_images_are_a_source(format: str, source: str, trained: Run, shapes: Path) -> None:
    """What predict wrote is read back once the images are in images/ beside it, as they are already for LabelMe."""
    photos = shapes / "test" / "images"
    for more in ([], ["--format", format, "--out", "labels"]):
        run("predict", str(trained.folder), str(photos), "--no-draw", *more)
    if format != "labelme":
        shutil.copytree(photos, "labels/images")
    run("fetch", "--source", source, "--class", "square", "--class", "disc", "--shots", "2", "--name", "read")
    data, found = open_dataset("data/read"), detected(Path("predictions"))
    # Pascal VOC has whole pixels.
    assert_boxes(found, {**boxes_of(data.train), **boxes_of(data.require_test())}, 1.01 if format == "voc" else 0.01)

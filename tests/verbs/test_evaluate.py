"""eval: the numbers that fine-tune reported, from the files alone, and those of a detector as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_data import write_document
from helpers_runs import LEARNING, TINY, argv_of, config_of, draw_shapes, fine_tune, fsod, score

from fewshot_cli.detectors.chain import Detections
from fewshot_cli.evaluation.coco_metrics import NAMES, evaluate, to_results
from fewshot_cli.runs.folder import Run


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answer(*arguments: str | Path) -> dict[str, Any]:
    result = fsod(*arguments, "--json")
    assert 0 == result.exit_code, result.stderr
    return dict(json.loads(result.stdout))


def shapes_named(folder: Path, *names: str) -> Path:
    """A test split like that of `shapes`, its two classes called otherwise, further classes without a box."""
    document = draw_shapes(folder, 6, seed=2)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return write_document(folder, {**document, "categories": categories})


# --- a run ---


def test_eval_gives_the_numbers_that_finetune_reported(trained: Run) -> None:
    """All twelve numbers and each class's AP, without the cache, are those in result.json."""
    found, result = answer("eval", trained.folder), trained.read_result()
    assert result["ap"] > 0
    assert result["metrics"] == {"numbers": found["numbers"], "per_class": found["per_class"]}
    assert (6, str(trained.folder)) == (found["images"], found["measured"])


@pytest.mark.slow
def test_eval_best_gives_the_best_of_the_run(trained: Run, shapes: Path, tmp_path: Path) -> None:
    """--best measures checkpoint-best.safetensors, and finds the best mAP that the run has recorded."""
    assert trained.read_result()["best"]["ap"] == answer("eval", trained.folder, "--best")["numbers"]["AP"]
    swapped = Run(Path(shutil.copytree(trained.folder, tmp_path / "swapped")))
    untrained = fine_tune(tmp_path / "untrained", config_of(shapes, iterations=1))
    shutil.copy(untrained.checkpoint, swapped.best_checkpoint)
    last, best = (answer("eval", swapped.folder, flag)["numbers"]["AP"] for flag in ("--last", "--best"))
    assert (trained.read_result()["ap"], untrained.read_result()["ap"]) == (last, best) and last != best


def test_eval_on_the_shots_gives_the_train_map(trained: Run, shapes: Path) -> None:
    """--data may name one split; on train it is the train mAP of the result, to see the overfitting."""
    found = answer("eval", trained.folder, "--data", shapes / "train")
    assert 0 < trained.read_result()["train_ap"] == pytest.approx(found["numbers"]["AP"], abs=1e-6)
    assert 4 == found["images"]


def test_a_run_is_measured_as_it_was_trained(shapes: Path, tmp_path: Path) -> None:
    """Without --precision a run in bf16 is measured in bf16: the same detections again, and not those of fp32."""
    run = fine_tune(tmp_path / "run", config_of(shapes, LEARNING, eval_every=0, precision="bf16"))
    found = {}
    for precision in ("auto", "fp32"):
        file = tmp_path / f"{precision}.json"
        answer("eval", run.folder, "--precision", precision, "--predictions", file)
        found[precision] = [result["score"] for result in json.loads(file.read_text())]
    recorded = [result["score"] for result in json.loads(run.predictions_file.read_text())]
    assert recorded and recorded == found["auto"] != found["fp32"]


@pytest.mark.slow
def test_a_retinanet_run_is_measured_again(shapes: Path, tmp_path: Path) -> None:
    """The other family: a run in its default precision, restored from its files, detects what it did."""
    options = {"detector": "retinanet_mini", "iterations": 2, "policy": "last", "budget": 1}
    run = fine_tune(tmp_path / "run", config_of(shapes, TINY, **options))
    answer("eval", run.folder, "--predictions", tmp_path / "found.json")
    recorded, found = (json.loads(file.read_text()) for file in (run.predictions_file, tmp_path / "found.json"))
    assert recorded and [result["score"] for result in recorded] == [result["score"] for result in found]


def test_predictions_are_coco_results(trained: Run, shapes: Path, tmp_path: Path) -> None:
    """--predictions writes what the run wrote itself: pycocotools alone scores it the same."""
    found = answer("eval", trained.folder, "--predictions", tmp_path / "new" / "found.json")
    written = json.loads((tmp_path / "new" / "found.json").read_text())
    assert written and {"image_id", "category_id", "bbox", "score"} == set(written[0])
    assert len(json.loads(trained.predictions_file.read_text())) == len(written)
    own = score(shapes / "test" / "annotations.json", tmp_path / "new" / "found.json")
    assert found["numbers"]["AP"] == pytest.approx(own, abs=1e-12)


def test_classes_are_matched_by_name(trained: Run, tmp_path: Path) -> None:
    """More classes, and in another order: those of the run are measured, with the same AP each."""
    document = draw_shapes(tmp_path / "more", 6, seed=2)
    for record in document["annotations"]:
        record["category_id"] = {1: 3, 2: 1}[record["category_id"]]
    document["annotations"].append({**document["annotations"][0], "id": 999, "category_id": 2})
    names = ["disc", "star", "square"]
    document["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    found = answer("eval", trained.folder, "--data", write_document(tmp_path / "more", document))
    assert trained.read_result()["metrics"]["per_class"] == found["per_class"]
    assert trained.read_result()["ap"] == pytest.approx(found["numbers"]["AP"], abs=1e-12)


def test_no_class_in_common_is_an_error(trained: Run, tmp_path: Path) -> None:
    """A data set of other classes: exit 3, both lists of classes."""
    result = fsod("eval", trained.folder, "--data", shapes_named(tmp_path / "other", "helmet", "glove"))
    assert 3 == result.exit_code
    assert "none of its classes (helmet, glove) is known to the detector" in result.stderr
    assert "Valid: square, disc." in result.stderr


def test_a_crowd_box_is_no_miss(trained: Run, tmp_path: Path) -> None:
    """Crowd boxes in the test set do not count as missed objects."""
    document = draw_shapes(tmp_path / "crowd", 6, seed=2)
    crowd = {"image_id": 2, "category_id": 2, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 1}
    document["annotations"] += [{**crowd, "id": 100 + number} for number in range(20)]
    found = answer("eval", trained.folder, "--data", write_document(tmp_path / "crowd", document))
    assert trained.read_result()["metrics"]["numbers"]["AR_100"] == pytest.approx(found["numbers"]["AR_100"])


def test_without_a_run_the_latest_is_measured(shapes: Path, tmp_path: Path) -> None:
    """`fsod eval` alone takes the run finished last under ./runs and says which; none there is an error."""
    nothing = fsod("eval")
    assert 3 == nothing.exit_code and "no finished run in runs/" in nothing.stderr and "hint:" in nothing.stderr
    for name in ("first", "second"):
        assert 0 == fsod(*argv_of(shapes, name=name, iterations=1), "--no-report").exit_code
    result = fsod("eval")
    assert 0 == result.exit_code and "Run: runs/second, the one finished last." in result.stderr


def test_a_table_shows_what_json_holds(trained: Run) -> None:
    """Without --json: the twelve metrics by name and each class, to three places."""
    shown = fsod("eval", trained.folder).stdout
    numbers = trained.read_result()["metrics"]["numbers"]
    for name in NAMES:
        row = next(line for line in shown.splitlines() if line.split()[:1] == [name])
        assert row.split()[-1] == ("–" if numbers[name] is None else f"{numbers[name]:.3f}")
    assert "square" in shown and "disc" in shown


# --- a detector as it is ---


def test_a_base_detector_is_measured_on_the_classes_it_shares(base_weights: Path, tmp_path: Path) -> None:
    """--detector with --weights: of `cat` and `gizmo`, a COCO detector is measured on cat alone."""
    data = shapes_named(tmp_path / "cats", "gizmo", "cat")
    found = answer(
        "eval", "--detector", "yolox_nano", "--weights", base_weights, "--data", data, "--image-size", 64,
        "--predictions", tmp_path / "found.json",
    )  # fmt: skip
    assert ["cat"] == list(found["per_class"]) and "yolox_nano" == found["measured"]
    assert {2} >= {result["category_id"] for result in json.loads((tmp_path / "found.json").read_text())}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["RUN", "--detector", "yolox_nano", "--data", "x"], "--detector names a detector without a run"),
        (["--detector", "yolox_nano"], "--detector needs --data"),
        (["RUN", "--image-size", "64"], "--image-size goes with --detector"),
        (["--detector", "yolox_nano", "--data", "x", "--best"], "--detector names a detector without a run"),
    ],
)
def test_contradictions_are_usage_errors(more: list[str], text: str, trained: Run) -> None:
    """A run and a detector at once, or one without what it needs: exit 2 and what would be right."""
    result = fsod("eval", *(str(trained.folder) if word == "RUN" else word for word in more))
    assert 2 == result.exit_code and f"error: {text}" in result.stderr and "hint:" in result.stderr


# --- the metric ---


def test_metrics_where_there_is_nothing_to_measure() -> None:
    """No detection gives 0; a size without objects gives None, not COCO's -1."""
    truth = {
        "images": [{"id": 5, "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}],
    }
    nothing = evaluate(truth, [])
    assert (0.0, 0.0, None) == tuple(nothing.numbers[name] for name in ("AP", "AP_small", "AP_large"))
    assert {"square": 0.0, "disc": None} == nothing.per_class
    perfect = Detections(torch.tensor([[0.0, 0.0, 20.0, 20.0]]), torch.tensor([0.9]), torch.tensor([0]))
    found = evaluate(truth, to_results([perfect], [5], [1, 2]))
    assert 1.0 == pytest.approx(found.ap) == found.per_class["square"]


def test_a_data_set_that_is_gone_is_an_error(shapes: Path, tmp_path: Path) -> None:
    """eval of a run whose data set was removed: exit 3 and its path, not a crash."""
    gone = Path(shutil.copytree(shapes, tmp_path / "gone"))
    run = fine_tune(tmp_path / "run", config_of(gone, TINY, iterations=1))
    shutil.rmtree(gone)
    result = fsod("eval", run.folder)
    assert 3 == result.exit_code and f"{gone} does not exist" in result.stderr


def test_a_file_is_measured_like_its_run(trained: Run, shapes: Path) -> None:
    """A checkpoint alone gives the numbers of the run; it does not say on what, so --data is needed."""
    found = answer("eval", trained.checkpoint, "--data", shapes)
    assert trained.read_result()["metrics"]["numbers"] == found["numbers"]
    assert str(trained.checkpoint) == found["measured"]
    result = fsod("eval", trained.checkpoint)
    assert 2 == result.exit_code and "needs --data" in result.stderr and "hint:" in result.stderr

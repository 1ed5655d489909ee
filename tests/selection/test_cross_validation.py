"""Cross-validation: every shot is measured by a detector that did not see it, from features computed once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_data import write_document
from helpers_runs import LEARNING, TINY, Listening, config_of, draw_shapes, fine_tune, score
from safetensors.torch import load_file

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DivergedError
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.selection import left_out as module
from fewshot_cli.selection.cross_validation import CrossValidation, cross_validate
from fewshot_cli.selection.folds import make_folds
from fewshot_cli.selection.left_out import shot_scores
from fewshot_cli.selection.validate_run import read_folds
from fewshot_cli.training.averaging import given_average
from fewshot_cli.training.features import FeatureStore, cache_features
from fewshot_cli.training.prepare import prepare
from fewshot_cli.training.schedule import Rates
from fewshot_cli.training.variants import Prefix
from fewshot_cli.verbs.finetune import resume, run_at

CROSS = {**TINY, "cross_validate": 2, "eval_every": 0}
SHORT = {**LEARNING, "iterations": 45, "eval_every": 0}
"""Long enough to find something in left-out shots."""


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of six shots, three of which show a disc too, without a test set."""
    folder = tmp_path_factory.mktemp("data") / "six"
    draw_shapes(folder / "train", 6, seed=1)
    return folder


def found_in(
    data: Path, folder: Path, config: FinetuneConfig, store: FeatureStore | None = None, **options: Any
) -> CrossValidation | None:
    """Cross-validate a configuration as other parts of the program do."""
    dataset, quiet = open_dataset(data), SilentReporter()
    prepared = prepare(config, dataset, quiet)
    cached = cache_features(prepared, config, dataset, folder=folder, store=store or FeatureStore(), reporter=quiet)
    return cross_validate(config, dataset, cached, given_average(config, prepared), **options)


@pytest.mark.parametrize(("schedule", "before"), [("steps:0.5", 4), ("plateau", 6)])
def test_folds_follow_the_schedule(
    schedule: str, before: int, six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each from its own beginning: a tenth after half of the run, or after a loss that stays for five measurements."""
    rates: list[float] = []
    at, add = Rates.at, Rates.add_loss
    monkeypatch.setattr(Rates, "at", lambda self, iteration: rates.append(at(self, iteration)) or rates[-1])
    monkeypatch.setattr(Rates, "add_loss", lambda self, done, loss: add(self, done, 3.0))
    config = config_of(six, schedule=schedule, iterations=8, eval_every=1, lr=0.01, warmup=0.0, copies=1)
    found_in(six, tmp_path, config, folds=2)
    assert 2 * ([0.01] * before + [0.001] * (8 - before)) == pytest.approx(rates)


@pytest.fixture(scope="module")
def found(six: Path, tmp_path_factory: pytest.TempPathFactory) -> CrossValidation:
    """Three folds of detectors that learn something."""
    result = found_in(six, tmp_path_factory.mktemp("cache"), config_of(six, SHORT, average=1.0), folds=3)
    assert result is not None
    return result


def only(data: Path, ids: Sequence[int], target: Path) -> Path:
    """A split with some of the images of another, under their own ids."""
    document = json.loads((data / "annotations.json").read_text("utf-8"))
    document["images"] = [image for image in document["images"] if image["id"] in ids]
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] in ids]
    target.mkdir(parents=True)
    (target / "images").symlink_to(data / "images")
    return write_document(target, document)


# --- what a fold is ---


def test_a_fold_is_a_fine_tune_on_the_other_shots(found: CrossValidation, six: Path, tmp_path: Path) -> None:
    """A run of its own on a data set without the left-out shots detects the same in them."""
    fold = found.folds[0]
    others = [image.id for image in found.shots.images if image.id not in fold.images]
    only(six / "train", others, tmp_path / "others" / "train")
    run = fine_tune(tmp_path / "run", config_of(tmp_path / "others", SHORT, average=1.0))
    detector, _ = restore(run.checkpoint)
    left_out = [image.path for image in found.shots.images if image.id in fold.images]
    expected = PlacedDetector(detector, torch.device("cpu")).detect(left_out)
    assert sorted(fold.images) == sorted({result["image_id"] for result in fold.results[1.0]})
    by_hand = sorted((float(value) for one in expected for value in one.scores), reverse=True)
    kept = sorted((result["score"] for result in fold.results[1.0]), reverse=True)
    assert by_hand[:20] == pytest.approx(kept[:20], abs=1e-3) and by_hand[0] > 0.1


def test_every_shot_is_left_out_once(found: CrossValidation) -> None:
    """The folds hold all shots, and each fold's detections are in its own."""
    assert sorted(image.id for image in found.shots.images) == sorted(i for fold in found.folds for i in fold.images)
    assert all({result["image_id"] for result in fold.results[1.0]} <= set(fold.images) for fold in found.folds)


def test_the_estimate_is_the_mean_over_folds(found: CrossValidation, six: Path, tmp_path: Path) -> None:
    """pycocotools on files, fold by fold: the mean, and t for two degrees of freedom (4.303) times the error."""
    aps = []
    for number, fold in enumerate(found.folds):
        truth = only(six / "train", fold.images, tmp_path / str(number)) / "annotations.json"
        (tmp_path / f"{number}.json").write_text(json.dumps(fold.results[1.0]))
        aps.append(score(truth, tmp_path / f"{number}.json"))
    mean = sum(aps) / 3
    deviation = (sum((ap - mean) ** 2 for ap in aps) / 2) ** 0.5
    assert aps == pytest.approx(list(found.fold_ap)) and max(aps) > 0
    assert (mean, 4.303 * deviation / 3**0.5) == (pytest.approx(found.ap), pytest.approx(found.interval, rel=1e-3))
    (tmp_path / "all.json").write_text(json.dumps(found.results))
    assert score(six / "train" / "annotations.json", tmp_path / "all.json") == pytest.approx(found.pooled_ap)


def test_a_shot_scores_what_it_adds_to_the_map_of_its_fold(found: CrossValidation, six: Path, tmp_path: Path) -> None:
    """pycocotools on files: twice the mAP of a fold of two, less that of the other shot alone."""
    fold = found.folds[0]
    (tmp_path / "found.json").write_text(json.dumps(fold.results[1.0]))
    both = score(only(six / "train", fold.images, tmp_path / "both") / "annotations.json", tmp_path / "found.json")
    alone = []
    for shot in fold.images:
        own = [result for result in fold.results[1.0] if result["image_id"] == shot]
        (tmp_path / f"{shot}.json").write_text(json.dumps(own))
        truth = only(six / "train", [shot], tmp_path / str(shot)) / "annotations.json"
        alone.append(score(truth, tmp_path / f"{shot}.json"))
    assert 2 == len(alone) and both > 0
    assert [2 * both - alone[1], 2 * both - alone[0]] == pytest.approx(
        shot_scores(found.shots, found.classes, [fold], 1.0)
    )


def test_variants_stay_out_with_their_shot(six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fold trains on is every variant of the other shots, and nothing else."""
    trained: list[Sequence[int]] = []
    monkeypatch.setattr(module, "fit_part", lambda _, features, items, *rest, **more: trained.append(items))
    result = found_in(six, tmp_path, config_of(six), folds=3)
    assert result is not None
    numbers = {image.id: number for number, image in enumerate(result.shots.images)}
    for items, fold in zip(trained, result.folds, strict=True):
        left_out = {numbers[image_id] for image_id in fold.images}
        assert [2 * shot + copy for shot in range(6) if shot not in left_out for copy in (0, 1)] == list(items)


@pytest.mark.slow
def test_written_variants_stay_out_with_their_shot(six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a data set that `fsod augment` wrote, the variants are images of their own; originals alone are measured."""
    from fewshot_cli.augmentation.config import Augmentation
    from fewshot_cli.augmentation.dataset import augment

    data = augment(six, tmp_path / "written", copies=3, augmentation=Augmentation(), seed=0)
    names = [image.path.stem for image in data.train.images]
    trained: list[list[str]] = []
    keep_names = lambda _, features, items, *rest, **more: trained.append([names[item] for item in items])  # noqa: E731
    monkeypatch.setattr(module, "fit_part", keep_names)
    result = found_in(data.path, tmp_path, config_of(data.path), folds=3)
    assert result is not None and names[:6] == [image.path.stem for image in result.shots.images]
    for items, fold in zip(trained, result.folds, strict=True):
        left_out = [image.path.stem for image in result.shots.images if image.id in fold.images]
        assert 12 == len(items) and not [name for name in items if name.startswith(tuple(left_out))]


def test_no_feature_is_computed_twice(six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with its folds sends each variant through the frozen layers once."""
    computed: list[int] = []
    original = Prefix.__call__
    monkeypatch.setattr(Prefix, "__call__", lambda self, items: computed.extend(items) or original(self, items))
    run_at(tmp_path / "run", config_of(six, CROSS))
    assert dict.fromkeys(range(12), 1) == Counter(computed)


@pytest.mark.slow
def test_configurations_with_one_cut_share_features(six: Path, tmp_path: Path) -> None:
    """Two rates are compared on one cache and on the same folds."""
    store = FeatureStore()
    rates = (1e-3, 2e-2)
    first, second = (found_in(six, tmp_path, config_of(six, iterations=1, lr=lr), store, folds=2) for lr in rates)
    assert first is not None and second is not None and 1 == store.reused
    assert [fold.images for fold in first.folds] == [fold.images for fold in second.folds]


@pytest.mark.parametrize(
    "changes",
    [{"policy": "none", "budget": None}, pytest.param({"policy": "full", "budget": None}, marks=pytest.mark.slow)],
)
def test_every_policy_can_be_validated(changes: dict[str, Any], six: Path, tmp_path: Path) -> None:
    """Nothing trains, or everything does and the cache holds pixels."""
    run = run_at(tmp_path / "run", config_of(six, {**CROSS, "iterations": 1}, **changes))
    assert 2 == run.result["cross_validation"]["folds"]


# --- inside a run ---


def test_the_final_detector_is_the_same_with_and_without(shapes: Path, tmp_path: Path) -> None:
    """Checkpoint and test predictions to the last bit; only then are there an estimate and thresholds."""
    without = run_at(tmp_path / "without", config_of(shapes, CROSS, cross_validate=0))
    crossed = run_at(tmp_path / "with", config_of(shapes, CROSS))
    assert without.checkpoint.read_bytes() == crossed.checkpoint.read_bytes()
    assert without.predictions_file.read_bytes() == crossed.predictions_file.read_bytes()
    assert (None, {}) == (without.result["cross_validation"], without.thresholds)
    assert 2 == crossed.result["cross_validation"]["folds"]
    assert "cross_validation" in crossed.result["seconds"] and "cross_validation" not in without.result["seconds"]
    assert not without.folds_file.exists() and not without.state_file.exists()


def test_with_a_test_set_there_is_no_cross_validation_by_default(shapes: Path, tmp_path: Path) -> None:
    """So runs with a test set, and the cells of a sweep, cost what they cost before."""
    run = run_at(tmp_path / "run", config_of(shapes, iterations=1))
    assert (None, {}) == (run.result["cross_validation"], run.thresholds) and not run.folds_file.exists()


def test_the_result_says_what_was_estimated(six: Path, tmp_path: Path) -> None:
    """Mean, interval, folds and quality by class; thresholds are those of the classes that were found."""
    run = run_at(tmp_path / "run", config_of(six, SHORT, iterations=30, cross_validate=2))
    estimate = run.result["cross_validation"]
    assert 2 == estimate["folds"] == len(estimate["fold_ap"])
    assert {"square", "disc"} == set(estimate["per_class"])
    assert {"threshold", "f1", "precision", "recall"} == set(estimate["per_class"]["square"])
    given = {name: of["threshold"] for name, of in estimate["per_class"].items() if of["threshold"] is not None}
    assert given == run.thresholds and 0 < run.thresholds["square"] < 1


class Stop(Exception):
    """The power went out."""


@pytest.mark.slow
def test_a_run_killed_between_folds_goes_on_there(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No finished fold is trained again, and the result is that of the unbroken run."""
    config = config_of(shapes, {**CROSS, "cross_validate": 3})
    unbroken = run_at(tmp_path / "unbroken", config)
    write = Run.write_folds

    def write_and_stop(run: Run, folds: list[dict[str, Any]]) -> None:
        write(run, folds)
        if len(folds) == 2:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Run, "write_folds", write_and_stop)
        run_at(tmp_path / "stopped", config)
    stopped = Run(tmp_path / "stopped")
    assert not stopped.finished and 2 == len(stopped.read_folds())
    trained: list[int] = []
    train = module.fit_part
    monkeypatch.setattr(module, "fit_part", lambda *a, **k: trained.append(1) or train(*a, **k))
    resume(stopped.folder)
    assert [1] == trained and not stopped.state_file.exists()
    for file in ("checkpoint", "best_checkpoint", "metrics_file", "predictions_file"):
        assert getattr(unbroken, file).read_bytes() == getattr(stopped, file).read_bytes(), file
    assert {**unbroken.result, **STAMPS} == {**stopped.result, **STAMPS}
    assert without_seconds(unbroken) == without_seconds(stopped)


STAMPS = {"run": "", "seconds": {}, "peak_memory_mb": 0, "cross_validation": None}
"""What differs from run to run."""


def without_seconds(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.result["cross_validation"].items() if key != "seconds"}


@pytest.mark.parametrize("content", ["", "[", "{}", "[1]", '[{"images": [1]}]'])
def test_folds_that_cannot_be_read_are_none(content: str, tmp_path: Path) -> None:
    """A folds.json that holds something else is as good as no file."""
    run = Run(tmp_path)
    run.folds_file.write_text(content)
    assert [] == read_folds(run)


def test_folds_that_cannot_be_read_are_trained_again(six: Path, tmp_path: Path) -> None:
    """Of the right shots, but without detections: the run is finished."""
    run, shots = Run(tmp_path), open_dataset(six).shots
    divided = [[shots.images[number].id for number in fold] for fold in make_folds(shots, 2, 0)]
    run.write_folds([{"images": ids, "results": {"1.0": [3]}, "seconds": 0} for ids in divided])
    run_at(tmp_path, config_of(six, CROSS, iterations=1))
    assert 2 == len(run.read_folds()) == run.result["cross_validation"]["folds"]


def test_a_fold_that_diverges_costs_the_estimate_alone(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is finished, with a warning and without an estimate."""

    def diverge(*arguments: object, **more: object) -> None:
        raise DivergedError("the loss is nan")

    monkeypatch.setattr(module, "fit_part", diverge)
    reporter = Listening()
    run = run_at(tmp_path / "run", config_of(six, CROSS, iterations=1), reporter=reporter)
    assert (None, {}) == (run.result["cross_validation"], run.thresholds)
    assert ["Not cross-validated, because a fold diverged: the loss is nan"] == reporter.warned


# --- few shots ---


@pytest.mark.slow
def test_a_class_with_one_shot_is_left_aside(six: Path, tmp_path: Path) -> None:
    """It is said, it has no threshold, and the other class is validated."""
    data = only(six / "train", [1, 2, 4, 6], tmp_path / "data" / "train").parent
    reporter = Listening()
    run = run_at(tmp_path / "run", config_of(data, iterations=1), reporter=reporter)
    assert "disc: 1 shot, not cross-validated; its threshold stays 0.3." in reporter.said
    estimate = run.result["cross_validation"]
    assert ({"disc": 1}, ["square"]) == (estimate["not_validated"], list(estimate["per_class"]))
    assert {"square"} >= set(run.thresholds)


@pytest.mark.slow
def test_more_folds_than_shots_leave_out_one_each(six: Path, tmp_path: Path) -> None:
    """Five by default, three shots: three folds, and that is said."""
    data = only(six / "train", [1, 2, 3], tmp_path / "data" / "train").parent
    reporter = Listening()
    run = run_at(tmp_path / "run", config_of(data, iterations=1), reporter=reporter)
    assert "Cross-validation: 3 folds instead of 5, because there are no more shots." in reporter.said
    assert [1, 1, 1] == [len(fold["images"]) for fold in run.read_folds()]


def test_a_single_shot_is_not_cross_validated(six: Path, tmp_path: Path) -> None:
    """Nor are two shots of different classes; it is said and the run is finished."""
    data = only(six / "train", [1], tmp_path / "data" / "train").parent
    reporter = Listening()
    run = run_at(tmp_path / "run", config_of(data, iterations=1), reporter=reporter)
    assert "Not cross-validated: no class has two shots to divide." in reporter.said
    assert (None, {}) == (run.result["cross_validation"], run.thresholds)


def test_shots_that_look_partly_labelled_are_named(six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sure detection beside all boxes is a warning with the image; three images are named, the others counted."""
    dataset = open_dataset(six)
    elsewhere = [
        {"image_id": image.id, "category_id": 1, "bbox": [0, 0, 3, 2], "score": 0.7} for image in dataset.train.images
    ]
    monkeypatch.setattr(
        module, "score", lambda found, split, classes: (None, [r for r in elsewhere if r["image_id"] in {i.id for i in split.images}])
    )  # fmt: skip
    reporter = Listening()
    run_at(tmp_path / "run", config_of(six, CROSS, iterations=1), reporter=reporter)
    assert (
        "looks partly labelled: a detector trained on the other shots finds 'square' (score 0.70) at (0, 0, 3, 2)"
        in reporter.warned[0]
    )
    assert (4, "3 more shots look partly labelled.") == (len(reporter.warned), reporter.warned[-1])


@pytest.mark.slow
def test_checkpoints_of_folds_are_not_kept(six: Path, tmp_path: Path) -> None:
    """A run with folds leaves the files of any run, and folds.json."""
    plain = run_at(tmp_path / "plain", config_of(six, TINY, cross_validate=0))
    crossed = run_at(tmp_path / "crossed", config_of(six, CROSS))
    names = {path.name for path in plain.folder.iterdir()}
    assert names | {"folds.json"} == {path.name for path in crossed.folder.iterdir()}
    assert load_file(plain.checkpoint).keys() == load_file(crossed.checkpoint).keys()

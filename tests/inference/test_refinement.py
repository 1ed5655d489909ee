"""Refined scores: against open_clip by hand, in the order and with the filter of `predict` and `eval`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from helpers_clip import MODEL
from helpers_runs import SIDE, TINY, argv_of, config_of, fsod
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewshot_cli.encoders.crops import crops_of
from fewshot_cli.errors import ConfigError, FsodError, UsageError
from fewshot_cli.files import write_json
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.inference.refinement import BACKGROUNDS, LEAST, Refinement, Refiner, fused, make_refinement
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.folder import Run, load_run
from fewshot_cli.selection.alpha import clearly_best
from fewshot_cli.verbs.evaluate import evaluate

CLASSES = ("square", "disc")
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
FOUND = Prediction(
    boxes=np.array([[4, 4, 30, 30], [20, 10, 52, 42], [0, 0, 12, 9], [5, 5, 5, 20]], dtype=np.float32),
    scores=np.array([0.8, 0.4, LEAST / 2, 0.3], dtype=np.float32),
    labels=np.array([0, 1, 0, 1]),
    classes=CLASSES,
    size=(60, 50),
)


def refiner_of(clip: str, **options: Any) -> Refiner:
    return Refiner(Refinement(**{"encoder": clip, "weight": 0.5, **options}), CLASSES, "cpu", SilentReporter())


@torch.no_grad()
def by_hand(clip: str, templates: list[str]) -> list[float]:
    """p of the first two detections: every prompt and crop by open_clip itself."""
    network = open_clip.create_model(MODEL, load_weights=False).eval()
    network.load_state_dict(torch.load(clip.partition("/")[2], weights_only=True)["state_dict"])
    tokenize, texts = open_clip.get_tokenizer(MODEL), []
    for name in (*CLASSES, *BACKGROUNDS):
        own = network.encode_text(tokenize([each.format(name) for each in templates]), normalize=True).mean(0)
        texts.append(own / own.norm())
    mean, deviation = (
        torch.tensor(values)[:, None, None] for values in (network.visual.image_mean, network.visual.image_std)
    )
    crops = crops_of(torch.from_numpy(PIXELS).permute(2, 0, 1), torch.from_numpy(FOUND.boxes[:2]), 32)
    images = network.encode_image((crops - mean) / deviation, normalize=True)
    shares = (network.logit_scale.exp() * images @ torch.stack(texts).T).softmax(dim=1)
    return [float(shares[i, label]) for i, label in enumerate(FOUND.labels[:2])]


@pytest.mark.parametrize("templates", [["a photo of a {}"], ["a photo of a {}", "a drawing of one {}"]])
def test_the_share_is_the_softmax_over_classes_and_background(templates: list[str], clip: str) -> None:
    shares = refiner_of(clip, template=" | ".join(templates)).shares(torch.from_numpy(PIXELS).permute(2, 0, 1), FOUND)
    assert shares[:2].tolist() == pytest.approx(by_hand(clip, templates), abs=1e-5)
    assert [0.0, 0.0] == shares[2:].tolist()  # a low score, and a box without an area


def test_detections_are_ordered_by_the_refined_score(clip: str) -> None:
    """The boxes and labels of each stay together."""
    refined = refiner_of(clip, weight=0.9)(FOUND, PIXELS)
    expected = [
        0.1 * s + 0.9 * p for s, p in zip(FOUND.scores, [*by_hand(clip, ["a photo of a {}"]), 0, 0], strict=True)
    ]
    order = sorted(range(4), key=lambda i: -expected[i])
    assert refined.scores.tolist() == pytest.approx([expected[i] for i in order], abs=1e-5)
    assert np.array_equal(FOUND.boxes[order], refined.boxes) and np.array_equal(FOUND.labels[order], refined.labels)
    nothing = FOUND.take(np.array([], dtype=np.int64))
    assert 0 == len(refiner_of(clip)(nothing, PIXELS))


def test_a_weight_of_zero_leaves_every_bit_and_loads_nothing() -> None:
    refined = refiner_of("clip:nowhere", weight=0.0)(FOUND, PIXELS)
    assert np.array_equal(np.sort(FOUND.scores)[::-1], refined.scores)


@given(
    arrays(np.float32, 5, elements=st.floats(0, 1, width=32)),
    arrays(np.float32, 5, elements=st.floats(0, 1, width=32)),
    st.floats(0, 1),
)
def test_refined_scores_lie_between_both(scores: Any, shares: Any, weight: float) -> None:
    found = fused(scores, shares, weight)
    assert (found >= np.minimum(scores, shares) - 1e-6).all() and (found <= np.maximum(scores, shares) + 1e-6).all()


# --- what options ask for ---


def stored_in(trained: Run, folder: Path, **chosen: Any) -> Run:
    """The run again, as if it had chosen a weight."""
    run = Run(folder)
    folder.mkdir()
    for file in trained.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    refine = {"template": "one {}", "weights": {"0": 0.1, "0.3": 0.2}, "thresholds": {"square": 0.42}, "seconds": 0.1}
    write_json(run.result_file, {**trained.read_result(), "refine": {**refine, **chosen}})
    return run


def test_a_run_brings_the_weight_that_it_chose(trained: Run, clip: str, tmp_path: Path) -> None:
    """So does a checkpoint in its folder; a weight that is given has no thresholds of the run."""
    run = stored_in(trained, tmp_path / "run", encoder=clip, weight=0.3)
    chosen = Refinement(encoder=clip, template="one {}", weight=0.3, thresholds={"square": 0.42})
    assert chosen == make_refinement(run, "clip", None, None)
    assert chosen == make_refinement(run.checkpoint, "clip", None, "auto")
    assert chosen == make_refinement(run, clip, "one {}", 0.3)
    assert replace(chosen, weight=0.6, thresholds={}) == make_refinement(run, "clip", None, "0.6")
    assert make_refinement(run, None, None, None) is None


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ((None, None, "0.5"), UsageError, "go with --refine"),
        (("clap", None, "0.5"), UsageError, "Valid: clip"),
        (("backbone:mobilenet_v2", None, "0.5"), UsageError, "Valid: clip"),
        (("clip", None, "1.2"), UsageError, "weight of 1.2 is not possible"),
        (("clip", None, "nan"), UsageError, "weight of nan is not possible"),
        (("clip", None, "some"), UsageError, "weight of some is not possible"),
        (("clip", "a photo", "0.5"), UsageError, "in place of the class"),
        (("clip", "another {}", None), ConfigError, "chose its weight with"),
        (("clip:ViT-B-16/openai", None, None), ConfigError, "chose its weight with"),
    ],
)
def test_what_cannot_be_refined(
    options: Any, kind: type[FsodError], message: str, trained: Run, clip: str, tmp_path: Path
) -> None:
    run = stored_in(trained, tmp_path / "run", encoder=clip, weight=0.3)
    with pytest.raises(kind, match=message) as caught:
        make_refinement(run, *options)
    assert caught.value.hint


def test_without_a_weight_it_is_said_where_one_comes_from(trained: Run, shapes: Path) -> None:
    for call in (("predict", trained.folder, shapes / "test" / "images"), ("eval", trained.folder)):
        found = fsod(*call, "--refine", "clip")
        assert 4 == found.exit_code and "has no weight of --refine" in found.stderr
        assert "fine-tune with --refine" in found.stderr and "Traceback" not in found.stderr
    with pytest.raises(ConfigError, match="a pretrained detector has no weight"):
        make_refinement(None, "clip", None, None)


# --- commands ---


def test_predict_and_eval_refine_alike(
    trained: Run, shapes: Path, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both give the scores that the refiner gives for the detections in each image, and record how."""
    monkeypatch.chdir(tmp_path)
    options = ("--refine", clip, "--refine-weight", 0.7, "--threads", 1)
    plain = evaluate(trained, threads=1)
    answer = json.loads(fsod("eval", trained.folder, *options, "--predictions", "refined.json", "--json").stdout)
    assert {"encoder": clip, "template": "a photo of a {}", "weight": 0.7} == answer["refine"]
    refined = json.loads(Path("refined.json").read_text())
    assert sorted(map(place_of, plain.results)) == sorted(map(place_of, refined))
    refiner = refiner_of(clip, weight=0.7)
    for image in plain.split.images:
        own = [each for each in plain.results if each["image_id"] == image.id]
        boxes = np.array([each["bbox"] for each in own], dtype=np.float32)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([plain.split.category_ids.index(each["category_id"]) for each in own])
        scores = np.array([each["score"] for each in own], dtype=np.float32)
        found = Prediction(boxes=boxes, scores=scores, labels=labels, classes=CLASSES, size=(SIDE, SIDE))
        expected = refiner.in_file(found, image.path).scores.tolist()
        own = sorted((each["score"] for each in refined if each["image_id"] == image.id), reverse=True)
        assert own == pytest.approx(expected, abs=2e-3)  # boxes in files are rounded

    done = fsod("predict", trained.folder, shapes / "test" / "images", *options, "--threshold", 0, "--out", "found")
    assert 0 == done.exit_code, done.stderr
    assert answer["refine"] == json.loads(Path("found/predict.json").read_text())["refine"]
    lines = [json.loads(line) for line in Path("found/detections.jsonl").read_text().splitlines()]
    best = max(each["score"] for each in refined if each["image_id"] == plain.split.images[0].id)
    assert best == pytest.approx(max(found["score"] for found in lines[0]["detections"]), abs=1e-4)


def place_of(result: dict[str, Any]) -> tuple[Any, ...]:
    return result["image_id"], result["category_id"], *result["bbox"]


def test_predict_counts_by_the_refined_thresholds(trained: Run, shapes: Path, clip: str, tmp_path: Path) -> None:
    run = stored_in(trained, tmp_path / "run", encoder=clip, weight=0.3)
    predictor = load_run(run.folder).predictor(refine="clip")
    assert {"square": 0.42, "disc": 0.3} == predictor.keep.by_class(predictor.classes)
    image = shapes / "test" / "images" / "0001.png"
    assert (predictor(image).scores >= 0.3).all()


def test_a_fine_tune_chooses_the_weight_on_left_out_shots(shapes: Path, clip: str, tmp_path: Path) -> None:
    """Every weight is scored, the choice follows from the scores, and `predict --refine clip` takes it."""
    call = argv_of(shapes, {**TINY, "iterations": 12, "eval_every": 0, "lr": 0.02}, refine=clip, cross_validate=2)
    done = fsod(*call, "--runs", tmp_path, "--name", "run", "--no-report")
    assert 0 == done.exit_code, done.stderr
    run = Run(tmp_path / "run")
    refine = run.result["refine"]
    assert (clip.replace("//", "/"), "a photo of a {}") == (refine["encoder"].replace("//", "/"), refine["template"])
    assert [f"{tenths / 10:g}" for tenths in range(11)] == list(refine["weights"])
    assert refine["weights"]["0"] == pytest.approx(run.result["cross_validation"]["averages"]["1"])
    assert refine["weight"] in {
        0.0,
        *(float(w) for w, own in refine["weights"].items() if own > refine["weights"]["0"]),
    }
    if not refine["weight"]:
        assert run.result["thresholds"] == pytest.approx(refine["thresholds"])
    made = make_refinement(run, "clip", None, None)
    assert made is not None and (refine["weight"], refine["encoder"]) == (made.weight, made.encoder)


def test_a_weight_is_chosen_where_the_shots_are_clear() -> None:
    assert 0.4 == clearly_best(0.0, {0.0: [0.1, 0.2, 0.1, 0.3], 0.4: [0.4, 0.5, 0.5, 0.6], 1.0: [0.0] * 4})
    assert 0.0 == clearly_best(0.0, {0.0: [0.1, 0.2, 0.1, 0.3], 0.4: [0.1, 0.2, 0.1, 0.9]})


def test_weights_that_do_not_load_are_reported_before_the_folds(shapes: Path, tmp_path: Path) -> None:
    found = fsod(*argv_of(shapes), "--refine", "clip:nowhere.pt", "--runs", tmp_path / "runs", "--no-report")
    assert 5 == found.exit_code and "neither a file nor a tag" in found.stderr
    assert not (tmp_path / "runs").exists()


def test_refine_without_left_out_shots_is_refused(shapes: Path) -> None:
    with pytest.raises(ConfigError, match="--refine with --cross-validate 0"):
        config_of(shapes, refine="clip", cross_validate=0)
    with pytest.raises(ConfigError, match="in place of the class"):
        config_of(shapes, refine="clip", refine_template="a photo of a {} and a {}")

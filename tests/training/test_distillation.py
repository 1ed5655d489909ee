"""Distillation from a teacher: what is drawn where, what is cached, and what is left of it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_runs import SIDE, TINY, Listening, argv_of, config_of, fine_tune, fsod, metrics_of
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Detector, Target
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.encoders import open_encoder
from fewshot_cli.errors import ConfigError, ModelError
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.folder import Run
from fewshot_cli.training import features as features_module
from fewshot_cli.training.distillation import DISTANCES, Distillation, Projections, objective_of
from fewshot_cli.training.features import Features, FeatureStore, cache_features
from fewshot_cli.training.finetune import finetune
from fewshot_cli.training.objectives import DetectorLosses
from fewshot_cli.training.prepare import Prepared, prepare
from fewshot_cli.training.variants import Examples

CPU, SILENT = torch.device("cpu"), SilentReporter()
FASTER = "fasterrcnn_mobilenet_v3_large_fpn"
TARGETS = [
    Target(torch.tensor([[4.0, 6.0, 20.0, 30.0], [10.0, 8.0, 62.0, 60.0]]), torch.tensor([0, 1])),
    Target(torch.empty(0, 4), torch.empty(0, dtype=torch.int64)),
    Target(torch.tensor([[30.0, 30.0, 50.0, 44.0]]), torch.tensor([1])),
]
OBJECTS = 3
_write_state = Run.write_state


@lru_cache
def detector_of(name: str) -> Detector:
    detector = build_detector(name, weights="none", image_size=SIDE)
    detector.replace_classes(["square", "disc"], [(), ()])
    return detector


def noise(detector: Detector) -> tuple[Tensor, ...]:
    images = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return batch_of([detector.make_canvas(image) for image in images])


# --- the loss ---


@pytest.mark.parametrize("distance", [*DISTANCES])
def test_the_loss_is_the_mean_distance_from_the_embeddings(distance: str) -> None:
    """Computed object by object from the features, times the weight, beside the detector's own losses."""
    detector = detector_of("yolox_nano")
    chosen = torch.Generator().manual_seed(2)
    embeddings = F.normalize(torch.randn(OBJECTS, 6, generator=chosen))
    targets = [TARGETS[i]._replace(embeddings=part) for i, part in enumerate(embeddings.split([2, 0, 1]))]
    _, objects = detector.losses_and_objects(noise(detector), 0, targets)
    projections = Projections(objects, 6)
    (linear,) = projections.linear.values()
    expected = []
    for found in objects:
        for row, value in zip(found.rows.tolist(), found.values, strict=True):
            projected, wanted = linear.weight @ value + linear.bias, embeddings[row]
            cosine = projected @ wanted / projected.norm() / wanted.norm()
            expected.append(1 - cosine if distance == "cosine" else sum((projected - wanted) ** 2))
    objective = Distillation(detector, 0, projections, DISTANCES[distance], 0.5)
    losses = objective.losses(noise(detector), targets)
    assert losses["distil"].item() == pytest.approx(0.5 * torch.stack(expected).mean().item(), rel=1e-5)
    assert {*DetectorLosses(detector, 0).losses(noise(detector), targets), "distil"} == {*losses}


def test_a_batch_without_objects_has_no_distance() -> None:
    detector = detector_of("yolox_nano")
    targets = [TARGETS[1]._replace(embeddings=torch.empty(0, 6))] * 3
    _, objects = detector.losses_and_objects(noise(detector), 0, targets)
    objective = Distillation(detector, 0, Projections(objects, 6), DISTANCES["cosine"], 1.0)
    loss = objective.losses(noise(detector), targets)["distil"]
    loss.backward()
    assert 0 == loss.item()
    assert all(0 == float(p.grad.abs().sum()) for p in objective.parameters().values() if p.grad is not None)


def test_maps_of_several_widths_have_a_projection_each() -> None:
    _, objects = detector_of("ssdlite320_mobilenet_v3_large").losses_and_objects(
        noise(detector_of("ssdlite320_mobilenet_v3_large")), 0, TARGETS
    )
    projections = Projections(objects, 6)
    assert {str(found.values.shape[1]) for found in objects} == set(projections.linear) and len(projections.linear) > 1


# --- what is cached ---


def featured(data: Path, folder: Path, **options: Any) -> tuple[Prepared, Features]:
    config = config_of(data, **options)
    prepared = prepare(config, open_dataset(data), SILENT)
    store = FeatureStore()
    return prepared, cache_features(prepared, config, open_dataset(data), folder=folder, store=store, reporter=SILENT)


def test_embeddings_are_those_of_the_crops_of_each_variant(shapes: Path, clip: str, tmp_path: Path) -> None:
    """Of the pixels of the canvas of the same variant, to the bit, whether cached or not."""
    data, encoder, made = open_dataset(shapes), open_encoder(clip, CPU, SILENT), config_of(shapes).augmentation
    prepared, features = featured(shapes, tmp_path, distil=clip)
    _, uncached = featured(shapes, tmp_path, distil=clip, cache_memory=0.0, cache_disk=0.0)
    examples = Examples(prepared.detector, data.train.images, copies=prepared.copies, augmentation=made)
    items = range(len(features.train))
    found, again = (each.batch(items, CPU)[1] for each in (features, uncached))
    for item in items:
        pixels, example = examples.load(item)
        height, width = example.canvas.valid
        expected = encoder.embed(pixels[:, :height, :width], example.target.boxes)
        assert len(expected) and torch.equal(expected, found[item].embeddings)  # type: ignore[arg-type]
        assert torch.equal(expected, again[item].embeddings)  # type: ignore[arg-type]


def test_embeddings_are_computed_once_for_each_variant(
    shapes: Path, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For another fine-tune with the same teacher not again, without one not at all, with another one anew."""
    opened: list[str] = []
    monkeypatch.setattr(
        features_module, "open_encoder", lambda text, *rest: opened.append(text) or open_encoder(text, *rest)
    )
    store = FeatureStore()
    for distil in (clip, clip, None, clip.replace("clip.pt", "./clip.pt")):
        config = config_of(shapes, distil=distil)
        prepared = prepare(config, open_dataset(shapes), SILENT)
        cache_features(prepared, config, open_dataset(shapes), folder=tmp_path, store=store, reporter=SILENT)
    assert [clip, clip.replace("clip.pt", "./clip.pt")] == opened


def test_without_a_layer_to_teach_nothing_is_embedded(shapes: Path, clip: str, tmp_path: Path) -> None:
    """The predictor alone trains: a warning, the detector's own losses, and the same bits as without a teacher."""
    prepared, features = featured(shapes, tmp_path, distil=clip, policy="last", budget=1)
    assert features.batch([0], CPU)[1][0].embeddings is None
    assert isinstance(objective_of(prepared, features, config_of(shapes, distil=clip)), DetectorLosses)
    last = {**TINY, "policy": "last", "budget": 1, "iterations": 2, "eval_every": 0}
    plain = fine_tune(tmp_path / "plain", config_of(shapes, last))
    reporter, taught = Listening(), Run(tmp_path / "taught")
    taught.folder.mkdir()
    finetune(config_of(shapes, last, distil=clip), taught, reporter)
    assert plain.checkpoint.read_bytes() == taught.checkpoint.read_bytes()
    assert ["--distil changes nothing: no layer before the predictor trains."] == reporter.warned


# --- runs ---


def test_a_run_with_a_teacher_leaves_a_checkpoint_without_the_projection(
    shapes: Path, clip: str, tmp_path: Path
) -> None:
    """The same tensors as without a teacher, other values; the loss `distil` is recorded and goes down."""
    options = {"iterations": 40, "eval_every": 10, "lr": 0.01}
    plain = fine_tune(tmp_path / "plain", config_of(shapes, **options))
    taught = fine_tune(tmp_path / "taught", config_of(shapes, distil=clip, **options))
    first, second = load_file(plain.checkpoint), load_file(taught.checkpoint)
    assert first.keys() == second.keys() and not all(torch.equal(first[name], second[name]) for name in first)
    distances = [record["losses"]["distil"] for record in metrics_of(taught)]
    assert distances[-1] < 0.8 * distances[0]
    assert all("distil" not in record["losses"] for record in metrics_of(plain))


@pytest.mark.parametrize(
    "name", ["retinanet_mini", "ssdlite320_mobilenet_v3_large", pytest.param(FASTER, marks=pytest.mark.slow)]
)
def test_every_kind_of_detector_can_be_taught(name: str, shapes: Path, clip: str, tmp_path: Path) -> None:
    """With features cached in front of the head, or behind the pooling of regions; cached equals uncached."""
    options: dict[str, Any] = {"detector": name, "iterations": 2, "eval_every": 1, "policy": "last", "budget": 2}
    options |= {"train_neck": name.startswith("ssd"), "budget": 1 if name.startswith("ssd") else 2}
    options |= {"distil": clip, "precision": "fp32", "copies": 1, "batch_size": 2}
    cached = fine_tune(tmp_path / "cached", config_of(shapes, **options))
    assert metrics_of(cached)[-1]["losses"]["distil"] > 0
    uncached = fine_tune(tmp_path / "uncached", config_of(shapes, **options, cache_memory=0.0, cache_disk=0.0))
    assert metrics_of(cached) == metrics_of(uncached)
    assert cached.checkpoint.read_bytes() == uncached.checkpoint.read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("sgd", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_its_projection(optimizer: str, shapes: Path, clip: str, tmp_path: Path) -> None:
    """The projection and its moments are in the saved state: the same checkpoint and metrics, bit for bit."""
    config = config_of(shapes, iterations=8, eval_every=2, distil=clip, distil_loss="l2", optimizer=optimizer)
    unbroken = fine_tune(tmp_path / "unbroken", config)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "write_state", _write_and_stop)
        fine_tune(tmp_path / "stopped", config)
    stopped = Run(tmp_path / "stopped")
    state = stopped.read_state()
    assert state is not None and {"linear.64.weight", "linear.64.bias"} == state["objective"].keys()
    finetune(config, stopped)
    for file in ("metrics_file", "checkpoint", "best_checkpoint"):
        assert getattr(unbroken, file).read_bytes() == getattr(stopped, file).read_bytes(), file


def _write_and_stop(run: Run, state: dict[str, Any]) -> None:
    _write_state(run, state)
    if state["iteration"] == 4:
        raise KeyboardInterrupt


def test_a_state_of_another_objective_is_refused(shapes: Path, clip: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "write_state", _write_and_stop)
        fine_tune(tmp_path / "stopped", config_of(shapes, iterations=8, eval_every=2, distil=clip))
    with pytest.raises(ModelError, match="the objective was another"):
        finetune(config_of(shapes, iterations=8, eval_every=2), Run(tmp_path / "stopped"))


@pytest.mark.slow
def test_folds_and_the_choice_of_the_policy_are_taught_too(shapes: Path, clip: str, tmp_path: Path) -> None:
    """Policy auto with cross-validation, by the command line, with the teacher's path relative to the folder."""
    call = argv_of(shapes, {**TINY, "policy": "auto", "budget": 2, "iterations": 4, "eval_every": 0}, distil=clip)
    done = fsod(*call, "--cross-validate", 2, "--runs", tmp_path, "--name", "run", "--no-report")
    assert 0 == done.exit_code, done.stderr
    result = Run(tmp_path / "run").result
    assert result["cross_validation"] and result["search"]


# --- the command line ---


def test_bad_teachers_are_refused_before_anything_is_loaded(shapes: Path, clip: str, tmp_path: Path) -> None:
    """An unknown teacher, a missing file, and a wrong weight: exit code and hint, and no run is left."""
    cases = {
        ("clap",): (4, "Valid: clip, backbone:mobilenet_v2"),
        ("clip:nowhere.pt",): (5, "neither a file nor a tag"),
        (clip, "--distil-weight", "0"): (4, "distil_weight"),
        (clip, "--distil-loss", "l3"): (4, "Valid: cosine, l2"),
    }
    for words, (code, said) in cases.items():
        found = fsod(*argv_of(shapes), "--distil", *words, "--runs", tmp_path / "runs", "--no-report")
        assert code == found.exit_code and said in found.stderr, (found.exit_code, found.stderr)
        assert "Traceback" not in found.stderr and not (tmp_path / "runs").exists()


def test_a_missing_package_is_named(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_cli.encoders.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="open_clip"):
        from fewshot_cli import finetune as start

        start(shapes, **TINY, distil="clip")

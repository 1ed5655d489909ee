"""`export`: one file that computes what the run computes, or an error and no file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers_examples import EXAMPLES, run_example
from helpers_runs import LEARNING, REPOSITORY, SIDE, TINY, argv_of, config_of, fine_tune, fsod
from safetensors import safe_open
from torch import Tensor

from fewshot_cli import export
from fewshot_cli.datasets.images import open_image
from fewshot_cli.detectors import retinanet
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Activations, Detector
from fewshot_cli.detectors.exported import describe, read_info, to_bytes
from fewshot_cli.detectors.registry import DETECTORS, build_detector
from fewshot_cli.detectors.suppression import Candidates
from fewshot_cli.detectors.yolox import Yolox
from fewshot_cli.errors import CheckpointError, ConfigError, ModelError, UsageError
from fewshot_cli.inference import onnx_check, onnx_graph
from fewshot_cli.inference.onnx_check import check
from fewshot_cli.inference.onnx_graph import build_graph
from fewshot_cli.inference.onnx_model import OnnxModel
from fewshot_cli.inference.opening import open_model
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.folder import Run
from fewshot_cli.verbs.evaluate import evaluate
from fewshot_cli.verbs.export import Export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SMALL = ("yolox_nano", "retinanet_mini", "ssd_mobilenet_v2_fpnlite")
EVERY = [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in DETECTORS]
TWO_STAGE = [name for name in DETECTORS if name.startswith("fasterrcnn")]
FAST = {("yolox_nano", True), ("retinanet_mini", True)}
"""Detectors, with suppression or without, that are exported in the fast suite: each takes seconds."""


@pytest.fixture(scope="module")
def run(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the run that has learnt something, with a threshold."""
    copy = Run(Path(shutil.copytree(trained.folder, tmp_path_factory.mktemp("runs") / "run")))
    copy.write_result({**copy.read_result(), "thresholds": {"square": 0.06}})
    return copy


@pytest.fixture(scope="module")
def graphs() -> list[Any]:
    """The graph of `written`, once it is written, as it was compared."""
    return []


@pytest.fixture(scope="module")
def written(run: Run, graphs: list[Any]) -> Export:
    """The run as an ONNX file."""

    def build_and_keep(*arguments: Any, **options: Any) -> Any:
        graphs.append(build_graph(*arguments, **options))
        return deepcopy(graphs[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "build_graph", build_and_keep)
        return export(run, threads=1)


@pytest.fixture
def built_before(written: Export, graphs: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting the run takes the graph that was built for `written`, which saves seconds."""
    monkeypatch.setattr(onnx_graph, "build_graph", lambda *_, **__: deepcopy(graphs[0]))


@pytest.fixture(scope="module")
def weights(run: Run) -> Path:
    """The run as a weights file."""
    return export(run, format="weights", threads=1).path


def random(name: str) -> Detector:
    """On a canvas as small as it can be."""
    return build_detector(name, weights="none", image_size=max(SIDE, DETECTORS[name].smallest))


def lively(detector: Detector) -> Detector:
    """Random predictors whose scores reach the floor, but not 0.05: untrained features are all alike, full of ties."""
    for name, module in detector.network.named_modules():
        if isinstance(module, torch.nn.Conv2d) and name.rpartition(".")[0].endswith(("cls_preds", "obj_preds")):
            torch.nn.init.normal_(module.weight, std=0.5)
            torch.nn.init.constant_(cast(Tensor, module.bias), -2.0)
    detector.hold_statistics()
    return detector


def noise(detector: Detector, count: int = 2) -> Activations:
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8)
    return batch_of([detector.make_canvas(image) for image in images])


# --- ONNX ---


@pytest.mark.parametrize(
    ("name", "nms"),
    [
        pytest.param(name, nms, marks=() if (name, nms) in FAST else pytest.mark.slow)
        for name in DETECTORS
        for nms in (True, False)
        if name not in TWO_STAGE
    ],
)
def test_every_one_stage_detector_can_be_exported(name: str, nms: bool) -> None:
    """With any number of classes, with suppression and without, candidates differ by rounding alone."""
    detector = random(name)
    classes = 1 if name == "yolox_nano" else 3
    detector.replace_classes([f"class {i}" for i in range(classes)], [()] * classes)
    lively(detector)
    canvases = [detector.make_canvas(torch.randint(0, 256, (3, 50, SIDE), dtype=torch.uint8)) for _ in range(3)]
    model = build_graph(detector, {}, nms=nms, opset=17)
    onnx.checker.check_model(model, full_check=True)
    agreement = check(detector, model, canvases, nms=nms)
    assert 3 == agreement.images
    assert agreement.boxes > 0
    assert agreement.box < 0.01 and agreement.score < 1e-4


def test_a_two_stage_detector_is_not_exported_as_onnx() -> None:
    """The number of its candidates is not fixed; the error says which file can be made instead."""
    with pytest.raises(ModelError, match="fasterrcnn_mobilenet_v3_large_fpn cannot be written as ONNX") as caught:
        build_graph(random(TWO_STAGE[-1]), {}, nms=True, opset=17)
    assert "--format weights" in (caught.value.hint or "") and 5 == caught.value.exit_code


def test_a_run_is_compared_on_its_shots(run: Run, written: Export) -> None:
    """The file lies in the run's folder; differences are far below what is allowed, and are returned."""
    assert run.folder / "model.onnx" == written.path
    assert written.path.stat().st_size == written.size
    assert ("shots", 4) == (written.compared["on"], written.compared["images"])
    assert written.compared["detections"] > 0
    assert 0 < written.compared["box"] < 0.05 and 0 < written.compared["score"] < 1e-3


def test_metadata_inputs_and_outputs(written: Export) -> None:
    """One JSON in the metadata says what a program needs, and the graph has the documented types, of any batch."""
    model = onnx.load(written.path)
    described = json.loads({entry.key: entry.value for entry in model.metadata_props}["fsod"])
    assert ["square", "disc"] == described["classes"]
    assert {"place": "top-left", "filter": "bilinear", "antialias": True, "pad": [114, 114, 114]} == described["resize"]
    assert ("yolox_nano", SIDE, {"square": 0.06}) == (
        described["detector"],
        described["image_size"],
        described["thresholds"],
    )
    assert [{"min_score": 0.001, "candidates": 1000, "iou": 0.65, "detections": 100}] == described["nms"]
    assert {"images": ["batch", 3, SIDE, SIDE]} == written.inputs
    assert {
        "boxes": ["detections", 4],
        "scores": ["detections"],
        "labels": ["detections"],
        "image_index": ["detections"],
    } == written.outputs
    assert onnx.TensorProto.UINT8 == model.graph.input[0].type.tensor_type.elem_type
    assert {17} == {opset.version for opset in model.opset_import if not opset.domain}
    assert {"square": 0.06} == OnnxModel(written.path).thresholds


@pytest.mark.slow
def test_without_suppression_all_boxes_are_outputs(run: Run, tmp_path: Path) -> None:
    """--no-nms: boxes (B, A, 4) and scores (B, A, K) are the detector's candidates, at any opset."""
    written = export(run, tmp_path / "raw.onnx", nms=False, opset=20, threads=1)
    cells = (SIDE // 8) ** 2 + (SIDE // 16) ** 2 + (SIDE // 32) ** 2
    assert {"boxes": ["batch", cells, 4], "scores": ["batch", cells, 2]} == written.outputs
    assert 20 == written.opset
    import onnxruntime

    detector, _ = restore(run.checkpoint)
    pixels, valid = noise(detector, 3)
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    boxes, scores = session.run(None, {"images": pixels.numpy()})
    with torch.no_grad():
        (wanted,) = detector.candidates(detector.run((pixels, valid), 0))
    np.testing.assert_allclose(boxes, wanted.boxes, atol=0.01)
    np.testing.assert_allclose(scores, wanted.scores, atol=1e-4)


class TwoHeads(Yolox):
    """The same outputs read by two heads: the first does not know class 1, the second gives it label 0."""

    def candidates(self, outputs: Activations) -> tuple[Candidates, ...]:
        (head,) = super().candidates(outputs)
        return (
            head._replace(labels=torch.tensor([1, -1, 2])),
            head._replace(scores=head.scores[..., 1:2] ** 0.5, labels=torch.tensor([0])),
        )


@pytest.mark.parametrize("nms", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_heads_beside_each_other_are_exported(nms: bool) -> None:
    """Each head is suppressed alone, its columns get the detector's labels, and classes left out are left out."""
    detector = lively(TwoHeads("yolox_nano", ["a", "b", "c"], SIDE))
    canvases = [detector.make_canvas(torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)) for _ in range(3)]
    agreement = check(detector, build_graph(detector, {}, nms=nms, opset=17), canvases, nms=nms)
    assert agreement.boxes > 0
    with torch.no_grad():
        found = detector.decode(detector.run(batch_of(canvases), 0))
    assert {0, 1, 2} == {label for image in found for label in image.labels.tolist()}


def test_shots_that_are_gone_are_replaced_by_noise(run: Run, built_before: None, tmp_path: Path) -> None:
    """The file is compared all the same, and the result says on what."""
    moved = Run(Path(shutil.copytree(run.folder, tmp_path / "moved")))
    config = json.loads(moved.config_file.read_text("utf-8"))
    config["options"]["data"] = str(tmp_path / "gone")
    moved.config_file.write_text(json.dumps(config), "utf-8")
    assert ("images of noise", 4) == tuple(export(moved, threads=1).compared[key] for key in ("on", "images"))


# --- what is not the same is not written ---


@pytest.fixture(scope="module")
def drawn() -> tuple[Detector, list[Any]]:
    """A detector that finds much in noise, and the noise."""
    detector = build_detector("retinanet_mini", image_size=SIDE)
    return detector, [detector.make_canvas(torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)) for _ in range(2)]


@pytest.mark.slow
@torch.no_grad()
def test_another_network_is_found(drawn: tuple[Detector, list[Any]]) -> None:
    """A graph of other weights than the detector's is an error that names the differences."""
    detector, canvases = drawn
    model = build_graph(detector, {}, nms=True, opset=17)
    other = deepcopy(detector)
    other.layers = other.make_layers()
    other.network.get_submodule("head.regression_head.bbox_reg").get_parameter("bias")[:2] += 0.1
    check(detector, model, canvases, nms=True)
    with pytest.raises(ModelError, match="does not compute what PyTorch computes: boxes by up to"):
        check(other, model, canvases, nms=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"iou": 0.99}, "is only in"), pytest.param({"min_score": 0.5}, "is missing from", marks=pytest.mark.slow)],
)
def test_another_suppression_is_found(
    change: dict[str, float], message: str, drawn: tuple[Detector, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detections that PyTorch suppresses, or keeps, are missed one by one."""
    detector, canvases = drawn
    with monkeypatch.context() as other:
        other.setattr(retinanet, "SUPPRESSION", replace(retinanet.SUPPRESSION, **change))
        model = build_graph(detector, {}, nms=True, opset=17)
    with pytest.raises(ModelError, match=message):
        check(detector, model, canvases, nms=True)


def test_a_difference_leaves_no_file(
    run: Run, built_before: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the limit it is an error, and neither the file nor a part of it is left."""
    monkeypatch.setattr(onnx_check, "LARGEST_SCORE", -1.0)
    with pytest.raises(ModelError, match="Nothing was written"):
        export(run, tmp_path / "out" / "model.onnx", threads=1)
    assert not (tmp_path / "out").exists()


# --- weights ---


@pytest.mark.slow
def test_a_weights_file_needs_no_base(shapes: Path, base_weights: Path, tmp_path: Path) -> None:
    """With the base gone the run cannot be opened, which is said; its weights file detects the same to the last bit."""
    base = Path(shutil.copy(base_weights, tmp_path / "base.pth"))
    run = fine_tune(tmp_path / "run", config_of(shapes, {**LEARNING, "iterations": 4, "weights": str(base)}))
    wanted = evaluate(run, device="cpu", threads=1)
    written = export(run, format="weights", threads=1)
    base.unlink()
    with pytest.raises(CheckpointError, match=f"the base weights of .* are not at {base} any more") as caught:
        evaluate(run, device="cpu", threads=1)
    assert "--weights" in (caught.value.hint or "")
    assert run.folder / "model.safetensors" == written.path
    found = evaluate(data=shapes, detector="yolox_nano", weights=str(written.path), device="cpu", threads=1)
    assert wanted.results == found.results
    assert SIDE == build_detector("yolox_nano", weights=written.path).image_size


@pytest.mark.parametrize("name", EVERY)
def test_a_weights_file_builds_every_detector_again(name: str, tmp_path: Path) -> None:
    """Classes and outputs are the same, the epsilon of the norms too, which is no tensor."""
    detector = random(name)
    detector.replace_classes(["a", "b"], [(), ()])
    for norm in [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]:
        norm.eps = 0.125
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(detector, describe(detector, {"a": 0.5})))
    again = build_detector(name, weights=path)
    assert (("a", "b"), detector.image_size, True) == (again.classes, again.image_size, again.pretrained)
    assert equal(detector, again)
    assert not equal(detector, random(name))


def equal(first: Detector, second: Detector) -> bool:
    batch = noise(first)
    with torch.no_grad():
        outputs: Sequence[tuple[Tensor, Tensor]] = list(zip(first.run(batch, 0), second.run(batch, 0), strict=True))
    return all(torch.equal(*pair) for pair in outputs)


def test_a_weights_file_says_what_it_is(run: Run, weights: Path, tmp_path: Path) -> None:
    """Detector, classes, size and thresholds stand in the metadata, which is read without the tensors."""
    info = read_info(weights)
    assert info is not None
    assert ("yolox_nano", ("square", "disc"), SIDE) == (info.detector, info.classes, info.image_size)
    again = export(weights, tmp_path / "again.onnx", threads=1)
    assert {"square": 0.06} == info.thresholds == again.thresholds == OnnxModel(again.path).thresholds
    assert None is read_info(run.checkpoint)


def test_a_fine_tune_starts_from_a_weights_file(run: Run, weights: Path, shapes: Path, tmp_path: Path) -> None:
    """Its detector, size and classes are taken; with nothing trained it detects at once what the run detects."""
    options = {key: value for key, value in TINY.items() if key not in ("budget", "image_size")}
    options = {**options, "weights": str(weights), "policy": "none"}
    done = fsod(*argv_of(shapes, options), "--runs", tmp_path / "runs", "--no-report", "--json")
    assert 0 == done.exit_code, done.output
    result = json.loads(done.stdout)
    assert "yolox_nano" == result["detector"]
    assert run.read_result()["ap"] == pytest.approx(result["ap"], abs=1e-6)
    assert result["ap"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detector": "yolox_tiny"}, "is a yolox_tiny, not a yolox_nano"),
        ({"schema": 9}, "has schema 9, and this version of fsod reads 1"),
        ({"classes": ["one"]}, "weights do not fit"),
        ({"norm_eps": "small"}, "is damaged: norm_eps: input should be a valid number"),
        ({"image_size": 7}, "image_size is 7: give a multiple of 32"),
    ],
)
def test_a_changed_weights_file_is_refused(change: dict[str, Any], message: str, weights: Path, tmp_path: Path) -> None:
    """A description that does not fit the tensors ends in one error."""
    from safetensors.torch import load_file, save_file

    with safe_open(weights, framework="np") as file:
        document = json.loads(file.metadata()["fsod-detector"])
    del document["sha256"]
    other = tmp_path / "other.safetensors"
    save_file(load_file(weights), other, {"fsod-detector": json.dumps({**document, **change})})
    with pytest.raises((CheckpointError, ConfigError), match=message):
        build_detector("yolox_nano", weights=other)


# --- options and messages ---


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"format": "onyx"}, UsageError, "unknown format 'onyx'"),
        ({"format": "weights", "nms": False}, UsageError, "--no-nms goes with --format onnx"),
        ({"opset": 11}, ConfigError, "opset is 11: give a number that is at least 17"),
        ({"image_size": 64}, UsageError, "--image-size goes with --detector"),
        ({"detector": "yolox_nano"}, UsageError, "--detector names a detector without a run"),
        ({"out": "model.pt"}, UsageError, "--out model.pt does not end in .onnx"),
    ],
)
def test_options_that_do_not_go_together(
    options: dict[str, Any], error: type[Exception], message: str, trained: Run
) -> None:
    """Each is told before anything is written."""
    with pytest.raises(error, match=message):
        export(trained, threads=1, **options)


def test_what_is_exported_is_not_overwritten(run: Run, weights: Path) -> None:
    """Neither a run's checkpoint nor a weights file is the file to write."""
    with pytest.raises(UsageError, match="is what would be exported"):
        export(run, run.checkpoint, format="weights", threads=1)
    with pytest.raises(UsageError, match="is what would be exported"):
        export(weights, format="weights", threads=1)


def test_a_checkpoint_keeps_the_thresholds_of_its_run(run: Run, tmp_path: Path) -> None:
    """Named by its file instead of its folder, it is the same detector."""
    assert {"square": 0.06} == export(
        run.checkpoint, tmp_path / "a.safetensors", format="weights", threads=1
    ).thresholds


def test_a_weights_file_brings_its_thresholds_however_it_is_named(weights: Path) -> None:
    """As the file to detect with, or as the weights of the detector."""
    assert {"square": 0.06} == open_model(weights).thresholds
    assert {"square": 0.06} == open_model(detector="yolox_nano", weights=str(weights)).thresholds


def test_plain_weights_are_exported_with_their_base_classes(base_weights: Path, tmp_path: Path) -> None:
    """What `predict` opens can be exported; a file that holds nothing of the kind is an error."""
    written = export(base_weights, tmp_path / "base.safetensors", format="weights", threads=1)
    assert ("yolox_nano", 80, {}) == (written.detector, len(written.classes), written.thresholds)
    (tmp_path / "photo.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="photo.pth"):
        export(tmp_path / "photo.pth", threads=1)


def test_the_command_prints_what_was_written(run: Run, built_before: None, tmp_path: Path) -> None:
    """Text for people with the next command, one JSON document for programs."""
    done = fsod("export", run.folder, "--threads", "1", "--out", tmp_path / "a.onnx")
    assert 0 == done.exit_code, done.output
    for words in (
        "a.onnx: yolox_nano, 2 classes (square, disc), 64 px",
        "opset 17",
        "on 4 shots",
        "Next: fsod predict",
    ):
        assert words in done.stdout
    done = fsod("export", run.folder, "--threads", "1", "--format", "weights", "--json", "-q")
    document = json.loads(done.stdout)
    assert ("weights", str(run.folder / "model.safetensors")) == (document["format"], document["path"])


def test_without_the_extra_the_command_says_how_to_get_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4 and the package to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = fsod("export", run.folder, "--threads", "1", "--out", tmp_path / "a.onnx")
    assert 4 == done.exit_code
    assert "pip install 'fsod[onnx]'" in done.stderr
    assert not (tmp_path / "a.onnx").exists()


# --- examples ---


def test_onnx_predict(written: Export, shapes: Path) -> None:
    """Ten lines without fsod print what OnnxModel detects above 0.3, or above the stored threshold."""
    path = sorted((shapes / "test" / "images").glob("*.png"))[0]
    model = OnnxModel(written.path, threads=1)
    (found,) = model.detect([model.prepare(np.array(open_image(path)))])
    wanted = [
        [str(path), name, f"{score:.3f}"]
        for name, score in zip(found.names, found.scores, strict=True)
        if score >= {"square": 0.06, "disc": 0.3}[name]
    ]
    printed = [line.split("\t") for line in run_example("onnx_predict.py", written.path, path).splitlines()]
    assert wanted == [line[:3] for line in printed]
    assert wanted
    assert all(7 == len(line) for line in printed)


@pytest.mark.slow
def test_the_shell_example_counts(run: Run, shapes: Path, tmp_path: Path) -> None:
    """It exports the run, and prints each class with a number."""
    images = sorted((shapes / "test" / "images").glob("*.png"))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["sh", EXAMPLES / "onnx_predict.sh", run.folder.resolve(), *images],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    counts = {name: int(count) for count, name in map(str.split, done.stdout.splitlines())}
    assert set(counts) <= {"square", "disc"} and counts["square"] > 0
    assert (tmp_path / "model.onnx").is_file()

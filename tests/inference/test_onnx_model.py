"""Exported files as models: the same detections as PyTorch's without it, and nothing read that an export does not hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_runs import REPOSITORY, SIDE
from numpy.typing import NDArray

from fewshot_cli.datasets.images import open_image
from fewshot_cli.detectors.canvas import batch_of
from fewshot_cli.detectors.chain import Detector
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.errors import CheckpointError, ConfigError
from fewshot_cli.inference.onnx_model import OnnxModel
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.folder import Run
from fewshot_cli.verbs.export import export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that has learnt something, as an ONNX file."""
    return export(trained, tmp_path_factory.mktemp("exported") / "shapes.onnx", threads=1).path


def images_of(data: Path) -> list[NDArray[np.uint8]]:
    return [np.array(open_image(path)) for path in sorted((data / "test" / "images").glob("*.png"))]


def differences(wanted: Prediction, found: Prediction, floor: float = 0.05) -> list[tuple[float, float]]:
    """Of each detection from `floor` on: box and score differences to its partner, matched greedily, one to one."""
    free, apart = set(range(len(found))), []
    for box, score, label in zip(wanted.boxes, wanted.scores, wanted.labels, strict=True):
        if score < floor:
            break
        near = [(float(np.abs(found.boxes[i] - box).max()), i) for i in free if found.labels[i] == label]
        distance, partner = min(near, default=(np.inf, -1))
        free.discard(partner)
        apart.append((distance, abs(float(found.scores[partner]) - float(score))))
    return apart


def detect_with(detector: Detector, images: list[NDArray[np.uint8]]) -> list[Prediction]:
    canvases = [detector.make_canvas(torch.from_numpy(image).permute(2, 0, 1)) for image in images]
    found = detector.detect(batch_of(canvases), 0, canvases)
    return [
        Prediction(
            **{name: part.numpy() for name, part in image._asdict().items()}, classes=detector.classes, size=size
        )
        for image, size in zip(found, ((image.shape[1], image.shape[0]) for image in images), strict=True)
    ]


def test_detections_are_those_of_pytorch(exported: Path, trained: Run, shapes: Path) -> None:
    """Every detection from 0.05 on is within 0.5 pixels and 0.01, also in images that are scaled and padded."""
    images = images_of(shapes)
    images += [np.kron(images[0], np.ones((3, 2, 1), np.uint8)), images[1][:40], images[2][:, :30]]
    model = OnnxModel(exported, threads=1)
    found = model.detect([model.prepare(image) for image in images])
    apart = [
        pair
        for pairs in zip(detect_with(restore(trained.checkpoint)[0], images), found, strict=True)
        for pair in differences(*pairs)
    ]
    assert len(apart) > 20
    assert max(box for box, _ in apart) < 0.5
    assert max(score for _, score in apart) < 0.01
    assert [(image.shape[1], image.shape[0]) for image in images] == [image.size for image in found]


@pytest.mark.slow
def test_on_photographs_it_detects_as_pytorch_does(real: Path, tmp_path: Path) -> None:
    """YOLOX-Nano on photographs of any size: each detection from 0.05 on within 0.5 pixels of the canvas and 0.01."""
    weights = real / "weights" / "yolox_nano_coco.pth"
    model = OnnxModel(export(detector="yolox_nano", weights=str(weights), out=tmp_path / "a.onnx", threads=1).path, 1)
    detector = build_detector("yolox_nano", weights=weights)
    apart: list[tuple[float, float]] = []
    for path in sorted((real / "data" / "coco_val128").rglob("*.jpg"))[:24]:
        image = np.array(open_image(path))
        (found,) = model.detect([model.prepare(image)])
        (wanted,) = detect_with(detector, [image])
        apart += [(box * 416 / max(found.size), score) for box, score in differences(wanted, found)]
    assert len(apart) > 200
    assert max(box for box, _ in apart) < 0.5
    assert max(score for _, score in apart) < 0.01


def test_the_file_describes_itself(exported: Path, trained: Run) -> None:
    """Classes and thresholds are the run's; boxes lie in the image, labels have names, the best come first."""
    model = OnnxModel(exported)
    assert (("square", "disc"), {}) == (model.classes, model.thresholds)
    assert ("yolox_nano", SIDE) == (model.description.detector, model.description.image_size)
    (found,) = model.detect([model.prepare(np.full((20, 50, 3), 200, np.uint8))])
    assert set(found.names) <= {"square", "disc"}
    assert (found.boxes >= 0).all() and (found.boxes <= [50, 20, 50, 20]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert (np.float32, np.float32, np.int64) == (found.boxes.dtype, found.scores.dtype, found.labels.dtype)


def test_a_batch_detects_as_single_images_do(exported: Path, shapes: Path) -> None:
    """Any number of images at once, none included, gives what each gives alone."""
    model = OnnxModel(exported, threads=1)
    prepared = [model.prepare(image) for image in images_of(shapes)[:3]]
    assert [] == model.detect([])
    for whole, canvas in zip(model.detect(prepared), prepared, strict=True):
        (alone,) = model.detect([canvas])
        assert [] == [pair for pair in differences(alone, whole) if max(pair) > 1e-3]


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 900), (900, 1), (64, 64), (63, 64), (100, 37), (480, 640), (777, 333), (31, 40)]
)
@pytest.mark.parametrize("name", ["yolox_nano", "retinanet_mini", "ssd_mobilenet_v2_fpnlite"])
def test_the_canvas_is_that_of_training(name: str, size: tuple[int, int]) -> None:
    """Pixels differ by at most one level, and few of them; place, scale and padding do not differ."""
    detector = build_detector(name, weights="none", image_size=96)
    smooth = torch.rand(1, 3, *[max(2, length // 8) for length in size])
    image = (255 * torch.nn.functional.interpolate(smooth, size, mode="bicubic").clamp(0, 1)[0]).byte()
    image = image.permute(1, 2, 0).contiguous()  # as the decoder of a file leaves it
    wanted = detector.make_canvas(image.permute(2, 0, 1))
    model = OnnxModel.__new__(OnnxModel)
    model._description = describe_detector(name, detector.pad_value, 96, stretches=detector.stretches)
    found = model.prepare(image.numpy())
    apart = np.abs(found.pixels.astype(int) - wanted.pixels.numpy())
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.15
    assert (wanted.scale, wanted.size[::-1]) == (found.scale, found.size)


def describe_detector(name: str, pad: int | list[int], side: int, *, stretches: bool) -> Any:
    from fewshot_cli.inference.onnx_model import Description

    red, green, blue = pad if isinstance(pad, list) else [pad] * 3
    return Description(
        detector=name,
        classes=("a",),
        image_size=side,
        stretches=stretches,
        pad=(red, green, blue),
        thresholds={},
        nms=True,
    )


def test_pytorch_is_not_imported(exported: Path, shapes: Path) -> None:
    """Opening the file and detecting leave torch, torchvision and pydantic out of the process."""
    program = f"""
import sys
from pathlib import Path
import numpy as np
from fewshot_cli.datasets.images import open_image
from fewshot_cli.inference.onnx_model import OnnxModel
model = OnnxModel(Path({str(exported)!r}))
image = np.asarray(open_image({str(next((shapes / "test" / "images").glob("*.png")))!r}))
(found,) = model.detect([model.prepare(image)])
assert len(found)
print(sorted({{"torch", "torchvision", "pydantic", "rich", "matplotlib"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert ("[]", 0) == (done.stdout.strip(), done.returncode), done.stderr


# --- files that are no exports ---


def changed(path: Path, target: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(path)
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def redescribed(**changes: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (entry,) = model.metadata_props
        document = {**json.loads(entry.value), **changes}
        entry.value = json.dumps({key: value for key, value in document.items() if value != "gone"})

    return change


def use_external_data(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def use_foreign_operator(model: Any) -> None:
    model.graph.node[3].domain = "com.evil"
    model.opset_import.add(domain="com.evil", version=1)


def forget_metadata(model: Any) -> None:
    del model.metadata_props[:]
    model.producer_name = "tf2onnx"


def without_numbers(model: Any) -> None:
    tensor = next(each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT)
    values = np.full(tuple(tensor.dims), np.nan, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def with_half_a_tensor(model: Any) -> None:
    tensor = next(each for each in model.graph.initializer if len(each.raw_data) > 4)
    tensor.raw_data = tensor.raw_data[:3]


def rename_outputs(model: Any) -> None:
    model.graph.output[0].name = "elsewhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (forget_metadata, "is not a file of `fsod export`, but of tf2onnx"),
        (use_external_data, "keeps weights in another file. Nothing was read"),
        (use_foreign_operator, "needs operators of 'com.evil'"),
        (rename_outputs, "cannot be run"),
        (without_numbers, "holds NaN or infinite numbers"),
        (with_half_a_tensor, "is damaged"),
        (redescribed(thresholds={"square": float("nan")}), "describes itself in an unknown way"),
        (redescribed(schema=2), "schema 2, where this version of fsod reads 1"),
        (redescribed(classes="gone"), "describes itself in an unknown way"),
        (redescribed(image_size=10**9), "the image size or the padding is impossible"),
        (redescribed(thresholds=[1]), "describes itself in an unknown way"),
        (redescribed(nms=None), "was exported with --no-nms"),
    ],
)
def test_a_foreign_or_hostile_file_is_refused(
    change: Callable[[Any], None], message: str, exported: Path, tmp_path: Path
) -> None:
    """The message says what is wrong, and nothing outside the file is read."""
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(").replace(".", r"\.")):
        OnnxModel(changed(exported, tmp_path / "changed.onnx", change))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a file of `fsod export`"),
        (b"<html>no model</html>", "is damaged or no ONNX file"),
        (b"\x08\x09garbage" * 20, "is damaged or no ONNX file"),
    ],
)
def test_a_file_that_is_no_model_is_told(content: bytes, message: str, tmp_path: Path) -> None:
    """An empty file, a web page and noise each end in one error."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        OnnxModel(path)


def test_a_truncated_file_is_damaged(exported: Path, tmp_path: Path) -> None:
    """A copy that was cut ends in an error, wherever it was cut."""
    content = exported.read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "cut.onnx").write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError):
            OnnxModel(tmp_path / "cut.onnx")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A folder, a pipe and a file that is not there are told without being read."""
    os.mkfifo(tmp_path / "pipe.onnx")
    for name, message in (
        ("pipe.onnx", "is not a regular file"),
        (".", "is a folder, not a file"),
        ("no.onnx", "does not exist"),
    ):
        with pytest.raises(CheckpointError, match=message):
            OnnxModel(tmp_path / name)


def test_outputs_that_are_no_detections_are_refused(exported: Path, tmp_path: Path) -> None:
    """A file that names fewer classes than it detects ends in an error, not in a wrong name."""
    path = changed(exported, tmp_path / "few.onnx", redescribed(classes=[]))
    model = OnnxModel(path)
    with pytest.raises(CheckpointError, match="gives outputs that are no detections"):
        model.detect([model.prepare(np.zeros((SIDE, SIDE, 3), np.uint8))])


def test_a_canvas_of_another_size_is_an_error(exported: Path, tmp_path: Path) -> None:
    """A description that contradicts the graph ends in an error of the file."""
    model = OnnxModel(changed(exported, tmp_path / "large.onnx", redescribed(image_size=96)))
    with pytest.raises(CheckpointError, match="cannot be run"):
        model.detect([model.prepare(np.zeros((SIDE, SIDE, 3), np.uint8))])


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_told(package: str, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error says how to install it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"{package} is not installed") as caught:
        OnnxModel(exported)
    assert "pip install 'fsod[onnx]'" == caught.value.hint

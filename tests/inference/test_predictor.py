"""The predictor: images of every kind, and the same boxes as `eval`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_data import draw_image
from helpers_runs import REPOSITORY
from PIL import Image

from fewshot_cli import load_run
from fewshot_cli.datasets.images import open_image
from fewshot_cli.errors import CheckpointError, DataError, UsageError
from fewshot_cli.inference.opening import is_model, open_model
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.inference.predictor import open_predictor
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.folder import Run


def same(first: Prediction, second: Prediction) -> None:
    assert first.boxes.tolist() == second.boxes.tolist()
    assert first.scores.tolist() == second.scores.tolist()
    assert first.names == second.names


@pytest.fixture(scope="module")
def photos(shapes: Path) -> list[Path]:
    return sorted((shapes / "test" / "images").iterdir())


def test_a_run_detects_what_eval_detects(trained: Run, photos: list[Path]) -> None:
    """Box for box and score for score, in batches or alone."""
    expected = PlacedDetector.place(restore(trained.checkpoint)[0], "cpu").detect(photos)
    found = load_run(trained.folder).predictor(threshold=0)(photos)
    assert len(photos) == len(found) and sum(map(len, found)) > 0
    for detections, prediction in zip(expected, found, strict=True):
        assert detections.scores.tolist() == pytest.approx(prediction.scores.tolist(), abs=1e-6)
        assert detections.labels.tolist() == prediction.labels.tolist()
        np.testing.assert_allclose(detections.boxes.numpy(), prediction.boxes, atol=1e-3)


def test_every_kind_of_image_gives_the_same(trained: Run, photos: list[Path]) -> None:
    """A path, its text, a PIL image, an array, tensors of both layouts, and a list of them."""
    predictor = trained.predictor(threshold=0.01)
    image = open_image(photos[0])
    array = np.array(image)
    tensor = torch.from_numpy(array)
    first = predictor(photos[0])
    assert len(first) > 0 and (64, 64) == first.size and {"square", "disc"} >= set(first.names)
    for kind in (str(photos[0]), image, array, tensor, tensor.permute(2, 0, 1)):
        same(first, predictor(kind))
    for each in predictor([photos[0], array, image]):
        same(first, each)
    assert [] == predictor([])


def test_images_are_turned_upright(trained: Run, tmp_path: Path) -> None:
    """A file and a PIL image with an EXIF orientation alike."""
    path = tmp_path / "side.jpg"
    draw_image(path, 1, (40, 30), orientation=6)
    predictor = trained.predictor(threshold=0)
    with Image.open(path) as opened:
        same(predictor(path), predictor(opened))
    assert (30, 40) == predictor(path).size


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), DataError, "float32"),
        (np.zeros((4, 4), dtype=np.uint8), DataError, r"\(4, 4\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), DataError, r"\(0, 4, 3\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), DataError, r"\(2, 3, 8, 8\)"),
        ("nowhere.jpg", DataError, "does not exist"),
        (7, UsageError, "cannot be a int"),
    ],
)
def test_what_is_no_image_is_told(image: Any, error: type[Exception], message: str, trained: Run) -> None:
    """With what would be one."""
    with pytest.raises(error, match=message):
        trained.predictor()(image)


def test_auto_is_the_threshold_of_the_run(trained: Run, tmp_path: Path) -> None:
    """`thresholds` in result.json decide what counts, class by class; a checkpoint has those of its run."""
    run = copy_of(trained, tmp_path / "run")
    result = run.read_result()
    run.write_result({**result, "thresholds": {"square": 0.4, "disc": 0.99}})
    for what in (run, run.folder, run.checkpoint):
        keep = open_predictor(what).keep
        assert {"square": 0.4, "disc": 0.99} == keep.by_class(("square", "disc"))
    assert {"square": 0.3, "disc": 0.3} == trained.predictor().keep.by_class(("square", "disc"))


def copy_of(run: Run, folder: Path) -> Run:
    import shutil

    return Run(Path(shutil.copytree(run.folder, folder)))


def test_what_is_a_model_and_what_an_input(trained: Run, tmp_path: Path) -> None:
    """A run, a checkpoint, weights and ONNX files are models, by their name; images, videos and folders are not."""
    models = [trained.folder, trained.checkpoint, Path("yolox.pth"), Path("model.ONNX")]
    inputs = [tmp_path, Path("photo.jpg"), Path("clip.mp4"), Path("list.txt"), trained.folder / "config.json"]
    assert [True] * 4 + [False] * 5 == [is_model(path) for path in models + inputs]


def test_a_weights_file_alone_is_a_detector(base_weights: Path) -> None:
    """Which one, its tensors tell; a checkpoint detects with the classes of its run."""
    model = open_model(base_weights, device="cpu")
    assert 80 == len(model.classes) and "person" in model.classes and {} == model.thresholds


def test_weights_of_nothing_known_are_told(tmp_path: Path) -> None:
    """A file that holds tensors of something else."""
    torch.save({"w": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="of no detector in the registry"):
        open_model(tmp_path / "other.pth")


def test_an_unfinished_run_is_told(trained: Run, tmp_path: Path) -> None:
    """It has no checkpoint yet."""
    run = copy_of(trained, tmp_path / "run")
    run.checkpoint.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        run.predictor()


def test_threads_do_not_change_a_bit(trained: Run, photos: list[Path]) -> None:
    """Each image is computed alone, by one thread, in any batch."""
    found = []
    for threads in (1, 3):
        model = open_model(trained, device="cpu", threads=threads)
        prepared = [model.prepare(np.array(open_image(path))) for path in photos]
        found.append(model.detect(prepared))
        found.append([model.detect([each])[0] for each in prepared])
    for each in found[1:]:
        for first, second in zip(found[0], each, strict=True):
            same(first, second)


def test_nothing_of_predict_imports_torch_before_a_torch_model_is_opened() -> None:
    """An exported file runs without it: reading, tiles with their suppression, drawing, writing, thresholds."""
    code = """
import json, sys
import numpy as np
import fewshot_cli.verbs.predict, fewshot_cli.cli.predict
from fewshot_cli.inference.drawn_files import Drawings
from fewshot_cli.inference.prediction import Prediction
from fewshot_cli.inference.stream import detect_all
from fewshot_cli.inference.tiles import suppress
from fewshot_cli.inference.video import read_frames
from fewshot_cli.runs.folder import Run, latest_run
from fewshot_cli.progress import SilentReporter
from fewshot_cli.threads import choose_threads, usable_cores
choose_threads(None, SilentReporter(), usable_cores())
suppress(Prediction(boxes=np.zeros((1, 4), np.float32), scores=np.ones(1, np.float32), labels=np.zeros(1, np.int64),
    classes=("a",), size=(1, 1)))
print(json.dumps(sorted({"torch", "torchvision", "matplotlib", "fiftyone", "scipy", "pycocotools"} & set(sys.modules))))
"""
    environment = {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert [] == json.loads(done.stdout)

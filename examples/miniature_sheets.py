"""Contact sheets of the embedded world: its classes, some scenes, and detections in them.

    python examples/miniature_sheets.py classes scenes --out examples/images
    python examples/miniature_sheets.py detections before_after --out examples/images

`detections` shows held-out base scenes with the detections of the embedded detector, then test images of the four
novel classes with those of a 10-shot fine-tune (`symmetric 3`). `before_after` shows the same test images of one novel
class twice: with the detections of the embedded detector, and with those of the fine-tune. The images are the first
ones of each set, not selected.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from fewshot_cli.datasets.types import ImageRecord, Split
from fewshot_cli.detectors.chain import Detections, Detector
from fewshot_cli.detectors.registry import build_detector
from fewshot_cli.inference.drawing import FOUND, PAPER, Mark, marked, sheet
from fewshot_cli.inference.filtering import SCORE_THRESHOLD
from fewshot_cli.inference.placed import PlacedDetector
from fewshot_cli.runs.checkpoint import restore
from fewshot_cli.runs.config import FinetuneConfig
from fewshot_cli.runs.folder import Run
from fewshot_cli.sources.fetch import FetchRequest, fetch
from fewshot_cli.sources.miniature.classes import CLASSES, NOVEL
from fewshot_cli.sources.miniature.pen import Pen, Pose
from fewshot_cli.sources.miniature.world import HELD_OUT, TRAIN, SceneKey, draw_base_split, save_scene, to_image
from fewshot_cli.training.finetune import finetune

FILES = {
    "classes": "miniature_classes.jpg",
    "scenes": "miniature_scenes.jpg",
    "detections": "miniature_detections.jpg",
    "before_after": "before_after.jpg",
}
COLUMNS = 8
Options = dict[str, Any]
"""Options of FinetuneConfig."""


def classes() -> Image.Image:
    """Eight drawings of each class: base classes first, the novel ones last."""
    rows = [
        (f"{name}{' (novel)' if name in NOVEL else ''}", [_object(name, i) for i in range(COLUMNS)]) for name in CLASSES
    ]
    half = len(rows) // 2
    left, right = sheet(rows[:half], 72), sheet(rows[half:], 72)
    page = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), PAPER)
    page.paste(left, (0, 0))
    page.paste(right, (left.width, 0))
    return page


def _object(name: str, number: int) -> Image.Image:
    rng = Random(f"{name} {number}")
    pen = Pen(72, rng, Pose.any(rng, CLASSES[name].turn))
    CLASSES[name].draw(pen)
    drawn = pen.cut_out()
    page = Image.new("RGB", drawn.size, PAPER)
    page.paste(drawn, (0, 0), drawn)
    return page


def scenes(folder: Path) -> Image.Image:
    """Scenes with their boxes: base classes, then one row for each novel class."""
    rows = [("base classes", [_scene(SceneKey(HELD_OUT, None, i), folder) for i in range(COLUMNS)])]
    rows += [(name, [_scene(SceneKey(TRAIN, name, i), folder) for i in range(COLUMNS)]) for name in NOVEL]
    return sheet(rows, 160)


def _scene(key: SceneKey, folder: Path) -> Image.Image:
    scene = key.draw()
    save_scene(scene, key, folder)
    return marked(to_image(scene, key, folder).path, [Mark(item.box, text=item.name) for item in scene.items])


def detections(folder: Path, options: Options) -> Image.Image:
    """Ground truth (green) and detections (orange)."""
    base = draw_base_split(folder / "base", HELD_OUT, 2 * COLUMNS)
    found = _found(build_detector("retinanet_mini"), base)
    rows = [("base classes", found[:COLUMNS]), ("base classes", found[COLUMNS:])]
    for name in NOVEL:
        adapted, test = _fine_tuned(name, folder, COLUMNS, options)
        rows.append((f"{name}, after ten shots", _found(adapted, test)))
    return sheet(rows, 160)


def before_after(folder: Path, options: Options) -> Image.Image:
    """Test images of one novel class with the detections before and after a fine-tune."""
    adapted, test = _fine_tuned("tire", folder, 5, options)
    rows = [
        (
            "before: the pretrained detector, which does not know tires",
            _found(build_detector("retinanet_mini"), test),
        ),
        ("after ten labelled images (green: ground truth, orange: detections)", _found(adapted, test)),
    ]
    return sheet(rows, 200)


def _fine_tuned(name: str, folder: Path, test_images: int, options: Options) -> tuple[Detector, Split]:
    """The detector after a 10-shot fine-tune with `symmetric 3`, and the test images."""
    data = fetch(FetchRequest(source="miniature", classes=(name,), root=folder, test_images=test_images)).dataset
    config = FinetuneConfig(
        data=str(data.path),
        detector="retinanet_mini",
        policy="symmetric",
        budget=3,
        average=1.0,
        eval_every=0,
        **options,
    )
    run = Run(folder / "runs" / name)
    run.folder.mkdir(parents=True)
    run.write_config(config)
    finetune(config, run)
    return restore(run.checkpoint)[0], data.test


def _found(detector: Detector, split: Split) -> list[Image.Image]:
    results = PlacedDetector.place(detector, "cpu", "fp32").detect([image.path for image in split.images])
    return [_both(*pair, detector) for pair in zip(split.images, results, strict=True)]


def _both(image: ImageRecord, found: Detections, detector: Detector) -> Image.Image:
    marks = [Mark(tuple(box)) for box in image.boxes.tolist()]
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        if score >= SCORE_THRESHOLD:
            marks.append(Mark(tuple(box), FOUND, f"{detector.classes[label]} {score:.2f}"))
    return marked(image.path, marks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheets", nargs="+", choices=FILES)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--options", type=json.loads, default={}, help="options of every fine-tune, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        makers = {
            "classes": classes,
            "scenes": lambda: scenes(folder),
            "detections": lambda: detections(folder, options.options),
            "before_after": lambda: before_after(folder / "before_after", options.options),
        }
        for name in options.sheets:
            path = options.out / FILES[name]
            makers[name]().save(path, quality=85)
            print(path)


if __name__ == "__main__":
    main()

"""How fast `fsod predict` is against a plain loop over the same images, process start included.

    python examples/predict_speed.py photos/ --weights yolox_nano_coco.pth

The loop decodes each file with torchvision and gives it to the same detector, one image at a time, with torch's own
threads; it draws nothing. `fsod predict` runs without drawing, and as it is by default: images with boxes drawn, too.
The images of the folder are copied under new names until there are enough. All run in turn, as processes of their own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOOP, BARE, DRAWN = "plain loop", "fsod predict --no-draw", "fsod predict"
SUFFIXES = (".jpg", ".jpeg", ".png")


def plain_loop(folder: Path, detector: str, weights: str) -> None:
    """What is measured against: a JSON line for each image on stdout."""
    import torch
    from torchvision.io import ImageReadMode, decode_image

    from fewshot_cli.detectors.canvas import batch_of
    from fewshot_cli.detectors.registry import build_detector

    model = build_detector(detector, weights=weights)
    model.place(torch.device("cpu"))
    for path in sorted(folder.iterdir()):
        canvas = model.make_canvas(decode_image(str(path), ImageReadMode.RGB))
        found = model.detect(batch_of([canvas]), 0, [canvas])[0]
        print(json.dumps({"image": str(path), "boxes": found.boxes.tolist(), "scores": found.scores.tolist()}))


def copy_images(source: Path, target: Path, count: int) -> None:
    """The images below a folder, over and over under new names, `count` in all."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"no images in {source}")
    for number, path in enumerate(itertools.islice(itertools.cycle(found), count)):
        shutil.copyfile(path, target / f"{number:05}{path.suffix.lower()}")


def commands(images: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    model = ["--detector", options.detector, "--weights", options.weights]
    predict = [sys.executable, "-m", "fewshot_cli", "predict", str(images), *model, "--quiet"]
    return {
        LOOP: [sys.executable, __file__, str(images), *model, "--loop"],
        BARE: [*predict, "--no-draw"],
        DRAWN: predict,
    }


def seconds_of(command: list[str]) -> float:
    """One process from start to end, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images, e.g. of 640 pixels")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--detector", default="yolox_nano")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loop", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        plain_loop(options.folder, options.detector, options.weights)
        return
    if Path(options.weights).is_file():
        options.weights = str(Path(options.weights).resolve())

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {options.images} images")
    with tempfile.TemporaryDirectory() as folder:
        copy_images(options.folder, Path(folder), options.images)
        taken: dict[str, list[float]] = {LOOP: [], BARE: [], DRAWN: []}
        for _ in range(options.repeats):
            for name, command in commands(Path(folder), options).items():
                taken[name].append(seconds_of(command))
                print(f"{name}: {taken[name][-1]:.1f} s", file=sys.stderr, flush=True)
    loop = statistics.median(taken[LOOP])
    print("| command | shortest, s | median, s | longest, s | images/s | loop / this |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        spread = f"{min(seconds):.1f} | {middle:.1f} | {max(seconds):.1f}"
        print(f"| {name} | {spread} | {options.images / middle:.1f} | {loop / middle:.2f} |")


if __name__ == "__main__":
    main()

"""The small world that malformed input damages: images, a data set, runs, weights, exported files and a sweep."""

from __future__ import annotations

import os
from collections.abc import Callable

from fuzz_harness import Place

TINY = (
    "--weights", "none", "--image-size", "64", "--iterations", "4", "--eval-every", "2", "--batch-size", "2", "--copies", "2",
    "--device", "cpu", "--threads", "1",
)  # fmt: skip
"""Options of a fine-tune of a fraction of a second."""
LAST = (*TINY, "--policy", "last", "--budget", "1", "--no-report")
AUTO_OPTIONS = ("--policy", "auto", "--candidates", "last,symmetric", "--budget", "2")
POOL, DATA, DONE, STOPPED, AUTO, SWEEP = "pool", "data/shapes", "runs/done", "runs/stopped", "runs/auto", "sweep"
BASE, EXPORTED, ONNX, PHOTO = "base.pth", "exported.safetensors", "exported.onnx", "photo.png"
GRID = (
    "sweep", "--class", "square", "--source", "coco:pool/train", "--policy", "last", "--budget", "1", "--no-baselines",
    "--shots", "1", "--seeds", "1", "--test-images", "2", "--weights", "none", "--eval-every", "0", "--threads", "1",
    *(word for option in ("iterations=2", "copies=2", "image_size=64", "batch_size=2") for word in ("--set", option)),
)  # fmt: skip
"""A sweep of one cell."""


def _pool(place: Place) -> None:
    from helpers_runs import draw_shapes

    draw_shapes(place.work / POOL / "train", 16, seed=1)
    draw_shapes(place.work / POOL / "test", 4, seed=2)


def _data(place: Place) -> None:
    sources = ("--source", "coco:pool/train", "--test-source", "coco:pool/test", "--class", "square", "--class", "disc")
    place.succeed("fetch", *sources, "--shots", "5", "--test-images", "4", "--name", "shapes")


def _done(place: Place) -> None:
    place.succeed("finetune", "--data", DATA, *LAST, "--cross-validate", "2", "--name", "done")


def _stopped(place: Place) -> None:
    """A run that was killed after it had saved its state."""
    saved = place.work / STOPPED / "state.pt"

    def stop(child: int, _passed: float) -> None:
        if saved.exists():
            os.killpg(child, 9)

    long = (*LAST, "--iterations", "60", "--eval-every", "5")
    place.call("finetune", "--data", DATA, *long, "--name", "stopped", watch=stop)
    assert saved.exists()


def _auto(place: Place) -> None:
    place.succeed("finetune", "--data", DATA, *TINY, *AUTO_OPTIONS, "--no-report", "--name", "auto")
    assert (place.work / AUTO / "search.json").exists()


def _sweep(place: Place) -> None:
    place.succeed(*GRID)


def _base(place: Place) -> None:
    def save() -> None:
        import torch

        from fewshot_cli.detectors.registry import build_detector

        torch.save({"model": build_detector("yolox_nano", weights="none", seed=7).network.state_dict()}, BASE)

    assert place.call(main=save).code == 0


def _export(format: str, path: str) -> Callable[[Place], None]:
    return lambda place: place.succeed("export", DONE, "--format", format, "--out", path, "--threads", "1")


def _photo(place: Place) -> None:
    from helpers_data import draw_image

    draw_image(place.work / PHOTO, 3, (64, 48))


PARTS: dict[str, tuple[Callable[[Place], None], tuple[str, ...]]] = {
    POOL: (_pool, ()),
    PHOTO: (_photo, ()),
    DATA: (_data, (POOL,)),
    DONE: (_done, (DATA,)),
    STOPPED: (_stopped, (DATA,)),
    AUTO: (_auto, (DATA,)),
    SWEEP: (_sweep, (POOL,)),
    BASE: (_base, ()),
    EXPORTED: (_export("weights", EXPORTED), (DATA, DONE)),
    ONNX: (_export("onnx", ONNX), (DATA, DONE)),
}
"""Path → how it is built, and the parts that it needs."""

SLOW = ("tracking.", "ray", "openimages", "fiftyone", "__main__")
"""Parts of module names: what takes long to import, or does something when it is."""


def import_everything() -> None:
    """What a child would otherwise import by itself.

    Nothing of it may compute: torch's threads do not survive a fork.
    """
    import gc
    import pkgutil
    from importlib import import_module

    import fewshot_cli

    own = [module.name for module in pkgutil.walk_packages(fewshot_cli.__path__, "fewshot_cli.")]
    others = ("onnxruntime", "rich.progress", "rich.table", "matplotlib.pyplot", "helpers_runs", "helpers_data")
    for name in (*(name for name in own if not any(word in name for word in SLOW)), *others):
        import_module(name)
    _warm_up()
    gc.freeze()


def _warm_up() -> None:
    """What Typer and pydantic import when a command line is parsed."""
    from typer.testing import CliRunner

    from fewshot_cli.cli.app import app

    for argv in (
        ["finetune", "--lr", "x"],
        ["augment", "--scale", "1", "x"],
        ["predict", "--threads", "x"],
        ["sweep", "--set", "lr=x"],
        ["--help"],
    ):
        CliRunner().invoke(app, argv)

"""Fixtures that many tests share; each is built once a session and never written to."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Before any test adds a format or a source: the help lists those that are there when this is imported.
import fewshot_cli.cli.fetch  # noqa: F401

# One thread: tests are tiny, machines are shared, and two processes then compute the same bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples each time, and no clock: a busy machine must not turn a property false.
settings.register_profile("fsod", deadline=None, derandomize=True)
settings.load_profile("fsod")

# A shell starts background jobs deaf to Ctrl-C, and children inherit it; some tests send it to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

REAL = Path(__file__).parents[1].parent / "shared" / "real"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same random weights, alone or after others."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of squares and discs: 4 shots and 6 test images of 64 × 64 pixels."""
    from helpers_runs import draw_shapes

    folder = tmp_path_factory.mktemp("data") / "shapes"
    draw_shapes(folder / "train", 4, seed=1)
    draw_shapes(folder / "test", 6, seed=2)
    return folder


@pytest.fixture(scope="session")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A finished run on `shapes` whose mAP is above zero."""
    from helpers_runs import LEARNING, config_of, fine_tune

    return fine_tune(tmp_path_factory.mktemp("runs") / "trained", config_of(shapes, LEARNING))


@pytest.fixture(scope="session")
def base_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of yolox_nano with COCO's 80 classes, as somebody might download it."""
    import torch

    from fewshot_cli.detectors.registry import build_detector

    path = tmp_path_factory.mktemp("weights") / "base.pth"
    torch.save({"model": build_detector("yolox_nano", weights="none", seed=7).network.state_dict()}, path)
    return path


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real images and weights beside the repository."""
    if not REAL.is_dir():
        pytest.skip(f"no real images and weights at {REAL}")
    return REAL


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny CLIP of open_clip with random weights in a file, as options name it."""
    from helpers_clip import save_tiny_clip

    return save_tiny_clip(tmp_path_factory.mktemp("clip"))

"""The bounds of numbers that several commands take, each declared once.

Settings classes name them (`Option(…, within=SEED)`), the command line passes them to Typer (`**SEED.limits`), and
functions that take a plain number check it (`SEED.check("seed", seed)`).
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from fewshot_cli.errors import ConfigError, FsodError


class Limits(TypedDict):
    """Bounds by the names that Typer has for them."""

    min: int
    max: int


class Range(NamedTuple):
    """Whole numbers from `least` to `most`, both included, that are multiples of `step`."""

    least: int
    most: int
    step: int = 1

    @property
    def limits(self) -> Limits:
        """For `typer.Option`, which knows no step."""
        return {"min": self.least, "max": self.most}

    def __str__(self) -> str:
        kind = "a number" if self.step == 1 else f"a multiple of {self.step}"
        return f"{kind} that is at least {self.least:,} and at most {self.most:,}"

    def check(self, name: str, value: int, error: type[FsodError] = ConfigError) -> int:
        """The value; raises `error`, which names the option and the bounds, if it is outside."""
        if not self.least <= value <= self.most or value % self.step:
            raise error(f"{name} is {value}: give {self}", hint=f"E.g. {self.nearest(value)}.")
        return value

    def nearest(self, value: int) -> int:
        """A number of the range, near the value."""
        return min(max(value // self.step * self.step, self.least), self.most)


SEED = Range(0, 2**63 - 1)
"""What torch's generators take."""
SEEDS = Range(1, 10_000)
SHOTS = Range(1, 100_000)
TEST_IMAGES = Range(0, 1_000_000)
COPIES = Range(1, 10_000)
ITERATIONS = Range(1, 1_000_000)
EVERY = Range(0, ITERATIONS.most)
"""Iterations between two measurements; 0: one at the end."""
BATCH_SIZE = Range(1, 1024)
FOLDS = Range(0, 1000)
CONVOLUTIONS = Range(0, 10_000)
"""Of a detector; the deepest here has some hundred."""
IMAGE_SIZE = Range(64, 2048, 32)
"""Pixels: side of the square canvas. Detectors halve it five times."""
HEAD_DEPTH = Range(2, 9)
"""Layers of a head that is built, predictor included."""
HEAD_CHANNELS = Range(32, 512, 32)
CLASSES = Range(1, 10_000)
"""Of a predictor whose layers are shown; the largest public data sets have some thousand."""
DETECTIONS = Range(1, 10_000)
"""Kept of an image."""
TILE = Range(32, 100_000)
"""Pixels: side of a tile."""
OPSET = Range(17, 20)
"""Versions of ONNX's operators that PyTorch's tracing exporter writes, from the one that this project promises on."""
THREADS = Range(1, 1024)
JOBS = Range(1, 256)
"""Processes of one machine; each holds a detector."""

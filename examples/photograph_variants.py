"""What shrinking saves on photographs: variants of a large image for a canvas, and with every pixel kept.

    python examples/photograph_variants.py data/helmet

The first shot of the data set is enlarged to 4000 pixels, with its boxes; both kinds of variants are made in turn.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
from torchvision.transforms.v2 import functional as F

from fewshot_cli.augmentation.config import Augmentation
from fewshot_cli.augmentation.operations import Sample, load_sample, make_variant
from fewshot_cli.datasets.store import open_dataset


def enlarged(sample: Sample, side: int) -> Sample:
    """The longer side becomes `side` pixels."""
    height, width = sample.image.shape[-2:]
    size = [round(length * side / max(height, width)) for length in (height, width)]
    boxes = sample.boxes * torch.tensor([size[1] / width, size[0] / height] * 2)
    return Sample(F.resize(sample.image, size), boxes, sample.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set made by fsod fetch")
    parser.add_argument("--canvas", type=int, default=416, help="the detector's, pixels")
    parser.add_argument("--side", type=int, default=4000, help="longer side of the photograph, pixels")
    parser.add_argument("--variants", type=int, default=24)
    options = parser.parse_args()

    sample = enlarged(load_sample(open_dataset(options.data).train.images[0]), options.side)
    seconds: dict[int | None, list[float]] = {None: [], options.canvas: []}
    for key in range(options.variants):
        for canvas, taken in seconds.items():
            started = time.perf_counter()
            make_variant(sample, Augmentation(), (key,), canvas=canvas)
            taken.append(time.perf_counter() - started)
    whole, shrunk = (statistics.fmean(taken) for taken in seconds.values())
    height, width = sample.image.shape[-2:]
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(
        f"{width} × {height} pixels, mean of {options.variants}: every pixel {whole:.2f} s a variant, for a canvas of"
        f" {options.canvas} {shrunk:.3f} s, ratio {whole / shrunk:.1f}"
    )


if __name__ == "__main__":
    main()

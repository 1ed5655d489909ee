"""`python -m fewshot_cli.sources.miniature FOLDER`: the held-out base scenes as COCO, to measure a base detector on."""

from __future__ import annotations

import argparse
from pathlib import Path

from fewshot_cli.sources.miniature.world import HELD_OUT, PRETRAIN, draw_base_split


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fewshot_cli.sources.miniature", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=(HELD_OUT, PRETRAIN), default=HELD_OUT)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    split = draw_base_split(options.folder, options.part, options.count)
    print(f"{options.folder}: {len(split.images)} images, {sum(len(p.boxes) for p in split.images)} boxes")


if __name__ == "__main__":
    main()

"""How much time and memory the box CSV of Open Images' train split takes: the reader of `fsod fetch` on a made-up
file of the same size, 14.6 million rows.

    python examples/openimages_csv_memory.py                 # writes 2.3 GB into the folder for temporary files
    python examples/openimages_csv_memory.py --rows 1000000

`--share` is the part of the rows that are of the class: by default a rare class, then a very common one.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fewshot_cli.sources.openimages.boxes import FLAGS, find_rows, read_boxes

ROWS = 14_610_229
HELMET = "/m/0zvk5"
HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax," + ",".join(FLAGS.values())
CLICKS = "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
CLICKED = ",0.512345,0.612345,0.712345,0.812345,0.112345,0.212345,0.312345,0.412345\n"
MARKS = ("0,0,0,0,0", "0,0,0,0,0", "1,0,0,0,0", "0,1,0,0,0", "1,1,0,0,0", "0,0,1,0,0", "-1,-1,-1,-1,-1")


def write_boxes(path: Path, rows: int, share: float) -> None:
    """A box CSV with the columns of the train split: about eight boxes an image, `share` of them helmets."""
    chance = random.Random(0)
    others = [f"/m/0{number:04x}" for number in range(600)]
    with path.open("w", encoding="ascii") as stream:
        stream.write(f"{HEADER},{CLICKS}\n")
        while rows > 0:
            block = []
            for _ in range(min(rows, 8)):
                label = HELMET if chance.random() < share else others[int(chance.random() * 600)]
                x, y = 0.8 * chance.random(), 0.8 * chance.random()
                marks = MARKS[int(chance.random() * len(MARKS))]
                block.append(f"xclick,{label},1,{x:.6f},{x + 0.15:.6f},{y:.6f},{y + 0.15:.6f},{marks}{CLICKED}")
            image = f"{chance.getrandbits(64):016x},"
            stream.write(image + image.join(block))
            rows -= len(block)


def read(path: Path) -> None:
    """Survey the file and read the boxes of a hundred images, as fetch does; print seconds and peak memory."""
    before = _peak()
    start = time.perf_counter()
    found = find_rows(path, [HELMET])[0]
    good = found.ids[~found.bad(())]
    surveyed = time.perf_counter()
    boxes, _ = read_boxes(path, [found], good[:100].tolist())
    end = time.perf_counter()
    print(f"{path.stat().st_size / 1e9:.2f} GB; {len(found.row_ids):,} rows of the class, {len(good):,} usable images")
    print(f"survey {surveyed - start:.1f} s; boxes of {len(boxes)} images {end - surveyed:.3f} s")
    print(f"peak memory {_peak():.0f} MB, of which {before:.0f} MB are Python and NumPy before the first byte")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--share", type=float, nargs="*", default=[0.0005, 0.1], help="of rows of the class")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read)
        return
    for share in arguments.share:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train-annotations-bbox.csv"
            start = time.perf_counter()
            write_boxes(path, arguments.rows, share)
            print(
                f"\n{arguments.rows:,} rows, {share:.2%} of the class; written in {time.perf_counter() - start:.0f} s"
            )
            # A process of its own, so that the peak is that of reading alone.
            subprocess.run([sys.executable, __file__, "--read", str(path)], check=True)


if __name__ == "__main__":
    main()

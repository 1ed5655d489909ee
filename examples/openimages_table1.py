"""The paper's Table I on its own ground: Open Images, RetinaNet-R50-FPN at 640 × 640, 10 shots, 100 test images.

    python examples/openimages_table1.py                     # downloads about 3,000 images; meant for a GPU
    python examples/openimages_table1.py --seeds 1 --mirror http://HOST/copy --weights none

A stopped sweep continues where it was; its folder holds tables, curves and report.html. At the end its means stand
beside the paper's. The detectors are cousins, not twins (torchvision's RetinaNet against the SSD of
TensorFlow's zoo), and the paper does not say which images it drew: compare the order of the setups, not the level.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.table import Table

from fewshot_cli.cli.console import Console
from fewshot_cli.errors import FsodError
from fewshot_cli.report.sweep import write_report
from fewshot_cli.report.table1 import LEGEND, rich_differences, rich_table
from fewshot_cli.sweeps.cells import Setup
from fewshot_cli.sweeps.run import sweep
from fewshot_cli.sweeps.summary import Summary

PAPER = {
    "coffee cup": (0.759, 0.740, 0.782, 0.748, 0.766, 0.736, 0.756),
    "bird": (0.455, 0.470, 0.478, 0.458, 0.477, 0.457, 0.474),
    "helmet": (0.017, 0.069, 0.110, 0.109, 0.150, 0.146, 0.157),
    "tire": (0.030, 0.270, 0.403, 0.361, 0.445, 0.426, 0.466),
    "fish": (0.240, 0.302, 0.330, 0.335, 0.337, 0.331, 0.390),
    "flower": (0.170, 0.217, 0.253, 0.262, 0.271, 0.275, 0.280),
}
"""mAP of each class in the paper's Table I, in the order of SETUPS; one draw of the shots."""
SETUPS = (
    Setup("last", 1),
    Setup("last", 2),
    Setup("symmetric", 2),
    Setup("last", 3),
    Setup("symmetric", 3),
    Setup("last", 4),
    Setup("symmetric", 4),
)


def beside_the_paper(summary: Summary) -> Table:
    """Our means and the paper's figures, setup by setup; our baselines have no counterpart there."""
    table = Table(title="Ours | the paper's, mAP@[.50:.95]", title_justify="left")
    average = [name for name in ("avg",) if name in summary.averages]
    for name in ("setup", *summary.classes, *average):
        table.add_column(name, justify="left" if name == "setup" else "right")
    for row in summary.rows:
        theirs = [PAPER[name][SETUPS.index(row.setup)] for name in summary.classes] if row.setup in SETUPS else []
        theirs += [sum(theirs) / len(theirs) for _ in average if theirs]
        ours = [row.columns[name] for name in (*summary.classes, *average)]
        cells = [f"{one.mean:.3f}" if one else "–" for one in ours]
        cells = [f"{one} | {other:.3f}" for one, other in zip(cells, theirs, strict=True)] if theirs else cells
        table.add_row(str(row.setup), *cells)
    return table


def run(options: argparse.Namespace, console: Console) -> int:
    """Run what is missing, write and print the tables; the exit code."""
    result = sweep(
        options.classes or list(PAPER),
        source="openimages",
        out=options.out,
        preset="table1",
        seeds=options.seeds,
        detectors=(options.detector,),
        weights=options.weights,
        test_images=options.test_images,
        eval_every=options.eval_every,
        options={"image_size": options.image_size, "iterations": options.iterations, **options.options},
        fetch_options={"split": options.split, "mirror": options.mirror},
        engine=options.engine,
        address=options.address,
        jobs=options.jobs,
        device=options.device,
        reporter=console,
    )
    for failure in result.failures:
        console.warn(f"{failure.cell}: {failure.message}")
    files = write_report(result.folder, result.summaries, result.results)
    console.result(
        {"files": [str(file) for file in files]},
        *(rich_table(summary) for summary in result.summaries),
        LEGEND,
        *(rich_differences(summary) for summary in result.summaries if summary.comparisons),
        *(beside_the_paper(summary) for summary in result.summaries),
        f"Written: {', '.join(str(file) for file in files)}",
    )
    return result.failures[0].exit_code if result.failures else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", dest="classes", action="append", choices=list(PAPER), help="default: all six")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--split", default="validation", help="of the shots; train has more images and 3 GB of lists")
    parser.add_argument("--mirror", default="", help="a copy of Open Images with the original paths")
    parser.add_argument("--detector", default="retinanet_resnet50_fpn")
    parser.add_argument("--weights", default="default", help="default (torchvision's COCO weights), none, or a file")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--options", type=json.loads, default={}, help="further options of every fine-tune, as JSON")
    parser.add_argument("--test-images", type=int, default=100)
    parser.add_argument("--eval-every", type=int, default=50)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, help="processes on this machine, without a cluster")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--address", help="of the Ray cluster")
    parser.add_argument("--out", type=Path, default=Path("sweep/openimages"))
    options = parser.parse_args()
    console = Console(json=False, quiet=False)
    try:
        raise SystemExit(run(options, console))
    except FsodError as error:
        console.warn(f"{error.message} {error.hint or ''}")
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()

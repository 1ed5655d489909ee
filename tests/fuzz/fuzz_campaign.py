"""The campaign: all cases, a sample of them, or one by its name.

    PYTHONPATH=.:tests:tests/fuzz python tests/fuzz/fuzz_campaign.py "option: fetch --shots word"

prints one JSON line a case, with what is wrong with it; `--sample N` runs up to N of every class.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from fuzz_harness import Case, Place, faults
from fuzz_images import images
from fuzz_labels import labels, yaml
from fuzz_options import config_files, options, sets, syntax
from fuzz_own_files import own_files
from fuzz_paths import paths
from fuzz_weights import weights
from fuzz_world import BASE, DATA, DONE, PARTS, PHOTO, POOL, import_everything

CLASSES = (options, syntax, sets, config_files, paths, labels, yaml, images, weights, own_files)
QUICK = frozenset((POOL, DATA, DONE, PHOTO, BASE))
"""Parts of the world that are built in a second or two."""


def cases() -> Iterator[Case]:
    """All of them, always the same; commands that the product does not have are left out."""
    from fewshot_cli.cli.commands import COMMANDS

    for make in CLASSES:
        yield from (case for case in make() if case.argv[0] in COMMANDS or case.kind == "option")


def sample(most: int, *, quick: bool = False) -> list[Case]:
    """At most that many of each class, in an order of no meaning; `quick`: where the world that they need is."""
    kinds: dict[str, list[Case]] = {}
    for case in cases():
        if not quick or QUICK.issuperset(case.parts):
            kinds.setdefault(case.kind, []).append(case)
    chosen = [case for same in kinds.values() for case in Random(19).sample(same, min(most, len(same)))]
    return Random(19).sample(chosen, len(chosen))


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    chosen = list(cases()) if given.list else sample(given.sample, quick=given.quick)
    chosen += [case for case in cases() if any(name in case.name for name in given.names)]
    if given.list:
        print("\n".join(case.name for case in chosen))
        return
    import_everything()
    base = given.folder or Path(tempfile.mkdtemp())
    try:
        place = Place(base.resolve(), PARTS)
        for case in chosen:
            outcome = place.run(case)
            line = {
                "name": case.name,
                "code": outcome.code,
                "faults": faults(case, outcome),
                "seconds": outcome.seconds,
                "memory": outcome.memory >> 20,
            }
            print(
                json.dumps({**line, "stderr": outcome.stderr[-1500:], "argv": [word[:200] for word in case.argv]}),
                flush=True,
            )
    finally:
        if not given.folder:
            shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()

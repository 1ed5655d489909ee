"""Studies: sweeps whose figures are those of a publication, and whose page judges its claims.

To add one: write a module beside this one with a `STUDY` (see contract.py), and add a line to STUDIES. `fsod sweep
--preset NAME` then runs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewshot_cli.sweeps.studies.contract import Study

STUDIES = {
    "stages": "trainable stages of the backbone by amount of data",
    "subsets": "disjoint subsets of the data, each trained on several times",
    "pretraining": "pretrained backbone against one from scratch, by amount of data",
    "freeze-depth": "number of frozen convolutions, and drift, by pretraining",
    "frozen-backbone": "frozen against fine-tuned backbone, by capacity of neck and head",
}
"""Name → what it varies."""


def get_study(name: str) -> Study:
    """The study of that name, one of STUDIES."""
    study: Study = import_module(f"fewshot_cli.sweeps.studies.{name.replace('-', '_')}").STUDY
    return study

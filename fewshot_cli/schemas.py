"""The JSON documents that fsod prints or leaves on disk, each a type in the module that makes it.

    {"schema": schema_of(Result), "run": "runs/helmet", …}

`schema` names the kind of a document and its version: keys are added to a version, never taken away or changed in
meaning. Documents written before there was `schema` are read all the same. The command reference lists these types
(`cli.reference`), and tests hold real documents against them. Documents and their parts are `TypedDict`s, or
dataclasses that are written field by field; every key has a `Doc`. Paths are texts; null is None.

A new document is one class and one line in DOCUMENTS.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import get_args

from typing_extensions import get_type_hints

DOCUMENTS = (
    ("sources.results", "Fetched"),
    ("datasets.record", "DatasetRecord"),
    ("cli.augment", "Augmented"),
    ("runs.result", "Result"),
    ("runs.result", "RunConfig"),
    ("verbs.evaluate", "Evaluated"),
    ("verbs.compare", "Compared"),
    ("cli.report", "Reported"),
    ("verbs.predict", "Predicted"),
    ("verbs.export", "Export"),
    ("cli.inspect_layers", "Detectors"),
    ("verbs.inspect", "Chain"),
    ("verbs.drift", "Drifted"),
    ("sweeps.run", "Swept"),
    ("cli.sweep", "SweepPlan"),
    ("sweeps.summary", "SweepTable"),
    ("sweeps.pivot", "PivotTable"),
    ("sweeps.folder", "SweepRecord"),
    ("demo", "Demonstrated"),
    ("cli.app", "Failed"),
)
"""Module and class of every document, in the order of the reference."""


@lru_cache
def documents() -> dict[str, type]:
    """The type of every document by its `schema`; imports all of the package that makes documents."""
    kinds = [getattr(import_module(f"fewshot_cli.{module}"), name) for module, name in DOCUMENTS]
    return {schema_of(kind): kind for kind in kinds}


@lru_cache
def schema_of(kind: type) -> str:
    """What a document of that kind holds as `schema`: `fsod/NAME/VERSION`."""
    name: str = get_args(get_type_hints(kind)["schema"])[0]
    return name

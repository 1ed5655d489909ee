"""JSON documents: what commands print and leave on disk is what the schemas say, and old keys stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from helpers_data import draw_coco
from helpers_runs import TINY, argv_of, fsod
from pydantic import TypeAdapter
from typing_extensions import NotRequired, get_type_hints, is_typeddict

from fewshot_cli import demo
from fewshot_cli.cli.reference import reference
from fewshot_cli.datasets.store import open_dataset
from fewshot_cli.errors import DatasetError
from fewshot_cli.progress import SilentReporter
from fewshot_cli.runs.folder import load_run
from fewshot_cli.schemas import documents as described

Documents = dict[str, list[Any]]
FROZEN = Path(__file__).parent / "schemas.json"
"""The keys of version 1, `?` behind those that may be missing. A line may be added here, never taken away."""

GRID = (
    *("sweep", "--class", "cat", "--source", "coco:own", "--policy", "last", "--budget", 1, "--shots", 3),
    *("--seeds", 2, "--no-baselines", "--test-images", 3, "--weights", "none", "--eval-every", 0),
    *("--set", "iterations=1", "--set", "image_size=64", "--set", "copies=1", "--threads", 1),
)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Documents]:
    """What every command prints and leaves on disk in a tiny project, by the `schema` that it names."""
    folder, patch = tmp_path_factory.mktemp("project"), pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setenv("FSOD_CACHE", str(folder / "cache"))
    found: Documents = {}
    for document in _made_in(folder):
        found.setdefault(document["schema"], []).append(document)
    yield found
    patch.undo()


def _made_in(folder: Path) -> Iterator[Any]:
    draw_coco(folder / "own", [["cat", "dog"]] * 8)
    fetch = ("fetch", "--source", "own", "--class", "cat", "--shots", 4, "--test-images", 3, "--name", "cats")
    yield _printed(*fetch, "--check")
    yield _printed(*fetch)
    yield _read("data/cats/dataset.json")
    yield _printed("fetch", "--source", "own", "--class", "all", "--fraction", 0.5, "--name", "half")
    yield _read("data/half/dataset.json")
    yield _printed("augment", "data/cats", "--copies", 2, "--out", "data/more")
    yield _printed("augment", "data/cats", "--preview")
    yield _read("data/more/dataset.json")
    tiny = {**TINY, "iterations": 2, "eval_every": 0, "threads": 1}
    yield _printed(*argv_of(Path("data/cats"), tiny, cross_validate=2, name="run"), "--no-report")
    yield _read("runs/run/config.json")
    yield _read("runs/run/result.json")
    yield _printed("eval", "runs/run", "--threads", 1)
    yield _printed("predict", "runs/run", "data/cats/test/images", "--out", "found", "--threads", 1)
    yield _read("found/predict.json")
    yield _printed("export", "runs/run", "--format", "weights", "--threads", 1)
    yield _printed("export", "runs/run", "--threads", 1)
    yield _printed("inspect-layers")
    yield _printed("inspect-layers", "yolox_nano", "--policy", "symmetric", "--keep-base-classes")
    yield _printed("inspect-layers", "runs/run", "--against", "base")
    _printed(*argv_of(Path("data/cats"), tiny, seed=1, name="other"), "--no-report")
    yield _printed("compare", "runs/run", "runs/other", "--page", "both.html")
    yield _printed("report", "runs/run")
    swept = _printed(*GRID)
    yield swept
    yield from swept["tables"]
    yield from _read("sweep/table.json")
    yield _read("sweep/sweep.json")
    yield _printed(*GRID, "--dry-run")
    varied = _printed(*GRID, "--vary", "train_neck=no,yes", "--out", "varied")
    yield varied
    yield from varied["pivots"]
    yield from _read("varied/table.json")
    yield _read("varied/sweep.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SHOTS", 1)
        short = {"iterations": 1, "test_images": 1, "copies": 1, "threads": 1}
        yield demo.run_demo(folder / "demo", seed=0, reporter=SilentReporter(), **short).to_json()
    yield _printed("eval", "nowhere")
    yield _problems()


def _printed(*arguments: Any) -> Any:
    return json.loads(fsod(*arguments, "--json").stdout)


def _read(path: str) -> Any:
    return json.loads(Path(path).read_text("utf-8"))


def _problems() -> Any:
    """The document of an error that lists problems."""
    Path("damaged/images").mkdir(parents=True)
    Path("damaged/annotations.json").write_text(json.dumps({"images": [{}], "annotations": [], "categories": []}))
    document = _printed("fetch", "--source", "coco:damaged", "--class", "cat")
    assert DatasetError.__name__ == document["error"]["type"]
    return document


@pytest.mark.parametrize("schema", described())
def test_documents_are_exactly_what_their_schema_says(schema: str, documents: Documents) -> None:
    """Every key has the type that is described, none is missing, and there is no other."""
    kind = TypeAdapter(described()[schema])
    for document in documents[schema]:
        checked = kind.validate_json(json.dumps(document), strict=True)
        # Keys that the type does not know are dropped.
        assert json.loads(kind.dump_json(checked)) == document


def test_every_document_names_a_schema_that_is_listed(documents: Documents) -> None:
    """Nothing is printed that the reference does not describe."""
    assert described().keys() == documents.keys()


def test_no_key_of_version_1_has_vanished() -> None:
    """What a script reads today is there tomorrow, and what is always there is never left out."""
    old = {schema: set(keys) for schema, keys in json.loads(FROZEN.read_text("utf-8")).items()}
    now = {schema: set(_keys(kind)) for schema, kind in described().items()}
    assert {schema: keys - now[schema] for schema, keys in old.items()} == {schema: set() for schema in old}


def test_new_keys_are_frozen_too() -> None:
    """Whoever adds a key writes it down in schemas.json, from where on it stays."""
    old = {schema: set(keys) for schema, keys in json.loads(FROZEN.read_text("utf-8")).items()}
    now = {schema: set(_keys(kind)) for schema, kind in described().items()}
    assert {schema: keys - old.get(schema, set()) for schema, keys in now.items()} == {schema: set() for schema in now}


def _keys(kind: Any, before: str = "") -> Iterator[str]:
    """Every key with those around it: `parameters.trained`, `candidates[].name`, `page?`."""
    for key, hint in get_type_hints(kind, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        name = f"{before}{key}{'?' if optional else ''}"
        yield name
        yield from _inner(hint, name)


def _inner(hint: Any, name: str) -> Iterator[str]:
    if is_typeddict(hint) or (isinstance(hint, type) and is_dataclass(hint)):
        yield from _keys(hint, f"{name}.")
        return
    inside = {list: "[]", dict: "{}"}.get(get_origin(hint), "")
    for each in get_args(hint):
        yield from _inner(each, f"{name}{inside}")


def test_every_key_is_described_in_the_reference() -> None:
    """Each document has a section, each key a row with a meaning."""
    text = reference()
    for schema, kind in described().items():
        section = text.partition(f"\n### {schema}\n")[2].partition("\n### ")[0]
        for key in get_type_hints(kind):
            row = next(line for line in section.splitlines() if line.startswith(f"| `{key}`"))
            assert row.split(" | ")[2].removesuffix(" |").strip()


def test_documents_from_before_there_were_schemas_are_read(documents: Documents) -> None:
    """A run, a data set and a sweep without `schema` and without the keys that came with it work as they did."""
    for path in ("data/cats/dataset.json", "runs/run/config.json", "runs/run/result.json", "sweep/sweep.json"):
        document = _read(path)
        for key in ("schema", "environment", "caveats", "ap_interval", "boxes", "generalisation_gap", "cached_mb"):
            document.pop(key, None)
        Path(path).write_text(json.dumps(document))
    assert ("cat",) == open_dataset("data/cats").classes
    run = load_run("runs/run")
    assert "yolox_nano" == run.read_config().detector
    assert 0 == fsod("finetune", "--resume", "runs/run").exit_code
    assert 0 == fsod(*GRID).exit_code


def test_a_small_test_set_is_named_wherever_a_map_stands(documents: Documents) -> None:
    """A run, an evaluation and a table on three test images say so, in the same sentence."""
    places = ("fsod/result/1", "fsod/eval/1", "fsod/sweep-table/1")
    said = {tuple(document["caveats"]) for place in places for document in documents[place]}
    assert 1 == len(said)
    assert said.pop()[0].startswith("3 test images with 3 boxes: too few")


def test_a_run_and_its_evaluation_have_the_same_environment(documents: Documents) -> None:
    """What `finetune` recorded and what `eval` computed with can be compared key by key, the hash of the test data too."""
    trained, measured = documents["fsod/result/1"][0]["environment"], documents["fsod/eval/1"][0]["environment"]
    assert {"train", "test"} == trained["data"].keys()
    assert {**trained, "data": {"test": trained["data"]["test"]}} == measured
    assert {"fsod", "python", "torch", "torchvision", "numpy", "pycocotools", "pillow"} <= trained["versions"].keys()
    assert 1 == trained["threads"]

"""The public API: what a notebook imports."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers_runs import REPOSITORY

import fewshot_cli

FUNCTIONS = [
    "augment",
    "compare",
    "evaluate",
    "export",
    "fetch",
    "finetune",
    "load_run",
    "open_dataset",
    "predict",
    "sweep",
]
ERRORS = [
    "CheckpointError", "ConfigError", "DataError", "DatasetError", "DivergedError", "FsodError", "ModelError",
    "NetworkError", "PolicyError", "StorageError", "UsageError",
]  # fmt: skip


def test_the_list_of_public_names() -> None:
    """Ten functions and eleven errors; another name is a decision, not an accident."""
    assert [*ERRORS, *FUNCTIONS] == fewshot_cli.__all__
    assert {*fewshot_cli.__all__, "__version__"} == set(dir(fewshot_cli))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed_and_documented(name: str) -> None:
    """Each parameter has a type and is named in the docstring, which also says what is raised."""
    function = getattr(fewshot_cli, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert [] == [each.name for each in signature.parameters.values() if each.annotation is inspect.Parameter.empty]
    text = inspect.getdoc(function) or ""
    assert "Raises:" in text or "raises" in text
    if len(signature.parameters) > 1:
        assert "Args:" in text
        assert [] == [
            each for each in signature.parameters if not re.search(rf"\b{each}\b", text.partition("Args:")[2])
        ]


def test_importing_the_package_imports_nothing_heavy() -> None:
    """Neither torch nor NumPy, pydantic, Rich or Typer; the name of a function does not change that."""
    heavy = "{'torch', 'numpy', 'pydantic', 'rich', 'typer', 'PIL'}"
    code = f"import sys, fewshot_cli; from fewshot_cli import ConfigError; sys.exit(bool({heavy} & set(sys.modules)))"
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    assert 0 == subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="no attribute 'predict_everything'"):
        _ = fewshot_cli.predict_everything


def test_the_package_says_that_it_is_typed() -> None:
    """PEP 561: type checkers look for this file."""
    assert (Path(fewshot_cli.__file__).parent / "py.typed").is_file()


def test_a_run_comes_back_by_its_folder(trained: Any) -> None:
    """`load_run` finds what `finetune` left; a run stands for its folder wherever one is expected."""
    run = fewshot_cli.load_run(trained.folder)
    assert trained.result == run.result
    assert trained.folder == Path(run)
    measured = fewshot_cli.evaluate(run, device="cpu")
    assert run.result["ap"] == pytest.approx(measured.metrics.ap, abs=1e-6)
    assert str(run.folder) == measured.measured
